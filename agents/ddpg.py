"""Deep deterministic policy gradient (DDPG): an actor trained by its critic's gradient; D4PG and TD3 as settings.

Lillicrap et al., "Continuous control with deep reinforcement learning" (2016), algorithm 1, on transitions sampled from
a replay buffer, with target networks mu' and Q' that move a fraction tau of the way to mu and Q at each update:

    critic   minimise E[(r + gamma Q'(s', mu'(s')) - Q(s, a))^2]
    actor    maximise E[Q(s, mu(s))], by the gradient dQ/da dmu/dtheta (Silver et al. 2014, equation 9)

The settings below can be combined:

    n_step           rewards of n steps before the bootstrap, uncorrected (as in D4PG)
    head             "value", or "categorical": the critic predicts a distribution of the return on a fixed support
                     (Bellemare et al. 2017), as in D4PG (Barth-Maron et al. 2018)
    priority_exponent  sample transitions in proportion to |error| ** exponent (Schaul et al. 2016)
    twin, target_noise, policy_delay  TD3 (Fujimoto et al. 2018): bootstrap from the lower of two critics, at an
                     action smoothed by clipped noise; update the actor and all targets only every policy_delay updates

Actions are scaled so that the space's bounds are -1 and 1; the agent learns from the actions that were played, with
noise and clipping. Differences from the 2016 paper: Gaussian noise (no worse than an Ornstein-Uhlenbeck process:
Fujimoto et al., Barth-Maron et al.), the action enters the critic's first layer, and there is neither batch
normalisation nor weight decay.

Example:
    mlbits train ddpg Pendulum-v1
    mlbits train ddpg Pendulum-v1 --agent.twin --agent.target-noise 0.2 --agent.policy-delay 2
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbits.agents.agent import (
    AgentError,
    Decision,
    ReplaySpec,
    load_weights,
    network_generator,
    prefixed,
    unprefixed,
)
from mlbits.agents.exploration.explorer import explorer_of
from mlbits.agents.exploration.settings import BonusSettings, bonus_last
from mlbits.agents.kernels import shards
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.maths.action_distributions import DiagonalGaussian
from mlbits.agents.maths.return_distributions import categorical_loss, project
from mlbits.agents.maths.returns import ReturnRange
from mlbits.agents.memory.hindsight import HINDSIGHT_GOALS_HELP, HINDSIGHT_HELP, Hindsight, check_hindsight
from mlbits.agents.memory.replay import Replay, Transitions
from mlbits.agents.networks.augmentation import CRITIC_SHIFTS_HELP, SHIFT_HELP, TARGET_SHIFTS_HELP, Augmentation
from mlbits.agents.networks.deterministic import Actor, Critics
from mlbits.agents.networks.mlp import Activation, Precision
from mlbits.agents.networks.normaliser import Normaliser
from mlbits.agents.networks.own import ENCODER_HELP
from mlbits.agents.passes.precision import settled_precision
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at
from mlbits.envs.core.spaces import action_layout

_MEASURE_EVERY = 16  # updates: measuring every update would take a tenth of the time of a small network's updates
_AT_RANDOM = -1.0  # stands for infinite noise in saved states, where all numbers must be finite
_MEASURED = ("critic_loss", "q", "error", "critic_grad_norm", "actor_q", "actor_grad_norm")


@bonus_last
@configuration(AgentError)
class DDPGConfig(BonusSettings):
    """Settings of DDPG; defaults are those of common practice (Stable-Baselines3's) unless said otherwise."""

    num_steps: int = setting(1, "steps of each copy between two rounds of updates", low=1, high=1e6)
    replay_ratio: float = setting(
        1.0, "gradient steps per transition (one decision of one seat), over all copies", low=1e-9, high=1e3
    )
    buffer_size: int = setting(1_000_000, "transitions kept in the replay buffer", low=1, high=1e12)
    learning_starts: int = setting(
        1000, "transitions played uniformly at random before learning begins", low=0, high=1e12
    )
    batch_size: int = setting(256, "transitions per gradient step", low=1, high=1e6)
    actor_learning_rate: Scheduled = setting(1e-3, "learning rate of the actor's Adam", low=0, high=10, scheduled=True)
    critic_learning_rate: Scheduled = setting(
        1e-3, "learning rate of the critics' Adam", low=0, high=10, scheduled=True
    )
    anneal_lr: bool = setting(False, "decay both learning rates, if they are numbers, linearly to 0 over the run")
    adam_eps: float = setting(1e-8, "epsilon of Adam", low=0, high=1)
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    tau: float = setting(0.005, "step size of a target update: target += tau (network - target)", low=1e-9, high=1)
    noise: Scheduled = setting(
        0.1, "standard deviation of the Gaussian noise on actions", low=0, high=10, unit="half ranges of the action",
        scheduled=True,
    )  # fmt: skip
    anneal_noise: bool = setting(False, "decay the noise, if it is a number, linearly to 0 over the run")
    head: Literal["value", "categorical"] = setting(
        "value", "what the critic predicts: the mean return, or its distribution (categorical, D4PG)"
    )
    atoms: int = setting(51, "atoms of the categorical head", low=2, high=10_000)
    v_min: float = setting(-10.0, "lowest discounted return on the support of a categorical head")
    v_max: float = setting(10.0, "highest discounted return on the support of a categorical head")
    n_step: int = setting(1, "steps of reward before the bootstrap (D4PG: 5)", low=1, high=10_000)
    priority_exponent: float = setting(0.0, "alpha of prioritised replay; 0 replays uniformly", low=0, high=1)
    priority_weight: float = setting(
        0.4, "beta of its importance weights at the start; it rises linearly to 1 over the run", low=0, high=1
    )
    twin: bool = setting(False, "train two critics and bootstrap from the lower one (TD3)")
    target_noise: float = setting(
        0.0, "standard deviation of the noise on the bootstrap's action (TD3: 0.2)", low=0, high=10,
        unit="half ranges of the action",
    )  # fmt: skip
    target_noise_clip: float = setting(
        0.5, "largest size of that noise (TD3: 0.5)", low=0, high=2, unit="half ranges of the action"
    )
    policy_delay: int = setting(
        1, "critic updates per update of the actor and the target networks (TD3: 2)", low=1, high=1e6
    )
    max_grad_norm: float = setting(
        math.inf, "largest L2 norm of each network's gradient; larger ones are clipped", low=1e-9, high=math.inf
    )
    hindsight: Hindsight = setting("none", HINDSIGHT_HELP)
    hindsight_goals: float = setting(4.0, HINDSIGHT_GOALS_HELP, low=1e-6, high=1e6)
    shift: int = setting(0, SHIFT_HELP, low=0, high=1000)
    target_shifts: int = setting(1, TARGET_SHIFTS_HELP, low=1, high=1000)
    critic_shifts: int = setting(1, CRITIC_SHIFTS_HELP, low=1, high=1000)
    normalize_obs: bool = setting(False, "standardise vectors and images of observations by their running moments")
    normalize_reward: bool = setting(False, "divide rewards by the running standard deviation of discounted returns")
    hidden: tuple[int, ...] = setting((400, 300), "widths of the hidden layers of actor and critics", low=1)
    activation: Activation = setting("relu", "activation of the hidden layers")
    encoder: str = setting("", ENCODER_HELP)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "float32",
        "number format of the products between hidden layers; bfloat16 is twice as fast on GPUs and on CPUs with "
        "AVX512-BF16 or AMX, and ten times slower on other CPUs; auto takes bfloat16 where it is fast",
    )

    def check(self) -> None:
        """Reject an empty support, and hindsight over several steps."""
        check_hindsight(self.hindsight, self.n_step, self.bonus)
        if not self.v_min < self.v_max:
            raise AgentError(f"v_min, v_max: got {self.v_min:g} and {self.v_max:g}; wanted low < high")

    def settled(self, device: torch.device | str) -> tuple[DDPGConfig, str]:
        """This config with the precision "auto" resolved for a device, and a line that explains the choice, or "".

        Args:
            device: where the agent's networks will be.

        Returns:
            A config whose precision is "float32" or "bfloat16". An explicit precision is kept; if it is slow on the
            device, the line is a warning.
        """
        precision, why = settled_precision(self.precision, device)
        return replace(self, precision=precision), why


