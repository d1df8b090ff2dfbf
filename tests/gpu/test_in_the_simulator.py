"""The tests of a card, in Numba's simulator: they run, and where there is no card they are skipped and say why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu import conftest
from tests.gpu.traffic import accesses, bytes_a_step, sectors

ROOT = Path(__file__).parents[2]


def outcomes(*words: str, simulated: bool = True) -> dict[str, int]:
    """How many tests of a card passed, failed or were skipped, in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key != "MLBITS_GPU_TESTS"}
    if simulated:
        environment |= {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-m", "gpu", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    found: dict[str, int] = {}
    for word in re.findall(r"^tests/gpu/\S.* (PASSED|FAILED|ERROR|SKIPPED)\b", done.stdout, re.MULTILINE):
        found[word.lower()] = found.get(word.lower(), 0) + 1
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.slow
def test_a_game_in_the_simulator():
    pytest.importorskip("numba_cuda")
    test = "tests/gpu/test_games.py::test_a_game_plays_as_on_the_cpu[mlbits/GridWorld-v0-default stream]"
    assert outcomes(test) == {"passed": 1}


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_games.py", "test_states.py", "test_learners.py"])
def test_all_of_them_in_the_simulator(file):
    pytest.importorskip("numba_cuda")
    found = outcomes(f"tests/gpu/{file}")
    assert set(found) <= {"passed", "skipped"}
    assert found["passed"] >= 9


def test_without_a_card_they_are_skipped_and_say_why(monkeypatch):
    for name in ("NUMBA_ENABLE_CUDASIM", "MLBITS_GPU_TESTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert conftest.the_card() == f"torch {torch.__version__}, built for the CPU alone, finds no NVIDIA GPU"
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    assert conftest.the_card() == 'the package numba-cuda is not installed (pip install "mlbits[gpu]")'


def test_with_a_card_they_run_in_full(monkeypatch):
    pytest.importorskip("numba_cuda")
    for name in ("NUMBA_ENABLE_CUDASIM", "MLBITS_GPU_TESTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    card = conftest.the_card()
    assert (card.device, card.real, card.copies, card.steps, card.train) == ("cuda", True, 1000, 200, True)


# What a step moves


def test_bytes_of_a_step_by_hand():
    import mlbits

    assert bytes_a_step(mlbits.make_game("mlbits/GridWorld-v0")) == {
        "state": 2 * 32, "actions": 8, "observations": 4, "masks": 0, "turns": 0, "rewards and flags": 6,
    }  # fmt: skip
    assert bytes_a_step(mlbits.make_game("mlbits/TicTacToe-v0"))["masks"] == 2 * 9


@pytest.mark.parametrize(("stride", "width", "wanted"), [(8, 8, 8), (4, 4, 4), (32, 8, 32), (48, 8, 32), (56, 8, 32)])
def test_sectors_of_a_warp(stride, width, wanted):
    assert sectors(stride, width) == wanted


def test_accesses_are_counted_by_kind_of_memory():
    ptx = "\tld.global.u32 %r1, [%rd1];\n\t@%p3 st.global.v2.f32 [%rd2], {%f1, %f2};\n\tld.local.u8 %r2, [%rd3];\n"
    assert accesses(ptx) == {"ld.global": 1, "st.global": 1, "ld.local": 1}


@pytest.mark.slow
def test_a_state_by_words_fits_in_registers():
    import mlbits
    from mlbits.envs.engine.gpu_copies import compile_to_ptx
    from tests.gpu.traffic import step_by_words

    pytest.importorskip("numba_cuda")
    game = mlbits.make_game("mlbits/GridWorld-v0")
    records, words = accesses(compile_to_ptx(game)), accesses(step_by_words(game))
    assert set(words) == {"ld.global", "st.global"}  # nothing is kept in memory of the thread
    assert words["ld.global"] < records["ld.global"]
