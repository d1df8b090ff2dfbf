"""Evolution strategies (ES): gradients from the returns of perturbed policies; for one policy, or a diverse population.

Salimans et al., "Evolution strategies as a scalable alternative to reinforcement learning" (2017). In an iteration each
member with weights theta is tried with n pairs of mirrored perturbations eps ~ N(0, I), and its weights follow

    g = 1 / (2 n sigma) sum_k (u(theta + sigma eps_k) - u(theta - sigma eps_k)) eps_k

by Adam, where u is the rank of a return among the member's 2 n, scaled to -1/2..1/2.

With a population of M members the k-th perturbations of all members are one perturbed population, whose diversity
det K is that of :mod:`~mlbits.agents.population.diversity` ("DvD-ES": Parker-Holder et al. 2020, algorithm 1):

    u = (1 - lambda) rank(return) + lambda rank(det K)

``diversity`` is "none" (lambda = 0: M independent learners), "fixed" or "bandit", which chooses lambda each iteration.
A member's draws depend on seed + its number alone, so that member m of a run with seed s and without diversity learns
as the run of one member with seed s + m would from the same returns. Policies are deterministic.

Example:
    mlbits train es mlbits/PointMass-v0
    mlbits train es mlbits/PointMass-v0 --agent.population 5 --agent.diversity bandit
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from mlbits.agents.agent import AgentError, Decision, network_generator, prefixed, unprefixed
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.population.diversity import WeightBandit, determinant, kernel_matrix
from mlbits.agents.population.policies import Policies
from mlbits.agents.population.spec import Outcomes, PopulationSpec
from mlbits.agents.population.stacked_mlp import Activation
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at

_STREAM = 1_000_003  # seeds of one member's iterations


@configuration(AgentError)
class ESConfig:
    """Settings of evolution strategies; sigma and the learning rate are those of Parker-Holder et al.'s code."""

    population: int = setting(1, "members, each a policy that learns", low=1, high=1000)
    pairs: int = setting(20, "pairs of mirrored perturbations of each member, in an iteration", low=1, high=1e6)
    sigma: float = setting(0.1, "standard deviation of the perturbations of weights", low=1e-9, high=100)
    learning_rate: Scheduled = setting(0.05, "learning rate of Adam", low=0, high=10, scheduled=True)
    episodes: int = setting(1, "episodes of each perturbed policy", low=1, high=1e6)
    max_episode_steps: int = setting(
        1000, "steps after which an episode is cut, where the environment has no time limit", low=1, high=1e9
    )
    hidden: tuple[int, ...] = setting((16, 16), "widths of the hidden layers of a policy", low=1)
    activation: Activation = setting("tanh", "activation of the hidden layers")
    diversity: Literal["none", "fixed", "bandit"] = setting(
        "none", "reward for differing from the other members: none, fixed weight, or a weight chosen by a bandit"
    )
    diversity_weight: float = setting(0.5, "weight lambda of diversity beside the return, if fixed", low=0, high=1)
    arms: tuple[float, ...] = setting((0.0, 0.5), "weights that the bandit chooses from", low=0, high=1)
    states: int = setting(20, "states in which the members' actions are compared", low=1, high=1e6)
    length: float = setting(
        1.0, "distance at which members count as different, root mean square over the states", low=1e-6, high=1e6,
        unit="half ranges of the action, or probability",
    )  # fmt: skip

    def check(self) -> None:
        """Reject diversity of one member, and arms that cannot be chosen from."""
        if self.diversity != "none" and self.population < 2:
            raise AgentError(
                f"population: got {self.population} with diversity {self.diversity!r}; wanted at least 2, as diversity "
                "compares members"
            )
        if self.diversity == "bandit":
            WeightBandit(self.arms)

    @property
    def num_envs(self) -> int:
        """Copies that an iteration is played in: one for each episode."""
        return self.population * (2 * self.pairs + 1) * self.episodes


