"""Settings of meta-training: the rule, the lifetimes that it is trained on, and the meta-gradient's optimiser."""

from __future__ import annotations

from typing import Any

from mlbits.agents.agent import AgentError
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled


@configuration(AgentError)
class MetaLPGConfig:
    """Settings of LPG's meta-training. The sizes are for one core; regularisers are those of Oh et al. (2020)."""

    run_defaults = (
        ("num_envs", 1024), ("total_steps", 200_000_000), ("eval_every", 20_000_000), ("checkpoint_every", 20_000_000),
        ("record_every", 1_000_000), ("eval_episodes", 64),
    )  # fmt: skip

    levels: str = setting(
        "small", "levels to train on: small, medium, large, a layout or a chain, or several with weights, as "
        "small:3,medium:1"
    )  # fmt: skip
    num_levels: int = setting(0, "train on the first so many training levels alone; 0 for all 2^32", low=0, high=2**32)
    lifetime: int = setting(
        0, "updates of 20 steps for which an agent lives; 0 for as many as its level is meant for", low=0, high=1e9
    )
    copies: int = setting(
        16, "copies of its level for each agent; num_envs / copies agents live at once", low=1, high=1e6
    )
    num_steps: int = setting(20, "steps of each copy between two updates of an agent", low=1, high=1e5)
    inner_updates: int = setting(5, "updates of the agents, K, through which a meta-gradient flows", low=1, high=1000)
    predictions: int = setting(8, "values m over which an agent's prediction is a distribution", low=2, high=1000)
    hidden: int = setting(32, "units of the rule's recurrent network", low=1, high=4096)
    discount: float = setting(0.99, "discount factor of the meta-objective, which the rule reads", low=0, high=1)
    learning_rate: Scheduled = setting("linear:2e-3:3e-4", "learning rate of Adam, of the rule", low=0, high=1,
                                       scheduled=True)  # fmt: skip
    max_grad_norm: float = setting(
        0.5, "largest L2 norm of the meta-gradient; larger ones are clipped", low=1e-9, high=1e9
    )
    policy_entropy_coef: float = setting(0.01, "weight b0 of the policies' entropy", low=0, high=1e3)
    prediction_entropy_coef: float = setting(0.001, "weight b1 of the predictions' entropy", low=0, high=1e3)
    pi_hat_coef: float = setting(0.001, "weight b2 of pi_hat's square", low=0, high=1e3)
    y_hat_coef: float = setting(0.001, "weight b3 of y_hat's squared length", low=0, high=1e3)
    table_rates: tuple[float, ...] = setting(
        (20.0, 40.0, 80.0), "learning rates that the bandit gives to agents with a table", low=1e-9
    )
    network_rates: tuple[float, ...] = setting(
        (5e-4, 1e-3, 2e-3), "learning rates that it gives to agents with a network", low=1e-9
    )
    alphas: tuple[float, ...] = setting(
        (0.1, 0.5, 1.0), "weights alpha_y of the prediction's loss that it gives to agents", low=0
    )
    a2c_rate: float = setting(80.0, "learning rate of A2C, the yardstick in evaluations, with a table", low=0, high=1e6)
    a2c_network_rate: float = setting(2e-3, "the same with a network", low=0, high=1)
    a2c_entropy_coef: float = setting(0.01, "weight of its entropy bonus", low=0, high=1e3)

    def level_settings(self) -> dict[str, Any]:
        """The arguments of :class:`mlbits.envs.levels.worlds.Worlds` that these settings change."""
        given = {"num_levels": self.num_levels, "lifetime": self.lifetime}
        return {"split": "train"} | {name: value for name, value in given.items() if value}
