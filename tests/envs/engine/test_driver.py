"""The compiled driver: the key of its cache, and rules in unusual places."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from numba.core.errors import NumbaError

from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import randint
from mlbits.envs.core.rules import python_function, rule
from mlbits.envs.engine import driver
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.envs.engine.driver import load_driver
from mlbits.envs.engine.fingerprint import fingerprint
from mlbits.envs.engine.gpu_copies import compile_to_ptx
from tests.games import throws

# A game split over four files: its rewards show which of them were read.
FILES = {
    "prizes.py": "FIRST = 1\n",
    "more_prizes.py": "SECOND = 20\n",
    "kinds.py": "from enum import IntEnum\n\n\nclass Kind(IntEnum):\n    THIRD = 300\n",
    "help_rules.py": """
import more_prizes
from mlbits.envs.core.rules import rule


@rule
def second(state):
    return more_prizes.SECOND
""",
    "tiny_game.py": """
import help_rules
from gymnasium import spaces
from kinds import Kind
from prizes import FIRST
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule


@rule
def reset(state, params):
    state.x = 0


@rule
def step(state, params, actions, rewards):
    rewards[0] = FIRST + help_rules.second(state) + Kind.THIRD
    return False, False


@rule
def observe(state, params, seat, out):
    out[0] = state.x


def tiny():
    return Game(
        name="Tiny", state_fields=[("x", "i4")], params=make_params([], {}),
        observation_space=spaces.Discrete(2), action_space=spaces.Discrete(2),
        reset=reset, step=step, observe=observe, text=str, draw=str,
    )
