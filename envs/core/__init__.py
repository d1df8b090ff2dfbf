"""The core: what a game is declared with (rules, randomness, spaces, settings, drawing). Nothing here runs a game."""
