"""Diplomacy without press: all players write orders simultaneously and compete for supply centres, on any board.

Description:
    Powers with armies and fleets order all their units at the same time; then the orders are carried out together. A
    unit alone never dislodges another, so powers need each other's support. A power that holds enough supply centres
    after a fall wins. A year has up to five phases: spring moves and retreats, fall moves and retreats, builds
    and disbands; one step is one phase, and phases in which no power has anything to order are skipped.

    Rules: Avalon Hill's of 2000, as tested by the Diplomacy Adjudicator Test Cases (DATC) 2.4; ``rules="datc-3.0"``
    uses those of 2023 where they differ. The adjudicator is :mod:`~mlbits.envs.diplomacy.adjudicator`. Boards are JSON
    files (:mod:`~mlbits.envs.diplomacy.board`).

Actions:
    MultiDiscrete([W] * K): one choice for each unit that must be ordered, in the order of the provinces; K is the most
    units that a power can have. In an adjustment phase the first slots are the builds (or disbands) due, one each. A
    choice is an index into the vocabulary's list for what the slot orders
    (:mod:`~mlbits.envs.diplomacy.vocabulary`); the mask allows exactly the legal orders, and only 0 in slots that
    order nothing. Two builds in one place, or one unit disbanded twice, count once: the other build is waived, and
    civil disorder disbands another unit. Seats without anything to order pass.

Observations:
    A Dict. "R" is a power counted from the seat: 0 is the player itself, 1 the next power and so on (P powers).

    ``areas``, int8 [N, 22 + 4 P], by province:

    | column | meaning | values |
    |---|---|---|
    | 0, 1, 2 | land, sea, coast | 0, 1 |
    | 3, 4 | supply centre; one of my home centres | 0, 1 |
    | 5, 6 | an army, a fleet is there | 0, 1 |
    | 7 | its named coast, counted from 1; 0 for none | 0 to 8 |
    | 8 + R | owner of the unit | 0, 1 |
    | 8 + P, 9 + P | a dislodged army, fleet is there | 0, 1 |
    | 10 + P + R | owner of the dislodged unit | 0, 1 |
    | 10 + 2 P + R | owner of the centre | 0, 1 |
    | 10 + 3 P | I can build there now | 0, 1 |
    | 11 + 3 P to 18 + 3 P | last phase's order to its unit, one column per kind (below) | 0, 1 |
    | 19 + 3 P | the order failed | 0, 1 |
    | 20 + 3 P | province of the unit that it helped, counted from 1 | 0 to N |
    | 21 + 3 P | province that it moved to, or helped to move to, counted from 1 | 0 to N |
    | 22 + 3 P + R | power that gave the order | 0, 1 |

    Kinds of orders: hold, move, support of a unit that stays, support of a move, convoy, retreat, disband, build.

    ``status``, float32 [8 + 2 P]: which of the five phases (5), years left divided by all years (1), builds (positive)
    or disbands due divided by K (1), whether this is the last year (1), centres of each power R divided by the centres
    that win (P), its units likewise (P).

    ``slots``, MultiDiscrete [K]: 1 + index of the list that the slot chooses from, 0 for none.

Rewards:
    0 until the end; then rewards that sum to 1: all of it to a winner, else divided by ``scoring``: "draw_size"
    (equally among survivors), "sum_of_squares" (of the centres) or "centers". ``variant="welfare"`` (Welfare
    Diplomacy) instead pays every power its centres minus its units each year, lets powers disband any units
    in adjustment phases, and has no winner.

Start:
    The board's initial position, or ``start``.

End:
    Termination when a power has ``victory_centers`` after a fall, when one power is left, or after the fall of
    ``last_year`` (welfare: after its builds) as a draw. Truncation only by a time limit set by the user.

Version history:
    v0: first version.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.order_space import OrderSpace
from mlbits.envs.core.settings import choice, integer
from mlbits.envs.diplomacy.board import Board, load_board
from mlbits.envs.diplomacy.codes import (
    BUILD,
    BUILD_FLEET,
    COAST,
    FLEET,
    LAND,
    MOVE_BY_CONVOY,
    SEA,
)
from mlbits.envs.diplomacy.files.position_line import read_position_text
from mlbits.envs.diplomacy.files.soundness import ranges, soundness
from mlbits.envs.diplomacy.observation import observe
from mlbits.envs.diplomacy.order_masks import (
    legal_fields,
    vocabulary_fields,
    vocabulary_values,
)
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.phases import CENTERS, DRAW_SIZE, SUM_OF_SQUARES, acts, legal, reset, step
from mlbits.envs.diplomacy.position import MAX_YEAR, Position, first_position
from mlbits.envs.diplomacy.records import board_fields, board_values, position_fields, read_position, write_position
from mlbits.envs.diplomacy.vocabulary import Vocabulary, vocabulary

SCORINGS = {"draw_size": DRAW_SIZE, "sum_of_squares": SUM_OF_SQUARES, "centers": CENTERS}
DEFAULT_YEARS = 20
# Fields of the initial position that are stored in the parameters and copied at a reset.
_START = (
    "owner",
    "unit_kind",
    "unit_power",
    "unit_place",
    "out_kind",
    "out_power",
    "out_place",
    "out_from",
    "out_open",
)


def diplomacy(
    map: str = "standard",
    *,
    last_year: int | None = None,
    scoring: str = "draw_size",
    variant: str = "standard",
    rules: str = "datc-2.4",
    start: str | None = None,
) -> Game:
    """Diplomacy on a board.

    Args:
        map: "standard", "mini" or the path of a map file; in Python also its parsed content, a dict.
        last_year: the year after whose fall the game is a draw; None means 20 years (1920 on the standard board).
        scoring: how a draw is divided: "draw_size", "sum_of_squares" or "centers".
        variant: "standard" or "welfare".
        rules: "datc-2.4" or "datc-3.0".
        start: initial position, as a line of text (:mod:`~mlbits.envs.diplomacy.files.position_line`); in
            Python also in JSON form, a dict; None means the board's.

    Raises:
        GameError: for a setting out of range, or an invalid map or position.
    """
    return game_on(load_board(map), last_year, scoring, variant, rules, start)


def diplomacy_fva(last_year: int | None = None, scoring: str = "draw_size", rules: str = "datc-2.4") -> Game:
    """France against Austria: the standard board without the other five powers; 24 centres win.

    Args:
        last_year: see :func:`diplomacy`.
        scoring: see :func:`diplomacy`.
        rules: see :func:`diplomacy`.
    """
    return game_on(fva_board(), last_year, scoring, "standard", rules, None, name="DiplomacyFvA")


def diplomacy_mini(last_year: int | None = None, scoring: str = "centers", rules: str = "datc-2.4") -> Game:
    """A small board for three powers, on which learning takes minutes.

    Args:
        last_year: see :func:`diplomacy`; None means 8 years.
        scoring: see :func:`diplomacy`.
        rules: see :func:`diplomacy`.
    """
    board = load_board("mini")
    last = board.first_year + 7 if last_year is None else last_year
    return game_on(board, last, scoring, "standard", rules, None, name="DiplomacyMini")


def fva_board() -> Board:
    """The standard board with only France and Austria."""
    source = dict(load_board("standard").source)
    played = ["FRANCE", "AUSTRIA"]
    source["powers"] = played
    source["victory_centers"] = 24
    source["initial_units"] = {power: source["initial_units"][power] for power in played}
    source["initial_centers"] = {power: source["initial_centers"][power] for power in played}
    source["provinces"] = [
        row | {"home": row["home"] if row["home"] in played else None} for row in source["provinces"]
    ]
    return load_board(source)


def game_on(
    board: Board,
    last_year: int | None,
    scoring: str,
    variant: str,
    rules: str,
    start: str | Mapping[str, Any] | None,
    name: str = "Diplomacy",
) -> Game:
    """The game on a loaded board; for the arguments see :func:`diplomacy`."""
    if start is None:
        position = first_position(board)
    else:
        position = read_position_text(start, board) if isinstance(start, str) else Position.from_json(start, board)
    last = board.first_year + DEFAULT_YEARS - 1 if last_year is None else last_year
    last = integer("last_year", last, position.year, MAX_YEAR)
    welfare = choice("variant", variant, ("standard", "welfare")) == "welfare"
    scoring_code = SCORINGS[choice("scoring", scoring, SCORINGS)]
    words = vocabulary(board)
    slots = _slots(board, position, welfare)
    powers, n = len(board.powers), len(board.provinces)
    fields = position_fields(board)
    start_fields = [(f"start_{field[0]}", *field[1:]) for field in fields if field[0] in _START]
    record = np.zeros(1, np.dtype(fields, align=True))[0]
    write_position(position, record)
    params = make_params(
        [
            ("slots", "i4"), ("victory", "i4"), ("last_year", "i4"), ("scoring", "u1"), ("welfare", "u1"),
            ("start_year", "i2"), ("start_phase", "u1"), ("plain", "i1", (n, 22 + 4 * powers)),
            *start_fields, *board_fields(board), *vocabulary_fields(words),
        ],
        {
            "slots": slots, "victory": board.victory_centers, "last_year": last, "scoring": scoring_code,
            "welfare": welfare, "start_year": position.year, "start_phase": position.phase, "plain": _plain(board),
            **{f"start_{key}": record[key] for key in _START}, **board_values(board, rules), "every_winter": welfare,
            **vocabulary_values(words),
        },
    )  # fmt: skip
    lists = len(words.start)
    high = np.ones((n, 22 + 4 * powers), np.int8)  # flags, except for three columns of numbers
    high[:, 7], high[:, 20 + 3 * powers : 22 + 3 * powers] = 8, n
    return Game(
        name=name,
        seats=powers,
        state_fields=[
            *fields, ("order_power", "i1", (n,)), ("centers", "i2", (powers,)), ("units", "i2", (powers,)),
            ("to_retreat", "i2", (powers,)), ("due", "i2", (powers,)), *legal_fields(words),
        ],
        state_ranges=ranges(board),
        sound=soundness(board, slots),
        params=params,
        observation_space=spaces.Dict(
            {
                "areas": spaces.Box(np.zeros_like(high), high, dtype=np.int8),
                "status": spaces.Box(-10.0, 10.0, (8 + 2 * powers,), np.float32),
                "slots": spaces.MultiDiscrete([lists] * slots),
            }
        ),
        action_space=order_space(words, slots),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        acts=acts,
        text=partial(_text, board),
        draw=partial(_draw, board),
        layers=partial(_layers, board),
        shapes=partial(_shapes, board),
        decisions=partial(_decisions, board),
        frames_per_second=2,
        layout={"board": board, "slots": slots},
    )  # fmt: skip


def order_space(words: Vocabulary, slots: int) -> OrderSpace:
    """The action space: the vocabulary's lists, and the adjacency of provinces."""
    board, locations = words.board, len(words.board.locations)
    place = np.append(board.province_of, -1)  # entry -1 is for no location
    actor = np.full(len(words.entries), -1)
    for number in range(4 * locations):
        actor[words.start[number] : words.start[number + 1]] = board.province_of[number % locations]
    kind, other, target, via = words.entries.T.astype(np.int64)
    target = place[target]
    builds = kind == BUILD
    # Builds of armies and of fleets are different kinds, as are moves with and without a convoy. The actor of a build
    # or a disband is its province.
    kind = np.where(builds & (other == FLEET), BUILD_FLEET, np.where(via > 0, MOVE_BY_CONVOY, kind))
    actor = np.where(builds | (actor < 0), target, actor)
    adjacency = np.zeros((len(board.provinces),) * 2, bool)
    for row, reach in enumerate(words.reach_list):
        adjacency[board.province_of[row % locations], reach[reach >= 0]] = True
    entries = {"kind": kind, "actor": actor, "other": np.where(builds, -1, other), "target": target}
    return OrderSpace(slots, words.start, entries, adjacency)


