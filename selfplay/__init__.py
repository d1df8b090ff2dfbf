"""The self-play loop: how agents meet games, and what a run leaves behind.

``league`` chooses opponents, ``runs`` keeps what is on the disk. How good an agent is, evals say.
"""
