"""The marks drawn on a board (lines, signs, pieces, text) for a position, its orders and their fates.

| order | mark |
|---|---|
| hold | a circle around the unit |
| move | an arrow to the destination |
| support | a dotted line to the supported unit, or to its arrow, ending in a dot |
| convoy | a wavy line to the arrow of the army |
| retreat | a dashed arrow |
| build | the new unit with a plus |
| disband | a cross on the unit |

Failed orders are pale, with a small cross; a unit that these orders dislodge gets a burst. Coordinates are
those of :mod:`mlbits.envs.diplomacy.drawing.province_shapes`; the heading is above the board at negative y, the key
below it. Pillow and SVG drawings both paint exactly these marks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mlbits.envs.diplomacy.codes import (
    ARMY,
    BUILD,
    CONVOY,
    DISBAND,
    DISBANDED,
    DISLODGED,
    FLEET,
    HOLD,
    MOVE,
    RETREAT,
    SUPPORT,
    SUPPORT_MOVE,
)
from mlbits.envs.diplomacy.drawing.palette import FAILURE, INK, PAPER, RGB, SUCCESS, WHITE, mixed, power_colours
from mlbits.envs.diplomacy.drawing.partition import WIDTH
from mlbits.envs.diplomacy.drawing.province_shapes import UNIT_RADIUS, Geometry, geometry_of
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position, Unit

Point = tuple[float, float]
SOLID: Final = "solid"
DOTTED: Final = "dotted"
DASHED: Final = "dashed"
TITLE_HEIGHT: Final = 28.0
ROW_HEIGHT: Final = 22.0
KEY_HEIGHT: Final = 26.0
_CHIPS = 7  # powers per row of the heading
PHASE_TITLES: Final = ("Spring {}, moves", "Spring {}, retreats", "Fall {}, moves", "Fall {}, retreats", "Winter {}")


class Stroke(NamedTuple):
    """A line with a rim.

    Attributes:
        points: two or more points.
        colour: colour of the line.
        rim: colour of its rim.
        width: width of the line without its rim.
        style: SOLID, DOTTED or DASHED.
        arrow: length of the arrowhead at the last point, or 0.
    """

    points: tuple[Point, ...]
    colour: RGB
    rim: RGB
    width: float
    style: str = SOLID
    arrow: float = 0.0


class Sign(NamedTuple):
    """A small sign of a radius around a point: "ring", "cross", "plus", "dot" or "burst"."""

    kind: str
    at: Point
    radius: float
    colour: RGB
    width: float


class Piece(NamedTuple):
    """A unit, ARMY or FLEET, around a point; dislodged units have a red rim, units being built a green one."""

    kind: int
    at: Point
    radius: float
    colour: RGB
    rim: RGB


class Word(NamedTuple):
    """A text that starts at ("lm"), ends at ("rm") or is centred on ("mm") a point."""

    text: str
    at: Point
    size: float
    anchor: str = "mm"


class Chip(NamedTuple):
    """A filled square, from its upper left corner."""

    at: Point
    side: float
    colour: RGB


@dataclass(slots=True)
class Marks:
    """Marks in the order in which they are painted: strokes, chips, pieces, signs, words."""

    strokes: list[Stroke] = field(default_factory=list)
    chips: list[Chip] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)


def heading_height(powers: int) -> float:
    """Height of the title and the rows of powers above the board."""
    return TITLE_HEIGHT + ROW_HEIGHT * math.ceil(powers / _CHIPS)


def marks_of(
    position: Position,
    orders: Mapping[int, Order] | None = None,
    fates: Mapping[int, int] | None = None,
    powers: Mapping[int, int] | None = None,
) -> Marks:
    """All marks on a position's board.

    Args:
        position: the position to show.
        orders: orders given in that position, by the province of the unit; None for no orders.
        fates: fates of those orders, bits of :mod:`mlbits.envs.diplomacy.codes`; None if all succeed.
        powers: the power that gave each order, if the orders are from the phase before (the units have moved since).
    """
    drawing = _Drawing(position, orders or {}, fates or {}, powers)
    for unit in position.units.values():
        drawing.piece(unit, drawing.points[unit.location], INK)
    for dislodged in position.dislodged.values():
        at = drawing.beside(dislodged.unit.location)
        drawing.piece(dislodged.unit, at, FAILURE)
    for province, order in sorted(drawing.orders.items()):
        drawing.order(province, order)
    _heading(position, drawing.marks)
    return drawing.marks


def title(position: Position) -> str:
    """Such as "Spring 1901, moves"."""
    return PHASE_TITLES[position.phase].format(position.year)


class _Drawing:
    """Collects the marks of one position."""

    def __init__(
        self,
        position: Position,
        orders: Mapping[int, Order],
        fates: Mapping[int, int],
        powers: Mapping[int, int] | None,
    ) -> None:
        self.position, self.fates, self.powers = position, fates, powers
        self.colours = power_colours(position.board.powers)
        self.geometry: Geometry = geometry_of(position.board)
        self.points: list[Point] = [(float(x), float(y)) for x, y in self.geometry.unit_points]
        self.radius = UNIT_RADIUS * self.geometry.scale
        self.width = 2.4 * self.geometry.scale
        known = range(len(self.points))
        self.orders = {p: order for p, order in orders.items() if order.location in known}
        self.marks = Marks()

    def piece(self, unit: Unit, at: Point, rim: RGB) -> None:
        self.marks.pieces.append(Piece(unit.kind, at, self.radius, self.colours[unit.power], rim))

    def beside(self, location: int) -> Point:
        """Where a dislodged unit is drawn: to the upper right of its place, or to the upper left at the edge."""
        x, y = self.points[location]
        aside = 1.25 * self.radius if x + 2.5 * self.radius < WIDTH else -1.25 * self.radius
        return x + aside, max(y - 1.05 * self.radius, self.radius)

    def place(self, province: int) -> Point:
        """Where a province's unit is, or was when the orders were given."""
        if self.powers is not None:
            order = self.orders.get(province)
            return self.points[order.location if order else province]
        unit = self.position.units.get(province)
        return self.points[unit.location if unit else province]

    def origin(self, province: int, order: Order) -> tuple[Point, RGB]:
        """The place of an order's unit, and the colour of its power."""
        at = self.points[order.location]
        if self.powers is not None:
            power = self.powers.get(province, -1)
            return at, self.colours[power] if power >= 0 else INK
        dislodged = self.position.dislodged.get(province)
        if dislodged is not None:
            return self.beside(order.location), self.colours[dislodged.unit.power]
        unit = self.position.units.get(province)
        return at, self.colours[unit.power] if unit else INK

    def goal(self, order: Order) -> int:
        """The province to which a unit is ordered, or -1."""
        return int(self.position.board.province_of[order.target]) if order.target >= 0 else -1

    def order(self, province: int, order: Order) -> None:
        """Add the marks of one order."""
        fate = self.fates.get(province, 0)
        at, colour = self.origin(province, order)
        failed = bool(fate & ~(DISLODGED | DISBANDED))
        if order.kind in (MOVE, RETREAT) and order.target >= 0:
            style = DASHED if order.kind == RETREAT else SOLID
            self.line(self.arrow(province, order, at), colour, failed, style, arrow=True)
        elif order.kind in (SUPPORT, SUPPORT_MOVE, CONVOY) and order.other >= 0:
            self.help(order, at, colour, failed)
        elif order.kind == HOLD:
            self.marks.signs.append(Sign("ring", at, 1.35 * self.radius, INK, 0.6 * self.width))
        elif order.kind == BUILD:
            if self.powers is None:
                home = self.position.board.provinces[int(self.position.board.province_of[order.location])].home
                self.piece(Unit(home or 0, order.unit, order.location), at, SUCCESS)
            self.sign("plus", (at[0] + self.radius, at[1] - self.radius), SUCCESS)
        if fate & DISLODGED:
            self.marks.signs.append(Sign("burst", at, 1.5 * self.radius, FAILURE, 0.6 * self.width))
        if order.kind == DISBAND or fate & DISBANDED:
            self.marks.signs.append(Sign("cross", at, 0.8 * self.radius, FAILURE, 0.9 * self.width))

    def arrow(self, province: int, order: Order, at: Point) -> tuple[Point, Point]:
        """The line from a unit to its target; units that swap places pass each other on the right."""
        target = int(self.position.board.province_of[order.target])
        goal = self.points[order.target]
        other = self.orders.get(target)
        if other is not None and other.kind == order.kind == MOVE and self.goal(other) == province:
            x, y = _along(at, goal, 0.4 * self.radius)
            at, goal = (at[0] - y, at[1] + x), (goal[0] - y, goal[1] + x)
        taken = target in self.position.units
        return _shortened(at, goal, 0.9 * self.radius, (1.15 if taken else 0.3) * self.radius)

    def help(self, order: Order, at: Point, colour: RGB, failed: bool) -> None:
        """The line of a support or a convoy."""
        helped = self.place(order.other)
        if order.kind == SUPPORT or order.target < 0:
            line = _shortened(at, helped, 0.9 * self.radius, 1.2 * self.radius)
        else:
            goal, own = self.points[order.target], self.orders.get(order.other)
            aim = int(self.position.board.province_of[order.target])
            if own is not None and own.kind == MOVE and self.goal(own) == aim:
                goal = self.points[own.target]  # the coast that it moves to
            fraction = 0.62 if order.kind != CONVOY else 0.5
            on = (helped[0] + fraction * (goal[0] - helped[0]), helped[1] + fraction * (goal[1] - helped[1]))
            line = _shortened(at, on, 0.9 * self.radius, 0.0)
        if order.kind == CONVOY:
            self.line(_waves(*line, 0.28 * self.radius, 0.9 * self.radius), colour, failed, SOLID)
        else:
            self.line(line, colour, failed, DOTTED)
        tone = mixed(colour, WHITE, 0.45) if failed else colour
        self.marks.signs.append(Sign("dot", line[1], 0.9 * self.width, tone, 0.4 * self.width))

    def line(self, points: tuple[Point, ...], colour: RGB, failed: bool, style: str, arrow: bool = False) -> None:
        rim = mixed(INK, WHITE, 0.5) if failed else INK
        tone = mixed(colour, WHITE, 0.4) if failed else colour
        head = 4.2 * self.width if arrow else 0.0
        self.marks.strokes.append(Stroke(points, tone, rim, self.width, style, head))
        if failed:
            (x0, y0), (x1, y1) = points[0], points[-1]
            self.sign("cross", ((x0 + x1) / 2, (y0 + y1) / 2), FAILURE)

    def sign(self, kind: str, at: Point, colour: RGB) -> None:
        self.marks.signs.append(Sign(kind, at, 0.42 * self.radius, colour, 0.9 * self.width))


