"""Set-up of all tests: one torch thread, Atari's ids, a list of the user's folders, and which tests share a worker."""

import os
import tempfile

import ale_py  # noqa: F401  (registers its ids at its first import: after a test that puts registries back it would be late)
import pytest
import torch

from tests import compiling_apart


def pytest_configure(config):
    torch.set_num_threads(1)
    compiling_apart.install()
    # The user's own list of folders, here and in the processes that tests start, is not touched.
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="mlbits-config-")


def pytest_collection_modifyitems(items):
    """With ``-n auto --dist loadgroup`` a file goes to one worker, and so does all of Diplomacy."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group("diplomacy" if "diplomacy" in file else file))
