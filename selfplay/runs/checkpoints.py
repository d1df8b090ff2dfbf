"""Checkpoints that survive a kill at any moment: written aside, synced, renamed; checked by digest when read.

A checkpoint is a folder ``step-000000123456`` with ``weights.safetensors`` (the agent), ``arrays.safetensors``
(environments, generators, episodes under way), ``state.json`` (counters) and ``manifest.json`` (format, what it belongs
to, SHA-256 of each file). Nothing is pickled. A folder that is not whole is never seen under its final name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.plain_json import read_json_file

FORMAT = 1
MANIFEST = "manifest.json"
ASIDE = ".old"
_FILES = ("weights.safetensors", "arrays.safetensors", "state.json")


class CheckpointError(MlbitsError, RuntimeError):
    """A checkpoint that is damaged, foreign or missing."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        weights: the agent's state by name.
        arrays: every other tensor by name.
        state: counters, as plain data.
    """

    weights: dict[str, Tensor]
    arrays: dict[str, Tensor]
    state: dict[str, Any]


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent: to a temporary name, synced, renamed, the folder synced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for stale in path.parent.iterdir():  # of a process killed while writing it
        if stale.name.startswith(f".{path.name}.") and stale.suffix == ".tmp":
            stale.unlink(missing_ok=True)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and sync the folders that they are in.

    Raises:
        OSError: if one cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file and sync it."""
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)
    sync_file(path)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def save(folder: Path, step: int, checkpoint: Checkpoint, belongs_to: Mapping[str, Any], keep: int) -> Path:
    """Write one checkpoint and drop the oldest beyond ``keep``.

    Args:
        folder: the run's folder of checkpoints.
        step: environment steps so far; the checkpoint's name.
        checkpoint: what to save.
        belongs_to: facts that must be the same when it is read (agent, environment, shapes).
        keep: how many to keep.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: if the disk does not take it; earlier checkpoints are as they were.
    """
    target = folder / f"step-{step:012d}"
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        make_folder(folder)
        for stale in folder.glob(".step-*.tmp"):  # of a process killed while saving
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir()
        # Written straight into files and hashed from there: a replay buffer may take much of the memory.
        for name, tensors in (("weights.safetensors", checkpoint.weights), ("arrays.safetensors", checkpoint.arrays)):
            write_tensors(temporary / name, tensors)
        write_file(temporary / "state.json", json.dumps(checkpoint.state, indent=1).encode())
        digests = {name: _digest(temporary / name) for name in _FILES}
        manifest = {"format": FORMAT, "belongs_to": dict(belongs_to), "sha256": digests}
        write_file(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
        if target.exists():  # the same step, saved before the run was resumed: kept until the new one is complete
            aside = target.with_name(target.name + ASIDE)
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        temporary.rename(target)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"{target}: could not be written ({error}); earlier checkpoints are unharmed") from None
    # Hidden folders are left by an interrupted save or removal.
    for leftover in [*folder.glob(f"step-*{ASIDE}"), *folder.glob(".step-*.tmp")]:
        shutil.rmtree(leftover, ignore_errors=True)
    for old in found(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def found(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first; one moved aside for another of its step comes before that one."""
    names = (path for path in folder.glob("step-*") if path.is_dir())
    return sorted(names, key=lambda path: (path.name.removesuffix(ASIDE), not path.name.endswith(ASIDE)))


def load(path: Path, belongs_to: Mapping[str, Any]) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointError: if a file is missing, does not match its digest, is of another format, or belongs to
            something else; the message names the cause.
    """
    try:
        manifest = read_json_file(path / MANIFEST)
        digests = {name: _digest(path / name) for name in _FILES}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: damaged: {Path(str(error.filename)).name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: manifest.json cannot be read ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        got = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise CheckpointError(f"{path}: foreign: format {got!r}; this version of mlbits reads {FORMAT}")
    for key in ("sha256", "belongs_to"):
        if not isinstance(manifest.get(key), dict):
            raise CheckpointError(f"{path}: damaged: manifest.json: {key} is {manifest.get(key)!r:.60}; wanted a table")
    for name, digest in digests.items():
        if digest != manifest["sha256"].get(name):
            raise CheckpointError(f"{path}: damaged: {name} does not match its digest")
    for key, wanted in belongs_to.items():
        got = manifest["belongs_to"].get(key)
        if got != wanted:
            raise CheckpointError(f"{path}: foreign: its {key} {_difference(got, wanted)}")
    try:
        weights, arrays = load_file(path / "weights.safetensors"), load_file(path / "arrays.safetensors")
        state = read_json_file(path / "state.json")
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None
    steps = state.get("env_steps") if isinstance(state, dict) else None
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise CheckpointError(f"{path}: damaged: state.json: env_steps is {steps!r:.60}; wanted a whole number from 0")
    return Checkpoint(weights, arrays, state)


def _difference(got: Any, wanted: Any) -> str:
    """How a checkpoint's value differs from this run's; of two tables of settings, the first that do."""
    if not (isinstance(got, Mapping) and isinstance(wanted, Mapping)):
        return f"is {got!r}; this run's is {wanted!r}"
    names = [name for name in sorted({*got, *wanted}) if got.get(name) != wanted.get(name)]
    shown = ", ".join(f"{name} {_of(got, name)} (this run: {_of(wanted, name)})" for name in names[:5])
    return f"has {shown}{' and others' if len(names) > 5 else ''}"


def _of(table: Mapping[str, Any], name: str) -> str:
    return repr(table[name]) if name in table else "not set"


def load_latest(
    folder: Path, belongs_to: Mapping[str, Any], restore: Callable[[Checkpoint], None] = lambda checkpoint: None
) -> tuple[Checkpoint | None, Path | None, list[str]]:
    """Read the newest checkpoint that is complete.

    Args:
        folder: the run's folder of checkpoints.
        belongs_to: facts that it has to have, see :func:`save`.
        restore: called with the checkpoint; if it raises a CheckpointError, the one before it is read.

    Returns:
        The checkpoint and its folder (None if there is none), and a message for each newer one that was skipped.

    Raises:
        CheckpointError: if there are checkpoints and none is usable.
    """
    problems: list[str] = []
    for path in reversed(found(folder)):
        try:
            checkpoint = load(path, belongs_to)
            restore(checkpoint)
            return checkpoint, path, problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"no usable checkpoint: {'; '.join(dict.fromkeys(problems))}")
    return None, None, []


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system supports it."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
