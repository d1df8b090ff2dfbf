"""Teachers that are written down, to measure learned rules against: A2C, REINFORCE, and one that teaches nothing.

All give targets as a rule does, so that they teach the same agents in the same way.
"""

from __future__ import annotations

import torch

from mlbits.agents.learned_rules.populations import Lesson, Outputs, chosen
from mlbits.agents.learned_rules.rule import Targets
from mlbits.agents.learned_rules.values import Values, advantages
from mlbits.agents.maths.returns import rewards_to_go


class A2C:
    """Advantage actor-critic (Mnih et al. 2016): pi_hat is the advantage, with a bonus for entropy.

    The bonus is part of pi_hat: -c log pi(a|s) in its place has the entropy's gradient as its mean, since
    grad H = -E[log pi(a|s) grad log pi(a|s)]. The predictions stay as they are.

    Args:
        values: of the lifetimes, new ones for each lifetime.
        discount: gamma, 0..1.
        gae_lambda: lambda, 0..1.
        entropy_coef: c.
    """

    def __init__(
        self, values: Values, *, discount: float, gae_lambda: float = 0.95, entropy_coef: float = 0.01
    ) -> None:
        self.values, self.discount, self.gae_lambda, self.entropy_coef = values, discount, gae_lambda, entropy_coef

    def __call__(self, lesson: Lesson, outputs: Outputs) -> Targets:
        """The targets of a rollout."""
        found = advantages(self.values, lesson, discount=self.discount, gae_lambda=self.gae_lambda)
        return Targets(found - self.entropy_coef * chosen(outputs.log_pi, lesson.action), outputs.log_y)


class Reinforce:
    """REINFORCE (Williams 1992): pi_hat is the discounted sum of the rewards that followed, without a baseline.

    Sums end with the episode or the rollout, since nothing here estimates what comes after. The predictions stay as
    they are.

    Args:
        discount: gamma, 0..1.
    """

    def __init__(self, discount: float) -> None:
        self.discount = discount

    def __call__(self, lesson: Lesson, outputs: Outputs) -> Targets:
        """The targets of a rollout."""
        flat = [part.flatten(1, 2) for part in (lesson.reward, lesson.terminated, lesson.truncated)]
        sums = rewards_to_go(flat[0][..., None], flat[1], flat[2], discount=self.discount)
        return Targets(sums.view_as(lesson.reward), outputs.log_y)


def nothing(lesson: Lesson, outputs: Outputs) -> Targets:
    """Targets that change nothing: agents stay as they were born, and play at random."""
    return Targets(torch.zeros_like(lesson.reward), outputs.log_y)
