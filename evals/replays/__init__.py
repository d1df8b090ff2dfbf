"""Replays: a game as one page that opens anywhere, and whether such a page tells the truth."""
