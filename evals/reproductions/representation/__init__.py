"""Reproductions of what is learned from pictures."""
