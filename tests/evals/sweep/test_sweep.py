"""Sweeps: spaces, pruning, the same table after any interruption, and what is refused before anything starts."""

import json
import re
import tomllib

import pytest

pytest.importorskip("optuna", reason="the extra sweep is not installed")

from mlbits.cli import main
from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.sweep import sweep as sweep_module
from mlbits.evals.sweep.config import SweepConfig, SweepError
from mlbits.evals.sweep.results import PRESET, TABLE, preset_text, table_text, write_results
from mlbits.evals.sweep.space import Dimension, read_space, with_values
from mlbits.evals.sweep.study import open_study, trial_of, values_of
from mlbits.evals.sweep.sweep import Sweep, Trial, run_sweep
from mlbits.evals.sweep.trial import PRUNED, train_trial
from mlbits.selfplay.interrupts import RunInterrupted
from mlbits.selfplay.runs.config import portable, resolve
from mlbits.selfplay.runs.folder import read_settings, read_summary
from mlbits.selfplay.runs.one_writer import InUseError, one_writer

SPACE = """
agent.learning-rate = { low = 1e-4, high = 1e-2, log = true }
agent.epochs = { low = 1, high = 3 }
agent.hidden = { choices = [[8], [4, 4]] }
num_envs = { low = 2, high = 8, step = 2 }
"""
RANDOM = SweepConfig(pruner="none", startup_trials=100)  # a trial's values depend on its number alone


def small(steps=64, every=32):
    run = {"total_steps": steps, "num_envs": 4, "video": False, "eval_every": every, "eval_episodes": 2, "seed": 3}
    return resolve("ppo", "mlbits/CartPole-v0", preset="none", run=run, agent_settings={"num_steps": 4})


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(SPACE)
    return read_space(path, small())


def swept(folder, space, trials=4, how=RANDOM, **more):
    return run_sweep(small(), space, trials, how, out=folder, say=lambda line: None, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, space):
    return swept(tmp_path_factory.mktemp("sweeps") / "whole", space)


# What is tried


def test_a_space_is_read_by_the_names_of_flags(space):
    assert space == [
        Dimension("agent.learning_rate", "float", 1e-4, 1e-2, log=True),
        Dimension("agent.epochs", "int", 1, 3),
        Dimension("agent.hidden", "choices", choices=([8], [4, 4])),
        Dimension("num_envs", "int", 2, 8, step=2),
    ]
    found = with_values(small(), {"agent.hidden": [4, 4], "num_envs": 6, "agent.epochs": 2})
    assert (found.agent_config.hidden, found.run.num_envs, found.agent_config.epochs) == ((4, 4), 6, 2)
    assert found.agent_config.num_steps == 4


