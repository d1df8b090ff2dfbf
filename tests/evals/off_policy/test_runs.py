"""``mlbits eval RUN --off-policy DATASET``: on a run's own data, with data of other spaces, and what it refuses."""

import json

import pytest

from mlbits.cli import main

GRID = "mlbits/GridWorld-v0"
TINY = ["--preset", "none", "--total-steps", "256", "--num-envs", "8", "--eval-episodes", "2", "--quiet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run on a small gridworld, and 30 episodes that it played."""
    folder = tmp_path_factory.mktemp("ope")
    run, data = folder / "run", folder / "grid-v0"
    small = ["--agent.num-steps", "16", "--agent.hidden", "8", "--env.map", "S.G", "--env.horizon", "9"]
    assert main(["train", "ppo", GRID, *TINY, *small, "--out", str(run)]) == 0
    assert main(["record", str(run), "--episodes", "30", "--dataset", str(data)]) == 0
    return run, data


def test_a_run_on_its_own_data(made, tmp_path, capsys):
    run, data = made
    file = tmp_path / "result.json"
    assert main(["eval", str(run), "--off-policy", str(data), "--sample", "--json", str(file)]) == 0
    said = capsys.readouterr().out
    result = json.loads(file.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["IS", "PDIS", "WIS", "PDWIS", "FQE", "DR", "WDR"]
    assert result["discount"] == 0.99  # the agent's
    assert result["behaviour"] == "recorded"
    for name in ("IS", "PDIS", "WIS", "PDWIS"):  # its own data: all weights are 1
        assert rows[name]["ess"] == pytest.approx(30, rel=1e-3)
        assert rows[name]["value"] == pytest.approx(result["data_value"], rel=1e-3)
    assert "value of the sampled policy (checkpoint at 256 steps) at discount 0.99, from 30" in said
    assert "behaviour probabilities: recorded; mean weight 1" in said
    assert "FQE, DR, WDR: Q in a table; the value without a time limit" in said
    words = ["--ope.discount", "1", "--ope.horizon", "9", "--ope.behaviour", "estimated"]
    assert main(["eval", str(run), "--off-policy", str(data), *words]) == 0
    said = capsys.readouterr().out
    assert "value of the greedy policy (checkpoint at 256 steps) at discount 1" in said
    assert "behaviour probabilities: estimated (frequencies)" in said
    assert "the value of 9 steps" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gif", "a.gif"], "--gif cannot be used with --off-policy"),
        (["--opponents", "random"], "--opponents cannot be used with --off-policy"),
        (["--env.slip", "0.1"], "--env cannot be used with --off-policy"),
        (["--ope.discount", "1"], "discount: got 1; wanted 0 to 1, and below 1 without a horizon"),
        (["--ope.horizon", "3"], "horizon: got 3; wanted at least"),
    ],
)
def test_what_does_not_fit_is_refused(made, words, message, capsys):
    run, data = made
    assert main(["eval", str(run), "--off-policy", str(data), *words]) == 2
    assert message in capsys.readouterr().err


def test_data_of_another_environment_are_refused(made, tmp_path, capsys):
    run, _ = made
    other = tmp_path / "other-v0"
    assert main(["record", GRID, "--episodes", "3", "--dataset", str(other)]) == 0
    assert main(["eval", str(run), "--off-policy", str(other)]) == 2
    said = capsys.readouterr().err
    assert "--off-policy: the observation space of" in said
    assert "was trained on Discrete(3)" in said
