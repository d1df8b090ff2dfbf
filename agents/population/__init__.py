"""Populations: many policies of one form that learn side by side, and what makes them differ.

``es`` (evolution strategies) and ``dvd`` (TD3) train a few members, with or without a reward for diversity
(``diversity``); ``map_elites`` fills an archive with many. ``policies`` decides for all of them in one batch, each with
its own weights.
"""
