"""Kernels for the disk come from a child process: the tests' own process finds them there."""

import importlib
import sys

KERNEL = "import numba\n\n@numba.njit(cache=True)\ndef double(x):\n    return 2 * x\n"


def test_a_kernel_for_the_disk_is_compiled_by_a_child_and_read(tmp_path, monkeypatch):
    (tmp_path / "kernel_of_a_test.py").write_text(KERNEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    double = importlib.import_module("kernel_of_a_test").double
    assert double(4) == 8
    found = sum(double.stats.cache_hits.values()), sum(double.stats.cache_misses.values())
    assert found == ((1, 0) if sys.platform == "linux" else (0, 1))
