"""Announcements before Numba compiles: what, how often, about how long; and none for cached code."""

import json
import os
import subprocess
import sys

import pytest
from numba import njit

import mlbits
from mlbits.agents.kernels.compiled_q_learning import _learn
from mlbits.envs.engine import compiling
from mlbits.envs.engine.compiling import code_size, message, seconds_for
from mlbits.envs.engine.cpu_copies import Copies
from tests.envs.engine.test_driver import closure_game

SAID = """
import json, logging, sys
said = []
class Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logger = logging.getLogger("mlbits.compiling")
logger.addHandler(Keep())
logger.setLevel(logging.INFO)
import mlbits
batch = mlbits.make_batch("mlbits/MatrixGame-v0", 2)
batch.step(batch.sample_actions())
mlbits.make_batch("mlbits/MatrixGame-v0", 3)
print(json.dumps(said))
"""


def run(text, **env):
    done = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_a_driver_is_announced_when_it_is_compiled_and_not_when_it_is_cached(tmp_path):
    first = json.loads(run(SAID, MLBITS_CACHE_DIR=str(tmp_path)))
    assert len(first) == 1
    assert first[0].startswith("compiling the rules of MatrixGame, once, about ")
    assert json.loads(run(SAID, MLBITS_CACHE_DIR=str(tmp_path))) == []


def test_library_users_get_no_messages_by_default(tmp_path):
    text = "import gymnasium as gym, mlbits\ngym.make('mlbits/GridWorld-v0').reset(seed=0)"
    assert run(text, MLBITS_CACHE_DIR=str(tmp_path)) == ""


def test_uncached_rules_are_announced_as_compiled_in_every_process():
    one = Copies(closure_game(1), 1)
    said = message(one._driver.run)
    assert said.startswith("compiling the rules of ")
    assert ", in this process alone (" in said
    assert ", once, " in message(Copies(mlbits.make_game("mlbits/Bandit-v0"), 1)._driver.run)


def test_the_loop_for_several_cores_is_announced():
    assert "the rules of Bandit for several cores, once" in message(
        Copies(mlbits.make_game("mlbits/Bandit-v0"), 1)._driver.run_parallel
    )


def test_kernels_of_agents_are_announced_too():
    assert message(_learn).startswith("compiling mlbits.agents.kernels.compiled_q_learning, once, about ")


@njit
def leaf(x):
    return x + 1


@njit
def twice(x):
    return leaf(x) + leaf(x)


def test_the_size_counts_all_reachable_code_once():
    bytes_of = {function: len(function.py_func.__code__.co_code) for function in (leaf, twice)}
    assert code_size(leaf) == bytes_of[leaf]
    assert code_size(twice) == bytes_of[leaf] + bytes_of[twice]


def test_the_estimate_is_near_what_was_measured(monkeypatch):
    """CPU seconds of compiling, measured in sequence on one core on which the timing loop takes 5 ms."""
    measured = {"GridWorld": 1.44, "Goofspiel": 3.50, "Pendulum": 2.46, "Blotto": 1.59, "Diplomacy": 29.3}
    for name, seconds in measured.items():
        size = code_size(Copies(mlbits.make_game(f"mlbits/{name}-v0"), 1)._driver.run)
        assert 0.6 * seconds < seconds_for(size) < 1.5 * seconds, name
        assert seconds_for(size, slowness=2.0) == pytest.approx(2 * seconds_for(size))
    monkeypatch.setattr(compiling, "slowness_here", lambda: 1.0)
    said = message(Copies(mlbits.make_game("mlbits/Diplomacy-v0"), 1)._driver.run)
    assert said == "compiling the rules of Diplomacy, once, about 30 s"
