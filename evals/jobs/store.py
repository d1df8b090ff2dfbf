"""Finished results, a file for each key, so that a command that is run again computes only what is missing.

Only the process that hands out the jobs writes here. A file is written under a temporary name, synced and renamed
(:func:`mlbits.selfplay.runs.checkpoints.write_file`), and holds the digest of its value: one that is damaged is
computed again.

Example:
    >>> store, job = Store(Path("jobs")), Job("two cubed", "builtins:pow", {"base": 2, "exp": 3})
    >>> store.write(job, 8)
    >>> store.read(job)
    (8,)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from mlbits.envs.core.plain_json import read_json_file
from mlbits.evals.jobs.job import Job
from mlbits.selfplay.runs.checkpoints import make_folder, write_file


class Store:
    """Values of jobs in a folder.

    Args:
        folder: the folder; made when the first value is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, job: Job) -> Path:
        """The file of a job's value."""
        return self.folder / f"{job.key}.json"

    def read(self, job: Job) -> tuple[Any] | None:
        """The value in a tuple, or None if there is none that is whole."""
        try:
            held = read_json_file(self.path(job))
            whole = held["digest"] == _digest(held["value"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return (held["value"],) if whole else None

    def write(self, job: Job, value: Any) -> None:
        """Store a value; it is on the disk when this returns.

        Raises:
            OSError: if it cannot be written.
        """
        make_folder(self.folder)
        held = {"job": job.name, "function": job.function, "value": value, "digest": _digest(value)}
        write_file(self.path(job), json.dumps(held).encode())

    def forget(self, job: Job) -> None:
        """Delete a value that is kept elsewhere by now, and the folder with the last one."""
        self.path(job).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds others
            self.folder.rmdir()

    def clear(self) -> None:
        """Delete the folder, with what a process that was killed left in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
