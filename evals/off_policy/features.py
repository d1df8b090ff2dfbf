"""Features of observations and actions for fitted Q evaluation: one-hot pairs of a table, or random Fourier features.

Random Fourier features (Rahimi and Recht 2007) approximate a Gaussian kernel: phi_j(x) = cos(w_j . x + b_j), with w_j
from N(0, 1 / l_j^2) and b_j from U[0, 2 pi), and a constant. x is the observation, standardised over the data, and the
action (bounds scaled to -1 and 1; choices as one-hot vectors). The lengths l_j are
drawn between a quarter and all of the root of x's number of dimensions, evenly in their logarithms: one length for all
would be too short for smooth values, or too long for sharp ones. They suit observations of up to some tens of numbers;
nothing here suits images.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from scipy import sparse
from torch import Tensor

from mlbits.agents.memory.dataset import Dataset
from mlbits.evals.off_policy.estimators import Array, OffPolicyError
from mlbits.evals.off_policy.model import Features
from mlbits.evals.off_policy.policies import TargetPolicy

WIDEST = 1000  # numbers of an observation as a vector
_MOST_CELLS = 1_000_000  # pairs of observation and action in a table
_LENGTHS = (0.25, 1.0)  # of the kernels, in units of the root of the number of dimensions
_SMALL = 64  # pairs up to which arrays are faster than sparse matrices
_CHUNK = 1 << 15


def features_of(
    data: Dataset, policy: TargetPolicy, *, size: int = 300, draws: int = 8, seed: int = 0
) -> tuple[Features, str]:
    """Features of a dataset under a policy: a table if observations and actions are Discrete, else random ones.

    Args:
        data: the dataset.
        policy: the target policy.
        size: number of random features.
        draws: actions drawn at each observation, where the expectation over actions is not a sum over all of them.
        seed: of the random features and the drawn actions.

    Returns:
        The features, and what they are, for the user.

    Raises:
        OffPolicyError: for observations with too many numbers, such as images.
    """
    seen, acts = data.observation_space, data.action_space
    if isinstance(seen, spaces.Discrete) and isinstance(acts, spaces.Discrete) and seen.n * acts.n <= _MOST_CELLS:
        probabilities = policy.probabilities(data.obs, data.mask).numpy()
        state = data.obs.reshape(-1).long().numpy()
        return table_features(state, data.action.long().numpy(), probabilities, rows_before(data)), "a table"
    generator = torch.Generator().manual_seed(seed)
    vectors = standardised(as_vectors(seen, data.obs))
    encode = _action_encoder(acts, data.action)
    actions, before, count = encode(data.action), _before(data), len(vectors)
    project = _Fourier(vectors.shape[1] + actions.shape[1], size, generator)
    logged = _in_chunks(lambda rows: project(vectors[before[rows]], actions[rows]), data.num_steps)
    if isinstance(acts, spaces.Discrete):
        chances = policy.probabilities(data.obs, data.mask).float()
        every = encode(torch.arange(int(acts.n)))

        def mean(rows: slice) -> Tensor:
            seen = vectors[rows]
            each = [
                project(seen, one.expand(len(seen), -1)) * p[:, None]
                for one, p in zip(every, chances[rows].T, strict=True)
            ]
            return torch.stack(each).sum(0)

    else:
        drawn = [encode(one) for one in policy.draws(data.obs, data.mask, draws, generator)]

        def mean(rows: slice) -> Tensor:
            return torch.stack([project(vectors[rows], one[rows]) for one in drawn]).mean(0)

    return Features(logged.numpy(), _in_chunks(mean, count).numpy()), f"{size} random Fourier features"


def table_features(state: Any, action: Any, probabilities: Array, step_rows: Any) -> Features:
    """One-hot features of pairs (s, a).

    Args:
        state: number of the state of each observation, int [N + E].
        action: logged actions, int [N].
        probabilities: pi(a | s) at each observation, [N + E, A].
        step_rows: row of the observation before each step, int [N].
    """
    rows, actions = probabilities.shape
    size = (int(state.max()) + 1) * actions
    cells = state[step_rows] * actions + action
    logged = sparse.csr_matrix((np.ones(len(cells)), cells, np.arange(len(cells) + 1)), (len(cells), size))
    columns = (state[:, None] * actions + np.arange(actions)).reshape(-1)
    starts = np.arange(0, rows * actions + 1, actions)
    expected = sparse.csr_matrix((probabilities.reshape(-1), columns, starts), (rows, size))
    if size <= _SMALL:
        logged, expected = logged.toarray(), expected.toarray()
    return Features(logged, expected, table=True, ridge=1e-9)


def rows_before(data: Dataset) -> Any:
    """Row of the observation before each step, int64 [N], as an array."""
    return _before(data).numpy()


def as_vectors(space: gym.Space[Any], obs: Any) -> Tensor:
    """Observations [N, ...] of a space as vectors, float32 [N, d], choices as one-hot vectors.

    Raises:
        OffPolicyError: if they have more than 1,000 numbers.
    """
    width = spaces.flatdim(space)
    if width > WIDEST:
        raise OffPolicyError(f"observations of {width:,} numbers; a model is fitted to at most {WIDEST:,}")
    if isinstance(space, spaces.Dict):
        return torch.cat([as_vectors(part, obs[key]) for key, part in space.items()], 1)
    if isinstance(space, spaces.Discrete):
        return torch.nn.functional.one_hot(obs.reshape(-1).long(), int(space.n)).float()
    if isinstance(space, spaces.MultiDiscrete):
        parts = zip(obs.reshape(len(obs), -1).long().T, space.nvec.reshape(-1).tolist(), strict=True)
        return torch.cat([torch.nn.functional.one_hot(column, n).float() for column, n in parts], 1)
    return obs.reshape(len(obs), -1).float()


def standardised(vectors: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the rows, within -10 and 10; columns that never change become 0."""
    std, mean = torch.std_mean(vectors.double(), 0)
    return ((vectors.double() - mean) / std.clamp(min=1e-6)).clamp(-10, 10).float()


