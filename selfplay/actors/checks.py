"""Which runs actors can play."""

from __future__ import annotations

from mlbits.agents.agent import Agent, RolloutSpec
from mlbits.agents.registry import agent_entry
from mlbits.selfplay.runs.config import ConfigError, Settings

_LOOP = "mlbits.selfplay.loop"


def check_actors(settings: Settings) -> None:
    """Refuse actors where there is nothing for them to do, before anything is built.

    Raises:
        ConfigError: naming what does not fit.
    """
    run = settings.run
    if not run.actors:
        return
    if agent_entry(settings.agent).trainer != _LOOP:
        raise ConfigError(
            f"actors: got {run.actors} with {settings.agent}, whose training has a loop of its own; wanted 0"
        )
    if run.data:
        raise ConfigError(f"actors: got {run.actors} with a dataset (data), which nobody plays; wanted 0")
    if run.device == "cuda":
        raise ConfigError(f"actors: got {run.actors} with device cuda; wanted 0, or device cpu")


def check_learner(settings: Settings, learner: Agent) -> None:
    """Refuse an agent that has to learn from its present policy's play.

    Raises:
        ConfigError: naming it.
    """
    if isinstance(learner.experience, RolloutSpec) and not getattr(learner, "learns_behind", False):
        raise ConfigError(
            f"actors: got {settings.run.actors} with {settings.agent}, which learns from the play of its present "
            "policy alone; wanted 0, or ppo, trpo, dqn, ddpg or sac"
        )
