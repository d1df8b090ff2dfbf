"""Game theory: solutions and ratings of games given as payoffs."""
