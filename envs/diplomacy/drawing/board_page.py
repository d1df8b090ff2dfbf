"""The board as pages show it: SVG in parts, of which replays store the ground once, and what one clicks on."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.core.drawing import ring
from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.drawing.board_image import province_colours
from mlbits.envs.diplomacy.drawing.board_svg import ground_svg, last_marks_svg, names_svg, opening_svg
from mlbits.envs.diplomacy.drawing.palette import WHITE, hexadecimal
from mlbits.envs.diplomacy.drawing.partition import IMPASSABLE
from mlbits.envs.diplomacy.drawing.province_shapes import geometry_of
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.records import read_position


def board_layers(board: Board, state: Any, params: Any) -> tuple[str, str, str, str]:
    """The ground, the colours of the provinces, what stands on them with the last phase's orders, and the names.

    Args:
        board: the map.
        state: a copy's state.
        params: its parameters, which are not needed.
    """
    position = read_position(state, board)
    given = [int(p) for p in np.flatnonzero(state["order_kind"])]
    orders = {
        p: Order(int(state["order_kind"][p]), 0, p, int(state["order_other"][p]), int(state["order_target"][p]))
        for p in given
    }
    fates, powers = ({p: int(state[field][p]) for p in given} for field in ("fate", "order_power"))
    plain = [WHITE] * len(board.provinces)
    colours = "".join(
        f".p{province}{{fill:{hexadecimal(colour)}}}" for province, colour in enumerate(province_colours(position))
    )
    return (
        opening_svg(board, "Diplomacy") + ground_svg(board, plain),
        f"<style>{colours}</style>",
        last_marks_svg(position, orders, fates, powers),
        names_svg(board) + "</svg>",
    )


def province_shapes(board: Board, state: Any, params: Any, seat: int) -> dict[str, str]:
    """The outlines of the provinces by their short names, as SVG path data."""
    outlines = {province: outline for province, outline in geometry_of(board).areas if province != IMPASSABLE}
    areas = sorted(outlines.items(), key=lambda area: area[0])
    return {board.provinces[province].id: ring([tuple(at) for at in outline]) for province, outline in areas}
