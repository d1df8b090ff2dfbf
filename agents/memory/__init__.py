"""Memory: the replay buffer, and the sum tree for prioritised sampling.

What is stored in it comes from ``selfplay``'s collector; losses computed from it belong to the algorithms.
"""
