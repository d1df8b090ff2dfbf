"""The self-play loop: how agents meet games, and what a run leaves behind."""
