"""Doors: the interfaces to the games (Gymnasium, PettingZoo, Stable-Baselines3), and other environments as batches.

Rules of games and the loop that steps them do not belong here; a door only translates.
"""
