"""Runs read from their folders, and put into groups that differ only in the seed."""

import json

import pytest

from mlbits.evals.recorded_runs import (
    RecordedRunError,
    differences,
    find_runs,
    grouped,
    read_curves,
    read_run,
    read_runs,
    value_text,
)
from tests.evals.recorded import write_run

CURVE = {"return/eval": {100: 1.0, 200: 3.0}}


def test_curves_are_read_by_name(tmp_path):
    folder = write_run(tmp_path / "run", {"return/eval": {200: 3.0, 100: 1.0}, "learn/loss": {100: 0.5}})
    curves = read_curves(folder)
    assert set(curves) == {"return/eval", "learn/loss"}
    assert curves["return/eval"].steps.tolist() == [100, 200]
    assert curves["return/eval"].values.tolist() == [1.0, 3.0]


def test_the_later_of_two_values_counts_and_damaged_lines_do_not(tmp_path):
    folder = write_run(tmp_path / "run", {"return/eval": {100: 1.0}})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 100, "return/eval": 7}\nnonsense\n[3]\n{"return/eval": 1}\n')
        file.write('{"env_steps": 200, "return/eval": "8", "other": true}\n{"env_steps": 300, "return/ev')
    assert read_curves(folder)["return/eval"].values.tolist() == [7.0]
    assert read_run(folder).last_step == 200


def test_a_run_without_records_has_no_curves(tmp_path):
    folder = write_run(tmp_path / "run", {})
    (folder / "metrics.jsonl").unlink()
    run = read_run(folder)
    assert (run.curves, run.last_step, run.summary) == ({}, 0, None)


def test_settings_have_the_names_of_flags(tmp_path):
    run = read_run(write_run(tmp_path / "run", CURVE, env="mlbits/GridWorld-v0", env_settings={"slip": 0.5}, seed=4))
    assert (run.agent, run.env, run.seed, run.from_data) == ("ppo", "mlbits/GridWorld-v0", 4, False)
    assert (run.settings["env.slip"], run.settings["seed"], run.settings["agent.discount"]) == (0.5, 4, 0.99)


def test_runs_are_found_at_a_path_and_below_it(tmp_path):
    for name in ("b", "a", "deep/c"):
        write_run(tmp_path / name, CURVE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")  # of something else
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b", tmp_path / "deep/c"]
    assert [run.folder for run in read_runs([tmp_path / "b", tmp_path])] == [tmp_path / n for n in ("b", "a", "deep/c")]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("mase", r"mase: not found; did you mean '.*maze'\?"),
        ("far/away", "far/away: not found; wanted a run's folder"),
        ("empty", "empty: no run here .config.json is missing.; wanted"),
    ],
)
def test_a_path_without_a_run_is_refused(tmp_path, path, said):
    write_run(tmp_path / "maze", CURVE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordedRunError, match=said):
        find_runs(tmp_path / path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"run": {}, "agent_config": [], "env_settings": {}}'])
def test_damaged_settings_are_refused(tmp_path, text):
    folder = write_run(tmp_path / "run", CURVE)
    (folder / "config.json").write_text(text)
    with pytest.raises(RecordedRunError, match=r"config.json: damaged"):
        read_run(folder)


def test_no_runs_at_all_are_refused():
    with pytest.raises(RecordedRunError, match="runs: got none"):
        read_runs([])


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path):
    for seed in (10, 2):
        write_run(tmp_path / f"a{seed}", CURVE, seed=seed, checkpoint_every=seed)
    write_run(tmp_path / "fast", CURVE, seed=2, agent_settings={"learning_rate": 0.5})
    write_run(tmp_path / "q", CURVE, agent="dqn")
    groups = grouped(read_runs([tmp_path]))
    assert [[run.seed for run in group.runs] for group in groups] == [[2, 10], [2], [0]]
    assert [group.label for group in groups] == ["ppo, learning_rate 0.003", "ppo, learning_rate 0.5", "dqn"]


def test_of_runs_with_one_seed_the_one_that_got_furthest_stays(tmp_path):
    write_run(tmp_path / "short", {"return/eval": {100: 1.0}})
    write_run(tmp_path / "long", {"return/eval": {100: 1.0, 900: 1.0}})
    (group,) = grouped(read_runs([tmp_path / "short", tmp_path / "long"]))
    assert [run.folder.name for run in group.runs] == ["long"]
    assert [run.folder.name for run in group.repeated] == ["short"]
    assert group.label == "ppo"


def test_labels_that_would_be_equal_name_the_folder(tmp_path):
    many = {"learning_rate": 0.1, "discount": 0.5, "num_steps": 8, "epochs": 7}
    for name, hidden in (("one", 8), ("two", 9)):
        write_run(tmp_path / name, CURVE, agent_settings=many | {"hidden": [hidden]})
    write_run(tmp_path / "usual", CURVE)
    labels = [group.label for group in grouped(read_runs([tmp_path]))]
    assert labels[0] == "ppo, num_steps 8, learning_rate 0.1, discount 0.5, epochs 7, and 1 more (one)"
    assert labels[1].endswith("(two)")
    assert labels[2].startswith("ppo, ")


def test_a_setting_of_the_environment_differs_from_its_default(tmp_path):
    """Only settings that are not the default are recorded."""
    runs = [
        read_run(write_run(tmp_path / "a", CURVE, env="mlbits/GridWorld-v0", env_settings={"slip": 0.5})),
        read_run(write_run(tmp_path / "b", CURVE, env="mlbits/GridWorld-v0")),
    ]
    assert differences(runs) == ["env.slip"]
    assert [group.label for group in grouped(runs)] == ["ppo, env.slip 0.5", "ppo, env.slip default"]


def test_settings_that_only_one_agent_has_are_no_difference(tmp_path):
    runs = [read_run(write_run(tmp_path / agent, CURVE, agent=agent, total_steps=9)) for agent in ("ppo", "dqn")]
    found = differences(runs)
    assert "agent" in found
    assert "agent.clip" not in found
    assert "total_steps" not in found


def test_a_run_of_an_earlier_version_has_todays_defaults(tmp_path):
    folder = write_run(tmp_path / "old", CURVE)
    config = json.loads((folder / "config.json").read_text())
    del config["run"]["solved_episodes"]
    (folder / "config.json").write_text(json.dumps(config))
    assert differences([read_run(folder), read_run(write_run(tmp_path / "new", CURVE))]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (None, "none"), (1_000_000, "1,000,000"), (0.5, "0.5"), ([64, 64], "64 64"), ((), "none")],
)
def test_values_are_short(value, text):
    assert value_text(value) == text
    assert value_text("x" * 99, 10) == "xxxxxxxx.."
