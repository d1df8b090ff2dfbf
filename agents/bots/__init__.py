"""Bots: players that never learn."""
