"""Reproductions about exploration: noisy televisions, labyrinths, a treasure that chance does not find."""