def _slots(board: Board, position: Position, welfare: bool) -> int:
    """The most units that a power can have to order: one fewer than centres that win; without a winner all centres."""
    most = len(board.centers) if welfare else min(board.victory_centers - 1, len(board.centers))
    counts = [sum(unit.power == power for unit in position.units.values()) for power in range(len(board.powers))]
    to_retreat = [sum(d.unit.power == p for d in position.dislodged.values()) for p in range(len(board.powers))]
    return max(1, most, *counts, *to_retreat)


def _plain(board: Board) -> NDArray[np.int8]:
    """The columns of ``areas`` that never change: terrain and supply centres."""
    plain = np.zeros((len(board.provinces), 22 + 4 * len(board.powers)), np.int8)
    for p, province in enumerate(board.provinces):
        plain[p, (LAND, SEA, COAST).index(province.type)] = 1
        plain[p, 3] = province.center
    return plain


def _text(board: Board, state: Any, params: Any) -> str:
    from mlbits.envs.diplomacy.drawing.position_text import board_text

    return board_text(read_position(state, board))


def _layers(board: Board, state: Any, params: Any) -> tuple[str, ...]:
    from mlbits.envs.diplomacy.drawing.board_page import board_layers

    return board_layers(board, state, params)


def _shapes(board: Board, state: Any, params: Any, seat: int) -> dict[str, str]:
    from mlbits.envs.diplomacy.drawing.board_page import province_shapes

    return province_shapes(board, state, params, seat)


def _decisions(
    board: Board, state: Any, params: Any, seat: int, mask: NDArray[np.bool_]
) -> list[tuple[str, dict[int, str]]]:
    from mlbits.envs.diplomacy.drawing.choices import decisions

    return decisions(board, state, params, seat, mask)


def _draw(board: Board, state: Any, params: Any) -> NDArray[np.uint8]:
    """The board with the orders of the last phase and their fates."""
    from mlbits.envs.diplomacy.drawing.board_image import draw_position

    given = [int(p) for p in np.flatnonzero(state["order_kind"])]
    orders = {
        p: Order(int(state["order_kind"][p]), 0, p, int(state["order_other"][p]), int(state["order_target"][p]))
        for p in given
    }
    fates = {p: int(state["fate"][p]) for p in given}
    powers = {p: int(state["order_power"][p]) for p in given}
    return draw_position(read_position(state, board), orders, fates, powers)
