"""Agents that learn from a dataset without playing: one algorithm per file, on what all of them share."""
