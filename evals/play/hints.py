"""Hints for a person at the board: the best moves by a search, what is proven, or what a trained agent would do."""

from __future__ import annotations

from typing import Any

import torch

from mlbits.agents import make_bot
from mlbits.agents.agent import Agent, Positions, memory_size, rows
from mlbits.agents.search.player import can_search, searched
from mlbits.agents.search.trees import DRAW, LOSS, WIN
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.game import Game
from mlbits.envs.engine.batch import GameBatch
from mlbits.evals.play.match import Match
from mlbits.evals.replays.decisions import opinion
from mlbits.selfplay.lineup import decide, positions_of
from mlbits.selfplay.memories import Memories

_WORDS = {WIN: "won", LOSS: "lost", DRAW: "drawn"}
_MOST = 5  # moves of a hint
_SIMULATIONS = 200  # of an agent that does not plan when it plays


def adviser(agent: Agent | None, game: Game | None) -> Any:
    """Who gives hints: the agent with its search, or else the bot that searches by random games.

    Where the game cannot be searched it is a trained agent that does not remember (its memory would be of another
    seat), or nobody (None). ``game`` is None for environments of others.
    """
    trained = getattr(agent, "experience", None) is not None and not memory_size(agent)
    if game is None:
        return agent if trained else None
    if hasattr(agent, "look"):
        return agent
    try:
        if can_search(agent):
            return searched(agent, game, {"simulations": _SIMULATIONS})
        return make_bot("mcts", game.observation_space, game.action_space, device="cpu", game=game)
    except MlbitsError:
        return agent if trained else None


def hint(match: Match, seat: int, by: Any) -> list[str]:
    """Lines of a hint for a person's move.

    Args:
        match: the game.
        seat: the person's, whose move it is.
        by: the adviser, or None.
    """
    if by is None:
        return ["no hint: this game cannot be searched, and there is no trained agent"]
    if not hasattr(by, "look"):
        return _policy(match, seat, by)
    names = match.slots(seat)[0].names
    found = by.look(_positions(match, seat), torch.Generator().manual_seed(0))
    visits, q, best = found.visits[0], found.q[0], int(found.action[0])
    proven = by.search.proven(0)
    order = sorted(names, key=lambda action: (action != best, _rank(proven.get(action)), -int(visits[action])))
    total = int(visits.sum())
    lines = [f"value {float(found.value[0]):+.2f} after {total:,} simulations"]
    if int(found.outcome[0]):
        outcome, distance = proven[best]
        lines = [f"this position is {_WORDS[outcome]} in {distance}"]
    for action in order[:_MOST]:
        if action in proven:
            outcome, distance = proven[action]
            lines.append(f"  {names[action]:<8} {_WORDS[outcome]} in {distance} (moves of both sides)")
        elif int(visits[action]):
            lines.append(f"  {names[action]:<8} value {float(q[action]):+.2f}, {int(visits[action]):,} visits")
    return lines


@torch.no_grad()
def suggested(match: Match, seat: int, by: Agent) -> str:
    """What an agent would play in a person's place, by its name."""
    batch = match.batch
    obs, mask = rows(batch.obs, 2), None if batch.legal_mask is None else batch.legal_mask.flatten(0, 1)
    generator, memories = torch.Generator().manual_seed(0), Memories(1, batch.num_seats)
    decision = decide(by, batch, torch.tensor([seat]), obs, mask, generator, greedy=True, memories=memories)
    return match.words.name(seat, decision.action[0].cpu().numpy(), match.slots(seat))


def _positions(match: Match, seat: int) -> Positions:
    """The position, seen from a seat."""
    assert isinstance(match.batch, GameBatch)  # only games whose rules are known are searched
    obs, mask = rows(match.batch.obs, 2), match.batch.legal_mask
    index = torch.tensor([seat])
    seen = {key: part[index] for key, part in obs.items()} if isinstance(obs, dict) else obs[index]
    return positions_of(match.batch, index, seen, None if mask is None else mask[0][index])


def _rank(known: tuple[int, int] | None) -> tuple[int, int]:
    """Wins first, the shortest first; losses last, the longest first; the rest between."""
    if known is None or known[0] not in (WIN, LOSS):
        return (1, 0)
    return (0, known[1]) if known[0] == WIN else (2, -known[1])


def _policy(match: Match, seat: int, by: Any) -> list[str]:
    """The most probable moves of an agent without a search, or what it would play."""
    thought = opinion(by, match.batch, seat)
    value = [] if thought.value is None else [f"the agent expects {thought.value:+.3g} from here on"]
    chances = thought.chances
    if chances is None:
        return [f"the agent would play {suggested(match, seat, by)}", *value]
    names = match.slots(seat)[0].names
    best = sorted(names, key=lambda action: -float(chances[action]))[:_MOST]
    return ["the agent's policy:", *(f"  {names[a]:<8} {float(chances[a]):.0%}" for a in best), *value]
