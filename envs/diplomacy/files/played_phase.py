"""One phase of a game that was played, as saved games hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlbits.envs.diplomacy.position import Position


@dataclass(frozen=True, slots=True)
class PlayedPhase:
    """One phase of a game.

    Attributes:
        position: at its beginning.
        orders: as given, by powers that gave any; in the last phase those given so far.
        fates: bits of units that had orders to get, by province; None where nothing is known.
        saved: what a file has of the phase beyond these: its "results" and "messages" as they are, and the fields of
            its "state" that a position does not have; empty for a phase that was adjudicated here. Not compared.
    """

    position: Position
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fates: Mapping[int, int] | None = None
    saved: Mapping[str, Any] = field(default_factory=dict, compare=False)
