"""Planning: solvers that use a known model of the environment; agents that learn from play belong in ``agents``."""
