"""Rollouts and updates as CUDA graphs."""
