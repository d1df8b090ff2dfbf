"""The trainer of agents that look before they act: the loop of all runs, which first shows pictures of starts.

Such an agent has ``sees``, whether it has learned to see, and ``look(pictures, factors, generator)``, which teaches
it; a checkpoint of a run holds what it has learned. :mod:`mlbits.agents.representation.wsc` is one.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch

from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.registry import make_batch
from mlbits.selfplay import loop
from mlbits.selfplay.collector import Episodes
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.session import Session, open_session

_LOOKING = 2**20  # added to the run's seed, for the pictures and all draws of phase 1


class LookingSession(Session):
    """A session whose learner is shown pictures before its first step."""

    def collect(self) -> tuple[Any, Episodes, int]:
        """Play a rollout, after looking if the learner does not see yet."""
        learner: Any = self.learner
        if not learner.sees:
            self.look()
        return super().collect()

    def look(self) -> None:
        """Show the learner pictures of starts, with their factors."""
        learner: Any = self.learner
        settings, seed = self.settings, self.settings.run.seed + _LOOKING
        starts = make_batch(settings.env, learner.config.pictures, seed=seed, **settings.env_settings)
        pictures, factors = starts.obs["observation"][:, 0].clone(), starts.obs["factors"][:, 0].clone()
        learner.look(pictures.to(self.device), factors.numpy(), torch.Generator().manual_seed(seed))


def open_looking(settings: Settings, *, start: bool = True) -> LookingSession:
    """Build everything that a run needs; see :func:`~mlbits.selfplay.session.opening.open_session`.

    Raises:
        ConfigError: for an environment that is not one of mlbits' own.
        MlbitsError: naming the setting, space or device that does not fit.
    """
    session = open_session(settings, start=start)
    if not isinstance(session.batch, GameBatch):
        raise ConfigError(
            f"{settings.agent}: got {settings.env}; wanted a game of mlbits, such as mlbits/PushBlocks-v0"
        )
    parts = {item.name: getattr(session, item.name) for item in dataclasses.fields(Session) if item.init}
    return LookingSession(**parts)


# A trainer's two functions (mlbits.selfplay.training): the loop's, with this session.
train = functools.partial(loop.train, open_session=open_looking)
resume = functools.partial(loop.resume, open_session=open_looking)
