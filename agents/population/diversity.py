"""How much the members of a population differ: the determinant of a kernel over what they do; and how much it counts.

Parker-Holder et al., "Effective diversity in population based reinforcement learning" (2020), "DvD". A member's
behaviour embedding phi is its actions in n states (section 3.1). With the squared exponential kernel

    K_ij = exp(-|phi_i - phi_j|^2 / (2 l^2))

the diversity of M members is det K (equation 5), from 0, where two members are equal, to 1, where all are far apart:
the volume that they span, so that M members in two clusters count as little diverse, unlike by a mean distance. The
population maximises (1 - lambda) return + lambda diversity, and a bandit chooses lambda by Thompson sampling
(section 4.2).

Difference from the paper: distances are means over the states and not sums, so that the length l has the same meaning
for any number of states.

Example:
    >>> apart, equal = torch.tensor([[[0.0]], [[3.0]]]), torch.ones(2, 1, 1)
    >>> [round(float(determinant(kernel_matrix(x, length=1.0))), 3) for x in (apart, equal)]
    [1.0, 0.0]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import AgentError

_JITTER = 1e-3  # added to the kernel's diagonal under a logarithm


def kernel_matrix(embeddings: Tensor, length: float) -> Tensor:
    """The kernel between all members, [..., M, M].

    Args:
        embeddings: what M members do in n states, [..., M, n, k].
        length: the distance l at which members count as different, in units of the embedding.

    Raises:
        AgentError: for a population of one, embeddings of no states, or a length that is not positive.
    """
    if embeddings.dim() < 3:
        raise AgentError(f"embeddings: got {tuple(embeddings.shape)}; wanted [..., members, states, entries]")
    members, states = embeddings.shape[-3:-1]
    if members < 2:
        raise AgentError(f"population: got {members}; wanted at least 2, as diversity compares members")
    if states < 1 or embeddings.shape[-1] < 1:
        raise AgentError(f"embeddings: got {states} states; wanted at least 1, in which the members act")
    if not length > 0:
        raise AgentError(f"length: got {length:g}; wanted a number above 0")
    # Differences, not |a|^2 + |b|^2 - 2ab: equal members then have distance 0 exactly.
    apart = embeddings.unsqueeze(-3) - embeddings.unsqueeze(-4)
    return torch.exp(-apart.square().sum(-1).mean(-1) / (2 * length**2))


def determinant(kernel: Tensor) -> Tensor:
    """The diversity of a population, det K, 0 to 1, [...]; exactly 0 where two members are the same.

    Args:
        kernel: from :func:`kernel_matrix`, [..., M, M].
    """
    value = torch.linalg.det(kernel.double()).clamp(0.0, 1.0)
    twins = (kernel.triu(1) >= 1).flatten(-2).any(-1)
    return torch.where(twins, torch.zeros_like(value), value)


def log_determinant(kernel: Tensor) -> Tensor:
    """The logarithm of det (K + 0.001 I), [...]: its gradient does not vanish where members are close.

    Args:
        kernel: from :func:`kernel_matrix`, [..., M, M].

    Raises:
        AgentError: if all members are the same: there the gradient is 0, and nothing would drive them apart.
    """
    members = kernel.shape[-1]
    if bool((kernel.detach() >= 1).flatten(-2).all(-1).any()):
        raise AgentError(f"kernel: all {members} members are the same; wanted members that differ, such as by seed")
    eye = torch.eye(members, dtype=kernel.dtype, device=kernel.device)
    return torch.logdet(kernel + _JITTER * eye)


class WeightBandit:
    """Chooses the weight lambda of diversity among a few, by Thompson sampling with Bernoulli rewards.

    Each arm's chance of success has a Beta posterior, from Beta(1, 1). Success is that the best member improved while
    the arm was played.

    Args:
        arms: the weights, each from 0 to below 1, at least two.

    Attributes:
        arm: number of the arm that is played now.
        counts: float64 [arms, 2], 1 + successes and 1 + failures.

    Raises:
        AgentError: for fewer than two arms, or a weight out of range.
    """

    def __init__(self, arms: Sequence[float]) -> None:
        if len(arms) < 2 or len(set(arms)) < len(arms):
            raise AgentError(f"arms: got {tuple(arms)}; wanted two or more different weights, such as 0 and 0.5")
        if not all(0 <= weight < 1 for weight in arms):
            raise AgentError(f"arms: got {tuple(arms)}; wanted weights from 0 to below 1")
        self.arms, self.arm = tuple(float(weight) for weight in arms), 0
        self.counts = np.ones((len(self.arms), 2))

    @property
    def weight(self) -> float:
        """The weight that is played now."""
        return self.arms[self.arm]

    def draw(self, generator: torch.Generator) -> float:
        """Draw a chance of success for each arm and play the arm with the highest; returns its weight."""
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        chance = np.random.default_rng(seed).beta(self.counts[:, 0], self.counts[:, 1])
        self.arm = int(chance.argmax())
        return self.weight

    def note(self, success: bool) -> None:
        """Note whether the best member improved under the arm that is played."""
        self.counts[self.arm, 0 if success else 1] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """The counts and the arm."""
        return {"counts": torch.from_numpy(self.counts.copy()), "arm": torch.tensor(self.arm)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if it is of other arms.
        """
        counts, arm = state["counts"], int(state["arm"])
        if counts.shape != self.counts.shape or not 0 <= arm < len(self.arms) or not bool((counts >= 1).all()):
            raise AgentError(f"bandit: got the counts of {tuple(counts.shape)} arms; wanted {self.counts.shape}")
        self.counts, self.arm = counts.double().numpy().copy(), arm
