"""The meta-gradient: how a rule's weights should move so that the agents it teaches become better.

Oh et al. (2020), section 3.3. A window of K updates: the agents play, the rule updates them, they play again with what
they have become, and an ordinary policy gradient on this play is differentiated through all updates so far, back to the
rule that made them. Ascended is, summed over the K rollouts after an update,

    mean[ log pi_theta(a|s) A + b0 H(pi_theta) + b1 H(y_theta) ]  and of the update before it  -b2 mean pi_hat^2
    - b3 mean |y_hat|^2

with the coefficients of the paper. Each rollout is the judgement on the updates before it, then the lesson of the
next: K + 1 rollouts a window. The entropy bonuses keep agents from collapsing (one that has collapsed gives no
gradient); the penalties bound the targets. Advantages A come from values that only this objective uses
(:mod:`~mlbits.agents.learned_rules.values`).

Lifetimes go on from window to window; gradients do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlbits.agents.learned_rules.populations import Hyper, Lesson, Outputs, Population, State, chosen, look
from mlbits.agents.learned_rules.rule import Targets

Play = Callable[[State], Lesson]
Advantages = Callable[[Lesson], Tensor]
Rule = Callable[..., Targets] | nn.Module


class Coefficients(NamedTuple):
    """Weights in the meta-objective; the defaults are the paper's.

    Attributes:
        policy_entropy: b0.
        prediction_entropy: b1.
        pi_hat: b2.
        y_hat: b3.
    """

    policy_entropy: float = 0.01
    prediction_entropy: float = 0.001
    pi_hat: float = 0.001
    y_hat: float = 0.001


class Window(NamedTuple):
    """What K updates gave.

    Attributes:
        objective: a tensor [], to be ascended in the rule's weights.
        state: the agents after the last update, detached.
        reward: mean reward a step of each lifetime, over the rollouts after an update, [L].
        policy_entropy: of each lifetime in the last rollout, in nats, [L].
        prediction_entropy: the same of the predictions.
        metrics: means over all lifetimes, tensors [].
    """

    objective: Tensor
    state: State
    reward: Tensor
    policy_entropy: Tensor
    prediction_entropy: Tensor
    metrics: dict[str, Tensor]


def targets_of(rule: Rule, lesson: Lesson, outputs: Outputs) -> Targets:
    """What a rule says about a lesson, given the agents' outputs; they are detached."""
    probability = chosen(outputs.log_pi.detach(), lesson.action).exp()
    found: Targets = rule(
        lesson.reward, lesson.terminated, lesson.truncated, probability, outputs.log_y.detach().exp(), outputs.next_y
    )
    return found


def window(
    rule: Rule,
    population: Population,
    state: State,
    hyper: Hyper,
    play: Play,
    advantages: Advantages,
    *,
    updates: int,
    coefficients: Coefficients = Coefficients(),  # noqa: B008 (a constant)
) -> Window:
    """K updates of all lifetimes, and the objective of the rule that made them.

    Args:
        rule: the rule.
        population: the kind of agents.
        state: the agents, detached.
        hyper: their hyperparameters.
        play: plays a rollout with the agents, without gradients.
        advantages: of a rollout, [T, L, E], without gradients.
        updates: K.
        coefficients: of the meta-objective.
    """
    objective = torch.zeros((), dtype=hyper.alpha.dtype, device=hyper.alpha.device)
    lesson = play(state)
    outputs = look(population, state, lesson)
    rewards, terms = [], []
    for _ in range(updates):
        targets = targets_of(rule, lesson, outputs)
        state = population.update(state, lesson, outputs, targets, hyper)
        lesson = play(detached(state))
        outputs = look(population, state, lesson)
        log_pi, log_y = outputs.log_pi, outputs.log_y
        gain = (chosen(log_pi, lesson.action) * advantages(lesson)).mean()
        policy_entropy, prediction_entropy = -(log_pi.exp() * log_pi).sum(-1), -(log_y.exp() * log_y).sum(-1)
        pi_hat, y_hat = targets.pi_hat.square().mean(), (2 * targets.log_y_hat).exp().sum(-1).mean()
        objective = objective + (
            gain
            + coefficients.policy_entropy * policy_entropy.mean()
            + coefficients.prediction_entropy * prediction_entropy.mean()
            - coefficients.pi_hat * pi_hat
            - coefficients.y_hat * y_hat
        )
        rewards.append(lesson.reward.mean((0, 2)))
        terms.append(torch.stack([pi_hat.detach(), y_hat.detach()]))
    pi_hat, y_hat = torch.stack(terms).mean(0)
    entropies = policy_entropy.detach().mean((0, 2)), prediction_entropy.detach().mean((0, 2))
    metrics = {"pi_hat_square": pi_hat, "y_hat_square": y_hat,
               "policy_entropy": entropies[0].mean(), "prediction_entropy": entropies[1].mean()}  # fmt: skip
    return Window(objective, detached(state), torch.stack(rewards).mean(0), *entropies, metrics)


def detached(state: State) -> State:
    """The same agents, through which no gradient passes."""
    return {name: value.detach() for name, value in state.items()}