def _along(start: Point, end: Point, length: float) -> Point:
    """The vector of a given length from start towards end; to the right if they coincide."""
    x, y = end[0] - start[0], end[1] - start[1]
    distance = math.hypot(x, y)
    return (x / distance * length, y / distance * length) if distance > 1e-9 else (length, 0.0)


def _shortened(start: Point, end: Point, first: float, last: float) -> tuple[Point, Point]:
    """The line shortened at both ends, but to no less than a third of it."""
    distance = math.hypot(end[0] - start[0], end[1] - start[1])
    fraction = min(1.0, 0.67 * distance / max(first + last, 1e-9))
    x0, y0 = _along(start, end, first * fraction)
    x1, y1 = _along(start, end, last * fraction)
    return (start[0] + x0, start[1] + y0), (end[0] - x1, end[1] - y1)


def _waves(start: Point, end: Point, height: float, length: float) -> tuple[Point, ...]:
    """A sine wave from start to end."""
    distance = math.hypot(end[0] - start[0], end[1] - start[1])
    count = max(1, round(distance / (2 * length)))
    x, y = _along(start, end, 1.0)
    found = []
    for i in range(8 * count + 1):
        along, aside = distance * i / (8 * count), height * math.sin(2 * math.pi * i / 8)
        found.append((start[0] + x * along - y * aside, start[1] + y * along + x * aside))
    return tuple(found)


