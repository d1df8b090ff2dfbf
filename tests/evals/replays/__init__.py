"""Tests of ``evals/replays``."""
