"""Chess: mate the king.

Description:
    All of FIDE's rules of play: castling, en passant, promotion to any piece, check, mate and stalemate. Draws that
    players would claim or that an arbiter would declare come by themselves, and at the earlier of two limits, as
    training and engine tournaments have it: after 50 moves of both sides without capture or pawn move (not 75), at
    the third occurrence of a position (not the fifth), and where no moves whatever could mate: kings alone, with one
    knight or bishop, or with bishops of one colour of squares. Mate by the last move of the fifty wins.

    Source: FIDE Laws of Chess (2023), articles 3, 5 and 9.

Actions:
    Discrete(1858): the moves of a queen or a knight between two squares, then promotions to rook, bishop and knight
    (``actions``). Both seats see their own side at the bottom: for black, the board is mirrored from top to bottom,
    so that files stay what they are. ``layout["moves"]`` names them by seat as UCI does (e2e4, e7e8n), where e7e8
    makes a queen.

Observations:
    Box uint8 [17, 8, 8] of 0 and 1, as the seat sees the board, with its own first rank as row 7:

    ========  ======================================================================
    0 to 5    own pawns, knights, bishops, rooks, queens, king
    6 to 11   the other's
    12        rooks that may still castle, of both sides
    13        the square behind a pawn that can be taken en passant
    14        all 1 if the position was there before
    15        the fifty-move rule: 64 cells for 100 plies, filled row by row from a1
    16        all 1 if it is the seat's turn
    ========  ======================================================================

Rewards:
    1 for the winner and -1 for the other seat at the end; 0 for a draw and before the end.

Start:
    The initial position, or that of ``fen``; white is seat 0.

End:
    Termination with mate or a draw; truncation after ``horizon`` plies.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from mlbits.envs.board.chess.actions import ACTIONS, move_names
from mlbits.envs.board.chess.bitboards import ALL, ONE, ZERO, flip
from mlbits.envs.board.chess.drawing import chess_image, chess_shapes, chess_text
from mlbits.envs.board.chess.fen import START, fields_of, from_fen
from mlbits.envs.board.chess.movement import write_moves
from mlbits.envs.board.chess.position import FIELDS, LONGEST, MOST, judge, move, settle
from mlbits.envs.board.chess.soundness import sound
from mlbits.envs.board.conventions import DRAWN, OPEN, RANGES, Symmetries, acts, win
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule

PLANES = 17
_CASTLING, _PASSANT, _REPEATED, _CLOCK, _TURN = range(12, PLANES)
# By castling rights: bits 1, 2, 4 and 8 are of the rooks on h1, a1, h8 and a8. (A table, because LLVM 22 compiles four
# conditions wrongly for x86 here.)
CASTLING_ROOKS = np.array(
    [sum((rights >> k & 1) << square for k, square in enumerate((7, 0, 63, 56))) for rights in range(16)], np.uint64
)
_SIXTH = np.uint64(40)


@rule
def reset(state: Any, params: Any) -> None:
    """The position that the parameters hold."""
    for kind in range(6):
        state.pieces[kind] = params.pieces[kind]
    state.sides[0] = params.sides[0]
    state.sides[1] = params.sides[1]
    state.castling = params.castling
    state.passant = params.passant
    state.clock = params.clock
    state.number = params.number
    state.turn = params.turn
    settle(state)


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Play a move; returns (terminated, truncated)."""
    mover = np.int64(state.turn)
    move(state, actions[mover])
    judge(state)
    ended = state.outcome != OPEN
    if ended and state.outcome != DRAWN:
        win(state, rewards, mover)
    return ended, False


@rule
def write_plane(squares: Any, out: Any, plane: Any) -> None:
    """Write a set of squares as a plane, the highest rank as row 0."""
    cells, first = out.flat, 64 * plane
    for cell in range(64):
        cells[first + cell] = (squares >> np.uint64(cell ^ 56)) & ONE


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Pieces, rights, repetition, clock and turn, as the seat sees the board."""
    mine = seat == state.turn
    first = 0 if mine else 1
    for kind in range(6):
        for k in range(2):
            squares = state.pieces[kind] & state.sides[first if k == 0 else 1 - first]
            write_plane(squares if mine else flip(squares), out, 6 * k + kind)
    rooks, passant = CASTLING_ROOKS[state.castling], ZERO
    if state.passant >= 0:
        passant = ONE << (_SIXTH + np.uint64(state.passant))
    write_plane(rooks if mine else flip(rooks), out, _CASTLING)
    write_plane(passant if mine else flip(passant), out, _PASSANT)
    write_plane(ALL if state.repeats > 0 else ZERO, out, _REPEATED)
    cells = 64 * np.int64(state.clock) // LONGEST
    write_plane(ALL if cells >= 64 else (ONE << np.uint64(cells)) - ONE, out, _CLOCK)
    write_plane(ALL if mine else ZERO, out, _TURN)


@rule
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The legal moves."""
    write_moves(state, out)


def symmetries() -> Symmetries:
    """The board as it is; castling makes its mirror image another game."""
    return Symmetries(np.arange(64)[None], np.arange(ACTIONS)[None])


def chess(fen: str = START, horizon: int | None = 512) -> Game:
    """A game of chess.

    Args:
        fen: the position from which games start, in Forsyth-Edwards Notation; the game must not be over in it.
        horizon: plies after which a game is truncated, or None for no limit.

    Raises:
        GameError: for a FEN that is not a legal position or is the end of a game, or a horizon that is not positive.
    """
    start = fields_of(fen)
    if fen != START and from_fen(fen).outcome != OPEN:
        raise GameError(f"fen {fen!r}: the game is over in this position; wanted one with moves to play")
    own = {"pieces", "sides", "clock", "number", "castling", "passant", "turn"}
    return Game(
        name="Chess",
        seats=2,
        state_fields=list(FIELDS),
        state_ranges={
            "clock": (0, MOST),
            "number": (0, 2**15 - 1),
            "last": (-1, ACTIONS - 1),
            "castling": (0, 15),
            "passant": (-1, 7),
            "repeats": (0, 2),
            "checked": (0, 1),
            **RANGES,
        },
        sound=sound,
        params=make_params([field for field in FIELDS if field[0] in own], start, horizon),
        observation_space=spaces.Box(0, 1, (PLANES, 8, 8), np.uint8),
        action_space=spaces.Discrete(ACTIONS),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        acts=acts,
        text=chess_text,
        draw=chess_image,
        shapes=chess_shapes,
        layout={"moves": move_names(), "symmetries": symmetries()},
    )
