"""The headline results of a run, in numbers worked out by hand, and through the command line."""

import json
import math

import numpy as np
import pytest
import torch

from mlbits.agents import make_bot
from mlbits.agents.agent import Decision
from mlbits.cli import main
from mlbits.envs.registry import make_game
from mlbits.evals.headline import headlines, measure
from mlbits.selfplay.episodes import Played

BLOTTO, GOOFSPIEL = "mlbits/Blotto-v0", "mlbits/Goofspiel-v0"
TINY = ["--preset", "none", "--total-steps", "64", "--num-envs", "4", "--no-video", "--quiet"]
TINY += ["--agent.num-steps", "8", "--agent.hidden", "8"]


def bot(env, **settings):
    game = make_game(env, **settings)
    return make_bot("random", game.observation_space, game.action_space, device="cpu")


class Sure:
    """An agent that always plays the same division of the coins."""

    experience = None

    def act(self, obs, legal_mask, generator, *, greedy=False):
        action = torch.full((len(obs),), 3)
        return Decision(action, action, None)

    def state_dict(self):
        return {}


def test_an_enumerated_game_is_summarised_by_exploitability():
    assert measure(bot(BLOTTO), BLOTTO, None, 10, seed=0, exploitability=0.25) == {"exploitability": 0.25}
    summary = {"return_mean": 0.0, "return_interval": [0.0, 0.0], "episodes": 20}
    found = {"exploitability": 0.25, "same_return": True}
    assert headlines(summary | {"measured": found}) == ["exploitability 0.25 (exact, 0 is an equilibrium)"]
    found |= {"pool_exploitability": 0.125}
    assert headlines(summary | {"measured": found}) == [
        "exploitability 0.25 (exact, 0 is an equilibrium; of the pool's mixture 0.125)"
    ]


def test_larger_games_are_summarised_by_games_against_bots():
    """100 games of two random players; Wilson's interval and Elo by their formulas."""
    env = GOOFSPIEL
    found = measure(bot(env), env, None, 99, seed=3, pool=[bot(env)] * 20, greedy=False)
    assert [row["opponent"] for row in found["against"]] == ["random", "the pool (16 of 20 copies)"]
    for row in found["against"]:
        assert row["games"] == 100  # each seat equally often
        assert row["won"] + row["tied"] + row["lost"] == pytest.approx(1)
        z, n, p = 1.959963984540054, 100, row["won"]
        centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert row["won_interval"] == pytest.approx(
            [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
        )
        points = row["won"] + row["tied"] / 2
        assert row["elo"] == pytest.approx(400 * math.log10(points / (1 - points)))
        assert row["elo_interval"][0] < row["elo"] < row["elo_interval"][1]
        assert abs(points - 0.5) < 0.2


def test_the_measured_seat_is_the_agents():
    """Against the same division every game of Blotto is a tie."""
    game = {"coins": 4, "fields": 3}
    found = measure(Sure(), BLOTTO, game, 10, seed=0, pool=[Sure()])
    mirror = found["against"][-1]
    assert (mirror["opponent"], mirror["tied"], mirror["elo"]) == ("the pool", 1.0, 0.0)


def test_headlines():
    row = {
        "opponent": "the pool", "games": 20, "won": 0.75, "won_interval": [0.5, 0.9], "tied": 0.0, "lost": 0.25,
        "elo": 190.8, "elo_interval": [0.2, None],
    }  # fmt: skip
    summary = {"return_mean": 1.5, "return_interval": [1.0, 2.0], "episodes": 20}
    assert headlines(summary) == ["return 1.5 over 20 episodes (95% interval 1 to 2)"]
    assert headlines(summary | {"measured": {"against": [row], "same_return": False}}) == [
        "won 75.0% of 20 games against the pool (95% interval 50.0% to 90.0%), Elo +191 to it (+0 to any)",
        "return 1.5 over 20 episodes (95% interval 1 to 2)",
    ]


@pytest.mark.parametrize(
    ("returns", "same"),
    [([[1, -1], [0, 0]], True), ([[1, -1], [1, 1]], False), ([[3], [3]], False), ([[2, 1], [1, 2]], True)],
)
def test_which_returns_are_uninformative(returns, same):
    assert Played(np.array(returns, float), np.ones(len(returns), np.int64)).same_return is same


def printed(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("env", "flags", "starts"),
    [
        ("mlbits/MatrixGame-v0", [], ["exploitability "]),
        (BLOTTO, ["--pool", "uniform", "--pool-every", "32"], ["exploitability "]),
        pytest.param(GOOFSPIEL, ["--env.cards", "9"], ["won "], marks=pytest.mark.slow),
        pytest.param(
            GOOFSPIEL,
            ["--env.cards", "9", "--pool", "uniform", "--pool-every", "32"],
            ["won ", "won "],
            marks=pytest.mark.slow,
        ),
        ("mlbits/GridWorld-v0", [], ["return "]),
    ],
)
def test_training_prints_the_measurements(env, flags, starts, capsys, tmp_path):
    said = printed(capsys, "train", "ppo", env, *TINY, "--eval-episodes", "4", *flags, "--out", tmp_path / "run")
    lines = [line for line in said.splitlines() if line.startswith(("exploitability", "won", "return"))]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * len(starts)
    assert " after 64 steps in " in lines[0]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert ("measured" in summary) == (env != "mlbits/GridWorld-v0")
    if "cards" in str(flags):
        rows = summary["measured"]["against"]
        assert [row["opponent"] for row in rows] == ["random", "the pool"][: len(rows)]
        assert all(row["games"] == 4 for row in rows)
        low, high = rows[0]["won_interval"]
        assert f"won {rows[0]['won']:.1%} of 4 games against random (95% interval {low:.1%} to {high:.1%})" in said
    again = printed(capsys, "resume", tmp_path / "run")
    assert f"its result: {lines[0].partition(' after ')[0]}" in again
    evaluated = printed(capsys, "eval", tmp_path / "run", "--episodes", "4")
    if env != "mlbits/GridWorld-v0":
        assert "return 0 over 4 episodes (the same in every game)" in evaluated
        assert starts[0] in evaluated
