"""Tournaments: entrants, pairings, the stored match table, payoff matrices and standings; no training, no solvers."""
