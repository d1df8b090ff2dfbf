"""Curves of runs: means over seeds with 95% intervals, and their plots (matplotlib, the extra ``plot``).

Runs that differ only in the seed become one curve: at each step the mean over the runs, in a band that is Student's 95%
interval of it. It is drawn where all of them have been; runs that went further go on as thin lines. An evaluation's
curve of a single run has the interval over its episodes as its band.

Example:
    figure = plot(["runs/a", "runs/b"], tag="return/eval", x="cpu")  # a matplotlib Figure
    figure.savefig("curves.svg")
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.evals.recorded_runs import Curve, Group, RecordedRun, RecordedRunError, grouped, read_runs
from mlbits.selfplay.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

XAxis = Literal["steps", "cpu", "wall"]
PICTURES = (".png", ".svg", ".pdf")
_CLOCKS = {"cpu": "speed/cpu_seconds", "wall": "speed/wall_seconds"}
_MOST_POINTS = 500  # of the mean of runs whose records are at different steps
_TAGS = ("return/eval", "return/train")  # drawn by default, the first that has a curve
# Colours that remain distinct for colour-blind people: Okabe and Ito (2008), without yellow, which is faint on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_MEANINGS = {
    "return/train": "mean return of training episodes",
    "return/eval": "mean return of evaluation episodes",
    "return/train_length": "length of training episodes (steps)",
    "return/eval_length": "length of evaluation episodes (steps)",
    "speed/steps_per_second": "speed (steps per second)",
    "speed/wall_seconds": "wall time (s)",
    "speed/cpu_seconds": "CPU time (s)",
}


class PlotError(MlbitsError, RuntimeError):
    """A plot that cannot be drawn or written."""


@dataclass(frozen=True)
class Band:
    """A curve of several runs, or of one.

    Attributes:
        x: where it is known, ascending, [N]; environment steps or seconds.
        mean: over the runs, [N].
        low: lower ends of the 95% intervals, [N]; NaN where there is none, as of a single run or of equal numbers.
        high: upper ends, [N].
        runs: number of runs.
    """

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    runs: int


def plot(
    runs: Iterable[str | Path],
    tag: str | Sequence[str] | None = None,
    *,
    x: XAxis = "steps",
    smooth: int = 1,
) -> Figure:
    """Plot the curves of runs, those that differ only in the seed as one.

    Args:
        runs: folders of runs, or folders that hold some.
        tag: the curve's name as in metrics.jsonl, or several, each in a panel; None takes the returns of evaluations,
            or of training where there are fewer than two evaluations.
        x: the horizontal axis: environment steps, CPU time or wall time.
        smooth: number of records in the running mean that is drawn; 1 for what was recorded.

    Returns:
        The figure, a panel for each curve and environment; ``savefig`` writes it, and a notebook shows it.

    Raises:
        RecordedRunError: for a path without a run, or runs without records or (for ``x``) times.
        UnknownIdError: if no run has that curve; the message suggests the nearest.
        PlotError: if matplotlib is not installed.
    """
    return draw(grouped(read_runs(runs)), tag, x=x, smooth=smooth)


def draw(
    groups: Sequence[Group], tag: str | Sequence[str] | None = None, *, x: XAxis = "steps", smooth: int = 1
) -> Figure:
    """As :func:`plot`, of runs that have been read and grouped."""
    if smooth < 1:
        raise PlotError(f"smooth: got {smooth}; wanted at least 1 record")
    tags = chosen_tags(groups, tag)
    envs = list(dict.fromkeys(group.env for group in groups))
    panels = [
        (name, env)
        for name, env in itertools.product(tags, envs)
        if any(group.env == env and _having(group, name) for group in groups)
    ]
    figure = _figure(len(panels))
    columns = min(len(panels), 3)
    lines, lines_at = dict[str, Any](), dict[str, Any]()
    looks = _looks(groups)
    for number, (name, env) in enumerate(panels, start=1):
        panel = figure.add_subplot(math.ceil(len(panels) / columns), columns, number)
        of_env = [group for group in groups if group.env == env and _having(group, name)]
        unit = _unit(of_env, x)
        for group in of_env:
            line = _draw_group(panel, group, name, x, smooth, unit, *looks[group.label])
            lines.setdefault(_legend_text(group, name), line)
        threshold = _threshold(name, of_env)
        if threshold is not None:
            line = panel.axhline(threshold, color="#888888", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
            lines_at[f"solved: {threshold:g}"] = line
        _set_limits(panel, name, of_env, threshold)
        _label_axes(panel, name, env, of_env, x, unit)
    width = figure.get_size_inches()[0]
    lines |= lines_at  # thresholds come last
    longest = max(len(text) for text in lines)
    fitting = max(1, int(width * 13 / (longest + 7)))
    figure.legend(
        list(lines.values()), list(lines), loc="outside lower center", ncols=min(fitting, len(lines)), frameon=False,
    )  # fmt: skip
    return figure


def chosen_tags(groups: Sequence[Group], tag: str | Sequence[str] | None = None) -> list[str]:
    """The names of the curves to draw; see :func:`plot`.

    Raises:
        RecordedRunError: if no run has records.
        UnknownIdError: if no run has that curve.
    """
    runs = [run for group in groups for run in group.runs]
    known = sorted({name for run in runs for name in run.curves})
    if not known:
        raise RecordedRunError(f"{runs[0].folder}: nothing is recorded yet; wanted a run with curves")
    if tag is None:
        several = [name for name in _TAGS if any(len(run.curves.get(name, ((),))[0]) > 1 for run in runs)]
        return [next(iter([*several, *(name for name in _TAGS if name in known), *known]))]
    tags = [tag] if isinstance(tag, str) else list(dict.fromkeys(tag))
    for name in tags:
        if name not in known:
            raise UnknownIdError("curve", name, known, "tag")
    return tags


def band(group: Group, tag: str, *, x: XAxis = "steps", smooth: int = 1) -> Band:
    """The mean over a group's runs and its 95% interval, where all of them have been.

    Records at the same steps are averaged as they are. Otherwise each run is interpolated linearly between its records,
    at the steps of all of them (at most 500).

    Args:
        group: runs that differ in the seed; those that lack the curve are left out.
        tag: the curve.
        x: the horizontal axis.
        smooth: records in the running mean of each run.

    Raises:
        RecordedRunError: if a run has no times, for an axis of time.
    """
    runs = _having(group, tag)
    curves = [_points(run, tag, x, smooth) for run in runs]
    first, last = max(at[0] for at, _ in curves), min(at[-1] for at, _ in curves)
    grid = curves[0][0]
    if not all(np.array_equal(at, grid) for at, _ in curves):
        grid = np.unique(np.concatenate([at for at, _ in curves]))
        grid = grid[(grid >= first) & (grid <= last)]
        if len(grid) > _MOST_POINTS:
            grid = np.linspace(first, last, _MOST_POINTS)
    values = np.stack([np.interp(grid, at, value) for at, value in curves]) if len(grid) else np.zeros((1, 0))
    mean = values.mean(0)
    if len(runs) == 1:
        low, high = (_end(runs[0], tag, end, x, smooth) for end in ("low", "high"))
        return Band(
            grid, mean, low if low is not None else mean * np.nan, high if high is not None else mean * np.nan, 1
        )
    ends = np.array([mean_interval(column)[1] for column in values.T]).reshape(-1, 2)
    low, high = np.where(np.isfinite(ends), ends, np.nan).T  # equal numbers: no interval
    return Band(grid, mean, low, high, len(runs))


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a .png, .svg or .pdf file.

    Raises:
        PlotError: for another kind of file, or one that cannot be written.
    """
    check_picture(path)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise PlotError(f"out: {path} cannot be written ({error.strerror}); wanted a writable file") from None


