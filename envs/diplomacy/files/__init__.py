"""Diplomacy files: saved games, test vectors, one-line positions and replay pages. Drawings are in ``drawing``."""
