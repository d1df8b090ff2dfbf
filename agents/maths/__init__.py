"""Maths shared by algorithms: returns, action distributions and return distributions; no networks."""
