"""The order parser and writer: orders as text, such as ``A PAR - BUR``.

| order | written | also read |
|---|---|---|
| hold | ``A PAR H`` | HOLD, HOLDS |
| move | ``A PAR - BUR`` | ``->``, TO, MOVES TO; names of the map: ``Army Paris - Burgundy`` |
| move by convoy | ``A LON - BEL VIA`` | VIA CONVOY, BY CONVOY |
| support | ``A MUN S A BUR`` | SUPPORTS, SUPPORT; also ``A MUN S A BUR H`` |
| support of a move | ``A MUN S A PAR - BUR`` | |
| convoy | ``F NTH C A LON - BEL`` | CONVOYS, CONVOY |
| retreat | ``A PAR R BUR`` | RETREATS TO; in a retreat phase a plain move |
| disband | ``A PAR D`` | DISBANDS, REMOVE, ``DISBAND A PAR`` |
| build | ``F STP/SC B`` | BUILDS, ``BUILD F STP(SC)``, ``St. Petersburg (south coast)`` |
| waive | ``WAIVE`` | WAIVES |

Case does not matter. Coasts (DATC 4.B and 6.B): if a fleet can reach only one coast of a province, the coast need
not be named; if it can reach several, the order is refused, since there are no default coasts; the coast that a fleet
stands on is corrected from the position; coasts given for armies are dropped. The letters A and F may be left out if
the province, or the position, makes them clear.

>>> from mlbits.envs.diplomacy.board import load_board
>>> board = load_board()
>>> order_text(parse_order("f gulf of lyon - Spain", board), board)
'F LYO - SPA/SC'
>>> parse_order("A PAR - LONDONDERRY", board)
Traceback (most recent call last):
mlbits.envs.diplomacy.order_parser.NotationError: order 'A PAR - LONDONDERRY': got 'LONDONDERRY'; wanted a province
"""

from __future__ import annotations

import re
import weakref
from typing import NoReturn

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    ARMY,
    BUILD,
    CONVOY,
    DISBAND,
    FALL_RETREATS,
    FLEET,
    HOLD,
    LAND,
    MOVE,
    RETREAT,
    SEA,
    SPRING_RETREATS,
    SUPPORT,
    SUPPORT_MOVE,
    UNIT_LETTERS,
    WAIVE,
)
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position, Unit

MAX_LENGTH = 200
_TOKEN = re.compile(r"[^\W_]+|->|[-/()]|\S")
_DASHES = str.maketrans(dict.fromkeys("–—−‐‑", "-") | {"→": "-"})  # noqa: RUF001 - dashes as word processors write them
_KINDS = {"A": ARMY, "ARMY": ARMY, "F": FLEET, "FLEET": FLEET}
_VERBS = {
    word: kind
    for kind, words in {
        HOLD: "H HOLD HOLDS",
        SUPPORT: "S SUPPORT SUPPORTS",
        CONVOY: "C CONVOY CONVOYS",
        RETREAT: "R RETREAT RETREATS",
        DISBAND: "D DISBAND DISBANDS REMOVE REMOVED",
        BUILD: "B BUILD BUILDS",
        MOVE: "- -> TO MOVE MOVES",
    }.items()
    for word in words.split()
}
_FIRST = {"BUILD": BUILD, "DISBAND": DISBAND, "REMOVE": DISBAND}
_DIRECTIONS = {"N": "NORTH", "S": "SOUTH", "E": "EAST", "W": "WEST"}
# Abbreviations in use elsewhere, for boards that do not use them as ids.
_ALIASES = {
    "LPL": "LVP", "GOL": "LYO", "NAT": "NAO", "NRG": "NWG", "NOR": "NWY", "MID": "MAO", "TYN": "TYS", "IRS": "IRI",
    "ECH": "ENG", "GOB": "BOT", "SKG": "SKA", "EMED": "EAS", "WMED": "WES",
}  # fmt: skip


class NotationError(GameError):
    """A text that is not an order.

    The message has the text, the word that was wrong and what was wanted; ``why`` is the message without the text.
    """

    def __init__(self, text: object, got: str, wanted: str) -> None:
        self.why = f"got {got}; wanted {wanted}"
        super().__init__(f"order {text!r}"[:120] + f": {self.why}")


def parse_order(text: str, board: Board, position: Position | None = None) -> Order:
    """Parse an order.

    Whether the position allows it is decided by :func:`mlbits.envs.diplomacy.order_reasons.why_illegal`.

    Args:
        text: at most 200 characters.
        board: the map, for names and neighbours.
        position: where the units are, to supply omitted letters and coasts.

    Raises:
        NotationError: if the text is not an order.
    """
    return _Sentence(text, board, position).order()


