"""The words after UCI's ``go``: limits of a search and the moves that it is restricted to.

Words that cannot be read do not stop the game: each makes a message, and is left out or replaced by the nearest number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlbits.envs.board.chess.notation import action_of_uci
from mlbits.envs.core.errors import MlbitsError

MOST = 10**9  # simulations
_CLOCKS = ("wtime", "btime", "winc", "binc")  # a clock may be negative: the flag has fallen
_LEAST = {"nodes": 1, "movetime": 0, "movestogo": 1, "depth": 1, "mate": 1}
_KNOWN = (*_CLOCKS, *_LEAST, "searchmoves", "infinite", "ponder")
_LONGEST = 10**12
_MOVES_LEFT = 30  # for which the clock has to do, if nothing else is said
_RESERVE = 0.02  # seconds kept for passing the answer on


@dataclass
class Go:
    """What was asked for.

    Attributes:
        numbers: the limits by their names.
        infinite: whether only ``stop`` ends the search.
        moves: actions to which the search is restricted; none for all.
        problems: a message for each word that could not be read.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    infinite: bool = False
    moves: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_go(words: Sequence[str], state: Any, least: int) -> Go:
    """Read the words after ``go``.

    Args:
        words: the words.
        state: the position.
        least: the fewest simulations.
    """
    found, rest = Go(infinite="infinite" in words), list(words)
    while rest:
        word, values = rest.pop(0), list[str]()
        several = word == "searchmoves"
        while (several or word in _CLOCKS or word in _LEAST) and rest and rest[0] not in _KNOWN:
            values.append(rest.pop(0))
            if not several:
                break
        if several:
            _read_moves(found, values, state)
        elif word in _CLOCKS or word in _LEAST:
            _read_number(found, word, values, least)
        elif word not in _KNOWN:
            found.problems.append(f"go: got {word[:40]}; wanted {', '.join(_KNOWN)}")
    return found


def _read_number(found: Go, name: str, values: Sequence[str], least: int) -> None:
    text = values[0] if values else "nothing"
    lowest = least if name == "nodes" else _LEAST.get(name, -_LONGEST)
    wanted = "a whole number" + (f" of at least {lowest}" if name in _LEAST else " of milliseconds")
    if not re.fullmatch(r"[-+]?[0-9]{1,30}", text):
        found.problems.append(f"{name}: got {text[:40]}; wanted {wanted}; it is left out")
        return
    number = max(lowest, min(int(text), _LONGEST))
    if int(text) < lowest:
        found.problems.append(f"{name}: got {text}; wanted {wanted}; taken as {lowest}")
    found.numbers[name] = number


def _read_moves(found: Go, values: Sequence[str], state: Any) -> None:
    if not values:
        found.problems.append("searchmoves: got nothing; wanted moves, as in e2e4")
    for text in values:
        try:
            action = action_of_uci(state, text)
        except MlbitsError:
            found.problems.append(f"searchmoves: got {text[:40]}; wanted legal moves, as in e2e4; it is left out")
        else:
            found.moves += [action] if action not in found.moves else []


def limits(numbers: Mapping[str, int], infinite: bool, turn: int, simulations: int) -> tuple[int, float | None]:
    """The most simulations and the seconds that a search may take; no seconds for no limit of time.

    Args:
        numbers: the limits by their names.
        infinite: whether only ``stop`` ends the search.
        turn: 0 for white.
        simulations: those of a search without a limit.
    """
    own, more = ("wtime", "winc") if turn == 0 else ("btime", "binc")
    seconds = None
    if "movetime" in numbers:
        seconds = numbers["movetime"] / 1000
    elif own in numbers:
        left = max(0, numbers[own]) / 1000
        seconds = min(left / numbers.get("movestogo", _MOVES_LEFT) + 0.8 * numbers.get(more, 0) / 1000, left / 2)
    if seconds is not None:
        seconds = max(0.0, seconds - _RESERVE)
    unlimited = MOST if seconds is not None or infinite else simulations
    return min(numbers.get("nodes", unlimited), MOST), seconds
