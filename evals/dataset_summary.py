"""``mlbits data DATASET``: what a dataset holds, as a table and a picture.

**Coverage.** How many of the observations are distinct, and how evenly they lie: the fraction of occupied cells of a
20 x 20 grid over the first two principal components of the (standardised) observations, each between its 0.5% and
99.5% quantiles. For a single index it is the fraction of its values that were seen. Coverage of actions is the
perplexity of their distribution, exp(entropy): 4 for four equally frequent actions, 1 for a single one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.agents.memory.dataset import Dataset

_LEVELS = {"lowest": 0.0, "10%": 0.1, "25%": 0.25, "median": 0.5, "75%": 0.75, "90%": 0.9, "highest": 1.0}
_SHOWN = 12  # actions and dimensions in the table
_CELLS = 20
_MOST_ROWS = 100_000  # observations of which the principal components are taken


def summarise(data: Dataset) -> dict[str, Any]:
    """The figures of a dataset.

    Returns:
        name, env, settings, episodes, steps; "return", "length" and "reward": mean, std and quantiles; terminated and
        truncated (episodes); actions (see :func:`_actions`); coverage; log_prob, mask and seeds: whether they are
        recorded.
    """
    last = data.starts[1:] - 1
    terminated = int(data.terminated[last].sum())
    assert data.seeds is not None
    return {
        "name": data.name, "env": data.env, "settings": dict(data.settings), "episodes": data.num_episodes,
        "steps": data.num_steps, "return": _spread(data.returns), "length": _spread(data.lengths),
        "reward": _spread(data.reward), "terminated": terminated, "truncated": data.num_episodes - terminated,
        "observation_space": str(data.observation_space), "action_space": str(data.action_space),
        "actions": _actions(data), "coverage": _coverage(data), "log_prob": data.log_prob is not None,
        "mask": data.mask is not None, "seeds": int((data.seeds >= 0).sum()),
    }  # fmt: skip


def _spread(values: torch.Tensor) -> dict[str, float]:
    array = values.double().numpy()
    quantiles = np.quantile(array, list(_LEVELS.values()))
    return {"mean": float(array.mean()), "std": float(array.std())} | dict(
        zip(_LEVELS, map(float, quantiles), strict=True)
    )


def _actions(data: Dataset) -> dict[str, Any]:
    """Fractions of each action [A] (of each choice [k][n] for several), or mean, std and fraction at a bound [k]."""
    space, action = data.action_space, data.action
    if isinstance(space, spaces.Box):
        at = (action <= torch.from_numpy(space.low).float()) | (action >= torch.from_numpy(space.high).float())
        figures = {"mean": action.double().mean(0), "std": action.double().std(0, correction=0)}
        return {name: value.tolist() for name, value in figures.items()} | {"at_bound": at.double().mean(0).tolist()}
    if isinstance(space, spaces.Discrete):
        counts = torch.bincount(action, minlength=int(space.n)).double() / len(action)
        return {"fraction": counts.tolist(), "perplexity": _perplexity(counts)}
    assert isinstance(space, spaces.MultiDiscrete)
    parts = [torch.bincount(action[:, k], minlength=int(n)).double() / len(action) for k, n in enumerate(space.nvec)]
    return {"fraction": [part.tolist() for part in parts], "perplexity": [_perplexity(part) for part in parts]}


def _perplexity(p: torch.Tensor) -> float:
    return math.exp(-float(torch.special.xlogy(p, p).sum()))


def _coverage(data: Dataset) -> dict[str, Any]:
    space = data.observation_space
    if isinstance(space, spaces.Discrete):
        seen = len(torch.unique(data.obs))
        return {"distinct": seen, "of": int(space.n), "occupied": seen / int(space.n)}
    rows = _vectors(data)
    held = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    distinct = len(np.unique(held))
    grid, explained = _grid(rows)
    return {
        "distinct": distinct, "of": len(rows), "sampled": len(rows) < data.num_steps + data.num_episodes,
        "occupied": float((grid > 0).mean()), "explained": explained,
        "low": rows.min(0)[:_SHOWN].tolist(), "high": rows.max(0)[:_SHOWN].tolist(),
    }  # fmt: skip


def _vectors(data: Dataset) -> NDArray[np.float32]:
    """Observations as vectors, float32 [n, d], at most :data:`_MOST_ROWS`, evenly spaced."""
    parts = list(data.obs.values()) if isinstance(data.obs, dict) else [data.obs]
    step = max(1, math.ceil(len(parts[0]) / _MOST_ROWS))
    size = sum(part[0].numel() for part in parts)
    step = max(step, math.ceil(len(parts[0]) * size / 5e7))
    return np.concatenate([part[::step].reshape(len(part[::step]), -1).float().numpy() for part in parts], 1)


def _plane(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """The first two principal components of standardised vectors [n, 2], and the variance that they explain."""
    values = rows[:, :2048].astype(np.float64)
    spread = values.std(0)
    values = (values - values.mean(0))[:, spread > 0] / spread[spread > 0]
    if values.shape[1] == 0:
        return np.zeros((len(rows), 2)), 1.0
    if values.shape[1] == 1:
        return np.concatenate([values, np.zeros_like(values)], 1), 1.0
    power, axes = np.linalg.eigh(values.T @ values / len(values))
    real = power[[-1, -2]] > 1e-9 * power.sum()  # else rounding errors of observations on a line
    return values @ axes[:, [-1, -2]] * real, float(power[-2:].sum() / power.sum())


def _grid(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Counts of vectors in the cells of a grid over their first two principal components, and what these explain."""
    plane, explained = _plane(rows)
    counts, _, _ = np.histogram2d(plane[:, 0], plane[:, 1], bins=_CELLS, range=_window(plane))
    return counts, explained


