"""DvD-TD3: a population of TD3 agents that share their experience and are rewarded for acting differently.

Each of M members has an actor mu_i and twin critics, trained by TD3 (Fujimoto et al. 2018; as ``ddpg --agent.twin``):

    y        = r + gamma min_j Q'_ij(s', clip(mu'_i(s') + clipped noise))
    critics  minimise E[(y - Q_ij(s, a))^2]
    actors   maximise (1 - lambda) sum_i E[Q_i1(s, mu_i(s))] / E|Q_i1| + lambda log det (K + 0.001 I)

where K is the kernel over the members' actions in n states of the minibatch
(:mod:`~mlbits.agents.population.diversity`; Parker-Holder et al. 2020, "DvD", section 4.3). ``diversity`` is "none"
(lambda = 0), "fixed" or "bandit", which chooses lambda by Thompson sampling. All members learn from one replay buffer,
from minibatches of their own; each plays its share of the copies. With one member and no diversity this is TD3.

Differences from the paper: Q is divided by its mean size, so that lambda has the same meaning at any scale of rewards;
log det in place of det, whose gradient vanishes where members are close. All networks are updated by batched products.

Example:
    mlbits train dvd mlbits/PointMass-v0
    mlbits train dvd mlbits/PointMass-v0 --agent.population 5 --agent.diversity fixed --agent.diversity-weight 0.2
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.agent import (
    AgentError,
    Decision,
    ReplaySpec,
    network_generator,
    prefixed,
    unprefixed,
)
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.memory.replay import Replay, Transitions
from mlbits.agents.players import OutsideTraining
from mlbits.agents.population.diversity import WeightBandit, determinant, kernel_matrix, log_determinant
from mlbits.agents.population.policies import Policies
from mlbits.agents.population.stacked_mlp import Activation, StackedMLP
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at

_MEASURE_EVERY = 16  # updates
_RECENT = 0.2  # weight of the latest episode in a member's return
_AT_RANDOM = -1.0  # stands for infinite noise in saved states


@configuration(AgentError)
class DvDConfig:
    """Settings of a population of TD3 agents; those of TD3 are Fujimoto et al.'s unless said otherwise."""

    population: int = setting(3, "members, each with an actor and two critics", low=1, high=1000)
    diversity: Literal["none", "fixed", "bandit"] = setting(
        "bandit", "reward for differing from the other members: none, fixed weight, or a weight chosen by a bandit"
    )
    diversity_weight: float = setting(0.5, "weight lambda of diversity beside the return, if fixed", low=0, high=1)
    arms: tuple[float, ...] = setting((0.0, 0.5), "weights that the bandit chooses from", low=0, high=1)
    bandit_every: int = setting(1000, "updates for which the bandit keeps its choice", low=1, high=1e9)
    states: int = setting(20, "states in which the members' actions are compared", low=1, high=1e6)
    length: float = setting(
        1.0, "distance at which members count as different, root mean square over the states", low=1e-6, high=1e6,
        unit="half ranges of the action",
    )  # fmt: skip
    num_steps: int = setting(1, "steps of each copy between two rounds of updates", low=1, high=1e6)
    replay_ratio: float = setting(1.0, "updates of all members per transition, over all copies", low=1e-9, high=1e3)
    buffer_size: int = setting(1_000_000, "transitions kept in the replay buffer", low=1, high=1e12)
    learning_starts: int = setting(
        1000, "transitions played uniformly at random before learning begins", low=0, high=1e12
    )
    batch_size: int = setting(256, "transitions per update of each member", low=1, high=1e6)
    learning_rate: Scheduled = setting(
        1e-3, "learning rate of Adam, of actors and critics", low=0, high=10, scheduled=True
    )
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    tau: float = setting(0.005, "step size of a target update: target += tau (network - target)", low=1e-9, high=1)
    noise: Scheduled = setting(
        0.1, "standard deviation of the Gaussian noise on actions", low=0, high=10, unit="half ranges of the action",
        scheduled=True,
    )  # fmt: skip
    target_noise: float = setting(
        0.2, "standard deviation of the noise on the bootstrap's action", low=0, high=10,
        unit="half ranges of the action",
    )  # fmt: skip
    target_noise_clip: float = setting(
        0.5, "largest size of that noise", low=0, high=2, unit="half ranges of the action"
    )
    policy_delay: int = setting(2, "updates of the critics per update of actors and targets", low=1, high=1e6)
    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers of actors and critics", low=1)
    activation: Activation = setting("relu", "activation of the hidden layers")

    def check(self) -> None:
        """Reject diversity of one member, and arms that cannot be chosen from."""
        if self.diversity != "none" and self.population < 2:
            raise AgentError(
                f"population: got {self.population} with diversity {self.diversity!r}; wanted at least 2, as diversity "
                "compares members"
            )
        if self.diversity == "bandit":
            WeightBandit(self.arms)


