"""Hindsight experience replay (HER): transitions as they would have been on the way to a goal that was achieved later.

Andrychowicz et al., "Hindsight Experience Replay" (2017, arXiv 1707.01495), algorithm 1. The buffer holds what was
played; goals are replaced when transitions are sampled. Of ``1 + k`` transitions of a minibatch, k get another goal:
what was achieved after a step of the same episode, which is

    future   the transition's own step or a later one, drawn uniformly
    final    the episode's last one so far
    episode  any one so far

Rewards *and* ends are then those of the environment's own rule (:mod:`mlbits.envs.core.goals`) for the new goal and
what was achieved after the transition's step. Where the goal ends the episode, an implementation that recomputes
rewards alone bootstraps beyond the end, and values grow without bound. An end for another reason than the goal stays.

Episodes that have not ended yet are relabelled with what they have achieved so far.

Example:
    mlbits train dqn mlbits/BitFlipping-v0 --agent.hindsight future
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, ReplaySpec, Rollout
from mlbits.agents.memory.replay import Bonus, Replay, Transitions
from mlbits.envs.core.goals import ACHIEVED, DESIRED, GoalRule

Hindsight = Literal["none", "future", "final", "episode"]
HINDSIGHT_HELP = "replay with goals that were achieved later in the same episode (HER), for observations with goals"
HINDSIGHT_GOALS_HELP = "transitions with such a goal for each with its own, k"


def check_hindsight(hindsight: str, n_step: int, bonus: str = "none") -> None:
    """Reject windows of several steps, whose rewards for another goal are not recomputed.

    Raises:
        AgentError: naming both settings.
    """
    if hindsight != "none" and n_step > 1:
        raise AgentError(f"hindsight, n_step: got {hindsight!r} with windows of {n_step} steps; wanted n_step 1")
    if hindsight != "none" and bonus != "none":
        raise AgentError(f"bonus: got {bonus!r} with hindsight {hindsight!r}, whose rewards are those of goals; wanted "
                         "'none'")  # fmt: skip


class HindsightReplay(Replay):
    """A replay buffer whose transitions may have other goals than when they were played.

    Args:
        spec: capacity and other settings that the agent asks for.
        obs: observations of the batch, a dict with ``achieved_goal`` and ``desired_goal``; one seat.
        action: as for :class:`~mlbits.agents.memory.replay.Replay`.
        mask: likewise.
        frame_stack: likewise; goals are no stacks.
        goals: what steps pay on the way to any goals.
    """

    def __init__(
        self,
        spec: ReplaySpec,
        obs: Any,
        action: Tensor,
        mask: Tensor | None,
        frame_stack: int = 1,
        *,
        goals: GoalRule,
    ) -> None:
        super().__init__(spec, obs, action, mask, frame_stack)
        self.goals, self._strategy = goals, spec.hindsight
        self._share = spec.hindsight_goals / (1 + spec.hindsight_goals)
        # Steps are counted from the first ever added, and episodes in each stream. A stream's episodes in the buffer
        # are consecutive, and no more than its steps there and the one that goes on: each has a row of its own.
        self._rows = self.steps + 2
        self._episode = torch.zeros(self.steps * self.streams, dtype=torch.int64, device=self.device)
        self._first = torch.zeros(self._rows * self.streams, dtype=torch.int64, device=self.device)
        self._newest = torch.zeros_like(self._first)
        self._lane = torch.arange(self.streams, device=self.device)
        self._number = torch.zeros_like(self._lane)  # of each stream's current episode
        self._current = self._lane.clone()  # its row
        self._count = 0  # steps ever added

    def _write(self, rollout: Rollout, start: int, count: int) -> None:
        low = self._head
        super()._write(rollout, start, count)
        ended = rollout.terminated | rollout.truncated
        for t in range(count):
            slot = (low + t) * self.streams
            self._episode[slot : slot + self.streams] = self._current
            self._newest[self._current] = self._count
            self._count += 1
            self._begin(ended[start + t])

    def _begin(self, which: Tensor) -> None:
        """Begin episodes with the next step in some streams, bool [N]."""
        self._number += which
        self._current = self._number % self._rows * self.streams + self._lane
        self._first[self._current] = torch.where(which, self._count, self._first[self._current])

    def cut(self) -> None:
        """Mark that what is added next does not continue what was added last (the copies were reset)."""
        super().cut()
        if self._count:
            self._begin(torch.ones(self.streams, dtype=torch.bool, device=self.device))

    def sample(
        self,
        count: int,
        generator: torch.Generator,
        *,
        n_step: int = 1,
        discount: float = 0.99,
        weight_exponent: float = 0.0,
        minibatches: int = 1,
        bonus: Bonus | None = None,
    ) -> Transitions:
        """Sample transitions, of which a part in each minibatch is relabelled: its first ones, if sampling is uniform.

        Args:
            count: transitions per minibatch.
            generator: for the draws.
            n_step: 1.
            discount: gamma.
            weight_exponent: beta of the importance weights of prioritised replay.
            minibatches: how many minibatches, concatenated in the result.
            bonus: None; rewards are those of goals.

        Raises:
            AgentError: for a bonus, or if the buffer holds no transition that may be sampled.
        """
        check_hindsight(self._strategy, n_step)
        if bonus is not None:
            raise AgentError(f"bonus: got one with hindsight {self._strategy!r}, whose rewards are those of goals; "
                             "wanted one of them")  # fmt: skip
        drawn = super().sample(
            count, generator, discount=discount, weight_exponent=weight_exponent, minibatches=minibatches
        )
        which = self._relabelled(count, minibatches, generator)
        slot = drawn.slot.index_select(0, which)
        other = self._seen.part_after(f"obs.{ACHIEVED}", self._steps_of_goals(slot, generator))
        achieved = drawn.next_obs[ACHIEVED].index_select(0, which)
        own = drawn.next_obs[DESIRED].index_select(0, which)
        both = self.goals(torch.cat([achieved, achieved]), torch.cat([other, own]))  # at once, for GPUs wait for each
        (reward, _), (ends, by_goal) = (found.chunk(2) for found in both)
        otherwise = (self._alive.index_select(0, slot) == 0) & ~by_goal  # the episode ended, but not by its goal
        for seen in (drawn.obs, drawn.next_obs):
            seen[DESIRED][which] = other
        drawn.reward[which] = reward
        drawn.discount[which] = discount * (~(ends | otherwise)).float()
        return drawn

    def _relabelled(self, count: int, minibatches: int, generator: torch.Generator) -> Tensor:
        """The rows that get another goal, the same number in each minibatch, int64 [n]."""
        if self._tree is None:  # uniform draws come in no order
            every = torch.arange(count * minibatches, device=self.device).view(minibatches, count)
        else:  # those of prioritised replay in that of the buffer: the first ones would be the same slots each time
            drawn = torch.rand(minibatches, count, generator=generator, device=generator.device).argsort(1)
            every = (drawn + count * torch.arange(minibatches, device=drawn.device)[:, None]).to(self.device)
        return every[:, : round(self._share * count)].flatten()

    def _steps_of_goals(self, slot: Tensor, generator: torch.Generator) -> Tensor:
        """For transitions, the slots after whose steps the other goals were achieved, int64 [n]."""
        place, stream = slot // self.streams, slot % self.streams
        number = self._episode.index_select(0, slot)
        last = self._newest.index_select(0, number)
        if self._strategy == "final":
            step = last
        else:
            low = self._count - 1 - (self._head - 1 - place) % self.steps  # the transition's own step
            if self._strategy == "episode":
                low = self._first.index_select(0, number).clamp(min=self._count - self._filled)
            draw = torch.rand(len(slot), dtype=torch.float64, generator=generator, device=generator.device)
            step = low + (draw.to(self.device) * (last - low + 1)).long()
        return step % self.steps * self.streams + stream

    def state_dict(self) -> dict[str, Tensor]:
        """The filled part of the buffer, its counters, and which episodes its steps belong to."""
        own = {f"hindsight.{name}": value.clone() for name, value in self._tables().items()}
        return super().state_dict() | own | {"hindsight.count": torch.tensor(self._count)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if it was saved by a buffer of another shape, or names steps that it does not hold.
        """
        super().load_state_dict(state)
        self._count = int(state["hindsight.count"])
        if self._count < self._filled or self._count % self.steps != self._head:
            raise ValueError(f"replay.hindsight.count: got {self._count}; wanted one of the steps in the buffer")
        for name, table in self._tables().items():
            saved = state[f"hindsight.{name}"]
            most = len(self._first) - 1 if name == "episode" else self._count
            if saved.shape != table.shape or int(saved.min()) < 0 or int(saved.max()) > most:
                raise ValueError(
                    f"replay.hindsight.{name}: got {tuple(saved.shape)} from {int(saved.min())} to {int(saved.max())}; "
                    f"wanted {tuple(table.shape)} from 0 to {most}"
                )
            table.copy_(saved)
        self._current = self._number % self._rows * self.streams + self._lane

    def _tables(self) -> dict[str, Tensor]:
        return {"episode": self._episode, "first": self._first, "newest": self._newest, "number": self._number}
