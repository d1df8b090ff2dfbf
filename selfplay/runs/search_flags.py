"""``--search.NAME``: how trained agents look ahead when they play, the same for every command that plays.

Example:
    mlbits eval runs/mine --search.simulations 200
    mlbits tournament runs/a runs/b --search.simulations 0
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from mlbits.envs.core.config_fields import configuration, setting
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class SearchFlags:
    """Search at play time, of all trained players that have a policy and a critic; by default as they were trained."""

    simulations: int | None = setting(None, "simulations a move; 0 plays by the network alone", low=0, high=1e9)
    method: Literal["gumbel", "puct", "uct"] | None = setting(None, "tree search: gumbel, puct or uct")
    considered: int | None = setting(None, "gumbel: actions considered at the root", low=1, high=1e6)
    c_visit: float | None = setting(None, "gumbel: weight of Q, see c_scale", low=0)
    c_scale: float | None = setting(None, "gumbel: sigma = (c_visit + most visits) * c_scale * Q", low=0)
    c_init: float | None = setting(None, "puct: exploration", low=0)
    c_uct: float | None = setting(None, "uct: exploration", low=0)
    rescale: bool | None = setting(None, "whether Q is rescaled to 0..1 by the range of a node's values")
    solver: bool | None = setting(None, "whether proven wins and losses are backed up")
    look_ahead: bool | None = setting(None, "with the solver: try all moves of a new node, to see which end the game")

    def changes(self) -> dict[str, Any]:
        """The settings that were given, by name."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in given.items() if value is not None}
