"""Tests of ``evals/play``."""
