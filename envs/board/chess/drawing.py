"""A chess position as text, and as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.board.chess.actions import GOAL, LETTERS, ORIGIN
from mlbits.envs.board.chess.position import LONGEST
from mlbits.envs.board.chess.silhouettes import draw_piece
from mlbits.envs.board.conventions import DRAWN, OPEN, label_columns, title
from mlbits.envs.core.drawing import INK, PAPER, Canvas, box

LIGHT, DARK, FRAME = (240, 229, 208), (151, 173, 146), (72, 92, 84)
MOVED_LIGHT, MOVED_DARK, CHECKED = (247, 223, 129), (203, 187, 91), (216, 88, 76)
EBONY, WHITE_EDGE, BLACK_EDGE = (52, 54, 62), (58, 54, 50), (214, 210, 200)


def piece_on(state: Any, square: int) -> str:
    """The letter of the piece on a square as white sees it (white's are capitals), or an empty text."""
    turn = int(state["turn"])
    bit = 1 << (square ^ 56 * turn)
    for kind, letter in enumerate(LETTERS):
        if int(state["pieces"][kind]) & bit:
            return letter.upper() if bool(int(state["sides"][0]) & bit) == (turn == 0) else letter
    return ""


def reason(state: Any) -> str:
    """How a game ended by the rules, such as "checkmate"; an empty text while it is open."""
    if int(state["outcome"]) == OPEN:
        return ""
    if int(state["outcome"]) != DRAWN:
        return "checkmate"
    if int(state["clock"]) >= LONGEST:
        return "fifty moves"
    if int(state["repeats"]) >= 2:
        return "threefold repetition"
    left = "".join(piece_on(state, square) for square in range(64)).lower()
    return "insufficient material" if not set(left) & set("pqr") and _few(state) else "stalemate"


def _few(state: Any) -> bool:
    """Whether a board without pawns, queens and rooks is a draw."""
    minor = {square: piece for square in range(64) if (piece := piece_on(state, square).lower()) in ("n", "b")}
    return len(minor) <= 1 or ("n" not in minor.values() and len({sum(divmod(square, 8)) % 2 for square in minor}) == 1)


def headline(state: Any) -> str:
    """Who is to move and whether it is in check, or how the game ended."""
    if int(state["outcome"]) != OPEN:
        return f"{_who(state)} by {reason(state)}"
    return _who(state) + (", in check" if state["checked"] else "")


def _who(state: Any) -> str:
    return title(state, ("white", "black"))


def chess_text(state: Any, params: Any) -> str:
    """The board from white's side; white's pieces are capitals."""
    rows = [
        f"{rank + 1} " + " ".join(piece_on(state, 8 * rank + file) or "." for file in range(8))
        for rank in range(7, -1, -1)
    ]
    return "\n".join(["  a b c d e f g h", *rows, headline(state)]) + "\n"


_CELL, _LEFT, _TOP = 60, 40, 22  # in pixels


def chess_shapes(state: Any, params: Any, seat: int) -> dict[str, str]:
    """Where the squares are on the drawing, by their names."""
    return {
        f"{'abcdefgh'[square % 8]}{square // 8 + 1}": box(
            _LEFT + square % 8 * _CELL, _TOP + (7 - square // 8) * _CELL, _CELL, _CELL
        )
        for square in range(64)
    }


def chess_image(state: Any, params: Any) -> NDArray[np.uint8]:
    """The board from white's side: the last move in yellow, a king in check on red."""
    cell, left, top = _CELL, _LEFT, _TOP
    side = 8 * cell
    canvas = Canvas(2 * left + side, top + side + 74)
    canvas.pen.rectangle([left - 3, top - 3, left + side + 2, top + side + 2], fill=FRAME)
    moved = last_squares(state)
    for square in range(64):
        rank, file = divmod(square, 8)
        x, y = left + file * cell, top + (7 - rank) * cell
        light = (rank + file) % 2
        plain, yellow = (LIGHT, MOVED_LIGHT) if light else (DARK, MOVED_DARK)
        canvas.pen.rectangle([x, y, x + cell - 1, y + cell - 1], fill=yellow if square in moved else plain)
        piece = piece_on(state, square)
        if not piece:
            continue
        if piece == "kK"[int(state["turn"]) == 0] and state["checked"]:
            canvas.disc(x + cell / 2, y + cell / 2, 0.48 * cell, CHECKED)
        colours = (PAPER, WHITE_EDGE) if piece.isupper() else (EBONY, BLACK_EDGE)
        draw_piece(canvas, piece.lower(), x + 1, y, cell - 2, *colours)
    label_columns(canvas, left, top + side + 18, cell, 8)
    for rank in range(8):
        canvas.text(left - 20, top + (7.5 - rank) * cell, str(rank + 1), size=15)
    canvas.text(left + side / 2, top + side + 52, headline(state), size=16, fill=INK)
    return canvas.array()


def last_squares(state: Any) -> tuple[int, ...]:
    """Origin and goal of the last move as white sees the board, or nothing."""
    if int(state["last"]) < 0:
        return ()
    turned = 56 * (1 - int(state["turn"]))
    return int(ORIGIN[state["last"]]) ^ turned, int(GOAL[state["last"]]) ^ turned
