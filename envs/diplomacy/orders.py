"""``Order``: an order to one unit.

An order that the position does not allow has no effect: the unit holds (retreats: disbands; builds: waives). An order
that is allowed can still fail, or be void because the unit that it helps does something else.
"""

from __future__ import annotations

from typing import NamedTuple


class Order(NamedTuple):
    """An order to one unit.

    Attributes:
        kind: HOLD to WAIVE, from :mod:`mlbits.envs.diplomacy.codes`.
        unit: ARMY or FLEET, the kind of the unit that is ordered (or built); 0 for WAIVE.
        location: its location (or where it is to be built); -1 for WAIVE.
        other: SUPPORT, SUPPORT_MOVE, CONVOY: province of the unit that is helped, else -1.
        target: MOVE, RETREAT: the destination; SUPPORT_MOVE, CONVOY: the helped unit's destination (for supports
            often a province without a coast); else -1. Destinations are locations.
        via: MOVE: whether a convoy is asked for.
    """

    kind: int
    unit: int
    location: int
    other: int = -1
    target: int = -1
    via: bool = False
