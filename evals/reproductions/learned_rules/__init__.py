"""Reproductions about learned update rules: what a rule is worth in levels it never met, and what it predicts."""
