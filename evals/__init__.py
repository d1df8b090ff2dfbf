"""Evaluation: how good agents are and how fast everything runs."""
