"""Plots of ``mlbits reproduce lpg``: learning curves in held-out levels, and what can be read off the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.evals.reproductions.learned_rules.paired import bootstrap, thinned
from mlbits.evals.reproductions.plots import figure, mean_band, save

SHOWN = {
    "rule": ("LPG", "C0"), "a2c": ("A2C, tuned", "C3"), "reinforce": ("REINFORCE, tuned", "C1"),
    "untrained rule": ("untrained rule", "C7"), "random play": ("random play", "black"),
}  # fmt: skip
FEATURES = {"y": ("y(s) of LPG", "C0"), "td": ("TD(lambda)'s V(s)", "C3"), "untrained y": ("y(s), untrained", "C7")}


def draw(
    curves: Mapping[str, Mapping[str, NDArray[np.float64]]], predictions: Mapping[str, Any], path: Path
) -> None:  # fmt: skip
    """Plot the mean reward a step over each suite's levels with its 95% band, and the read-outs' R^2.

    Args:
        curves: by kind of level and teacher, [levels, updates].
        predictions: of :func:`mlbits.evals.reproductions.learned_rules.lpg.read_out`.
        path: the plot's file.

    Raises:
        ReproductionError: if matplotlib is not installed, or the file cannot be written.
    """
    panels = len(curves) + 1
    rows = 1 if panels <= 3 else 2
    canvas, drawn = figure(-(-panels // rows), rows=rows)
    for panel, (kind, teachers) in zip(drawn, curves.items(), strict=False):
        for name, curve in within_levels({name: teachers[name] for name in SHOWN}).items():
            label, colour = SHOWN[name]
            x, y = thinned(curve)
            mean_band(panel, x, y, label, colour)
        panel.set_title(f"{kind}: {len(teachers['rule'])} held-out levels (bands within levels)")
        panel.set_xlabel("updates of 20 steps")
        panel.set_ylabel("reward a step")
        panel.legend(loc="lower right", fontsize="small")
    _bars(drawn[len(curves)], predictions)
    for panel in drawn[panels:]:
        panel.set_visible(False)
    save(canvas, path)


def within_levels(teachers: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Curves without the differences between levels, so that their bands show what paired comparisons see.

    Of each level its mean over all teachers and updates is taken away, and the mean over levels added (Cousineau 2005).

    Args:
        teachers: curves [levels, updates] by teacher, in the same levels.
    """
    level = np.mean([curve.mean(1) for curve in teachers.values()], axis=0)
    return {name: curve - (level - level.mean())[:, None] for name, curve in teachers.items()}


def _bars(panel: Any, predictions: Mapping[str, Any]) -> None:
    discounts, width = predictions["discounts"], 0.8 / len(FEATURES)
    for k, (name, (label, colour)) in enumerate(FEATURES.items()):
        r2 = np.array(predictions["r2"][name])
        found = [bootstrap(lambda values: float(values.mean()), r2[..., d]) for d in range(len(discounts))]
        x = np.arange(len(discounts)) + (k - 1) * width
        heights = np.array([one.value for one in found])
        ends = np.abs(np.array([[one.low, one.high] for one in found]).T - heights)
        panel.bar(x, heights, width, yerr=ends, color=colour, label=label, capsize=3)
    panel.set_xticks(range(len(discounts)), [f"{discount:g}" for discount in discounts])
    panel.set_ylim(0, 1)
    panel.set_title("what the predictions contain (rule's own discount: 0.99)")
    panel.set_xlabel("discount of the true values")
    panel.set_ylabel("R² of a linear read-out, states left out")
    panel.legend()
