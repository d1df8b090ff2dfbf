"""Game theory of games given as payoffs: equilibria, exploitability, alpha-rank, Elo; agents are measured elsewhere."""
