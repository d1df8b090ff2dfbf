"""Tournaments: pairings, the stored match table, and standings."""
