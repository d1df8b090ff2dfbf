"""What the folders of runs hold, read without loading their agents: settings, curves, summaries; and runs in groups.

A group is the runs that differ in nothing but the seed, or in what says nothing about the result (how often they are
saved, whether they are filmed). Its label names the settings in which it differs from others.

Example:
    runs = [read_run(folder) for folder in find_runs("runs")]
    for group in grouped(runs):
        print(group.label, [run.seed for run in group.runs])
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.plain_json import read_json, read_json_file
from mlbits.selfplay.runs.config import RunConfig

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
# Settings of a run in which the runs of one group may differ: no result and no curve depends on them, but for the seed.
_ASIDE = (
    "seed", "video", "checkpoint_every", "keep_checkpoints", "keep_best", "record_every", "track", "env_workers",
)  # fmt: skip
_LABELLED, _LABEL_VALUE = 4, 24  # how many settings a label names, and how long the text of a value may be


class RecordedRunError(MlbitsError, ValueError):
    """A folder that holds no run, or whose records cannot be read or compared."""


class Curve(NamedTuple):
    """A recorded quantity of one run.

    Attributes:
        steps: environment steps (gradient steps where the run learns from a dataset), ascending, int64 [N].
        values: float64 [N].
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class RecordedRun:
    """One run.

    Attributes:
        folder: its folder.
        config: its config.json.
        curves: its curves by name, as in "return/eval".
        summary: its summary.json; None if it has not been finished.
    """

    folder: Path
    config: Mapping[str, Any]
    curves: Mapping[str, Curve]
    summary: Mapping[str, Any] | None

    @property
    def agent(self) -> str:
        """The agent's name."""
        return str(self.config["agent"]).rpartition(":")[2]

    @property
    def env(self) -> str:
        """The environment's id."""
        return str(self.config["env"]).rpartition(":")[2]

    @property
    def seed(self) -> Any:
        """The run's seed."""
        return self.config["run"].get("seed")

    @property
    def from_data(self) -> bool:
        """Whether the run learns from a dataset, so that its steps are gradient steps."""
        return bool(self.config["run"].get("data"))

    @property
    def last_step(self) -> int:
        """The step of the last record; 0 if there is none."""
        return max((int(curve.steps[-1]) for curve in self.curves.values()), default=0)

    @property
    def result(self) -> Mapping[str, Any]:
        """The summary, if it is that of the last record; {} while the run is under way, as after it was resumed."""
        steps = (self.summary or {}).get("env_steps")
        return self.summary or {} if isinstance(steps, int) and steps >= self.last_step else {}

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """All settings by the names of their flags: "agent", "env", "total_steps", "agent.discount", "env.map"."""
        flat = {"agent": self.agent, "env": self.env}
        run = {field.name: field.default for field in dataclasses.fields(RunConfig)} | self.config["run"]
        flat |= run  # with defaults, as a run of an earlier version lacks what is new
        flat |= {f"agent.{name}": value for name, value in self.config["agent_config"].items()}
        return flat | {f"env.{name}": value for name, value in self.config["env_settings"].items()}


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: its agent, and the settings in which it differs from other groups of that agent and environment.
        runs: its runs, one of each seed, by seed.
        repeated: runs left out because another of the group has the same seed, and would say the same twice.
    """

    label: str
    runs: tuple[RecordedRun, ...]
    repeated: tuple[RecordedRun, ...] = ()

    @property
    def env(self) -> str:
        """The environment's id."""
        return self.runs[0].env


def find_runs(path: str | Path) -> list[Path]:
    """The folders of the runs at a path: itself, or all below it.

    Raises:
        RecordedRunError: if there is none; the message suggests the nearest name beside it.
    """
    path = Path(path)
    if (path / CONFIG).is_file():
        return [path]
    files = path.rglob(CONFIG) if path.is_dir() else ()
    found = sorted(file.parent for file in files if (file.parent / METRICS).is_file())
    if found:
        return found
    if path.is_dir():
        raise RecordedRunError(f"{path}: no run here ({CONFIG} is missing); wanted a run's folder, or one with runs")
    beside = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"did you mean {str(path.with_name(near[0]))!r}?" if near else "wanted a run's folder, or one with runs"
    raise RecordedRunError(f"{path}: not found; {hint}")


def read_runs(paths: Iterable[str | Path]) -> list[RecordedRun]:
    """The runs at several paths, each once.

    Raises:
        RecordedRunError: if a path has no run, or there is no path.
    """
    folders = {folder.resolve(): folder for path in paths for folder in find_runs(path)}
    if not folders:
        raise RecordedRunError("runs: got none; wanted folders of runs")
    return [read_run(folder) for folder in folders.values()]