class ES:
    """Evolution strategies for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's, without images.
        action_space: one seat's; continuous actions have bounds.
        seed: of the initial weights and perturbations.
        device: where it lives.

    Attributes:
        policies: the form of its policies.
        best: number of the member with the highest return when last played.
        iteration: updates so far.
        returns: of the members when last played, float64 [M]; minus infinity before.

    Raises:
        AgentError: for images, or continuous actions without bounds.
    """

    def __init__(
        self,
        config: ESConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.device, self._seed = config, torch.device(device), seed
        self.policies = Policies(observation_space, action_space, config.hidden, config.activation)
        self._weights = [
            nn.Parameter(self.policies.initial(network_generator(seed + m)).to(device))
            for m in range(config.population)
        ]
        # One optimiser for each, so that a member's step does not depend on how many there are, bit for bit.
        rate = value_at(config.learning_rate, 0.0)
        self._optimizers = [FlatAdam([weights], rate, float("inf")) for weights in self._weights]
        self._noise: Tensor | None = None
        self._bandit = WeightBandit(config.arms) if config.diversity == "bandit" else None
        self.returns = torch.full((config.population,), -torch.inf, dtype=torch.float64)
        self.best, self.iteration = 0, 0

    @property
    def experience(self) -> PopulationSpec:
        """Episodes of every perturbed policy, and of the members as they are."""
        config = self.config
        states = config.states if config.diversity != "none" else 0
        trials = 2 * config.pairs * config.population
        return PopulationSpec(
            trials + config.population, config.episodes, config.max_episode_steps, states, config.population
        )

    def member_weights(self) -> Tensor:
        """The weights of all members, [M, D]."""
        return torch.stack([weights.detach() for weights in self._weights])

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for R rows of observations as the best member does; ``greedy`` makes no difference."""
        action = self.policies.decide(self._best_weights, obs, legal_mask)
        return Decision(action, action, None)

    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """The best member's pi(a|s), which is 1 for one action, float64 [R, A]."""
        return self.policies.action_probabilities(self._best_weights, obs, legal_mask)

    @property
    def _best_weights(self) -> Tensor:
        """[1, D]."""
        return self.member_weights()[self.best : self.best + 1]

    def ask(self, generator: torch.Generator) -> Tensor:
        """The weights of M (2 n + 1) policies: of each member theta + sigma eps, theta - sigma eps; then the members.

        ``generator`` is not drawn from: a member's perturbations follow from its own seed.
        """
        members, sigma = self.member_weights(), self.config.sigma
        self._noise = self._perturbations()
        tried = torch.stack([members[:, None] + sigma * self._noise, members[:, None] - sigma * self._noise], 1)
        return torch.cat([tried.flatten(0, 2), members])

    def _perturbations(self) -> Tensor:
        """This iteration's eps, [M, n, D]."""
        shape = (self.config.pairs, self.policies.size)
        seeds = [((self._seed + m) * _STREAM + self.iteration) % 2**63 for m in range(self.config.population)]
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]).to(
            self.device
        )

    def learn(self, outcomes: Outcomes, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """One step of every member.

        Args:
            outcomes: of the policies that :meth:`ask` gave.
            progress: fraction of the run that is over, 0..1.
            generator: for the bandit.

        Returns:
            The best, mean and worst member's return; the mean return of the perturbed ones; the diversity of the
            members and its weight lambda; the mean of the gradients' norms.
        """
        config, noise = self.config, self._noise
        if noise is None:
            raise AgentError("outcomes: got some before ask(); wanted those of the policies that it gave")
        members, pairs = config.population, config.pairs
        tried = outcomes.returns[:-members].view(members, 2 * pairs)
        weight, metrics = self._weigh(outcomes.returns[-members:], generator)
        utility = (1 - weight) * _ranks(tried)
        if config.diversity != "none":
            spread = self._diversity(noise, outcomes.states)
            metrics["diversity"] = float(spread[-1])
            if weight > 0:
                utility = utility + weight * _ranks(spread[:-1].view(1, -1))
        difference = (utility[:, :pairs] - utility[:, pairs:]).to(noise.dtype).to(self.device)
        norms = []
        for m, optimizer in enumerate(self._optimizers):
            gradient = noise[m].t() @ difference[m] / (2 * pairs * config.sigma)
            optimizer.vectors.grad.copy_(-gradient)
            optimizer.learning_rate = value_at(config.learning_rate, progress)
            norms.append(optimizer.step())
        self.iteration += 1
        self._noise = None
        return metrics | {"tried_return": tried.mean(), "grad_norm": torch.stack(norms).mean()}

    def _weigh(self, returns: Tensor, generator: torch.Generator) -> tuple[float, dict[str, Any]]:
        """The weight of diversity in this iteration, after the members' returns [M]; and what to record."""
        before, self.returns, self.best = self.returns.max(), returns.clone(), int(returns.argmax())
        weight = self.config.diversity_weight if self.config.diversity == "fixed" else 0.0
        if self._bandit is not None:
            if self.iteration:
                self._bandit.note(bool(returns.max() > before))
            weight = self._bandit.draw(generator)
        found = {"best_return": returns.max(), "mean_return": returns.mean(), "worst_return": returns.min()}
        return weight, found | ({} if self.config.diversity == "none" else {"diversity_weight": weight})

    def _diversity(self, noise: Tensor, states: Tensor) -> Tensor:
        """Diversity of each of the 2 n perturbed populations, and of the members as they are, [2 n + 1]."""
        members, sigma = self.member_weights(), self.config.sigma
        tried = torch.cat([members[:, None] + sigma * noise, members[:, None] - sigma * noise, members[:, None]], 1)
        acts = self.policies.behaviour(tried.flatten(0, 1), states).view(*tried.shape[:2], len(states), -1)
        return determinant(kernel_matrix(acts.transpose(0, 1), self.config.length))

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of weights, optimiser, the members' latest returns, iteration, the noise's seed and the bandit."""
        played = self.returns.isfinite().all()
        state = {
            "weights": self.member_weights(), "iteration": torch.tensor(self.iteration),
            "seed": torch.tensor(self._seed),
            "returns": self.returns if played else torch.zeros(0, dtype=torch.float64),
            **prefixed("optimizer", self._optimizer_state()),
        }  # fmt: skip
        if self._bandit is not None:
            state |= prefixed("bandit", self._bandit.state_dict())
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def _optimizer_state(self) -> dict[str, Tensor]:
        """The optimisers' tensors, stacked, [M, ...]."""
        states = [optimizer.state_dict() for optimizer in self._optimizers]
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if it is of other shapes.
        """
        weights, returns = state["weights"], state["returns"]
        shape = (len(self._weights), self.policies.size)
        if weights.shape != shape:
            raise AgentError(f"weights: got {tuple(weights.shape)}; wanted {shape}")
        if len(returns) not in (0, len(weights)):
            raise AgentError(f"returns: got {len(returns)}; wanted one for each of {len(weights)} members")
        self._seed = int(state["seed"])
        kept = unprefixed("optimizer", state)
        for m, (mine, optimizer) in enumerate(zip(self._weights, self._optimizers, strict=True)):
            mine.data.copy_(weights[m])
            optimizer.load_state_dict({name: value[m] for name, value in kept.items()})
        self.returns = returns.double().cpu().clone() if len(returns) else torch.full_like(self.returns, -torch.inf)
        self.best, self.iteration = int(self.returns.argmax()), int(state["iteration"])
        if self._bandit is not None:
            self._bandit.load_state_dict(unprefixed("bandit", state))


def _ranks(values: Tensor) -> Tensor:
    """Ranks within each row, from -1/2 to 1/2; equal values share one."""
    count = values.shape[1]
    ranks = torch.from_numpy(rankdata(values.cpu().numpy(), axis=1)) - 1
    return ranks / max(count - 1, 1) - 0.5
