"""The registry: ids, settings and error messages for typing mistakes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
import pytest

import mlbits
from mlbits.envs import registry
from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.envs.core.game import Game
from tests.games import register_test_games, throws

register_test_games()


@pytest.fixture
def fresh_id(request: pytest.FixtureRequest) -> Any:
    """An id that is unregistered everywhere after the test."""
    game_id = "fresh/Game-v0"
    yield game_id
    registry._entries.pop(game_id, None)
    gym.registry.pop(game_id, None)
    for kind in ("parallel_registry", "aec_registry"):
        getattr(sys.modules["pettingzoo.env_registry.registration"], kind).pop(game_id, None)


def test_one_line_opens_every_door(fresh_id: str) -> None:
    mlbits.register(fresh_id, throws, summary="for a test", reward_threshold=3.0, noise=0.0)
    entry = mlbits.registered()[fresh_id]
    assert (entry.summary, entry.reward_threshold, entry.defaults) == ("for a test", 3.0, {"noise": 0.0})
    assert gym.spec(fresh_id).reward_threshold == 3.0
    assert pettingzoo.make("parallel", fresh_id).possible_agents == ["player_0", "player_1", "player_2"]
    assert pettingzoo.make("aec", fresh_id).possible_agents == ["player_0", "player_1", "player_2"]
    assert mlbits.make_batch(fresh_id, 2).num_seats == 3


def test_defaults_settings_and_the_factory(fresh_id: str) -> None:
    given = []

    def factory(*, noise: float = 0.1, horizon: int | None = 10) -> Game:
        given.append((noise, horizon))
        return throws(noise=noise, horizon=horizon)

    mlbits.register(fresh_id, factory, noise=0.5)
    for settings, wanted in [({}, (0.5, 10)), ({"noise": 0.7}, (0.7, 10)), ({"horizon": None}, (0.5, None))]:
        mlbits.make_game(fresh_id, **settings)
        assert given[-1] == wanted


def test_a_factory_by_name_is_imported_at_first_use(fresh_id: str) -> None:
    mlbits.register(fresh_id, "tests.no_such_module:factory")
    with pytest.raises(GameError, match=r"the module 'tests.no_such_module' cannot be imported"):
        mlbits.make_game(fresh_id)


def test_registered_is_a_copy() -> None:
    mlbits.registered().clear()
    assert "mlbits/GridWorld-v0" in mlbits.registered()


@pytest.mark.parametrize("game_id", ["Game-v0", "a/Game", "a/-v0", "/Game-v0", "a/Game-v", "a/Game-vx", "a/Game-v1.0"])
def test_malformed_ids(game_id: str) -> None:
    with pytest.raises(GameError, match="wanted 'namespace/Name-vN'"):
        mlbits.register(game_id, throws)


def test_an_id_is_registered_once() -> None:
    with pytest.raises(GameError, match="already registered"):
        mlbits.register("mlbits/GridWorld-v0", throws)


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("mlbits/GridWold-v0", "mlbits/GridWorld-v0"),
        ("mlbits/gridworld-v0", "mlbits/GridWorld-v0"),
        ("GridWorld-v0", "mlbits/GridWorld-v0"),
        ("mlbits/CliffWalking-v0", "mlbits/CliffWalk-v0"),
        ("mlbits/FourRooms-v1", "mlbits/FourRooms-v0"),
    ],
)
def test_an_unknown_id_names_the_nearest(mistyped: str, meant: str) -> None:
    for make in (mlbits.make_game, lambda name: mlbits.make_batch(name, 2)):
        with pytest.raises(UnknownIdError, match=f"unknown environment '{mistyped}'; did you mean '{meant}'"):
            make(mistyped)


def test_an_id_like_no_other_lists_all() -> None:
    with pytest.raises(UnknownIdError, match=r"known: .*mlbits/GridWorld-v0"):
        mlbits.make_game("qqqq")
    with pytest.raises(KeyError):  # what libraries look for
        mlbits.make_game("qqqq")


@pytest.mark.parametrize(
    "make",
    [
        lambda **settings: mlbits.make_game("mlbits/GridWorld-v0", **settings),
        lambda **settings: mlbits.make_batch("mlbits/GridWorld-v0", 2, **settings),
        lambda **settings: mlbits.make_batch("mlbits/GridWorld-v0", 1, settings_per_copy=[settings]),
        lambda **settings: gym.make("mlbits/GridWorld-v0", **settings),
        lambda **settings: gym.make_vec("mlbits/GridWorld-v0", 2, **settings),
        lambda **settings: pettingzoo.make("parallel", "mlbits/GridWorld-v0", **settings),
        lambda **settings: pettingzoo.make("aec", "mlbits/GridWorld-v0", **settings),
    ],
)
def test_an_unknown_setting_is_refused_at_every_door(make: Any) -> None:
    with pytest.raises(GameError, match="unknown setting 'slipp'; wanted any of map, slip"):
        make(slipp=0.5)


def test_a_game_without_settings_of_its_own_has_the_one_of_all() -> None:
    with pytest.raises(GameError, match=r"unknown setting 'size'; wanted any of frame_stack$"):
        mlbits.make_game("mlbits/TicTacToe-v0", size=3)


def test_settings_reach_the_game_through_every_door() -> None:
    settings = {"map": "S.G", "horizon": 5}
    assert mlbits.make_batch("mlbits/GridWorld-v0", 2, **settings).observation_space.n == 3
    assert gym.make("mlbits/GridWorld-v0", **settings).observation_space.n == 3
    assert gym.make_vec("mlbits/GridWorld-v0", 2, **settings).single_observation_space.n == 3
    for kind in ("parallel", "aec"):
        assert pettingzoo.make(kind, "mlbits/GridWorld-v0", **settings).observation_space("player_0").n == 3


def test_settings_per_copy_give_each_copy_its_own_map() -> None:
    maps = ["SG.", "S.G", ".SG"]
    batch = mlbits.make_batch(
        "mlbits/GridWorld-v0",
        3,
        settings_per_copy=[{"map": map} for map in maps],
        autoreset="disabled",
        step_cost=0.5,
    )
    assert batch.obs.tolist() == [[0], [0], [1]]
    step = batch.step(np.array([1, 1, 1]))
    assert step.terminated.tolist() == [True, False, True]
    assert step.reward[:, 0].tolist() == [1.0, -0.5, 1.0]
    assert [batch.render("ansi", b) for b in range(3)] == [".A.\n", ".AG\n", "..A\n"]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ([{}], "got 1 for 3 copies"),
        ([{}] * 4, "got 4 for 3 copies"),
        ([{}, {}, {"map": "S.G"}], r"games\[2\]: differs"),
        ([{}, {"observation": "one_hot"}, {}], r"games\[1\]: differs"),
    ],
)
def test_bad_settings_per_copy(own: Any, message: str) -> None:
    with pytest.raises(GameError, match=message):
        mlbits.make_batch("mlbits/GridWorld-v0", 3, settings_per_copy=own)


def test_import_registers_with_both_libraries_and_loads_no_torch() -> None:
    """Using ``gym.make`` should not require loading torch."""
    code = (
        "import sys, mlbits, gymnasium, pettingzoo\n"
        "env = gymnasium.make('mlbits/GridWorld-v0'); env.reset(seed=0); env.step(1)\n"
        "pettingzoo.make('aec', 'mlbits/GridWorld-v0')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ("gymnasium.make('mlbits:mlbits/GridWorld-v0').observation_space", "Discrete(64)"),
        ("gymnasium.make_vec('mlbits:mlbits/GridWorld-v0', num_envs=3).observation_space.shape", "(3,)"),
    ],
)
def test_gymnasium_can_import_the_suite_itself(call: str, shown: str) -> None:
    code = f"import gymnasium, sys; assert 'mlbits' not in sys.modules; print({call})"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == shown


def test_our_own_doors_accept_ids_with_gymnasiums_module_prefix() -> None:
    assert mlbits.make_game("mlbits:mlbits/GridWorld-v0", map="S.G").observation_space == gym.spaces.Discrete(3)
    assert mlbits.make_batch("mlbits:mlbits/CartPole-v0", 2).obs.shape == (2, 1, 4)
    assert mlbits.make_sb3("mlbits:mlbits/CartPole-v0", 2).num_envs == 2
    for other in ("mlbits:CartPole-v1", "minigrid:MiniGrid-Empty-5x5-v0", "mlbits/GridWorld-v0", "mlbits:"):
        assert registry.plain_id(other) == other
    with pytest.raises(UnknownIdError, match="did you mean 'mlbits/GridWorld-v0'"):
        mlbits.make_game("mlbits:mlbits/GridWord-v0")
