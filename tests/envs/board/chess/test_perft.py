"""Counts of sequences of moves, as published: by ``perft``, and by the driver that batches use."""

import numpy as np
import pytest

from mlbits.envs.board.chess.fen import START, from_fen
from mlbits.envs.board.chess.perft import perft
from mlbits.envs.core.errors import GameError
from tests.envs.board.game_trees import Tree

ROWS = {
    "start": (START, [20, 400, 8902, 197281, 4865609]),
    "Kiwipete": (
        "r3k2r/p1ppqpb1/bn2pnp1/3PN3/1p2P3/2N2Q1p/PPPBBPPP/R3K2R w KQkq -", [48, 2039, 97862, 4085603],
    ),
    "rook and pawns": ("8/2p5/3p4/KP5r/1R3p1k/8/4P1P1/8 w - -", [14, 191, 2812, 43238, 674624, 11030083]),
    "castling and promotion": (
        "r3k2r/Pppp1ppp/1b3nbN/nP6/BBP1P3/q4N2/Pp1P2PP/R2Q1RK1 w kq -", [6, 264, 9467, 422333, 15833292],
    ),
    "pawn on d7": ("rnbq1k1r/pp1Pbppp/2p5/8/2B5/8/PPP1NnPP/RNBQK2R w KQ - 1 8", [44, 1486, 62379, 2103487]),
    "middle game": (
        "r4rk1/1pp1qppp/p1np1n2/2b1p1B1/2B1P1b1/P1NP1N2/1PP1QPPP/R4RK1 w - - 0 10", [46, 2079, 89890, 3894594],
    ),
    "promotions": ("n1n5/PPPk4/8/8/8/8/4Kppp/5N1N b - -", [24, 496, 9483, 182838, 3605103]),
    "en passant into a pin": ("3k4/3p4/8/K1P4r/8/8/8/8 b - -", [18, 92, 1670, 10138, 185429]),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_positions_are_counted(name):
    fen, counts = ROWS[name]
    state = from_fen(fen)
    assert [perft(state, depth) for depth in range(len(counts) + 1)] == [1, *counts]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "depth", "count"), [("start", 6, 119060324), ("Kiwipete", 5, 193690690)])
def test_positions_are_counted_one_ply_deeper(name, depth, count):
    assert perft(from_fen(ROWS[name][0]), depth) == count


@pytest.mark.parametrize(("name", "depth"), [("start", 3), ("promotions", 3), ("en passant into a pin", 4)])
def test_the_driver_counts_the_same(name, depth):
    fen, counts = ROWS[name]
    tree = Tree("mlbits/Chess-v0", fen=" ".join([*fen.split()[:4], "0", "1"]))
    assert tree.perft(depth) == counts[:depth]


def test_draws_by_rule_do_not_end_a_sequence():
    state = from_fen("k7/8/8/8/8/8/8/K7 w - - 0 1")
    assert state.outcome == 3
    assert [perft(state, depth) for depth in (1, 2)] == [3, 9]


@pytest.mark.parametrize("depth", [-1, 101, 2.0, True])
def test_a_bad_depth_is_refused(depth):
    with pytest.raises(GameError, match="depth: got"):
        perft(from_fen(START), depth)


def test_what_is_no_state_is_refused():
    with pytest.raises(GameError, match="state: got ndarray of float64; wanted one state of chess"):
        perft(np.zeros(1), 1)
