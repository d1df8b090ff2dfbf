"""Many small agents at once, one per lifetime, and one update of all of them by a rule's targets.

An agent ascends mean [ pi_hat log pi(a|s) - alpha_y KL(y(s) || y_hat) ] over its own steps of a rollout: by gradient
ascent where it is a table, by Adam where it is an MLP (Oh et al. 2020, appendix). The update is a function of
parameters and targets that makes new parameters and changes none in place, so that gradients pass through any number of
updates to the rule that gave the targets.

The plain update is ``torch.func.grad`` of one agent's objective, mapped over the agents. For tables it has a closed
form, which is what runs unless ``MLBITS_KERNELS=0``: of one step, with y the agent's own prediction,

    d / d logits(s)    = pi_hat (onehot(a) - pi)
    d / d y_logits(s)  = -alpha_y y (log y - log y_hat - KL(y || y_hat))

Shapes: T steps, L lifetimes (agents), E copies each, A actions, m predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.func import grad, vmap

from mlbits.agents import kernels
from mlbits.agents.learned_rules.rule import Targets, log_softmax

State = dict[str, Tensor]  # everything that an agent is, stacked over lifetimes: [L, ...]

_EPS = 1e-5  # of Adam, as in the agents of mlbits
_EPS_ROOT = 1e-12  # under its root, whose derivative at 0 is infinite
_BETAS = (0.9, 0.999)


class Lesson(NamedTuple):
    """A rollout of all lifetimes.

    Attributes:
        obs: [T, L, E] of indices, or [T, L, E, d].
        next_obs: what followed, in the same episode; shaped as ``obs``.
        action: int64 [T, L, E].
        reward: [T, L, E].
        terminated: bool [T, L, E].
        truncated: bool [T, L, E].
    """

    obs: Tensor
    next_obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class Outputs(NamedTuple):
    """What the agents say about a lesson's observations.

    Attributes:
        log_pi: [T, L, E, A].
        log_y: [T, L, E, m].
        next_y: y of what followed, [T, L, E, m], detached.
    """

    log_pi: Tensor
    log_y: Tensor
    next_y: Tensor


class Hyper(NamedTuple):
    """The agents' own hyperparameters, [L] each.

    Attributes:
        learning_rate: of their updates.
        alpha: weight of the prediction's loss, alpha_y.
    """

    learning_rate: Tensor
    alpha: Tensor


class Population(Protocol):
    """Agents of one kind."""

    def initial(self, lifetimes: int, generator: torch.Generator) -> State:
        """New agents."""

    def logits(self, state: State, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of policy [T, L, E, A] and prediction [T, L, E, m] for observations [T, L, E, ...]."""

    def acting(self, state: State) -> Callable[[Tensor], Tensor]:
        """How the agents play: observations [L, E, ...] to action probabilities, summed up over actions [L, E, A]."""

    def update(self, state: State, lesson: Lesson, outputs: Outputs, targets: Targets, hyper: Hyper) -> State:
        """The agents after one update; gradients pass to ``state`` and to ``targets``."""


def look(population: Population, state: State, lesson: Lesson) -> Outputs:
    """The agents' outputs for a lesson."""
    log_pi, log_y = map(log_softmax, population.logits(state, lesson.obs))
    with torch.no_grad():
        next_y = log_softmax(population.logits(state, lesson.next_obs)[1]).exp()
    return Outputs(log_pi, log_y, next_y)


def chosen(log_pi: Tensor, action: Tensor) -> Tensor:
    """Log probabilities of the actions taken, [...], of [..., A]."""
    return log_pi.gather(-1, action[..., None])[..., 0]


def divergence(log_y: Tensor, log_y_hat: Tensor) -> Tensor:
    """KL(y || y_hat) over the last axis, in nats."""
    return (log_y.exp() * (log_y - log_y_hat)).sum(-1)


