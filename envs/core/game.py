"""``Game``: what a game declares. Seeding, autoreset, masks and time limits come from the core.

A game consists of three to five small functions ("rules") written for ONE copy and marked ``@rule``:

| function | what it does |
|---|---|
| ``reset(state, params)`` | write an initial state; random numbers come from ``uniform(state)`` and the like |
| ``step(state, params, actions, rewards)`` | play ``actions[seat]``, write ``rewards[seat]``; return two flags |
| ``observe(state, params, seat, out)`` | write all of ``out``, the observation of one seat |
| ``legal(state, params, seat, out)`` | optional: set ``out[a] = True`` for each legal action (all False on entry) |
| ``acts(state, params, seat)`` | optional: whether the seat acts now (otherwise it passes); default: always |
| ``goal(params, achieved, desired)`` | optional: reward and end by goals alone, see :mod:`mlbits.envs.core.goals` |

``step`` returns ``(terminated, truncated)``; rewards are zero when it is called. ``out`` is an array of the
observation's shape ([1] for Discrete, so ``out[0] = ...``), or for a Dict space a record with one field per key.

``state`` and ``params`` are records with the game's own dtypes, preceded by a header that the core owns. A seat that
does not act has one legal action, index 0, which means "pass"; whatever it plays is ignored.

Rules may use what Numba compiles for both CPU and GPU: arithmetic, ``math``, loops, fields and sub-arrays of the
two records, module constants, other rules. They may not allocate memory, raise or call Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.settings import integer
from mlbits.envs.core.spaces import ActionLayout, ObservationLayout, action_layout, observation_layout

STATE_HEADER = [("rng_key", "u8"), ("rng_counter", "u8"), ("elapsed", "i4"), ("over", "u1")]
# ``horizon`` is for rules to read; the core truncates after ``cut_after`` steps, which a door may lower or raise.
PARAMS_HEADER = [("horizon", "i4"), ("cut_after", "i4")]

Rule = Callable[..., Any]
Fields = list[tuple[Any, ...]]


def make_params(fields: Fields, values: Mapping[str, Any], horizon: int | None = None) -> NDArray[Any]:
    """One record of parameters, header included.

    Args:
        fields: the game's own fields, as for ``numpy.dtype``: (name, type) or (name, type, shape).
        values: a value for each field; an array smaller than its sub-array field is padded with zeros.
        horizon: steps after which the core truncates an episode, or None for no limit.

    Returns:
        A structured array of shape [1].

    Raises:
        GameError: if the horizon is not positive, a field is missing or unknown, or a value does not fit.
    """
    if horizon is not None:
        integer("horizon", horizon, 1, 2**31 - 1)
    _check_names("fields", fields, PARAMS_HEADER)
    params = np.zeros(1, np.dtype(PARAMS_HEADER + fields, align=True))
    params["horizon"] = params["cut_after"] = horizon or 0
    names = {str(entry[0]) for entry in fields}
    if names != set(values):
        raise GameError(f"params: got values for {sorted(values)}; wanted {sorted(names)}")
    for name, value in values.items():
        target, source = params[name][0], np.asarray(value)
        if source.ndim == 0:
            params[name] = source
        elif source.ndim != target.ndim or any(s > t for s, t in zip(source.shape, target.shape, strict=True)):
            raise GameError(f"params[{name!r}]: got shape {source.shape}; wanted at most {target.shape}")
        else:
            target[tuple(slice(0, size) for size in source.shape)] = source
    return params


def _check_names(argument: str, fields: Fields, header: list[tuple[str, str]]) -> None:
    names = [str(entry[0]) for entry in fields]
    taken = sorted({name for name, _ in header} & set(names))
    if taken:
        raise GameError(f"{argument}: {taken} belong to the core; wanted other names")
    # Records have attributes of their own (size, shape, max, ...), which would hide a field when rules run uncompiled.
    hidden = sorted(name for name in names if hasattr(np.record, name))
    if hidden:
        raise GameError(f"{argument}: {hidden} are attributes of NumPy's records; wanted other names")
    if len(set(names)) != len(names):
        raise GameError(f"{argument}: got {names}; wanted each name once")


@dataclass(frozen=True, kw_only=True)
class Game:
    """The declaration of a game: name, seats, spaces, fields of state and parameters, and rules.

    Attributes:
        name: a short name and a Python identifier ("GridWorld").
        seats: number of players P, at least 1.
        state_fields: the game's own fields of a copy's state, as for ``numpy.dtype``.
        state_ranges: least and largest value of each field with which rules index, count or loop; states from files
            are checked before rules read them (:mod:`mlbits.envs.engine.state_checks`).
        sound: where ranges are not enough, whether each of the states [B] holds together, bool [B].
        params: the parameters, from :func:`make_params`, shape [1].
        params_ranges: least and largest value of each parameter with which rules index, count or loop. With it a
            batch takes other parameters while it runs (``GameBatch.set_params``); None: it does not.
        params_sound: where ranges are not enough, whether each of the records of parameters [N] holds together,
            bool [N].
        observation_space: one seat's observations.
        action_space: one seat's actions.
        reset: rule, see the module's docstring.
        step: rule.
        observe: rule.
        legal: rule, or None where every action is always legal.
        acts: rule, or None where every seat always acts.
        goal: rule, or None where observations have no goals.
        text: draws a copy as text, ``text(state, params) -> str``.
        draw: draws a copy as an image, ``draw(state, params) -> uint8 [H, W, 3]``.
        layers: draws a copy as SVG, in parts that make one document when joined: ``layers(state, params) -> [str]``.
            What stays the same between positions is best a part of its own, which replays store once. None: pages
            show what ``draw`` draws.
        shapes: where on the drawing one may click to move, ``shapes(state, params, seat) -> {name: path}``: SVG path
            data (:func:`~mlbits.envs.core.drawing.box`, :func:`~mlbits.envs.core.drawing.ring`) in the drawing's
            coordinates. An action is played by clicking the shapes that its name names, in their order: "d", or "e2"
            and "e4" for "e2e4". None: by buttons alone.
        decisions: for MultiDiscrete actions, what a seat decides now, ``decisions(state, params, seat, legal) ->
            [(heading, {index: name})]``, one for each slot, with the names of the legal indices; ``legal`` is the
            seat's mask bool [A]. None: numbers.
        reveals: whether ``text`` and drawing show what a player has to find out; who plays then sees the observation.
        reward_threshold: mean return at which the game counts as solved, or None.
        frames_per_second: frame rate of videos.
        layout: facts for tools that draw on top of the image (for example the shape of a gridworld).
        frame_stack: k if the first axis of observations is the latest k frames, oldest first, else 1.
    """

    name: str
    seats: int = 1
    state_fields: Fields
    state_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sound: Callable[[NDArray[Any]], NDArray[np.bool_]] | None = None
    params: NDArray[Any]
    params_ranges: Mapping[str, tuple[float, float]] | None = None
    params_sound: Callable[[NDArray[Any]], NDArray[np.bool_]] | None = None
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    reset: Rule
    step: Rule
    observe: Rule
    legal: Rule | None = None
    acts: Rule | None = None
    goal: Rule | None = None
    text: Callable[[Any, Any], str]
    draw: Callable[[Any, Any], NDArray[np.uint8]]
    layers: Callable[[Any, Any], Sequence[str]] | None = None
    shapes: Callable[[Any, Any, int], Mapping[str, str]] | None = None
    decisions: Callable[[Any, Any, int, NDArray[np.bool_]], Sequence[tuple[str, Mapping[int, str]]]] | None = None
    reveals: bool = False
    reward_threshold: float | None = None
    frames_per_second: int = 8
    layout: Mapping[str, Any] = field(default_factory=dict)
    frame_stack: int = 1

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise GameError(f"name: got {self.name!r}; wanted a Python identifier")
        if self.seats < 1:
            raise GameError(f"seats: got {self.seats}; wanted at least 1")
        _check_names("state_fields", self.state_fields, STATE_HEADER)
        if unknown := sorted(self.state_ranges.keys() - {str(entry[0]) for entry in self.state_fields}):
            raise GameError(f"state_ranges: got {unknown[0]!r}; wanted names of state_fields")
        if unknown := sorted((self.params_ranges or {}).keys() - set(self.params.dtype.names or ())):
            raise GameError(f"params_ranges: got {unknown[0]!r}; wanted names of parameters")
        if self.params.shape != (1,) or "horizon" not in (self.params.dtype.names or ()):
            raise GameError("params: wanted one record made by make_params")
        action_layout(self.action_space)
        observation_layout(self.observation_space)
        if self.legal is not None and self.action.kind == "continuous":
            raise GameError("legal: a continuous action space has bounds, not a mask; wanted legal=None")

    @cached_property
    def state_dtype(self) -> np.dtype[Any]:
        """The dtype of a copy's state: the core's header and the game's own fields, aligned."""
        return np.dtype(STATE_HEADER + self.state_fields, align=True)

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode is truncated, or None."""
        return int(self.params["cut_after"][0]) or None

    def limited_to(self, steps: int | None) -> Game:
        """This game with its horizon lowered to ``steps`` if that is shorter; None changes nothing.

        Raises:
            GameError: if ``steps`` is not a positive integer.
        """
        if steps is None:
            return self
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps < 2**31:
            raise GameError(f"time limit: got {steps!r}; wanted a positive number of steps, or None for no limit")
        return self._cut_after(min(int(steps), self.horizon or int(steps)))

    def unlimited(self) -> Game:
        """This game without truncation, for a door that counts steps itself; rules still read the same ``horizon``."""
        return self._cut_after(0)

    def _cut_after(self, steps: int) -> Game:
        params = self.params.copy()
        params["cut_after"] = steps
        return replace(self, params=params)

    @cached_property
    def observation(self) -> ObservationLayout:
        """Memory layout of an observation."""
        return observation_layout(self.observation_space)

    @cached_property
    def action(self) -> ActionLayout:
        """Memory layout of an action."""
        return action_layout(self.action_space)

    @cached_property
    def masked(self) -> bool:
        """Whether copies have a legal mask: the game has ``legal``, or ``acts`` (seats that may have to pass)."""
        return self.action.kind != "continuous" and (self.legal is not None or self.acts is not None)
