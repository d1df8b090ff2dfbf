"""Copies of a Gymnasium environment that are stepped one after another, and the arrays that they write.

:class:`~mlbits.envs.doors.gymnasium_batch.GymnasiumBatch` has one set of arrays for all its copies; each process that
steps some of them (:mod:`~mlbits.envs.doors.gymnasium_workers`) writes their rows.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.core.spaces import ActionLayout, observation_layout
from mlbits.envs.doors.atari import lives_of
from mlbits.envs.doors.gymnasium_ids import make_copy
from mlbits.envs.doors.outcome_checks import OutcomeChecks
from mlbits.envs.engine import modes

_ALIGNED = 64

# Arrays [B, ...] by the key of a Dict space; a single one under None for any other space.
Parts = dict[str | None, NDArray[Any]]


class Arrays(NamedTuple):
    """What B copies write, all in one block of memory.

    Attributes:
        obs: current observations, by key.
        final: last observations of the episodes that ended in a step (stale elsewhere), by key.
        actions: what is to be played, [B, ...].
        rewards: float32 [B].
        terminated: bool [B].
        truncated: bool [B].
        over: bool [B], whether the episode is over and waits for a reset.
        reseeded: bool [B], set where a copy was seeded anew at the end of an episode.
        paid: sum of rewards since the last seeding, float64 [B].
        age: steps since the last seeding, int64 [B].
    """

    obs: Parts
    final: Parts
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    over: NDArray[np.bool_]
    reseeded: NDArray[np.bool_]
    paid: NDArray[np.float64]
    age: NDArray[np.int64]


def arrays_in(
    count: int, space: gym.Space[Any], action: ActionLayout, memory: Callable[[int], Any] = np.zeros
) -> Arrays:
    """The arrays of B copies, in a block of memory.

    Args:
        count: B.
        space: of one observation.
        action: of one action.
        memory: given a number of bytes, returns a buffer of as many, all 0 or left by other processes.
    """
    layout = observation_layout(space)
    kinds: dict[str | None, np.dtype[Any]] = {key: layout.dtype[key] for key in layout.keys or ()}
    if layout.keys is None:
        kinds[None] = np.dtype((layout.dtype, () if layout.scalar else layout.shape))
    played = np.float32 if action.kind == "continuous" else np.int64
    fields = [*kinds.values(), *kinds.values(), np.dtype((played, action.shape))]
    fields += [np.dtype(kind) for kind in ("f4", "?", "?", "?", "?", "f8", "i8")]
    starts, size = [], 0
    for kind in fields:
        starts.append(size)
        size += -(-count * kind.itemsize // _ALIGNED) * _ALIGNED
    block = np.frombuffer(memory(size), np.uint8, size)
    every = [
        block[start : start + count * kind.itemsize].view(kind.base).reshape(count, *kind.shape)
        for start, kind in zip(starts, fields, strict=True)
    ]
    obs, final = (dict(zip(kinds, every[k * len(kinds) :], strict=False)) for k in (0, 1))
    return Arrays(obs, final, *every[2 * len(kinds) :])


def in_words(error: Exception) -> str:
    """An environment's own error in one line: its type, the first line of its message, and where it was raised."""
    said = (str(error).splitlines() or [""])[0].strip()
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = f", {Path(where[0].filename).name}, line {where[0].lineno}" if where else ""
    return f"{type(error).__name__}{f': {said}' if said else ''}{place}"


class _Working(Protocol):
    """Who works on copies; ``at`` is the number of the one that was worked on last."""

    at: int


class ErrorsNamed:
    """A context in which an environment's own errors become ones of one line; the traceback is the cause's.

    Args:
        env_id: the environment's name in messages.
        copies: who works on copies; None for copy 0 alone.

    Raises:
        GameError: on leaving, instead of any error that is not ours.
    """

    def __init__(self, env_id: str, copies: _Working | None = None) -> None:
        self._env_id, self._copies = env_id, copies

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, MlbitsError):
            at = 0 if self._copies is None else self._copies.at
            raise GameError(f"{self._env_id}: copy {at} failed ({in_words(error)})") from error


