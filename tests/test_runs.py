"""``Run`` and ``Runs``: what training returns; settings from files; several seeds; the same by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mlbits
from mlbits import training
from mlbits.cli import main
from mlbits.evals.jobs import training as job_training
from mlbits.evals.jobs.job import JobError
from mlbits.selfplay.policy import Policy
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.config_files import read_config_file
from mlbits.selfplay.runs.flags import read_train
from mlbits.selfplay.runs.folder import RunError
from tests.evals.jobs.elsewhere import everywhere

GRID = "mlbits/GridWorld-v0"
RUN: dict[str, Any] = {
    "total_steps": 64, "num_envs": 4, "seed": 5, "eval_every": 32, "eval_episodes": 2, "video": False,
    "checkpoint_every": 32, "keep_best": True,
}  # fmt: skip
AGENT = {"num_steps": 8, "hidden": [4], "minibatches": 1}
ENV = {"map": "S.G", "horizon": 9}


def trained(out: Path, **more: Any) -> Any:
    common: dict[str, Any] = {"preset": "none", "console": False, "measure": None}
    return mlbits.train("ppo", GRID, out=out, agent_settings=AGENT, env_settings=ENV, **{**common, **RUN, **more})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> mlbits.Run:
    found: mlbits.Run = trained(tmp_path_factory.mktemp("runs") / "run")
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "checkpoints").glob("step-*")) / "weights.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_a_run_is_its_folder_and_its_summary(run: mlbits.Run) -> None:
    folder, summary = run
    assert folder == run.folder == run[0]
    assert summary == run.summary == run[1] == json.loads((folder / "summary.json").read_text())
    assert run.settings.run.seed == 5
    again = mlbits.load_run(folder)
    assert (again.summary, again.settings) == (run.summary, run.settings)
    assert repr(run) == repr(again)
    assert "ppo on mlbits/GridWorld-v0, seed 5; return" in repr(run)
    with pytest.raises(RunError, match="no run here"):
        mlbits.load_run(folder.parent)


def test_its_metrics_are_arrays(run: mlbits.Run) -> None:
    curve = run.metrics["return/eval"]
    assert curve.steps.tolist() == [32, 64]
    assert curve.values[-1] == run.summary["return_mean"]
    assert {"learn/entropy", "return/train"} <= set(run.metrics)


def test_its_agent_plays_as_evaluation_does(run: mlbits.Run) -> None:
    agent = run.agent()
    assert isinstance(agent, Policy)
    env = agent.make_env()
    obs, _ = env.reset(seed=0)
    assert env.unwrapped.game.horizon is None or env.spec.max_episode_steps == 9  # with the run's own settings
    assert env.action_space.contains(agent.predict(obs))
    assert run.agent("best").steps == run.summary["best_env_steps"]
    found = run.evaluate(3, seed=2)
    assert found["episodes"] == 3
    assert run.evaluate(3, checkpoint="best")["env_steps"] == run.summary["best_env_steps"]


def test_it_goes_on(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    assert run.resume(total_steps=96, console=False) is run
    assert run.summary["env_steps"] == 96
    assert run.settings.run.total_steps == 96
    held = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    for fewer in (None, 8):  # it is finished: its config still repeats it, and nothing is played or written
        assert run.resume(total_steps=fewer, console=False).summary["env_steps"] == 96
    assert {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()} == held


def test_pictures_in_a_notebook(run: mlbits.Run) -> None:
    pytest.importorskip("matplotlib")
    figure = run.plot()
    assert len(figure.axes) == 1
    assert mlbits.Runs([run, run]).plot("return/train").axes
    text = run._repr_html_()
    assert text.startswith("<table>")
    assert "mlbits/GridWorld-v0" in text
    assert f"{run.summary['return_mean']:.4g}" in text


def test_a_config_repeats_a_run(run: mlbits.Run, tmp_path: Path) -> None:
    again = mlbits.train(config=run.folder / "config.json", out=tmp_path / "again", console=False, measure=None)
    assert again.settings == run.settings
    assert same_weights(run.folder, again.folder)
    words = ["--config", str(run.folder), "--out", str(tmp_path / "told"), "--quiet"]
    assert main(["train", *words]) == 0
    assert same_weights(run.folder, tmp_path / "told")
    other = read_train([*words, "--seed", "6", "--agent.hidden", "8", "--env.slip", "0.5"]).settings
    assert (other.run.seed, other.agent_config.hidden, other.run.num_envs) == (6, (8,), 4)
    assert other.env_settings == {"map": "S.G", "horizon": 9, "slip": 0.5}
    assert mlbits.load_run(tmp_path / "told").settings == run.settings


TOML = """
agent = "ppo"
env = "mlbits/GridWorld-v0"

