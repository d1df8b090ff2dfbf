"""Descriptions of environments and agents agree with the registries, the configs and the docstrings."""

import dataclasses
import inspect

import pytest
from PIL import Image

import mlbits
from mlbits.agents import AGENTS
from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.evals.catalogue import agent_text, describe_agent, describe_env, draw_env, env_text
from mlbits.selfplay.runs.config import presets

MAP = {"map": "S.G", "horizon": 9}


@pytest.fixture(scope="module")
def grid():
    return describe_env("mlbits/GridWorld-v0", MAP)


def test_a_game_is_described_under_its_settings(grid):
    assert (grid["observation_space"], grid["action_space"], grid["seats"]) == ("Discrete(3)", "Discrete(4)", 1)
    assert grid["optimum"] == pytest.approx(0.99)  # two moves of 0.01, the second of which earns 1 instead
    assert -0.1 < grid["random_return"] < 0.99
    assert "agents/" not in grid["source"]
    assert grid["source"].rpartition(":")[0] == inspect.getsourcefile(
        inspect.unwrap(mlbits.registered()[grid["id"]].load())
    )
    assert grid["presets"] == [agent for agent, envs in presets().items() if grid["id"] in envs]


def test_who_can_play_is_found_out_by_trying(grid):
    assert {"ppo", "q-learning", "dqn", "random", "sb3-dqn", "alphazero"} <= set(grid["agents"])
    assert set(grid["agents"]) | set(grid["refused"]) == set(AGENTS)
    assert "action space Discrete(4)" in grid["refused"]["ddpg"]
    seats = describe_env("mlbits/MatrixGame-v0")
    assert "one seat only" in seats["refused"]["sb3-ppo"]
    assert "ppo" in seats["agents"]
    assert (seats["seats"], seats["in_turn"], seats["optimum"]) == (2, False, None)


def test_settings_have_the_signatures_defaults_and_meanings(grid):
    found = {row["name"]: row for row in grid["settings"]}
    parameters = inspect.signature(mlbits.registered()[grid["id"]].load()).parameters
    assert list(found) == list(parameters)
    assert found["slip"]["default"] == parameters["slip"].default
    assert found["slip"]["meaning"].startswith("probability 0..1")
    assert found["observation"]["type"] == "index | one_hot | planes | pixels"


@pytest.mark.parametrize(
    "env", [env for env in mlbits.registered() if "Diplomacy" not in env and not env.startswith("test/")]
)
def test_every_game_says_how_it_rewards(env):
    from mlbits.evals.catalogue import _about_game

    about = _about_game(env)
    titles = {title.partition(" (")[0] for title in about}
    assert {"Description", "Actions", "Observations", "Rewards", "Start", "End"} <= titles
    assert all(text and "``" not in text for text in about.values())


def test_the_text_has_all_of_it(grid):
    text = env_text(grid, width=80)
    for part in ("optimum            0.99, exact", "Rewards:", "-step_cost for every step", "--env.step-cost 0.01"):
        assert part in text
    assert "    --env.horizon 100" in text
    facts = text.partition("Description:")[0]
    assert max(map(len, facts.splitlines())) <= 80


def test_a_wrapped_environment_is_described_as_far_as_it_says():
    found = describe_env("CartPole-v1")
    assert (found["seats"], found["solved_at"], found["optimum"]) == (1, 475.0, None)
    assert "reward of `+1`" in found["about"]["Rewards"]
    assert [row["name"] for row in found["settings"]] == ["sutton_barto_reward"]
    assert "alphazero" in found["refused"]
    assert "dqn" in found["presets"]
    assert found["source"] == "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    assert describe_env("CartPole-v1", {"sutton_barto_reward": True})["solved_at"] is None
    assert "--env.sutton-barto-reward false" in env_text(found)


def test_an_optimum_is_known_of_toy_text():
    found = describe_env("FrozenLake-v1", {"is_slippery": False})
    assert found["optimum"] == pytest.approx(1.0)


@pytest.mark.parametrize("agent", AGENTS)
def test_agents_are_described(agent):
    found = describe_agent(agent)
    config = AGENTS[agent].config_class()
    assert [row["name"] for row in found["settings"]] == [field.name for field in dataclasses.fields(config)]
    assert [row["default"] for row in found["settings"]] == [
        getattr(config(), row["name"]) for row in found["settings"]
    ]
    assert found["presets"] == presets().get(agent, {})
    text = agent_text(found)
    assert text.startswith(f"{agent}: {AGENTS[agent].summary}\n")
    assert all(f"preset for {env}:" in text for env in found["presets"])


def test_an_agents_text_says_how_it_is_set():
    text = agent_text(describe_agent("ppo"))
    assert "    --agent.discount 0.99\n        discount factor, gamma; 0 to 1" in text
    assert "agent.discount" in text.partition("preset for mlbits/CartPole-v0:")[2]
    bot = agent_text(describe_agent("mcts"))
    assert "how           plays without training; looks ahead by the rules" in bot
    assert "    mcts@simulations=1_000" in bot


def test_pictures_are_written(tmp_path):
    for env in ("mlbits/GridWorld-v0", "mlbits/MatrixGame-v0", "FrozenLake-v1"):
        path = tmp_path / "env.png"
        if env == "FrozenLake-v1":
            pytest.importorskip("pygame")
        draw_env(env, {}, path)
        with Image.open(path) as image:
            assert min(image.size) > 50
            assert len(set(image.convert("L").getdata())) > 2
        path.unlink()


def test_what_cannot_be_described_is_refused(tmp_path):
    with pytest.raises(UnknownIdError, match="did you mean 'mlbits/GridWorld-v0'"):
        describe_env("mlbits/GridWrld-v0")
    with pytest.raises(UnknownIdError, match="did you mean 'ppo'"):
        describe_agent("pppo")
    with pytest.raises(GameError, match="unknown setting 'maap'"):
        describe_env("mlbits/GridWorld-v0", {"maap": "S.G"})
    with pytest.raises(GameError, match=r"picture: .*env.txt cannot be written"):
        draw_env("mlbits/GridWorld-v0", MAP, tmp_path / "env.txt")
