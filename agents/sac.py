"""Soft actor-critic (SAC): twin critics, and a stochastic actor that is rewarded for its entropy.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications" (2018, arXiv 1812.05905), algorithm 1, on transitions
sampled from a replay buffer, with target critics Q' that move a fraction tau of the way to Q at each update:

    critics      minimise E[(r + gamma (min Q'(s', a') - alpha log pi(a'|s')) - Q(s, a))^2],  a' ~ pi(.|s')
    actor        maximise E[min Q(s, a) - alpha log pi(a|s)],  a ~ pi(.|s), through the draw
    temperature  log alpha moves along E[log pi(a|s) + H]: up where the entropy is below its target H

An update takes alpha from before its step. The temperature moves in log alpha in place of alpha, as in all common
implementations. Policies:

    Box          normals under tanh. Actions are scaled so that the space's bounds are -1 and 1; densities and H are in
                 these units, so that H = -(number of dimensions) does not depend on the action's own
    Discrete     expectations over pi in closed form (Christodoulou 2019, arXiv 1910.07207), with critics that have an
                 output for each action. Illegal actions have probability 0; H is a fraction of log(legal actions). The
                 0.98 of that paper lets alpha run away, as a policy so close to uniform cannot follow its critics

As a terminated state has no value, it has no entropy either. ``n_step`` adds up rewards of n steps, without the entropy
of those between and uncorrected, as in DDPG.

Example:
    mlbits train sac Pendulum-v1
    mlbits train sac CartPole-v1 --agent.learning-starts 1000 --agent.target-entropy linear:0.4:0.05
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
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.maths.action_distributions import Categorical, DiagonalGaussian, masked_log_softmax
from mlbits.agents.maths.squashed_gaussian import SquashedGaussian
from mlbits.agents.memory.hindsight import HINDSIGHT_GOALS_HELP, HINDSIGHT_HELP, Hindsight, check_hindsight
from mlbits.agents.memory.replay import Replay, Transitions
from mlbits.agents.networks.augmentation import CRITIC_SHIFTS_HELP, SHIFT_HELP, TARGET_SHIFTS_HELP, Augmentation
from mlbits.agents.networks.deterministic import Critics
from mlbits.agents.networks.mlp import Activation, Precision
from mlbits.agents.networks.normaliser import Normaliser
from mlbits.agents.networks.own import ENCODER_HELP
from mlbits.agents.networks.stochastic import StochasticActor
from mlbits.agents.passes.precision import settled_precision
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at
from mlbits.envs.core.spaces import action_layout

_MEASURE_EVERY = 16  # updates: measuring every update would take a tenth of the time of a small network's updates
_MEASURED = (
    "critic_loss", "q", "error", "critic_grad_norm", "actor_q", "entropy", "actor_grad_norm", "temperature",
)  # fmt: skip


@bonus_last
@configuration(AgentError)
class SACConfig(BonusSettings):
    """Settings of SAC; defaults are those of common practice (Stable-Baselines3's) unless said otherwise."""

    num_steps: int = setting(1, "steps of each copy between two rounds of updates", low=1, high=1e6)
    replay_ratio: float = setting(
        1.0, "gradient steps per transition (one decision of one seat), over all copies", low=1e-9, high=1e3
    )
    buffer_size: int = setting(1_000_000, "transitions kept in the replay buffer", low=1, high=1e12)
    learning_starts: int = setting(
        100, "transitions played uniformly at random before learning begins", low=0, high=1e12
    )
    batch_size: int = setting(256, "transitions per gradient step", low=1, high=1e6)
    actor_learning_rate: Scheduled = setting(3e-4, "learning rate of the actor's Adam", low=0, high=10, scheduled=True)
    critic_learning_rate: Scheduled = setting(
        3e-4, "learning rate of the critics' Adam", low=0, high=10, scheduled=True
    )
    temperature_learning_rate: Scheduled = setting(
        3e-4, "learning rate of the temperature's Adam", low=0, high=10, scheduled=True
    )
    anneal_lr: bool = setting(False, "decay all learning rates, if they are numbers, linearly to 0 over the run")
    adam_eps: float = setting(1e-8, "epsilon of Adam", low=0, high=1)
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    tau: float = setting(0.005, "step size of a target update: target += tau (network - target)", low=1e-9, high=1)
    temperature: Scheduled = setting(
        "auto", "weight of the entropy beside the rewards, alpha", low=0, high=1e6, scheduled=True,
        auto="learned, so that the entropy is target_entropy",
    )  # fmt: skip
    temperature_start: float = setting(1.0, "where a learned temperature starts", low=1e-9, high=1e6)
    target_entropy: Scheduled = setting(
        "auto", "entropy to which a learned temperature steers; of a Box in half ranges of the action", unit="nats",
        scheduled=True, auto="minus the number of dimensions; of Discrete actions entropy_fraction of the largest",
    )  # fmt: skip
    entropy_fraction: float = setting(
        0.6, "target_entropy auto of Discrete actions, as a fraction of log(number of legal actions)", low=0, high=1
    )
    n_step: int = setting(1, "steps of reward before the bootstrap", low=1, high=10_000)
    policy_delay: int = setting(
        1, "critic updates per update of actor and temperature (the targets move every time)", low=1, high=1e6
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
    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers of actor and critics", low=1)
    activation: Activation = setting("relu", "activation of the hidden layers")
    encoder: str = setting("", ENCODER_HELP)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "float32",
        "number format of the products between hidden layers; bfloat16 is twice as fast on GPUs and on CPUs with "
        "AVX512-BF16 or AMX, and ten times slower on other CPUs; auto takes bfloat16 where it is fast",
    )

    def check(self) -> None:
        """Reject hindsight over several steps."""
        check_hindsight(self.hindsight, self.n_step, self.bonus)

    def settled(self, device: torch.device | str) -> tuple[SACConfig, str]:
        """This config with the precision "auto" resolved for a device, and a line that explains the choice, or "".

        Args:
            device: where the agent's networks will be.

        Returns:
            A config whose precision is "float32" or "bfloat16". An explicit precision is kept; if it is slow on the
            device, the line is a warning.
        """
        precision, why = settled_precision(self.precision, device)
        return replace(self, precision=precision), why


class SAC:
    """A SAC agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete, or Box of one axis, with bounds.
        seed: of the initial weights.
        device: where the networks are kept.

    Attributes:
        at_random: whether actions are still drawn uniformly.
        updates: gradient steps of the critics so far.

    Raises:
        AgentError: if the action space has no bounds.
    """

    def __init__(
        self,
        config: SACConfig,
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
        self.head: SquashedGaussian | Categorical
        if layout.kind == "discrete":
            self.head, size, outputs = Categorical(layout.nvec[0]), 0, layout.nvec[0]
        else:
            if not (np.isfinite(layout.low).all() and np.isfinite(layout.high).all()):
                raise AgentError(
                    f"SAC: got the action space {action_space}; wanted one with bounds, to which actions are scaled. "
                    "Agents for actions without bounds: ppo, reinforce, trpo"
                )
            box = DiagonalGaussian(layout.low, layout.high)
            self._scale, self._center = box.scale.to(device), box.center.to(device)
            self._low, self._high = box.low.to(device), box.high.to(device)
            self.head, size, outputs = SquashedGaussian(len(layout.low)), len(layout.low), 1
        generator = network_generator(seed)
        how: dict[str, Any] = {"activation": config.activation, "encoder": config.encoder}
        self.actor = StochasticActor(observation_space, self.head.size, config.hidden, generator, **how).to(device)
        self.critics = Critics(
            observation_space, size, config.hidden, generator, count=2, atoms=outputs, **how
        ).to(device)  # fmt: skip
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.temperature_start), device=device))
        clip, eps = config.max_grad_norm, config.adam_eps
        self.actor_optimizer = FlatAdam(
            self.actor.parameters(), value_at(config.actor_learning_rate, 0.0), clip, eps
        )  # fmt: skip
        self.critic_optimizer = FlatAdam(
            self.critics.parameters(), value_at(config.critic_learning_rate, 0.0), clip, eps,
            target=self.target_critics.parameters(),
        )  # fmt: skip
        self.temperature_optimizer = FlatAdam(
            [self.log_alpha], value_at(config.temperature_learning_rate, 0.0), math.inf, eps
        )  # fmt: skip
        self.normaliser = Normaliser(config, observation_space, device)
        self.augmentation = Augmentation(config, observation_space)
        self.explorer = explorer_of(config, observation_space, action_space, seed=seed, device=device)
        self.at_random, self.updates, self._progress = config.learning_starts > 0, 0, 0.0
        self._measured: dict[str, Tensor] = {}

    @property
    def experience(self) -> ReplaySpec:
        """A replay buffer, and a few new steps at a time."""
        config = self.config
        return ReplaySpec(
            config.num_steps, config.buffer_size, hindsight=config.hindsight, hindsight_goals=config.hindsight_goals
        )

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows of observations: a draw of the policy, or ``greedy`` its mode."""
        head = self.head
        if self.at_random and not greedy:
            some = next(iter(obs.values())) if isinstance(obs, dict) else obs
            params = torch.zeros((len(some), head.size), device=some.device)  # of uniform logits
        else:
            params = self.actor.forward(self.normaliser.obs(obs))
        if isinstance(head, Categorical):
            action = head.mode(params, legal_mask) if greedy else head.sample(params, legal_mask, generator)
            return Decision(action, action, None)
        if greedy:
            action = head.mode(params)
        elif self.at_random:
            action = torch.empty_like(params[:, : len(self._low)]).uniform_(-1, 1, generator=generator)
        else:
            action = head.draw(params, self._noise(params, generator))[0]
        played = torch.addcmul(self._center, action, self._scale).clamp_(self._low, self._high)
        return Decision(played, action, None)

    @torch.no_grad()
    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """pi(a|s) of Discrete actions, float64 [N, A].

        Raises:
            AgentError: for actions of a Box.
        """
        if not isinstance(self.head, Categorical):
            raise AgentError("action_probabilities: got a Box, whose actions have densities; wanted Discrete actions")
        logits = self.actor.forward(self.normaliser.obs(obs))
        if self.at_random and not greedy:
            logits = torch.zeros_like(logits)
        return self.head.probabilities(logits, legal_mask, greedy)

    @torch.no_grad()
    def action_log_prob(self, obs: Any, legal_mask: Tensor | None, action: Tensor) -> Tensor:
        """Log probability of Discrete actions, or log density of a Box's in the action's units, [N].

        Beyond 0.999 of a bound it is the log probability of all that is beyond.

        Raises:
            AgentError: during warm-up, when actions are not the policy's.
        """
        if self.at_random:
            raise AgentError("action_log_prob: got an agent that still plays at random; wanted one that has learned")
        params = self.actor.forward(self.normaliser.obs(obs))
        if isinstance(self.head, Categorical):
            return self.head.log_prob(params, legal_mask, action)
        return self.head.played_log_prob(params, (action - self._center) / self._scale, self._scale)

    def learn(self, experience: Replay, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Make the updates that are due after the steps played since the last call.

        Args:
            experience: the replay buffer, with the latest steps in it.
            progress: fraction of the run that is over, 0..1.
            generator: for sampling from the replay buffer, and for draws of the policy.

        Returns:
            Metrics of the last measured update (one in 16 is measured), learning rates and updates so far; empty during
            warm-up.
        """
        config, latest = self.config, experience.latest
        if latest is not None:
            self.normaliser.update(latest)
        bonus = None
        if self.explorer is not None:
            self.explorer.arrived(experience, progress, generator)
            bonus = self.explorer.of_sampled
        if experience.added < config.learning_starts:
            return {}
        self.at_random, self._progress = False, progress
        rates = {}
        for name, optimizer in self._optimizers().items():
            rate = value_at(getattr(config, f"{name}_learning_rate"), progress, anneal=config.anneal_lr)
            optimizer.learning_rate = rates[f"{name}_learning_rate"] = rate
        due = int((experience.added - config.learning_starts) * config.replay_ratio)
        while self.updates < due:
            drawn = experience.sample(
                config.batch_size, generator, n_step=config.n_step, discount=config.discount, bonus=bonus
            )
            self._update(self.normaliser.drawn(drawn), generator)
        bonuses = {} if self.explorer is None else self.explorer.metrics
        return {**self._measured, **rates, "updates": self.updates, **bonuses} if self.updates else {}

    def _update(self, drawn: Transitions, generator: torch.Generator) -> None:
        """One gradient step of the critics and, if due, one of actor and temperature; then the targets follow."""
        alpha, (drawn, following) = self._alpha(), self.augmentation.both(drawn, generator)
        with torch.no_grad():
            value, _ = self._soft_value(
                self.target_critics, following.next_obs, following.next_mask, alpha, generator
            )  # fmt: skip
            target = self.augmentation.target(torch.addcmul(following.reward, following.discount, value))
        first, second = (self._taken(out, drawn.action) for out in self._critics(drawn))
        loss = F.mse_loss(first, target) + F.mse_loss(second, target)
        self.critic_optimizer.zero_grad()
        loss.backward()
        measuring = self.updates % _MEASURE_EVERY == 0
        self.updates += 1
        grad_norm = self.critic_optimizer.step(measured=measuring)
        if measuring:
            q, error = first.detach().mean(), (target - first.detach()).abs().mean()
            self._measured |= {
                "critic_loss": loss.detach(), "q": q, "error": error, "critic_grad_norm": grad_norm,
                "temperature": torch.as_tensor(alpha),
            }  # fmt: skip
        if self.updates % self.config.policy_delay == 0:
            self._update_actor(self.augmentation.first(drawn), alpha, generator)
        self.critic_optimizer.follow(self.config.tau)

    def _update_actor(self, drawn: Transitions, alpha: Tensor | float, generator: torch.Generator) -> None:
        """One step of the actor up its soft value, and one of the temperature towards the target entropy."""
        with self.critic_optimizer.frozen():
            value, log_prob = self._soft_value(self.critics, drawn.obs, drawn.mask, alpha, generator)
            self.actor_optimizer.zero_grad()
            (-value.mean()).backward()
        measuring = self.updates // self.config.policy_delay % _MEASURE_EVERY == 1
        grad_norm = self.actor_optimizer.step(measured=measuring)
        log_prob = log_prob.detach()
        if self.config.temperature == "auto":
            self.log_alpha.grad.copy_(-(log_prob + self._target_entropy(drawn.mask)).mean())  # type: ignore[union-attr]
            self.temperature_optimizer.step(measured=False)
        if measuring:
            entropy = -log_prob.mean()
            q = value.detach().mean() - alpha * entropy
            self._measured |= {"actor_q": q, "entropy": entropy, "actor_grad_norm": grad_norm}

    def _soft_value(
        self, critics: Critics, obs: Any, mask: Tensor | None, alpha: Tensor | float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """E[min Q(s, a) - alpha log pi(a|s)] and E[log pi(a|s)], a ~ pi(.|s), [N] both: from one draw for a Box."""
        params = self.actor.forward(obs, self.precision)
        if isinstance(self.head, Categorical):
            log_pi = masked_log_softmax(params, mask)
            pi = log_pi.exp()
            q = (pi * torch.minimum(*critics.forward(obs, None, self.precision))).sum(-1)
            log_prob = (pi * log_pi).sum(-1)
        else:
            action, log_prob = self.head.draw(params, self._noise(params, generator))
            q = torch.minimum(*critics.forward(obs, action, self.precision)).squeeze(-1)
        return q - alpha * log_prob, log_prob

    def _critics(self, drawn: Transitions) -> list[Tensor]:
        """Each critic's output for sampled transitions, [N, A], or [N, 1] for the action of a Box."""
        action = None if isinstance(self.head, Categorical) else drawn.action
        return self.critics.forward(drawn.obs, action, self.precision)

    def _taken(self, out: Tensor, action: Tensor) -> Tensor:
        """Q of the actions that were played, [N]."""
        if isinstance(self.head, Categorical):
            return out.gather(1, action.unsqueeze(1)).squeeze(1)
        return out.squeeze(-1)

    def _alpha(self) -> Tensor | float:
        """The temperature: a tensor [] if it is learned, else the number that is set."""
        if self.config.temperature == "auto":
            return self.log_alpha.detach().exp()
        return value_at(self.config.temperature, self._progress)

    def _target_entropy(self, mask: Tensor | None) -> Tensor | float:
        """H: one number, or [N] where actions are masked."""
        config, head = self.config, self.head
        if config.target_entropy != "auto":
            return value_at(config.target_entropy, self._progress)
        if not isinstance(head, Categorical):
            return -float(len(self._low))
        if mask is None:
            return config.entropy_fraction * math.log(head.size)
        return config.entropy_fraction * mask.sum(-1).log()

    def _noise(self, params: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal numbers [N, k]."""
        shape = (params.shape[0], params.shape[1] // 2)
        return torch.empty(shape, device=generator.device).normal_(generator=generator).to(params.device)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of weights, target weights, temperature, optimisers, moments, bonus, and how far the agent is."""
        state: dict[str, Tensor] = {"log_alpha": self.log_alpha}
        for name, network in self._networks().items():
            state |= prefixed(name, network.state_dict())
        for name, optimizer in self._optimizers().items():
            state |= prefixed(f"{name}_optimizer", optimizer.state_dict())
        state |= self.normaliser.state_dict() | ({} if self.explorer is None else self.explorer.state_dict())
        state["progress"] = torch.tensor([float(self.at_random), self.updates], dtype=torch.float64)
        state["measured"] = torch.tensor([float(self._measured.get(name, 0.0)) for name in _MEASURED])
        state["is_measured"] = torch.tensor([name in self._measured for name in _MEASURED])
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of these networks.
        """
        load_weights(self._networks(), state)
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        for name, optimizer in self._optimizers().items():
            optimizer.load_state_dict(unprefixed(f"{name}_optimizer", state))
        self.normaliser.load_state_dict(state)
        if self.explorer is not None:
            self.explorer.load_state_dict(state)
        at_random, updates = state["progress"].tolist()
        self.at_random, self.updates = bool(at_random), int(updates)
        known = state["is_measured"]
        self._measured = {name: state["measured"][k] for k, name in enumerate(_MEASURED) if known[k]}

    def _networks(self) -> dict[str, nn.Module]:
        return {"actor": self.actor, "critics": self.critics, "target_critics": self.target_critics}

    def _optimizers(self) -> dict[str, FlatAdam]:
        return {
            "actor": self.actor_optimizer,
            "critic": self.critic_optimizer,
            "temperature": self.temperature_optimizer,
        }
