"""Moves as text: UCI, as engines say them (e2e4, e7e8q), and SAN, as people write them (Nf3, exd5, O-O, e8=Q+, Qh4#).

SAN is read more freely than it is written: x, + and # may be missing, but not wrong; more of the origin may be given
than is needed; zeros castle too; = may be missing. Written it is as FIDE and the PGN standard want it.

Example:
    >>> from mlbits.envs.board.chess.fen import START, from_fen
    >>> state = from_fen(START)
    >>> action = action_of_san(state, "Nf3")
    >>> uci_of_action(state, action), san(state, action), san(state, action_of_uci(state, "e2e4"))
    ('g1f3', 'Nf3', 'e4')
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.board.chess.actions import ACTIONS, GOAL, KING_KIND, LETTERS, ORIGIN, PAWN, PLAIN, square_name
from mlbits.envs.board.chess.compiled import as_states, compiled
from mlbits.envs.board.conventions import DRAWN, OPEN
from mlbits.envs.core.errors import IllegalActionError
from mlbits.envs.core.settings import integer

_UCI = re.compile(r"([a-h][1-8])([a-h][1-8])([nbrq]?)")
_SAN = re.compile(r"([NBRQK]?)([a-h]?)([1-8]?)(x?)([a-h][1-8])(?:=?([NBRQ]))?([+#]?)")
_CASTLING = re.compile(r"(O-O(?:-O)?|0-0(?:-0)?)[+#]?")
_LESSER = "rbn"  # by action from PLAIN on
_SHOWN = 40  # characters of a wrong move that an error repeats


def legal_actions(state: Any) -> NDArray[np.int64]:
    """The legal actions of the side to move, in order; none if the game is over by mate or stalemate.

    Raises:
        GameError: if ``state`` is not a state of chess.
    """
    return _legal(as_states(state))


def after(state: Any, action: int) -> Any:
    """The state after a move, a new record; a game that is a draw by rule may be played on.

    Raises:
        IllegalActionError: if the move is not legal.
    """
    states = as_states(state)
    compiled().play(states, _checked(states, action))
    states["over"] = states["outcome"] != OPEN
    states["elapsed"] += 1
    return states.view(np.recarray)[0]


def uci_of_action(state: Any, action: int) -> str:
    """A legal action in UCI's notation.

    Raises:
        IllegalActionError: if the move is not legal.
    """
    states = as_states(state)
    action = _checked(states, action)
    origin, goal = _squares(states, action)
    return square_name(origin) + square_name(goal) + _promotion(states, action)


def action_of_uci(state: Any, text: str) -> int:
    """The legal action of a move in UCI's notation; a promotion without its letter is to a queen.

    Raises:
        IllegalActionError: if it is no such text, or the move is not legal.
    """
    states = as_states(state)
    match = _UCI.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise IllegalActionError(f"move: got {_shown(text)}; wanted UCI's notation, such as e2e4 or e7e8q")
    origin, goal, letter = match.groups()
    for action in _legal(states).tolist():
        if tuple(map(square_name, _squares(states, action))) == (origin, goal):
            promotion = _promotion(states, action)
            if promotion == letter or (promotion == "q" and not letter):
                return int(action)
    raise IllegalActionError(f"move: got {text!r}; wanted one that is legal{_some(states, _uci_names)}")


def san(state: Any, action: int) -> str:
    """A legal action in standard algebraic notation.

    Raises:
        IllegalActionError: if the move is not legal.
    """
    states = as_states(state)
    action = _checked(states, action)
    name = _san(states, action, _legal(states).tolist())
    compiled().play(states, action)
    return name + _mark(states)


def action_of_san(state: Any, text: str) -> int:
    """The legal action of a move in standard algebraic notation.

    Raises:
        IllegalActionError: if it is no such text, the move is not legal, several moves fit, or an x, + or # is wrong.
    """
    return play_san(as_states(state), text)[0]


def play_san(states: NDArray[Any], text: str) -> tuple[int, str]:
    """Play a move in SAN in ``states[0]``; returns its action and its name as we write it."""
    legal = _legal(states).tolist()
    action = _read(states, text, legal)
    name = _san(states, action, legal)
    compiled().play(states, action)
    mark = _mark(states)
    if (text[-1] == "#" and mark != "#") or (text[-1] == "+" and not mark):
        raise IllegalActionError(f"move: got {text!r}, which gives no {'mate' if text[-1] == '#' else 'check'}")
    return action, name + mark


def _read(states: NDArray[Any], text: str, legal: list[int]) -> int:
    """The legal action of a move in SAN, without a look at + and #."""
    castling = _CASTLING.fullmatch(text) if isinstance(text, str) else None
    match = _SAN.fullmatch(text) if isinstance(text, str) and not castling else None
    if castling:
        kind, file, rank, takes, promotion = KING_KIND, "e", "", "", ""
        goal = ("c" if len(castling[1]) > 3 else "g") + "18"[int(states["turn"][0])]
    elif match:
        kind = LETTERS.index(match[1].lower() or "p")
        file, rank, takes, goal, promotion = match[2], match[3], match[4], match[5], (match[6] or "").lower()
    else:
        raise IllegalActionError(f"move: got {_shown(text)}; wanted standard algebraic notation, such as Nf3 or exd5")
    found = []
    for action in _of_kind(states, kind, _square(goal), legal):
        origin = square_name(_squares(states, action)[0])
        castles = kind == KING_KIND and abs(int(ORIGIN[action]) - int(GOAL[action])) == 2
        nameless = kind == PAWN and not file and _takes(states, action)  # a pawn that takes is named by its file
        if castles == bool(castling) and origin.startswith(file) and origin.endswith(rank) and not nameless:
            found.append(action)
    fitting = [action for action in found if _promotion(states, action) == promotion]
    if found and not fitting:
        raise IllegalActionError(
            f"move: got {text!r}; wanted " + ("no promotion" if promotion else "a promotion, as =Q")
        )
    if len(fitting) > 1:
        names = ", ".join(_san(states, action, legal) for action in fitting)
        raise IllegalActionError(f"move: got {text!r}; wanted one of {names}")
    if not fitting:
        raise IllegalActionError(f"move: got {text!r}; wanted one that is legal{_some(states, _san_names)}")
    if takes and not _takes(states, fitting[0]):
        raise IllegalActionError(f"move: got {text!r}, which takes nothing; wanted no x")
    return fitting[0]