def _window(plane: NDArray[np.float64]) -> Any:
    """The part of a plane that holds nearly all of its points: [[low, high], [low, high]]."""
    low, high = np.quantile(plane, [0.005, 0.995], axis=0)
    return np.stack([low, np.where(high > low, high, low + 1)], 1).tolist()


def describe(figures: Mapping[str, Any]) -> str:
    """A summary as text."""
    of = f", {figures['settings']}" if figures["settings"] else ""
    lines = [
        f"{figures['name']}: {figures['episodes']:,} episodes, {figures['steps']:,} steps",
        f"environment   {figures['env'] or 'not recorded'}{of}",
        f"observations  {_short(figures['observation_space'])}",
        f"actions       {_short(figures['action_space'])}",
        f"ended         {figures['terminated']:,} terminated, {figures['truncated']:,} truncated",
        "",
        " " * 8 + "".join(f" {name:>9}" for name in ("mean", "std", *_LEVELS)),
    ]
    for name in ("return", "length", "reward"):
        lines.append(f"{name:<8}" + "".join(f" {_number(value):>9}" for value in figures[name].values()))
    lines += ["", *_action_lines(figures["actions"]), _coverage_line(figures["coverage"])]
    yes = {True: "recorded", False: "not recorded"}
    seeds = f"{figures['seeds']:,} of {figures['episodes']:,} episodes"
    lines.append(f"log probabilities {yes[figures['log_prob']]}; masks {yes[figures['mask']]}; seeds of {seeds}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.4g}" if len(f"{value:.4g}") <= 9 else f"{value:.2g}"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:60]} ... {text[-36:]}"


