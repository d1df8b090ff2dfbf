"""Reproductions with agents that look ahead by the rules."""
