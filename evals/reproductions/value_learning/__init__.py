"""Reproductions of agents that learn values: overestimation, SAC, hindsight, normalised inputs."""
