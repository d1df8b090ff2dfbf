"""Stable-Baselines3's algorithms and policies as agents."""
