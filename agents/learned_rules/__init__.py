"""Update rules that are learned: LPG's network, the agents that it teaches, and the gradient by which it is trained.

``mlbits train lpg`` uses a rule (:mod:`mlbits.agents.lpg`); ``mlbits meta-train lpg`` makes one
(:mod:`mlbits.selfplay.meta.training`).
"""
