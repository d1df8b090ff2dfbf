"""Doors: the interfaces through which other libraries and our agents reach the games, and others' environments ours."""
