"""Levels: many small worlds of one kind, each a function of its number, for agents and rules that learn over many.

``collect_objects`` is a gridworld game; ``layouts`` holds ten worlds of Oh et al. (2020), ``distributions`` draws
levels by number, ``catalogue`` lists all of them by name with the delayed chains, and ``worlds`` steps a different
level in every lifetime.
"""