class GymnasiumCopies:
    """Some of the copies of a batch.

    Args:
        env_id: a Gymnasium id.
        settings: keyword arguments of the environment.
        training: see :class:`~mlbits.envs.doors.gymnasium_batch.GymnasiumBatch`.
        autoreset: the number of the mode (:mod:`~mlbits.envs.engine.modes`).
        seed_every: steps after which a copy is reseeded at the next end of an episode; 0 for never.
        numbers: which of the batch's copies these are; they may be none.

    Attributes:
        envs: the environments.
        seeds: first seed of each of the batch's copies.
        seedings: how often each was reseeded since.
        at: number of the copy that was worked on last.
    """

    def __init__(
        self, env_id: str, settings: Mapping[str, Any], training: bool, autoreset: int, seed_every: int,
        numbers: range,
    ) -> None:  # fmt: skip
        self.numbers, self.at = numbers, numbers.start
        self._env_id, self._autoreset, self._seed_every = env_id, autoreset, seed_every
        self.envs = []
        for b in numbers:
            self.at = b
            self.envs.append(make_copy(env_id, settings, training))
        self._lives = [lives_of(env) for env in self.envs]
        self._replaying = False

    def step_shared(self) -> bool:
        """:meth:`step` with the actions that the batch wrote."""
        return self.step(self._arrays.actions)

    def use(self, arrays: Arrays, space: gym.Space[Any], action: ActionLayout, count: int) -> None:
        """Take the batch's arrays, the space of an observation, the layout of an action, and the number of copies B."""
        self._arrays, self.action = arrays, action
        self._action_space: Any = self.envs[0].action_space if self.envs else None
        self._checks = OutcomeChecks(self._env_id, arrays.obs, space)
        self.seeds, self.seedings = [0] * count, [0] * count

    def env(self, b: int) -> gym.Env[Any, Any]:
        """The environment of copy b of the batch."""
        return self.envs[b - self.numbers.start]

    def step(self, actions: NDArray[Any]) -> bool:
        """Play one action per copy, of the whole batch's [B, ...]; returns whether an episode ended."""
        numbers, any_ended = self.numbers, False
        if not numbers:
            return False
        own = slice(numbers.start, numbers.stop)
        self._arrays.age[own] += 1
        for b, action in zip(numbers, self._played(actions[own]), strict=True):
            self.at = b
            any_ended |= self._advance(b, action)
        return any_ended

    def _advance(self, b: int, action: Any) -> bool:
        """Step copy b; return whether its episode ended."""
        arrays = self._arrays
        if arrays.over[b]:
            self._step_ended(b)
            return False
        obs, reward, terminated, truncated = self._checks.check_step(self.env(b).step(action))
        arrays.rewards[b], arrays.terminated[b], arrays.truncated[b] = reward, terminated, truncated
        arrays.paid[b] += reward
        ended = terminated or truncated
        if ended and self._autoreset == modes.SAME_STEP:
            self._checks.write(arrays.final, b, obs)
            self._begin(b)
        else:
            arrays.over[b] = ended
            self._checks.write(arrays.obs, b, obs)
        return ended

    def _step_ended(self, b: int) -> None:
        """Step a copy whose episode is over, under "disabled" or "next_step"."""
        self._arrays.rewards[b] = 0
        if self._autoreset == modes.NEXT_STEP:
            self._begin(b)
            self._clear(b)

    def restart(self, b: int) -> None:
        """Start an episode in copy b, whether or not the last one has ended."""
        self.at = b
        self._begin(b)
        self._clear(b)

    def _begin(self, b: int) -> None:
        """Start an episode in copy b, reseeding it if that is due."""
        due = self._seed_every > 0 and not self._replaying and self._arrays.age[b] >= self._seed_every
        if due and not self._goes_on(b):
            self.seedings[b] += 1
            self._seed(b)
            self._arrays.reseeded[b] = True
            return
        self._checks.write(self._arrays.obs, b, self._checks.check_reset(self.env(b).reset()))

    def _goes_on(self, b: int) -> bool:
        """Whether the next episode continues a game, as after a lost life in Atari."""
        lives = self._lives[b - self.numbers.start]
        return lives is not None and lives.goes_on

    def seed(self, b: int, seed: int, seedings: int) -> None:
        """Start an episode in copy b from its first seed and the number of its reseedings."""
        self.at = b
        self.seeds[b], self.seedings[b] = seed, seedings
        self._seed(b)
        self._clear(b)

    def _seed(self, b: int) -> None:
        seed, count = self.seeds[b], self.seedings[b]
        if count > 0:
            seed = int(np.random.SeedSequence([seed, b, count]).generate_state(1)[0]) % 2**31
        self._checks.write(self._arrays.obs, b, self._checks.check_reset(self.env(b).reset(seed=seed)))
        self._arrays.paid[b] = 0.0
        self._arrays.age[b] = 0

    def _clear(self, b: int) -> None:
        arrays = self._arrays
        arrays.rewards[b], arrays.terminated[b], arrays.truncated[b], arrays.over[b] = 0, False, False, False

    def _played(self, actions: NDArray[Any]) -> Any:
        """The arguments of ``env.step`` for N actions [N, ...], with the type and dtype of the space's samples."""
        if self.action.kind != "continuous":
            # astype copies, because environments may keep a row; rows of a one-axis array are NumPy scalars.
            return list(actions.astype(self._action_space.dtype))
        space: Any = self._action_space
        if space.dtype == np.float32:
            return actions.astype(np.float32)
        if not np.issubdtype(space.dtype, np.floating):
            actions = np.rint(actions)
        # Float32 bounds are rounded inwards; an action on a bound becomes the space's exact bound.
        cast = actions.astype(space.dtype)
        cast = np.where(actions == self.action.low, space.low, cast)
        return np.where(actions == self.action.high, space.high, cast)

    def replay(self, b: int, actions: NDArray[Any], resets: list[int], done: Callable[[], None]) -> str | None:
        """Seed copy b and replay its actions; return an error message, or None.

        Args:
            b: the copy.
            actions: since it was seeded, [T, ...].
            resets: after how many of them it was reset before its episode had ended.
            done: called after each.
        """
        self._replaying, at = True, 0
        try:
            self.seed(b, self.seeds[b], self.seedings[b])
            for t, action in enumerate(self._played(actions)):
                while at < len(resets) and resets[at] == t:
                    self.restart(b)
                    at += 1
                self._advance(b, action)
                done()
            for _ in resets[at:]:
                self.restart(b)
        except Exception as error:  # any error of an environment in an unexpected state
            return (str(error).splitlines() or [type(error).__name__])[0]
        finally:
            self._replaying = False
        self._arrays.age[b] = len(actions)
        if not self._arrays.over[b]:
            self._clear(b)
        return None
