"""Settings by the names that they have elsewhere, in Python and on the command line."""

import dataclasses
import json

import numpy as np
import pytest

from mlbits.agents import AGENTS, agent_entry
from mlbits.selfplay.runs.config import ConfigError, RunConfig, resolve, settings_from_json
from mlbits.selfplay.runs.flags import parse_solve, parse_train
from mlbits.selfplay.runs.synonyms import GROUPS

GRID = "mlbits/GridWorld-v0"
OURS = {field.name for field in dataclasses.fields(RunConfig)}
OURS |= {f.name for name in AGENTS for f in dataclasses.fields(agent_entry(name).config_class())}


def test_gamma_is_understood_as_discount():
    assert resolve("ppo", GRID, agent_settings={"gamma": 0.5}).agent_config.discount == 0.5
    over_a_preset = resolve("ppo", "CartPole-v1", agent_settings={"gamma": 0.5})  # which has a discount
    assert over_a_preset.agent_config.discount == 0.5
    assert resolve("sb3-ppo", "CartPole-v1", agent_settings={"gamma": 0.5}).agent_config.gamma == 0.5
    with pytest.raises(
        ConfigError, match=r"^agent.gamma, agent.discount: got both, which are the same setting; wanted"
    ):
        resolve("ppo", GRID, agent_settings={"gamma": 0.5, "discount": 0.5})


@pytest.mark.parametrize("flag", ["--agent.gamma 0.5", "--agent.gamma=0.5", "--agent.discount 0.5"])
def test_gamma_is_understood_as_a_flag(flag):
    settings, _, _ = parse_train(["ppo", "CartPole-v1", *flag.split()])
    assert settings.agent_config.discount == 0.5


def test_gamma_of_other_commands_and_of_agents_that_have_it():
    assert parse_solve([GRID, "--gamma", "0.5"])[2].discount == 0.5
    settings, _, _ = parse_train(["sb3-ppo", "CartPole-v1", "--agent.gamma", "0.5"])
    assert settings.agent_config.gamma == 0.5


@pytest.mark.parametrize(
    ("agent", "name", "ours"),
    [
        ("ppo", "n_steps", "'num_steps'"), ("ppo", "n_epochs", "'epochs'"), ("ppo", "update_epochs", "'epochs'"),
        ("ppo", "num_minibatches", "'minibatches'"), ("ppo", "ent_coef", "'entropy_coef'"),
        ("ppo", "vf_coef", "'value_coef'"), ("ppo", "clip_range", "'clip_coef'"), ("ppo", "net_arch", "'hidden'"),
        ("ppo", "kl_stop", "'target_kl'"), ("ppo", "kl_target", "'adaptive_target_kl'"),
        ("dqn", "norm_obs", "'normalize_obs'"), ("ddpg", "normalize_rewards", "'normalize_reward'"),
        ("trpo", "kl_bound", "'target_kl'"), ("dqn", "exploration_fraction", "'epsilon_fraction'"),
        ("dqn", "exploration_initial_eps", "'epsilon_start'"), ("dqn", "exploration_final_eps", "'epsilon_end'"),
        ("dqn", "start_e", "'epsilon_start'"), ("dqn", "end_e", "'epsilon_end'"),
        ("dqn", "target_update_interval", "'target_every'"), ("dqn", "target_network_frequency", "'target_every'"),
        ("dqn", "gradient_steps", "'replay_ratio'"), ("dqn", "train_freq", "'num_steps'"),
        ("dqn", "n_steps", "'num_steps' or 'n_step'"), ("dqn", "warmup", "'learning_starts'"),
        ("dqn", "updates_per_step", "'replay_ratio'"), ("dqn", "capacity", "'buffer_size'"),
        ("dqn", "support_low", "'v_min'"), ("ddpg", "support_high", "'v_max'"),
        ("ddpg", "policy_frequency", "'policy_delay'"), ("ddpg", "policy_noise", "'target_noise'"),
        ("ddpg", "noise_clip", "'target_noise_clip'"), ("ddpg", "exploration_noise", "'noise'"),
        ("ddpg", "learning_rate", "'actor_learning_rate' or 'critic_learning_rate'"),
        ("sac", "ent_coef", "'temperature'"), ("sac", "autotune", "'temperature'"),
        ("sb3-ppo", "discount", "'gamma'"), ("sb3-dqn", "epsilon_end", "'exploration_final_eps'"),
        ("ppo", "n_envs", "'num_envs' of the run"), ("ppo", "total_timesteps", "'total_steps' of the run"),
        ("ppo", "num_envs", "'num_envs' of the run"),
    ],
)  # fmt: skip
def test_names_of_elsewhere_are_suggested(agent, name, ours):
    with pytest.raises(ConfigError) as caught:
        resolve(agent, "Pendulum-v1", preset="none", agent_settings={name: 1})
    assert str(caught.value) == f"agent.{name}: unknown setting; did you mean {ours}?"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dqn {grid} --agent.warmup 3", "unknown flag --agent.warmup; did you mean --agent.learning-starts?"),
        ("ppo {grid} --agent.n-steps 3", "unknown flag --agent.n-steps; did you mean --agent.num-steps?"),
        ("dqn {grid} --agent.n-steps=3", "did you mean --agent.num-steps or --agent.n-step?"),
        ("ppo {grid} --agent.no-norm-adv", "did you mean --agent.normalize-advantage?"),
        ("ppo {grid} --n-envs 4", "unknown flag --n-envs; did you mean --num-envs?"),
        ("ppo {grid} --agent.total-timesteps 4", "did you mean --total-steps?"),
        ("ppo {grid} --gamma 0.9", "unknown flag --gamma; did you mean --agent.discount?"),
        ("ppo {grid} --pool-share 0.9", "unknown flag --pool-share; did you mean --pool-fraction?"),
        (
            "ppo {grid} --n-envs 4 --agent.n-epochs 2",
            "unknown flags --n-envs, --agent.n-epochs; did you mean --num-envs and --agent.epochs?",
        ),
    ],
)
def test_flags_of_elsewhere_are_suggested(words, message):
    with pytest.raises(ConfigError) as caught:
        parse_train(words.format(grid=GRID).split())
    assert message in str(caught.value)


