"""Bots: players that never learn, as opponents and baselines; agents that learn belong in ``agents`` itself."""
