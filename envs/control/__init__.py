"""Classic control: a pole on a cart, a pendulum, a point mass."""
