"""Arcade: small games of skill, seen as a picture of cells."""
