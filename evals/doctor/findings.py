"""Findings, and the rule that a part which fails is a finding too, never a traceback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["fine", "slow", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        section: "versions", "processor", "gpu", "caches", "kernels", "processes" or "extras".
        name: what it is about, unique in its section.
        state: "fine"; "slow": works, and could be faster; "missing": an optional part that is not installed, or no GPU;
            "broken": does not work.
        text: one line for people.
        facts: the same as numbers and names.
    """

    section: str
    name: str
    state: State
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def findings_of(section: str, parts: Sequence[Callable[[], Iterator[Finding]]]) -> Iterator[Finding]:
    """All findings of some parts; what a part raises, or warns of, is one more."""
    for part in parts:
        name = part.__name__.strip("_").replace("_", " ")
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                yield from part()
            except Exception as error:  # whatever a broken installation raises
                yield Finding(section, name, "broken", f"{name}: {one_line(error)}", {"error": repr(error)})
        for warning in warned:
            if not issubclass(warning.category, (DeprecationWarning, PendingDeprecationWarning, ResourceWarning)):
                yield Finding(section, f"{name} warns", "fine", f"{name} warns: {one_line(warning.message)}")


def one_line(error: object) -> str:
    """An error's name and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = type(error).__name__ if isinstance(error, BaseException) else ""
    return ": ".join(part for part in (named, lines[0] if lines else "") if part)


def try_apart(module: str, *words: str, seconds: float, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a module prints as JSON in its last line, in a process of its own, which may crash or hang.

    Returns:
        What it printed; {"error": why} if it printed none.
    """
    command = [sys.executable, "-m", module, *words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {seconds:.0f} s"}
    except OSError as error:
        return {"error": f"a process cannot be started ({error})"}
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    with contextlib.suppress(ValueError, IndexError):
        found = json.loads(lines[-1])
        if isinstance(found, dict):
            return found
    if done.returncode < 0:
        return {"error": f"ended by signal {-done.returncode}"}
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return {"error": said[-1] if said else f"ended with status {done.returncode}"}
