"""Stable-Baselines3's algorithms with our logging: weights equal SB3's bit for bit, files are ours."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mlbits
from mlbits.agents import AGENTS
from mlbits.agents.agent import AgentError
from mlbits.agents.sb3.algorithms import algorithm_arguments, algorithm_class
from mlbits.agents.sb3.configs import SB3Config
from mlbits.cli import main
from mlbits.envs.core.errors import GameError
from mlbits.envs.doors.sb3_vec_env import SB3VecEnv
from mlbits.evals.evaluate import evaluate_run, load_agent
from mlbits.selfplay import sb3_training
from mlbits.selfplay.bookkeeping import EVAL_SEED
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.runs.checkpoints import CheckpointError
from mlbits.selfplay.runs.config import ConfigError, RunConfig, Settings, resolve
from mlbits.selfplay.runs.folder import RunError, read_settings
from mlbits.selfplay.training import resume, train
from tests.games import register_test_games

register_test_games()
torch.set_num_threads(1)
NAMES = [name for name in AGENTS if name.startswith("sb3-")]
GRID = "mlbits/GridWorld-v0"
SHORT = {"n_steps": 25, "batch_size": 25, "n_epochs": 2, "hidden": (8,)}
REPLAY = {"learning_starts": 20, "buffer_size": 80, "batch_size": 16, "hidden": (8,)}


def settings(
    agent: str, env: str, values: dict[str, Any] | None = None, env_settings: Any = None, **run: Any
) -> Settings:
    run = {"total_steps": 100, "eval_every": 40, "eval_episodes": 2, "video": False, "device": "cpu", **run}
    return resolve(agent, env, preset="none", run=run, agent_settings=values, env_settings=env_settings)


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step-*"))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("agent", "env", "num_envs", "values"),
    [
        ("sb3-ppo", "CartPole-v1", 2, {**SHORT, "anneal_lr": True, "anneal_clip": True}),
        ("sb3-ppo", "mlbits/CartPole-v0", 3, SHORT),  # by the fast door here, by gym.make there
        ("sb3-ppo", "Pendulum-v1", 2, {**SHORT, "use_sde": True, "sde_sample_freq": 4, "normalize": True}),
        ("sb3-a2c", "mlbits/Knapsack-v0", 2, {"hidden": (8,)}),
        ("sb3-dqn", "CartPole-v1", 2, {**REPLAY, "target_update_interval": 30}),
        ("sb3-ddpg", "Pendulum-v1", 1, {**REPLAY, "noise_std": 0.2}),
        ("sb3-td3", "mlbits/Pendulum-v0", 2, {**REPLAY, "noise_std": 0.1}),
        ("sb3-sac", "Pendulum-v1", 1, {**REPLAY, "normalize": True, "use_sde": True}),
    ],
)
def test_training_equals_sb3s_learn_alone(
    agent: str, env: str, num_envs: int, values: dict[str, Any], tmp_path: Path
) -> None:
    """With evaluations that sample and checkpoints in between, through another door if there is one."""
    brief = {} if env.startswith("mlbits/") else {"max_episode_steps": 30}
    chosen = settings(agent, env, values, brief, num_envs=num_envs, seed=4, eval_greedy=False, checkpoint_every=40)
    folder, summary = train(chosen, tmp_path / "run", console=False)
    config: Any = chosen.agent_config
    envs: Any = make_vec_env(env, num_envs, env_kwargs=brief or {"illegal": "replace"})
    arguments = algorithm_arguments(config, envs.observation_space, envs.action_space)
    envs = VecNormalize(envs, gamma=config.gamma) if config.normalize else envs
    model = algorithm_class(config.algorithm)(env=envs, seed=4, device="cpu", **arguments).learn(100)
    saved = load_file(newest(folder) / "weights.safetensors")
    for name, value in model.policy.state_dict().items():
        assert torch.equal(saved[f"policy.{name}"], value), name
    if config.normalize:
        assert saved["moments.mean"].tolist() == envs.obs_rms.mean.tolist()
        assert saved["moments.var"].tolist() == envs.obs_rms.var.tolist()
    assert summary["env_steps"] == model.num_timesteps


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    chosen = settings(
        "sb3-ppo", GRID, {"n_steps": 32, "batch_size": 32, "hidden": (8,)}, {"map": "S.G", "horizon": 9},
        num_envs=4, total_steps=512, eval_every=256, checkpoint_every=256, record_every=1, eval_episodes=3,
    )  # fmt: skip
    return train(chosen, tmp_path_factory.mktemp("runs") / "run", console=False)


def test_the_run_is_a_folder_like_any(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    names = {path.name.partition(".tfevents")[0] for path in folder.iterdir()}
    assert names == {"config.json", "summary.json", "metrics.jsonl", "checkpoints", "events.out"}
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == ["step-000000000256", "step-000000000512"]
    files = {path.name for path in newest(folder).iterdir()}
    assert files == {"weights.safetensors", "arrays.safetensors", "state.json", "manifest.json"}
    assert json.loads((folder / "summary.json").read_text()) == summary
    wanted = {"return_mean", "return_interval", "episodes", "best_return_mean", "env_steps", "wall_seconds"}
    assert set(summary) == wanted | {"cpu_seconds"}
    assert (summary["env_steps"], summary["episodes"]) == (512, 3)
    assert read_settings(folder).agent_config.n_steps == 32


def test_the_curves_have_the_names_of_every_run(finished: tuple[Path, dict[str, Any]]) -> None:
    rows = rows_of(finished[0])
    recorded = [(row["env_steps"], "return/eval" in row) for row in rows]
    assert recorded == [(128, False), (256, True), (256, False), (384, False), (512, True), (512, False)]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        if "return/eval" not in row:
            assert {"learn/value_loss", "learn/approx_kl", "learn/learning_rate"} < set(row)
            assert {"return/train", "return/train_length", "speed/steps_per_second"} < set(row)
            assert row["speed/steps_per_second"] > 0
            shares = {name: value for name, value in row.items() if name.startswith("time/")}
            assert sum(shares.values()) == pytest.approx(1, abs=0.01)
            assert min(shares["time/environment"], shares["time/network"], shares["time/learning"]) > 0
    events = EventAccumulator(str(finished[0])).Reload()
    assert {"return/train", "return/eval", "train/value_loss", "speed/steps_per_second"} <= set(
        events.Tags()["scalars"]
    )


def test_training_returns_are_the_environments_own(tmp_path: Path) -> None:
    """A corridor where every step costs a quarter: whatever VecNormalize makes of it, returns are what was earned."""
    env = {"map": "SG", "step_cost": 0.25, "horizon": 2, "observation": "one_hot"}
    values = {**SHORT, "normalize": True}
    for name, learner in (("ppo", values), ("dqn", {**REPLAY, "normalize": True})):
        folder, _ = train(settings(f"sb3-{name}", GRID, learner, env, record_every=1), tmp_path / name, console=False)
        seen = [row["return/train"] for row in rows_of(folder) if "return/train" in row]
        assert seen
        assert all(-0.5 <= value <= 0.75 for value in seen)
        lengths = [row["return/train_length"] for row in rows_of(folder) if "return/train_length" in row]
        assert all(1 <= value <= 2 for value in lengths)


def test_evaluation_is_ours_on_the_same_seeds(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    agent, chosen, state = load_agent(folder)
    played = play_episodes(agent, chosen.env, 3, seed=EVAL_SEED, settings=chosen.env_settings)
    assert summary["return_mean"] == played.returns.mean()
    assert state["env_steps"] == 512
    assert evaluate_run(folder, 9, seed=2)["episodes"] == 9


def test_statistics_of_observations_are_saved_and_frozen(tmp_path: Path) -> None:
    values = {**SHORT, "normalize": True}
    folder, _ = train(settings("sb3-ppo", "Pendulum-v1", values, num_envs=2), tmp_path / "run", console=False)
    agent, *_ = load_agent(folder)
    before = agent.state_dict()
    assert before["moments.count"] > 100
    result = evaluate_run(folder, 3)
    assert -2000 < result["return_mean"] < 0
    again, *_ = load_agent(folder)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in before.items())


def test_solving_ends_the_run_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlbits.selfplay.session.session.reward_threshold", lambda env: 0.0)  # pulling at random pays 6
    run = {"total_steps": 20_000, "num_envs": 4, "solved_episodes": 4, "stop_when_solved": True, "eval_every": 0}
    for name, values in (("a2c", {}), ("dqn", REPLAY)):
        folder, summary = train(
            settings(f"sb3-{name}", "mlbits/Bandit-v0", values, **run), tmp_path / name, console=False
        )
        assert summary["solved_at"]["env_steps"] == summary["env_steps"] < 20_000
        assert rows_of(folder)[-1]["env_steps"] == summary["env_steps"]
        assert newest(folder).name == f"step-{summary['env_steps']:012d}"


def test_native_games_go_through_the_fast_door_and_others_through_stable_baselines_own() -> None:
    native = sb3_training._open_copies(settings("sb3-dqn", GRID, env_settings={"map": "S.G"}, num_envs=3))
    assert isinstance(native, SB3VecEnv)
    assert native.num_envs == 3
    assert native.game.layout["kinds"].tolist() == mlbits.make_game(GRID, map="S.G").layout["kinds"].tolist()
    other = sb3_training._open_copies(settings("sb3-td3", "Pendulum-v1", env_settings={"g": 9.0}, num_envs=2))
    assert isinstance(other, DummyVecEnv)
    assert other.get_attr("g") == [9.0, 9.0]


def test_what_an_environment_itself_raises_is_one_line(tmp_path: Path) -> None:
    class Failing(gym.Env[Any, Any]):
        observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return 0, {}

        def step(self, action: Any) -> Any:
            raise ValueError("out of fuel")

    gym.register("tests/Failing-v0", Failing)
    try:
        wanted = resolve("sb3-dqn", "tests/Failing-v0", preset="none", run={"total_steps": 8, "video": False})
        line = r"^tests/Failing-v0: copy 0 failed \(ValueError: out of fuel, test_sb3_training.py, line \d+\)$"
        with pytest.raises(GameError, match=line):
            train(wanted, tmp_path / "run", console=False)
    finally:
        gym.registry.pop("tests/Failing-v0")


def test_the_global_generators_stay_as_they_were(tmp_path: Path) -> None:
    def state() -> Any:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = state()
    train(settings("sb3-dqn", GRID, REPLAY, total_steps=60), tmp_path / "run", console=False)
    assert state() == before


def test_the_seed_decides(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> torch.Tensor:
        folder, _ = train(settings("sb3-a2c", GRID, {"hidden": (8,)}, seed=seed), tmp_path / name, console=False)
        return torch.cat([value.flatten() for value in load_file(newest(folder) / "weights.safetensors").values()])

    first = weights("a", 1)
    assert torch.equal(first, weights("b", 1))
    assert not torch.equal(first, weights("c", 2))


def test_records_are_a_thousand_steps_apart_unless_asked_for(tmp_path: Path) -> None:
    for every, wanted in ((0, [20, 1000, 1200]), (400, [20, 400, 800, 1200])):
        chosen = settings(
            "sb3-a2c", GRID, {"hidden": (8,)}, total_steps=1200, num_envs=4, eval_every=0, record_every=every
        )
        folder, _ = train(chosen, tmp_path / str(every), console=False)
        assert [row["env_steps"] for row in rows_of(folder) if "return/eval" not in row] == wanted


def test_a_run_cannot_be_resumed_and_says_why(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, summary = finished
    assert resume(folder, console=False) == (folder, summary)  # it is finished
    with pytest.raises(
        RunError, match=r"a run of sb3-ppo cannot be resumed: .*neither its replay buffer .*mlbits eval"
    ):
        resume(folder, total_steps=1024, console=False)


def test_checkpoints_survive_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a kill: the run stops in the middle of a rollout; its last checkpoint can be evaluated."""
    count = 0
    original = SB3VecEnv.step_wait

    def broken(self: Any) -> Any:
        nonlocal count
        count += 1
        if count > 150:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(SB3VecEnv, "step_wait", broken)
    with pytest.raises(KeyboardInterrupt):
        train(
            settings("sb3-dqn", GRID, REPLAY, total_steps=200, eval_every=0, checkpoint_every=60),
            tmp_path / "run",
            console=False,
        )
    monkeypatch.undo()
    assert newest(tmp_path / "run").name == "step-000000000120"
    assert evaluate_run(tmp_path / "run", 2)["env_steps"] == 120
    with pytest.raises(RunError, match="cannot be resumed"):
        resume(tmp_path / "run", console=False)
    (newest(tmp_path / "run") / "manifest.json").unlink()
    (min((tmp_path / "run" / "checkpoints").glob("step-*")) / "manifest.json").unlink()
    with pytest.raises(CheckpointError):
        evaluate_run(tmp_path / "run", 2)


