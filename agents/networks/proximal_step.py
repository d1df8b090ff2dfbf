"""A learning rate that is learned as training goes on: amortised proximal optimisation.

Bae et al., "Amortized proximal optimization" (NeurIPS 2022). Now and then, before a gradient step along d (Adam's
direction, say), the step is tried: theta' = theta - eta d. The logarithm of eta then moves down the derivative of

    Q(eta) = loss(theta') + function_weight D(theta', theta) + weight_weight / 2 |theta' - theta|^2

with the loss on the minibatch of the step and D, how far outputs have moved, on another one (for a policy its KL
divergence). d is a constant in Q, so that with g, the gradient of the first two terms at theta',

    dQ / d log eta = -eta d . g + weight_weight eta^2 |d|^2

which takes one more pass forward and backward, and no second derivatives.

Differs: the paper moves log eta by RMSprop; here its moving average of squares is corrected for its start at 0 (as
Adam's is), without which the first move would be ten times as long as later ones.

Example:
    >>> size = StepSize(0.1, rate=0.5)
    >>> size.follow(derivative=2.0)
    >>> round(size.learning_rate, 4)  # a factor of e^-0.5
    0.0607
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mlbits.agents.agent import DivergedError
from mlbits.agents.kernels import shards
from mlbits.agents.kernels.flat_adam import FlatAdam

DECAY, EPS = 0.99, 1e-12  # of RMSprop
LEAST, MOST = 1e-8, 10.0  # of the learning rate


class StepSize:
    """A learning rate and what its adaptation remembers.

    Args:
        start: the first learning rate.
        rate: RMSprop's step size: how far its logarithm moves at a time, about.
        weight_weight: weight of half the squared distance that the parameters move.
    """

    def __init__(self, start: float, rate: float = 0.1, weight_weight: float = 0.0) -> None:
        self.rate, self.weight_weight = rate, weight_weight
        self._log, self._square, self._moves = math.log(min(max(start, LEAST), MOST)), 0.0, 0

    @property
    def learning_rate(self) -> float:
        """The learning rate now."""
        return math.exp(self._log)

    def derivative(self, direction: Tensor, ahead: Tensor) -> float:
        """The derivative of Q along log eta.

        Args:
            direction: d, [n].
            ahead: the gradient of loss and function-space term at theta - eta d, [n].

        Raises:
            DivergedError: if it is not finite.
        """
        eta = self.learning_rate
        derivative = -eta * torch.dot(direction, ahead) + self.weight_weight * eta**2 * torch.dot(direction, direction)
        if not math.isfinite(found := float(derivative)):
            raise DivergedError("derivative of the learning rate", found)
        return found

    def follow(self, derivative: float) -> None:
        """Move down a derivative."""
        self._moves += 1
        self._square = DECAY * self._square + (1 - DECAY) * derivative**2
        scale = math.sqrt(self._square / (1 - DECAY**self._moves)) + EPS
        self._log = min(max(self._log - self.rate * derivative / scale, math.log(LEAST)), math.log(MOST))

    def look_ahead(self, optimizer: FlatAdam, gradient_ahead: Callable[[], None]) -> None:
        """Adapt before a step: try it, follow the derivative there, and put parameters and gradient back.

        Args:
            optimizer: with the gradient of the step that is about to be made.
            gradient_ahead: replaces that gradient by the one of loss and function-space term at the parameters as they
                then are, those after the step.
        """
        flat, grad = optimizer.vectors.flat, optimizer.vectors.grad
        shards.mean_gradient(grad, flat)
        here, step = flat.clone(), grad.clone()
        direction = optimizer.direction()
        flat.sub_(direction, alpha=self.learning_rate)
        gradient_ahead()
        shards.mean_gradient(grad, flat)
        derivative = self.derivative(direction, grad)
        flat.copy_(here)
        grad.copy_(step)
        self.follow(derivative)

    def state_dict(self) -> dict[str, Tensor]:
        """The logarithm of the learning rate, the moving average and the number of moves."""
        return {"step_size": torch.tensor([self._log, self._square, float(self._moves)], dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        self._log, self._square, moves = state["step_size"].tolist()
        self._moves = int(moves)
