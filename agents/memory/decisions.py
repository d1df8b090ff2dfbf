"""Decisions of seats that wait for their turns, as a replay buffer stores them: where, and what came of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import Rollout, true_places
from mlbits.agents.maths.open_decisions import next_turns_and_ends
from mlbits.agents.maths.returns import decision_rewards


class Outcomes(NamedTuple):
    """The outcomes of N decisions, in a part of a rollout whose steps are rows [t * B * P].

    Attributes:
        row: the decisions' own rows plus B * P; values below B * P are decisions that were open before.
        stream: of each decision.
        slot: rows of the buffer that they are in.
        place: how many decisions their streams had before them.
        first: bool, whether it is the first new one of its stream.
        after: bool, whether this next decision comes just after the part.
        end: the row of the step that ends the episode.
        by_end: bool, whether the episode ends before another decision.
        finished: bool, whether the episode also terminates there.
        known: bool, whether the outcome is known.
        earned: reward in this part.
    """

    row: Tensor
    stream: Tensor
    slot: Tensor
    place: Tensor
    first: Tensor
    after: Tensor
    end: Tensor
    by_end: Tensor
    finished: Tensor
    known: Tensor
    earned: Tensor


def outcomes(
    turns: Tensor, rollout: Rollout, part: slice, steps: int, masked: bool, number: int | None = None
) -> tuple[Outcomes, Tensor]:
    """The outcomes of the open decisions and of those of a part of a rollout.

    Along the time axis, index 0 holds the open decisions, index t step t - 1 of the part, and ``count`` + 1 the
    step after it.

    Args:
        turns: int64 [3, B * P]: each stream's next step in the buffer, how many decisions it has had so far, and
            whether the latest of them is open.
        rollout: the rollout.
        part: the steps of the part.
        steps: capacity of the buffer, in steps per stream.
        masked: whether actions are masked.
        number: how many decisions there are, open ones included, if it is known.

    Returns:
        The outcomes, and the new ``turns``.
    """
    assert rollout.active is not None and rollout.last_active is not None
    head, had, open_ = turns
    end, count, lead = part.stop, part.stop - part.start, rollout.reward.shape[1:]
    streams = turns.shape[1]
    acts = torch.cat([open_.view(1, *lead).bool(), rollout.active[part]])
    terminated, truncated, reward = (
        torch.cat([torch.zeros_like(value[:1]), value[part]])
        for value in (rollout.terminated, rollout.truncated, rollout.reward)
    )
    earned = decision_rewards(reward, terminated, truncated, acts)
    turn, stop = next_turns_and_ends(acts, terminated | truncated)
    then = rollout.last_active if end == len(rollout.reward) else rollout.active[end]
    turn = torch.where((turn > count + 1) & then, count + 1, turn)
    still_open = (acts & (turn > stop) & (stop > count)).any(0).flatten()
    order = acts.flatten(1).cumsum(0) - open_  # of each stream's new decisions, from 1
    places = (head - 1 + order) % steps * streams + torch.arange(streams, device=turns.device)
    turns = torch.stack([(head + order[-1]) % steps, had + order[-1], still_open.long()])
    index = true_places(acts.flatten(), number)[0]
    stream = index % streams
    slot, turn, stop, earned, order = (
        value.flatten().index_select(0, index) for value in (places, turn, stop.contiguous(), earned, order)
    )
    by_turn, by_end = turn <= stop, (turn > stop) & (stop <= count)
    last = (stop - 1).clamp(0, count - 1) * streams + stream
    finished = by_end & terminated[1:].unsqueeze(-1).expand(count, *lead).flatten().index_select(0, last)
    known = by_turn | finished
    if not masked:
        acted = by_end if rollout.final_active is None else rollout.final_active[part].flatten()[last]
        known = known | (by_end & acted)
    place = had.index_select(0, stream) - 1 + order
    found = Outcomes(index, stream, slot, place, order == 1, turn > count, last, by_end, finished, known, earned)
    return found, turns
