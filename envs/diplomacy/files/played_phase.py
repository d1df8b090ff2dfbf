"""``PlayedPhase``: one phase of a recorded game."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlbits.envs.diplomacy.position import Position


@dataclass(frozen=True, slots=True)
class PlayedPhase:
    """One phase of a recorded game.

    Attributes:
        position: the position at its beginning.
        orders: the orders as given, by power; only powers that gave any; in the last phase those given so far.
        fates: bits of the units that could be ordered, by province; None if unknown.
        saved: further contents of a file: the phase's "results" and "messages" as they are, and the fields of
            its "state" that a position does not have; empty for a phase that was adjudicated here. Not compared.
    """

    position: Position
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fates: Mapping[int, int] | None = None
    saved: Mapping[str, Any] = field(default_factory=dict, compare=False)
