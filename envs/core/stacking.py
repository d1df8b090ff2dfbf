"""Frame stacks: a game, or any Gymnasium environment, whose observation is its last K observations.

The stack is a part of a copy's state, so that it is reset, truncated, saved and restored with it, at every door and on
a GPU. At the start of an episode all K are its first observation.

Shapes, from one observation to K of them, the oldest first:

| one | K |
|---|---|
| Discrete(n) | MultiDiscrete [K] of n each |
| Box, MultiDiscrete or MultiBinary [...] | the same [K, ...] |
| images: Box [C, H, W] or [H, W, C] | Box [K * C, H, W] |

Example:
    >>> from mlbits.envs.registry import make_game
    >>> stacked(make_game("mlbits/CartPole-v0"), 4).observation_space.shape
    (4, 4)
"""

from __future__ import annotations

import copy
import hashlib
import sys
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, Rule
from mlbits.envs.core.rules import python_function, rule
from mlbits.envs.core.settings import integer
from mlbits.envs.core.stack_setting import SETTING

MOST = 1000


def stacked(game: Game, frames: int) -> Game:
    """A game whose observation is its last ``frames`` observations; one frame changes nothing.

    Raises:
        GameError: if the number is out of range, or an observation is a Dict.
    """
    frames = integer(SETTING, frames, 1, MOST)
    if frames == 1:
        return game
    space, layout = stacked_space(game.observation_space, frames), game.observation
    order = "index" if layout.scalar else _order(game.observation_space)
    rules = (game.reset, game.step, game.observe)
    reset, step, observe = _rules(*rules, game.seats, frames, order, len(layout.shape))
    ranges = dict(game.state_ranges)
    if isinstance(game.observation_space, spaces.Discrete):  # networks look them up in tables
        ranges["frames"] = (0, int(game.observation_space.n) - 1)
    return replace(
        game,
        state_fields=[*game.state_fields, ("frames", layout.dtype, (game.seats, frames, *layout.shape))],
        state_ranges=ranges,
        observation_space=space,
        reset=reset,
        step=step,
        observe=observe,
        frame_stack=axis_of_frames(space, frames),
    )


def axis_of_frames(space: gym.Space[Any], frames: int) -> int:
    """``frames`` if they are the first axis of their stacked space; 1 for images of several channels, which join it."""
    return frames if (space.shape or ())[:1] == (frames,) else 1


def stacked_space(space: gym.Space[Any], frames: int) -> gym.Space[Any]:
    """The space of the last ``frames`` observations.

    Raises:
        GameError: for a Dict, or a space of another kind.
    """
    if isinstance(space, spaces.Discrete):
        return spaces.MultiDiscrete([int(space.n)] * frames)
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(np.stack([space.nvec] * frames))
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary([frames, *space.shape])
    if isinstance(space, spaces.Box):
        low, high = (stacked_arrays([bound] * frames, space) for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=space.dtype)
    raise GameError(f"{SETTING}: got the observation space {space}; wanted one array, not a {type(space).__name__}")


def stacked_arrays(frames: list[Any], space: gym.Space[Any]) -> NDArray[Any]:
    """Observations of a space, the oldest first, as one."""
    order, stack = _order(space), np.stack(frames)
    if order == "first":
        return stack.reshape(-1, *stack.shape[2:])
    if order == "last":
        return np.moveaxis(stack, -1, 1).reshape(-1, *stack.shape[1:3])
    return stack


def _order(space: gym.Space[Any]) -> str:
    """Where images have their channels, "first" or "last"; "" for what is no image."""
    shape = space.shape or ()
    if not isinstance(space, spaces.Box) or len(shape) != 3:
        return ""
    return "last" if shape[2] in (1, 3, 4) and min(shape[:2]) > 4 else "first"