def _heading(position: Position, marks: Marks) -> None:
    """Add the phase, and the centres and units of each power, above the board."""
    powers = position.board.powers
    colours = power_colours(powers)
    top = -heading_height(len(powers))
    marks.words.append(Word(title(position), (10, top + 0.55 * TITLE_HEIGHT), 17, "lm"))
    marks.words.append(Word("centres / units of each power", (WIDTH - 10, top + 0.55 * TITLE_HEIGHT), 12, "rm"))
    centers, units = [0] * len(powers), [0] * len(powers)
    for owner in position.centers.values():
        centers[owner] += 1
    for unit in position.units.values():
        units[unit.power] += 1
    for dislodged in position.dislodged.values():
        units[dislodged.unit.power] += 1
    for power, name in enumerate(powers):
        row, column = divmod(power, _CHIPS)
        x, y = 10 + column * (WIDTH - 10) / _CHIPS, top + TITLE_HEIGHT + (row + 0.5) * ROW_HEIGHT
        marks.chips.append(Chip((x, y - 7), 14, colours[power]))
        label = f"{name.replace('_', ' ').title()[:11]} {centers[power]} / {units[power]}"
        marks.words.append(Word(label, (x + 20, y), 13, "lm"))


def key(height: float) -> Marks:
    """The key to the marks, below a board of the given height."""
    marks, y, grey = Marks(), height + KEY_HEIGHT / 2, mixed(INK, PAPER, 0.45)
    lines: tuple[tuple[str, str, float], ...] = (
        ("move", SOLID, 9.0), ("support", DOTTED, 0.0), ("convoy", "waves", 0.0), ("retreat", DASHED, 9.0),
        ("failed", SOLID, 9.0),
    )  # fmt: skip
    x = 12.0
    for label, style, head in lines:
        points = ((x, y), (x + 34, y)) if style != "waves" else _waves((x, y), (x + 34, y), 2.8, 9)
        pale = label == "failed"
        rim, tone = (mixed(INK, WHITE, 0.5), mixed(grey, WHITE, 0.4)) if pale else (INK, grey)
        marks.strokes.append(Stroke(points, tone, rim, 2.4, SOLID if style == "waves" else style, head))
        if pale:
            marks.signs.append(Sign("cross", (x + 17, y), 4.2, FAILURE, 2.2))
        marks.words.append(Word(label, (x + 41, y), 12, "lm"))
        x += 55 + 7 * len(label)
    signs: tuple[tuple[str, str, RGB], ...] = (
        ("hold", "ring", INK), ("dislodged", "burst", FAILURE), ("build", "plus", SUCCESS),
        ("disband", "cross", FAILURE),
    )  # fmt: skip
    x += 6
    for label, kind, colour in signs:
        marks.signs.append(Sign(kind, (x, y), 7 if kind in ("ring", "burst") else 5, colour, 1.6))
        marks.words.append(Word(label, (x + 12, y), 12, "lm"))
        x += 34 + 7 * len(label)
    for label, unit in (("army", ARMY), ("fleet", FLEET)):
        marks.pieces.append(Piece(unit, (x, y), 8, grey, INK))
        marks.words.append(Word(label, (x + 15, y), 12, "lm"))
        x += 36 + 7 * len(label)
    return marks
