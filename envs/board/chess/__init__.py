"""Chess, with all its rules; ``game`` declares the environment.

``bitboards``, ``actions``, ``movement`` and ``position`` are the compiled rules, from attacks up to a whole move;
``perft`` counts games. ``fen``, ``notation`` (UCI and SAN) and ``pgn`` read and write positions, moves and games as
text; ``drawing`` and ``silhouettes`` are the picture. Searches and engines do not belong here.
"""
