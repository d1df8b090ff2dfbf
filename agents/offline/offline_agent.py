"""What offline agents share: settings, actions of either kind, scaling, the loop over minibatches, saving.

An algorithm's file holds the rest: its networks and :meth:`OfflineAgent._update`, one gradient step on a minibatch of
transitions, whose observations, actions and rewards are scaled already. Actions of a Box are scaled so that its bounds
are -1 and 1. A step's ``discount`` is 0 only where its episode terminated: truncated ones bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from mlbits.agents.agent import (
    AgentError,
    DatasetSpec,
    Decision,
    load_weights,
    network_generator,
    pick,
    prefixed,
    unprefixed,
)
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.maths.action_distributions import Categorical, DiagonalGaussian
from mlbits.agents.maths.bounded_distributions import GaussianMixture, TanhGaussian
from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.memory.replay import Transitions
from mlbits.agents.offline.networks import Scaling
from mlbits.agents.passes.precision import settled_precision
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, changes, value_at
from mlbits.envs.core.spaces import action_layout

Head = Literal["auto", "tanh_gaussian", "mixture"]
RewardScaling = Literal["auto", "std", "standard", "returns", "none"]
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 8192, 1 << 26
REWARD_SCALING = (
    "what critics see of rewards: divided by their standard deviation (std); with mean 0 too (standard), which where "
    "episodes terminate changes what is best; auto takes standard where none terminates; returns: so that the range of "
    "episodes' returns is 1000"
)


@configuration(AgentError)
class OfflineConfig:
    """Settings that all offline agents have."""

    run_defaults = (("total_steps", 100_000), ("num_envs", 1), ("eval_every", 5_000), ("checkpoint_every", 10_000))

    updates_per_iteration: int = setting(
        100, "gradient steps between two records, evaluations or checkpoints; a run ends at a multiple of it", low=1,
        high=1e9,
    )  # fmt: skip
    batch_size: int = setting(256, "transitions per gradient step", low=1, high=1e6)
    learning_rate: Scheduled = setting(3e-4, "learning rate of the policy's Adam", low=0, high=10, scheduled=True)
    anneal_lr: bool = setting(False, "decay the learning rates, if they are numbers, linearly to 0 over the run")
    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers of all networks", low=1)
    layer_norm: bool = setting(False, "normalise each hidden layer, with a learned gain and offset")
    max_grad_norm: float = setting(
        math.inf, "largest L2 norm of each network's gradient; larger ones are clipped", low=1e-9, high=math.inf
    )
    observation_scaling: Literal["standard", "none"] = setting(
        "standard", "scale vectors of observations to mean 0 and standard deviation 1 over the dataset"
    )
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "float32",
        "number format of the products between hidden layers; bfloat16 is faster on GPUs and on CPUs with AVX512-BF16 "
        "or AMX, and ten times slower on other CPUs; auto takes bfloat16 where it is fast",
    )

    def settled(self, device: torch.device | str) -> tuple[Any, str]:
        """This config with the precision "auto" resolved for a device, and a line that explains the choice, or ""."""
        precision, why = settled_precision(self.precision, device)
        return replace(self, precision=precision), why


class OfflineAgent:
    """An agent that learns from a dataset.

    Args:
        config: settings.
        observation_space: of one seat.
        action_space: of one seat: Discrete, or Box of one axis with bounds.
        seed: of the initial weights.
        device: where the networks are kept.

    Attributes:
        networks: by name, all that are saved.
        optimizers: by name, each with its learning rate or schedule.
        updates: gradient steps so far.
        scaling: of observations and rewards, found from the dataset.

    Raises:
        AgentError: if the action space has no bounds.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, tuple[FlatAdam, Scheduled]]

    def __init__(
        self,
        config: Any,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        config = config.settled(device)[0]
        self.config, self.device = config, torch.device(device)
        self.observation_space = observation_space
        layout = action_layout(action_space)
        self.discrete = layout.kind == "discrete"
        self.actions = layout.nvec[0] if self.discrete else len(layout.low)
        if not self.discrete:
            if not (np.isfinite(layout.low).all() and np.isfinite(layout.high).all()):
                raise AgentError(
                    f"{type(self).__name__}: got the action space {action_space}; wanted one with bounds, to which "
                    "actions are scaled. Agents for actions without bounds: ppo, reinforce, trpo"
                )
            box = DiagonalGaussian(layout.low, layout.high)
            self._scale, self._center = box.scale.to(device), box.center.to(device)
            self._low, self._high = box.low.to(device), box.high.to(device)
        self.generator = network_generator(seed)
        self.scaling = Scaling(observation_space).to(device)
        self.updates = 0

    @property
    def experience(self) -> DatasetSpec:
        """The dataset."""
        return DatasetSpec(self.config.updates_per_iteration)

    def learn(self, experience: Dataset, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Make ``updates_per_iteration`` gradient steps, each on a minibatch of steps drawn uniformly.

        Args:
            experience: the dataset.
            progress: fraction of the run that is over, 0..1.
            generator: for minibatches and for draws of actions.

        Returns:
            Metrics of the last of these steps.

        Raises:
            AgentError: if the dataset does not fit the settings.
        """
        config = self.config
        data = self._prepared(experience)
        for optimizer, rate in self.optimizers.values():
            optimizer.learning_rate = value_at(rate, progress, anneal=config.anneal_lr)
        size, left = config.batch_size, config.updates_per_iteration
        at_once = max(1, _rows_at_once(data) // size)
        metrics: dict[str, Any] = {}
        while left:
            count = min(left, at_once)
            drawn = self._scaled(data.sample(count * size, generator, discount=getattr(config, "discount", 1.0)))
            for k in range(count):
                left -= 1
                minibatch = _rows_of(drawn, slice(k * size, (k + 1) * size))
                metrics = self._update(minibatch, generator, measure=left == 0)
                self.updates += 1
        rates = {
            f"{name}_learning_rate": optimizer.learning_rate
            for name, (optimizer, rate) in self.optimizers.items()
            if changes(rate, config.anneal_lr)
        }
        return metrics | rates | {"updates": self.updates}

    def _prepared(self, data: Dataset) -> Dataset:
        """The steps to learn from; finds the scaling before the first of them."""
        self.scaling.fit(data, self.config.observation_scaling, getattr(self.config, "reward_scaling", "none"))
        return data

    def _update(self, drawn: Transitions, generator: torch.Generator, *, measure: bool) -> dict[str, Any]:
        """One gradient step; its metrics if they are to be measured."""
        raise AgentError(f"{type(self).__name__}: has no update of its own")

    def _scaled(self, drawn: Transitions) -> Transitions:
        scaling = self.scaling
        action = drawn.action if self.discrete else (drawn.action - self._center) / self._scale
        return drawn._replace(
            obs=scaling.obs(drawn.obs), next_obs=scaling.obs(drawn.next_obs),
            reward=scaling.reward(drawn.reward), action=action,
        )  # fmt: skip

    def _decision(self, action: Tensor) -> Decision:
        """Actions in the agent's units, as the environment takes them."""
        if self.discrete:
            return Decision(action, action, None)
        return Decision(torch.addcmul(self._center, action, self._scale).clamp_(self._low, self._high), action, None)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of weights, optimisers, scaling and the number of updates."""
        state: dict[str, Tensor] = {}
        for name, network in self._saved().items():
            state |= prefixed(name, network.state_dict())
        for name, (optimizer, _) in self.optimizers.items():
            state |= prefixed(f"{name}_optimizer", optimizer.state_dict())
        state["updates"] = torch.tensor(self.updates)
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of these networks.
        """
        load_weights(self._saved(), state)
        for name, (optimizer, _) in self.optimizers.items():
            optimizer.load_state_dict(unprefixed(f"{name}_optimizer", state))
        self.updates = int(state["updates"])

    def _saved(self) -> dict[str, nn.Module]:
        return {**self.networks, "scaling": self.scaling}


class PolicyAgent(OfflineAgent):
    """An offline agent with a stochastic policy: a network in ``networks["policy"]``, and the distribution ``head``."""

    head: Categorical | TanhGaussian | GaussianMixture

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows of observations: draw from the policy, or ``greedy`` take its mode."""
        params = self.networks["policy"].forward(self.scaling.obs(obs))
        if greedy:
            return self._decision(self.mode(params, legal_mask))
        return self._decision(self.draws(params, legal_mask, 1, generator)[0])

    @torch.no_grad()
    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """pi(a|s) of Discrete actions, float64 [N, A]."""
        head = self.head
        if not isinstance(head, Categorical):
            raise AgentError(f"{type(self).__name__}: actions of a Box have densities; wanted action_log_prob")
        return head.probabilities(self.networks["policy"].forward(self.scaling.obs(obs)), legal_mask, greedy)

    @torch.no_grad()
    def action_log_prob(self, obs: Any, legal_mask: Tensor | None, action: Tensor) -> Tensor:
        """The log probability of Discrete actions, or log density of a Box's as they are played, in its units, [N].

        At a bound, where a mixture's draws are clipped, the log probability of it; under tanh there is none, and the
        density is that of :data:`~mlbits.agents.maths.bounded_distributions.EDGE`.
        """
        params = self.networks["policy"].forward(self.scaling.obs(obs))
        head = self.head
        if isinstance(head, Categorical):
            return head.log_prob(params, legal_mask, action)
        return head.played_log_prob(params, (action - self._center) / self._scale, self._scale)

    def draws(self, params: Tensor, mask: Tensor | None, count: int, generator: torch.Generator) -> Tensor:
        """Actions drawn from the policy, [count, N] or [count, N, k]."""
        if isinstance(self.head, Categorical):
            return torch.stack([self.head.sample(params, mask, generator) for _ in range(count)])
        return self.head.sample(params, count, generator)

    def mode(self, params: Tensor, mask: Tensor | None) -> Tensor:
        """The policy's most probable actions, [N] or [N, k]."""
        head = self.head
        return head.mode(params, mask) if isinstance(head, Categorical) else head.mode(params)

    def log_prob(self, params: Tensor, mask: Tensor | None, action: Tensor) -> Tensor:
        """Of actions in the agent's units, [N]."""
        head = self.head
        if isinstance(head, Categorical):
            return head.log_prob(params, mask, action)
        return head.log_prob(params, action)


def _rows_at_once(data: Dataset) -> int:
    """How many transitions to draw together, for several minibatches: fewer where observations are large."""
    parts = data.obs.values() if isinstance(data.obs, dict) else (data.obs,)
    row_bytes = 2 * sum(part[0].numel() * part.element_size() for part in parts)
    return min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // max(1, row_bytes))


def _rows_of(drawn: Transitions, part: slice) -> Transitions:
    """Some rows of transitions, without copying."""
    return Transitions._make(None if value is None else pick(value, part) for value in drawn)


def policy_head(
    kind: Head, discrete: bool, actions: int, components: int
) -> Categorical | TanhGaussian | GaussianMixture:
    """The distribution of a policy.

    Args:
        kind: for a Box; "auto" is "tanh_gaussian".
        discrete: whether actions are Discrete, for which the only one is categorical.
        actions: number of actions, or of action dimensions.
        components: of a mixture.

    Raises:
        AgentError: for a distribution of a Box where actions are Discrete.
    """
    if discrete:
        if kind != "auto":
            raise AgentError(f"policy: got {kind!r}; wanted 'auto' for Discrete actions, whose policy is categorical")
        return Categorical(actions)
    return GaussianMixture(actions, components) if kind == "mixture" else TanhGaussian(actions)
