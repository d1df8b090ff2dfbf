"""Reproductions of learning from data."""
