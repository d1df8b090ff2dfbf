"""The policy that made a dataset, estimated from its actions where their probabilities were not recorded.

Discrete observations and actions: frequencies. Otherwise a network by maximum likelihood, stopped early on a fifth of
the episodes: a softmax for choices, a mixture of Gaussians for continuous actions. A mixture, because data often come
from several policies; clipped at the bounds of the action space, as agents clip what they play. Weights with estimated
probabilities often have less variance than with the true ones (Hanna, Niekum and Stone 2019), but they are biased where
the estimate is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from mlbits.agents.agent import network_generator
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.maths.action_distributions import Categorical, DiagonalGaussian, MultiCategorical, distribution_for
from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.mlp import MLP
from mlbits.evals.off_policy.features import as_vectors, standardised

_COMPONENTS = 5
_HIDDEN = (128, 128)
_BATCH, _ROUND, _ROUNDS, _PATIENCE = 256, 250, 20, 2  # rounds of gradient steps; without improvement, until it stops
_HELD_OUT = 0.2
_CHUNK = 1 << 15
_LOG_STD = (-6.0, 2.0)


def estimated_log_prob(data: Dataset, before: Tensor, seed: int = 0) -> tuple[Tensor, str]:
    """Log b(a|s) of the logged actions under an estimated behaviour policy.

    Args:
        data: the dataset.
        before: row of the observation before each step, int64 [N].
        seed: of the initial weights and minibatches.

    Returns:
        [N], float64, and what was fitted, for the user.

    Raises:
        OffPolicyError: for observations with too many numbers, such as images.
    """
    if isinstance(data.observation_space, spaces.Discrete) and isinstance(data.action_space, spaces.Discrete):
        state, actions = data.obs.reshape(-1)[before].long(), int(data.action_space.n)
        count = torch.bincount(state * actions + data.action, minlength=int(data.observation_space.n) * actions)
        count = count.view(-1, actions).double()
        chance = count / count.sum(1, keepdim=True).clamp(min=1)
        return chance[state, data.action].log(), "frequencies"
    vectors = standardised(as_vectors(data.observation_space, data.obs))[before]
    network = _Network(data, vectors.shape[1], network_generator(seed))
    log_loss = _train(network, data, vectors, before, seed)
    rows = torch.arange(data.num_steps).split(_CHUNK)
    with torch.no_grad():
        found = torch.cat(
            [network.log_prob(vectors[part], _mask(data, before[part]), data.action[part]) for part in rows]
        )
    kind = "a mixture of Gaussians" if network.mixture else "a softmax"
    return found.double(), f"{kind} by a network, held-out log likelihood {-log_loss:.3g} per action"


class _Network(torch.nn.Module):
    """Log probabilities of actions given observations as vectors.

    Args:
        data: for its action space.
        width: numbers of an observation.
        generator: the source of initial weights.
    """

    def __init__(self, data: Dataset, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.distribution = distribution_for(data.action_space)
        self.mixture = isinstance(self.distribution, DiagonalGaussian)
        outputs = self.distribution.size
        self.features = Features(spaces.Box(-np.inf, np.inf, (width,), np.float32), generator)
        out = _COMPONENTS * (outputs + 1) if self.mixture else outputs
        self.mlp = MLP(
            self.features, _HIDDEN, out, generator, activation="tanh", head_gain=0.5 if self.mixture else 0.01
        )

    def log_prob(self, vectors: Tensor, mask: Tensor | None, action: Tensor) -> Tensor:
        """[N]."""
        out = self.mlp.forward(self.features.forward(vectors))
        if not isinstance(self.distribution, DiagonalGaussian):
            choices: Categorical | MultiCategorical = self.distribution
            return choices.log_prob(out, mask, action)
        weight = torch.log_softmax(out[:, :_COMPONENTS], -1)
        mean, log_std = out[:, _COMPONENTS:].reshape(len(out) * _COMPONENTS, -1).chunk(2, -1)
        params = torch.cat([mean, log_std.clamp(*_LOG_STD)], -1)
        each = self.distribution.played_log_prob(params, None, action.repeat_interleave(_COMPONENTS, 0))
        return torch.logsumexp(weight + each.view(-1, _COMPONENTS), -1)


def _train(network: _Network, data: Dataset, vectors: Tensor, before: Tensor, seed: int) -> float:
    """Fit by maximum likelihood; returns the loss on the held-out episodes."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.randperm(data.num_episodes, generator=generator)[: int(_HELD_OUT * data.num_episodes)]
    is_held = torch.isin(data.episode_of_step, held)
    inner, outer = (~is_held).nonzero()[:, 0], is_held.nonzero()[:, 0]
    outer = outer if len(outer) else inner
    optimizer = FlatAdam(network.parameters(), 1e-3, 10.0)

    def loss(rows: Tensor) -> Tensor:
        return -network.log_prob(vectors[rows], _mask(data, before[rows]), data.action[rows]).mean()

    best, kept, waited = np.inf, {}, 0
    for _ in range(_ROUNDS):
        with torch.no_grad():
            now = float(torch.stack([loss(part) * len(part) for part in outer.split(_CHUNK)]).sum() / len(outer))
        if now < best - 1e-4:
            best, waited = now, 0
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        else:
            waited += 1
            if waited == _PATIENCE:
                break
        for _ in range(_ROUND):
            chosen = inner[torch.randint(len(inner), (_BATCH,), generator=generator)]
            optimizer.zero_grad()
            loss(chosen).backward()
            optimizer.step()
    network.load_state_dict(kept)
    return best


def _mask(data: Dataset, rows: Tensor) -> Any:
    return None if data.mask is None else data.mask[rows]
