"""``mlbits reproduce hypergradients``: a regulariser of a value function, learned by implicit differentiation.

The value of random play in FourRooms is fitted to the returns of a few episodes, by 100 random features of the cell and
least squares with an L2 penalty of weight e^h. Half of the episodes are for the fit, half to judge h:

    inner:  mean of (w.f(s) - G)^2 / 2  +  e^h |w|^2 / 2   over the first half, minimised by w
    outer:  mean of (w.f(s) - G)^2 / 2                     over the second half, minimised by h

h is learned by hypergradients (``agents/maths/implicit_gradients``), from a warm and a cold start. Beside it: no
penalty, and a constant tuned on the second half, over a grid with an exact fit each. All are judged by their error
against the exact values, which dynamic programming tells.

Example:
    mlbits reproduce hypergradients
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import mlbits
from mlbits.agents.maths.implicit_gradients import tune
from mlbits.agents.planning.dynamic_programming import backward_induction, uniform_policy
from mlbits.envs.exact.transition_table import table_of
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay.statistics import mean_interval

ENV, DISCOUNT = "mlbits/FourRooms-v0", 0.97
EPISODES, FEATURES = 12, 100
GRID = tuple(np.arange(-12.0, 3.1, 0.5))  # log weights; the constant is the best of them on the second half
NO_PENALTY = -16.0
WORSE = 1.1  # how much larger the learned weight's error may be than the tuned constant's


class Data(NamedTuple):
    """Features float64 [N, F] and returns [N] of the steps of some episodes."""

    features: Tensor
    returns: Tensor


def reproduce(quick: bool = False, seeds: int = 20) -> dict[str, Any]:
    """Fit by each way and compare.

    Args:
        quick: five seeds.
        seeds: number of seeds, each with episodes and features of its own.

    Returns:
        "rows" (way, mean error against the exact values, its 95% interval over the seeds, mean log weight), "scale"
        (the exact values' own deviation) and "met": whether the learned weight, from either start, is no more than a
        tenth worse than the tuned constant, and better than none.

    Raises:
        MlbitsError: for a wrong argument.
    """
    if seeds < 2:
        raise ReproductionError(f"seeds: got {seeds}; wanted at least 2")
    cells, exact = exact_values()
    found = [_one(seed, cells, exact) for seed in range(5 if quick else seeds)]
    rows: list[dict[str, Any]] = []
    for way in found[0]:
        errors, logs = np.array([one[way] for one in found]).T
        mean, (low, high) = mean_interval(torch.tensor(errors))
        rows.append({"way": way, "error": mean, "low": low, "high": high, "log_weight": float(logs.mean())})
    print_table(
        f"Root mean square error of V from {EPISODES} episodes of {ENV}; its own deviation is {exact.std():.3f}",
        ["penalty", "error", "95% from", "to", "log weight"],
        [list(row.values()) for row in rows],
    )
    by = {row["way"]: row["error"] for row in rows}
    learned = [by["learned, warm"], by["learned, cold"]]
    met = max(learned) <= WORSE * by["tuned constant"] and max(learned) < by["none"]
    return {"rows": rows, "scale": float(exact.std()), "met": bool(met)}


def exact_values() -> tuple[np.ndarray, np.ndarray]:
    """The cells that can be occupied, int64 [S], as they are observed, and random play's exact V there, [S]."""
    table = table_of(ENV)
    assert table.states is not None
    value = backward_induction(table, discount=DISCOUNT, policy=uniform_policy(table)).value
    return table.states["cell"].astype(np.int64), value


def play(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Cells [L] and discounted returns [L] of the steps of each of some episodes of random play."""
    batch = mlbits.make_batch(ENV, EPISODES, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    cells, rewards, going = [], [], torch.ones(EPISODES, dtype=torch.bool)
    lengths = torch.zeros(EPISODES, dtype=torch.int64)
    while going.any():  # ended copies go on with another episode, which is not used
        cells.append(batch.obs.flatten().clone())
        lengths += going
        step = batch.step(torch.randint(batch.action.nvec[0], (EPISODES,), generator=generator))
        rewards.append(step.reward.flatten().double())
        going &= ~(step.terminated | step.truncated)
    found = []
    for k, length in enumerate(lengths.tolist()):
        returns, after = torch.zeros(length, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for t in reversed(range(length)):
            returns[t] = after = rewards[t][k] + DISCOUNT * after
        found.append((torch.stack([row[k] for row in cells[:length]]), returns))
    return found


def _one(seed: int, cells: np.ndarray, exact: np.ndarray) -> dict[str, tuple[float, float]]:
    """For each way, the error against the exact values and the log weight, of one seed's episodes and features."""
    generator = torch.Generator().manual_seed(1000 + seed)
    height, width = mlbits.make_game(ENV).layout["kinds"].shape
    directions = 4 * torch.randn(2, FEATURES, generator=generator, dtype=torch.float64)
    offsets = 6 * torch.rand(FEATURES, generator=generator, dtype=torch.float64)

    def features(cell: Tensor) -> Tensor:
        place = torch.stack([cell // width / height, cell % width / width], 1).double()
        return torch.cos(place @ directions + offsets) * (2 / FEATURES) ** 0.5

    def data(episodes: list[tuple[Tensor, Tensor]]) -> Data:
        return Data(features(torch.cat([cell for cell, _ in episodes])), torch.cat([g for _, g in episodes]))

    episodes = play(seed)
    fit, judge = data(episodes[: EPISODES // 2]), data(episodes[EPISODES // 2 :])
    everywhere, truth = features(torch.from_numpy(cells)), torch.from_numpy(exact)

    def error(w: Tensor) -> float:
        return float((everywhere @ w - truth).square().mean().sqrt())

    constant = min(GRID, key=lambda h: float(_loss(judge, solve(fit, h))))
    found = {
        "none": (error(solve(fit, NO_PENALTY)), NO_PENALTY),
        "tuned constant": (error(solve(fit, constant)), constant),
    }
    for begin in ("warm", "cold"):
        tuned = tune(
            lambda w, h: _loss(fit, w[0]) + 0.5 * h.exp() * w[0] @ w[0], lambda w, h: _loss(judge, w[0]),
            [torch.zeros(FEATURES, dtype=torch.float64)], torch.tensor(0.0, dtype=torch.float64), begin=begin,
            inner_steps=100, inner_rate=1.0, outer_steps=60, outer_rate=0.25, terms=50,
        )  # fmt: skip
        found[f"learned, {begin}"] = (error(tuned.parameters[0]), float(tuned.setting))
    return found


def solve(data: Data, log_weight: float) -> Tensor:
    """The exact fit with a penalty, [F]."""
    count, size = data.features.shape
    curvature = data.features.t() @ data.features / count + np.exp(log_weight) * torch.eye(size, dtype=torch.float64)
    return torch.linalg.solve(curvature, data.features.t() @ data.returns / count)


def _loss(data: Data, w: Tensor) -> Tensor:
    return 0.5 * (data.features @ w - data.returns).square().mean()