def order_text(order: Order, board: Board, position: Position | None = None) -> str:
    """Write an order such that :func:`parse_order` reads the same.

    Args:
        order: an order with locations of the board.
        board: the map.
        position: if given, the letter and coast of a helped unit are written from it; else its letter only if the
            province can hold one kind of unit only.
    """
    if order.kind == WAIVE:
        return "WAIVE"
    names = board.locations
    text = f"{UNIT_LETTERS[order.unit]} {names[order.location]}"
    if order.kind == MOVE:
        return f"{text} - {names[order.target]}{' VIA' if order.via else ''}"
    if order.kind == RETREAT:
        return f"{text} R {names[order.target]}"
    if order.kind in (SUPPORT, SUPPORT_MOVE, CONVOY):
        helped = names[order.other]
        unit = position.units.get(order.other) if position is not None else None
        kind = {LAND: ARMY, SEA: FLEET}.get(board.provinces[order.other].type, 0)
        if order.kind == CONVOY:
            helped = f"A {helped}"
        elif unit is not None and position is not None:
            helped = position.unit_name(unit)
        elif kind:
            helped = f"{UNIT_LETTERS[kind]} {helped}"
        goal = f" - {names[order.target]}" if order.kind != SUPPORT else ""
        return f"{text} {'C' if order.kind == CONVOY else 'S'} {helped}{goal}"
    return f"{text} {({HOLD: 'H', DISBAND: 'D', BUILD: 'B'})[order.kind]}"


_tables: weakref.WeakKeyDictionary[Board, dict[tuple[str, ...], int]] = weakref.WeakKeyDictionary()


def _names(board: Board) -> dict[tuple[str, ...], int]:
    """Provinces by the words of their names; ambiguous names are left out."""
    if board not in _tables:
        table: dict[tuple[str, ...], int] = {}
        twice = set()
        for number, province in enumerate(board.provinces):
            whole = _words(province.name)
            for words in {whole, tuple(word for word in whole if word not in ("-", "."))}:
                if words in table:
                    twice.add(words)
                table[words] = number
        for words in twice:
            del table[words]
        for alias, name in _ALIASES.items():
            if name in board.location_index:
                table[(alias,)] = board.location_index[name]
        table |= {(province.id,): number for number, province in enumerate(board.provinces)}
        table.pop((), None)
        _tables[board] = table
    return _tables[board]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in _TOKEN.findall(text.translate(_DASHES).upper()) if word != ".")


