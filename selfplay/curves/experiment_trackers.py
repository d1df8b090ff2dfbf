"""Weights & Biases and MLflow as further writers of a run's curves, beside TensorBoard: ``--track wandb|mlflow``.

They get the settings, and the scalars under TensorBoard's tags, at environment steps. What is tracked where is kept in
the run's folder (``tracked.json``), so that a resumed run continues the same tracked run; the records after its
checkpoint are then written again, equal as the run itself is.

A tracker never ends a run: the first error is said once, and the run goes on without it. Each is configured as usual,
by its own environment variables: ``WANDB_MODE=offline``, ``WANDB_PROJECT``; ``MLFLOW_TRACKING_URI``,
``MLFLOW_EXPERIMENT_NAME`` (project and experiment are called ``mlbits`` without them).
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mlbits.envs.core.plain_json import read_json_file
from mlbits.selfplay.runs.checkpoints import write_file
from mlbits.selfplay.runs.config import ConfigError

TRACKED = "tracked.json"
_PROJECT = "mlbits"
_LONGEST, _AT_ONCE = 500, 100  # of MLflow's parameters: characters of a value, and how many in one request


class ExperimentTracker(Protocol):
    """What a tracker's library is asked to do. Each may raise anything.

    Attributes:
        id: names the tracked run.
    """

    id: str

    def settings(self, values: Mapping[str, Any]) -> None:
        """Record the run's settings by name."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record scalars by tag, at a number of environment steps."""

    def close(self) -> None:
        """Finish; what was recorded is written."""


class Wandb:
    """A run of Weights & Biases.

    Args:
        folder: the run's folder, where its own files go too.
        known: the id to continue, or None for a new one.
    """

    def __init__(self, folder: Path, known: str | None) -> None:
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT), name=folder.resolve().name, dir=str(folder), id=known,
            resume="allow", settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        self.id = str(self._run.id)
        self._run.define_metric("env_steps")
        self._run.define_metric("*", step_metric="env_steps")

    def settings(self, values: Mapping[str, Any]) -> None:
        """Record the settings as the run's config."""
        self._run.config.update(dict(values), allow_val_change=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record scalars; their x axis is ``env_steps``, which may go back when a run is resumed."""
        self._run.log({"env_steps": step, **values})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow.

    Args:
        folder: the run's folder, whose name is the run's.
        known: the id to continue, or None for a new one.
    """

    def __init__(self, folder: Path, known: str | None) -> None:
        # Without these a server that does not answer would be asked for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        mlflow = importlib.import_module("mlflow")
        self._entities = importlib.import_module("mlflow.entities")
        self._client = mlflow.MlflowClient()
        if known is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            found = self._client.get_experiment_by_name(name)
            experiment = self._client.create_experiment(name) if found is None else found.experiment_id
            known = self._client.create_run(experiment, run_name=folder.resolve().name).info.run_id
        else:
            self._client.update_run(known, status="RUNNING")
        self.id = str(known)

    def settings(self, values: Mapping[str, Any]) -> None:
        """Record the settings as parameters."""
        params = [self._entities.Param(name, str(value)[:_LONGEST]) for name, value in values.items()]
        for start in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self.id, params=params[start : start + _AT_ONCE])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record scalars as metrics, in one request."""
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self.id)


TRACKERS: dict[str, Callable[[Path, str | None], ExperimentTracker]] = {"wandb": Wandb, "mlflow": MLflow}


class Tracked:
    """A tracker that never raises: after its first error, which is said, it does nothing.

    Args:
        name: "wandb" or "mlflow".
        folder: the run's folder.
        resumed: whether the run is resumed, so that its tracked run is continued.
        say: prints a line.
    """

    def __init__(self, name: str, folder: Path, resumed: bool, say: Callable[[str], None]) -> None:
        self._name, self._say = name, say
        self._tracker: ExperimentTracker | None = None
        try:
            ids = _read_ids(folder)
            tracker = TRACKERS[name](folder, ids.get(name) if resumed else None)
            write_file(folder / TRACKED, json.dumps(ids | {name: tracker.id}).encode())
            self._tracker = tracker
        except Exception as error:  # whatever a library of others raises: network, login, its own defects
            self._failed("begin", error)

    def settings(self, values: Mapping[str, Any]) -> None:
        """Record the run's settings by name."""
        self._try("record the settings", lambda tracker: tracker.settings(values))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record scalars by tag, at a number of environment steps."""
        self._try("record the curves", lambda tracker: tracker.scalars(step, values))

    def close(self) -> None:
        """Finish."""
        self._try("finish", lambda tracker: tracker.close())
        self._tracker = None

    def _try(self, what: str, do: Callable[[ExperimentTracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            do(self._tracker)
        except Exception as error:  # as above
            self._failed(what, error)

    def _failed(self, what: str, error: Exception) -> None:
        self._tracker = None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        self._say(f"{self._name} could not {what} ({reason}); the run goes on without it")


def check_tracker(name: str) -> None:
    """Refuse a tracker whose library is not installed.

    Raises:
        ConfigError: naming the extra that brings it.
    """
    if name == "none":
        return
    try:
        importlib.import_module(name)
    except ImportError:
        raise ConfigError(f'track: {name} is not installed; wanted pip install "mlbits[{name}]"') from None


def _read_ids(folder: Path) -> dict[str, str]:
    """The ids of tracked runs by tracker; none where the file is missing or damaged."""
    try:
        ids = read_json_file(folder / TRACKED)
        return {str(name): str(known) for name, known in ids.items()}
    except (OSError, ValueError, AttributeError):
        return {}
