"""Set-up of all tests: one torch thread, Atari's ids, and a separate list of the user's folders."""

import os
import tempfile

import ale_py  # noqa: F401  (registers its ids at its first import: after a test that puts registries back it would be late)
import torch


def pytest_configure(config):
    torch.set_num_threads(1)
    # The user's own list of folders, here and in the processes that tests start, is not touched.
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="mlbits-config-")
