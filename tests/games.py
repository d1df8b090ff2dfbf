"""Games for tests only: they cover what the shipped games of one seat do not.

| id | seats | covers |
|---|---|---|
| test/Nim-v0 | 2, turn-based | a mask, MultiDiscrete observations, a winner and a loser |
| test/Solitaire-v0 | 1 | the same rules alone: a Discrete mask in the Gymnasium doors |
| test/Throws-v0 | 3, simultaneous | random rewards and ends, MultiBinary observations, no mask |
| test/Signs-v0 | 1 | Dict observations, MultiDiscrete actions with a mask |
| test/Relay-v0 | 2, turn-based | the same rules, with every third turn idle |
| test/Point-v0 | 1 | continuous actions, float64 state, Gaussian noise, truncation by the rules |
| test/Tug-v0 | 2, turn-based | continuous actions half bounded, passes without a mask, float64 observations |
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from mlbits.envs.core.drawing import Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import normal, randint, uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.registry import register, registered

HEAPS, MOST = 3, 3  # Nim: heaps, and the most that one move takes


def register_test_games() -> list[str]:
    """Register the games of this module, once; returns their ids."""
    games: dict[str, tuple[str, dict[str, Any]]] = {
        "test/Nim-v0": ("nim", {}),
        "test/Solitaire-v0": ("nim", {"seats": 1}),
        "test/Throws-v0": ("throws", {}),
        "test/Signs-v0": ("signs", {}),
        "test/Relay-v0": ("signs", {"seats": 2}),
        "test/Point-v0": ("point", {}),
        "test/Tug-v0": ("tug", {}),
    }
    for game_id, (factory, defaults) in games.items():
        if game_id not in registered():
            register(game_id, f"tests.games:{factory}", **defaults)
    return list(games)


def _text(state: Any, params: Any) -> str:
    return f"{state.elapsed}\n"


def _draw(state: Any, params: Any) -> Any:
    canvas = Canvas(40, 24)
    canvas.text(20, 12, str(int(state.elapsed)))
    return canvas.array()


# Nim: take one to three from a heap; who takes the last wins.


@rule
def nim_reset(state, params):
    for heap in range(HEAPS):
        state.heap[heap] = 1 + randint(state, params.largest)
    state.turn = 0


@rule
def nim_step(state, params, actions, rewards):
    seat = state.turn
    state.heap[actions[seat] // MOST] -= actions[seat] % MOST + 1
    state.turn = (seat + 1) % params.seats
    left = 0
    for heap in range(HEAPS):
        left += state.heap[heap]
    if left == 0:
        for other in range(params.seats):
            rewards[other] = -1
        rewards[seat] = 1
    return left == 0, False


@rule
def nim_observe(state, params, seat, out):
    for heap in range(HEAPS):
        out[heap] = state.heap[heap]
    out[HEAPS] = (state.turn - seat) % params.seats


@rule
def nim_legal(state, params, seat, out):
    for action in range(HEAPS * MOST):
        out[action] = action % MOST + 1 <= state.heap[action // MOST]


@rule
def nim_acts(state, params, seat):
    return state.turn == seat


def nim(*, seats: int = 2, largest: int = 4, horizon: int | None = None) -> Game:
    fields = [("seats", "i4"), ("largest", "i4")]
    return Game(
        name="Nim" if seats > 1 else "Solitaire",
        seats=seats,
        state_fields=[("heap", "i1", (HEAPS,)), ("turn", "i4")],
        params=make_params(fields, {"seats": seats, "largest": largest}, horizon),
        observation_space=spaces.MultiDiscrete([largest + 1] * HEAPS + [seats]),
        action_space=spaces.Discrete(HEAPS * MOST),
        reset=nim_reset,
        step=nim_step,
        observe=nim_observe,
        legal=nim_legal,
        acts=nim_acts if seats > 1 else None,
        text=_text,
        draw=_draw,
    )


# Throws: three seats play rock, paper, scissors at once, each against each, for noisy rewards.


@rule
def throws_reset(state, params):
    for seat in range(3):
        state.last[seat] = -1


@rule
def throws_step(state, params, actions, rewards):
    for seat in range(3):
        state.last[seat] = actions[seat]
        for other in range(3):
            difference = (actions[seat] - actions[other]) % 3
            if difference == 1:
                rewards[seat] += 1
            elif difference == 2:
                rewards[seat] -= 1
        rewards[seat] += params.noise * normal(state)
    return uniform(state) < params.end, False


@rule
def throws_observe(state, params, seat, out):
    for k in range(3):
        for throw in range(3):
            out[3 * k + throw] = state.last[(seat + k) % 3] == throw


def throws(*, noise: float = 0.1, end: float = 0.1, horizon: int | None = 10) -> Game:
    return Game(
        name="Throws",
        seats=3,
        state_fields=[("last", "i4", (3,))],
        params=make_params([("noise", "f4"), ("end", "f4")], {"noise": noise, "end": end}, horizon),
        observation_space=spaces.MultiBinary(9),
        action_space=spaces.Discrete(3),
        reset=throws_reset,
        step=throws_step,
        observe=throws_observe,
        text=_text,
        draw=_draw,
    )


# Signs: a walk on sixteen cells by two sub-actions, the first of which may not be repeated.


@rule
def signs_reset(state, params):
    state.cell = 1 + randint(state, 15)
    state.last = randint(state, 3)
    state.count = 0
    state.turn = 0
    state.drift = 0


@rule
def signs_step(state, params, actions, rewards):
    if state.turn < params.seats:
        way = actions[state.turn, 0]
        far = actions[state.turn, 1]
        rewards[state.turn] = 0.25 * way - far
        state.last = way
    else:
        way = randint(state, 3)
        far = randint(state, 2)
        rewards[0] = 0.5
    state.cell = (state.cell + way + 2 * far) % 16
    state.drift = 0.5 * state.drift + way - 0.25 * far
    state.count += 1
    state.turn = (state.turn + 1) % params.turns
    return state.cell == 0, False


@rule
def signs_observe(state, params, seat, out):
    for plane in range(2):
        for cell in range(16):
            out.image[plane, cell // 4, cell % 4] = 255 if (state.cell == cell and plane == seat) else plane
    out.vector[0] = state.drift
    out.vector[1] = -state.drift
    out.vector[2] = state.turn
    out.count = state.count % 8
    out.last[0] = state.last
    out.last[1] = seat


@rule
def signs_legal(state, params, seat, out):
    for way in range(3):
        out[way] = way != state.last
    out[3] = True
    out[4] = state.cell % 2 == 0


@rule
def signs_acts(state, params, seat):
    return state.turn == seat


def signs(*, seats: int = 1, horizon: int | None = 12) -> Game:
    fields = [("seats", "i4"), ("turns", "i4")]
    return Game(
        name="Signs" if seats == 1 else "Relay",
        seats=seats,
        state_fields=[("cell", "i4"), ("last", "i4"), ("count", "i4"), ("turn", "i4"), ("drift", "f4")],
        params=make_params(fields, {"seats": seats, "turns": seats + (seats > 1)}, horizon),
        observation_space=spaces.Dict(
            {
                "image": spaces.Box(0, 255, (2, 4, 4), np.uint8),
                "vector": spaces.Box(-np.inf, np.inf, (3,), np.float32),
                "count": spaces.Discrete(8),
                "last": spaces.MultiDiscrete([3, 2]),
            }
        ),
        action_space=spaces.MultiDiscrete([3, 2]),
        reset=signs_reset,
        step=signs_step,
        observe=signs_observe,
        legal=signs_legal,
        acts=signs_acts if seats > 1 else None,
        text=_text,
        draw=_draw,
    )


# Point: walk to the middle of a noisy plane; the rules themselves truncate at its rim.


@rule
def point_reset(state, params):
    state.x = 2 * uniform(state) - 1
    state.y = 2 * uniform(state) - 1


@rule
def point_step(state, params, actions, rewards):
    state.x += 0.3 * actions[0, 0] + params.noise * normal(state)
    state.y += 0.3 * actions[0, 1] + params.noise * normal(state)
    distance = math.sqrt(state.x * state.x + state.y * state.y)
    rewards[0] = -distance
    return distance < 0.4, distance > 1.5


@rule
def point_observe(state, params, seat, out):
    out[0] = state.x
    out[1] = state.y


def point(*, noise: float = 0.05, horizon: int | None = 20) -> Game:
    return Game(
        name="Point",
        state_fields=[("x", "f8"), ("y", "f8")],
        params=make_params([("noise", "f8")], {"noise": noise}, horizon),
        observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        action_space=spaces.Box(-1, 1, (2,), np.float32),
        reset=point_reset,
        step=point_step,
        observe=point_observe,
        text=_text,
        draw=_draw,
    )


# Tug: two seats pull a rope in turn, as hard as they like, but no pull counts for more than one.


@rule
def tug_reset(state, params):
    state.rope = 0
    state.turn = randint(state, 2)


@rule
def tug_step(state, params, actions, rewards):
    pull = min(actions[state.turn, 0], 1.0) - 0.25 * uniform(state)
    state.rope += pull if state.turn == 0 else -pull
    state.turn = 1 - state.turn
    over = abs(state.rope) > 1.0
    if over:
        rewards[0] = 1 if state.rope > 0 else -1
        rewards[1] = -rewards[0]
    return over, False


@rule
def tug_observe(state, params, seat, out):
    out[0] = state.rope if seat == 0 else -state.rope
    out[1] = state.turn == seat


@rule
def tug_acts(state, params, seat):
    return state.turn == seat


def tug(*, horizon: int | None = 9) -> Game:
    return Game(
        name="Tug",
        seats=2,
        state_fields=[("rope", "f4"), ("turn", "i4")],
        params=make_params([], {}, horizon),
        observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float64),
        action_space=spaces.Box(0, np.inf, (1,), np.float32),
        reset=tug_reset,
        step=tug_step,
        observe=tug_observe,
        acts=tug_acts,
        text=_text,
        draw=_draw,
    )
