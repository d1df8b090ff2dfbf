"""Behavioural cloning (BC): the policy that makes the recorded actions most probable, the baseline of offline learning.

    maximise E_(s,a)~D [log pi(a|s)]

It imitates good and bad episodes as they come. ``top`` keeps only that fraction of the episodes, those of highest
return: at 0.1 it is "10% BC" (Chen et al. 2021, "Decision Transformer", section 5), which is hard to beat wherever some
of the episodes are good and the starts do not matter much.

Example:
    mlbits train bc Pendulum-v1 --data my/dataset-v0 --agent.top 0.1
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch

from mlbits.agents.agent import AgentError
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.memory.replay import Transitions
from mlbits.agents.offline.networks import Policy
from mlbits.agents.offline.offline_agent import Head, OfflineConfig, PolicyAgent, policy_head
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import value_at


@configuration(AgentError)
class BCConfig(OfflineConfig):
    """Settings of behavioural cloning."""

    top: float = setting(1.0, "fraction of the episodes to imitate, those of highest return", low=1e-9, high=1)
    policy: Head = setting("auto", "distribution of a Box's actions; auto takes tanh_gaussian")
    components: int = setting(5, "components of a mixture", low=1, high=1000)


class BC(PolicyAgent):
    """A behavioural cloning agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete, or Box of one axis with bounds.
        seed: of the initial weights.
        device: where the network is kept.
    """

    def __init__(
        self,
        config: BCConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, observation_space, action_space, seed=seed, device=device)
        self.head = policy_head(config.policy, self.discrete, self.actions, config.components)
        self.policy = Policy(
            observation_space,
            self.head.size,
            config.hidden,
            self.generator,
            layer_norm=config.layer_norm,
            precision=self.config.precision,
        ).to(device)
        self.policy_optimizer = FlatAdam(
            self.policy.parameters(), value_at(config.learning_rate, 0.0), config.max_grad_norm, eps=1e-8
        )  # fmt: skip
        self.networks = {"policy": self.policy}
        self.optimizers = {"policy": (self.policy_optimizer, config.learning_rate)}
        self._best: tuple[Dataset, Dataset] | None = None  # a dataset, and the episodes of it that are imitated

    def _prepared(self, data: Dataset) -> Dataset:
        if self._best is None or self._best[0] is not data:
            self._best = data, data if self.config.top == 1 else data.best(self.config.top)
        return super()._prepared(self._best[1])

    def _update(self, drawn: Transitions, generator: torch.Generator, *, measure: bool) -> dict[str, Any]:
        log_prob = self.log_prob(self.policy.forward(drawn.obs), drawn.mask, drawn.action)
        loss = -log_prob.mean()
        self.policy_optimizer.zero_grad()
        loss.backward()
        grad_norm = self.policy_optimizer.step(measured=measure)
        return {"policy_loss": loss.detach(), "policy_grad_norm": grad_norm} if measure else {}
