"""Kernels for a GPU are compiled once, and cached on disk by the rules of the CPU's cache.

The driver is stood in for (``tests.gpu.stand_in``): kernels are compiled to machine code, and nothing is started.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mlbits
from mlbits.envs.engine import checked_cache, compiling, driver
from mlbits.envs.engine.gpu_copies import CudaCopies

pytest.importorskip("numba_cuda")
from tests.gpu.stand_in import Card, put_in_place

GAME = "mlbits/Bandit-v0"
ROOT = Path(__file__).parents[3]
HERE = """
import torch, mlbits
from mlbits.envs.engine.gpu_copies import CudaCopies
from tests.gpu.stand_in import Card, put_in_place
card = put_in_place(Card())
copies = CudaCopies(mlbits.make_game("mlbits/Bandit-v0"), 3, device=torch.device("cpu"))
copies.reset()
stats = copies._run._kernel.stats
print(len(card.starts), len(card.compiled), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder with the machine code of one kernel."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        assert used(folder, patch) == (1, 0, 1)
    return folder


def used(folder: Path, patch: pytest.MonkeyPatch, compute_capability=(9, 0)) -> tuple[int, int, int]:
    """Kernels compiled, and hits and misses of the cache, where the driver is loaded as in a new process."""
    card = put_in_place(Card(compute_capability), patch.setattr)
    patch.setenv("MLBITS_CACHE_DIR", str(folder))
    patch.setattr(driver, "_loaded", {})
    copies = CudaCopies(mlbits.make_game(GAME), 3, device=torch.device("cpu"))
    copies.reset()
    assert len(card.starts) == 1
    stats = copies._run._kernel.stats
    return len(card.compiled), sum(stats.cache_hits.values()), sum(stats.cache_misses.values())


def files(folder: Path, ending: str) -> list[Path]:
    return sorted((folder / "drivers").rglob(f"mlbits_driver_Bandit_cuda*run-*.{ending}"))


def test_a_second_process_does_not_compile(cache, monkeypatch):
    for _ in range(2):
        assert used(cache, monkeypatch) == (0, 1, 0)


@pytest.mark.parametrize("changed", ["compute capability", "driver", "compiler"])
def test_another_card_driver_or_compiler_is_compiled_for_anew(changed, cache, monkeypatch):
    capability = (9, 0)
    if changed == "compute capability":
        capability = (8, 6)
    else:
        versions = checked_cache.gpu_versions()
        other = ("13.1", *versions[1:]) if changed == "driver" else (versions[0], "numba-cuda 9.9", *versions[2:])
        monkeypatch.setattr(checked_cache, "gpu_versions", lambda: other)
    assert used(cache, monkeypatch, capability) == (1, 0, 1)
    assert used(cache, monkeypatch, capability) == (0, 1, 0)
    monkeypatch.undo()
    assert used(cache, monkeypatch) == (0, 1, 0)


DAMAGES = {
    "empty index": ("nbi", lambda data: b""),
    "cut code": ("nbc", lambda data: data[: len(data) // 2]),
    "flipped code": ("nbc", lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:] if data else b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_anew_and_is_whole_again(damage, cache, monkeypatch):
    ending, spoil = DAMAGES[damage]
    for path in files(cache, ending):
        path.write_bytes(spoil(path.read_bytes()))
    assert used(cache, monkeypatch) == (1, 0, 1)
    assert used(cache, monkeypatch) == (0, 1, 0)


def test_compiling_is_announced_and_loading_is_not(cache, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="mlbits.compiling")
    monkeypatch.setattr(compiling, "_said", set())
    assert used(cache, monkeypatch) == (0, 1, 0)
    assert caplog.messages == []
    assert used(cache, monkeypatch, (8, 0)) == (1, 0, 1)
    (said,) = caplog.messages
    assert said.startswith("compiling the rules of Bandit for a GPU, once, about ")


def test_versions_name_what_compiles():
    assert any(version.startswith("numba-cuda ") for version in checked_cache.gpu_versions())


def test_a_folder_that_others_may_write_into_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers").chmod(0o777)
    monkeypatch.setattr(driver, "_loaded_in_memory", {})
    for _ in range(2):
        assert used(tmp_path, monkeypatch)[0] == 1
        monkeypatch.setattr(driver, "_loaded_in_memory", {})
    assert list((tmp_path / "drivers").iterdir()) == []


@pytest.mark.slow
def test_kernels_are_cached_across_processes(tmp_path):
    environment = {**os.environ, "MLBITS_CACHE_DIR": str(tmp_path)}
    for wanted in ("1 1 0 1", "1 0 1 0"):
        done = subprocess.run(
            [sys.executable, "-c", HERE], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.stdout.strip() == wanted, done.stderr
