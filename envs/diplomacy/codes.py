"""Numeric codes of units, phases, orders and fates in a Diplomacy record."""

from __future__ import annotations

from typing import Final

# Units in a province.
NO_UNIT: Final = 0
ARMY: Final = 1
FLEET: Final = 2
UNIT_LETTERS: Final = " AF"

# Types of provinces.
LAND: Final = 0
SEA: Final = 1
COAST: Final = 2

# The five phases of a year, in order.
SPRING_MOVES: Final = 0
SPRING_RETREATS: Final = 1
FALL_MOVES: Final = 2
FALL_RETREATS: Final = 3
ADJUSTMENTS: Final = 4
PHASE_NAMES: Final = ("S{}M", "S{}R", "F{}M", "F{}R", "W{}A")

# Orders. A unit without an order holds; a dislodged unit disbands.
NO_ORDER: Final = 0
HOLD: Final = 1
MOVE: Final = 2
SUPPORT: Final = 3  # of a unit that does not move
SUPPORT_MOVE: Final = 4
CONVOY: Final = 5
RETREAT: Final = 6
DISBAND: Final = 7
BUILD: Final = 8
WAIVE: Final = 9
# Two more kinds, used in action spaces; builds of armies and moves without a convoy keep the codes above.
BUILD_FLEET: Final = 10
MOVE_BY_CONVOY: Final = 11

# Fates: bits, so that one order can have several. 0: the order succeeded.
BOUNCE: Final = 1
CUT: Final = 2
VOID: Final = 4
NO_CONVOY: Final = 8
DISRUPTED: Final = 16
DISLODGED: Final = 32
DISBANDED: Final = 64
FATE_NAMES: Final = {
    BOUNCE: "bounce",
    CUT: "cut",
    NO_CONVOY: "no convoy",
    VOID: "void",
    DISRUPTED: "disrupted",
    DISLODGED: "dislodged",
    DISBANDED: "disband",
}
