"""Training: the loop in which agents play games, collection of experience, lineups of players, and statistics.

``league`` chooses opponents; ``runs`` holds what a run writes to disk. Learning algorithms belong in ``agents``,
measurements of how good an agent is in ``evals``.
"""
