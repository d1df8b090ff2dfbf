"""The processor: the widest instruction set that it has and that the libraries may use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mlbits.envs.engine import processor

ZEN4 = {"avx2": True, "avx512bw": True, "avx512bf16": True, "amx-bf16": False}
ZEN3 = {"avx2": True, "avx512bw": False, "avx512bf16": False, "amx-bf16": False}


@pytest.mark.parametrize(
    ("features", "capability", "limit", "expected"),
    [
        (ZEN4, "AVX512", "", "avx512_bf16"),
        (ZEN4, "AVX512", "DEFAULT", "avx512_bf16"),
        (ZEN4, "AVX2", "", "avx2"),
        (ZEN4, "AVX512", "AVX2", "avx2"),
        (ZEN4, "AVX512", "avx512_core", "avx512"),
        (ZEN4, "AVX512", "AVX512_CORE_FP16", "avx512_bf16"),
        (ZEN4, "DEFAULT", "AVX2", "baseline"),
        (ZEN4 | {"amx-bf16": True}, "AVX512", "", "amx_bf16"),
        (ZEN4 | {"amx-bf16": True}, "AVX512", "AVX512_CORE_BF16", "avx512_bf16"),
        (ZEN4 | {"avx512bf16": False}, "AVX512", "", "avx512"),  # Skylake, Cascade Lake, Ice Lake
        (ZEN3, "AVX2", "", "avx2"),
        (ZEN3, "AVX2", "AVX512_CORE_BF16", "avx2"),  # a limit does not add what the processor lacks
        ({"neon": True, "bf16": True}, "DEFAULT", "", "neon"),
        ({"neon": True, "sve": True}, "SVE256", "", "sve"),
        ({}, "DEFAULT", "", "baseline"),
    ],
)
def test_the_widest_instructions_that_both_processor_and_libraries_have(features, capability, limit, expected) -> None:
    assert processor.instruction_set(features, capability, limit) == expected


@pytest.mark.parametrize(("name", "value"), [("ONEDNN_MAX_CPU_ISA", "AVX2"), ("ATEN_CPU_CAPABILITY", "avx2")])
def test_a_process_limited_to_avx2_has_no_fast_bfloat16(name: str, value: str) -> None:
    text = (
        "from mlbits.envs.engine.processor import describe, has_fast_bfloat16; "
        "print(describe().isa, has_fast_bfloat16())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", text], env=os.environ | {name: value}, capture_output=True, text=True, check=True
    ).stdout.split()
    assert printed[0] in ("avx2", "neon", "sve", "baseline")
    assert printed[1] == "False"


def test_this_machine_has_a_name_and_cores() -> None:
    here = processor.describe()
    assert here.name
    assert here.cores == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else here.cores >= 1
    assert here.fast_bfloat16 == (here.isa in ("amx_bf16", "avx512_bf16")) == processor.has_fast_bfloat16()
    assert str(here).startswith(f"{here.name}, {here.isa}, ")
