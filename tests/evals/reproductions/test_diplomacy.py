"""``mlbits reproduce diplomacy``: its runs, its settings and its targets; training is replaced."""

import pytest

from mlbits.agents.networks.orders import fits_orders
from mlbits.cli import main
from mlbits.envs.registry import make_game
from mlbits.evals.reproductions import diplomacy
from mlbits.evals.reproductions.diplomacy import ENV, TARGETS, reproduce
from mlbits.selfplay.runs.flags import parse_train
from mlbits.selfplay.statistics import fraction_interval


@pytest.fixture
def stand_in(monkeypatch):
    """Training and playing replaced by given win rates per opponent and seconds; returns the calls."""
    shares = {"random": 0.99, "diplomacy-greedy": 0.6, "seconds": 500.0}
    asked = []

    def train(agent, env, seed, *flags, out):
        asked.append(parse_train([agent, env, "--seed", str(seed), *flags])[0])
        return {"wall_seconds": shares["seconds"], "cpu_seconds": 400.0}

    def play(run, opponent, games):
        won, (low, high) = fraction_interval(round(shares[opponent] * games), games)
        return {"won": won, "won_interval": [low, high], "tied": 0.0, "return_mean": won}

    monkeypatch.setattr(diplomacy, "train_in_process", train)
    monkeypatch.setattr(diplomacy, "evaluate_against", play)
    return shares, asked


def test_three_seeds_of_the_preset_against_both_bots(stand_in):
    _, asked = stand_in
    result = reproduce()
    assert [(row["seed"], row["opponent"]) for row in result["rows"]] == [
        (seed, opponent) for seed in range(3) for opponent in TARGETS
    ]
    assert [settings.run.seed for settings in asked] == [0, 1, 2]
    assert {settings.preset for settings in asked} == {f"ppo/{ENV}"}
    assert asked[0].agent_config.network == "auto"
    game = make_game(ENV)
    assert fits_orders(game.observation_space, game.action_space)
    assert result["met"]
    assert result["rows"][1]["low"] < 0.6 < result["rows"][1]["high"]


@pytest.mark.parametrize(("what", "value"), [("random", 0.94), ("diplomacy-greedy", 0.49), ("seconds", 1300.0)])
def test_each_target_counts(stand_in, what, value):
    stand_in[0][what] = value
    assert not reproduce(seeds=1)["met"]


def test_the_quick_form_is_one_short_run(stand_in, tmp_path):
    shares, asked = stand_in
    shares["random"] = 0.7
    assert main(["reproduce", "diplomacy", "--quick", "--json", str(tmp_path / "out.json")]) == 0
    assert len(asked) == 1
    assert asked[0].run.total_steps < 100_000
    shares["random"] = 0.5
    assert main(["reproduce", "diplomacy", "--quick"]) == 1
