"""``Run``: a training run in Python: its folder, summary, settings, curves, agent and pictures; ``Runs`` are several.

Example:
    run = mlbits.train("ppo", "CartPole-v1", total_steps=50_000)
    run.metrics["return/eval"].values
    agent = run.agent()
    run.plot()
    run.resume(total_steps=100_000)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.printing import printable
from mlbits.evals.evaluate import evaluate_run
from mlbits.evals.headline import headlines
from mlbits.evals.html_tables import html_table
from mlbits.evals.pictures import Picture, PictureError
from mlbits.evals.recorded_runs import Curve, read_curves
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.policy import Policy
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.folder import SUMMARY, RunError, read_settings, read_summary
from mlbits.selfplay.runs.loading import load_policy
from mlbits.selfplay.statistics import counted, interval_text, mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run(Sequence[Any]):
    """A training run. As a sequence it is its folder and its summary: ``folder, summary = mlbits.train(...)``.

    Args:
        folder: its folder.
        summary: how it ended; None reads it from the folder.

    Attributes:
        folder: its folder.
        summary: how it ended: the final mean return with its interval, steps, seconds and so on; empty while it has not
            ended.

    Raises:
        RunError: if the folder is no run.
    """

    def __init__(self, folder: str | Path, summary: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self._settings = read_settings(self.folder)
        self.summary: dict[str, Any] = dict(_checked_summary(self.folder) if summary is None else summary)

    @property
    def settings(self) -> Settings:
        """All its settings."""
        return self._settings

    @property
    def metrics(self) -> dict[str, Curve]:
        """Its curves by name, as in "return/eval": ``steps`` int64 [N] and ``values`` float64 [N]."""
        return read_curves(self.folder)

    def agent(self, checkpoint: str | int = "latest", **settings: Any) -> Policy:
        """Its agent, to act with.

        Args:
            checkpoint: "latest", "best" (of a run with ``keep_best``) or the environment steps of one that was kept.
            **settings: more arguments of :func:`mlbits.load`.
        """
        return load_policy(self.folder, checkpoint=checkpoint, **settings)

    def evaluate(self, episodes: int = 100, **settings: Any) -> dict[str, Any]:
        """Play episodes with its agent, as ``mlbits eval`` does; see :func:`mlbits.evals.evaluate.evaluate_run`."""
        return evaluate_run(self.folder, episodes, **settings)

    def resume(self, **settings: Any) -> Run:
        """Continue it, or train it further with ``total_steps``; see :func:`mlbits.resume`. It is changed in place."""
        from mlbits.training import resume

        done = resume(self.folder, **settings)
        self._settings, self.summary = done._settings, done.summary
        return self

    def plot(self, tag: str | Sequence[str] | None = None, **settings: Any) -> Figure:
        """Plot its curves; see :func:`mlbits.evals.curves.plot`. A notebook shows the figure, ``savefig`` writes it."""
        from mlbits.evals.curves import plot

        return plot([self.folder], tag, **settings)

    def watch(self, checkpoint: str | int = "latest", *, seed: int = 1, frames: int = 500) -> Picture:
        """Play an episode with its agent, as an animation.

        Args:
            checkpoint: as for :meth:`agent`.
            seed: of the episode.
            frames: at most so many images.

        Raises:
            PictureError: if the environment cannot be drawn.
        """
        policy = self.agent(checkpoint)
        played = play_episodes(
            policy.agent, policy.env, 1, seed=seed, settings=policy.env_settings, max_frames=frames
        )  # fmt: skip
        if not played.frames:
            raise PictureError(f"{policy.env}: {played.undrawn}; wanted an environment that can be drawn")
        return Picture(played.frames)

    def __fspath__(self) -> str:
        """Its folder: a run may be given wherever the path of one may."""
        return str(self.folder)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return (self.folder, self.summary)[index]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.folder, self.summary))

    def __repr__(self) -> str:
        return printable(f"Run({str(self.folder)!r}): {self._line()}")

    def _line(self) -> str:
        settings = self._settings
        what = f"{settings.agent} on {settings.env}, seed {settings.run.seed}"
        return f"{what}; {result_text(self.summary)}"

    def _repr_html_(self) -> str:
        rows = [("agent", self._settings.agent), ("environment", self._settings.env), ("seed", self._settings.run.seed)]
        rows += [("result", result_text(self.summary)), ("folder", self.folder)]
        return html_table(["run", ""], rows)


class Runs(Sequence[Run]):
    """Runs of the same settings with different seeds, taken together.

    A run's result is the mean return of its last evaluation; in zero-sum games of several seats, where that says
    nothing, the exact exploitability or the fraction of games won against the strongest bot.

    Args:
        runs: at least one, in the order of their seeds.

    Attributes:
        measure: what the results are: "return", "exploitability" or "won against BOT".
        results: of each run, float64 [N]; NaN of a run that was not evaluated.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)
        found = [result_number(run.summary) for run in self._runs]
        self.measure = found[0][0]
        self.results: NDArray[np.float64] = np.array([value for _, value, _ in found])
        self._intervals = [interval for _, _, interval in found]

    @property
    def mean(self) -> float:
        """The mean of the results over the runs."""
        return float(self.results.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of that mean over seeds (Student's t); -inf and inf for one run, or equal results."""
        known = not np.isnan(self.results).any()
        return mean_interval(self.results)[1] if known else (-math.inf, math.inf)

    def plot(self, tag: str | Sequence[str] | None = None, **settings: Any) -> Figure:
        """Plot their curves as one, the mean with its interval; see :func:`mlbits.evals.curves.plot`."""
        from mlbits.evals.curves import plot

        return plot([run.folder for run in self], tag, **settings)

    def rows(self) -> list[list[str]]:
        """A row of text for each run, under :attr:`columns`."""
        return [
            [
                str(run.settings.run.seed), f"{result:.4g}", _interval(interval), f"{run.summary['env_steps']:,}",
                f"{run.summary['cpu_seconds']:.1f}", str(run.folder),
            ]
            for run, result, interval in zip(self, self.results, self._intervals, strict=True)
        ]  # fmt: skip

    @property
    def columns(self) -> list[str]:
        """What :meth:`rows` are of; intervals are over the episodes of one evaluation."""
        return ["seed", self.measure, "95% interval", "steps", "CPU-s", "run"]

    def text(self) -> str:
        """The mean over the seeds with its interval, as text."""
        text = interval_text(self.interval, len(self))
        return f"{self.measure} {self.mean:.4g} over {counted(len(self), 'seed')} ({text})"

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: Any) -> Any:
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __repr__(self) -> str:
        return printable(f"Runs of {self[0].settings.agent} on {self[0].settings.env}: {self.text()}")

    def _repr_html_(self) -> str:
        return html_table(self.columns, self.rows(), self.text())


def load_run(folder: str | Path) -> Run:
    """A run from its folder, whoever trained it.

    Raises:
        RunError: if there is no run, or its files are damaged.
    """
    return Run(folder)


def _checked_summary(folder: Path) -> dict[str, Any]:
    """A summary from its file, with the numbers that a result needs."""
    summary = read_summary(folder)
    try:
        result_text(summary), result_number(summary)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RunError(f"{folder / SUMMARY}: damaged ({error!r}); nothing needs it: delete it") from None
    return summary


def result_text(summary: Mapping[str, Any]) -> str:
    """How a run ended, in a line."""
    if not summary:
        return "not finished"
    return f"{'; '.join(headlines(summary))} after {summary['env_steps']:,} steps"


def result_number(summary: Mapping[str, Any]) -> tuple[str, float, tuple[float, float]]:
    """What a run's result is, its value and its 95% interval over episodes; NaN of a run that was not evaluated."""
    measured = summary.get("measured") or {}
    if measured.get("same_return") and "exploitability" in measured:
        value = float(measured["exploitability"])
        return "exploitability", value, (value, value)
    if measured.get("same_return") and measured.get("against"):
        row = measured["against"][-1]
        low, high = row["won_interval"]
        return f"won against {row['opponent']}", float(row["won"]), (float(low), float(high))
    low, high = summary.get("return_interval", (-math.inf, math.inf))
    return "return", float(summary.get("return_mean", math.nan)), (float(low), float(high))


def _interval(ends: tuple[float, float]) -> str:
    return "" if math.isinf(ends[0]) and math.isinf(ends[1]) else f"{ends[0]:.4g} to {ends[1]:.4g}"
