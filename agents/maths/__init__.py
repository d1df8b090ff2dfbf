"""Maths shared by algorithms: returns, action and return distributions, natural gradients; no networks."""
