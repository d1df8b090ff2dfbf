"""Runs compared: what differs, results over seeds by hand, single runs, runs under way, speed."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from mlbits.evals.compare import compare, table
from mlbits.evals.recorded_runs import RecordedRunError
from tests.evals.recorded import write_run


def summary(mean, interval=(0.0, 1.0), steps=1000, **more):
    times = {"wall_seconds": 20.0, "cpu_seconds": 10.0}
    common = {"return_mean": mean, "return_interval": interval, "episodes": 20, "env_steps": steps}
    return {**times, **common, "best_return_mean": mean, "solved_at": None, **more}


def seeds_of(folder, name, means, **settings):
    return [
        write_run(folder / f"{name}{seed}", {"return/eval": {1000: mean}}, seed=seed, summary=summary(mean), **settings)
        for seed, mean in enumerate(means)
    ]


def result(group, name):
    (found,) = [result for result in group["results"] if result["name"] == name]
    return found


def test_seeds_are_one_column_with_students_interval(tmp_path):
    seeds_of(tmp_path, "a", [1.0, 2.0, 6.0])
    seeds_of(tmp_path, "b", [4.0, 5.0], agent_settings={"learning_rate": 0.5})
    found = compare([tmp_path])
    one, other = found["groups"]
    assert found["differing"] == ["agent.learning_rate"]
    assert [group["settings"] for group in (one, other)] == [{"agent.learning_rate": rate} for rate in (0.003, 0.5)]
    assert (one["seeds"], one["finished"], one["env_steps"]) == ([0, 1, 2], 3, [1000, 1000, 1000])
    returns = result(one, "return")
    assert (returns["mean"], returns["over"], returns["count"], returns["values"]) == (3.0, "seeds", 3, [1.0, 2.0, 6.0])
    np.testing.assert_allclose(returns["interval"], stats.t.interval(0.95, 2, 3, stats.sem([1, 2, 6])))
    assert one["difference"] is None
    assert other["difference"]["mean"] == 1.5
    welch = stats.ttest_ind([4, 5], [1, 2, 6], equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(other["difference"]["interval"], welch)


def test_a_single_run_has_the_interval_over_its_episodes(tmp_path):
    write_run(tmp_path / "a", {"return/eval": {1000: 3.0}}, summary=summary(3.0, (2.5, 3.5)))
    write_run(tmp_path / "b", {"return/eval": {1000: 4.0}}, agent="dqn", summary=summary(4.0, (3.0, 5.0)))
    found = compare([tmp_path])
    assert [result(group, "return")["interval"] for group in found["groups"]] == [[2.5, 3.5], [3.0, 5.0]]
    assert result(found["groups"][0], "return")["over"] == "episodes"
    assert [group["difference"] for group in found["groups"]] == [None, None]
    assert "over episodes: other seeds may give other results" in table(found)


def test_a_run_under_way_has_its_latest_evaluation(tmp_path):
    curves = {"return/eval": {100: 1.0, 900: 2.0}, "return/eval_low": {900: 1.5}, "return/eval_high": {900: 2.5}}
    clock = {"speed/wall_seconds": {900: 9.0}, "speed/cpu_seconds": {900: 3.0}}
    write_run(tmp_path / "a", curves | clock)
    write_run(tmp_path / "b", {"return/eval": {2000: 5.0}}, agent="dqn", summary=summary(4.0))  # resumed since
    one, other = compare([tmp_path])["groups"]
    assert (one["finished"], one["env_steps"], result(one, "return")["interval"]) == (0, [900], [1.5, 2.5])
    assert one["speed"] == {
        "steps_per_second": 100.0, "steps_per_cpu_second": 300.0, "wall_seconds": 9.0, "cpu_seconds": 3.0
    }  # fmt: skip
    assert (other["finished"], other["env_steps"], result(other, "return")["mean"]) == (0, [2000], 5.0)
    assert other["speed"] is None
    assert "1  ppo on mlbits/CartPole-v0 (seed 0, not finished): " in table(compare([tmp_path]))


def test_what_was_measured_is_compared(tmp_path):
    against = [{"opponent": "the pool (3 copies)", "won": 0.75, "won_interval": [0.5, 0.9], "games": 20}]
    for name, measured in (("a", {"exploitability": 0.25}), ("b", {"against": against})):
        more = {"measured": measured, "solved_at": {"env_steps": 500, "wall_seconds": 1.0, "cpu_seconds": 1.0}}
        env = {"a": "mlbits/Blotto-v0", "b": "mlbits/TicTacToe-v0"}[name]
        write_run(tmp_path / name, {"return/eval": {1000: 0.0}}, env=env, summary=summary(0.0, **more))
    one, other = compare([tmp_path])["groups"]
    assert result(one, "exploitability")["mean"] == 0.25
    assert result(other, "won against the pool")["interval"] == [0.5, 0.9]
    assert result(one, "solved at (steps)")["values"] == [500.0]


def test_what_runs_were_made_with_differs_too(tmp_path):
    for name, commit in (("a", "1" * 40), ("b", "2" * 40)):
        folder = write_run(tmp_path / name, {"return/eval": {1000: 0.0}}, seed=ord(name))
        config = json.loads((folder / "config.json").read_text()) | {"git_hash": commit}
        (folder / "config.json").write_text(json.dumps(config))
    assert compare([tmp_path])["differing"] == []  # seeds of one group
    write_run(tmp_path / "c", {}, agent="dqn")
    found = compare([tmp_path])
    assert found["differing"][-1] == "git_hash"
    assert [group["settings"]["git_hash"] for group in found["groups"]] == ["1" * 12, "unknown"]


def test_the_table_lines_up_and_is_folded(tmp_path):
    seeds_of(tmp_path, "a", [1.0, 3.0])
    seeds_of(tmp_path, "b", [4.0, 4.0], agent_settings={"learning_rate": 0.5, "hidden": [8, 8]})
    write_run(tmp_path / "again", {"return/eval": {1: 1.0}}, seed=1)
    found = compare([tmp_path])
    lines = table(found).splitlines()
    assert lines[:3] == [
        f"1  ppo, learning_rate 0.003, hidden 64 64 on mlbits/CartPole-v0 (2 seeds): {tmp_path}/a0 and 1 more",
        f"2  ppo, learning_rate 0.5, hidden 8 8 on mlbits/CartPole-v0 (2 seeds): {tmp_path}/b0 and 1 more",
        f"left out {tmp_path}/again: it has the settings and the seed of another run",
    ]
    rows = {line[:24].strip(): line[24:].split("  ") for line in lines[3:] if line and line[24:].strip()}
    cells = {name: [cell.strip() for cell in row if cell.strip()] for name, row in rows.items()}
    assert cells["agent.hidden"] == ["64 64", "8 8"]
    assert cells["return"] == ["2", "4"]
    assert "all 2 equal" in lines[lines.index(next(line for line in lines if line.startswith("return "))) + 1]
    assert cells["return, less that of 1"] == ["-", "+2"]
    assert cells["steps per CPU-second"] == ["100", "100"]
    assert len({len(line) for line in lines if line.startswith(("settings that", "agent.", "results", "steps"))}) == 1
    folded = table(found, width=40).splitlines()
    assert sum(line.startswith("results") for line in folded) == 2
    assert max(len(line) for line in folded[3:-2]) <= 45


def test_equal_results_of_seeds_are_said_to_be_equal(tmp_path):
    seeds_of(tmp_path, "a", [4.0, 4.0])
    (group,) = compare([tmp_path])["groups"]
    assert result(group, "return")["interval"] == [-math.inf, math.inf]
    assert "all 2 equal" in table(compare([tmp_path]))


def test_nothing_to_compare_is_refused(tmp_path):
    run = write_run(tmp_path / "a", {})
    with pytest.raises(RecordedRunError, match=r"runs: got only .*a; wanted two or more"):
        compare([run])
    with pytest.raises(RecordedRunError, match="runs: got only"):
        compare([run, run])


@pytest.mark.parametrize("wrong", [{"return_interval": 3}, {"return_mean": "x"}, {"measured": {"against": [{}]}}])
def test_a_damaged_summary_is_named(tmp_path, wrong):
    write_run(tmp_path / "a", {}, summary=summary(1.0) | wrong)
    write_run(tmp_path / "b", {}, seed=1)
    with pytest.raises(RecordedRunError, match=r"a: its summary.json is damaged"):
        compare([tmp_path])
