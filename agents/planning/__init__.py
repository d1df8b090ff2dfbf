"""Planning: agents and solvers that use a known model."""
