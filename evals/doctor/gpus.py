"""GPUs, their driver, and the CUDA of torch and of Numba: what is here, and what keeps a GPU from being used."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mlbits.evals.doctor.findings import Finding, one_line

GIB = 2**30
_TOOLKIT = ("nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cuda-cccl",
            "nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime-cu12",
            "cuda-bindings", "cuda-core")  # fmt: skip
_DRIVER_FILE, _DEVICE_FILE = Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0")


def torch_gpus() -> Iterator[Finding]:
    """The GPUs that torch can use, or why it can use none although there is one."""
    built, hip = torch.version.cuda, getattr(torch.version, "hip", None)
    usable, why = False, ""
    try:
        usable = torch.cuda.is_available()
        count = torch.cuda.device_count() if usable else 0
    except Exception as error:  # whatever a broken installation raises
        count, why = 0, one_line(error)
    facts: dict[str, Any] = {"torch_cuda": built, "devices": count}
    here = _DEVICE_FILE.exists() or _DRIVER_FILE.exists()
    if count:
        for index in range(count):
            yield _gpu(index)
        return
    if why:
        yield Finding("gpu", "torch", "broken", f"torch {torch.__version__} cannot use CUDA: {why}", facts)
    elif here and built is None:
        made_for = "ROCm" if hip else "the CPU alone"
        text = f"there is an NVIDIA GPU, and torch {torch.__version__} was built for {made_for}; "
        yield Finding("gpu", "torch", "broken", f"{text}wanted a CUDA build of torch (pytorch.org)", facts)
    elif here:
        text = (
            f"there is an NVIDIA driver, and torch {torch.__version__} (CUDA {built}) finds no GPU: the driver may be "
        )
        yield Finding("gpu", "torch", "broken", f"{text}too old, or CUDA_VISIBLE_DEVICES hides it", facts)
    else:
        built_for = f"CUDA {built}" if built else "the CPU alone"
        text = f"no GPU here; torch {torch.__version__} was built for {built_for}: everything runs on the CPU"
        yield Finding("gpu", "torch", "missing", text, facts)


def _gpu(index: int) -> Finding:
    """One GPU: name, memory, compute capability."""
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    capability = f"{properties.major}.{properties.minor}"
    text = (
        f"cuda:{index}: {properties.name}, compute capability {capability}, {properties.multi_processor_count} "
        f"multiprocessors, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    )
    facts = {"name": properties.name, "compute_capability": capability, "free": free, "total": total}
    busy = free < 0.1 * total
    if busy:
        text += ": another program has nearly all of its memory"
    return Finding("gpu", f"cuda:{index}", "slow" if busy else "fine", text, facts)


def nvidia_driver() -> Iterator[Finding]:
    """The driver's version, from the system, and the CUDA it can run."""
    text, facts = "", {}
    if _DRIVER_FILE.exists():
        text = " ".join(_DRIVER_FILE.read_text().splitlines()[0].split())
        facts["driver"] = text
    if torch.cuda.is_available() and (asked := getattr(torch._C, "_cuda_getDriverVersion", None)):
        version = asked()
        facts["cuda"] = version
        text += f"{', ' if text else ''}runs CUDA up to {version // 1000}.{version % 1000 // 10}"
    if text:
        yield Finding("gpu", "driver", "fine", f"driver: {text}", facts)


def numba_cuda() -> Iterator[Finding]:
    """Numba's compiler for GPUs, and the parts of the CUDA toolkit that it uses."""
    if importlib.util.find_spec("numba_cuda") is None:
        state = "broken" if torch.cuda.is_available() else "missing"
        text = 'numba-cuda is not installed, so rules cannot run on a GPU; run pip install "mlbits[gpu]"'
        yield Finding("gpu", "numba-cuda", state, text)  # type: ignore[arg-type]
        return
    importlib.import_module("numba.cuda")
    found = {"numba-cuda": importlib.metadata.version("numba-cuda")}
    for name in _TOOLKIT:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(found) == 1:
        text += "; no toolkit from PyPI: one of the system's (CUDA_HOME) is used, if there is one"
    yield Finding("gpu", "numba-cuda", "fine", text, found)