class DDPG:
    """A DDPG agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Box of one axis, with bounds.
        seed: of the initial weights.
        device: where the networks are kept.

    Attributes:
        noise: current standard deviation of the noise on actions; infinite while actions are drawn at random.
        updates: gradient steps of the critics so far.

    Raises:
        AgentError: if the action space has no bounds.
    """

    in_shards = True  # it sums over shards what decides

    def __init__(
        self,
        config: DDPGConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        config = config.settled(device)[0]
        self.precision: Precision = "bfloat16" if config.precision == "bfloat16" else "float32"
        self.config, self.device = config, torch.device(device)
        layout = action_layout(action_space)
        if not (np.isfinite(layout.low).all() and np.isfinite(layout.high).all()):
            raise AgentError(
                f"DDPG: got the action space {action_space}; wanted one with bounds, to which actions are scaled. "
                "Agents for actions without bounds: ppo, reinforce, trpo"
            )
        box = DiagonalGaussian(layout.low, layout.high)
        self._box = box
        self._scale, self._center = box.scale.to(device), box.center.to(device)
        self._low, self._high = box.low.to(device), box.high.to(device)
        generator, size = network_generator(seed), len(layout.low)
        how: dict[str, Any] = {"activation": config.activation, "encoder": config.encoder}
        self.actor = Actor(observation_space, size, config.hidden, generator, **how).to(device)
        self.critics = Critics(
            observation_space, size, config.hidden, generator, count=2 if config.twin else 1,
            atoms=1 if config.head == "value" else config.atoms, **how,
        ).to(device)  # fmt: skip
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.actor_optimizer = FlatAdam(
            self.actor.parameters(), value_at(config.actor_learning_rate, 0.0), config.max_grad_norm, config.adam_eps,
            target=self.target_actor.parameters(),
        )  # fmt: skip
        self.critic_optimizer = FlatAdam(
            self.critics.parameters(), value_at(config.critic_learning_rate, 0.0), config.max_grad_norm,
            config.adam_eps,
            target=self.target_critics.parameters(),
        )  # fmt: skip
        self.support = torch.linspace(config.v_min, config.v_max, config.atoms, device=device)
        self.returns_seen = ReturnRange(config.discount)
        self.normaliser = Normaliser(config, observation_space, device)
        self.explorer = explorer_of(config, observation_space, action_space, seed=seed, device=device)
        self.augmentation = Augmentation(config, observation_space)
        self.noise, self.updates = math.inf if config.learning_starts else value_at(config.noise, 0.0), 0
        self._measured: dict[str, Tensor] = {}

    @property
    def experience(self) -> ReplaySpec:
        """A replay buffer, and a few new steps at a time."""
        config = self.config
        return ReplaySpec(
            config.num_steps, config.buffer_size, config.priority_exponent, config.hindsight, config.hindsight_goals
        )

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows of observations: the actor's action with noise, or ``greedy`` without."""
        if self.noise == math.inf and not greedy:
            some = next(iter(obs.values())) if isinstance(obs, dict) else obs
            shape = (len(some), len(self._low))
            action = torch.empty(shape, device=some.device).uniform_(-1, 1, generator=generator)
        else:
            action = self.actor.forward(self.normaliser.obs(obs))
            if self.noise > 0 and not greedy:
                noise = torch.empty_like(action).normal_(0, self.noise, generator=generator)
                action = action.add_(noise).clamp_(-1, 1)
        played = torch.addcmul(self._center, action, self._scale).clamp_(self._low, self._high)
        return Decision(played, action, None)

    @torch.no_grad()
    def action_log_prob(self, obs: Any, legal_mask: Tensor | None, action: Tensor) -> Tensor:
        """Log density of actions played with noise, in the action's units, [N]; at a bound, the log probability of it.

        Raises:
            AgentError: without noise, or during warm-up: then actions have no such density.
        """
        if not 0 < self.noise < math.inf:
            raise AgentError(f"action_log_prob: got noise {self.noise}; wanted a finite noise above 0")
        mean = self.actor.forward(self.normaliser.obs(obs))
        params = torch.cat([mean, torch.full_like(mean, math.log(self.noise))], -1)
        return self._box.played_log_prob(params, legal_mask, action)

    def learn(self, experience: Replay, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Make the updates that are due after the steps played since the last call.

        Args:
            experience: the replay buffer, with the latest steps in it.
            progress: fraction of the run that is over, 0..1.
            generator: for sampling from the replay buffer, and for target noise.

        Returns:
            Metrics of the last measured update (one in 16 is measured), noise, learning rates and updates so far; empty
            during warm-up.
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
        self.noise = value_at(config.noise, progress, anneal=config.anneal_noise)
        rates = [
            value_at(rate, progress, anneal=config.anneal_lr)
            for rate in (config.actor_learning_rate, config.critic_learning_rate)
        ]
        self.actor_optimizer.learning_rate, self.critic_optimizer.learning_rate = rates
        beta = config.priority_weight + progress * (1 - config.priority_weight)
        due = int((added - config.learning_starts) * config.replay_ratio)
        while self.updates < due:
            drawn = experience.sample(
                config.batch_size // shards.number(),
                generator,
                n_step=config.n_step,
                discount=config.discount,
                weight_exponent=beta,
                bonus=bonus,
            )
            self._update(self.normaliser.drawn(drawn), experience, generator)
        numbers = {
            "noise": self.noise, "actor_learning_rate": rates[0], "critic_learning_rate": rates[1],
            "updates": self.updates,
        }  # fmt: skip
        bonuses = {} if self.explorer is None else self.explorer.metrics
        return {**self._measured, **numbers, **bonuses} if self.updates else {}

    def _update(self, drawn: Transitions, replay: Replay, generator: torch.Generator) -> None:
        """One gradient step of the critics and, if due, one of the actor and an update of all target networks."""
        drawn, following = self.augmentation.both(drawn, generator)
        target = self.augmentation.target(self._target(following, generator))
        outs = self.critics.forward(drawn.obs, drawn.action, self.precision)
        loss = self._loss(outs[0], target, drawn.weight)
        for out in outs[1:]:
            loss = loss + self._loss(out, target, drawn.weight)
        self.critic_optimizer.zero_grad()
        loss.backward()
        measuring = self.updates % _MEASURE_EVERY == 0
        self.updates += 1
        due = self.updates % self.config.policy_delay == 0
        grad_norm = self.critic_optimizer.step(measured=measuring)
        if measuring or drawn.weight is not None:
            outs = [out.detach() for out in outs]
            error = self.augmentation.mean(torch.stack([self._error(out, target) for out in outs]).mean(0))
            if drawn.weight is not None:
                replay.set_priority(self.augmentation.first(drawn).slot, error)
            if measuring:
                q = self._mean(outs[0]).mean()
                self._measured |= {
                    "critic_loss": loss.detach(), "q": q, "error": error.mean(), "critic_grad_norm": grad_norm,
                }  # fmt: skip
        if due:
            self._update_actor(self.augmentation.first(drawn).obs)
            for optimizer in (self.critic_optimizer, self.actor_optimizer):
                optimizer.follow(self.config.tau)

    def _update_actor(self, obs: Any) -> None:
        """One step of gradient ascent of the actor on the first critic's Q."""
        with self.critic_optimizer.frozen():
            action = self.actor.forward(obs, self.precision)
            q = self._mean(self.critics.first(obs, action, self.precision)).mean()
            self.actor_optimizer.zero_grad()
            (-q).backward()
        measuring = self.updates // self.config.policy_delay % _MEASURE_EVERY == 1
        grad_norm = self.actor_optimizer.step(measured=measuring)
        if measuring:
            self._measured |= {"actor_q": q.detach(), "actor_grad_norm": grad_norm}

    @torch.no_grad()
    def _target(self, drawn: Transitions, generator: torch.Generator) -> Tensor:
        """Targets for the critics' outputs: [N, 1], or probabilities [N, atoms]."""
        config = self.config
        action = self.target_actor.forward(drawn.next_obs, self.precision)
        if config.target_noise > 0:
            noise = torch.empty(action.shape, device=generator.device)
            noise = noise.normal_(0, config.target_noise, generator=generator)
            noise = noise.clamp_(-config.target_noise_clip, config.target_noise_clip).to(self.device)
            action = action.add_(noise).clamp_(-1, 1)
        outs = self.target_critics.forward(drawn.next_obs, action, self.precision)
        reward, discount = drawn.reward.unsqueeze(-1), drawn.discount.unsqueeze(-1)
        if config.head == "value":
            following = torch.minimum(*outs) if config.twin else outs[0]
            return torch.addcmul(reward, discount, following)
        following = outs[0]
        if config.twin:  # the distribution with the lower mean
            lower = self._mean(outs[0]) <= self._mean(outs[1])
            following = torch.where(lower, outs[0], outs[1])
        return project(reward + discount * self.support, torch.softmax(following, -1), self.support)

    def _loss(self, out: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """The mean loss of one critic, a tensor []."""
        if self.config.head == "value" and weight is None:
            return F.mse_loss(out, target)
        losses = (out - target).square().squeeze(-1) if self.config.head == "value" else categorical_loss(out, target)
        return (losses if weight is None else weight * losses).mean()

    def _error(self, out: Tensor, target: Tensor) -> Tensor:
        """Each transition's error, for its priority, [N]: |target - Q|, or KL(target, critic)."""
        if self.config.head == "value":
            return (target - out).abs().squeeze(-1)
        return categorical_loss(out, target) + torch.xlogy(target, target).sum(-1)

    def _mean(self, out: Tensor) -> Tensor:
        """Q from a critic's output, [N, 1]."""
        return out if self.config.head == "value" else torch.softmax(out, -1) @ self.support.unsqueeze(-1)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of weights, target weights, optimisers, exploration, moments, bonus and the range of returns seen."""
        state: dict[str, Tensor] = {}
        for name, network in self._networks().items():
            state |= prefixed(name, network.state_dict())
        state |= prefixed("actor_optimizer", self.actor_optimizer.state_dict())
        state |= prefixed("critic_optimizer", self.critic_optimizer.state_dict())
        state |= prefixed("returns_seen", self.returns_seen.state_dict()) | self.normaliser.state_dict()
        state |= {} if self.explorer is None else self.explorer.state_dict()
        noise = _AT_RANDOM if self.noise == math.inf else self.noise
        state["progress"] = torch.tensor([noise, self.updates], dtype=torch.float64)
        state["measured"] = torch.tensor([float(self._measured.get(name, 0.0)) for name in _MEASURED])
        state["is_measured"] = torch.tensor([name in self._measured for name in _MEASURED])
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of these networks.
        """
        load_weights(self._networks(), state)
        for name, optimizer in (("actor", self.actor_optimizer), ("critic", self.critic_optimizer)):
            optimizer.load_state_dict(unprefixed(f"{name}_optimizer", state))
        self.returns_seen.load_state_dict(unprefixed("returns_seen", state))
        self.normaliser.load_state_dict(state)
        if self.explorer is not None:
            self.explorer.load_state_dict(state)
        noise, updates = state["progress"].tolist()
        self.noise, self.updates = math.inf if noise == _AT_RANDOM else noise, int(updates)
        measured = state["measured"]
        known = state.get("is_measured", ~measured.isnan())
        self._measured = {name: measured[k] for k, name in enumerate(_MEASURED) if known[k]}

    def _networks(self) -> dict[str, nn.Module]:
        return {
            "actor": self.actor,
            "critics": self.critics,
            "target_actor": self.target_actor,
            "target_critics": self.target_critics,
        }