@pytest.mark.parametrize(
    ("env", "line", "kind"),
    [
        ("mlbits/GridWorld-v0", "env.slip = { low = 0, high = 1 }", "float"),
        ("mlbits/GridWorld-v0", "env.horizon = { low = 20, high = 30 }", "int"),
        ("Pendulum-v1", "env.g = { low = 5, high = 10 }", "float"),  # by the constructor's default
    ],
)
def test_whole_bounds_of_an_environments_setting_are_no_whole_numbers(tmp_path, env, line, kind):
    path = tmp_path / "space.toml"
    path.write_text(line)
    (dimension,) = read_space(path, resolve("ppo", env, preset="none"))
    assert dimension.kind == kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; wanted a line as in"),
        ("a = [", "cannot be read"),
        ("agent.learning_rat = { low = 1, high = 2 }", r"did you mean 'learning_rate'\?"),
        ("num_env = { low = 1, high = 2 }", r"num_env: unknown setting; did you mean 'num_envs'\?"),
        ("env.gravty = { low = 1, high = 2 }", "env.gravty = 1: .*gravty"),
        ("model.x = { low = 1, high = 2 }", "run.model: unknown setting"),
        ("seed = { low = 1, high = 2 }", "seed: the seed is no setting to choose by its result"),
        ("agent.epochs = 3", r"epochs: got 3; wanted \{ low"),
        ("agent.epochs = { low = 1 }", "agent.epochs: got .*; wanted numbers low and high, or choices"),
        ("agent.epochs = { low = true, high = 2 }", "agent.epochs: got .*; wanted numbers low and high"),
        ("agent.epochs = { low = 1.5, high = 2 }", "agent.epochs: got .*; wanted whole numbers"),
        ("agent.epochs = { low = 3, high = 2 }", "agent.epochs: got low 3, high 2; wanted low below high"),
        ("agent.epochs = { low = 1, high = 2, many = 3 }", "agent.epochs: unknown key 'many'"),
        ("agent.epochs = { low = 0, high = 2 }", "agent.epochs = 0: epochs: got 0; wanted a number from 1 to"),
        ("agent.discount = { low = 0.5, high = 2.0 }", "agent.discount = 2.0: discount: got 2.0; wanted"),
        ("agent.learning_rate = { low = 0.0, high = 1.0, log = true }", "log: got True; wanted true with low above 0"),
        ("agent.learning_rate = { low = 0.1, high = 1.0, step = -1 }", "step: got -1; wanted a positive number"),
        ("agent.hidden = { choices = [] }", "agent.hidden: got .*; wanted choices"),
        ("agent.hidden = { choices = [[0]] }", r"agent.hidden = \[0\]: hidden: got"),
        ("agent.gamma = { choices = [0.9] }\nagent.discount = { choices = [0.8] }", "agent.discount: given twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_tried_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(SweepError, match=rf"^(space: )?{re.escape(str(path))}.*({message})"):
        read_space(path, small())


def test_values_are_a_function_of_seed_number_and_setting(tmp_path, space):
    """A driver that is killed while it draws goes on with what is drawn, and draws the rest as it would have."""
    study = open_study(tmp_path / "a.log", RANDOM)
    wanted = [values_of(study, study.ask(), space, RANDOM, seed=3) for _ in range(3)]
    assert len({json.dumps(one) for one in wanted}) == 3
    again = open_study(tmp_path / "b.log", RANDOM)
    for one in wanted:
        number = again.ask().number
        values_of(again, trial_of(again, number), space[:2], RANDOM, seed=3)  # killed after two
        assert values_of(again, trial_of(again, number), space, RANDOM, seed=3) == one
    assert values_of(study, study.ask(), space, RANDOM, seed=4) != values_of(again, again.ask(), space, RANDOM, seed=3)


def test_settings_and_trials_are_drawn_apart(tmp_path):
    study = open_study(tmp_path / "journal.log", RANDOM)
    space = [Dimension(name, "float", 0, 1) for name in ("a", "b")]
    found = [value for _ in range(3) for value in values_of(study, study.ask(), space, RANDOM, seed=0).values()]
    assert len(set(found)) == 6


# What a sweep finds


def test_a_trial_is_a_run_with_the_values_that_it_tries(whole, space):
    assert [trial.number for trial in whole.trials] == [0, 1, 2, 3]
    assert {trial.state for trial in whole.trials} == {"complete"}
    for trial in whole.trials:
        assert read_settings(trial.folder) == with_values(small(), trial.values)
        assert read_summary(trial.folder)["return_mean"] == trial.value
    assert whole.best.value == max(trial.value for trial in whole.trials)


def test_the_best_settings_are_a_preset(whole):
    lines = write_results(whole)
    preset = tomllib.loads((whole.folder / PRESET).read_text())["ppo"]["mlbits/CartPole-v0"]
    agent, run = preset.pop("agent"), preset
    found = resolve("ppo", "mlbits/CartPole-v0", preset="none", run=run, agent_settings=agent)
    best = read_settings(whole.best.folder)
    assert found.agent_config == best.agent_config
    assert (found.run.num_envs, found.run.total_steps) == (best.run.num_envs, 64)
    assert (found.run.seed, found.run.video) == (0, True)  # not the preset's business
    assert (whole.folder / TABLE).read_text().splitlines()[0] == (
        "trial,state,return/eval,agent.learning_rate,agent.epochs,agent.hidden,num_envs,run"
    )
    assert [line.partition(":")[0] for line in lines] == ["table", "preset", "plot"]
    assert (whole.folder / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_trials_are_ranked_by_the_goal(tmp_path, space):
    ended = [("complete", 1.0), ("failed", float("nan")), ("complete", 3.0), ("pruned", 9.0), ("complete", 3.0)]
    trials = tuple(Trial(k, state, value, {}, tmp_path / str(k)) for k, (state, value) in enumerate(ended))
    for goal, order in (("maximize", "24031"), ("minimize", "02431")):
        sweep = Sweep(tmp_path, small(), tuple(space), SweepConfig(goal=goal), trials)
        assert "".join(row.split(",")[0] for row in table_text(sweep).splitlines()[1:]) == order
        assert sweep.best.number == int(order[0])
    assert Sweep(tmp_path, small(), tuple(space), SweepConfig(), trials[1:2]).best is None


def test_presets_of_all_kinds_of_values():
    settings = resolve(
        "dqn", "mlbits/GridWorld-v0", preset="none", run={"total_steps": 7, "opponents": []},
        agent_settings={"hidden": [3], "learning_rate": 1e-5}, env_settings={"map": "maze", "slip": 0.25},
    )  # fmt: skip
    preset = tomllib.loads(preset_text(settings))["dqn"]["mlbits/GridWorld-v0"]
    assert preset == {
        "total_steps": 7, "agent": {"hidden": [3], "learning_rate": 1e-5}, "env": {"map": "maze", "slip": 0.25}
    }  # fmt: skip


# Interrupted, continued, pruned


def test_a_sweep_that_was_stopped_goes_on_as_it_would_have(tmp_path, space, whole, monkeypatch):
    trained = []

    def killed(*, number, **more):
        trained.append(number)
        value = train_trial(number=number, **more)
        if trained == [0, 1]:
            raise KeyboardInterrupt  # the run is there, and its result is not in the journal
        return value

    monkeypatch.setattr(sweep_module, "train_trial", killed)
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path / "sweep", space)
    again = swept(tmp_path / "sweep", space, trials=3)
    assert [trial.number for trial in again.trials] == [0, 1, 2]
    assert table_text(swept(tmp_path / "sweep", space)) == table_text(whole)
    assert trained == [0, 1, 1, 2, 3]


def test_a_signal_ends_the_sweep_with_what_to_do_next(tmp_path, space, monkeypatch):
    def stopped(*, folder, **more):
        raise RunInterrupted("SIGTERM: mlbits resume ...", 143, tmp_path, None)  # as the run says it

    monkeypatch.setattr(sweep_module, "train_trial", stopped)
    with pytest.raises(
        RunInterrupted, match=f"^interrupted; the same command goes on with the sweep in {tmp_path}"
    ) as end:
        swept(tmp_path / "sweep", space)
    assert end.value.status == 143


def test_a_trial_worse_than_the_others_is_pruned(tmp_path):
    how, settings = SweepConfig(), small(steps=192, every=64)
    study = open_study(tmp_path / "journal.log", how)
    for _ in range(5):
        trial = study.ask()
        for step in (64, 128, 192):
            trial.report(1000.0, step)
        study.tell(trial, 1000.0)
    job = {
        "settings": portable(settings), "folder": str(tmp_path / "run"), "journal": str(tmp_path / "journal.log"),
        "number": study.ask().number, "how": {"metric": "return/eval", "goal": "maximize"},
    }  # fmt: skip
    found = train_trial(**job)
    summary = read_summary(tmp_path / "run")
    assert (summary["stopped"], summary["env_steps"]) == (PRUNED, 64)
    assert found == {"value": summary["return_mean"], "pruned": True}
    assert train_trial(**job) == found  # not trained on
    assert read_summary(tmp_path / "run") == summary
    kept = train_trial(**job | {"folder": str(tmp_path / "other"), "how": {"pruner": "none"}})
    assert not kept["pruned"]
    assert read_summary(tmp_path / "other")["env_steps"] == 192
    with pytest.raises(SweepError, match="metric: no evaluation records loss; wanted any of return/eval"):
        train_trial(**job | {"folder": str(tmp_path / "third"), "how": {"metric": "loss"}})


def test_a_trial_that_fails_is_told_and_the_others_go_on(tmp_path, space, monkeypatch):
    def fails(*, number, **more):
        if number == 1:
            raise RuntimeError("no more memory")
        return {"value": float(number), "pruned": number == 0}

    said = []
    monkeypatch.setattr(sweep_module, "train_trial", fails)
    sweep = run_sweep(small(), space, 3, RANDOM, out=tmp_path / "sweep", say=said.append)
    assert [trial.state for trial in sweep.trials] == ["pruned", "failed", "complete"]
    assert sweep.best.number == 2
    assert any(line.startswith("[2/3] trial 1: failed; agent.learning_rate ") for line in said)
    study = open_study(tmp_path / "sweep" / "journal.log", RANDOM)
    assert study.trials[1].user_attrs["error"] == "RuntimeError: no more memory (tried 2 times)"


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["", "local"])
def test_trials_at_once_find_the_same(tmp_path, space, whole, cluster):
    if cluster:
        pytest.importorskip("ray", reason="the extra cluster is not installed")
    several = swept(tmp_path / "sweep", space, jobs=2, cluster=cluster)
    assert table_text(several) == table_text(whole)


