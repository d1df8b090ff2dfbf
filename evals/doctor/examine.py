"""All that ``mlbits doctor`` looks at, in order, and what it says in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlbits.evals.doctor import caches, gpus, machine, packages, trials
from mlbits.evals.doctor.findings import Finding, findings_of
from mlbits.version import __version__

PARTS: dict[str, tuple[Callable[[], Iterator[Finding]], ...]] = {
    "versions": (packages.versions,),
    "processor": (machine.processor, machine.cores, machine.threads, machine.memory, machine.settings),
    "gpu": (gpus.torch_gpus, gpus.nvidia_driver, gpus.numba_cuda),
    "caches": (caches.rules_cache, caches.kernels_cache),
    "kernels": (trials.on_the_cpu, trials.on_a_gpu),
    "processes": (trials.processes,),
    "extras": (packages.extras,),
}
_TRIALS = ("kernels", "processes")


def examine(quick: bool = False) -> Iterator[Finding]:
    """Look at this machine and this installation.

    Args:
        quick: leave out what is found by trying it (compiling and running rules, starting processes).

    Yields:
        Findings, as they are made. Nothing is raised: what fails is a finding.
    """
    for section, parts in PARTS.items():
        if not (quick and section in _TRIALS):
            yield from findings_of(section, parts)


def conclusion(found: Sequence[Finding]) -> str:
    """One line: what is broken, and what is slow here."""
    broken, slow = ([one.name for one in found if one.state == state] for state in ("broken", "slow"))
    parts = [f"broken: {', '.join(broken)}" if broken else "nothing is broken"]
    parts += [f"slow here: {', '.join(slow)}"] if slow else []
    return "; ".join(parts)


def to_json(found: Sequence[Finding]) -> dict[str, Any]:
    """The findings as data."""
    return {
        "mlbits": __version__,
        "broken": [one.name for one in found if one.state == "broken"],
        "slow": [one.name for one in found if one.state == "slow"],
        "findings": [
            {"section": one.section, "name": one.name, "state": one.state, "text": one.text, "facts": dict(one.facts)}
            for one in found
        ],
    }
