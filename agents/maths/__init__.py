"""Maths that algorithms share: returns, action distributions, return distributions, natural gradients."""
