"""Runs: folders, settings, checkpoints, curves and saved agents."""