class DvD:
    """A population of TD3 agents for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's, without images.
        action_space: one seat's: Box of one axis, with bounds.
        seed: of the initial weights; member i has those of seed + i.
        device: where the networks are kept.

    Attributes:
        policies: the form of the actors.
        returns: of each member, a moving average over its episodes, float64 [M]; minus infinity before the first.
        noise: standard deviation of the noise on actions; infinite while actions are drawn at random.
        updates: updates of the critics so far.

    Raises:
        AgentError: for images, or actions without bounds.
    """

    def __init__(
        self,
        config: DvDConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.policies = Policies(observation_space, action_space, config.hidden, config.activation)
        inputs, outputs = self.policies.mlp.widths[0], self.policies.mlp.widths[-1]
        self._critic = StackedMLP((inputs + outputs, *config.hidden, 1), config.activation)
        generators = [network_generator(seed + i) for i in range(config.population)]
        actors = torch.stack([self.policies.mlp.initial(generator) for generator in generators])
        twins = [[self._critic.initial(generator) for generator in generators] for _ in range(2)]
        critics = torch.stack(
            [weights for twin in twins for weights in twin]
        )  # [2 M, D]: all first ones, then all second
        self.actors, self.critics = (nn.Parameter(weights.to(device)) for weights in (actors, critics))
        self.target_actors, self.target_critics = (
            nn.Parameter(weights.detach().clone(), requires_grad=False) for weights in (self.actors, self.critics)
        )
        rate = value_at(config.learning_rate, 0.0)
        self._actor_optimizer = FlatAdam([self.actors], rate, math.inf, 1e-8, target=[self.target_actors])
        self._critic_optimizer = FlatAdam([self.critics], rate, math.inf, 1e-8, target=[self.target_critics])
        self._bandit = WeightBandit(config.arms) if config.diversity == "bandit" else None
        self._drawn_at = 0  # updates when the bandit last chose
        self._best_then = -math.inf
        self.returns = torch.full((config.population,), -torch.inf, dtype=torch.float64)
        self._running = torch.zeros(0, dtype=torch.float64)  # returns of the episodes under way, [B]
        self.noise = math.inf if config.learning_starts else value_at(config.noise, 0.0)
        self.updates, self._all_play = 0, False
        self._measured: dict[str, float] = {}

    @property
    def experience(self) -> ReplaySpec:
        """A replay buffer, and a few new steps at a time."""
        return ReplaySpec(self.config.num_steps, self.config.buffer_size)

    @property
    def best(self) -> int:
        """Number of the member with the highest return of late."""
        return int(self.returns.argmax())

    def member_weights(self) -> Tensor:
        """The weights of all actors, [M, D]."""
        return self.actors.detach()

    def prepare_to_learn(self) -> None:
        """From now on each member plays its share of the rows where it does not act greedily."""
        self._all_play = True

    def outside_training(self) -> OutsideTraining:
        """This population, as its best member alone."""
        return OutsideTraining(self)

    @torch.no_grad()
    def act(
        self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False,
        training: bool = True,
    ) -> Decision:  # fmt: skip
        """Decide for N rows as the best member, with noise unless ``greedy``; in training each member for its share.

        The rows are then shared out in order: row k of N is member k M // N's.
        """
        inputs = self.policies.inputs(obs)
        if greedy:
            action = torch.tanh(self.policies.mlp.outputs(self.actors[self.best : self.best + 1], inputs))[0]
        elif self.noise == math.inf:
            shape = len(inputs), self.policies.mlp.widths[-1]
            action = torch.empty(shape, device=inputs.device).uniform_(-1, 1, generator=generator)
        else:
            member = torch.full((len(inputs),), self.best, device=inputs.device)
            if self._all_play and training:
                member = torch.arange(len(inputs), device=inputs.device) * len(self.actors) // len(inputs)
            action = torch.tanh(self.policies.mlp.outputs(self.actors[member], inputs[:, None]))[:, 0]
            noise = torch.empty_like(action).normal_(0, self.noise, generator=generator) if self.noise > 0 else 0.0
            action = (action + noise).clamp_(-1, 1)
        return Decision(self.policies.actions(action, None), action, None)

    def learn(self, experience: Replay, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Make the updates that are due after the steps played since the last call.

        Args:
            experience: the replay buffer, with the latest steps in it.
            progress: fraction of the run that is over, 0..1.
            generator: for minibatches, target noise and the bandit.

        Returns:
            The best, mean and worst member's return of late; of the last measured update (one in 16) the critics' loss,
            Q and the diversity; its weight lambda; noise and updates so far. Empty during warm-up.
        """
        config = self.config
        if experience.latest is not None:
            self._note_returns(experience.latest)
        if experience.added < config.learning_starts:
            return {}
        self.noise = value_at(config.noise, progress)
        for optimizer in (self._actor_optimizer, self._critic_optimizer):
            optimizer.learning_rate = value_at(config.learning_rate, progress)
        due = int((experience.added - config.learning_starts) * config.replay_ratio)
        while self.updates < due:
            count = config.batch_size * config.population
            self._update(experience.sample(count, generator, discount=config.discount), generator)
        if not self.updates:
            return {}
        known = self.returns[self.returns.isfinite()]
        found: dict[str, Any] = {"noise": self.noise, "updates": self.updates, **self._measured}
        if len(known):
            found |= {"best_return": known.max(), "mean_return": known.mean(), "worst_return": known.min()}
        return found | ({} if config.diversity == "none" else {"diversity_weight": self.weight})

    @property
    def weight(self) -> float:
        """The weight lambda of diversity now."""
        if self._bandit is not None:
            return self._bandit.weight
        return self.config.diversity_weight if self.config.diversity == "fixed" else 0.0

    def _note_returns(self, latest: Any) -> None:
        """Add up the latest steps' rewards [T, B, 1], and note the returns of members whose episodes ended."""
        rewards, ends = latest.reward[..., 0].double().cpu(), (latest.terminated | latest.truncated).cpu()
        copies = rewards.shape[1]
        if len(self._running) != copies:
            self._running = torch.zeros(copies, dtype=torch.float64)
        for reward, ended in zip(rewards, ends, strict=True):
            self._running += reward
            for copy in ended.nonzero().flatten().tolist():
                member, value = copy * len(self.actors) // copies, self._running[copy]
                before = self.returns[member]
                self.returns[member] = before + _RECENT * (value - before) if before > -torch.inf else value
            self._running[ended] = 0

    def _update(self, drawn: Transitions, generator: torch.Generator) -> None:
        """One step of all critics and, if due, one of all actors and all targets."""
        config, members = self.config, len(self.actors)
        obs, next_obs = (self._of_members(self.policies.inputs(part)) for part in (drawn.obs, drawn.next_obs))
        action, reward, discount = (self._of_members(part) for part in (drawn.action, drawn.reward, drawn.discount))
        target = self._target(next_obs, reward, discount, generator)
        q = self._q(self.critics, obs, action)
        # A sum over members, so that a member's gradient does not depend on how many there are.
        loss = (q - target).square().mean(-1).sum()
        self._critic_optimizer.zero_grad()
        loss.backward()
        self._critic_optimizer.step(measured=False)
        measuring = self.updates % _MEASURE_EVERY == 0
        self.updates += 1
        if measuring:
            self._measured |= {"critic_loss": float(loss.detach()) / (2 * members), "q": float(q.detach().mean())}
        if self.updates % config.policy_delay == 0:
            self._update_actors(obs, generator)
            self._critic_optimizer.follow(config.tau)
            self._actor_optimizer.follow(config.tau)

    @torch.no_grad()
    def _target(self, next_obs: Tensor, reward: Tensor, discount: Tensor, generator: torch.Generator) -> Tensor:
        """Each member's targets, [M, N]: r + gamma times the lower of its two target critics."""
        config = self.config
        action = torch.tanh(self.policies.mlp.outputs(self.target_actors, next_obs))
        if config.target_noise > 0:
            noise = torch.empty_like(action).normal_(0, config.target_noise, generator=generator)
            action = (action + noise.clamp_(-config.target_noise_clip, config.target_noise_clip)).clamp_(-1, 1)
        return reward + discount * self._q(self.target_critics, next_obs, action).amin(0)

    def _update_actors(self, obs: Tensor, generator: torch.Generator) -> None:
        """One step of all actors up their critics' Q and, together, up the diversity."""
        self._choose_weight(generator)
        members = len(self.actors)
        with self._critic_optimizer.frozen():
            action = torch.tanh(self.policies.mlp.outputs(self.actors, obs))
            q = self._q(self.critics[:members], obs, action)[0]  # [M, N]
            value = (q.mean(1) / q.detach().abs().mean(1).clamp_min(1e-6)).sum()
            objective = (1 - self.weight) * value
            if self.config.diversity != "none":
                acts = self.policies.behaviour(self.actors, obs.flatten(0, 1)[: self.config.states])
                kernel = kernel_matrix(acts, self.config.length)
                if self.weight > 0:
                    objective = objective + self.weight * log_determinant(kernel)
                self._measured["diversity"] = float(determinant(kernel.detach()))
            self._actor_optimizer.zero_grad()
            (-objective).backward()
        self._actor_optimizer.step(measured=False)

    def _choose_weight(self, generator: torch.Generator) -> None:
        """Let the bandit choose anew, if it is time."""
        if self._bandit is None or (self._drawn_at and self.updates - self._drawn_at < self.config.bandit_every):
            return
        best = float(self.returns.max())
        if self._drawn_at:
            self._bandit.note(best > self._best_then)
        self._drawn_at, self._best_then = self.updates, best
        self._bandit.draw(generator)

    def _q(self, critics: Tensor, obs: Tensor, action: Tensor) -> Tensor:
        """Q of each critic, [k, M, N], of weights [k M, D] in observations and actions of M members [M, N, ...]."""
        pairs = torch.cat([obs, action], -1)
        count = len(critics) // len(pairs)
        return self._critic.outputs(critics, pairs.repeat(count, 1, 1)).view(count, *pairs.shape[:2])

    def _of_members(self, rows: Tensor) -> Tensor:
        """Rows of all members, [M, N, ...]."""
        return rows.view(len(self.actors), -1, *rows.shape[1:])

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of weights, target weights, optimisers, exploration, returns and the bandit."""
        noise = _AT_RANDOM if self.noise == math.inf else self.noise
        state = {
            "actors": self.actors, "critics": self.critics,
            "target_actors": self.target_actors, "target_critics": self.target_critics,
            "has_return": self.returns.isfinite(), "returns": self.returns.nan_to_num(neginf=0.0),
            "running": self._running,
            "progress": torch.tensor([noise, self.updates, self._drawn_at], dtype=torch.float64),
            "best_then": torch.tensor([self._best_then] if math.isfinite(self._best_then) else [], dtype=torch.float64),
            "measured": torch.tensor([self._measured.get(name, 0.0) for name in _MEASURED], dtype=torch.float64),
            "is_measured": torch.tensor([name in self._measured for name in _MEASURED]),
            **prefixed("actor_optimizer", self._actor_optimizer.state_dict()),
            **prefixed("critic_optimizer", self._critic_optimizer.state_dict()),
        }  # fmt: skip
        if self._bandit is not None:
            state |= prefixed("bandit", self._bandit.state_dict())
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if it is of other shapes.
        """
        for name in ("actors", "critics", "target_actors", "target_critics"):
            mine: Tensor = getattr(self, name)
            if mine.shape != state[name].shape:
                raise AgentError(f"{name}: got {tuple(state[name].shape)}; wanted {tuple(mine.shape)}")
            mine.data.copy_(state[name])
        self._actor_optimizer.load_state_dict(unprefixed("actor_optimizer", state))
        self._critic_optimizer.load_state_dict(unprefixed("critic_optimizer", state))
        if state["returns"].shape != self.returns.shape:
            raise AgentError(
                f"returns: got {len(state['returns'])}; wanted one for each of {len(self.returns)} members"
            )
        self.returns = torch.where(state["has_return"].cpu(), state["returns"].double().cpu(), -torch.inf)
        self._running = state["running"].double().cpu().clone()
        noise, updates, drawn_at = state["progress"].tolist()
        self.noise, self.updates = math.inf if noise == _AT_RANDOM else noise, int(updates)
        self._drawn_at = int(drawn_at)
        self._best_then = float(state["best_then"][0]) if len(state["best_then"]) else -math.inf
        known, measured = state["is_measured"], state["measured"].tolist()
        self._measured = {name: measured[k] for k, name in enumerate(_MEASURED) if known[k]}
        if self._bandit is not None:
            self._bandit.load_state_dict(unprefixed("bandit", state))


_MEASURED = ("critic_loss", "q", "diversity")
