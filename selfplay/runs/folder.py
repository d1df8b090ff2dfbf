"""The folder of a run: config.json, TensorBoard events, metrics.jsonl, checkpoints/, summary.json."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.plain_json import read_json_file
from mlbits.envs.engine.processor import describe, described
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.config import Settings, portable, resolve, settings_from_json
from mlbits.selfplay.runs.one_writer import one_writer
from mlbits.selfplay.runs.stopping import reached
from mlbits.selfplay.statistics import json_text
from mlbits.version import __version__

CONFIG, SUMMARY, CHECKPOINTS, BEST = "config.json", "summary.json", "checkpoints", "best"
# Of the default name: how many settings, how long each, and those that say nothing about what is learned.
_NAME_PARTS, _NAME_PART = 3, 32
_UNNAMED = (
    "seed", "device", "threads", "workers", "worker_timeout", "video", "track", "eval_every", "eval_episodes",
    "eval_greedy", "record_every",
    "checkpoint_every", "keep_checkpoints", "rule_hash",
)  # fmt: skip


class RunError(MlbitsError, RuntimeError):
    """A folder that cannot be used as a run."""


def new_folder(settings: Settings, out: str | Path | None) -> Path:
    """Make the folder of a new run and write its config.

    Args:
        settings: the run's settings.
        out: the folder; None makes one in the working folder that no other run has or gets:
            ``runs/AGENT-ENV-seedN-SETTINGS-TIME``, with the settings that are not the preset's.

    Raises:
        RunError: if the folder holds another run or cannot be made.
        InUseError: if another process is writing it.
    """
    config = portable(settings) | {
        "version": __version__,
        "git_hash": git_hash(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": described(describe()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    folder = Path("runs") / default_name(settings) if out is None else Path(out)
    try:
        if out is None:
            folder = _take(folder)
        else:
            _check_empty(folder)
            checkpoints.make_folder(folder)
        with one_writer(folder):
            _check_empty(folder)  # another process may have begun a run here meanwhile
            checkpoints.write_file(folder / CONFIG, json.dumps(config, indent=2).encode())
    except OSError as error:
        raise RunError(f"out: {folder} cannot be written ({error.strerror}); wanted a writable folder") from None
    return folder


def named_folder(settings: Settings) -> Path:
    """Make the empty folder of a run that is begun later, with the name that :func:`new_folder` would give it.

    Raises:
        RunError: if it cannot be made.
    """
    folder = Path("runs") / default_name(settings)
    try:
        return _take(folder)
    except OSError as error:
        raise RunError(f"out: {folder} cannot be made ({error.strerror}); wanted a writable folder") from None


def other_processor(folder: Path) -> str:
    """A line for the user where a run was begun on another processor, which may give other bits; else ""."""
    begun, here = read_json_file(folder / CONFIG).get("processor"), described(describe())
    if begun is None or begun == here:
        return ""
    return f"begun on {begun!s:.100}, going on with {here}: the last bits may differ from an undisturbed run's"


def default_name(settings: Settings) -> str:
    """The default name of a run's folder: agent, environment, seed, settings that are not the preset's, time."""
    plain = resolve(settings.agent, settings.env, preset=settings.preset.partition("/")[2] or "none")
    changed: dict[str, Any] = {}
    for given, usual in (
        (_fields(settings.agent_config), _fields(plain.agent_config)),
        (settings.env_settings, plain.env_settings),
        (_fields(settings.run), _fields(plain.run)),
    ):
        changed |= {name: value for name, value in given.items() if name not in usual or usual[name] != value}
    parts = [f"{name}-{value}" for name, value in changed.items() if name not in _UNNAMED]
    shown = [re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-")[:_NAME_PART] for part in parts[:_NAME_PARTS]]
    more = [f"and-{len(parts) - _NAME_PARTS}-more"] if len(parts) > _NAME_PARTS else []
    what = re.sub(r"[^A-Za-z0-9]+", "-", f"{settings.agent}-{settings.env}").strip("-")
    return "-".join([what, f"seed{settings.run.seed}", *shown, *more, time.strftime("%Y%m%d-%H%M%S")])


def _fields(config: Any) -> dict[str, Any]:
    """The settings of a config by name."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _take(first: Path) -> Path:
    """Make a folder that no other process has: the first that does not exist, of this name and then numbered ones."""
    checkpoints.make_folder(first.parent)
    for folder in itertools.chain([first], (first.with_name(f"{first.name}-{k}") for k in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("the numbers do not end")


def _check_empty(folder: Path) -> None:
    """Refuse a folder that holds another run, or anything else."""
    if (folder / CONFIG).exists():
        again = f"mlbits resume {quote(str(folder))}"
        raise RunError(f"out: {folder} holds another run; wanted a new folder (or continue that run: {again})")
    if folder.is_dir() and not all(path.name.startswith(".") for path in folder.iterdir()):  # what a kill leaves
        raise RunError(f"out: {folder} is not empty; wanted a new or empty folder")


def read_settings(folder: str | Path) -> Settings:
    """The settings of a run.

    Raises:
        RunError: if the folder is no run, or its config is damaged.
    """
    path = Path(folder) / CONFIG
    try:
        return settings_from_json(read_json_file(path))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f"{folder}: no run here ({CONFIG} is missing); wanted the folder that training printed"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, MlbitsError):
            raise RunError(f"{path}: {error}") from None
        raise RunError(f"{path}: damaged ({error}); wanted the file that training wrote") from None


def change_settings(folder: Path, settings: Settings) -> None:
    """Replace the settings in a run's config.json; its other entries stay.

    Raises:
        RunError: if the config cannot be written.
    """
    path = folder / CONFIG
    try:
        config = read_json_file(path) | portable(settings)
        checkpoints.write_file(path, json.dumps(config, indent=2).encode())
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); wanted a writable run") from None


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json, whole or not at all."""
    checkpoints.write_file(folder / SUMMARY, json_text(dict(summary), indent=2).encode())


def read_summary(folder: str | Path) -> dict[str, Any]:
    """How a run ended; empty while it has not.

    Raises:
        RunError: if the file is damaged.
    """
    path = Path(folder) / SUMMARY
    try:
        found = read_json_file(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged ({error}); nothing needs it: delete it") from None
    if not isinstance(found, dict):
        raise RunError(f"{path}: damaged (it is no table); nothing needs it: delete it")
    return found


def finished_summary(folder: str | Path, total_steps: int | None = None) -> dict[str, Any] | None:
    """The summary of a run that is finished; None if it is not, or has no summary yet.

    Args:
        folder: the run's folder.
        total_steps: a new number of steps to end at; None takes the run's own.

    Raises:
        RunError: if the folder is no run.
        CheckpointError: if there are checkpoints and none is usable.
    """
    folder, settings = Path(folder), read_settings(folder)
    checkpoint = _newest(folder, settings)
    try:
        summary = read_json_file(folder / SUMMARY)
        done = int(summary["env_steps"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if checkpoint is None or checkpoint.state.get("env_steps") != done:
        return None
    early = reached(settings.run, {**checkpoint.state, "solved_at": summary.get("solved_at")})
    minutes = settings.run.max_cpu_minutes
    spent = checkpoint.state.get("cpu_seconds", 0.0)
    late = minutes > 0 and isinstance(spent, (int, float)) and spent >= 60 * minutes
    return summary if early or late or done >= (total_steps or settings.run.total_steps) else None


def steps_done(folder: str | Path) -> int:
    """Environment steps at a run's newest whole checkpoint; 0 without one.

    Raises:
        RunError: if the folder is no run.
        CheckpointError: if there are checkpoints and none is usable.
    """
    checkpoint = _newest(Path(folder), read_settings(folder))
    steps = 0 if checkpoint is None else checkpoint.state.get("env_steps")
    if type(steps) is not int:
        raise checkpoints.CheckpointError(
            f"{folder}: its checkpoint has env_steps {str(steps)[:80]!r}; wanted a number"
        )
    return steps


def _newest(folder: Path, settings: Settings) -> checkpoints.Checkpoint | None:
    plain = json.loads(json.dumps(settings.to_json()))
    facts = {key: plain[key] for key in ("agent", "env", "agent_config", "env_settings")}
    return checkpoints.load_latest(folder / CHECKPOINTS, facts)[0]


def git_hash() -> str | None:
    """The commit of the mlbits source tree, with "+" if it has local changes; None if there is none."""
    here = Path(__file__).resolve().parent
    try:
        top = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--show-toplevel", "HEAD"], capture_output=True, text=True, timeout=5
        ).stdout.split()
        if len(top) != 2 or not (Path(top[0]) / "selfplay").is_dir():
            return None
        status = ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(status, capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return top[1] + ("+" if changed.strip() else "")
