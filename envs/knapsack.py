"""Knapsack: fill a sack of limited capacity with the most valuable items, one at a time.

Description:
    There are n items of integer weight and positive value. Each can be packed at most once, and not every
    item is present in every episode: each is available with probability ``availability`` (if no item that
    fits into the empty sack would be, one of those is made available, drawn uniformly). Weights, values and
    capacity form one instance, fixed for the game, either drawn from ``instance_seed`` or given; copies of one batch
    may have different instances.

    Source: the 0/1 knapsack problem, Kellerer, Pferschy and Pisinger, "Knapsack Problems" (2004), chapter 1,
    packed item by item. Drawn instances are of the kind called uncorrelated there: weights and values are uniform and
    independent.

Actions:
    Discrete(n): the item to pack. Legal are items that are available, not packed yet, and fit into the remaining
    capacity.

Observations:
    Box float32 [3 n + 1], a flat vector that suits any network:

    | index | meaning | low | high |
    |---|---|---|---|
    | 0 | remaining capacity, in units of the unit weight | 0 | 1 |
    | 1 + 3 i | 1 if item i is available and not packed yet (it may be too heavy) | 0 | 1 |
    | 2 + 3 i | weight of item i, in units of the unit weight | 0 | 1 |
    | 3 + 3 i | value of item i, divided by that of the most valuable item | 0 | 1 |

    The unit weight is the capacity, or the heaviest item's weight if that is more.

Rewards:
    The value of the packed item. In the default instance the mean return is 65.3 for optimal play and 51 for
    random play.

Start:
    The sack is empty; the available items are drawn.

End:
    Termination when no remaining item fits, after n steps at the latest. There is no truncation.

Version history:
    v0: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import GREEN, GREY, GRID, INK, PAPER, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import randint, uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import capacity as array_size
from mlbits.envs.core.settings import integer, number, numbers

DEFAULT_ITEMS, MAX_ITEMS = 10, 1000
MAX_WEIGHT = 10**6
MIN_VALUE, MAX_VALUE = 0.001, 10**6
DRAWN_UP_TO = 20  # largest weight and value of a drawn instance


@rule
def fits(state: Any, params: Any, item: Any) -> Any:
    """Whether an item can be packed now."""
    return state.there[item] != 0 and params.weights[item] <= state.left


@rule(inline=False)
def reset(state: Any, params: Any) -> None:
    """Empty the sack and draw which items are available."""
    state.left = params.capacity
    light, packable = 0, 0
    for item in range(params.items):
        there = uniform(state) < params.availability
        state.there[item] = 1 if there else 0
        state.packed[item] = 0
        if params.weights[item] <= params.capacity:
            light += 1
            if there:
                packable += 1
    if packable == 0:
        chosen = randint(state, light)
        for item in range(params.items):
            if params.weights[item] <= params.capacity:
                if chosen == 0:
                    state.there[item] = 1
                chosen -= 1


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Pack one item."""
    item = actions[0]
    state.left -= params.weights[item]
    state.there[item] = 0
    state.packed[item] = 1
    rewards[0] = params.values[item]
    ended = True
    for other in range(params.items):
        if fits(state, params, other):
            ended = False
    return ended, False


@rule(inline=False)
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The remaining capacity, then for each item whether it is available, its weight and its value."""
    out[0] = state.left / params.unit_weight
    for item in range(params.items):
        out[1 + 3 * item] = state.there[item]
        out[2 + 3 * item] = params.weights[item] / params.unit_weight
        out[3 + 3 * item] = params.values[item] / params.unit_value


@rule(inline=False)
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Items that are available and fit."""
    for item in range(params.items):
        out[item] = fits(state, params, item)


