"""Random games beside python-chess, if it is installed (extra ``peers``): moves, FEN, SAN, checks and ends of games."""

import random
from collections import Counter

import pytest

from mlbits.envs.board.chess.drawing import reason
from mlbits.envs.board.chess.fen import from_fen, to_fen
from mlbits.envs.board.chess.notation import action_of_san, action_of_uci, after, legal_actions, san, uci_of_action
from mlbits.envs.board.chess.pgn import PgnGame, read_pgn, write_pgn
from tests.envs.board.chess.fuzz import FENS

chess = pytest.importorskip("chess")
MORE = ("4k3/8/8/8/8/8/8/R3K2R w KQ - 90 80", "8/8/4k3/8/3K4/8/8/7R b - - 0 1", "7k/5K2/8/8/8/8/8/5Q2 w - - 0 1")


def end_of(board):
    """How a game ended by python-chess, as ``reason`` says it."""
    for ended, name in (
        (board.is_checkmate(), "checkmate"),
        (board.is_stalemate(), "stalemate"),
        (board.halfmove_clock >= 100, "fifty moves"),
        (board.is_repetition(3), "threefold repetition"),
        (board.is_insufficient_material(), "insufficient material"),
    ):
        if ended:
            return name
    return ""


def played(generator, fen):
    """Play a random game beside python-chess; returns how it ended, the plies and the moves."""
    board, state, names = chess.Board(fen), from_fen(fen), []
    while True:
        assert to_fen(state) == board.fen()
        mine = {uci_of_action(state, action): int(action) for action in legal_actions(state)}
        assert mine.keys() == {move.uci() for move in board.legal_moves}, board.fen()
        assert bool(state.checked) == board.is_check()
        assert reason(state) == end_of(board), board.fen()
        if state.outcome:
            return reason(state), names
        move = chess.Move.from_uci(generator.choice(sorted(mine)))
        if len(board.move_stack) >= 2 and generator.random() < 0.1:  # back to where it was, for repetitions
            last = board.move_stack[-2]
            back = chess.Move(last.to_square, last.from_square)
            move = back if back.uci() in mine else move
        name = board.san(move)
        names.append(name)
        assert san(state, mine[move.uci()]) == name
        assert action_of_san(state, name) == action_of_uci(state, move.uci()) == mine[move.uci()]
        state = after(state, mine[move.uci()])
        board.push(move)


@pytest.mark.parametrize("games", [16, pytest.param(400, marks=pytest.mark.slow)])
def test_random_games_agree(games):
    generator, ends, plies = random.Random(games), Counter(), 0
    starts = [fen if fen.count(" ") == 5 else f"{fen} 0 1" for fen in (*FENS, *MORE)]
    for k in range(games):
        start = starts[k % len(starts)]
        end, names = played(generator, start)
        ends[end] += 1
        plies += len(names)
        game = PgnGame.of(names, start=start) if end not in ("checkmate", "stalemate") else None
        if game is not None:
            assert read_pgn(write_pgn(game))[0].actions == game.actions
    assert plies > 50 * games
    assert len(ends) >= (3 if games < 100 else 5), ends
