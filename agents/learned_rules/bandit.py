"""A bandit that chooses the hyperparameters with which each lifetime's agent begins.

Oh et al. (2020), appendix: the rule should not have to encode a step size, so each agent has its own, and those that
serve lifetimes well are drawn more often. An arm is a pair of learning rate and alpha_y; with r the mean return of its
latest lifetimes and n how many it has had, arms are drawn with probability

    softmax( (r + rho / sqrt(n)) / tau )

Where we differ: there lifetimes of one arm are in one environment, here in levels of very different worth. So r is over
the latest 100 instead of 10, with 10 more as good as the mean of all arms: a lucky level makes no arm. And tau is 0.3
instead of 0.1, with which two thirds of all agents soon had the same arm, and the rule encoded its step size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from mlbits.agents.learned_rules.populations import Hyper, State

TAU, RHO, LATEST, PRIOR = 0.3, 0.2, 100, 10


class Bandit:
    """The arms, and how their lifetimes went.

    Args:
        learning_rates: of the agents.
        alphas: weights of their prediction's loss; every pair is an arm.

    Attributes:
        learning_rate: of each arm, [n].
        alpha: of each arm, [n].
        state: the latest returns of each arm [n, 100], and how many lifetimes each has had, [n].
    """

    def __init__(self, learning_rates: Sequence[float], alphas: Sequence[float]) -> None:
        pairs = torch.tensor(list(itertools.product(learning_rates, alphas)))
        self.learning_rate, self.alpha = pairs.unbind(1)
        self.state: State = {"latest": torch.zeros(len(pairs), LATEST), "count": torch.zeros(len(pairs))}

    def probabilities(self) -> Tensor:
        """How likely each arm is to be drawn next, [n]."""
        latest, count = self.state["latest"], self.state["count"]
        kept = count.clamp(max=LATEST)
        of_all = latest.sum() / kept.sum().clamp(min=1)
        mean = (latest.sum(1) + PRIOR * of_all) / (kept + PRIOR)
        return torch.softmax((mean + RHO / count.clamp(min=1).sqrt()) / TAU, 0)

    def best(self) -> int:
        """The arm that is the most likely to be drawn."""
        return int(self.probabilities().argmax())

    def draw(self, lifetimes: int, generator: torch.Generator) -> Tensor:
        """Arms for new lifetimes, int64 [lifetimes]; the generator is on the CPU."""
        return torch.multinomial(self.probabilities(), lifetimes, replacement=True, generator=generator)

    def hyper(self, arms: Tensor, device: torch.device | str) -> Hyper:
        """The hyperparameters of these arms."""
        return Hyper(self.learning_rate[arms].to(device), self.alpha[arms].to(device))

    def note(self, arms: Tensor, returns: Tensor) -> None:
        """Note lifetimes that ended: their arms int64 [k], and their mean returns [k]."""
        latest, count = self.state["latest"], self.state["count"]
        for arm, value in zip(arms.tolist(), returns.tolist(), strict=True):
            latest[arm, int(count[arm]) % LATEST] = value
            count[arm] += 1
