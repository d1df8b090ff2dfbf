"""The processor, cores, load, memory and settings of this machine, and which of them make mlbits slow here."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from mlbits.envs.engine.compiling import slowness_here
from mlbits.envs.engine.memory import memory_bytes
from mlbits.envs.engine.processor import describe
from mlbits.evals.doctor.findings import Finding

GIB = 2**30
_NARROW = ("baseline", "neon")
# Settings that change speed or results, and what they do.
SETTINGS = {
    "NUMBA_DISABLE_JIT": ("1", "rules run as plain Python, a thousand times slower"),
    "NUMBA_ENABLE_CUDASIM": ("1", "GPU kernels run in Numba's simulator on the CPU, for tests alone"),
    "MLBITS_KERNELS": ("0", "agents run without their compiled kernels"),
    "NUMBA_OPT": ("0", "machine code is not optimised"),
    "CUDA_LAUNCH_BLOCKING": ("1", "each kernel is waited for"),
    "PYTHONDEVMODE": ("1", "Python checks more, and is slower"),
}


def processor() -> Iterator[Finding]:
    """The processor's name and vector instructions."""
    here = describe()
    facts = {"name": here.name, "isa": here.isa, "fast_bfloat16": here.fast_bfloat16, "cores": here.cores}
    narrow = here.isa in _NARROW
    why = "; no AVX2: networks and rules run on narrow vectors, 2 to 4 times slower" if here.isa == "baseline" else ""
    yield Finding("processor", "processor", "slow" if narrow and why else "fine", f"{here}{why}", facts)
    slowness = slowness_here()
    state, text = "fine", f"plain Python runs at {1 / slowness:.2f} times the speed of the machine of our measurements"
    yield Finding("processor", "python", state, text, {"slowness": slowness})  # type: ignore[arg-type]


def cores() -> Iterator[Finding]:
    """How many cores this process may use, and whether others use them too."""
    present, usable = os.cpu_count() or 1, describe().cores
    quota = cgroup_cores()
    facts = {"present": present, "usable": usable, "quota": None if math.isinf(quota) else quota}
    text = f"{usable} of {present} cores may be used"
    if quota < usable:
        text += f", and the container's limit gives the time of {quota:.3g}: threads beyond that only wait"
    yield Finding("processor", "cores", "slow" if quota < usable else "fine", text, facts)
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        busy = load > 0.75 * present and load > 1
        text = f"load {load:.1f} on {present} cores in the last minute"
        if busy:
            text += ": other programs take the time; CPU-seconds stay true, wall seconds do not"
        yield Finding("processor", "load", "slow" if busy else "fine", text, {"load": load})


def threads() -> Iterator[Finding]:
    """How many threads the libraries use, and why it matters."""
    usable, used = describe().cores, torch.get_num_threads()
    chosen = {name: value for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
              if (value := os.environ.get(name))}  # fmt: skip
    text = f"torch uses {used} thread{'s' * (used != 1)}" + "".join(
        f", {name}={value}" for name, value in chosen.items()
    )
    wrong = used > usable
    if wrong:
        text += f": more than the {usable} cores that may be used, so they wait for each other"
    yield Finding("processor", "threads", "slow" if wrong else "fine", text, {"torch": used, **chosen})


def memory() -> Iterator[Finding]:
    """Memory, what of it is free, and the memory that processes share."""
    total, free = memory_bytes(), available_bytes()
    text = f"{total / GIB:.1f} GiB of memory" + (f", {free / GIB:.1f} free" if free is not None else "")
    tight = free is not None and free < 1 * GIB
    if tight:
        text += ": little; large batches and replay buffers may not fit"
    yield Finding("processor", "memory", "slow" if tight else "fine", text, {"total": total, "free": free})
    folder = Path("/dev/shm")
    if folder.is_dir():
        room = shutil.disk_usage(folder).free
        small = room < 64 * 2**20
        text = f"{room / GIB:.2f} GiB free in /dev/shm, which processes share"
        if small:
            text += ": little; env_workers of large observations may not fit (containers: --shm-size)"
        yield Finding("processor", "shared memory", "slow" if small else "fine", text, {"free": room})


def settings(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Environment variables that make things slow."""
    for name, (value, what) in SETTINGS.items():
        if environment.get(name) == value:
            yield Finding("processor", name, "slow", f"{name}={value}: {what}", {"value": value})


def cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> float:
    """The cores' worth of time that a container's limit gives; infinite without one.

    Args:
        root: where control groups are mounted (versions 2 and 1 are read).
    """
    limits = [math.inf]
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()[:2]
        if quota != "max":
            limits.append(int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            limits.append(int(quota) / int(period))
    return min(limits)


def available_bytes() -> int | None:
    """Memory that programs can still have; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
