"""The GPU code of every registered game, without a GPU: Numba's simulator, and compiling to PTX."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlbits.envs.engine.gpu_copies import compile_to_ptx
from tests.conformance.play import GAME_IDS, batch_of, game_of
from tests.conformance.simulator import COPIES, MODES, STEPS, visible

pytest.importorskip("numba_cuda")
every_game = pytest.mark.parametrize("game_id", GAME_IDS)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """All games' results on the simulator, from one process."""
    path = tmp_path_factory.mktemp("simulator") / "plays.npz"
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "tests.conformance.simulator", str(path), *GAME_IDS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with np.load(path) as plays:
        return dict(plays)


@pytest.mark.slow
@every_game
@pytest.mark.parametrize("illegal", MODES)
def test_the_simulated_gpu_agrees_with_the_cpu(game_id: str, illegal: str, simulated: dict[str, np.ndarray]) -> None:
    """Integers, flags and masks are equal bit for bit; floats to rounding, as on a GPU."""
    assert f"{game_id}|error" not in simulated, str(simulated[f"{game_id}|error"])
    wanted = {name.split("|")[2]: part for name, part in simulated.items() if name.startswith(f"{game_id}|{illegal}|")}
    batch = batch_of(game_id, COPIES, illegal=illegal, autoreset=MODES[illegal])
    dtype = game_of(game_id).state_dtype
    for t in range(STEPS):
        batch.step(wanted["actions"][t])
        got = visible(batch)
        assert got.keys() == wanted.keys() - {"actions"}
        for name, value in got.items():
            mine, theirs = value, wanted[name][t]
            where = f"step {t}: {name}"
            if name == "state":
                mine, theirs = (part.reshape(-1).view(dtype) for part in (mine, theirs))
                for field in dtype.names:
                    assert_close(mine[field], theirs[field], f"{where}.{field}")
            else:
                assert_close(mine, theirs, where)


def assert_close(got: Any, wanted: Any, where: str) -> None:
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6, err_msg=where)
    else:
        np.testing.assert_array_equal(got, wanted, err_msg=where)


# Compiling for a GPU is not cached: by default a few games of different kinds, some registered from outside.
QUICK = {"mlbits/GridWorld-v0", "mlbits/PointMass-v0", "test/Nim-v0", "test/Throws-v0"}


@pytest.mark.parametrize(
    "game_id", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in GAME_IDS]
)
def test_compiles_for_a_hopper_gpu(game_id: str) -> None:
    ptx = compile_to_ptx(game_of(game_id), (9, 0))
    assert ".target sm_90" in ptx
    assert ".visible .entry" in ptx