def _legal(states: NDArray[Any]) -> NDArray[np.int64]:
    out = np.zeros(ACTIONS, bool)
    compiled().legal(states, out)
    return np.flatnonzero(out)


def _checked(states: NDArray[Any], action: int) -> int:
    """The action, if it is legal."""
    out = np.zeros(ACTIONS, bool)
    compiled().legal(states, out)
    if isinstance(action, bool) or not isinstance(action, (int, np.integer)) or not 0 <= action < ACTIONS:
        raise IllegalActionError(f"action: got {action!r}; wanted an integer from 0 to {ACTIONS - 1}")
    if not out[action]:
        origin, goal = _squares(states, int(action))
        name = f"{int(action)} ({square_name(origin)}{square_name(goal)})"
        raise IllegalActionError(f"action: got {name}; wanted one that is legal{_some(states, _uci_names)}")
    return integer("action", action, 0, ACTIONS - 1)


def _squares(states: NDArray[Any], action: int) -> tuple[int, int]:
    """Origin and goal as white sees the board."""
    turned = 56 * int(states["turn"][0])
    return int(ORIGIN[action]) ^ turned, int(GOAL[action]) ^ turned


def _square(name: str) -> int:
    return "abcdefgh".index(name[0]) + 8 * (int(name[1]) - 1)


def _kind(states: NDArray[Any], action: int) -> int:
    """The kind of the piece that moves."""
    return next(kind for kind in range(6) if int(states["pieces"][0, kind]) >> int(ORIGIN[action]) & 1)


def _promotion(states: NDArray[Any], action: int) -> str:
    if action >= PLAIN:
        return _LESSER[(action - PLAIN) % 3]
    return "q" if int(GOAL[action]) >= 56 and _kind(states, action) == PAWN else ""


def _takes(states: NDArray[Any], action: int) -> bool:
    taken = bool(int(states["sides"][0, 1]) >> int(GOAL[action]) & 1)
    return taken or (_kind(states, action) == PAWN and (int(GOAL[action]) - int(ORIGIN[action])) % 8 != 0)


def _of_kind(states: NDArray[Any], kind: int, goal: int, legal: list[int]) -> list[int]:
    """The legal actions by which a piece of a kind goes to a square as white sees it."""
    turned, pieces = 56 * int(states["turn"][0]), int(states["pieces"][0, kind])
    return [action for action in legal if int(GOAL[action]) ^ turned == goal and pieces >> int(ORIGIN[action]) & 1]


def _san(states: NDArray[Any], action: int, legal: list[int]) -> str:
    """SAN without + and #."""
    kind, takes, (origin, goal) = _kind(states, action), _takes(states, action), _squares(states, action)
    start, end = square_name(origin), square_name(goal)
    if kind == KING_KIND and abs(origin - goal) == 2:
        return "O-O" if goal > origin else "O-O-O"
    if kind == PAWN:
        promotion = _promotion(states, action).upper()
        return (f"{start[0]}x" if takes else "") + end + (f"={promotion}" if promotion else "")
    others = [_squares(states, other)[0] for other in _of_kind(states, kind, goal, legal) if other != action]
    which = ""
    if others:
        if all(other % 8 != origin % 8 for other in others):
            which = start[0]
        elif all(other // 8 != origin // 8 for other in others):
            which = start[1]
        else:
            which = start
    return LETTERS[kind].upper() + which + "x" * takes + end


def _mark(states: NDArray[Any]) -> str:
    """The + or # of the move that led to ``states[0]``."""
    if states["outcome"][0] not in (OPEN, DRAWN):
        return "#"
    return "+" if states["checked"][0] else ""


def _uci_names(states: NDArray[Any], legal: list[int]) -> list[str]:
    return ["".join(map(square_name, _squares(states, action))) + _promotion(states, action) for action in legal]


def _san_names(states: NDArray[Any], legal: list[int]) -> list[str]:
    return [_san(states, action, legal) for action in legal]


def _some(states: NDArray[Any], names: Any) -> str:
    """A few legal moves, for an error."""
    legal = _legal(states).tolist()
    if not legal:
        return "; there is none, the game is over"
    shown = names(states, legal)
    return f": {', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''}"


def _shown(text: Any) -> str:
    """What was given instead of a move, shortened."""
    if not isinstance(text, str):
        return type(text).__name__
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
