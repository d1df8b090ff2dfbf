"""The core of policy-gradient agents: the network, acting, values of a rollout, and saving; not their updates."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import (
    AgentError,
    Decision,
    Rollout,
    load_weights,
    network_generator,
    pick,
    placed,
    prefixed,
    rows,
    unprefixed,
)
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.maths.action_distributions import Categorical, distribution_for
from mlbits.agents.maths.returns import gae, next_values
from mlbits.agents.networks.mlp import Activation
from mlbits.agents.networks.orders import OrderDistribution, OrderNetwork, fits_orders
from mlbits.agents.networks.policy_value import ActorCritic, OwnActorCritic
from mlbits.agents.networks.recurrent import RecurrentActorCritic
from mlbits.agents.networks.running_moments import Moments, moments_of
from mlbits.agents.passes.pass_memory import PassMemory
from mlbits.envs.core.schedules import Scheduled, value_at

# Rows per pass on the CPU: activations of 4,096 rows of 64 fit in a core's cache, and so do those of 4,096 board areas.
CPU_CHUNK = 4096
_AREAS_A_CHUNK = 4096
_COMPILERS = ("g++", "clang++", "c++", "cl")  # that torch.compile uses on a CPU


class NetworkConfig(Protocol):
    """The settings common to all agents with an actor and a critic.

    Attributes:
        hidden: widths of the hidden layers.
        learning_rate: of Adam, or its schedule.
        max_grad_norm: gradients are clipped to this L2 norm.
        normalize_obs: whether observations are standardised by their running mean and variance.
        log_std: initial log standard deviation of continuous actions.
    """

    @property
    def hidden(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def learning_rate(self) -> Scheduled: ...  # noqa: D102
    @property
    def max_grad_norm(self) -> float: ...  # noqa: D102
    @property
    def normalize_obs(self) -> bool: ...  # noqa: D102
    @property
    def log_std(self) -> float: ...  # noqa: D102


class ActorCriticCore:
    """A network with its optimiser and, if the config asks for it, standardisation of observations.

    Args:
        config: the agent's settings, of which those of :class:`NetworkConfig` are read.
        observation_space: one seat's.
        action_space: one seat's.
        seed: of the initial weights.
        device: where the network is kept.
        value_apart: whether the critic has its own optimiser, ``value_optimizer``, so that it can be updated
            without changing the policy (with a common Adam, momentum would move the policy too).
        network: "mlp", or "auto" for a network that fits the spaces: an :class:`OrderNetwork` for orders on a graph.
        activation: of the hidden layers.
        encoder: the name of an encoder of one's own (:mod:`mlbits.agents.networks.own`), or "".
        model: the name of a whole network of one's own, or "".
        shared: whether one MLP gives policy and value.
        memory: "gru" or "lstm" for a :class:`RecurrentActorCritic`.
        memory_width: of its output.
        bfloat16: whether products of its passes are of bfloat16 numbers (autocast); weights and outputs stay float32.
        compiled: whether passes of an update are compiled by ``torch.compile``.

    Attributes:
        distribution: the distribution over actions that the policy's outputs parametrise.
        network: policy and value.
        optimizer: of all parameters that ``value_optimizer`` does not update.
        chunk: rows per pass on the CPU.
        memory_size: how many numbers the network remembers, M; 0 without memory.

    Raises:
        AgentError: if observations are to be standardised but have no numbers.
        GameError: if there is no network for a space of this kind.
    """

    def __init__(
        self,
        config: NetworkConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int,
        device: torch.device | str,
        value_apart: bool = False,
        network: str = "mlp",
        activation: Activation = "tanh",
        encoder: str = "",
        model: str = "",
        shared: bool = False,
        memory: Literal["none", "gru", "lstm"] = "none",
        memory_width: int = 0,
        bfloat16: bool = False,
        compiled: bool = False,
    ) -> None:
        # Each network comes with the distribution that interprets its outputs: rows of numbers, or OrderParams.
        self.network: Any
        self.distribution: Any
        generator = network_generator(seed)
        self.memory_size = 0
        if network == "auto" and fits_orders(observation_space, action_space):
            given = {"memory": memory != "none", "encoder": encoder, "model": model, "shared": shared}
            if other := [name for name, value in given.items() if value]:
                raise AgentError(f"{other[0]}: does not fit the order network; wanted network='mlp'")
            self.network = OrderNetwork(observation_space, action_space, config.hidden, generator)  # type: ignore[arg-type]
            self.distribution = OrderDistribution(self.network.decoder)
            self.chunk = max(1, _AREAS_A_CHUNK // self.network.decoder.areas)
        elif model:
            self.distribution, self.chunk = distribution_for(action_space), CPU_CHUNK
            self.network = OwnActorCritic(observation_space, self.distribution, model, generator, config.log_std)
        elif memory != "none":
            self.distribution = distribution_for(action_space)
            self.network = RecurrentActorCritic(
                observation_space, self.distribution, config.hidden, generator,
                kind=memory, width=memory_width, log_std=config.log_std, activation=activation, encoder=encoder,
            )  # fmt: skip
            self.memory_size, self.chunk = self.network.memory_size, CPU_CHUNK
        else:
            self.distribution = distribution_for(action_space)
            self.network = ActorCritic(
                observation_space, self.distribution, config.hidden, generator, config.log_std,
                activation=activation, encoder=encoder, shared=shared,
            )  # fmt: skip
            self.chunk = CPU_CHUNK
        self.network.to(device)
        if bfloat16:
            if not isinstance(self.network, ActorCritic | OwnActorCritic):
                kind = "memory" if self.memory_size else "the order network"
                raise AgentError(f"precision: got 'bfloat16' with {kind}; wanted 'float32'")
            self.network.in_bfloat16 = True
        if compiled:
            if torch.device(device).type == "cpu" and not any(map(shutil.which, _COMPILERS)):
                raise AgentError(f"compile: got True, and torch.compile finds none of {', '.join(_COMPILERS)}; "
                                 "wanted a C++ compiler, or False")  # fmt: skip
            self.network.compile()
        critic = list(self.network.critic.parameters()) if value_apart else []
        apart = {id(parameter) for parameter in critic}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in apart]
        rate = value_at(config.learning_rate, 0.0)
        self.optimizer = FlatAdam(rest, rate, config.max_grad_norm)
        self.value_optimizer = FlatAdam(critic, rate, config.max_grad_norm) if value_apart else None
        self._pass_memory = PassMemory()
        self.moments: Moments | None = None
        if config.normalize_obs:
            if isinstance(self.network, OrderNetwork):
                raise AgentError(
                    "normalize_obs: got True with the order network, whose inputs are 0 or 1; wanted False"
                )
            self.moments = moments_of(observation_space).to(device)

    def prepare(self, obs: Any) -> Any:
        """Observations in the form that the network takes: standardised if the config asks for it."""
        return obs if self.moments is None else self.moments.standardise(obs)

    def rows_a_pass(self, obs: Any, count: int) -> int:
        """How many of ``count`` rows of observations go through the network at once."""
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        if some.device.type == "cpu":
            return self.chunk
        # What keeps order networks and memories small is their own.
        plain = isinstance(self.network, ActorCritic | OwnActorCritic)
        return self._pass_memory.rows(self.network, obs, count) if plain else count

    @torch.no_grad()
    def act(
        self, obs: Any, mask: Tensor | None, generator: torch.Generator, greedy: bool, memory: Tensor | None = None
    ) -> Decision:
        """Choose actions for N rows; a network with memory from what is remembered, [N, M].

        Raises:
            AgentError: for a network with memory and no memory.
        """
        if not self.memory_size:
            params = self.network.policy(self.prepare(obs))
        elif memory is None:
            raise AgentError(f"memory: missing; wanted what is remembered, [N, {self.memory_size}], zeros at the start")
        else:
            params, memory = self.network.step(self.prepare(obs), memory)
        distribution = self.distribution
        sample = distribution.mode(params, mask) if greedy else distribution.sample(params, mask, generator)
        log_prob = distribution.log_prob(params, mask, sample)
        return Decision(distribution.played(sample), sample, log_prob, memory=memory)

    @torch.no_grad()
    def action_probabilities(
        self, obs: Any, mask: Tensor | None, greedy: bool, memory: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """Probabilities of all actions, float64 [N, A]; a network with memory needs what was remembered before, [N, M].

        Raises:
            AgentError: if the action space is not Discrete.
        """
        if not isinstance(self.distribution, Categorical):
            raise AgentError(f"action_probabilities: got {type(self.distribution).__name__}; wanted Discrete actions")
        obs = self.prepare(obs)
        params = self.network.policy(obs) if memory is None else self.network.step(obs, memory)[0]
        return self.distribution.probabilities(params, mask, greedy)

    @torch.no_grad()
    def action_log_prob(self, obs: Any, mask: Tensor | None, action: Tensor) -> Tensor:
        """Log probabilities of actions as played, [N]; densities in the action's units, if it is continuous.

        Raises:
            AgentError: for orders, whose decoder draws them one by one.
        """
        if isinstance(self.distribution, OrderDistribution):
            raise AgentError("action_log_prob: got the order network; wanted a categorical or Gaussian policy")
        return self.distribution.played_log_prob(self.network.policy(self.prepare(obs)), mask, action)

    @torch.no_grad()
    def draw_log_prob(self, obs: Any, mask: Tensor | None, draw: Tensor) -> Tensor:
        """Log probabilities of draws before they are scaled and clipped, as in a decision's ``log_prob``, [N]."""
        return self.distribution.log_prob(self.network.policy(self.prepare(obs)), mask, draw)

    @torch.no_grad()
    def policy_and_value(self, obs: Any) -> tuple[Tensor, Tensor]:
        """Logits [N, A] of all actions and values [N], for N rows of observations on any device.

        Raises:
            AgentError: if the action space is not Discrete.
        """
        if not isinstance(self.distribution, Categorical):
            raise AgentError(f"policy_and_value: got {type(self.distribution).__name__}; wanted Discrete actions")
        logits, value = self.network(self.prepare(placed(obs, next(self.network.parameters()).device)))
        return logits, value

    @torch.no_grad()
    def values(self, obs: Any, lead: int, memory: Tensor | None = None) -> Tensor:
        """Values of observations with ``lead`` leading axes; the result has these axes as its shape.

        A network with memory needs what was remembered before each, with the same axes, and M numbers.
        """
        before = () if memory is None else (memory.flatten(0, lead - 1),)
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        flat = rows(obs, lead)
        count = int(np.prod(some.shape[:lead]))
        chunk = self.rows_a_pass(self.prepare(pick(flat, slice(0, 8))), max(count, 1))
        out = torch.empty(count, device=some.device)
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            out[part] = self.network.value(self.prepare(pick(flat, part)), *(memory[part] for memory in before))
        return out.view(some.shape[:lead])

    def rollout_values(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Values of each step's observation and of the observation that follows it, both [T, B, P]."""
        value = self.values(rollout.obs, 3, rollout.memory)
        last = self.values(rollout.last_obs, 2, rollout.last_memory)
        final = torch.zeros_like(value)
        # Only truncated episodes need the value of their final observation; computing all would double the work.
        cut = rollout.cut_steps()
        if len(cut[0]):
            remembered = None if rollout.final_memory is None else rollout.final_memory[cut]
            final[cut] = self.values(pick(rollout.final_obs, cut), 2, remembered)
        return value, next_values(value, last, final, rollout.terminated, rollout.truncated)

    @torch.no_grad()
    def rows_with_advantages(
        self,
        rollout: Rollout,
        reward: Tensor,
        *,
        discount: float,
        gae_lambda: float,
        bonus_advantage: Tensor | None = None,
    ) -> dict[str, Any]:
        """The N rows at which the learner acted, with GAE advantages and value targets.

        Args:
            rollout: without open decisions.
            reward: the rollout's rewards, possibly scaled, [T, B, P].
            discount: gamma, 0..1.
            gae_lambda: lambda, 0..1.
            bonus_advantage: of a bonus with a value of its own, [T, B, P], which the policy follows too; or None.

        Returns:
            "obs" [N, ...], not standardised, or a dict of such tensors; "sample" [N, ...]; "log_prob", "advantage",
            "target" (the reward's advantage plus value) and "value", all [N]; "mask" bool [N, A], if there are masks.
        """
        value, next_value = self.rollout_values(rollout)
        advantage = gae(
            reward, value, next_value, rollout.terminated, rollout.truncated,
            discount=discount, gae_lambda=gae_lambda, active=rollout.active,
        )  # fmt: skip
        flat = rollout.flatten()
        data = {"obs": flat.obs, "sample": flat.sample, "log_prob": flat.log_prob}
        data |= {"target": flat.of(advantage + value), "value": flat.of(value)}
        data["advantage"] = flat.of(advantage if bonus_advantage is None else advantage + bonus_advantage)
        return data if flat.mask is None else data | {"mask": flat.mask}

    def update_moments(self, rollout: Rollout) -> None:
        """Update the running mean and variance with the learner's observations; call this after learning from them."""
        if self.moments is not None:
            self.moments.update(rollout.flatten().obs)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of weights, optimiser and moments."""
        state = prefixed("network", self.network.state_dict()) | prefixed("optimizer", self.optimizer.state_dict())
        if self.value_optimizer is not None:
            state |= prefixed("value_optimizer", self.value_optimizer.state_dict())
        if self.moments is not None:
            state |= prefixed("moments", self.moments.state_dict())
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of this network.
        """
        load_weights({"network": self.network}, state)
        self.optimizer.load_state_dict(unprefixed("optimizer", state))
        if self.value_optimizer is not None:
            self.value_optimizer.load_state_dict(unprefixed("value_optimizer", state))
        if self.moments is not None:
            self.moments.load_state_dict(unprefixed("moments", state))


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - value) / Var(target), a tensor []; 1 is perfect, 0 no better than a constant."""
    return 1 - (target - value).var(correction=0) / (target.var(correction=0) + 1e-8)