def check_picture(path: Path) -> None:
    """Refuse a file whose name does not end as a picture's.

    Raises:
        PlotError: naming the kinds that can be written.
    """
    if path.suffix.lower() not in PICTURES:
        raise PlotError(f"out: got {path}; wanted a file that ends in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}")


def last_values(groups: Sequence[Group], tag: str | Sequence[str] | None = None) -> list[str]:
    """A line for each curve: its last mean with its interval, and the step it is at."""
    lines = []
    for name, group in itertools.product(chosen_tags(groups, tag), groups):
        if not _having(group, name):
            continue
        found = band(group, name)
        if not len(found.x):
            lines.append(f"{group.label} on {group.env}: {name} has no step that all {found.runs} seeds have been at")
            continue
        low, high = found.low[-1], found.high[-1]
        interval = f", 95% interval {low:.4g} to {high:.4g}" if math.isfinite(low) else ""
        seeds = f", mean of {found.runs} seeds" if found.runs > 1 else ""
        lines.append(
            f"{group.label} on {group.env}: {name} {found.mean[-1]:.4g}{seeds}{interval} at {found.x[-1]:,.0f} steps"
        )
    return lines


def _having(group: Group, tag: str) -> list[RecordedRun]:
    return [run for run in group.runs if tag in run.curves]


