"""The settings of a bonus, which configs of agents inherit."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeVar

from mlbits.agents.agent import AgentError
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled

C = TypeVar("C")


@configuration(AgentError)
class BonusSettings:
    """Settings of the bonus."""

    bonus: Literal["none", "count", "rnd", "icm", "lwm"] = setting(
        "none",
        "intrinsic reward for what is new: visit counts, random network distillation, the error of a curiosity module, "
        "or that of a latent world model",
    )
    bonus_scale: Scheduled = setting(
        1.0, "factor of the bonus, which is added to the reward", low=0, high=1e6, scheduled=True
    )
    bonus_normalize: Literal["auto", "none", "rms", "standard"] = setting(
        "auto",
        "divide the bonus by its root mean square so far, or standardise it by recent moments (it is then negative at "
        "times); auto: none for count, standard for lwm, rms for rnd and icm",
    )
    bonus_decay: float = setting(
        0.99, "decay, per rollout, of the recent moments (2020 paper: 0.999 in Atari)", low=0, high=0.999999
    )
    bonus_learning_rate: float = setting(1e-3, "learning rate of the bonus's networks", low=0, high=10)
    bonus_hidden: tuple[int, ...] = setting((64, 64), "widths of the hidden layers of the bonus's networks", low=1)
    bonus_features: int = setting(16, "width of what they predict or encode to", low=1, high=10_000)
    bonus_batch_size: int = setting(256, "steps per gradient step of these networks", low=1, high=1e6)
    bonus_epochs: int = setting(1, "passes over each step that was played", low=1, high=1000)
    bonus_reset: bool = setting(True, "whether lwm forgets at the end of an episode what it has seen in it")


@configuration(AgentError)
class OwnValueSettings(BonusSettings):
    """Settings of the bonus of agents with an actor and a critic."""

    bonus_discount: float = setting(
        0.0,
        "discount of the bonus, which then has a value of its own and goes on over the ends of episodes (2019 paper of "
        "rnd: 0.99); 0 adds it to the reward",
        low=0,
        high=1,
    )


def bonus_last(config: type[C]) -> type[C]:
    """A decorator for configs that inherit these settings: lists show the agent's own first."""
    fields: dict[str, Any] = config.__dataclass_fields__  # type: ignore[attr-defined]
    inherited = {field.name for field in dataclasses.fields(OwnValueSettings)}
    own = {name: field for name, field in fields.items() if name not in inherited}
    config.__dataclass_fields__ = own | {name: field for name, field in fields.items() if name in inherited}  # type: ignore[attr-defined]
    return config
