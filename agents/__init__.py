"""Agents: who plays. One file an algorithm; shared maths in returns, networks and distributions."""