# Refused


def test_another_sweep_in_the_folder_is_refused(whole, space, tmp_path):
    with pytest.raises(SweepError, match="holds a sweep with another space; wanted the same file, or another folder"):
        swept(whole.folder, space[:2])
    with pytest.raises(SweepError, match=r'holds a sweep with how.pruner "none"; wanted "median", or another folder'):
        swept(whole.folder, space, how=SweepConfig(startup_trials=100))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SweepError, match="is not empty and holds no sweep"):
        swept(tmp_path, space)
    with one_writer(whole.folder), pytest.raises(InUseError, match="is writing it"):
        swept(whole.folder, space)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ppo", "mlbits/CartPole-v0"], "--space: missing; wanted a TOML file"),
        (["ppo"], "sweep: ENV missing; wanted mlbits sweep AGENT ENV"),
        (["ppo", "mlbits/CartPole-v0", "--space", "none.toml"], "--space: none.toml not found"),
        (["ppo", "mlbits/CartPole-v0", "--trials", "0"], "--trials: got 0; wanted a number from 1 to"),
        (["ppo", "mlbits/CartPole-v0", "--jobs", "0"], "--jobs: got 0; wanted a number from 1 to"),
        (["ppo", "mlbits/CartPole-v0", "--seeds", "2"], "unknown flag --seeds"),
    ],
)
def test_the_command_refuses_in_one_line(words, message, capsys):
    assert main(["sweep", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_command_prints_a_preset(tmp_path, space, monkeypatch, capsys):
    monkeypatch.setattr(
        sweep_module, "train_trial", lambda *, number, **more: {"value": float(number), "pruned": False}
    )
    (tmp_path / "space.toml").write_text("agent.epochs = { low = 1, high = 9 }")
    words = [
        "ppo",
        "mlbits/CartPole-v0",
        "--space",
        str(tmp_path / "space.toml"),
        "--trials",
        "2",
        "--total-steps",
        "9",
    ]
    assert main(["sweep", *words, "--out", str(tmp_path / "sweep")]) == 0
    said = capsys.readouterr().out
    assert "best: trial 1, return/eval 1; as a preset:" in said
    assert tomllib.loads(said.partition("preset:\n\n")[2])["ppo"]["mlbits/CartPole-v0"]["total_steps"] == 9


def test_optuna_is_asked_for_by_name(monkeypatch, tmp_path, space):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MlbitsError, match=r"sweep: needs Optuna; wanted pip install 'mlbits\[sweep\]'"):
        swept(tmp_path / "sweep", space)