def test_saved_settings_with_former_names_are_refused_by_the_new():
    saved = resolve("dqn", "CartPole-v1").to_json()
    saved["agent_config"]["warmup"] = saved["agent_config"].pop("learning_starts")
    with pytest.raises(ConfigError, match=r"^agent.warmup: unknown setting; did you mean 'learning_starts'\?$"):
        settings_from_json(saved)
    saved = resolve("ppo", GRID).to_json()
    saved["run"]["pool_share"] = saved["run"].pop("pool_fraction")
    with pytest.raises(ConfigError, match=r"^run.pool_share: unknown setting; did you mean 'pool_fraction'\?$"):
        settings_from_json(saved)


def test_every_group_begins_with_a_setting_of_ours():
    for group in GROUPS:
        assert group[0] in OURS, group
        assert len(set(group)) == len(group) > 1


def test_an_agents_setting_among_the_runs_is_pointed_to_its_place():
    for name, ours in (("gamma", "discount"), ("discount", "discount"), ("n_epochs", "epochs"), ("hidden", "hidden")):
        with pytest.raises(ConfigError, match=rf"run.{name}: unknown .* as in agent_settings=\{{'{ours}': \.\.\.\}}"):
            resolve("ppo", GRID, run={name: 1})
    with pytest.raises(ConfigError, match=r"run.total_timesteps: unknown setting; did you mean 'total_steps'"):
        resolve("ppo", GRID, run={"total_timesteps": 1})


def test_settings_have_to_be_mappings_and_numpys_numbers_are_taken():
    for name in ("run", "agent_settings", "env_settings"):
        with pytest.raises(ConfigError, match=rf"^{name}: got 'x'; wanted a mapping"):
            resolve("ppo", GRID, **{name: "x"})
    made = resolve("ppo", GRID, run={"total_steps": np.int64(100)}, agent_settings={"gamma": np.float32(0.5)})
    assert (made.run.total_steps, made.agent_config.discount) == (100, 0.5)
    assert json.loads(json.dumps(made.to_json()))["run"]["total_steps"] == 100
