"""Diplomacy files: saved games, test positions, one-line positions and replay pages."""