class _Fourier:
    """Random Fourier features of (observation, action).

    Args:
        width: numbers of both together.
        size: number of features, the constant included.
        generator: the source of the features.
    """

    def __init__(self, width: int, size: int, generator: torch.Generator) -> None:
        low, high = (math.log(bound * math.sqrt(width)) for bound in _LENGTHS)
        length = torch.exp(low + (high - low) * torch.rand(size - 1, generator=generator))
        self.weight = torch.randn(width, size - 1, generator=generator) / length
        self.shift = torch.rand(size - 1, generator=generator) * (2 * math.pi)
        self.scale = math.sqrt(2 / (size - 1))

    def __call__(self, vectors: Tensor, actions: Tensor) -> Tensor:
        """[N, size]."""
        angle = torch.addmm(self.shift, torch.cat([vectors, actions], 1), self.weight)
        return torch.cat([angle.cos_().mul_(self.scale), torch.ones(len(angle), 1)], 1)


def _action_encoder(space: gym.Space[Any], logged: Tensor) -> Any:
    """A function from actions [N, ...] to vectors [N, k] whose numbers vary by about one."""
    if not isinstance(space, spaces.Box):
        return lambda actions: as_vectors(space, actions)
    low, high = (torch.from_numpy(np.asarray(end, np.float64).reshape(-1)) for end in (space.low, space.high))
    bounded = low.isfinite() & high.isfinite()
    std, mean = torch.std_mean(logged.reshape(len(logged), -1).double(), 0)
    center = torch.where(bounded, (low + high) / 2, mean)
    half = torch.where(bounded, (high - low) / 2, std.clamp(min=1e-6))
    return lambda actions: ((actions.reshape(len(actions), -1).double() - center) / half).float()


def _before(data: Dataset) -> Tensor:
    return torch.arange(data.num_steps) + data.episode_of_step


def _in_chunks(of: Any, count: int) -> Tensor:
    return torch.cat([of(slice(first, first + _CHUNK)) for first in range(0, count, _CHUNK)])
