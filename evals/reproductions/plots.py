"""Plots of curves with bands, by matplotlib if it is installed (the ``plot`` extra)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.selfplay.statistics import mean_interval


def figure(panels: int, width: float = 5.5, height: float = 3.8, rows: int = 1) -> tuple[Any, list[Any]]:
    """A figure with panels in a grid of ``rows`` rows, which needs no display.

    Raises:
        ReproductionError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ReproductionError('plot: matplotlib is not installed; wanted pip install "mlbits[plot]"') from None
    canvas = Figure(figsize=(width * panels, height * rows), layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas, [canvas.add_subplot(rows, panels, k + 1) for k in range(rows * panels)]


def mean_band(panel: Any, x: NDArray[np.float64], runs: NDArray[np.float64], label: str, colour: str) -> None:
    """Draw the mean over runs [R, X] with the 95% interval of each point."""
    intervals = [mean_interval(column) for column in runs.T]
    mean = np.array([one for one, _ in intervals])
    ends = np.array([bounds for _, bounds in intervals])
    low, high = np.where(np.isfinite(ends), ends, np.nan).T  # no band where all runs are equal
    panel.plot(x, mean, color=colour, label=label)
    panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def save(canvas: Any, path: Path) -> None:
    """Write a picture.

    Raises:
        ReproductionError: if the file cannot be written.
    """
    try:
        canvas.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise ReproductionError(
            f"plot: {path} cannot be written ({error}); wanted a picture file, as plot.png"
        ) from None
