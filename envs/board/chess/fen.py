"""Positions as text: Forsyth-Edwards Notation, read strictly and written.

A FEN has six fields: pieces from rank 8 to rank 1, the side to move, castling rights, the square behind a pawn that
has just moved two squares, plies since the last capture or pawn move, and the number of the move.

Strict means that every part must fit the others: one king each, no pawn on the first or last rank, the side that is
not to move not in check, kings and rooks at home for castling rights, and a pawn that can have moved two squares for
en passant. The last two fields may be missing together, as in EPD. We write the square for en passant only where a
legal move takes, as python-chess does, since only then it is part of the position (FIDE 9.2.3); the standard of 1994
always writes it.

Example:
    >>> state = from_fen("rnbqkbnr/pppp1ppp/8/4p3/4P3/8/PPPP1PPP/RNBQKBNR w KQkq e6 0 2")
    >>> to_fen(state)
    'rnbqkbnr/pppp1ppp/8/4p3/4P3/8/PPPP1PPP/RNBQKBNR w KQkq - 0 2'
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from mlbits.envs.board.chess.actions import LETTERS, square_name
from mlbits.envs.board.chess.compiled import STATE, as_states, compiled
from mlbits.envs.board.chess.drawing import piece_on
from mlbits.envs.core.errors import GameError

START = "rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1"
LARGEST_CLOCK, LARGEST_NUMBER = 9_999, 9_999
_LONGEST_TEXT = 100
_COLOURS, _HOMES = ("white", "black"), (0, 56)
# Castling letters: side, the rook's file, and the bit of the right for white; black's are two higher.
_RIGHTS = {"K": (0, 7, 1), "Q": (0, 0, 2), "k": (1, 7, 4), "q": (1, 0, 8)}


def fields_of(fen: str) -> dict[str, Any]:
    """The fields of a state that a FEN says, by name, checked as far as that needs no moves.

    Raises:
        GameError: if it is not a FEN, or its parts do not fit.
    """
    if not isinstance(fen, str):
        raise GameError(f"fen: got {type(fen).__name__}; wanted text such as {START!r}")
    if len(fen) > _LONGEST_TEXT:
        raise GameError(f"fen: got {len(fen)} characters; wanted at most {_LONGEST_TEXT}")
    parts = fen.split(" ") if fen.isascii() else []
    if len(parts) not in (4, 6):
        _bad(fen, "wanted six fields, separated by single spaces: pieces, w or b, castling, en passant, two numbers")
    board = _board(fen, parts[0])
    if parts[1] not in ("w", "b"):
        _bad(fen, f"side to move: got {parts[1]!r}; wanted w or b")
    turn = "wb".index(parts[1])
    clock, number = parts[4:] or ("0", "1")
    view = {square ^ _HOMES[turn]: piece for square, piece in board.items()}
    pieces = [sum(1 << square for square, piece in view.items() if piece.lower() == kind) for kind in LETTERS]
    white = sum(1 << square for square, piece in view.items() if piece.isupper())
    black = sum(1 << square for square, piece in view.items() if piece.islower())
    castling = _castling(fen, parts[2], board)
    passant = _passant(fen, parts[3], board, turn)
    if passant >= 0 and clock != "0":
        _bad(fen, f"plies since the last capture or pawn move: got {clock!r}; wanted 0 where a pawn has just moved")
    return {
        "pieces": np.array(pieces, np.uint64),
        "sides": np.array((white, black) if turn == 0 else (black, white), np.uint64),
        "castling": castling if turn == 0 else castling >> 2 | (castling & 3) << 2,
        "passant": passant,
        "clock": _number(fen, "plies since the last capture or pawn move", clock, 0, LARGEST_CLOCK),
        "number": _number(fen, "number of the move", number, 1, LARGEST_NUMBER),
        "turn": turn,
    }


def from_fen(fen: str) -> Any:
    """The state of a FEN.

    Args:
        fen: the text.

    Returns:
        A record with the fields of a state of ``mlbits/Chess-v0``. No position before it is known, for repetitions.
        If the game is over in it, ``outcome`` says so.

    Raises:
        GameError: if it is not a FEN, its parts do not fit, or the side that is not to move is in check.
    """
    states = np.zeros(1, STATE)
    for name, value in fields_of(fen).items():
        states[name] = value
    if not compiled().complete(states):
        _bad(fen, f"{_COLOURS[1 - int(states['turn'][0])]} is in check, and it is not its turn")
    states["over"] = states["outcome"] != 0
    return states.view(np.recarray)[0]


def to_fen(state: Any) -> str:
    """A state as FEN.

    Raises:
        GameError: if it is not a state of chess.
    """
    state = as_states(state)[0]
    turn = int(state["turn"])
    rows = []
    for rank in range(7, -1, -1):
        row = "".join(piece_on(state, 8 * rank + file) or "1" for file in range(8))
        for free in range(8, 1, -1):
            row = row.replace("1" * free, str(free))
        rows.append(row)
    castling = int(state["castling"])
    if turn == 1:
        castling = castling >> 2 | (castling & 3) << 2
    rights = "".join(letter for letter, (_, _, bit) in _RIGHTS.items() if castling & bit) or "-"
    file = int(state["passant"])
    passant = square_name((16 if turn else 40) + file) if file >= 0 else "-"
    return f"{'/'.join(rows)} {'wb'[turn]} {rights} {passant} {int(state['clock'])} {int(state['number'])}"


def _bad(fen: str, why: str) -> NoReturn:
    raise GameError(f"fen {fen!r}: {why}")


def _board(fen: str, text: str) -> dict[int, str]:
    """Pieces by square as white sees it."""
    rows, board = text.split("/"), {}
    if len(rows) != 8:
        _bad(fen, f"pieces: got {len(rows)} ranks; wanted 8, separated by /")
    for rank, row in zip(range(7, -1, -1), rows, strict=True):
        file, free = 0, False
        for letter in row:
            if letter in "12345678" and not free:
                file, free = file + int(letter), True
            elif letter.lower() in LETTERS:
                board[8 * rank + file] = letter
                file, free = file + 1, False
            else:
                _bad(
                    fen, f"rank {rank + 1}: got {row!r}; wanted letters of PNBRQKpnbrqk, and single digits between them"
                )
        if file != 8:
            _bad(fen, f"rank {rank + 1}: got {file} squares in {row!r}; wanted 8")
    for colour, letters in zip(_COLOURS, (LETTERS.upper(), LETTERS), strict=True):
        pieces = [piece for piece in board.values() if piece in letters]
        if pieces.count(letters[5]) != 1:
            _bad(fen, f"{colour} has {pieces.count(letters[5])} kings; wanted 1")
        if len(pieces) > 16:
            _bad(fen, f"{colour} has {len(pieces)} pieces; wanted at most 16")
        pawns = pieces.count(letters[0])
        promoted = sum(max(0, pieces.count(letters[k]) - most) for k, most in ((1, 2), (2, 2), (3, 2), (4, 1)))
        if pawns + promoted > 8:
            _bad(fen, f"{colour} has {pawns} pawns and {promoted} promoted pieces; wanted at most 8 together")
    for square, piece in board.items():
        if piece in "Pp" and not 8 <= square < 56:
            _bad(fen, f"a pawn on {square_name(square)}; wanted none on ranks 1 and 8")
    return board


def _castling(fen: str, text: str, board: dict[int, str]) -> int:
    """The rights as bits, white's lower."""
    letters = [letter for letter in _RIGHTS if letter in text]
    if text != ("".join(letters) or "-"):
        _bad(fen, f"castling: got {text!r}; wanted letters of KQkq in this order, or -")
    rights = 0
    for letter in letters:
        side, file, bit = _RIGHTS[letter]
        king, rook = ("K", "R") if side == 0 else ("k", "r")
        if board.get(_HOMES[side] + 4) != king or board.get(_HOMES[side] + file) != rook:
            home = square_name(_HOMES[side] + 4), square_name(_HOMES[side] + file)
            _bad(fen, f"castling {letter}: wanted {_COLOURS[side]}'s king on {home[0]} and a rook on {home[1]}")
        rights |= bit
    return rights


def _passant(fen: str, text: str, board: dict[int, str], turn: int) -> int:
    """The file of the pawn that has just moved two squares, or -1."""
    if text == "-":
        return -1
    rank = "63"[turn]
    if len(text) != 2 or text[0] not in "abcdefgh" or text[1] != rank:
        _bad(fen, f"en passant: got {text!r}; wanted a square of rank {rank}, or -")
    file = "abcdefgh".index(text[0])
    behind, square, pawn = (48, 40, 32) if turn == 0 else (8, 16, 24)
    if board.get(pawn + file) != "pP"[turn] or square + file in board or behind + file in board:
        _bad(fen, f"en passant: no pawn of {_COLOURS[1 - turn]}'s can have just moved two squares past {text}")
    return file


def _number(fen: str, name: str, text: str, low: int, high: int) -> int:
    if not text.isdecimal() or len(text) > 5 or not low <= int(text) <= high or str(int(text)) != text:
        _bad(fen, f"{name}: got {text!r}; wanted a number from {low} to {high}")
    return int(text)
