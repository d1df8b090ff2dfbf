"""The kernel for advantages: on a stand-in and in Numba's simulator as the plain loops; and it compiles to PTX."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import types

from mlbits.agents.kernels import advantages_on_gpu
from mlbits.agents.maths.returns import gae
from mlbits.envs.engine.gpu_copies import kernel_ptx, kernel_type
from mlbits.evals.benchmarks.stand_in_gpu import stand_in_gpu

pytest.importorskip("numba_cuda")
ROOT = Path(__file__).parents[3]
_SIMULATED = """
import torch
from mlbits.agents.kernels.advantages_on_gpu import advantages
from tests.agents.kernels.test_advantages_on_gpu import rollout
for turns in (False, True):
    parts = rollout(turns)
    ended = parts.pop("terminated") | parts.pop("truncated")
    found = advantages(**parts, ended=ended, discount=0.9, gae_lambda=0.8)
    print(" ".join(format(number, ".9g") for number in found.flatten().tolist()))
"""


def rollout(turns, device="cpu"):
    """Five steps of two copies with two seats, with both kinds of ends."""
    generator = torch.Generator().manual_seed(3)
    shape = (5, 2, 2)
    reward, value, following = (torch.randn(shape, generator=generator) for _ in range(3))
    terminated, truncated = torch.zeros(2, 5, 2, dtype=torch.bool).unbind()
    terminated[1, 0], truncated[3, 1] = True, True
    active = torch.rand(shape, generator=generator) < 0.6 if turns else None
    parts = {"reward": reward, "value": value, "next_value": following, "active": active,
             "terminated": terminated, "truncated": truncated}  # fmt: skip
    return {name: None if part is None else part.to(device) for name, part in parts.items()}


@pytest.mark.parametrize("turns", [False, True])
def test_on_the_stand_in_it_is_the_plain_loop_in_one_launch(turns):
    wanted = gae(**rollout(turns), discount=0.9, gae_lambda=0.8)
    assert wanted.abs().min() > 0 or turns
    with stand_in_gpu() as counts:
        parts = rollout(turns, "cuda")
        counts.launches.clear()
        found = gae(**parts, discount=0.9, gae_lambda=0.8)
        assert counts.launches["of_seat"] == 1
        assert counts.launches.total() <= 3
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-6, atol=1e-6)


def test_plain_loops_run_there_without_kernels(monkeypatch):
    monkeypatch.setenv("MLBITS_KERNELS", "0")
    with stand_in_gpu() as counts:
        parts = rollout(True, "cuda")
        counts.launches.clear()
        gae(**parts, discount=0.9, gae_lambda=0.8)
        assert counts.launches["of_seat"] == 0
        assert counts.launches.total() > 50


def test_in_the_simulator_it_is_the_plain_loop():
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", _SIMULATED]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for turns, line in zip((False, True), done.stdout.splitlines(), strict=True):
        wanted = gae(**rollout(turns), discount=0.9, gae_lambda=0.8)
        np.testing.assert_allclose([float(number) for number in line.split()], wanted.flatten(), rtol=1e-5, atol=1e-6)


def test_it_compiles_for_a_hopper_gpu():
    floats, flags = kernel_type(np.float32, 3), kernel_type(np.bool_, 3)
    ended = kernel_type(np.bool_, 2)
    numbers = (types.int64, types.boolean, types.float32, types.float32)
    signature = types.void(*numbers, floats, floats, floats, ended, flags, floats)
    text = kernel_ptx(advantages_on_gpu.kernel(), signature, (9, 0))
    assert ".entry" in text
    assert ".f64" not in text  # float32 throughout: a card has few units for float64
