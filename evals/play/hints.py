"""Hints for a person at the board: the best moves by a search, with their values and visits, or what is proven."""

from __future__ import annotations

from typing import Any

import torch

from mlbits.agents import make_bot
from mlbits.agents.agent import Agent
from mlbits.agents.search.player import can_search, searched
from mlbits.agents.search.trees import DRAW, LOSS, WIN
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.game import Game
from mlbits.evals.play.table import Table

_WORDS = {WIN: "won", LOSS: "lost", DRAW: "drawn"}
_MOST = 5  # moves of a hint
_SIMULATIONS = 200  # of an agent that does not plan when it plays


def adviser(agent: Agent | None, game: Game) -> Any:
    """Who gives hints: the agent with its search, or else the bot that searches by random games.

    Where the game cannot be searched it is a trained agent with its policy, or nobody (None).
    """
    if hasattr(agent, "look"):
        return agent
    try:
        if can_search(agent):
            return searched(agent, game, {"simulations": _SIMULATIONS})
        return make_bot("mcts", game.observation_space, game.action_space, device="cpu", game=game)
    except MlbitsError:
        trained = getattr(agent, "experience", None) is not None
        return agent if trained and hasattr(agent, "action_probabilities") else None


def hint(table: Table, by: Any) -> list[str]:
    """Lines of a hint for the person's move."""
    if by is None:
        return ["no hint: this game cannot be searched, and there is no trained agent"]
    positions = table.positions()
    if not hasattr(by, "look"):
        return _policy(table, by, positions)
    found = by.look(positions, torch.Generator().manual_seed(0))
    visits, q, best = found.visits[0], found.q[0], int(found.action[0])
    proven = by.search.proven(0)
    order = sorted(table.legal(), key=lambda action: (action != best, _rank(proven.get(action)), -int(visits[action])))
    total = int(visits.sum())
    lines = [f"value {float(found.value[0]):+.2f} after {total:,} simulations"]
    if int(found.outcome[0]):
        outcome, distance = proven[best]
        lines = [f"this position is {_WORDS[outcome]} in {distance}"]
    for action in order[:_MOST]:
        name = table.moves.name(table.record, table.seat, action)
        if action in proven:
            outcome, distance = proven[action]
            lines.append(f"  {name:<8} {_WORDS[outcome]} in {distance} (moves of both sides)")
        elif int(visits[action]):
            lines.append(f"  {name:<8} value {float(q[action]):+.2f}, {int(visits[action]):,} visits")
    return lines


def _rank(known: tuple[int, int] | None) -> tuple[int, int]:
    """Wins first, the shortest first; losses last, the longest first; the rest between."""
    if known is None or known[0] not in (WIN, LOSS):
        return (1, 0)
    return (0, known[1]) if known[0] == WIN else (2, -known[1])


def _policy(table: Table, by: Any, positions: Any) -> list[str]:
    """The most probable moves of an agent without a search."""
    chances = by.action_probabilities(positions.obs, positions.legal_mask)[0]
    best = torch.argsort(chances, descending=True)[:_MOST].tolist()
    names = [(table.moves.name(table.record, table.seat, action), float(chances[action])) for action in best]
    return ["the agent's policy:", *(f"  {name:<8} {chance:.0%}" for name, chance in names)]