class TabularAgents:
    """Agents that keep a row of logits for each state, moved by gradient ascent; at first all are 0.

    Args:
        num_states: S.
        num_actions: A.
        predictions: m.
    """

    def __init__(self, num_states: int, num_actions: int, predictions: int) -> None:
        self.num_states, self.num_actions, self.predictions = num_states, num_actions, predictions

    def initial(self, lifetimes: int, generator: torch.Generator) -> State:
        """Tables [L, S, A + m] of zeros: policy and prediction in one, so that a state is one place in memory."""
        shape = lifetimes, self.num_states, self.num_actions + self.predictions
        return {"table": torch.zeros(shape, device=generator.device)}

    def logits(self, state: State, obs: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Population`; ``obs`` are numbers of states, [T, L, E]."""
        table = state["table"]
        rows = torch.nn.functional.embedding(self._places(obs), table.flatten(0, 1))
        return rows[..., : self.num_actions], rows[..., self.num_actions :]

    def acting(self, state: State) -> Callable[[Tensor], Tensor]:
        """See :class:`Population`; the whole table's probabilities are computed once."""
        sums = log_softmax(state["table"][..., : self.num_actions]).exp_().cumsum(-1).flatten(0, 1)
        return lambda obs: sums[self._places(obs)]

    def update(self, state: State, lesson: Lesson, outputs: Outputs, targets: Targets, hyper: Hyper) -> State:
        """See :class:`Population`."""
        if kernels.enabled():
            gradient = self._closed_form(lesson, outputs, targets, hyper)
        else:
            gradient = gradients(self._logits_of_one, state, lesson, targets, hyper)["table"]
        return {"table": state["table"] + hyper.learning_rate[:, None, None] * gradient}

    def _logits_of_one(self, params: Mapping[str, Tensor], obs: Tensor) -> tuple[Tensor, Tensor]:
        rows = params["table"][obs]
        return rows[..., : self.num_actions], rows[..., self.num_actions :]

    def _closed_form(self, lesson: Lesson, outputs: Outputs, targets: Targets, hyper: Hyper) -> Tensor:
        """The gradient of each agent's objective, [L, S, A + m]."""
        steps, lifetimes, copies = lesson.action.shape
        pi_hat = targets.pi_hat[..., None]
        of_policy = (-pi_hat * outputs.log_pi.exp()).scatter_add(-1, lesson.action[..., None], pi_hat)
        ratio = outputs.log_y - targets.log_y_hat
        y = outputs.log_y.exp()
        of_prediction = y * (ratio - (y * ratio).sum(-1, keepdim=True)) * -hyper.alpha[:, None, None]
        rows = torch.cat([of_policy, of_prediction], -1).flatten(0, 2)
        total: Any = _AddRows.apply(rows, self._places(lesson.obs).flatten(), lifetimes * self.num_states)  # type: ignore[no-untyped-call]
        found: Tensor = total.view(lifetimes, self.num_states, -1) / (steps * copies)
        return found

    def _places(self, obs: Tensor) -> Tensor:
        """Rows of all tables laid end to end, of states [..., L, E]."""
        first = torch.arange(obs.shape[-2], device=obs.device) * self.num_states
        return obs + first[:, None]


class MLPAgents:
    """Agents with one hidden layer of ReLUs for vectors or planes, moved by Adam.

    Args:
        inputs: numbers in an observation, d.
        num_actions: A.
        predictions: m.
        hidden: width of the hidden layer.
    """

    def __init__(self, inputs: int, num_actions: int, predictions: int, hidden: int = 32) -> None:
        self.inputs, self.num_actions, self.predictions, self.hidden = inputs, num_actions, predictions, hidden

    def initial(self, lifetimes: int, generator: torch.Generator) -> State:
        """Weights within +-1 / sqrt(fan in), heads of 0, and Adam's moments of 0."""
        device, out = generator.device, self.num_actions + self.predictions
        bound = 1 / math.sqrt(self.inputs)
        draw = torch.rand(lifetimes, self.inputs + 1, self.hidden, generator=generator, device=device)
        first = (2 * draw - 1) * bound
        params = {"first": first[:, :-1], "first_bias": first[:, -1],
                  "head": torch.zeros(lifetimes, self.hidden, out, device=device),
                  "head_bias": torch.zeros(lifetimes, out, device=device)}  # fmt: skip
        moments = {f"{kind}.{name}": torch.zeros_like(value) for name, value in params.items() for kind in ("m", "v")}
        return params | moments | {"updates": torch.zeros(lifetimes, device=device)}

    def logits(self, state: State, obs: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Population`; ``obs`` are [T, L, E, d]."""
        return vmap(self.logits_of_one, in_dims=(0, 1), out_dims=1)(self.params(state), obs)

    def acting(self, state: State) -> Callable[[Tensor], Tensor]:
        """See :class:`Population`."""
        return lambda obs: log_softmax(self.logits(state, obs[None])[0][0]).exp_().cumsum(-1)

    def update(self, state: State, lesson: Lesson, outputs: Outputs, targets: Targets, hyper: Hyper) -> State:
        """See :class:`Population`. Gradients pass through Adam's moments too."""
        grads = gradients(self.logits_of_one, self.params(state), lesson, targets, hyper)
        return self.adam(state, grads, hyper.learning_rate)

    def adam(self, state: State, grads: State, learning_rate: Tensor) -> State:
        """The agents after one step of Adam up the gradients of their parameters, with a learning rate each, [L]."""
        updates, (a, b) = state["updates"] + 1, _BETAS
        new = {"updates": updates}
        for name, gradient in grads.items():
            new[f"m.{name}"] = first = a * state[f"m.{name}"] + (1 - a) * gradient
            new[f"v.{name}"] = second = b * state[f"v.{name}"] + (1 - b) * gradient**2
            lead = (-1, *[1] * (gradient.dim() - 1))
            mean, square = first / (1 - a**updates).view(lead), second / (1 - b**updates).view(lead)
            step = mean / ((square + _EPS_ROOT).sqrt() + _EPS)
            new[name] = state[name] + learning_rate.view(lead) * step
        return new

    def params(self, state: State) -> State:
        """The weights alone, without Adam's moments."""
        return {name: state[name] for name in ("first", "first_bias", "head", "head_bias")}

    def logits_of_one(self, params: Mapping[str, Tensor], obs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of one agent's policy and prediction."""
        hidden = torch.relu(obs @ params["first"] + params["first_bias"])
        out = hidden @ params["head"] + params["head_bias"]
        return out[..., : self.num_actions], out[..., self.num_actions :]


def gradients(logits_of_one: Any, params: State, lesson: Lesson, targets: Targets, hyper: Hyper) -> State:
    """The gradient of each agent's objective in its parameters, by autograd.

    Args:
        logits_of_one: a function of one agent's parameters and observations [T, E, ...], giving logits of its policy
            [T, E, A] and its prediction [T, E, m].
        params: of all agents, [L, ...].
        lesson: their rollouts.
        targets: of the rule.
        hyper: for the weight of the prediction's loss.

    Returns:
        Shaped as ``params``; gradients pass to ``params`` and ``targets``.
    """

    def objective(
        params: State, obs: Tensor, action: Tensor, pi_hat: Tensor, log_y_hat: Tensor, alpha: Tensor
    ) -> Tensor:
        log_pi, log_y = map(log_softmax, logits_of_one(params, obs))
        return (pi_hat * chosen(log_pi, action) - alpha * divergence(log_y, log_y_hat)).mean()

    of_all = vmap(grad(objective), in_dims=(0, 1, 1, 1, 1, 0))
    found: State = of_all(params, lesson.obs, lesson.action, targets.pi_hat, targets.log_y_hat, hyper.alpha)
    return found


class _AddRows(torch.autograd.Function):
    """Add rows [R, k] to the rows of zeros [size, k] that ``places`` [R] names; the gradient looks them up again."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return rows.new_zeros(size, rows.shape[1]).index_add_(0, places, rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return grad_total.index_select(0, places), None, None
