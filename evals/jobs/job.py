"""A job: a function by name and plain arguments, keyed by what it computes.

A job has to be a function of its key: whoever computes it, whenever and however often, the value is the same. So a job
may be run again where it is not known whether it was finished, and a stored value is as good as a computed one.

Example:
    >>> job = Job("two cubed", "builtins:pow", {"base": 2, "exp": 3})
    >>> job.compute(), len(job.key)
    (8, 64)
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.version import __version__


class JobError(MlbitsError, RuntimeError):
    """A job that failed each time it was tried, or one that cannot be sent to another process."""


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        name: for people, as in "CartPole-v1 ppo seed 3".
        function: "module:name", called with the arguments; it returns plain data.
        arguments: plain data (what JSON can hold), by parameter.
        here: computes the same in this process from objects that it has already, or None; not part of the key.
    """

    name: str
    function: str
    arguments: Mapping[str, Any]
    here: Callable[[], Any] | None = field(default=None, compare=False)

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 of the function's name, the arguments and the versions of what computes it, 64 hexadecimal digits."""
        what = [json.loads(self.text()), versions()]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def text(self) -> str:
        """The function and its arguments as JSON, in their order, from which :func:`job_from` makes the job again.

        Raises:
            JobError: for arguments that are not plain data.
        """
        try:
            return json.dumps({"function": self.function, "arguments": dict(self.arguments)})
        except (TypeError, ValueError) as error:
            raise JobError(f"{self.name}: its arguments are not plain data ({error})") from None

    def compute(self) -> Any:
        """Compute the value in this process."""
        if self.here is not None:
            return self.here()
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)(**self.arguments)


def job_from(text: str, name: str = "") -> Job:
    """The job of :meth:`Job.text`."""
    said = json.loads(text)
    return Job(name or said["function"], said["function"], said["arguments"])


@functools.cache
def versions() -> dict[str, str]:
    """The versions that a value may depend on, by name; without importing anything large."""
    return {"mlbits": __version__, "python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in ("torch", "numpy", "numba")
    }


def failure(error: Exception) -> dict[str, Any]:
    """An exception as the fields of a report.

    Returns:
        "error": the message of an error of mlbits, others with their type; "final": whether another try is of no use,
        as the arguments are wrong.
    """
    if not isinstance(error, MlbitsError):
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": str(error), "final": isinstance(error, (ValueError, LookupError))}
