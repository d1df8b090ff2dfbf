"""Meta-training: runs whose result is a learned update rule instead of an agent."""
