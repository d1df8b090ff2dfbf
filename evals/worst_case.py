"""The worst that can happen to an agent that plays without randomness, over all play of its opponent: exact.

Every line of the game that is possible against the agent is followed, each position once, so this is for games of two
seats with some hundred thousand positions at most. An agent whose worst return is that of perfect play never loses
anything, whoever plays against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import Agent
from mlbits.envs.core.errors import GameError
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.registry import make_batch
from mlbits.selfplay.lineup import decide

_AT_ONCE = 2048
_MOST_POSITIONS = 1_000_000


def worst_return(agent: Agent, env: str, seat: int, settings: Mapping[str, Any] | None = None) -> float:
    """The lowest return of an agent in one seat, its moves being the greedy ones, over all moves of the other seat.

    Args:
        agent: the agent; it must play the same move whenever it meets a position again.
        env: id of a game of mlbits' own with two seats that move in turn, without random events.
        seat: the agent's.
        settings: settings of the game.

    Raises:
        GameError: for another game, or one with too many positions.
    """
    batch = make_batch(env, _AT_ONCE, autoreset="disabled", **dict(settings or {}))
    if batch.num_seats != 2 or batch.active is None or batch.legal_mask is None:
        raise GameError(f"{env}: wanted a game of two seats that move in turn")
    positions = batch.state()[:1]
    returns, worst, seen = torch.zeros(1), np.inf, 0
    while len(positions):
        seen += len(positions)
        if seen > _MOST_POSITIONS:
            raise GameError(f"{env}: has more than {_MOST_POSITIONS:,} positions against this agent; wanted fewer")
        parts = [
            _moves(agent, batch, seat, positions[start : start + _AT_ONCE], returns[start : start + _AT_ONCE])
            for start in range(0, len(positions), _AT_ONCE)
        ]
        after, earned, over = (torch.cat([part[k] for part in parts]) for k in range(3))
        if bool(over.any()):
            worst = min(worst, float(earned[over].min()))
        positions, returns = _distinct(after[~over], earned[~over])
    return worst


def _moves(
    agent: Agent, batch: GameBatch, seat: int, positions: Tensor, returns: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All positions after the next move: states, returns of the agent so far, and whether the game is over."""
    _place(batch, positions)
    assert batch.active is not None and batch.legal_mask is not None
    count, active = len(positions), batch.active[: len(positions)]
    mask = (batch.legal_mask[:count] & active.unsqueeze(-1)).any(1)  # of the seat that moves
    own = active[:, seat]
    if bool(own.any()):
        rows = own.nonzero().squeeze(-1) * batch.num_seats + seat
        flat = batch.obs.flatten(0, 1), batch.legal_mask.flatten(0, 1)
        chosen = decide(agent, batch, rows, *flat, torch.Generator().manual_seed(0), greedy=True).action
        mask = torch.where(own[:, None], False, mask)
        mask[own.nonzero().squeeze(-1), chosen] = True
    parent, move = mask.nonzero(as_tuple=True)
    found = []
    for start in range(0, len(parent), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        before, played = parent[part], move[part]
        _place(batch, positions[before])
        actions = torch.zeros(batch.num_envs, batch.num_seats, dtype=torch.int64)
        actions[: len(before)] = played[:, None] * batch.active[: len(before)]
        step = batch.step(actions)
        over = (step.terminated | step.truncated)[: len(before)].clone()
        earned = returns[before] + step.reward[: len(before), seat]
        found.append((batch.state()[: len(before)], earned, over))
    states, earned, over = (torch.cat([part[k] for part in found]) for k in range(3))
    return states, earned, over


def _place(batch: GameBatch, positions: Tensor) -> None:
    """Put positions into the first copies; the others are over."""
    records = batch.records()
    records["over"] = 1
    batch.set_state(records)
    states = batch.state()
    states[: len(positions)] = positions
    batch.set_state(states)


def _distinct(states: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
    if not len(states):
        return states, returns
    rows = np.concatenate([states.numpy(), returns.numpy().view(np.uint8).reshape(len(returns), -1)], 1)
    _, index = np.unique(rows, axis=0, return_index=True)
    return states[torch.from_numpy(index)], returns[torch.from_numpy(index)]
