"""Tests of ``evals/play/web``."""
