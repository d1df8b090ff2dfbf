"""``Run``: a training run in Python: its folder, summary, settings, curves, agent and pictures; ``Runs`` are several.

Example:
    run = mlbits.train("ppo", "CartPole-v1", total_steps=50_000)
    run.metrics["return/eval"].values
    agent = run.agent()
    run.plot()
    run.resume(total_steps=100_000)
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbits.evals.evaluate import evaluate_run
from mlbits.evals.headline import headlines
from mlbits.selfplay.policy import Policy
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.folder import read_settings, read_summary
from mlbits.selfplay.runs.loading import load_policy
from mlbits.selfplay.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlbits.evals.recorded_runs import Curve


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
        self.summary: dict[str, Any] = dict(read_summary(self.folder) if summary is None else summary)

    @property
    def settings(self) -> Settings:
        """All its settings."""
        return self._settings

    @property
    def metrics(self) -> dict[str, Curve]:
        """Its curves by name, as in "return/eval": ``steps`` int64 [N] and ``values`` float64 [N]."""
        from mlbits.evals.recorded_runs import read_run

        return dict(read_run(self.folder).curves)

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

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return (self.folder, self.summary)[index]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.folder, self.summary))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}): {self._line()}"

    def _line(self) -> str:
        settings = self._settings
        what = f"{settings.agent} on {settings.env}, seed {settings.run.seed}"
        return f"{what}; {result_text(self.summary)}"

    def _repr_html_(self) -> str:
        rows = [("agent", self._settings.agent), ("environment", self._settings.env), ("seed", self._settings.run.seed)]
        rows += [("result", result_text(self.summary)), ("folder", self.folder)]
        return html_table(["run", ""], rows)


class Runs(Sequence[Run]):
    """Runs of the same settings with different seeds, told together.

    Args:
        runs: in the order of their seeds.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)

    @property
    def return_mean(self) -> float:
        """The mean over the runs of their final mean returns."""
        return mean_interval(self._returns())[0]

    @property
    def return_interval(self) -> tuple[float, float]:
        """Its 95% interval over the seeds (Student's t); -inf and inf for one run, or equal ones."""
        return mean_interval(self._returns())[1]

    def plot(self, tag: str | Sequence[str] | None = None, **settings: Any) -> Figure:
        """Plot their curves as one, the mean with its interval; see :func:`mlbits.evals.curves.plot`."""
        from mlbits.evals.curves import plot

        return plot([run.folder for run in self], tag, **settings)

    def rows(self) -> list[list[Any]]:
        """A row for each run: seed, final mean return, its interval, steps, CPU-seconds, folder."""
        return [
            [
                run.settings.run.seed, run.summary["return_mean"], _interval(run.summary["return_interval"]),
                run.summary["env_steps"], run.summary["cpu_seconds"], str(run.folder),
            ]
            for run in self
        ]  # fmt: skip

    def result(self) -> str:
        """The mean over the seeds with its interval, as text."""
        mean, interval = mean_interval(self._returns())
        return f"mean return over {len(self)} seeds: {mean:.4g} (95% interval {_interval(interval)})"

    def _returns(self) -> list[float]:
        return [float(run.summary["return_mean"]) for run in self]

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: Any) -> Any:
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __repr__(self) -> str:
        return f"Runs of {self[0].settings.agent} on {self[0].settings.env}: {self.result()}"

    def _repr_html_(self) -> str:
        shown = [[_shown(cell) for cell in row] for row in self.rows()]
        return html_table(COLUMNS, shown) + f"<p>{html.escape(self.result())}</p>"


COLUMNS = ["seed", "return", "95% interval", "steps", "CPU-s", "run"]


def load_run(folder: str | Path) -> Run:
    """A run from its folder, whoever trained it.

    Raises:
        RunError: if there is no run, or its files are damaged.
    """
    return Run(folder)


def result_text(summary: Mapping[str, Any]) -> str:
    """How a run ended, in a line."""
    if not summary:
        return "not finished"
    return f"{'; '.join(headlines(summary))} after {summary['env_steps']:,} steps"


def html_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as HTML, for notebooks."""
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = [f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _interval(ends: Sequence[float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"


def _shown(cell: Any) -> str:
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
