"""Set-up of all tests: one torch thread, Atari's ids, a list of the user's folders, and which tests share a worker."""

import gc
import os
import signal
import tempfile
from pathlib import Path

import ale_py  # noqa: F401  (registers its ids at its first import: after a test that puts registries back it would be late)
import pytest
import torch


def pytest_configure(config):
    torch.set_num_threads(1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The user's own list of folders, here and in the processes that tests start, is not touched.
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="mlbits-config-")


def pytest_collection_finish(session):
    """What exists now stays: garbage collections, of which compilers cause many, leave it out."""
    gc.collect()
    gc.freeze()


SLOW_CASES = tuple(
    line for line in (Path(__file__).parent / "slow_cases.txt").read_text().splitlines() if not line.startswith("#")
)


@pytest.hookimpl(tryfirst=True)  # before tests are deselected by their marks
def pytest_collection_modifyitems(items):
    """Chess and Diplomacy take long to compile: what is tested of every game is a slow test of theirs."""
    for item in items:
        _, _, case = item.nodeid.partition("[")
        compiles = "Chess-v0" in case or ("Diplomacy" in case and "-v0" in case)
        if compiles or item.nodeid.startswith(SLOW_CASES):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)  # where there is pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """With ``-n auto --dist loadfile`` a file goes to one worker, and so does all that plays Diplomacy.

    Its functions are compiled once a process. The simulated GPU plays all games at once, and stays one file.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid):
            diplomacy = ("diplomacy" in nodeid.lower() and "test_gpu" not in nodeid) or "best_response/" in nodeid
            return "diplomacy" if diplomacy else super()._split_scope(nodeid)

    return Scheduler(config, log)
