"""The fraction of random actions over a run, for agents that explore epsilon-greedily."""

from __future__ import annotations

from typing import Protocol

from mlbits.envs.core.schedules import Scheduled, value_at


class ExplorationConfig(Protocol):
    """The settings of exploration that such agents have.

    Attributes:
        epsilon: a number, a schedule, or "auto" for a linear one given by the other three.
        epsilon_start: fraction of random actions at the start.
        epsilon_end: at the end.
        epsilon_fraction: fraction of the run over which it falls.
    """

    @property
    def epsilon(self) -> Scheduled: ...  # noqa: D102
    @property
    def epsilon_start(self) -> float: ...  # noqa: D102
    @property
    def epsilon_end(self) -> float: ...  # noqa: D102
    @property
    def epsilon_fraction(self) -> float: ...  # noqa: D102


def exploration(config: ExplorationConfig, progress: float) -> float:
    """The fraction of random actions at a progress 0..1 of the run."""
    if config.epsilon != "auto":
        return value_at(config.epsilon, progress)
    share = min(1.0, progress / config.epsilon_fraction) if config.epsilon_fraction > 0 else 1.0
    return config.epsilon_start + share * (config.epsilon_end - config.epsilon_start)
