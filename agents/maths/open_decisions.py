"""Open decisions: those whose seats are still waiting for their next turn when a rollout, or a cut episode, ends.

A decision is settled at its seat's next turn, or where the episode terminates: what it has earned and what it has led
to are known only then. Until then it is open, and there is no observation to bootstrap from. The seat does not act at
the one after the rollout, so that no value of it is ever learned; where the observation does not say whose turn it is,
it is even taken for the other player's position.

At a rollout's end an open decision is therefore left out of it, and carried over into the next one, as a row in front
of its steps, with what it has earned so far; there it is settled like any other. So each decision is learned from
once, with everything that it has earned. The decision before it leads to the open one's own observation, at which the
seat did act.

At the end of a truncated episode nothing more will be known of it. It is left out for good, and the decision before it
again leads to the open one's observation. (To take the truncation for the game's end would be wrong, and the value of
the last observation, at which the seat would have waited, is not learned.) Where the time limit is a part of the
game, terminate.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import Rollout, pick, rows


class OpenDecisions(NamedTuple):
    """The open decisions at the end of a rollout, at most one a seat. What is not open is filled with any numbers.

    Attributes:
        where: bool [B, P], seats that have one.
        obs: what they saw then, [B, P, ...] or a dict of those.
        sample: what they drew, [B, P, ...].
        log_prob: its log probability then, [B, P].
        legal_mask: bool [B, P, A], or None.
        reward: earned so far, [B, P].
    """

    where: Tensor
    obs: Any
    sample: Tensor
    log_prob: Tensor
    legal_mask: Tensor | None
    reward: Tensor


def leave_out_open(rollout: Rollout) -> tuple[Rollout, OpenDecisions | None]:
    """A rollout without its open decisions, and those that are open at its end.

    Args:
        rollout: one whose ``last_active`` and ``final_active`` say who waits where. Rows of its ``final_obs`` are
            written over: those of seats that wait at the end of a truncated episode.

    Returns:
        The rollout in which open decisions are not active and have no reward, ``last_obs`` and ``last_mask`` are those
        of the open decisions of the seats that have one, and so is ``final_obs`` where truncated; and the decisions
        that are open at its end, None where no seat ever waits.
    """
    active = rollout.active
    if active is None or (rollout.last_active is None and rollout.final_active is None):
        return rollout, None
    steps = len(active)
    time = torch.arange(steps, device=active.device).view(-1, 1, 1)
    turn, end = what_follows(active, rollout.terminated | rollout.truncated)
    waits = torch.zeros((steps + 1, *active.shape[1:]), dtype=torch.bool, device=active.device)
    if rollout.final_active is not None:
        waits[:-1] = (rollout.truncated & ~rollout.terminated)[..., None] & ~rollout.final_active
    if rollout.last_active is not None:
        waits[-1] = ~rollout.last_active
    left_out = waits.gather(0, end) & (turn > end)  # from an open decision to the end that it waits at
    decision = left_out & active
    cut = (decision & (end < steps)).nonzero(as_tuple=True)
    if len(cut[0]):
        for target, source in _pairs(rollout.final_obs, rollout.obs):
            target[(end[cut], *cut[1:])] = source[cut]
    at_edge = end == steps
    where = (decision & at_edge).any(0)
    index = ((decision & at_edge) * time).sum(0).flatten() * where.numel()
    index = index + torch.arange(where.numel(), device=index.device)
    parts = (rollout.obs, rollout.sample, rollout.log_prob, rollout.legal_mask)
    obs, sample, log_prob, legal_mask = (_at(part, index, where) for part in parts)
    earned = (rollout.reward * (left_out & at_edge & where)).sum(0)
    open_ = OpenDecisions(where, obs, sample, log_prob, legal_mask, earned)
    settled = dataclasses.replace(
        rollout,
        reward=rollout.reward.masked_fill(left_out, 0.0),
        active=active & ~left_out,
        last_obs=choose(where, open_.obs, rollout.last_obs),
        last_mask=None if open_.legal_mask is None else choose(where, open_.legal_mask, rollout.last_mask),
        last_active=None,
        final_active=None,
    )
    return settled, open_


def what_follows(active: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
    """Where each step's seat acts next, and where its episode ends.

    Args:
        active: bool [T, B, P].
        ended: bool [T, B].

    Returns:
        The first step after each at which its seat acts, in this episode or another, T + 1 where there is none; and the
        first from each on that ends an episode, T where there is none; both int64 [T, B, P].
    """
    steps = len(active)
    time = torch.arange(steps, device=active.device).view(-1, 1, 1)
    end = _next(torch.where(ended[..., None], time, steps)).expand(active.shape)
    turn = torch.full((steps + 1, *active.shape[1:]), steps + 1, device=active.device)
    turn[:-1] = torch.where(active, time, steps + 1)
    return _next(turn)[1:], end


def choose(where: Tensor, one: Any, other: Any) -> Any:
    """Entries [B, P, ...] of one tensor ``where`` [B, P], of another elsewhere; or of each tensor of a dict."""
    if isinstance(one, dict):
        return {key: choose(where, part, other[key]) for key, part in one.items()}
    return torch.where(where.view(*where.shape, *[1] * (one.dim() - where.dim())), one, other)


def _next(time: Tensor) -> Tensor:
    """The least of each entry and those after it."""
    return time.flip(0).cummin(0).values.flip(0)


def _at(value: Any, index: Tensor, where: Tensor) -> Any:
    """Rows ``index`` of the flattened [T, B, P, ...], as [B, P, ...]."""
    if value is None:
        return None
    picked = pick(rows(value, 3), index)
    if isinstance(picked, dict):
        return {key: part.unflatten(0, where.shape) for key, part in picked.items()}
    return picked.unflatten(0, where.shape)


def _pairs(one: Any, other: Any) -> list[tuple[Tensor, Tensor]]:
    return [(one[key], other[key]) for key in one] if isinstance(one, dict) else [(one, other)]
