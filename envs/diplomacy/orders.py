"""An order to one unit, and which orders a position allows.

An order that the position does not allow is none: the unit holds (retreats: disbands; builds: waives). An order that is
allowed can still fail, or be void because the unit that it helps does something else.
"""

from __future__ import annotations

from typing import NamedTuple


class Order(NamedTuple):
    """An order.

    Attributes:
        kind: HOLD to WAIVE, from :mod:`mlbits.envs.diplomacy.codes`.
        unit: ARMY or FLEET, of the unit that is ordered (or built); 0 for WAIVE.
        location: where it stands (or is to be built), a location of the board; -1 for WAIVE.
        other: SUPPORT, SUPPORT_MOVE, CONVOY: province of the unit that is helped, else -1.
        target: MOVE, RETREAT: the location; SUPPORT_MOVE, CONVOY: where the helped unit goes, a location (for support
            often a province whose coast is left open); else -1.
        via: MOVE: whether a convoy is asked for.
    """

    kind: int
    unit: int
    location: int
    other: int = -1
    target: int = -1
    via: bool = False
