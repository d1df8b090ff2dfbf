"""LPG's meta-training: windows of updates of all lifetimes, each followed by a step of the rule up the meta-gradient.

Oh et al. (2020), algorithm 1, with :mod:`~mlbits.agents.learned_rules.meta_gradient`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, load_weights, prefixed, unprefixed
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.learned_rules.config import MetaLPGConfig
from mlbits.agents.learned_rules.lifetimes import LevelBatch, Lifetimes
from mlbits.agents.learned_rules.meta_gradient import Coefficients, window
from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig
from mlbits.envs.core.schedules import value_at


class MetaLPG:
    """A rule that is being trained.

    Args:
        config: settings.
        seed: of the rule's initial weights.
        device: where it is kept.

    Attributes:
        rule: the rule.
    """

    experience = None

    def __init__(self, config: MetaLPGConfig, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.config = config
        shape = RuleConfig(predictions=config.predictions, hidden=config.hidden, discount=config.discount)
        self.rule = LPGRule(shape, seed=seed).to(device)
        rate = value_at(config.learning_rate, 0.0)
        self.optimizer = FlatAdam(self.rule.parameters(), rate, config.max_grad_norm)
        self._coefficients = Coefficients(
            config.policy_entropy_coef, config.prediction_entropy_coef, config.pi_hat_coef, config.y_hat_coef
        )

    def learn(self, groups: Sequence[Lifetimes], progress: float) -> Mapping[str, Any]:
        """One window of every group of lifetimes, and one step of the rule.

        Args:
            groups: lifetimes, each group on its own kind of levels; a group weighs as much as it has lifetimes.
            progress: fraction of the run that is over, 0..1.

        Returns:
            The mean reward a step of all agents, their policies' and predictions' entropy in nats, the targets' mean
            squares, the gradient's norm, lifetimes ended and collapsed so far; tensors or numbers.
        """
        config, optimizer = self.config, self.optimizer
        optimizer.learning_rate = value_at(config.learning_rate, progress)
        optimizer.zero_grad()
        total = sum(len(group.ages) for group in groups)
        metrics: dict[str, Any] = {}
        for group in groups:
            found = window(
                self.rule, group.population, group.state, group.hyper, group.player, group.advantages,
                updates=config.inner_updates, coefficients=self._coefficients,
            )  # fmt: skip
            share = len(group.ages) / total
            (-share * found.objective).backward()
            group.go_on(found)
            measured = {"reward": found.reward.mean(), "objective": found.objective.detach()} | found.metrics
            for name, value in measured.items():
                metrics[name] = metrics.get(name, 0.0) + share * value
        ended, collapsed = sum(group.ended for group in groups).tolist()  # type: ignore[union-attr]
        grad_norm = optimizer.step()
        return metrics | {
            "grad_norm": grad_norm, "learning_rate": optimizer.learning_rate,
            "lifetimes_ended": ended, "lifetimes_collapsed": collapsed,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        """The rule and its optimiser."""
        state = prefixed("rule", self.rule.state_dict()) | prefixed("optimizer", self.optimizer.state_dict())
        return {name: value.detach().clone() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of this rule.
        """
        load_weights({"rule": self.rule}, state)
        self.optimizer.load_state_dict(unprefixed("optimizer", state))


class NotAnAgent:
    """What stands in the registry for a rule in training: it plays no environment."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        raise AgentError(
            "meta-lpg: is a rule in training, which plays nothing itself; wanted an agent that learns by it: "
            "mlbits train lpg ENV --agent.rule RUN/rule.safetensors"
        )


def lifetimes_of(config: MetaLPGConfig, worlds: Sequence[LevelBatch], seed: int) -> list[Lifetimes]:
    """The lifetimes of meta-training, a group for each kind of levels.

    Raises:
        AgentError: if a lifetime is shorter than a window of updates.
    """
    return [
        Lifetimes(
            levels, predictions=config.predictions, num_steps=config.num_steps, updates=config.inner_updates,
            learning_rates=config.network_rates if levels.num_states is None else config.table_rates,
            alphas=config.alphas, discount=config.discount, seed=seed + 1000 * number,
        )
        for number, levels in enumerate(worlds)
    ]  # fmt: skip
