"""Settings: defaults, presets and given values, in that order; errors name the setting."""

import dataclasses
import json

import gymnasium as gym
import pytest

import mlbits
from mlbits.agents import AGENTS, agent_entry
from mlbits.agents.agent import AgentError
from mlbits.agents.ppo import PPOConfig
from mlbits.agents.reinforce import ReinforceConfig
from mlbits.envs.core.config_fields import setting_of
from mlbits.envs.core.errors import UnknownIdError
from mlbits.selfplay.runs.config import (
    ConfigError,
    RunConfig,
    find_preset,
    make_config,
    presets,
    resolve,
    settings_from_json,
)

PAIRS = [(agent, env) for agent, envs in presets().items() for env in envs]
CARTPOLE = "mlbits/CartPole-v0"


@pytest.mark.parametrize(("agent", "env"), PAIRS)
def test_every_preset_makes_valid_settings(agent, env):
    assert agent in AGENTS
    known = env in mlbits.registered() or env in gym.registry
    assert known or AGENTS[agent].offline  # whose presets are named after publications, and are for any environment
    played = env if known else CARTPOLE
    settings = resolve(agent, played, preset=env)
    assert settings.preset == f"{agent}/{env}"
    assert not known or resolve(agent, env) == settings
    assert settings != dataclasses.replace(resolve(agent, played, preset="none"), preset=settings.preset)
    for group, values in (("run", settings.run), ("agent", settings.agent_config)):
        given = {**presets()[agent][env]}
        given = given.get("agent", {}) if group == "agent" else given
        for name, value in given.items():
            if name not in ("agent", "env"):
                assert getattr(values, name) == (tuple(value) if isinstance(value, list) else value)


def test_flags_override_presets_and_presets_defaults():
    preset = presets()["ppo"][CARTPOLE]
    settings = resolve("ppo", CARTPOLE, run={"seed": 4}, agent_settings={"epochs": 7}, env_settings={"horizon": 9})
    assert settings.run.seed == 4
    assert settings.run.num_envs == preset["num_envs"] != RunConfig().num_envs
    assert settings.agent_config.epochs == 7 != preset["agent"]["epochs"]
    assert settings.agent_config.discount == preset["agent"]["discount"] != PPOConfig().discount
    assert settings.env_settings == {"horizon": 9}


def test_no_preset_gives_the_defaults():
    settings = resolve("ppo", CARTPOLE, preset="none")
    assert (settings.preset, settings.run, settings.agent_config) == ("none", RunConfig(), PPOConfig())
    assert resolve("reinforce", "mlbits/Bandit-v0").preset == "none"
    assert resolve("reinforce", "mlbits/Bandit-v0").agent_config == ReinforceConfig()


def test_another_environments_preset_can_be_used():
    settings = resolve("ppo", "mlbits/GridWorld-v0", preset=CARTPOLE)
    assert settings.preset == f"ppo/{CARTPOLE}"
    assert settings.agent_config == resolve("ppo", CARTPOLE).agent_config


def test_an_unknown_preset_is_refused_and_the_known_named():
    with pytest.raises(ConfigError, match=rf"preset: ppo has none for 'X'; wanted 'auto', 'none' or .*{CARTPOLE}"):
        find_preset("ppo", "mlbits/GridWorld-v0", "X")
    with pytest.raises(ConfigError, match="no others"):
        find_preset("nobody", "mlbits/GridWorld-v0", "X")


@pytest.mark.parametrize(
    ("agent", "env"), [("ppo", CARTPOLE), ("reinforce", "mlbits/GridWorld-v0"), ("ppo", "CartPole-v1")]
)
def test_settings_survive_json(agent, env):
    settings = resolve(agent, env, run={"seed": 3}, agent_settings={"hidden": [8, 8]}, env_settings={"horizon": 7})
    assert settings_from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert settings.agent_config.hidden == (8, 8)


@pytest.mark.parametrize("missing", ["agent", "env", "preset", "run", "agent_config", "env_settings"])
def test_a_config_without_a_key_is_refused(missing):
    data = resolve("ppo", CARTPOLE).to_json()
    del data[missing]
    with pytest.raises(ConfigError, match=f"the key '{missing}' is missing"):
        settings_from_json(data)


@pytest.mark.parametrize(
    ("where", "key", "message"),
    [
        ("run", "num_env", "run.num_env: unknown setting; did you mean 'num_envs'"),
        ("agent_settings", "learning_rat", "agent.learning_rat: unknown setting; did you mean 'learning_rate'"),
        ("agent_settings", "zzz", "agent.zzz: unknown setting; wanted any of num_steps, "),
    ],
)
def test_unknown_settings_are_refused_and_the_nearest_named(where, key, message):
    with pytest.raises(ConfigError) as caught:
        resolve("ppo", CARTPOLE, **{where: {key: 1}})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("num_steps", 3.0, "int"), ("num_steps", True, "int"), ("num_steps", "3", "int"),
        ("discount", "fast", "float"), ("learning_rate", True, "float"), ("anneal_lr", 1, "bool"),
        ("hidden", 64, "tuple"), ("hidden", ["64"], "tuple"), ("objective", "clipped", "Literal"),
        ("learning_rate", None, "float"),
    ],
)  # fmt: skip
def test_values_of_a_wrong_type_are_refused(key, value, wanted):
    with pytest.raises(ConfigError, match=rf"agent\.{key}: got .*; wanted .*{wanted}"):
        make_config(PPOConfig, {key: value}, "agent")


def test_ints_are_accepted_as_floats_and_lists_as_tuples():
    config = make_config(PPOConfig, {"learning_rate": 1, "hidden": [3, 4]}, "agent")
    assert (config.learning_rate, config.hidden) == (1, (3, 4))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total_steps", 0), ("num_envs", 0), ("num_envs", -4), ("num_envs", 2**40), ("seed", -1), ("threads", 0),
        ("eval_every", -1), ("eval_episodes", 0), ("checkpoint_every", -1), ("keep_checkpoints", 0),
        ("solved_episodes", 0),
    ],
)  # fmt: skip
def test_run_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"^{name}: got {value}; wanted a number from \d"):
        RunConfig(**{name: value})


def test_unknown_agents_and_environments_are_refused_with_the_nearest():
    with pytest.raises(UnknownIdError, match="did you mean 'reinforce'"):
        resolve("reinforc", CARTPOLE)
    with pytest.raises(UnknownIdError, match=f"did you mean '{CARTPOLE}'"):
        resolve("ppo", "mlbits/Cartpole-v0")


def test_an_agents_own_checks_apply_to_settings():
    with pytest.raises(AgentError, match="baseline: got 'none' with returns='gae'"):
        resolve("reinforce", CARTPOLE, agent_settings={"returns": "gae", "baseline": "none"})


@pytest.mark.parametrize("config", [RunConfig, *(agent_entry(name).config_class() for name in AGENTS)])
def test_every_setting_is_documented(config):
    for field in dataclasses.fields(config):
        assert setting_of(field).help, field.name
        assert f"    {field.name}: {setting_of(field).help}." in config.__doc__, field.name
