"""Actors: while the learner learns from one rollout, other processes play the next, with the policy one update behind.

    update    |  learner                  |  actors
    1         |  learns from rollout 1    |  play rollout 2 by the first policy
    2         |  learns from rollout 2    |  play rollout 3 by the policy that update 1 made

The two go in lock step: each waits for the other once per iteration, so that the policy is behind by exactly one update
and a run is a function of its seed. Every action is decided in one thread of the learner's process, for all copies at
once and from one generator; the actors step the copies (:mod:`mlbits.envs.doors.gymnasium_workers`). How many there are
makes no difference to the numbers.

This is the scheme of Huang et al., "Cleanba" (ICLR 2024).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import Agent, Rollout, prefixed, unprefixed
from mlbits.envs.doors.gymnasium_batch import GymnasiumBatch
from mlbits.selfplay.collector import Collector, Episodes, Timing
from mlbits.selfplay.lineup import Lineup, self_play
from mlbits.selfplay.memories import Memories

BLOCKS = 2  # of memory: one for the rollout that is learned from, one for that which is played
# Fields of a rollout that its memory has from the first time that an agent writes them.
_LATER = ("notes", "memory", "last_memory", "final_memory")


class Played(NamedTuple):
    """A rollout that has been played: what :meth:`~mlbits.selfplay.collector.Collector.collect` returns.

    Attributes:
        rollout: the experience.
        episodes: those that ended in it.
        steps: environment steps.
    """

    rollout: Rollout
    episodes: Episodes
    steps: int


class Actors:
    """Plays rollouts one policy behind; stands where other sessions have their collector.

    Args:
        batch: the copies. No one else may touch them while a rollout is played.
        collector: plays them, with :data:`BLOCKS` blocks of memory.
        learner: the agent that learns.
        acting: another one of its kind, which gets the learner's state of one update before, and acts.

    Attributes:
        timing: wall seconds spent in each part; ``environment`` is the time that the learner waited for a rollout.
        check: called with each rollout before it is learned from, and whether an episode ended in it; may raise.
        ending: whether the run ends with a rollout of so many steps, so that no other need be played. It only saves
            time.
        ahead: the next rollout, where it has been waited for or restored; None else.
    """

    def __init__(self, batch: GymnasiumBatch, collector: Collector, learner: Agent, acting: Agent) -> None:
        self.timing = Timing()
        self.check: Callable[[Rollout, bool], None] | None = None
        self.ending: Callable[[int], bool] = lambda steps: False
        self.ahead: Played | None = None
        self._batch, self._collector, self._learner, self._acting = batch, collector, learner, acting
        self._lineup = self_play(acting, batch.num_envs, batch.num_seats, batch.device)
        self._follows = False  # whether the acting agent has the state with which the next rollout is to be played
        self._playing: Future[Played] | None = None
        threads = torch.get_num_threads()
        self._thread = ThreadPoolExecutor(1, "actors", torch.set_num_threads, (threads,))

    @property
    def generator(self) -> torch.Generator:
        """The generator of the players' actions, between two rollouts."""
        self.wait()
        return self._collector.generator

    @property
    def spec(self) -> Any:
        """How long a rollout is."""
        return self._collector.spec

    @property
    def memories(self) -> Memories:
        """What is remembered of the episodes under way, between two rollouts."""
        return self._collector.memories

    @property
    def episode_return(self) -> np.ndarray:
        """Returns of the episodes under way, between two rollouts, [B, P]."""
        return self._collector.episode_return

    @property
    def episode_length(self) -> np.ndarray:
        """Lengths of the episodes under way, between two rollouts, [B]."""
        return self._collector.episode_length

    def collect(self, lineup: Lineup, reseat: Any = None) -> tuple[Rollout, Episodes, int]:
        """The rollout that was played meanwhile; the next one is begun, with the learner as it is now.

        Raises:
            GameError: what went wrong in a copy, or if an actor has ended.
        """
        if self.ahead is None and self._playing is None:
            if not self._follows:
                self._follow()
            self._play()
        self.wait()
        assert self.ahead is not None
        found, self.ahead = self.ahead, None
        if self.check is not None:
            self.check(found.rollout, len(found.episodes.lengths) > 0)
        self._follow()
        if not self.ending(found.steps):
            self._play()
        return found.rollout, found.episodes, found.steps

    def _follow(self) -> None:
        """Give the acting agent the learner's state."""
        state = self._learner.state_dict()
        self._acting.load_state_dict({name: value.detach().clone() for name, value in state.items()})
        self._follows = True

    def _play(self) -> None:
        """Begin a rollout."""
        self._follows = False
        self._playing = self._thread.submit(lambda: Played(*self._collector.collect(self._lineup)))

    def wait(self) -> None:
        """Wait for the rollout that is played now, if one is.

        Raises:
            GameError: as :meth:`collect`.
        """
        if self._playing is not None:
            began = time.perf_counter()
            playing, self._playing = self._playing, None
            self.ahead = playing.result()
            self.timing.environment += time.perf_counter() - began

    def state_dict(self) -> dict[str, Tensor]:
        """The collector's state, and the rollout ahead; where none is, the state of the agent that will play it."""
        self.wait()
        state = self._collector.state_dict()
        if self.ahead is not None:
            return state | prefixed("ahead", _tensors_of(self.ahead))
        if not self._follows:  # at the very start
            self._follow()
        return state | prefixed("behind", {name: value.clone() for name, value in self._acting.state_dict().items()})

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            KeyError: if it lacks the rollout ahead and the agent that would play it.
            ValueError: if that rollout does not fit.
        """
        self._collector.load_state_dict(state)
        ahead, behind = unprefixed("ahead", state), unprefixed("behind", state)
        if not ahead and not behind:
            raise KeyError("ahead")
        self.ahead = self._played_of(ahead) if ahead else None
        self._follows = not ahead
        if behind:
            self._acting.load_state_dict(behind)

    def _played_of(self, tensors: Mapping[str, Tensor]) -> Played:
        """A rollout from :func:`_tensors_of`.

        Raises:
            KeyError: if a part is missing.
            ValueError: if a part has another shape or dtype than those that are played here.
        """
        own = {name: value for name, value in tensors.items() if not name.startswith("episodes.")}
        fits = self._collector.shaped(len(own["reward"]), partly_active="active" in own)
        for name, wanted in _named(fits).items():
            if name.partition(".")[0] not in _LATER and _kind(own[name]) != _kind(wanted):
                raise ValueError(f"ahead.{name}: got {_kind(own[name])}; wanted {_kind(wanted)}")
        parts: dict[str, Any] = {}
        for field in dataclasses.fields(Rollout):
            parts[field.name] = own.get(field.name, unprefixed(field.name, own) or None)
        rollout = Rollout(**parts)
        episodes = Episodes(tensors["episodes.returns"].numpy().copy(), tensors["episodes.lengths"].numpy().copy())
        return Played(rollout, episodes, rollout.reward.shape[0] * rollout.reward.shape[1])

    def close(self) -> None:
        """End the actors; a rollout that is being played is given up."""
        if self._playing is not None and not self._playing.done():
            self._batch.stop()
        self._thread.shutdown(wait=True)
        self._batch.close()


def _named(rollout: Rollout) -> dict[str, Tensor]:
    """The tensors of a rollout by name: ``obs``, or ``obs.KEY`` of a dict."""
    found: dict[str, Tensor] = {}
    for field in dataclasses.fields(Rollout):
        value = getattr(rollout, field.name)
        if isinstance(value, Mapping):
            found |= prefixed(field.name, value)
        elif isinstance(value, Tensor):
            found[field.name] = value
    return found


def _tensors_of(played: Played) -> dict[str, Tensor]:
    """A copy of what was played, by name."""
    episodes = {"returns": played.episodes.returns, "lengths": played.episodes.lengths}
    found = {name: value.clone().contiguous() for name, value in _named(played.rollout).items()}
    return found | {f"episodes.{name}": torch.from_numpy(value.copy()) for name, value in episodes.items()}


def _kind(value: Tensor) -> tuple[Any, ...]:
    return value.dtype, tuple(value.shape)
