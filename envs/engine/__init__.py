"""The engine: compiled drivers that step, reset and observe all copies of a game, on the CPU and on a GPU."""
