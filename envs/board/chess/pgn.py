r"""Games as text: Portable Game Notation, read strictly and written.

A file holds games: headers such as ``[White "Kasparov"]``, moves in SAN with their numbers, and a result. Comments,
variations, lines that begin with %, and annotations ($14, !?) are skipped. What is read must be right: every move
legal and not ambiguous, its number and dots, a + or # where there is one, the result the same in the header and after
the moves, and the one of the board after mate or stalemate. A number has at most one dot before White's move,
1. e4, and none or several before Black's (1... e5, 1. ... e5). A game may go on where ours would be a draw by itself
(fifty moves, threefold repetition, material), since players need not claim one.

Source: Steven J. Edwards, "Portable Game Notation Specification and Implementation Guide" (1994).

Example:
    >>> game = read_pgn('[White "Ann"]\n[Result "0-1"]\n\n1. f3 e5 2. g4 {oh} Qh4# 0-1')[0]
    >>> game.moves, game.result
    (('f3', 'e5', 'g4', 'Qh4#'), '0-1')
    >>> print(write_pgn([game]), end="")
    [Event "?"]
    [Site "?"]
    [Date "????.??.??"]
    [Round "?"]
    [White "Ann"]
    [Black "?"]
    [Result "0-1"]
    <BLANKLINE>
    1. f3 e5 2. g4 Qh4# 0-1
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from mlbits.envs.board.chess.compiled import as_states, compiled
from mlbits.envs.board.chess.fen import START, from_fen, to_fen
from mlbits.envs.board.chess.notation import legal_actions, play_san
from mlbits.envs.board.conventions import DRAWN, FIRST_WON, OPEN, SECOND_WON
from mlbits.envs.core.errors import GameError, IllegalActionError

RESULTS = {"1-0": FIRST_WON, "0-1": SECOND_WON, "1/2-1/2": DRAWN, "*": OPEN}
ROSTER = {"Event": "?", "Site": "?", "Date": "????.??.??", "Round": "?", "White": "?", "Black": "?", "Result": "*"}
_STANDARD = {"", "standard", "chess", "normal", "from position"}  # values of the header Variant
LONGEST_GAME = 20_000  # plies; under FIDE's rules a game has at most 17,697
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_HEADER = re.compile(r'\[\s*([A-Za-z0-9_]{1,64})\s+"((?:[^"\\\n]|\\["\\])*)"\s*\]')
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|(?P<comment>\{[^}]*\}|;[^\n]*)|(?P<escape>(?m:^)%[^\n]*)|(?P<header>\[)|(?P<open>\()"
    r"|(?P<close>\))|(?P<annotation>\$[0-9]{1,3}(?![0-9])|[!?]{1,2})"
    r"|(?P<result>(?:1-0|0-1|1/2-1/2|\*)(?![-/0-9A-Za-z]))|(?P<number>[0-9]{1,5}(?:\.+|(?=[ \t\r\n]))|\.+)"
    r"|(?P<move>[A-Za-z0][-A-Za-z0-9=+#]{1,9})"
)


@dataclass(frozen=True)
class PgnGame:
    """A game that was played.

    Attributes:
        moves: SAN as we write it.
        result: "1-0", "0-1", "1/2-1/2" or "*" (open, or not known).
        headers: the tags as they stood, in order.
        start: the FEN of the position before the first move.
        actions: the moves as actions of ``mlbits/Chess-v0``.
    """

    moves: tuple[str, ...]
    result: str = "*"
    headers: Mapping[str, str] = field(default_factory=dict)
    start: str = START
    actions: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        moves: Iterable[str],
        result: str = "*",
        headers: Mapping[str, str] | None = None,
        start: str = START,
    ) -> PgnGame:
        """A game from its moves in SAN; everything is checked, as when a file is read.

        Raises:
            GameError: if the result, a header or the start is wrong, or they do not fit the moves.
            IllegalActionError: if a move is not legal.
        """
        builder = _Builder(dict(headers or {}), start)
        for move in moves:
            builder.play(move)
        return builder.finish(result)

    def states(self) -> Iterator[Any]:
        """The state before each move, and the last one."""
        states = as_states(from_fen(self.start))
        yield states.view(np.recarray)[0]
        for action in self.actions:
            states = states.copy()
            compiled().play(states, action)
            states["over"] = states["outcome"] != OPEN
            states["elapsed"] += 1
            yield states.view(np.recarray)[0]


def read_pgn(text: str) -> list[PgnGame]:
    """All games of a text.

    Raises:
        GameError: if the text is not PGN, or something in a game is wrong; with the line.
    """
    return list(iterate_pgn(text))


def iterate_pgn(text: str) -> Iterator[PgnGame]:
    """The games of a text, one after another, so that the games before a mistake can be used."""
    if not isinstance(text, str):
        raise GameError(f"pgn: got {type(text).__name__}; wanted text")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    at, builder, begun, depth, opened = 0, _Builder({}, None), False, 0, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        kind = match.lastgroup if match else None
        if match is None or kind is None:
            _bad(text, at, f"got {text[at : at + 12]!r}; wanted headers, moves, comments or a result")
        word = match[0]
        if kind == "open":
            if not builder.moves:
                _bad(text, at, "got a variation before any move")
            opened = opened if depth else at
            depth += 1
        elif kind == "close":
            if not depth:
                _bad(text, at, "got ) without (")
            depth -= 1
        elif depth and kind == "header":
            _bad(text, opened, "got a variation that does not end")
        elif depth or kind in ("space", "comment", "escape", "annotation"):
            pass
        elif kind == "header":
            if builder.moves or builder.numbered:
                _bad(text, at, f"got a header; wanted the result of the game before it: {', '.join(RESULTS)}")
            match = _HEADER.match(text, at)
            if match is None:
                _bad(text, at, 'got [; wanted a header such as [White "Name"]')
            begun = True
            _located(text, at, builder.add_header, match[1], re.sub(r"\\(.)", r"\1", match[2]))
        elif kind == "number":
            _located(text, at, builder.number, word)
        elif kind == "move":
            _located(text, at, builder.play, word)
        else:
            if not begun and not builder.moves and not builder.numbered:
                _bad(text, at, f"got the result {word} without a game")
            yield _located(text, at, builder.finish, word)
            builder, begun = _Builder({}, None), False
        at = match.end()
    if depth:
        _bad(text, opened, "got a variation that does not end")
    if begun or builder.moves or builder.numbered:
        _bad(text, len(text), f"the last game has no result; wanted {', '.join(RESULTS)}")


def write_pgn(games: PgnGame | Iterable[PgnGame]) -> str:
    """Games as PGN: the seven headers that the standard wants, the others, and the moves in lines of 80 characters."""
    parts = []
    for game in [games] if isinstance(games, PgnGame) else games:
        headers = {name: game.headers.get(name, default) for name, default in ROSTER.items()} | dict(game.headers)
        headers["Result"] = game.result
        if game.start != START:
            headers |= {"SetUp": "1", "FEN": game.start}
        lines = ['[{} "{}"]'.format(name, re.sub(r'(["\\])', r"\\\1", value)) for name, value in headers.items()]
        turn, number = game.start.split(" ")[1], int(game.start.split(" ")[5])
        words = []
        for k, move in enumerate(game.moves, int(turn == "b")):
            if k % 2 == 0:
                words.append(f"{number + k // 2}.")
            elif not words:
                words.append(f"{number}...")
            words.append(move)
        body = textwrap.wrap(" ".join([*words, game.result]), 80, break_long_words=False, break_on_hyphens=False)
        parts.append("\n".join([*lines, "", *body]) + "\n")
    return "\n".join(parts)


def _located(text: str, at: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; what it refuses is refused with the line."""
    try:
        return function(*arguments)
    except (GameError, IllegalActionError) as error:
        _bad(text, at, str(error))