[run]
total_steps = 1_000
seed = 7

[agent_settings]
gamma = 0.5
hidden = [8, 8]

[env_settings]
map = "maze"
"""


def test_settings_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(TOML)
    from_python = read_config_file(file).resolved(run={"seed": 8})
    by_flags = read_train(["--config", str(file), "--seed", "8"]).settings
    named = read_train(["ppo", GRID, f"--config={file}", "--seed", "8"]).settings
    assert from_python == by_flags == named
    assert (by_flags.run.total_steps, by_flags.run.seed) == (1000, 8)
    assert by_flags.preset == "ppo/mlbits/GridWorld-v0"  # the rest is the preset's
    assert (by_flags.agent_config.discount, by_flags.agent_config.hidden) == (0.5, (8, 8))
    assert by_flags.env_settings == {"map": "maze"}
    elsewhere = read_train(["ppo", "mlbits/CliffWalk-v0", "--config", str(file), "--env.slip", "0.5"]).settings
    assert (elsewhere.env, elsewhere.env_settings) == ("mlbits/CliffWalk-v0", {"slip": 0.5})
    assert elsewhere == read_config_file(file).resolved(
        env="mlbits/CliffWalk-v0", env_settings={"slip": 0.5}, run={"seed": 7}
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agent = 3", r"agent: got 3; wanted a string"),
        ("agnet = 'ppo'", r"agnet: unknown key; did you mean 'agent'\?"),
        ("run = 3", r"run: got 3; wanted a table of settings"),
        ("folders = 3", r"folders: got 3; wanted a list of folders"),
        ("agent = ", r"cannot be read .*; wanted JSON, or TOML"),
        ("env = 'CartPole-v1'", r"it names no agent; wanted one"),
        ("agent = 'ppo'\nenv = 'CartPole-v1'\n[run]\ntotal_step = 3", r"run.total_step: unknown setting; did you mean"),
        ("agent = 'ppo'\nenv = 'CartPole-v9'", r"unknown environment 'CartPole-v9'"),
    ],
)
def test_a_wrong_file_is_told(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(Exception, match=said):
        mlbits.train(config=file)
    assert main(["train", "--config", str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["ppo"], 'env = "MODULE:me/Stranger-v0"'),
        (["--env", "x"], 'agent = "MODULE:stranger"'),
        ([], 'agent = "MODULE:stranger"\nenv = "MODULE:me/Stranger-v0"'),
        ([], 'agent = "ppo"\nenv = "mlbits/GridWorld-v0"\nagent_settings = {encoder = "MODULE:make"}'),
        ([], 'agent = "ppo"\nenv = "mlbits/GridWorld-v0"\nagent_config = {model = "MODULE:make"}'),
    ],
)
def test_a_file_runs_no_module_of_the_working_folder(
    words: list[str], text: str, request: pytest.FixtureRequest, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A stranger's folder may hold the file and the module that it names; a user who types the name says otherwise."""
    monkeypatch.chdir(tmp_path)
    module = f"stranger_{request.node.callspec.indices['text']}"
    Path(f"{module}.py").write_text("open('ran', 'w')\nmake = print\n")
    Path("mine.toml").write_text(text.replace("MODULE", module))
    assert main(["train", *words, "--config", "mine.toml"]) == 2
    assert f"the module '{module}' cannot be imported" in capsys.readouterr().err
    with pytest.raises(mlbits.MlbitsError, match=f"the module '{module}' cannot be imported"):
        mlbits.train(config="mine.toml")
    assert not Path("ran").exists()


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"env: got TimeLimit; wanted a registered name as text; one of your own"):
        mlbits.train("ppo", gym.make(GRID))  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=r"agent: got int; wanted a registered name as text$"):
        mlbits.train(3, GRID)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "summary", ['{"return_mean": 3}', '{"return_mean": "x", "return_interval": 5, "env_steps": 1}', '{"measured": 3}']
)
def test_a_damaged_summary_is_told(summary: str, run: mlbits.Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((run.folder / "config.json").read_bytes())
    (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(RunError, match=r"summary.json: damaged .*; nothing needs it: delete it"):
        mlbits.load_run(tmp_path)


def test_a_run_is_loaded_as_its_folder_is(run: mlbits.Run) -> None:
    obs = mlbits.load(run).make_env().reset(seed=0)[0]
    found, same = (mlbits.load(source, checkpoint="best").predict(obs, details=True) for source in (run, run.folder))
    assert found.value == same.value


def test_another_agent_than_the_files_is_refused(run: mlbits.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent: got dqn; .* has the settings of ppo: wanted that, or none"):
        mlbits.train("dqn", config=run.folder)
    with pytest.raises(ConfigError, match=r"config: .*none.toml not found; wanted a run's config.json"):
        mlbits.train(config=tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"agent: missing; wanted a name"):
        mlbits.train()


def test_several_seeds_are_told_together(run: mlbits.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = trained(tmp_path / "three", seeds=3)
    assert [one.settings.run.seed for one in runs] == [5, 6, 7]
    assert [one.folder.name for one in runs] == ["seed-5", "seed-6", "seed-7"]
    assert same_weights(runs[0].folder, run.folder)
    returns = [one.summary["return_mean"] for one in runs]
    assert runs.results.tolist() == returns
    assert runs.mean == pytest.approx(np.mean(returns))
    assert runs.text().startswith(f"return {runs.mean:.4g} over 3 seeds (")
    assert runs._repr_html_().count("<tr>") == 4
    assert len(runs[1:]) == 2
    words = [f"--config={run.folder}", "--seeds", "2", "--out", str(tmp_path / "two"), "--quiet"]
    assert main(["train", *words]) == 0
    said = capsys.readouterr().out
    assert "over 2 seeds" in said
    assert str(tmp_path / "two" / "seed-6") in "".join(said.split())  # long paths are folded
    assert same_weights(tmp_path / "two" / "seed-6", runs[1].folder)
    with pytest.raises(ConfigError, match=r"seeds: got 0; wanted a whole number from 1"):
        trained(tmp_path / "none", seeds=0)


def test_an_interrupted_group_goes_on_where_it_stopped(run: mlbits.Run, tmp_path: Path) -> None:
    def stop(under_way: Any) -> None:
        if under_way.settings.run.seed == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "two", seeds=2, on_checkpoint=stop)
    summary = tmp_path / "two" / "seed-5" / "summary.json"
    written = summary.stat().st_mtime_ns
    assert not (tmp_path / "two" / "seed-6" / "summary.json").exists()
    runs = trained(tmp_path / "two", seeds=2)
    assert [one.folder.name for one in runs] == ["seed-5", "seed-6"]
    assert same_weights(runs[0].folder, run.folder)
    assert same_weights(runs[1].folder, trained(tmp_path / "whole", seed=6).folder)
    assert summary.stat().st_mtime_ns == written
    with pytest.raises(RunError, match="holds another run"):
        trained(tmp_path / "two", seeds=2, total_steps=999)


def test_seeds_may_be_trained_by_other_processes(
    run: mlbits.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = everywhere(monkeypatch, training)
    runs = trained(tmp_path / "two", seeds=2, jobs=2)
    assert [one.folder.name for one in runs] == ["seed-5", "seed-6"]
    assert same_weights(runs[0].folder, run.folder)
    assert executor.ran == 2
    with pytest.raises(ConfigError, match="callbacks: cannot be called in other processes; wanted jobs=1"):
        trained(tmp_path / "two", seeds=2, jobs=2, on_checkpoint=print)
    with pytest.raises(ConfigError, match="measure: cannot be called in other processes"):
        trained(tmp_path / "two", seeds=2, jobs=2, measure=print)
    with pytest.raises(ConfigError, match="seeds: missing with jobs or cluster"):
        trained(tmp_path / "two", jobs=2)
    for words, said in (
        (["--jobs", "2"], "--jobs: got 2 for one run; wanted --seeds N with it"),
        (["--seeds", "2", "--jobs", "0"], "--jobs: got 0; wanted a number from 1 to 100,000, or None"),
        (["--cluster", "auto"], "--cluster: got auto for one run; wanted --seeds N with it"),
    ):
        assert main(["train", f"--config={run.folder}", *words]) == 2
        assert said in capsys.readouterr().err


def test_a_seed_that_fails_is_named_and_the_others_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, working = everywhere(monkeypatch, training), job_training.train_to_end

    def fails(settings: Any, folder: Path, **more: Any) -> None:
        if settings.run.seed == 6:
            raise RuntimeError("no more memory")
        working(settings, folder, **more)

    monkeypatch.setattr(job_training, "train_to_end", fails)
    message = r"^seed 6 failed: RuntimeError: no more memory \(tried 2 times\); the others are trained$"
    with pytest.raises(JobError, match=message):
        trained(tmp_path / "three", seeds=3, jobs=2)
    assert executor.ran == 4
    assert [(tmp_path / "three" / f"seed-{k}" / "summary.json").exists() for k in (5, 6, 7)] == [True, False, True]


@pytest.mark.slow
def test_two_processes_train_as_one_does(run: mlbits.Run, tmp_path: Path) -> None:
    runs = trained(tmp_path / "two", seeds=2, jobs=2)
    assert same_weights(runs[0].folder, run.folder)
    assert same_weights(runs[1].folder, trained(tmp_path / "six", seed=6).folder)


@pytest.fixture
def told() -> Callable[..., mlbits.Runs]:
    def make(run: mlbits.Run, *summaries: dict[str, Any]) -> mlbits.Runs:
        return mlbits.Runs([mlbits.Run(run.folder, {**run.summary, **summary}) for summary in summaries])

    return make


def test_what_is_told_of_zero_sum_games(run: mlbits.Run, told: Callable[..., mlbits.Runs]) -> None:
    exact = [{"measured": {"same_return": True, "exploitability": value}} for value in (0.1, 0.2, 0.3)]
    runs = told(run, *exact)
    assert (runs.measure, runs.results.tolist()) == ("exploitability", [0.1, 0.2, 0.3])
    low, high = runs.interval
    assert (low, high) == pytest.approx((0.2 - 0.2484, 0.2 + 0.2484), abs=1e-4)  # 4.303 * 0.1 / sqrt(3)
    row = {"opponent": "mcts", "won": 0.75, "won_interval": [0.5, 0.9]}
    runs = told(run, {"measured": {"same_return": True, "against": [{"opponent": "random"}, row]}})
    assert (runs.measure, runs.mean) == ("won against mcts", 0.75)


def test_the_time_of_a_run_is_its_own(tmp_path: Path) -> None:
    """Of two runs in one process the second does not count what came before it."""
    before = sum(range(10_000_000))  # something to have spent time on
    assert before > 0
    summary = trained(tmp_path / "run").summary
    import time

    assert 0 < summary["cpu_seconds"] < time.process_time() - 0.5


def test_the_best_checkpoint_is_evaluated(run: mlbits.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run.folder), "--checkpoint", "best", "--episodes", "2"]) == 0
    assert f"checkpoint at {run.summary['best_env_steps']:,} steps" in capsys.readouterr().out
    assert main(["eval", str(run.folder), "--checkpoint", "12"]) == 2
    assert "--checkpoint: got '12'; wanted one of 'latest', 'best', 32, 64" in capsys.readouterr().err
