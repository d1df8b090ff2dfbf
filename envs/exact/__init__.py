"""Exact models of games, read off their rules: transition tables, joint states, sequence and normal forms."""