def read_run(folder: str | Path) -> RecordedRun:
    """A run's settings, curves and summary; a run that is under way has the curves so far.

    Raises:
        RecordedRunError: if the folder is no run, or its settings are damaged.
    """
    folder = Path(folder)
    try:
        config = read_json_file(folder / CONFIG)
        parts = [config[name] for name in ("run", "agent_config", "env_settings")]
        if not all(isinstance(part, dict) for part in [config, *parts]) or not {"agent", "env"} <= set(config):
            raise ValueError("it lacks settings")
    except FileNotFoundError:
        raise RecordedRunError(f"{folder}: no run here ({CONFIG} is missing); wanted a run's folder") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordedRunError(f"{folder / CONFIG}: damaged ({error}); wanted the file that training wrote") from None
    return RecordedRun(folder, config, read_curves(folder), _read_summary(folder))


def read_curves(folder: str | Path) -> dict[str, Curve]:
    """A run's curves by name, from its metrics.jsonl; none if there is no record yet.

    Damaged lines are left out, as is the last one while it is being written; of two values at a step the later counts.
    """
    found: dict[str, dict[int, float]] = {}
    try:
        lines = (Path(folder) / METRICS).read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise RecordedRunError(f"{folder}: its {METRICS} cannot be read ({error.strerror})") from None
    for line in lines:
        try:
            record = read_json(line)
            step = int(record.pop("env_steps"))
            if not 0 <= step < 2**62:
                continue
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue
        for name, value in record.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                found.setdefault(name, {})[step] = float(value)
    curves = {}
    for name, values in found.items():
        steps = sorted(values)
        curves[name] = Curve(np.array(steps, np.int64), np.array([values[step] for step in steps]))
    return curves


def _read_summary(folder: Path) -> dict[str, Any] | None:
    try:
        summary = read_json_file(folder / SUMMARY)
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def grouped(runs: Sequence[RecordedRun]) -> list[Group]:
    """Runs in groups of equal settings but for the seed, in the order in which they first occur."""
    together: dict[str, list[RecordedRun]] = {}
    for run in runs:
        own = {name: value for name, value in run.settings.items() if name not in _ASIDE}
        together.setdefault(repr(sorted(own.items())), []).append(run)
    members = list(together.values())
    firsts = [of[0] for of in members]
    labels = [_label(run, firsts) for run in firsts]
    groups = []
    for of, label in zip(members, labels, strict=True):
        by_seed: dict[Any, RecordedRun] = {}
        for run in sorted(of, key=lambda run: -run.last_step):  # of one seed, the run that got furthest
            by_seed.setdefault(run.seed, run)
        chosen = sorted(by_seed.values(), key=lambda run: str(run.seed).zfill(20))
        left = tuple(run for run in of if run not in chosen)
        same_label = sum(label == other and of[0].env == run.env for other, run in zip(labels, firsts, strict=True))
        groups.append(Group(f"{label} ({chosen[0].folder.name})" if same_label > 1 else label, tuple(chosen), left))
    return groups


def differences(runs: Sequence[RecordedRun]) -> list[str]:
    """The settings in which runs differ, without the seed and others that say nothing about the result.

    A setting of the agent or environment is compared between the runs that have it.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in _ASIDE)
    found = []
    for name in names:
        values = [repr(run.settings[name]) for run in runs if name in run.settings]
        if name.startswith("env."):  # which are recorded only where they are not the default
            values += [""] * (len([run for run in runs if name not in run.settings and _same_env(run, runs, name)]))
        if len(set(values)) > 1:
            found.append(name)
    return found


def _same_env(run: RecordedRun, runs: Sequence[RecordedRun], name: str) -> bool:
    """Whether a run has the environment of another that has a setting."""
    return any(other.env == run.env for other in runs if name in other.settings)


def _label(run: RecordedRun, others: Sequence[RecordedRun]) -> str:
    """A run's agent, and its settings that differ from those of runs of this agent in the same environment."""
    differing = differences([other for other in others if (other.agent, other.env) == (run.agent, run.env)])
    differing.sort(key=lambda name: not name.startswith(("agent.", "env.")))  # first what says most
    parts = [
        f"{name.removeprefix('agent.')} {value_text(run.settings.get(name, 'default'))}"
        for name in differing[:_LABELLED]
    ]
    more = [f"and {len(differing) - _LABELLED} more"] if len(differing) > _LABELLED else []
    return ", ".join([run.agent, *parts, *more])


def value_text(value: Any, most: int = _LABEL_VALUE) -> str:
    """A setting's value in short: numbers with thousands separated, tuples with spaces as on the command line."""
    if isinstance(value, bool) or value is None:
        text = str(value).lower()
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, (list, tuple)):
        text = " ".join(value_text(part) for part in value) or "none"
    else:
        text = str(value)
    return text if len(text) <= most else f"{text[: most - 2]}.."
