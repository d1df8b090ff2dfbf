"""Names of moves that a person types and reads: the game's own (``game.layout["moves"]``), or numbers.

A name may be typed in any case, as far as that leaves one; numbers of actions are understood where there are no names.
Chess is read in UCI's and in standard algebraic notation, and written in the latter.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.game import Game
from mlbits.evals.play.config import PlayError

_SHOWN = 12  # moves listed in an error
_LONGEST = 40  # characters of a wrong move that are repeated


class Moves:
    """The moves of a game by their names.

    Args:
        game: a game with Discrete actions.
    """

    def __init__(self, game: Game) -> None:
        self.chess = game.name == "Chess"
        self._names = [_names_of(game, seat) for seat in range(game.seats)]

    def name(self, state: Any, seat: int, action: int) -> str:
        """The name of a legal action; ``state`` is the record of the position."""
        if self.chess:
            from mlbits.envs.board.chess.notation import san

            return san(state, action)
        return self._names[seat][action]

    def read(self, state: Any, seat: int, text: str, legal: Sequence[int]) -> int:
        """The legal action that a person typed.

        Raises:
            PlayError: for a move that is unknown or illegal now, with some that are legal.
        """
        if self.chess:
            return _read_chess(state, text)
        return read_name(text, dict(enumerate(self._names[seat])), legal, self.some(state, seat, legal))

    def some(self, state: Any, seat: int, legal: Sequence[int], most: int = _SHOWN) -> str:
        """Names of legal moves, the first of them if there are many."""
        if len(legal) > most and not self.chess and legal == list(range(legal[0], legal[-1] + 1)):
            first, *_, previous, last = (self.name(state, seat, action) for action in legal)
            return f"{first} to {previous}, pass" if last == "pass" else f"{first} to {last}"
        names = [self.name(state, seat, action) for action in legal[:most]]
        return ", ".join(names) + (f" and {len(legal) - most} more" if len(legal) > most else "")


def read_name(text: str, names: Mapping[int, str], legal: Sequence[int], some: str) -> int:
    """The legal action of a name that a person typed.

    Args:
        text: what was typed.
        names: of all actions.
        legal: the actions that are legal now.
        some: legal ones, for an error.

    Raises:
        PlayError: for a name that is unknown or not legal now, with some that are legal.
    """
    found = [action for action, name in names.items() if name == text]
    found = found or [action for action, name in names.items() if name.casefold() == text.casefold()]
    if not found:
        near = difflib.get_close_matches(text, [names[action] for action in legal], 1)
        hint = f"did you mean {near[0]}?" if near else f"wanted {some}, or help"
        raise PlayError(f"no move {shortened(text)!r}; {hint}")
    fitting = [action for action in found if action in legal]
    if not fitting:
        raise PlayError(f"{shortened(text)} is not legal now; wanted {some}")
    return fitting[0]


def shortened(text: str) -> str:
    """What was typed, as far as an error repeats it."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _names_of(game: Game, seat: int) -> tuple[str, ...]:
    named = game.layout.get("moves")
    if named is not None:
        return tuple(named[seat])
    if "divisions" in game.layout:
        return tuple("-".join(map(str, row)) for row in game.layout["divisions"])
    return tuple(map(str, range(int(game.action.nvec[0]))))


def _read_chess(state: Any, text: str) -> int:
    from mlbits.envs.board.chess.notation import action_of_san, action_of_uci

    try:
        return action_of_uci(state, text)
    except MlbitsError:
        try:
            return action_of_san(state, text)
        except MlbitsError as error:
            raise PlayError(str(error).removeprefix("move: ")) from None
