"""The league: pools of opponents, matchmaking, and win rates. Agents and the training loop belong elsewhere."""
