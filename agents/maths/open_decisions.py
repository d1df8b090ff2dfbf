"""Open decisions: decisions whose seat is still waiting for its next turn when a rollout, or a cut episode, ends.

A decision is settled at its seat's next turn, or when the episode terminates: only then are its reward and its next
observation known. Until then it is open, and there is no observation to bootstrap from: the seat does not act at the
observation after the rollout, so that its value there is never learned; if the observation does not show whose turn it
is, it would even be mistaken for the other player's position.

At a rollout's end an open decision is therefore left out of it, and carried over into the next one, as a row in front
of its steps, with its reward so far; there it is settled like any other. So each decision is learned from once, with
all of its reward. The decision before it leads to the open one's own observation, at which the seat did act.

At the end of a truncated episode, an open decision can never be settled. It is dropped, and the decision before it
again leads to the open one's observation. (Treating the truncation as the game's end would be wrong, and the value of
the last observation, at which the seat would have waited, is not learned.) If a time limit is a part of the game, the
game should terminate.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import Rollout, pick, rows, true_places


class OpenDecisions(NamedTuple):
    """The open decisions at the end of a rollout, at most one per seat. Entries of other seats are arbitrary.

    Attributes:
        where: bool [B, P], seats that have one.
        obs: the observation of the decision, [B, P, ...] or a dict of those.
        sample: the draw, [B, P, ...].
        log_prob: its log probability when drawn, [B, P].
        legal_mask: bool [B, P, A], or None.
        reward: the reward so far, [B, P].
        memory: what the agent remembered before it, [B, P, M], or None.
    """

    where: Tensor
    obs: Any
    sample: Tensor
    log_prob: Tensor
    legal_mask: Tensor | None
    reward: Tensor
    memory: Tensor | None = None


class OpenMarks(NamedTuple):
    """Where a rollout's decisions are open, all [T, B, P].

    Attributes:
        left_out: bool, the steps from an open decision to the end at which its seat waits.
        decision: bool, the open decisions themselves.
        end: int64, the first step from each on that ends an episode; T if there is none.
        cut: bool, the open decisions of episodes that were truncated.
    """

    left_out: Tensor
    decision: Tensor
    end: Tensor
    cut: Tensor


def open_marks(rollout: Rollout) -> OpenMarks | None:
    """Where decisions are open in a rollout with ``last_active`` and ``final_active``; None if no seat ever waits."""
    active = rollout.active
    if active is None or (rollout.last_active is None and rollout.final_active is None):
        return None
    steps = len(active)
    turn, end = next_turns_and_ends(active, rollout.terminated | rollout.truncated)
    waits = torch.zeros((steps + 1, *active.shape[1:]), dtype=torch.bool, device=active.device)
    if rollout.final_active is not None:
        waits[:-1] = (rollout.truncated & ~rollout.terminated)[..., None] & ~rollout.final_active
    if rollout.last_active is not None:
        waits[-1] = ~rollout.last_active
    left_out = waits.gather(0, end) & (turn > end)  # from an open decision to the end at which it waits
    decision = left_out & active
    return OpenMarks(left_out, decision, end, decision & (end < steps))


def leave_out_open(
    rollout: Rollout, marks: OpenMarks | None = None, num_cut: int | None = None
) -> tuple[Rollout, OpenDecisions | None]:
    """Split a rollout into settled decisions and those that are open at its end.

    Args:
        rollout: one with ``last_active`` and ``final_active``, which show the waiting seats. Rows of its ``final_obs``
            (and of its ``final_memory``) are overwritten: those of seats that wait at the end of a truncated episode.
        marks: the rollout's :func:`open_marks`, if they are known.
        num_cut: how many entries of ``marks.cut`` are True, if that is known.

    Returns:
        The rollout in which open decisions are not active and have no reward, ``last_obs`` and ``last_mask`` are those
        of the open decisions of the seats that have one, and so is ``final_obs`` where truncated; and the decisions
        that are open at its end, None if no seat ever waits.
    """
    marks, active = open_marks(rollout) if marks is None else marks, rollout.active
    if marks is None or active is None:
        return rollout, None
    left_out, decision, end, _ = marks
    steps = len(active)
    time = torch.arange(steps, device=active.device).view(-1, 1, 1)
    cut = true_places(marks.cut, num_cut)
    if len(cut[0]):
        for target, source in _pairs(rollout.final_obs, rollout.obs):
            target[(end[cut], *cut[1:])] = source[cut]
        if rollout.final_memory is not None and rollout.memory is not None:
            rollout.final_memory[(end[cut], *cut[1:])] = rollout.memory[cut]
    at_edge = end == steps
    where = (decision & at_edge).any(0)
    index = ((decision & at_edge) * time).sum(0).flatten() * where.numel()
    index = index + torch.arange(where.numel(), device=index.device)
    parts = (rollout.obs, rollout.sample, rollout.log_prob, rollout.legal_mask, rollout.memory)
    obs, sample, log_prob, legal_mask, memory = (_at(part, index, where) for part in parts)
    earned = (rollout.reward * (left_out & at_edge & where)).sum(0)
    open_ = OpenDecisions(where, obs, sample, log_prob, legal_mask, earned, memory)
    settled = dataclasses.replace(
        rollout,
        reward=rollout.reward.masked_fill(left_out, 0.0),
        active=active & ~left_out,
        host=None,
        last_obs=choose(where, open_.obs, rollout.last_obs),
        last_mask=None if open_.legal_mask is None else choose(where, open_.legal_mask, rollout.last_mask),
        last_active=None,
        final_active=None,
        last_memory=None if memory is None else choose(where, memory, rollout.last_memory),
    )
    return settled, open_


def next_turns_and_ends(active: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
    """The time of each seat's next turn after each step, and the time at which the episode ends.

    Args:
        active: bool [T, B, P].
        ended: bool [T, B].

    Returns:
        The first later step at which the seat acts, in this episode or another, T + 1 if there is none; and the first
        step from this one on that ends an episode, T if there is none; both int64 [T, B, P].
    """
    steps = len(active)
    time = torch.arange(steps, device=active.device).view(-1, 1, 1)
    end = _next(torch.where(ended[..., None], time, steps)).expand(active.shape)
    turn = torch.full((steps + 1, *active.shape[1:]), steps + 1, device=active.device)
    turn[:-1] = torch.where(active, time, steps + 1)
    return _next(turn)[1:], end


def choose(where: Tensor, one: Any, other: Any) -> Any:
    """Entries [B, P, ...] of ``one`` where ``where`` [B, P] is True, else of ``other``; for dicts, of each tensor."""
    if isinstance(one, dict):
        return {key: choose(where, part, other[key]) for key, part in one.items()}
    return torch.where(where.view(*where.shape, *[1] * (one.dim() - where.dim())), one, other)


def _next(time: Tensor) -> Tensor:
    """The minimum of each entry and all later ones."""
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