class FrameStack(gym.Wrapper[Any, Any, Any, Any]):
    """The same for a Gymnasium environment.

    Args:
        env: the environment.
        frames: how many observations.

    Raises:
        GameError: if the number is out of range, or an observation is a Dict.
    """

    def __init__(self, env: gym.Env[Any, Any], frames: int) -> None:
        super().__init__(env)
        self.frames = integer(SETTING, frames, 1, MOST)
        self.observation_space = stacked_space(env.observation_space, self.frames)
        self._seen: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, whose first observation is all of the stack."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._seen = [copy.copy(obs)] * self.frames
        return self._stack(), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and drop the oldest observation."""
        obs, *rest = self.env.step(action)
        self._seen = [*self._seen[1:], copy.copy(obs)]
        return self._stack(), *rest  # type: ignore[return-value]

    def _stack(self) -> NDArray[Any]:
        return stacked_arrays(self._seen, self.env.observation_space).astype(self.observation_space.dtype, copy=False)


def _rules(
    reset: Rule, step: Rule, observe: Rule, seats: int, frames: int, order: str, axes: int
) -> tuple[Rule, Rule, Rule]:
    """The rules of the stacked game, as names of this module, so that they are compiled once for all processes."""
    about = [
        f"{python_function(part).__module__}.{python_function(part).__qualname__}" for part in (reset, step, observe)
    ]
    key = hashlib.sha256(repr((about, seats, frames, order, axes)).encode()).hexdigest()[:16]
    made, module = list[Rule](), sys.modules[__name__]
    for name, build in (("reset", _reset), ("step", _step), ("observe", _observe)):
        known: Any = getattr(module, f"{name}_{key}", None)
        if known is None or known.stands_on != (reset, step, observe):
            found = build(reset, step, observe, seats, frames, order, axes)
            found.__name__ = found.__qualname__ = f"{name}_{key}"
            known = rule(found)
            known.stands_on = (reset, step, observe)
            setattr(module, found.__name__, known)
        made.append(known)
    return made[0], made[1], made[2]


@rule
def _copy_1(to: Any, of: Any) -> None:
    for i in range(of.shape[0]):
        to[i] = of[i]


@rule
def _copy_2(to: Any, of: Any) -> None:
    for i in range(of.shape[0]):
        for j in range(of.shape[1]):
            to[i, j] = of[i, j]


@rule
def _copy_3(to: Any, of: Any) -> None:
    for i in range(of.shape[0]):
        for j in range(of.shape[1]):
            for k in range(of.shape[2]):
                to[i, j, k] = of[i, j, k]


_COPIES = {1: _copy_1, 2: _copy_2, 3: _copy_3}


def _reset(reset: Any, step: Any, observe: Any, seats: int, frames: int, order: str, axes: int) -> Any:
    copied = _COPIES[axes]

    def stacked_reset(state: Any, params: Any) -> None:
        reset(state, params)
        for seat in range(seats):
            observe(state, params, seat, state.frames[seat, frames - 1])
            for k in range(frames - 1):
                copied(state.frames[seat, k], state.frames[seat, frames - 1])

    return stacked_reset


def _step(reset: Any, step: Any, observe: Any, seats: int, frames: int, order: str, axes: int) -> Any:
    copied = _COPIES[axes]

    def stacked_step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
        ended, cut = step(state, params, actions, rewards)
        for seat in range(seats):
            for k in range(frames - 1):
                copied(state.frames[seat, k], state.frames[seat, k + 1])
            observe(state, params, seat, state.frames[seat, frames - 1])
        return ended, cut

    return stacked_step


def _observe(reset: Any, step: Any, observe: Any, seats: int, frames: int, order: str, axes: int) -> Any:
    copied = _COPIES[axes]

    def plain(state: Any, params: Any, seat: Any, out: Any) -> None:
        for k in range(frames):
            copied(out[k], state.frames[seat, k])

    def index(state: Any, params: Any, seat: Any, out: Any) -> None:
        for k in range(frames):
            out[k] = state.frames[seat, k, 0]

    def first(state: Any, params: Any, seat: Any, out: Any) -> None:
        channels = out.shape[0] // frames
        for k in range(frames):
            for c in range(channels):
                _copy_2(out[k * channels + c], state.frames[seat, k, c])

    def last(state: Any, params: Any, seat: Any, out: Any) -> None:
        channels = out.shape[0] // frames
        for k in range(frames):
            for c in range(channels):
                for y in range(out.shape[1]):
                    for x in range(out.shape[2]):
                        out[k * channels + c, y, x] = state.frames[seat, k, y, x, c]

    return {"first": first, "last": last, "index": index}.get(order, plain)