def _bad(text: str, at: int, why: str) -> NoReturn:
    raise GameError(f"pgn, line {text.count(chr(10), 0, at) + 1}: {why}")


class _Builder:
    """A game while it is read."""

    def __init__(self, headers: dict[str, str], start: str | None) -> None:
        self.headers: dict[str, str] = {}
        self.moves: list[str] = []
        self.actions: list[int] = []
        self.numbered = False
        self._number: tuple[str, int] | None = None  # the number before the next move as it stands, and its dots
        self._start = start
        self._states: Any = None
        for name, value in headers.items():
            self.add_header(name, value)

    def add_header(self, name: str, value: str) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise GameError(f"header: got the name {name!r}; wanted letters, digits and _")
        if name in self.headers:
            raise GameError(f"header {name}: got it twice")
        if not isinstance(value, str) or "\n" in value or not value.isprintable():
            raise GameError(f"header {name}: got {value!r}; wanted one line of text")
        if name == "Result" and value not in RESULTS:
            raise GameError(f"header Result: got {value!r}; wanted one of {', '.join(RESULTS)}")
        if name == "Variant" and value.lower() not in _STANDARD:
            raise GameError(f"header Variant: got {value!r}; wanted standard chess")
        self.headers[name] = value

    def states(self) -> Any:
        """The position so far, an array [1]."""
        if self._states is None:
            fen, setup = self.headers.get("FEN"), self.headers.get("SetUp")
            if setup not in (None, "0" if fen is None else "1"):
                raise GameError(f"header SetUp: got {setup!r}; wanted 1 with a header FEN, and 0 without")
            start = from_fen(fen if fen is not None else self._start or START)
            self._start = to_fen(start)
            self._states = as_states(start)
        return self._states

    def number(self, word: str) -> None:
        """Check a move's number; the dots of "1. ..." are two words of one number."""
        wanted = int(self.states()["number"][0])
        digits, dots = word.rstrip("."), word.count(".")
        if digits and int(digits) != wanted:
            raise GameError(f"number of the move: got {digits}; wanted {wanted}")
        if self._number is not None:
            if digits:
                raise GameError(f"number of the move: got {word} after {self._number[0]}; wanted a move")
            word, dots = f"{self._number[0]} {word}", dots + self._number[1]
        self._number, self.numbered = (word, dots), True

    def check_dots(self) -> None:
        """Refuse a number before the next move whose dots are the other side's."""
        if self._number is None:
            return
        (word, dots), black = self._number, bool(self.states()["turn"][0])
        if dots == 1 if black else dots > 1:
            number, side = int(self.states()["number"][0]), "Black" if black else "White"
            raise GameError(f"number of the move: got {word} before {side}'s; wanted {number}{'...' if black else '.'}")
        self._number = None

    def play(self, word: str) -> None:
        """Play a move in SAN."""
        if len(self.moves) >= LONGEST_GAME:
            raise GameError(f"moves: got more than {LONGEST_GAME} in a game; wanted at most as many")
        self.check_dots()
        action, name = play_san(self.states(), word)
        self.moves.append(name)
        self.actions.append(action)

    def finish(self, result: str) -> PgnGame:
        """The game, with its result."""
        self.check_dots()
        states = self.states()
        if not isinstance(result, str) or result not in RESULTS:
            raise GameError(f"result: got {result!r}; wanted one of {', '.join(RESULTS)}")
        if self.headers.get("Result", result) != result:
            raise GameError(f"result: got {result}, and {self.headers['Result']} in the header; wanted the same")
        outcome = int(states["outcome"][0])
        if outcome not in (OPEN, RESULTS[result]) and not len(legal_actions(states)):
            wanted = next(name for name, value in RESULTS.items() if value == outcome)
            raise GameError(f"result: got {result}; wanted {wanted}, as the board says")
        return PgnGame(tuple(self.moves), result, dict(self.headers), str(self._start), tuple(self.actions))