""",
}
PLAY = """
import sys, numpy as np
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.envs.engine.driver import load_driver
from mlbits.envs.engine.fingerprint import fingerprint
sys.path.insert(0, sys.argv[1])
from tiny_game import tiny
copies = Copies(tiny())
copies.reset()
copies.step(np.zeros((1, 1), np.int64))
stats = load_driver(tiny()).run.stats
print(copies.rewards[0, 0], sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def write_files(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).write_text(text)


def edit(path: Path, old: str, new: str) -> None:
    """Edit a file; its length changes, so that Python notices the edit even within a second."""
    text = path.read_text()
    assert old in text and len(old) != len(new)
    path.write_text(text.replace(old, new))


def python(*command: str, cache: Path) -> str:
    environment = {**os.environ, "MLBITS_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def driver_files(cache: Path) -> set[str]:
    return {path.name for path in (cache / "drivers").rglob("mlbits_driver_*")}


@pytest.mark.slow
def test_a_second_process_does_not_compile_and_an_edit_of_any_file_does(tmp_path: Path) -> None:
    rules, cache = tmp_path / "rules", tmp_path / "cache"
    rules.mkdir()
    write_files(rules)
    script = tmp_path / "play.py"
    script.write_text(PLAY)
    reward, hits, misses = python(str(script), str(rules), cache=cache).split()
    assert (float(reward), hits, misses) == (321, "0", "1")
    files = driver_files(cache)
    assert sum(name.endswith(".py") for name in files) == 1
    reward, hits, misses = python(str(script), str(rules), cache=cache).split()
    assert (float(reward), hits, misses) == (321, "1", "0")
    assert driver_files(cache) == files
    edit(rules / "more_prizes.py", "20", "4000")  # a constant in a file that the rule's file never names
    reward, hits, misses = python(str(script), str(rules), cache=cache).split()
    assert (float(reward), hits, misses) == (4301, "0", "1")


@pytest.fixture
def tiny_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    write_files(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = [name.removesuffix(".py") for name in FILES]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("tiny_game")
    yield module
    for name in names:
        sys.modules.pop(name, None)


def driver_name(game: Game) -> str:
    found = fingerprint(driver.rules_of(game), driver.driver_text(game, "cpu"))
    assert not found.unhashable
    return found.digest


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("prizes.py", "FIRST = 1", "FIRST = 10"),
        ("more_prizes.py", "SECOND = 20", "SECOND = 2"),
        ("kinds.py", "THIRD = 300", "THIRD = 30"),
        ("help_rules.py", "return more_prizes.SECOND", "return -more_prizes.SECOND"),
        ("tiny_game.py", "state.x = 0", "state.x = 0 + 1"),
    ],
)
def test_an_edit_gives_the_driver_a_new_name(
    tiny_game: ModuleType, tmp_path: Path, file: str, old: str, new: str
) -> None:
    before = driver_name(tiny_game.tiny())
    assert driver_name(tiny_game.tiny()) == before
    edit(tmp_path / file, old, new)
    for name in ("prizes", "more_prizes", "kinds", "help_rules", "tiny_game"):
        importlib.reload(sys.modules[name])
    assert driver_name(sys.modules["tiny_game"].tiny()) != before


# Values that Numba freezes but that are not in the rules' own source; each adds a digit to the reward.
FROZEN = {
    "values.py": """
import math
import numpy as np
BONUS, KIND, ROUND, TYPE = 1, 20, math.floor, np.int64
TABLE = (np.zeros(5000, np.int32), 0)
TABLE[0][2500] = 3000
""",
    "more_values.py": """
import values
from mlbits.envs.core.rules import rule


@rule(inline=False)
def paid(x, bonus=values.BONUS):
    return x + bonus
""",
    "tiny_game.py": FILES["tiny_game.py"]
    .replace("import help_rules\n", "from enum import IntEnum\nimport values\nimport more_values\n")
    .replace("from kinds import Kind\nfrom prizes import FIRST\n", "")
    .replace(
        "@rule\ndef reset",
        'Kind = IntEnum("Kind", {"PRIZE": values.KIND})\nTABLE = values.TABLE[0]\n\n\n@rule\ndef reset',
    )
    .replace(
        "FIRST + help_rules.second(state) + Kind.THIRD",
        "more_values.paid(0) + Kind.PRIZE + 100 * values.ROUND(1.5) + TABLE[2500] + 10000 * values.TYPE(7.5)",
    ),
}


@pytest.mark.slow
def test_an_edit_of_a_frozen_value_is_seen_by_the_next_process(tmp_path: Path) -> None:
    rules, cache = tmp_path / "rules", tmp_path / "cache"
    rules.mkdir()
    for name, text in FROZEN.items():
        (rules / name).write_text(text)
    script = tmp_path / "play.py"
    script.write_text(PLAY)
    assert python(str(script), str(rules), cache=cache).split() == ["73121.0", "0", "1"]
    edit(rules / "values.py", "1, 20, math.floor, np.int64", "2, 40, math.ceil, np.float64")
    edit(rules / "values.py", "3000", "10")
    assert python(str(script), str(rules), cache=cache).split() == ["75252.0", "0", "1"]
    assert python(str(script), str(rules), cache=cache).split() == ["75252.0", "1", "0"]


def test_an_edit_under_a_running_process_does_not_spoil_the_cache_for_the_next(tmp_path: Path) -> None:
    """A process compiles the source that it has read, even if the file has changed since."""
    rules, cache = tmp_path / "rules", tmp_path / "cache"
    rules.mkdir()
    write_files(rules)
    late = tmp_path / "late.py"
    before, _, after = PLAY.partition("copies = ")
    edit_it = "file.write_text(file.read_text().replace('return ', 'return 9 * '))"
    late.write_text(
        f"{before}from pathlib import Path\nfile = Path(sys.argv[1], 'help_rules.py')\n{edit_it}\ncopies = {after}"
    )
    assert python(str(late), str(rules), cache=cache).split() == ["321.0", "0", "1"]
    script = tmp_path / "play.py"
    script.write_text(PLAY)
    assert python(str(script), str(rules), cache=cache).split() == ["481.0", "0", "1"]


@pytest.mark.slow
def test_a_constant_changed_in_a_running_process_is_seen_by_it_and_by_the_next(tmp_path: Path) -> None:
    """Numba compiles a function that is not inlined once per process, with the constants of that moment."""
    rules, cache = tmp_path / "rules", tmp_path / "cache"
    rules.mkdir()
    write_files(rules)
    edit(rules / "help_rules.py", "@rule\n", "@rule(inline=False)\n")
    again = tmp_path / "again.py"
    rest = PLAY.partition("copies = ")[2]
    again.write_text(f"{PLAY}import more_prizes\nmore_prizes.SECOND = 50\ncopies = {rest}")
    script = tmp_path / "play.py"
    script.write_text(PLAY)
    lines = python(str(again), str(rules), cache=cache).splitlines()
    assert [line.split()[0] for line in lines] == ["321.0", "351.0"]
    edit(rules / "more_prizes.py", "20", "50 ")
    assert python(str(script), str(rules), cache=cache).split()[0] == "351.0"


def test_rules_that_cannot_be_hashed_are_compiled_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pointer to a C function; in another process its address would hold another function, or none."""
    monkeypatch.setenv("MLBITS_CACHE_DIR", str(tmp_path / "cache"))
    rules = tmp_path / "rules"
    rules.mkdir()
    write_files(rules)
    with (rules / "prizes.py").open("a") as file:
        file.write("from numba import cfunc\n@cfunc('float64(float64)')\ndef seven(x):\n    return 7 * x\n")
    edit(rules / "tiny_game.py", "from prizes import FIRST", "from prizes import seven\nSEVEN = seven.ctypes")
    edit(rules / "tiny_game.py", "FIRST +", "int(SEVEN(1.0)) +")
    monkeypatch.syspath_prepend(rules)
    for name in FILES:
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    with caplog.at_level(logging.DEBUG, logger="mlbits"):
        assert reward_of(importlib.import_module("tiny_game").tiny()) == 327
    for name in FILES:
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    assert driver_files(tmp_path / "cache") == set()
    assert "tiny_game.SEVEN" in caplog.text


def test_parameters_do_not_change_the_driver() -> None:
    """Maps, sizes and payoffs are stored in the record: one compilation is enough for all."""
    from mlbits.envs.gridworld import gridworld

    names = {driver_name(gridworld(slip=slip, horizon=horizon)) for slip in (0.0, 0.5) for horizon in (None, 7)}
    assert len(names) == 1
    assert driver_name(gridworld(observation="one_hot")) not in names


def test_a_driver_is_loaded_once_in_a_process() -> None:
    assert load_driver(closure_game(1)) is not load_driver(closure_game(1))  # different rules, though with equal source
    game = closure_game(1)
    assert load_driver(game) is load_driver(dataclasses.replace(game, reward_threshold=1.0))


def closure_game(prize: int) -> Game:
    """A game whose rules are closures: no other process could import them."""

    @rule
    def reset(state: Any, params: Any) -> None:
        state.x = randint(state, 2)

    @rule
    def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
        rewards[0] = prize
        return False, False

    @rule
    def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
        out[0] = state.x

    return Game(
        name="Closed",
        state_fields=[("x", "i4")],
        params=make_params([], {}),
        observation_space=spaces.Discrete(2),
        action_space=spaces.Discrete(2),
        reset=reset,
        step=step,
        observe=observe,
        text=str,
        draw=str,
    )


def reward_of(game: Game) -> float:
    copies = Copies(game)
    copies.reset()
    copies.step(np.zeros((1, game.seats), np.int64))
    return float(copies.rewards[0, 0])


def test_rules_in_closures_are_compiled_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBITS_CACHE_DIR", str(tmp_path))
    assert [reward_of(closure_game(prize)) for prize in (3, 4)] == [3, 4]
    assert driver_files(tmp_path) == set()


def test_rules_in_a_script_work(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    text = FILES["tiny_game.py"].replace("FIRST + help_rules.second(state) + Kind.THIRD", "7")
    for line in ("import help_rules\n", "from kinds import Kind\n", "from prizes import FIRST\n"):
        text = text.replace(line, "")
    script.write_text(text + PLAY.replace("sys.path.insert(0, sys.argv[1])\nfrom tiny_game import tiny\n", ""))
    assert float(python(str(script), cache=tmp_path / "cache").split()[0]) == 7


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLBITS_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert not driver.cache_folder().is_dir()
    monkeypatch.setattr(driver, "_loaded", {})
    game = throws(noise=1.0, end=0.0)
    assert driver.importable(game.step), "otherwise no folder is used"
    assert reward_of(game) != 0


def test_the_cache_folder_by_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLBITS_CACHE_DIR", str(tmp_path))
    assert driver.cache_folder() == tmp_path / "drivers"
    monkeypatch.delenv("MLBITS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert driver.cache_folder() == tmp_path / "xdg" / "mlbits" / "drivers"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert driver.cache_folder() == tmp_path / "home" / ".cache" / "mlbits" / "drivers"


def test_drivers_unused_for_a_month_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    names = [
        "mlbits_driver_A_cpu_1.py",
        "__pycache__/mlbits_driver_A_cpu_1.run.nbc",
        "mine.py",
        "mlbits_driver_B_cpu_2.py",
    ]
    for name in names:
        (tmp_path / name).write_text("")
        if "B" not in name:
            os.utime(tmp_path / name, (1e9, 1e9))
    driver._forget_unused(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        names[2],
        names[3],
    }


def test_a_rule_that_allocates_is_refused_on_both_sides() -> None:
    @rule
    def reset(state: Any, params: Any) -> None:
        state.x = int(np.zeros(3).sum())

    game = dataclasses.replace(closure_game(1), reset=reset)
    with pytest.raises(NumbaError):
        reward_of(game)
    pytest.importorskip("numba_cuda")
    with pytest.raises(NumbaError):
        compile_to_ptx(game)


def test_rules_stay_callable_as_python() -> None:
    @rule
    def clamp(value: Any, low: Any, high: Any) -> Any:
        return min(max(value, low), high)

    @rule(inline=False)
    def double(value: Any) -> Any:
        return 2 * value

    assert clamp(7, 0, 5) == python_function(clamp)(7, 0, 5) == 5
    assert double(4) == python_function(double)(4) == 8
    assert python_function(len) is len


@pytest.mark.slow
def test_sizes_compiled_in_different_processes_do_not_collide(tmp_path: Path) -> None:
    """Numba numbers record types per process; two layouts with the same number must not share a function's name."""
    code = """
import sys, mlbits
for items in sys.argv[1:]:
    batch = mlbits.make_batch("mlbits/Knapsack-v0", 3, items=int(items), seed=4)
    for _ in range(3):
        batch.step(batch.sample_actions())
    print(items, batch.obs.double().sum().item(), batch.reward.sum().item())
"""

    def lines(*items: str) -> set[str]:
        environment = {**os.environ, "MLBITS_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code, *items], capture_output=True, text=True, env=environment, check=True
        )
        return set(done.stdout.splitlines())

    alone = lines("10") | lines("100")
    assert lines("10", "100") == alone
    assert lines("100", "10") == alone
