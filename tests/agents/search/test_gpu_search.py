"""Trees on a GPU, without a GPU: in Numba's simulator they are those of the CPU; and the kernels compile to PTX."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mlbits
from mlbits.agents.search.driver import compile_to_ptx
from tests.agents.search.simulated import RESULTS, results

pytest.importorskip("numba_cuda")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulator") / "searches.npz"
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.agents.search.simulated", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with np.load(path) as found:
        return dict(found)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("worked puct", "gumbel", "puct", "random games")]


@pytest.mark.parametrize("name", ["worked gumbel", *SLOW])
def test_the_simulated_gpu_grows_the_cpu_s_trees(name, simulated):
    """Also in a tree that was kept, with noise, with solved positions and a finished game."""
    want = results(name, "cpu")
    assert set(want) == {f"{turn}|{part}" for turn in (0, 1) for part in RESULTS}
    for part, value in want.items():
        got = simulated[f"{name}|{part}"]
        if value.dtype.kind == "f":
            np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-6, err_msg=part)
        else:
            np.testing.assert_array_equal(got, value, err_msg=part)


def test_mctx_s_worked_tree_on_the_simulated_gpu(simulated):
    assert simulated["worked gumbel|0|nodes"].tolist() == [9]


@pytest.mark.parametrize("simulations", [3, 9])
def test_nothing_waits_for_the_gpu_while_trees_grow(simulations, simulated):
    """One kernel and one call of the network a simulation, of all rows; and no tensor is read."""
    counts = {part: simulated[f"counts|{simulations}|{part}"].tolist() for part in ("kernels", "waits", "calls")}
    assert counts["kernels"] == ["begin", *["advance"] * (simulations + 1), "report"]
    assert counts["calls"] == [4] * (simulations + 1)
    assert counts["waits"] == []


@pytest.mark.slow
def test_kernels_compile_for_a_hopper_gpu():
    game = mlbits.make_game("mlbits/TicTacToe-v0")
    for ptx in compile_to_ptx(game, "gumbel", ["begin", "advance"]):
        assert ".target sm_90" in ptx
        assert ".visible .entry" in ptx


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gumbel", "puct", "uct"])
@pytest.mark.parametrize(
    "game_id", ["mlbits/ConnectFour-v0", "mlbits/Othello-v0", "mlbits/Hex-v0", "mlbits/GridWorld-v0"]
)
def test_all_kernels_of_all_methods_compile_for_a_hopper_gpu(game_id, method):
    for ptx in compile_to_ptx(mlbits.make_game(game_id), method, ["begin", "advance", "by_rollouts", "report"]):
        assert ".visible .entry" in ptx
