"""Deep Q-learning (DQN), with settings for double, dueling, n-step, prioritised and distributional variants.

Mnih et al., "Human-level control through deep reinforcement learning" (2015), algorithm 1: on transitions sampled from
a replay buffer, with a target network Q' that is updated towards Q, minimise

    E[huber(r + gamma max_b Q'(s', b) - Q(s, a))].

The settings below can be combined (all of them together: Hessel et al., "Rainbow" (2018), without its noisy networks):

    double           choose the maximising action by Q and evaluate it by Q' (van Hasselt, Guez and Silver 2016,
                     equation 4): a maximum over noisy values is too high on average, and this is not
    n_step           rewards of n steps before the bootstrap (Sutton 1988); uncorrected, as in Rainbow
    priority_exponent  sample transitions in proportion to |error| ** exponent (Schaul et al. 2016)
    dueling          Q = V + A - mean A (Wang et al. 2016, equation 9)
    head             what is predicted: "value", the mean return; "categorical", its distribution on a fixed support
                     (Bellemare et al. 2017, C51); or "quantile", its quantiles (Dabney et al. 2018, QR-DQN)

Actions are epsilon-greedy, with epsilon decreasing linearly, or by another schedule. Masked actions are neither
explored, chosen nor used in the bootstrap. How often it learns is set as a ratio of updates to environment steps, so
that it does not depend on the number of copies.

Example:
    mlbits train dqn CartPole-v1
    mlbits train dqn mlbits/CartPole-v0 --agent.head quantile --agent.double --agent.n-step 3
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from mlbits.agents import kernels
from mlbits.agents.agent import (
    AgentError,
    Decision,
    ReplaySpec,
    load_weights,
    network_generator,
    placed,
    prefixed,
    unprefixed,
)
from mlbits.agents.exploration.explorer import explorer_of
from mlbits.agents.exploration.settings import BonusSettings, bonus_last
from mlbits.agents.kernels import compiled_q_learning, shards
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.maths.action_distributions import epsilon_greedy
from mlbits.agents.maths.exploration import exploration
from mlbits.agents.maths.return_distributions import categorical_loss, project, quantile_huber_loss
from mlbits.agents.maths.returns import ReturnRange
from mlbits.agents.memory.hindsight import HINDSIGHT_GOALS_HELP, HINDSIGHT_HELP, Hindsight, check_hindsight
from mlbits.agents.memory.replay import Replay, Transitions
from mlbits.agents.networks.augmentation import CRITIC_SHIFTS_HELP, SHIFT_HELP, TARGET_SHIFTS_HELP, Augmentation
from mlbits.agents.networks.mlp import Activation
from mlbits.agents.networks.normaliser import Normaliser
from mlbits.agents.networks.own import ENCODER_HELP
from mlbits.agents.networks.q_network import QNetwork
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at
from mlbits.envs.core.spaces import action_layout

_SEARCH_LOGIT = 4.0  # a logit for a search per unit of Q
_ROWS_AT_ONCE = 8192  # transitions sampled together for several compiled updates


@bonus_last
@configuration(AgentError)
class DQNConfig(BonusSettings):
    """Settings of DQN; defaults are those of common practice for small problems unless said otherwise."""

    num_steps: int = setting(4, "steps of each copy between two rounds of updates", low=1, high=1e6)
    replay_ratio: float = setting(
        0.25, "gradient steps per transition (one decision of one seat), over all copies", low=1e-9, high=1e3
    )
    buffer_size: int = setting(100_000, "transitions kept in the replay buffer", low=1, high=1e12)
    learning_starts: int = setting(1000, "transitions played at random before learning begins", low=0, high=1e12)
    batch_size: int = setting(64, "transitions per gradient step", low=1, high=1e6)
    learning_rate: Scheduled = setting(5e-4, "learning rate of Adam", low=0, high=10, scheduled=True)
    anneal_lr: bool = setting(False, "decay the learning rate, if it is a number, linearly to 0 over the run")
    adam_eps: float = setting(1e-8, "epsilon of Adam", low=0, high=1)
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    target_every: int = setting(250, "gradient steps between two updates of the target network", low=1, high=1e12)
    tau: float = setting(1.0, "step size of a target update: target += tau (network - target)", low=1e-9, high=1)
    epsilon: Scheduled = setting(
        "auto", "fraction of random actions", low=0, high=1, scheduled=True,
        auto="linear, from epsilon_start to epsilon_end over epsilon_fraction of the run",
    )  # fmt: skip
    epsilon_start: float = setting(1.0, "fraction of random actions at the start", low=0, high=1)
    epsilon_end: float = setting(0.05, "fraction of random actions at the end", low=0, high=1)
    epsilon_fraction: float = setting(0.2, "fraction of the run over which epsilon falls linearly", low=0, high=1)
    head: Literal["value", "categorical", "quantile"] = setting(
        "value", "what is predicted: the mean return, or its distribution by C51 (categorical) or QR-DQN (quantile)"
    )
    atoms: int = setting(51, "atoms or quantiles of a distributional head", low=2, high=10_000)
    v_min: float = setting(-10.0, "lowest discounted return on the support of a categorical head")
    v_max: float = setting(10.0, "highest discounted return on the support of a categorical head")
    double: bool = setting(False, "choose the bootstrap's action by the network instead of the target network")
    dueling: bool = setting(False, "use separate heads for value and advantage")
    n_step: int = setting(1, "steps of reward before the bootstrap", low=1, high=10_000)
    priority_exponent: float = setting(
        0.0, "alpha of prioritised replay (0.6 in the paper); 0 replays uniformly", low=0, high=1
    )
    priority_weight: float = setting(
        0.4, "beta of its importance weights at the start; it rises linearly to 1 over the run", low=0, high=1
    )
    max_grad_norm: float = setting(
        10.0, "largest L2 norm of the gradient; larger ones are clipped", low=1e-9, high=math.inf
    )
    hindsight: Hindsight = setting("none", HINDSIGHT_HELP)
    hindsight_goals: float = setting(4.0, HINDSIGHT_GOALS_HELP, low=1e-6, high=1e6)
    shift: int = setting(0, SHIFT_HELP, low=0, high=1000)
    target_shifts: int = setting(1, TARGET_SHIFTS_HELP, low=1, high=1000)
    critic_shifts: int = setting(1, CRITIC_SHIFTS_HELP, low=1, high=1000)
    normalize_obs: bool = setting(False, "standardise vectors and images of observations by their running moments")
    normalize_reward: bool = setting(False, "divide rewards by the running standard deviation of discounted returns")
    hidden: tuple[int, ...] = setting((64, 64), "widths of the hidden layers", low=1)
    activation: Activation = setting("relu", "activation of the hidden layers")
    encoder: str = setting("", ENCODER_HELP)
    model: str = setting("", "a whole network of your own as module:factory, observations to Q [N, actions]")

    def check(self) -> None:
        """Reject an empty support, and hindsight over several steps."""
        check_hindsight(self.hindsight, self.n_step, self.bonus)
        if not self.v_min < self.v_max:
            raise AgentError(f"v_min, v_max: got {self.v_min:g} and {self.v_max:g}; wanted low < high")
        given = {"dueling": self.dueling, "encoder": self.encoder}
        if self.model and (other := [name for name, value in given.items() if value]):
            raise AgentError(f"model: got {self.model!r}, a whole network, with {other[0]}; wanted one of them")


class DQN:
    """A DQN agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete.
        seed: of the initial weights.
        device: where the networks are kept.

    Attributes:
        epsilon: current fraction of random actions.
        updates: gradient steps so far.
    """

    in_shards = True  # it sums over shards what decides

    def __init__(
        self,
        config: DQNConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.num_actions = action_layout(action_space).nvec[0]
        atoms = 1 if config.head == "value" else config.atoms
        self.network = QNetwork(
            observation_space, self.num_actions, config.hidden, network_generator(seed),
            atoms=atoms, dueling=config.dueling, activation=config.activation, encoder=config.encoder,
            model=config.model,
        ).to(device)  # fmt: skip
        self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = FlatAdam(
            self.network.parameters(), value_at(config.learning_rate, 0.0), config.max_grad_norm, eps=config.adam_eps,
            target=self.target.parameters(),
        )  # fmt: skip
        self.support = torch.linspace(config.v_min, config.v_max, config.atoms, device=device)
        self.returns_seen = ReturnRange(config.discount)
        self.normaliser = Normaliser(config, observation_space, device)
        self.explorer = explorer_of(config, observation_space, action_space, seed=seed, device=device)
        self.augmentation = Augmentation(config, observation_space)
        box = isinstance(observation_space, spaces.Box) and observation_space.dtype == np.float32
        vector = box and len(observation_space.shape or ()) == 1
        plain = kernels.enabled() and self.device.type == "cpu" and vector and self.network.is_plain
        self._compiled = compiled_q_learning.layout(self.network.mlp.layers, self.optimizer.flat) if plain else None
        # Every update changes the priorities, and thereby which transitions are sampled next.
        several = plain and config.priority_exponent == 0
        self._updates_at_once = max(1, _ROWS_AT_ONCE // config.batch_size) if several else 1
        self.epsilon, self.updates = 1.0 if config.learning_starts else exploration(config, 0.0), 0

    @property
    def experience(self) -> ReplaySpec:
        """A replay buffer, and a few new steps at a time."""
        config = self.config
        return ReplaySpec(
            config.num_steps, config.buffer_size, config.priority_exponent, config.hindsight, config.hindsight_goals
        )

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows of observations: the best action, or with probability epsilon a random legal one."""
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        count, epsilon = some.shape[0], 0.0 if greedy else self.epsilon
        if epsilon >= 1.0:
            action = self._random(count, legal_mask, generator)
            return Decision(action, action, None)
        action = self._best(obs, legal_mask)
        if epsilon > 0.0:
            draw = torch.rand(count, generator=generator, device=some.device)
            if not some.is_cpu or draw.numpy().min() < epsilon:  # on a GPU this check would cost more than drawing
                action = torch.where(draw < epsilon, self._random(count, legal_mask, generator), action)
        return Decision(action, action, None)

    @torch.no_grad()
    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """Probability of playing each action, including exploration unless ``greedy``, float64 [N, A]."""
        epsilon = 0.0 if greedy else self.epsilon
        return epsilon_greedy(self._best(obs, legal_mask), epsilon, legal_mask, self.num_actions)

    def _best(self, obs: Any, legal_mask: Tensor | None) -> Tensor:
        """The legal actions with the highest Q, [N]."""
        obs = self.normaliser.obs(obs)
        few = None if self._compiled is None else compiled_q_learning.q_values(self._compiled, self.optimizer.flat, obs)
        if few is None:
            return _masked(self._q(obs), legal_mask).argmax(-1)
        if legal_mask is not None:
            few = np.where(legal_mask.numpy(), few, -np.inf)
        return torch.from_numpy(few.argmax(-1))

    def values(self, obs: Any) -> Tensor:
        """Q of each action, in the rewards' own unit, [N, A]."""
        q = self._q(self.normaliser.obs(obs))
        return q * self.normaliser.unit if self.config.normalize_reward else q

    def _q(self, obs: Any) -> Tensor:
        """Q of each action for normalised observations, in units of ``normaliser.unit``, [N, A]."""
        return self._mean(self.network.forward(obs))

    @torch.no_grad()
    def state_values(self, obs: Any, legal_mask: Tensor | None = None) -> Tensor:
        """Values of states: the highest Q of their legal actions, [N]."""
        return _masked(self.values(obs), legal_mask).amax(-1)

    @torch.no_grad()
    def policy_and_value(self, obs: Any, legal_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """For a search: logits [N, A] and values [N], the highest Q of the legal actions.

        Q-learning has no policy but its best action. As logits serve ``4 Q``: of two actions whose returns differ by
        0.5, the better one is e^2 = 7.4 times as likely.
        """
        q = self.values(placed(obs, self.device))
        return _SEARCH_LOGIT * q, _masked(q, None if legal_mask is None else legal_mask.to(self.device)).amax(-1)

    def learn(self, experience: Replay, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Make the updates that are due after the steps played since the last call.

        Args:
            experience: the replay buffer, with the latest steps in it.
            progress: fraction of the run that is over, 0..1.
            generator: for sampling from the replay buffer.

        Returns:
            Loss, mean Q, mean absolute error and gradient norm of the last update, epsilon, learning rate, updates so
            far; empty during warm-up.
        """
        config, latest = self.config, experience.latest
        if latest is not None:
            self.normaliser.update(latest)
            if config.head == "categorical":
                unit = self.normaliser.unit
                self.returns_seen.check(latest, config.v_min * unit, config.v_max * unit)
        bonus = None
        if self.explorer is not None:
            self.explorer.arrived(experience, progress, generator)
            bonus = self.explorer.of_sampled
        added = shards.total_count(experience.added)
        if added < config.learning_starts or shards.least(experience.added) == 0:
            return {}
        self.epsilon = exploration(config, progress)
        self.optimizer.learning_rate = value_at(config.learning_rate, progress, anneal=config.anneal_lr)
        beta = config.priority_weight + progress * (1 - config.priority_weight)
        due = int((added - config.learning_starts) * config.replay_ratio)
        metrics: dict[str, Any] = {}
        compiled = self._compiled is not None and shards.number() == 1
        at_once = self._updates_at_once if compiled else 1
        while self.updates < due:
            drawn = experience.sample(
                config.batch_size // shards.number(), generator, n_step=config.n_step, discount=config.discount,
                weight_exponent=beta, minibatches=min(due - self.updates, at_once), bonus=bonus,
            )  # fmt: skip
            drawn = self.normaliser.drawn(drawn)
            if compiled and drawn.weight is None:
                metrics = self._compiled_updates(drawn)
            else:
                metrics = self._update(drawn, experience, generator)
        if metrics:
            rate = self.optimizer.learning_rate
            metrics |= {"epsilon": self.epsilon, "learning_rate": rate, "updates": self.updates}
            metrics |= {} if self.explorer is None else self.explorer.metrics
        return metrics

    def _update(self, drawn: Transitions, replay: Replay, generator: torch.Generator) -> dict[str, Any]:
        """One gradient step on a minibatch; its metrics."""
        config, (drawn, following) = self.config, self.augmentation.both(drawn, generator)
        target = self.augmentation.target(self._target(following))
        chosen = _of_action(self.network.forward(drawn.obs), drawn.action)  # [N] or [N, K]
        losses = self._loss(chosen, target)
        loss = (losses if drawn.weight is None else drawn.weight * losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        grad_norm = self.optimizer.step()
        self.updates += 1
        if self.updates % config.target_every == 0:
            self.optimizer.follow(config.tau)
        chosen = chosen.detach()
        error = self._error(chosen, target)
        if drawn.weight is not None:
            replay.set_priority(self.augmentation.first(drawn).slot, self.augmentation.mean(error))
        q = self._mean(chosen).mean()
        return {"loss": loss.detach(), "q": q, "error": error.abs().mean(), "grad_norm": grad_norm}

    def _compiled_updates(self, drawn: Transitions) -> dict[str, Any]:
        """:meth:`_update` for each of several minibatches, for plain Q on the CPU; returns the last one's metrics."""
        assert self._compiled is not None
        config, optimizer = self.config, self.optimizer
        metrics: dict[str, Any] = compiled_q_learning.q_learning(
            self._compiled, optimizer.vectors, drawn.obs, drawn.action, drawn.reward, drawn.discount, drawn.next_obs,
            drawn.next_mask, batch_size=config.batch_size, double=config.double, updates=self.updates,
            target_every=config.target_every, tau=config.tau, learning_rate=optimizer.learning_rate,
            betas=optimizer.betas, eps=optimizer.eps, max_grad_norm=config.max_grad_norm,
        )  # fmt: skip
        self.updates += len(drawn.reward) // config.batch_size
        return metrics

    @torch.no_grad()
    def _target(self, drawn: Transitions) -> Tensor:
        """Targets for the output of the action that was played: [N], or probabilities or quantiles [N, K]."""
        out = self.target.forward(drawn.next_obs)
        by = self._q(drawn.next_obs) if self.config.double else self._mean(out)
        following = _of_action(out, _masked(by, drawn.next_mask).argmax(-1))
        if self.config.head == "value":
            return drawn.reward + drawn.discount * following
        reward, discount = drawn.reward.unsqueeze(-1), drawn.discount.unsqueeze(-1)
        if self.config.head == "quantile":
            return reward + discount * following
        return project(reward + discount * self.support, torch.softmax(following, -1), self.support)

    def _loss(self, chosen: Tensor, target: Tensor) -> Tensor:
        """Each transition's loss, [N]."""
        if self.config.head == "value":
            return F.smooth_l1_loss(chosen, target, reduction="none")
        return (quantile_huber_loss if self.config.head == "quantile" else categorical_loss)(chosen, target)

    def _error(self, chosen: Tensor, target: Tensor) -> Tensor:
        """Each transition's error, for its priority, [N]; with a categorical head KL(target, chosen)."""
        if self.config.head == "categorical":
            return categorical_loss(chosen, target) + torch.xlogy(target, target).sum(-1)
        return target - chosen if self.config.head == "value" else (target - chosen).mean(-1)

    def _mean(self, out: Tensor) -> Tensor:
        """Q from the network's output: [..., K] becomes [...]."""
        if self.config.head == "value":
            return out
        return out.mean(-1) if self.config.head == "quantile" else torch.softmax(out, -1) @ self.support

    def _random(self, count: int, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        if mask is None:
            return torch.randint(self.num_actions, (count,), generator=generator, device=self.device)
        # Not multiplied by the mask: a random number may be 0, and would then tie with masked actions.
        return _masked(torch.rand(mask.shape, generator=generator, device=self.device), mask).argmax(-1)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of weights, target weights, optimiser, exploration, moments, bonus and the range of returns seen."""
        state = prefixed("network", self.network.state_dict()) | prefixed("optimizer", self.optimizer.state_dict())
        state |= prefixed("target", self.target.state_dict())
        state |= prefixed("returns_seen", self.returns_seen.state_dict()) | self.normaliser.state_dict()
        state |= {} if self.explorer is None else self.explorer.state_dict()
        state["progress"] = torch.tensor([self.epsilon, self.updates], dtype=torch.float64)
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of this network.
        """
        load_weights({"network": self.network, "target": self.target}, state)
        self.optimizer.load_state_dict(unprefixed("optimizer", state))
        self.returns_seen.load_state_dict(unprefixed("returns_seen", state))
        self.normaliser.load_state_dict(state)
        if self.explorer is not None:
            self.explorer.load_state_dict(state)
        epsilon, updates = state["progress"].tolist()
        self.epsilon, self.updates = epsilon, int(updates)


def _of_action(out: Tensor, action: Tensor) -> Tensor:
    """The entries of [N, A, ...] at each row's action, [N, ...]."""
    index = action.view(-1, *[1] * (out.dim() - 1)).expand(-1, 1, *out.shape[2:])
    return out.gather(1, index).squeeze(1)


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values.masked_fill(~mask, -math.inf)