class _Sentence:
    """The words of one order, parsed from left to right."""

    def __init__(self, text: str, board: Board, position: Position | None) -> None:
        self.text, self.board, self.position = text, board, position
        if not isinstance(text, str) or len(text) > MAX_LENGTH:
            self.fail(f"a text of at most {MAX_LENGTH} characters", type(text).__name__)
        self.words = _words(text.rstrip(" \t\r\n.;,"))
        self.at = 0

    def fail(self, wanted: str, got: str | None = None) -> NoReturn:
        if got is None:
            got = repr(self.words[self.at]) if self.at < len(self.words) else "the end"
        raise NotationError(self.text, got, wanted)

    def take(self, *wanted: str) -> str:
        """The next word if it is one of these, else ""."""
        if self.at < len(self.words) and self.words[self.at] in wanted:
            self.at += 1
            return self.words[self.at - 1]
        return ""

    def order(self) -> Order:
        if self.take("WAIVE", "WAIVES"):
            order = Order(WAIVE, 0, -1)
        elif verb := self.take(*_FIRST):
            order = self.deed(_FIRST[verb], *self.unit(_FIRST[verb]))
        else:
            start = self.at
            kind, place = self.unit(None)
            verb = self.take(*_VERBS)
            if not verb:
                self.fail("an order: - (a move), S, C, H, R, D or B")
            if _VERBS[verb] == BUILD:  # a build's place is taken as written, whatever unit is there
                end, self.at = self.at, start
                kind, place = self.unit(BUILD)
                self.at = end
            order = self.deed(_VERBS[verb], kind, place, verb)
        if self.at < len(self.words):
            self.fail("the end of the order")
        return order

    def deed(self, what: int, kind: int, place: int, verb: str = "") -> Order:
        """Parse an order from its verb."""
        if what in (HOLD, DISBAND, BUILD):
            return Order(what, kind, place)
        if what in (MOVE, RETREAT):
            if verb not in ("-", "->", "TO"):
                self.take("-", "->", "TO")
            target = self.goal(kind, place)
            via = what == MOVE and self.via()
            if what == MOVE and not via and self.phase() in (SPRING_RETREATS, FALL_RETREATS):
                what = RETREAT
            return Order(what, kind, place, -1, target, via)
        return self.help(what, kind, place)

    def help(self, what: int, kind: int, place: int) -> Order:
        """Parse a support or a convoy from the helped unit."""
        letter = self.take(*_KINDS)
        province, coast = self.province()
        standing = self.standing(province)
        there = standing.kind if standing is not None else self.ground(province)
        helped = _KINDS.get(letter, there)
        if there not in (0, helped):
            wanted = "which is the unit there" if standing is not None else "the only kind that can be there"
            self.fail(f"{UNIT_LETTERS[there]}, {wanted}", repr(letter))
        if what == CONVOY and helped == FLEET:
            self.fail("an army, since fleets are not convoyed", f"a fleet in {self.board.provinces[province].id}")
        moves = self.take("-", "->", "TO", "MOVE", "MOVES")
        if not moves:
            if what == CONVOY:
                self.fail("- and the province that the army goes to")
            self.take("H", "HOLD", "HOLDS")
            return Order(SUPPORT, kind, place, province)
        if moves in ("MOVE", "MOVES"):
            self.take("-", "->", "TO")
        target, coast = self.province()
        if coast is not None and what == SUPPORT and helped != ARMY:
            target = self.coast(target, coast)
        self.via()
        return Order(CONVOY if what == CONVOY else SUPPORT_MOVE, kind, place, province, target)

    def via(self) -> bool:
        enclosed = self.take("(")
        if not self.take("VIA", "BY"):
            if enclosed:
                self.fail("VIA CONVOY")
            return False
        if self.words[self.at - 1] == "BY" and self.words[self.at : self.at + 1] != ("CONVOY",):
            self.fail("CONVOY")
        self.take("CONVOY")
        if enclosed and not self.take(")"):
            self.fail("')'")
        return True

    def standing(self, province: int) -> Unit | None:
        """The unit there; a dislodged unit takes precedence."""
        if self.position is None:
            return None
        if province in self.position.dislodged:
            return self.position.dislodged[province].unit
        return self.position.units.get(province)

    def ground(self, province: int) -> int:
        """The only kind of unit that can be there, or 0 if both can."""
        return {LAND: ARMY, SEA: FLEET}.get(self.board.provinces[province].type, 0)

    def phase(self) -> int:
        return -1 if self.position is None else self.position.phase

    def unit(self, what: int | None) -> tuple[int, int]:
        """Parse the ordered unit: its kind, and the location where it is or is to be built."""
        letter = self.take(*_KINDS)
        province, coast = self.province()
        kind = _KINDS.get(letter, 0)
        standing = self.standing(province) if what != BUILD else None
        if not kind:
            kind = standing.kind if standing is not None else self.ground(province)
        if not kind:
            empty = self.position is not None and what is None and self.phase() != ADJUSTMENTS
            self.fail("a unit there" if empty else "A or F before it", repr(self.board.provinces[province].id))
        if kind == ARMY:
            return kind, province
        place = self.coast(province, coast) if coast is not None else province
        if standing is not None and standing.kind == FLEET:
            return kind, standing.location
        if coast is None and self.board.coasts_of[province]:
            if what is None and self.phase() in (-1, ADJUSTMENTS) and self.words[self.at : self.at + 1] in _BUILDS:
                return kind, place  # parsed again as a build, with a better error message
            coasts = ", ".join(self.board.locations[c] for c in self.board.coasts_of[province])
            self.fail(f"one of its coasts: {coasts}", repr(self.board.provinces[province].id))
        return kind, place

    def goal(self, kind: int, place: int) -> int:
        """Parse the destination of a move or retreat, adding the coast if only one is possible."""
        province, coast = self.province()
        if kind == ARMY:
            return province
        if coast is not None:
            return self.coast(province, coast)
        near = [n for n in self.board.fleet_neighbours[place] if self.board.province_of[n] == province]
        if len(near) > 1:
            coasts = " or ".join(self.board.locations[n] for n in near)
            self.fail(f"one of its coasts: {coasts}", repr(self.board.provinces[province].id))
        return near[0] if near else province

    def province(self) -> tuple[int, str | None]:
        """Parse a province by id or name (the longest match), and the coast named after it, such as "SC"."""
        table = _names(self.board)
        for length in range(min(8, len(self.words) - self.at), 0, -1):
            words = self.words[self.at : self.at + length]
            if words in table:
                self.at += length
                coast = self.named_coast()
                if coast is not None:
                    self.coast(table[words], coast)  # dropped for an army, but has to exist
                return table[words], coast
        return self.fail("a province")

    def named_coast(self) -> str | None:
        """Parse the coast after a province: /SC, (SC), (south coast), south coast; None if there is none."""
        start, bracket = self.at, self.take("(", "/")
        known = {coast for province in self.board.provinces for coast in province.coasts} | {"NC", "SC", "EC", "WC"}
        word = self.take(*known)
        if not word and (long := self.take(*_DIRECTIONS.values())):
            word = f"{long[0]}C"
            if not self.take("COAST"):
                self.fail("COAST")
        if not word:
            if bracket == "/":
                self.fail("a coast such as SC")
            self.at = start
            return None
        if bracket == "(" and not self.take(")"):
            self.fail("')'")
        return word

    def coast(self, province: int, coast: str) -> int:
        """The location of a province's named coast."""
        name = f"{self.board.provinces[province].id}/{coast}"
        if name not in self.board.location_index:
            coasts = ", ".join(self.board.locations[c] for c in self.board.coasts_of[province])
            self.fail(f"one of its coasts: {coasts}" if coasts else "no coast, since it has only one", repr(name))
        return self.board.location_index[name]


_BUILDS = {(word,) for word, kind in _VERBS.items() if kind == BUILD}
