"""Regret matching plus: one step of it, compiled, for all searches; and whole tables of two seats.

Hart and Mas-Colell, "A Simple Adaptive Procedure Leading to Correlated Equilibrium" (2000), with the "plus" of
Tammelin, "Solving Large Imperfect Information Games Using CFR+" (2014). With q_t(a) the value of
action a at iteration t against what the others play, and sigma_t the mixture:

    v_t = sum_a sigma_t(a) q_t(a)                        (1)
    R_t(a) = max(0, R_{t-1}(a) + q_t(a) - v_t)           (2)
    sigma_{t+1}(a) = R_t(a) / sum_b R_t(b), uniform where all R_t are 0   (3)

The average that approaches an equilibrium (of two seats with opposite payoffs) is linear: sum_t t sigma_t / sum_t t.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.envs.engine.kernel_cache import njit


@njit(cache=True, nogil=True, error_model="numpy")
def regret_step(regret: Any, mixture: Any, q: Any, valid: Any) -> None:
    """Equations (1) to (3) in place, for one seat's actions [C]; those that are not valid have no part in it."""
    mean, left, count = 0.0, 0.0, 0
    for a in range(len(regret)):
        mean += mixture[a] * q[a] if valid[a] else 0.0
    for a in range(len(regret)):
        regret[a] = max(0.0, regret[a] + q[a] - mean) if valid[a] else 0.0
        left += regret[a]
        count += valid[a]
    for a in range(len(regret)):
        even = regret[a] / left if left > 0 else 1.0 / count
        mixture[a] = even if valid[a] else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _steps(regret: Any, mixture: Any, q: Any, valid: Any) -> None:
    for row in range(len(regret)):
        regret_step(regret[row], mixture[row], q[row], valid[row])


def step(regret: Tensor, mixture: Tensor, q: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """One step of regret matching plus: new regrets, never negative, and the next mixture, float64 [..., C]."""
    size = regret.shape[-1]
    parts = [np.array(part.cpu().double().numpy().reshape(-1, size)) for part in (regret, mixture, q)]
    _steps(*parts, valid.cpu().numpy().reshape(-1, size))
    new, following = (torch.from_numpy(part).view(regret.shape).to(regret.device) for part in parts[:2])
    return new, following


def match(regret: Tensor, valid: Tensor) -> Tensor:
    """Probabilities in proportion to positive regrets, uniform where there are none, float64 [..., C]."""
    nothing = torch.zeros_like(regret)
    return step(regret.clamp(min=0), nothing, nothing, valid)[1]


def solve(payoffs: Tensor, valid: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Regret matching plus on whole tables of two seats.

    Args:
        payoffs: float64 [M, 2, C, C], the seat that is paid, seat 0's choice, seat 1's.
        valid: which choices count, bool [M, 2, C].
        iterations: number of steps.

    Returns:
        The last mixtures and their linear averages, [M, 2, C].
    """
    regret = torch.zeros(valid.shape, dtype=torch.float64, device=valid.device)
    mixture = match(regret, valid)
    average = torch.zeros_like(regret)
    for t in range(1, iterations + 1):
        average = average + t * mixture
        regret, mixture = step(regret, mixture, against(payoffs, mixture), valid)
    return mixture, average / (iterations * (iterations + 1) / 2)


def against(payoffs: Tensor, mixture: Tensor) -> Tensor:
    """What every choice of two seats is worth against the other's mixture, [M, 2, C]; see :func:`solve`."""
    mine, theirs = payoffs[:, 0], payoffs[:, 1].transpose(1, 2)
    one, two = mine @ mixture[:, 1].unsqueeze(2), theirs @ mixture[:, 0].unsqueeze(2)
    return torch.stack([one.squeeze(2), two.squeeze(2)], 1)
