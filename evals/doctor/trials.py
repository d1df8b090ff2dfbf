"""Whether compiled rules run on the CPU and on a GPU, and whether processes can share memory: by trying it."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from mlbits.evals.doctor.findings import Finding, try_apart

PATIENCE = 180.0  # seconds for a trial; one takes about 5 on a machine that is free
_FULL_CORE = 0.6
_KERNELS, _PROCESSES = "mlbits.evals.doctor.try_kernels", "mlbits.evals.doctor.try_processes"


def on_the_cpu() -> Iterator[Finding]:
    """Rules compiled for the CPU."""
    found = _tried("cpu")
    text = "rules on the CPU: "
    if "error" in found:
        yield Finding("kernels", "cpu", "broken", f"{text}{found['error']}", found)
        return
    text += _times(found)
    starved = found["core"] < _FULL_CORE
    if starved:
        text += f"; got {100 * found['core']:.0f}% of a core, since other programs run"
    yield Finding("kernels", "cpu", "slow" if starved else "fine", text, found)


def on_a_gpu() -> Iterator[Finding]:
    """Rules compiled for a GPU: run if there is one, else compiled only."""
    if importlib.util.find_spec("numba_cuda") is None:
        yield Finding(
            "kernels", "gpu", "missing", 'rules on a GPU: not tried without numba-cuda (pip install "mlbits[gpu]")'
        )
        return
    text = "rules on a GPU: "
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        yield Finding("kernels", "gpu", "missing", f"{text}not tried with NUMBA_ENABLE_CUDASIM=1")
        return
    if not torch.cuda.is_available():
        found = _tried("ptx")
        if "error" in found or not found["whole"]:
            why = found.get("error", "the compiler's text is not whole")
            yield Finding("kernels", "gpu", "broken", f"{text}they do not compile: {why}", found)
            return
        said = f"{text}compiled in {found['compile_seconds']:.1f} s; not run, since no GPU can be used here"
        yield Finding("kernels", "gpu", "missing", said, found)
        return
    found = _tried("cuda")
    if "error" in found:
        yield Finding("kernels", "gpu", "broken", f"{text}{found['error']}", found)
    elif not found["equal"]:
        yield Finding("kernels", "gpu", "broken", f"{text}they do not play as on the CPU; please report this", found)
    else:
        yield Finding("kernels", "gpu", "fine", f"{text}{_times(found)}; plays as on the CPU", found)


def processes() -> Iterator[Finding]:
    """Two processes that step copies in shared memory, as ``env_workers`` has them do."""
    found = try_apart(_PROCESSES, seconds=PATIENCE)
    if "error" in found:
        yield Finding("processes", "workers", "broken", f"processes with shared memory: {found['error']}", found)
        return
    started, step = found["start_seconds"], 1e6 * found["step_seconds"]
    text = (
        f"two processes with shared memory: started in {started:.1f} s, {step:,.0f} microseconds a step of CartPole-v1"
    )
    yield Finding("processes", "workers", "fine", text, found)


def _tried(what: str) -> dict[str, Any]:
    """The result of a trial with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="mlbits-doctor-", ignore_cleanup_errors=True) as folder:
        return try_apart(_KERNELS, what, seconds=PATIENCE, environment={**os.environ, "MLBITS_CACHE_DIR": folder})


def _times(found: dict[str, Any]) -> str:
    return (
        f"compiled in {found['compile_seconds']:.1f} s, loaded from the cache in {found['load_seconds']:.2f} s, "
        f"{found['steps_per_second'] / 1e6:,.1f} M steps/s of GridWorld"
    )
