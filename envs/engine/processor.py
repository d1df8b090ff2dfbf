"""Describes the processor: name, widest vector instructions, whether bfloat16 matrix products are fast.

Matrix products in bfloat16 take half the time of float32 only if the processor has bfloat16 instructions
(AVX512-BF16 or AMX). Elsewhere they are emulated, ten times slower than float32, so agents and benchmarks check here
first. Limits set in the libraries count: with ``ONEDNN_MAX_CPU_ISA=AVX2`` (oneDNN multiplies torch's
matrices) or ``ATEN_CPU_CAPABILITY=avx2`` (torch's other kernels) a wider machine is described as one with AVX2 only.

Example:
    >>> describe().cores >= 1
    True
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numba
import torch
from llvmlite import binding

from mlbits.envs.engine.multicore import usable_cores

_numba_config: Any = numba.config  # its attributes are set at run time
# Names of instruction sets, widest first, with the LLVM feature that each needs.
_X86 = (("amx_bf16", "amx-bf16"), ("avx512_bf16", "avx512bf16"), ("avx512", "avx512bw"), ("avx2", "avx2"))
_ARM = (("sve", "sve"), ("neon", "neon"))
# The widest instructions that ONEDNN_MAX_CPU_ISA and torch's capability allow; names not listed here set no limit.
_ONEDNN = {
    "SSE41": "baseline", "AVX": "baseline", "AVX2": "avx2", "AVX2_VNNI": "avx2", "AVX2_VNNI_2": "avx2",
    "AVX512_CORE": "avx512", "AVX512_CORE_VNNI": "avx512",
    "AVX512_CORE_BF16": "avx512_bf16", "AVX512_CORE_FP16": "avx512_bf16",
}  # fmt: skip
_TORCH = {"DEFAULT": "baseline", "NO AVX": "baseline", "AVX2": "avx2"}


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor.

    Attributes:
        name: the vendor's name, with LLVM's name of the microarchitecture if known.
        isa: the widest instruction set in use: "amx_bf16", "avx512_bf16", "avx512", "avx2" (x86-64), "sve", "neon"
            (ARM) or "baseline".
        fast_bfloat16: whether matrix products in bfloat16 are faster than in float32.
        cores: how many cores this process may use.
    """

    name: str
    isa: str
    fast_bfloat16: bool
    cores: int

    def __str__(self) -> str:
        return f"{self.name}, {self.isa}, {self.cores} {'core' if self.cores == 1 else 'cores'}"


def described(processor: Processor) -> str:
    """The model and the instructions that are used of it, as one text: equal where computations have equal bits."""
    return f"{processor.name} ({processor.isa})"


def has_fast_bfloat16() -> bool:
    """Whether torch's matrix products in bfloat16 are faster than in float32 here: AVX512-BF16 or AMX.

    ARM's bfloat16 has not been measured and counts as not fast.
    """
    return describe().fast_bfloat16


def compiles_for_avx512() -> bool:
    """Whether Numba compiles for 512-bit vectors: the processor has them, and Numba's settings name no other target."""
    if _numba_config.CPU_FEATURES is not None:
        return "+avx512f" in str(_numba_config.CPU_FEATURES).split(",")
    return _numba_config.CPU_NAME is None and bool(binding.get_host_cpu_features().get("avx512f"))


@cache
def describe() -> Processor:
    """The processor of this machine as this process sees it; determined once per process."""
    features = binding.get_host_cpu_features()
    isa = instruction_set(features, torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA", ""))
    return Processor(_name(), isa, isa in ("amx_bf16", "avx512_bf16"), usable_cores())


def instruction_set(features: Mapping[str, bool], torch_capability: str, onednn_limit: str) -> str:
    """The widest instruction set that the processor has and the libraries may use.

    Args:
        features: LLVM's names of processor features, and whether the processor has each.
        torch_capability: ``torch.backends.cpu.get_cpu_capability()``.
        onednn_limit: the value of ``ONEDNN_MAX_CPU_ISA``; "" for none.

    Returns:
        One of the names in :class:`Processor`.
    """
    if not any(features.get(feature) for _, feature in _X86):
        return next((name for name, feature in _ARM if features.get(feature)), "baseline")
    order = [name for name, _ in _X86] + ["baseline"]
    own = next(rank for rank, (_, feature) in enumerate(_X86) if features.get(feature))
    limits = [_TORCH.get(torch_capability), _ONEDNN.get(onednn_limit.upper())]
    return order[max([own, *(order.index(limit) for limit in limits if limit)])]


def _name() -> str:
    """The vendor's name and LLVM's, such as "AMD EPYC 9354 (znver4)"."""
    made, design = "", binding.get_host_cpu_name()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "linux":
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            made = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
        elif sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            made = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    made = made or platform.processor() or platform.machine()
    return made if design in ("", "generic", made) else f"{made} ({design})"
