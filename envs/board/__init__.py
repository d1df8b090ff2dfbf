"""Board games for two seats that move in turn, with full information: one file per game, all by the same conventions.

``conventions`` holds what they share: turns, outcomes, observation planes, names of cells, symmetries, boards as text.
Go's tables and drawing are in files of their own. Games with hidden information, chance or simultaneous moves do not
belong here, nor do searches that play these games.
"""
