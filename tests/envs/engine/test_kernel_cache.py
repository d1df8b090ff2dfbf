"""Kernels outside games: cached machine code is used only if nothing that it depends on has changed."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import NullCache

import mlbits.agents
from mlbits.envs.engine.fingerprint import fingerprint
from mlbits.envs.engine.kernel_cache import _Cache

HELP = "from mlbits.envs.engine.kernel_cache import njit\n\n\n@njit(cache=True)\ndef part(x):\n    return x + 1\n"
KERNEL = """
import sys
from mlbits.envs.engine.kernel_cache import njit
from help_kernel import part

SEVEN = {seven}


@njit(cache=True)
def whole(x):
    return 10 * part(x) + SEVEN(7.0)


print(whole(1), sum(whole.stats.cache_hits.values()))
"""


def run(folder: Path) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import kernel"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_an_edit_of_a_function_in_another_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "help_kernel.py").write_text(HELP)
    (tmp_path / "kernel.py").write_text(KERNEL.format(seven="float"))
    assert run(tmp_path) == ["27.0", "0"]
    assert run(tmp_path) == ["27.0", "1"]
    (tmp_path / "help_kernel.py").write_text(HELP.replace("x + 1", "x + 200"))
    assert run(tmp_path) == ["2017.0", "0"]


def test_a_kernel_that_cannot_be_hashed_is_not_cached(tmp_path: Path) -> None:
    (tmp_path / "help_kernel.py").write_text(
        HELP + "\nimport numba\n\n\n@numba.cfunc('f8(f8)')\ndef same(x):\n    return x\n"
    )
    text = KERNEL.format(seven="same.ctypes").replace("import part", "import part, same")
    (tmp_path / "kernel.py").write_text(text)
    assert run(tmp_path) == run(tmp_path) == ["27.0", "0"]


@pytest.mark.parametrize("name", sorted(module.name for module in pkgutil.iter_modules(mlbits.agents.__path__)))
def test_every_cached_kernel_of_the_agents_is_keyed_on_all_that_it_calls(name: str) -> None:
    module = importlib.import_module(f"mlbits.agents.{name}")
    for kernel in vars(module).values():
        if hasattr(kernel, "py_func") and not isinstance(kernel._cache, NullCache):
            assert isinstance(kernel._cache, _Cache), kernel
            assert not fingerprint({"kernel": kernel}).unhashable