@pytest.mark.parametrize(
    ("agent", "env", "values", "run", "error", "message"),
    [
        ("sb3-ddpg", "CartPole-v1", {}, {}, AgentError, r"got the action space Discrete\(2\); wanted .*sb3-ppo"),
        ("sb3-dqn", "Pendulum-v1", {}, {}, AgentError, r"got the action space Box.*; wanted one that is discrete"),
        ("sb3-ppo", "test/Nim-v0", {}, {}, GameError, "Nim has 2 seats and Stable-Baselines3 supports one"),
        ("sb3-ppo", "test/Signs-v0", {}, {}, AgentError, "for the image 'image' in a Dict; wanted at least 36 pixels"),
        ("sb3-ppo", GRID, {"normalize": True}, {}, AgentError, r"normalize: got the observation space Discrete"),
        ("sb3-ppo", GRID, {"use_sde": True}, {}, AgentError, r"use_sde: got the action space Discrete"),
        ("sb3-ppo", GRID, {"n_steps": 1}, {}, ConfigError, "sb3-ppo: Stable-Baselines3 does not take these settings"),
        ("sb3-dqn", "CartPole-v1", {"buffer_size": 2**38}, {}, ConfigError, "buffer_size: a replay buffer of 274,877"),
        ("sb3-a2c", GRID, {}, {"seed": 2**32}, ConfigError, r"seed: got 4294967296; wanted one up to 4,294,967,294"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_a_folder_is_made(
    agent: str, env: str, values: Any, run: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        train(settings(agent, env, values, **run), tmp_path / "run", console=False)
    assert not (tmp_path / "run").exists()


def test_one_copy_is_the_default_as_it_is_stable_baselines() -> None:
    for name in NAMES:
        chosen = resolve(name, GRID if name in ("sb3-ppo", "sb3-a2c", "sb3-dqn") else "Pendulum-v1", preset="none")
        assert isinstance(chosen.agent_config, SB3Config)
        assert chosen.run == RunConfig(num_envs=1)
        assert chosen.agent_config == AGENTS[name].config_class()()
    assert resolve("sb3-ppo", GRID, run={"num_envs": 7}).run.num_envs == 7
    assert resolve("sb3-ppo", "CartPole-v1").run.num_envs == 8


def test_the_command_line_trains_and_evaluates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    words = f"train sb3-dqn {GRID} --total-steps 120 --eval-every 0 --eval-episodes 2 --no-video --seed 3 --threads 1"
    flags = "--agent.hidden 8 --agent.learning-starts 20 --agent.buffer-size 100 --quiet --env.map S.G --env.horizon 9"
    assert main([*words.split(), *flags.split(), "--out", out]) == 0
    assert "mlbits eval" in capsys.readouterr().out
    assert main(["eval", out, "--episodes", "3"]) == 0
    said = capsys.readouterr().out
    assert "over 3 episodes (" in said and "; checkpoint at 120 steps" in said
    assert main(["resume", out, "--total-steps", "200"]) == 2
    assert "cannot be resumed" in capsys.readouterr().err
    assert main(["train", "sb3-ppo", "CartPole-v1", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Defaults shown are the values of the preset sb3-ppo/CartPole-v1" in said
    assert "--agent.n-epochs INT passes over each rollout; at least 1 (default: 20)" in said


def test_presets_are_the_zoos_settings_for_environments_that_are_there() -> None:
    ppo = resolve("sb3-ppo", "CartPole-v1")
    assert (ppo.run.total_steps, ppo.run.num_envs) == (100_000, 8)
    assert ppo.agent_config.anneal_clip
    assert ppo.agent_config.anneal_lr
    td3 = resolve("sb3-td3", "Pendulum-v1").agent_config
    assert (td3.gamma, td3.buffer_size, td3.learning_starts, td3.noise_std) == (0.98, 200_000, 10_000, 0.1)
    assert "LunarLanderContinuous-v3" in gym.registry
