"""The values that the meta-objective's advantages need: one function per lifetime, learned as its agent learns.

They serve the policy gradient on a rule alone; no agent sees them. Advantages are generalised advantage estimates
(:mod:`mlbits.agents.maths.returns`), which keep terminated and truncated apart, scaled to mean 0 and variance 1 within
each lifetime, so that no lifetime's rewards outweigh another's.

Shapes: T steps, L lifetimes, E copies each, S states.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mlbits.agents.learned_rules.populations import Lesson, MLPAgents, State
from mlbits.agents.maths.returns import gae


class Values(Protocol):
    """A value function for each lifetime."""

    state: State

    def of(self, obs: Tensor) -> Tensor:
        """V of observations [T, L, E, ...], [T, L, E]."""

    def fit(self, obs: Tensor, target: Tensor) -> None:
        """Move V of these observations towards their targets [T, L, E]."""

    def forget(self, which: Tensor) -> None:
        """Start again in the lifetimes ``which``, bool [L]."""


class TabularValues:
    """A number for each state, moved a fraction of the way to the mean of its targets in a rollout.

    Args:
        lifetimes: L.
        num_states: S.
        rate: the fraction, 0..1.
        device: where they are kept.
    """

    def __init__(self, lifetimes: int, num_states: int, rate: float, device: torch.device | str = "cpu") -> None:
        self.num_states, self.rate = num_states, rate
        self.state: State = {"value": torch.zeros(lifetimes, num_states, device=device)}

    def of(self, obs: Tensor) -> Tensor:
        """See :class:`Values`."""
        return self.state["value"].view(-1)[self._places(obs)]

    def fit(self, obs: Tensor, target: Tensor) -> None:
        """See :class:`Values`."""
        value, places = self.state["value"].view(-1), self._places(obs).flatten()
        error = torch.stack([(target.flatten() - value[places]), torch.ones_like(target).flatten()], 1)
        total, count = torch.zeros(len(value), 2, device=value.device).index_add_(0, places, error).unbind(1)
        value += self.rate * total / count.clamp(min=1)

    def forget(self, which: Tensor) -> None:
        """See :class:`Values`."""
        self.state["value"][which] = 0

    def _places(self, obs: Tensor) -> Tensor:
        return obs + (torch.arange(obs.shape[1], device=obs.device) * self.num_states)[:, None]


class MLPValues:
    """An MLP with one hidden layer for each lifetime, moved by one step of Adam on the squared error a rollout.

    Args:
        lifetimes: L.
        inputs: numbers in an observation, d.
        learning_rate: of Adam.
        generator: the source of initial weights; they are on its device.
    """

    def __init__(self, lifetimes: int, inputs: int, learning_rate: float, generator: torch.Generator) -> None:
        self.learning_rate, self._generator = learning_rate, generator
        self._network = MLPAgents(inputs, 1, 0)
        self.state = self._network.initial(lifetimes, generator)

    def of(self, obs: Tensor) -> Tensor:
        """See :class:`Values`."""
        return self._network.logits(self.state, obs)[0][..., 0]

    def fit(self, obs: Tensor, target: Tensor) -> None:
        """See :class:`Values`."""

        def objective(params: State, obs: Tensor, target: Tensor) -> Tensor:
            return -0.5 * (self._network.logits_of_one(params, obs)[0][..., 0] - target).square().mean()

        params = self._network.params(self.state)
        grads = torch.func.vmap(torch.func.grad(objective), in_dims=(0, 1, 1))(params, obs, target)
        rate = torch.full((obs.shape[1],), self.learning_rate, device=obs.device)
        self.state = self._network.adam(self.state, grads, rate)

    def forget(self, which: Tensor) -> None:
        """See :class:`Values`."""
        fresh = self._network.initial(len(which), self._generator)
        self.state = replaced(self.state, fresh, which)


def advantages(values: Values, lesson: Lesson, *, discount: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates of a rollout, [T, L, E], after which the values learn from it.

    Args:
        values: of the same lifetimes.
        lesson: the rollout.
        discount: gamma, 0..1.
        gae_lambda: lambda, 0..1.
    """
    value, following = values.of(lesson.obs), values.of(lesson.next_obs)
    following = following.masked_fill(lesson.terminated, 0.0)

    def one_seat(tensor: Tensor) -> Tensor:
        return tensor.flatten(1, 2)[..., None]

    found = gae(
        one_seat(lesson.reward), one_seat(value), one_seat(following),
        lesson.terminated.flatten(1, 2), lesson.truncated.flatten(1, 2), discount=discount, gae_lambda=gae_lambda,
    ).view_as(value)  # fmt: skip
    values.fit(lesson.obs, found + value)
    return found


def normalised(advantage: Tensor) -> Tensor:
    """Advantages [T, L, E] with mean 0 and variance 1 within each lifetime; 0 where all of its are equal."""
    centred = advantage - advantage.mean((0, 2), keepdim=True)
    return centred / (centred.square().mean((0, 2), keepdim=True).sqrt() + 1e-8)


def replaced(state: State, fresh: State, which: Tensor) -> State:
    """A state with the lifetimes ``which``, bool [L], taken from another."""
    return {
        name: torch.where(which.view(-1, *[1] * (value.dim() - 1)), fresh[name], value) for name, value in state.items()
    }
