"""Planning in games of simultaneous moves: sampled best response, policy iteration with it, equilibrium search."""