def _action_lines(actions: Mapping[str, Any]) -> list[str]:
    if "at_bound" in actions:
        rows = list(zip(actions["mean"], actions["std"], actions["at_bound"], strict=True))
        lines = [
            f"action {k}: mean {mean:.3g}, std {std:.3g}, {bound:.1%} at a bound"
            for k, (mean, std, bound) in enumerate(rows)
        ]
        return lines[:_SHOWN] + ([f"... {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])
    fraction, perplexity = actions["fraction"], actions["perplexity"]
    if isinstance(perplexity, list):
        shown = ", ".join(f"{value:.3g}" for value in perplexity[:_SHOWN])
        return [f"actions: perplexity of each choice {shown}"]
    order = sorted(range(len(fraction)), key=lambda a: -fraction[a])[:_SHOWN]
    shown = ", ".join(f"{a}: {fraction[a]:.1%}" for a in (sorted(order) if len(fraction) <= _SHOWN else order))
    more = f", {len(fraction) - _SHOWN} more" if len(fraction) > _SHOWN else ""
    return [f"actions: {shown}{more}; perplexity {perplexity:.3g} of {len(fraction)}"]


def _coverage_line(coverage: Mapping[str, Any]) -> str:
    if "explained" not in coverage:
        return f"coverage: {coverage['distinct']:,} of {coverage['of']:,} observations ({coverage['occupied']:.1%})"
    what = "sampled observations" if coverage["sampled"] else "observations"
    return (
        f"coverage: {coverage['distinct']:,} distinct of {coverage['of']:,} {what}; {coverage['occupied']:.1%} "
        f"of the cells of their first two principal components ({coverage['explained']:.0%} of the variance)"
    )


def draw(data: Dataset, path: Path) -> None:
    """Draw returns, lengths, rewards, actions, coverage, and returns in the order of the episodes.

    Raises:
        ReproductionError: if matplotlib is not installed, or the file cannot be written.
    """
    from mlbits.evals.reproductions.plots import figure, save

    canvas, (returns, lengths, rewards, actions, coverage, order) = figure(3, 4.4, 3.2, rows=2)
    canvas.suptitle(f"{data.name}: {data.num_episodes:,} episodes, {data.num_steps:,} steps of {data.env or 'data'}")
    _histogram(returns, data.returns.double().numpy(), "return of an episode", "episodes")
    _histogram(lengths, data.lengths.numpy(), "length of an episode (steps)", "episodes")
    _histogram(rewards, data.reward.double().numpy(), "reward of a step", "steps")
    rewards.set_yscale("log")
    rewards.set_ylim(bottom=0.5)
    _draw_actions(actions, data)
    _draw_coverage(canvas, coverage, data)
    order.plot(data.returns.numpy(), ".", markersize=3, color="tab:blue", alpha=0.6)
    order.set(xlabel="episode, in the order of the dataset", ylabel="return")
    save(canvas, path)


def _histogram(panel: Any, values: NDArray[Any], label: str, what: str) -> None:
    distinct = np.unique(values)
    bins: Any = 40
    if len(distinct) <= 1:
        middle, width = float(values[0]), max(1.0, abs(float(values[0])))
        bins = np.linspace(middle - width / 2, middle + width / 2, 22)
    elif np.issubdtype(values.dtype, np.integer) and np.ptp(values) < 40:
        bins = np.arange(values.min() - 0.5, values.max() + 1)
    panel.hist(values, bins=bins, color="tab:blue")
    panel.set(xlabel=label, ylabel=what)


def _draw_actions(panel: Any, data: Dataset) -> None:
    space, action = data.action_space, data.action.numpy()
    if isinstance(space, spaces.Box):
        for k in range(min(action.shape[1], 6)):
            panel.hist(action[:, k], bins=40, histtype="step", density=True, label=f"dimension {k}")
        panel.set(xlabel="action", ylabel="density")
        if action.shape[1] > 1:
            panel.legend(fontsize=7)
        return
    if isinstance(space, spaces.MultiDiscrete):
        for k, n in enumerate(space.nvec[:6]):
            panel.plot(np.bincount(action[:, k], minlength=int(n)) / len(action), ".-", label=f"choice {k}")
        panel.legend(fontsize=7)
    else:
        counts = np.bincount(action, minlength=int(getattr(space, "n", 1))) / len(action)
        panel.bar(np.arange(len(counts)), counts, color="tab:blue")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set(xlabel="action", ylabel="fraction of steps")


def _draw_coverage(canvas: Any, panel: Any, data: Dataset) -> None:
    if isinstance(data.observation_space, spaces.Discrete):
        counts = np.bincount(data.obs.numpy(), minlength=int(data.observation_space.n))
        panel.bar(np.arange(len(counts)), counts, width=1.0, color="tab:blue")
        panel.set(xlabel="observation", ylabel="visits", yscale="symlog")
        return
    plane, explained = _plane(_vectors(data))
    shown = panel.hist2d(*plane.T, bins=60, range=_window(plane), cmin=1, norm="log", cmap="viridis")
    canvas.colorbar(shown[3], ax=panel, label="observations")
    panel.set(
        xlabel=f"coverage: first principal component ({explained:.0%} with the second)", ylabel="second component"
    )
    panel.xaxis.label.set_size(8)