def knapsack(
    items: int | None = None,
    *,
    weights: Sequence[int] | None = None,
    values: Sequence[float] | None = None,
    capacity: int | None = None,
    availability: float = 0.8,
    instance_seed: int = 0,
) -> Game:
    """A knapsack game.

    Args:
        items: number of items n, 1 to 1000; None means the length of ``weights`` or ``values``, else 10.
        weights: integer weights [n], 1 to 1,000,000; None draws them from 1..20.
        values: values [n], 0.001 to 1,000,000; None draws them from the integers 1..20.
        capacity: an integer, at least the lightest item's weight; None means half of the sum of weights,
            rounded down, or the lightest item's weight if that is larger.
        availability: probability, above 0 up to 1, that an item is available in an episode.
        instance_seed: seed of the drawn parts of the instance.

    Raises:
        GameError: for a setting out of range, or lists of different lengths.
    """
    weight_table, value_table = _instance(items, weights, values, instance_seed)
    items = len(weight_table)
    lightest = int(weight_table.min())
    if capacity is None:
        capacity = max(int(weight_table.sum()) // 2, lightest)
    capacity = integer("capacity", capacity, 1, 2**31 - 1)
    if capacity < lightest:
        raise GameError(f"capacity: got {capacity}; wanted at least {lightest}, the lightest item's weight")
    availability = number("availability", availability, 0.0, 1.0)
    if availability == 0:
        raise GameError("availability: got 0; wanted a probability above 0")
    room = array_size(items)
    params = make_params(
        [
            ("items", "i4"), ("capacity", "i4"), ("unit_weight", "f8"), ("unit_value", "f4"),
            ("availability", "f8"), ("weights", "i4", (room,)), ("values", "f4", (room,)),
        ],
        {
            "items": items, "capacity": capacity, "unit_weight": max(capacity, int(weight_table.max())),
            "unit_value": value_table.max(), "availability": availability, "weights": weight_table,
            "values": value_table,
        },
    )  # fmt: skip
    return Game(
        name="Knapsack",
        state_fields=[("left", "i4"), ("there", "u1", (room,)), ("packed", "u1", (room,))],
        state_ranges={"left": (0, capacity), "there": (0, 1), "packed": (0, 1)},
        params=params,
        observation_space=spaces.Box(0.0, 1.0, (3 * items + 1,), np.float32),
        action_space=spaces.Discrete(items),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        text=_text,
        draw=_draw,
        layout={"weights": weight_table, "values": value_table, "capacity": capacity},
    )


def _instance(items: Any, weights: Any, values: Any, instance_seed: Any) -> tuple[Any, Any]:
    """The items' weights, int64 [n], and values, float64 [n], given or drawn."""
    items = _count(items, weights, values)
    seed = integer("instance_seed", instance_seed, 0, 2**63 - 1)
    # Only `random` of NumPy's generator is used: its stream has never changed between versions.
    drawn = 1 + np.floor(np.random.default_rng(seed).random((2, items)) * DRAWN_UP_TO)
    weight_table = drawn[0] if weights is None else numbers("weights", weights, 1, MAX_WEIGHT)
    value_table = drawn[1] if values is None else numbers("values", values, MIN_VALUE, MAX_VALUE)
    for i, weight in enumerate(weight_table):
        if weight != int(weight):
            raise GameError(f"weights[{i}]: got {weight}; wanted an integer")
    return weight_table.astype(np.int64), value_table


def _count(items: int | None, weights: Any, values: Any) -> int:
    """The number of items, on which the settings must agree."""
    known = {} if items is None else {"items": integer("items", items, 1, MAX_ITEMS)}
    for name, given in (("weights", weights), ("values", values)):
        if given is not None:
            known[name] = len(numbers(name, given))
    for name, count in known.items():
        first, wanted = next(iter(known.items()))
        if count != wanted:
            raise GameError(f"{name}: got {count} entries; wanted {wanted}, the number given by {first}")
        integer(f"length of {name}", count, 1, MAX_ITEMS)
    return next(iter(known.values()), DEFAULT_ITEMS)


def _text(state: Any, params: Any) -> str:
    """One line per item: its weight, its value and where it is."""
    packed = float(params.values[state.packed != 0].sum())
    lines = [f"capacity left {int(state.left)} of {int(params.capacity)}, value packed {packed:g}"]
    for item in range(int(params.items)):
        weight, value = int(params.weights[item]), float(params.values[item])
        lines.append(f"item {item:3}  weight {weight:4}  value {value:6g}  {_place(state, params, item)}")
    return "\n".join(lines) + "\n"


def _place(state: Any, params: Any, item: int) -> str:
    if state.packed[item]:
        return "packed"
    if not state.there[item]:
        return "not there"
    return "fits" if params.weights[item] <= state.left else "too heavy"


_LOOK = {  # fill, outline, text
    "packed": (GREEN, INK, PAPER),
    "fits": (PAPER, INK, INK),
    "too heavy": (GRID, GREY, GREY),
    "not there": (PAPER, GRID, (128, 128, 124)),
}


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """A bar that fills with packed items, above the items as boxes."""
    items, capacity = int(params.items), int(params.capacity)
    columns = min(items, 10 if items <= 100 else 40)
    box_w, box_h = (76, 62) if items <= 100 else (24, 20)
    rows = -(-items // columns)
    width, top = max(columns * box_w + 20, 420), 96
    canvas = Canvas(width, top + rows * box_h + 34)
    packed = float(params.values[state.packed != 0].sum())
    canvas.text(10, 16, f"value packed: {packed:g}", size=15, anchor="lm")
    canvas.text(width - 10, 16, f"weight {capacity - int(state.left)} of {capacity}", size=15, anchor="rm")
    x, scale = 10.0, (width - 20) / capacity
    canvas.pen.rectangle([10, 34, width - 10, 70], fill=PAPER, outline=INK, width=2)
    canvas.text(10, 84, "items (action: #)", size=12, fill=GREY, anchor="lm")
    for item in range(items):
        if state.packed[item]:
            length = int(params.weights[item]) * scale
            canvas.pen.rectangle([x, 34, x + length, 70], fill=GREEN, outline=INK)
            if length >= 16:
                name = f"#{item}" if length >= 26 else str(item)
                canvas.text(x + length / 2, 52, name, size=12, fill=PAPER)
            x += length
    for item in range(items):
        left, y = 10 + item % columns * box_w, top + item // columns * box_h
        fill, outline, ink = _LOOK[_place(state, params, item)]
        box = [left + 2, y + 2, left + box_w - 4, y + box_h - 4]
        canvas.pen.rectangle(box, fill=fill, outline=outline, width=2)
        if items <= 100:
            canvas.text(left + 7, y + 11, f"#{item}", size=11, fill=ink, anchor="lm")
            canvas.text(left + box_w / 2, y + 27, f"worth {params.values[item]:.4g}", size=12, fill=ink)
            canvas.text(left + box_w / 2, y + 44, f"weighs {int(params.weights[item])}", size=12, fill=ink)
    key_x = 10.0
    for name, (fill, outline, _) in _LOOK.items():
        y = top + rows * box_h + 14
        canvas.pen.rectangle([key_x, y - 6, key_x + 12, y + 6], fill=fill, outline=outline, width=2)
        canvas.text(key_x + 18, y, name, size=12, fill=GREY, anchor="lm")
        key_x += 100
    return canvas.array()
