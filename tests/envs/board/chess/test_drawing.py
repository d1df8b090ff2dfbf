"""The picture and the text of a chess board."""

import numpy as np
import pytest

from mlbits.envs.board.chess.drawing import (
    CHECKED,
    DARK,
    EBONY,
    LIGHT,
    MOVED_DARK,
    MOVED_LIGHT,
    chess_image,
    chess_text,
)
from mlbits.envs.board.chess.fen import START, from_fen
from mlbits.envs.board.chess.notation import action_of_uci, after
from mlbits.envs.core.drawing import PAPER


def squares(state):
    """The 60 x 60 pixels of each square by name."""
    picture = chess_image(state, None)
    return {
        f"{file}{rank}": picture[22 + 60 * (8 - rank) : 82 + 60 * (8 - rank), 40 + 60 * k : 100 + 60 * k]
        for k, file in enumerate("abcdefgh")
        for rank in range(1, 9)
    }


def moved(fen, *moves):
    state = from_fen(fen)
    for move in moves:
        state = after(state, action_of_uci(state, move))
    return state


@pytest.mark.parametrize(
    ("moves", "yellow"), [((), set()), (("e2e4",), {"e2", "e4"}), (("e2e4", "g8f6"), {"g8", "f6"})]
)
def test_the_last_move_is_yellow(moves, yellow):
    corners = {name: tuple(cell[1, 1]) for name, cell in squares(moved(START, *moves)).items()}
    for name, colour in corners.items():
        light = ("abcdefgh".index(name[0]) + int(name[1])) % 2 == 0
        plain, marked = (LIGHT, MOVED_LIGHT) if light else (DARK, MOVED_DARK)
        assert colour == (marked if name in yellow else plain), name


def test_a_king_in_check_stands_on_red():
    def red(state):
        return {name for name, cell in squares(state).items() if (cell[30, 4:9] == CHECKED).all(-1).any()}

    assert red(moved("4k3/8/8/8/8/8/8/R3K3 w - - 0 1", "a1a8")) == {"e8"}
    assert red(moved("4k3/8/8/8/8/8/7r/4K3 b - - 0 1", "h2h1")) == {"e1"}
    assert red(from_fen(START)) == set()


def test_pieces_have_their_colours_and_shapes():
    cells = squares(from_fen(START))
    for file in "abcdefgh":
        for rank, fill in ((1, PAPER), (2, PAPER), (7, EBONY), (8, EBONY)):
            assert (cells[f"{file}{rank}"] == fill).all(-1).sum() > 250, (file, rank)
        assert len(np.unique(cells[f"{file}4"].reshape(-1, 3), axis=0)) == 1
    shapes = {tuple((cells[f"{file}8"] == EBONY).all(-1).ravel()) for file in "abcdefgh"}
    assert len(shapes) == 5  # rooks, knights and bishops are pairs


def test_boards_as_text():
    state = moved("rnbqkbnr/pppp1ppp/8/4p3/6P1/5P2/PPPPP2P/RNBQKBNR b KQkq - 0 2", "d8h4")
    assert chess_text(state, None) == (
        "  a b c d e f g h\n8 r n b . k b n r\n7 p p p p . p p p\n6 . . . . . . . .\n5 . . . . p . . .\n"
        "4 . . . . . . P q\n3 . . . . . P . .\n2 P P P P P . . P\n1 R N B Q K B N R\nblack won by checkmate\n"
    )