def _points(run: RecordedRun, tag: str, x: XAxis, smooth: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve of one run as (x, value), both [N]."""
    curve = run.curves[tag]
    sums = np.cumsum(np.insert(curve.values, 0, 0.0))
    count = np.minimum(np.arange(1, len(curve.values) + 1), smooth)
    last = np.arange(1, len(sums))
    values = curve.values if smooth == 1 else (sums[last] - sums[last - count]) / count
    return _x_of(run, curve, x), values


def _x_of(run: RecordedRun, curve: Curve, x: XAxis) -> NDArray[np.float64]:
    """Where a curve's records lie: their steps, or the seconds since the run began, between those recorded."""
    if x == "steps":
        return curve.steps.astype(float)
    clock = run.curves.get(_CLOCKS[x])
    if clock is None:
        raise RecordedRunError(
            f"{run.folder}: its records have no {x} time, as of an earlier version; wanted x 'steps'"
        )
    return np.interp(curve.steps, clock.steps, clock.values)


def _end(run: RecordedRun, tag: str, end: str, x: XAxis, smooth: int) -> NDArray[np.float64] | None:
    """The recorded end of an evaluation's interval, [N], if there is one for each record."""
    name = f"{tag}_{end}"
    if name not in run.curves or not np.array_equal(run.curves[name].steps, run.curves[tag].steps):
        return None
    return _points(run, name, x, smooth)[1]


def _looks(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    """A colour and a kind of line for each label; the kind changes when the colours are used up."""
    labels = list(dict.fromkeys(group.label for group in groups))
    kinds = itertools.cycle(itertools.product(_DASHES, _COLOURS))
    return {label: (colour, dashes) for label, (dashes, colour) in zip(labels, kinds, strict=False)}


def _draw_group(
    panel: Any, group: Group, tag: str, x: XAxis, smooth: int, unit: tuple[str, float], colour: str, dashes: str
) -> Any:
    """Draw one group's band, mean and, beyond the steps that all its runs have, each run; returns the mean's line."""
    found, per = band(group, tag, x=x, smooth=smooth), unit[1]
    for run in _having(group, tag) if found.runs > 1 else ():
        at, values = _points(run, tag, x, smooth)
        ends = (found.x[0], found.x[-1]) if len(found.x) else (math.inf, -math.inf)
        for beyond in (at <= ends[0], at >= ends[1]) if len(found.x) else (at < math.inf,):
            if beyond.sum() > 1:
                panel.plot(at[beyond] / per, values[beyond], color=colour, linewidth=0.8, alpha=0.5)
    panel.fill_between(found.x / per, found.low, found.high, color=colour, alpha=0.18, linewidth=0)
    mark = "o" if len(found.x) == 1 else None
    (line,) = panel.plot(found.x / per, found.mean, color=colour, linestyle=dashes, linewidth=1.8, marker=mark)
    return line


def _legend_text(group: Group, tag: str) -> str:
    """The label, how many runs it is of, and what the band is."""
    runs = _having(group, tag)
    if len(runs) > 1:
        return f"{group.label} ({len(runs)} seeds, mean and 95% interval)"
    over = " (95% interval over episodes)" if f"{tag}_low" in runs[0].curves else ""
    return f"{group.label}{over}"


def _threshold(tag: str, groups: Sequence[Group]) -> float | None:
    """The return at which the environment counts as solved, if all play its default settings."""
    from mlbits.envs.doors.gymnasium_ids import reward_threshold

    if tag not in _TAGS or any(run.config["env_settings"] for group in groups for run in group.runs):
        return None
    return reward_threshold(groups[0].env)


def _set_limits(panel: Any, tag: str, groups: Sequence[Group], threshold: float | None) -> None:
    """Show all values that runs had; a wide interval, as of two seeds, may go beyond the edges."""
    values = np.concatenate([run.curves[tag].values for group in groups for run in _having(group, tag)])
    values = values if threshold is None else np.append(values, threshold)
    low, high = float(values.min()), float(values.max())
    if high > low:
        panel.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    panel.set_xlim(left=0)


def _unit(groups: Sequence[Group], x: XAxis) -> tuple[str, float]:
    """The unit of an axis of time, and its seconds; of steps, "" and 1."""
    if x == "steps":
        return "", 1.0
    seconds = max(
        (
            float(run.curves[_CLOCKS[x]].values[-1])
            for group in groups
            for run in group.runs
            if _CLOCKS[x] in run.curves
        ),
        default=0.0,
    )
    return ("h", 3600.0) if seconds > 3 * 3600 else ("min", 60.0) if seconds > 180 else ("s", 1.0)


def _label_axes(panel: Any, tag: str, env: str, groups: Sequence[Group], x: XAxis, unit: tuple[str, float]) -> None:
    from matplotlib.ticker import EngFormatter

    panel.set_title(env, fontsize="medium")
    panel.set_ylabel(_MEANINGS.get(tag, tag))
    kinds = {"gradient steps" if group.runs[0].from_data else "environment steps" for group in groups}
    what = {"steps": " or ".join(sorted(kinds)), "cpu": "CPU time", "wall": "wall time"}[x]
    panel.set_xlabel(f"{what} ({unit[0]})" if unit[0] else what)
    if x == "steps":
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.grid(color="#DDDDDD", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _figure(panels: int) -> Figure:
    """An empty figure that needs no display; notebooks show it.

    Raises:
        PlotError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise PlotError('matplotlib is not installed; wanted pip install "mlbits[plot]"') from None

    class Shown(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            import io

            data = io.BytesIO()
            self.savefig(data, format="png", dpi=100)
            return data.getvalue()

    columns, rows = min(panels, 3), math.ceil(panels / 3)
    figure = Shown(figsize=(7.0 if columns == 1 else 5.2 * columns, 3.6 * rows + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
