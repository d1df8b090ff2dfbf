"""One seat against the others: rotation of seats, what counts as won, and opponents."""

import json

import numpy as np
import pytest
import torch

from mlbits import cli
from mlbits.agents.agent import AgentError, Decision
from mlbits.envs.core.errors import UnknownIdError
from mlbits.evals.evaluate import evaluate_against, load_agent
from mlbits.evals.head_to_head import outcomes, play_against, rotating_seats
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.runs.config import ConfigError, resolve
from mlbits.selfplay.runs.saved_agents import open_guest
from mlbits.selfplay.session import open_session
from mlbits.selfplay.statistics import fraction_interval, mean_interval
from mlbits.selfplay.training import train
from tests.games import register_test_games

register_test_games()
THROWS = "test/Throws-v0"  # three seats: paper, stone, scissors


class Always:
    """Plays one action, and records the rows that it was asked for."""

    def __init__(self, action):
        self.action, self.asked = action, []

    def act(self, obs, legal_mask, generator, *, greedy=False):
        self.asked.append(len(obs))
        action = torch.full((len(obs),), self.action)
        return Decision(action, action, None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = resolve(
        "ppo", THROWS, preset="none", env_settings={"noise": 0.0},
        run={"total_steps": 64, "num_envs": 4, "video": False},
        agent_settings={"num_steps": 16, "hidden": [8]},
    )  # fmt: skip
    return train(settings, tmp_path_factory.mktemp("runs") / "run", console=False)[0]


def test_seats_and_opponents_rotate():
    assert rotating_seats(4, 3).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 1]]
    assert rotating_seats(6, 3, players=3).tolist() == [
        [0, 1, 2], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1], [2, 1, 0],
    ]  # fmt: skip


def test_won_means_the_only_highest_return():
    seating = rotating_seats(5, 3)
    returns = np.array([[3, 1, 2], [3, 1, 2], [2, 1, 2], [0.5, 0.5, 0.5], [0, 1, 0]])
    found = outcomes(returns, seating)
    mine = [3, 1, 2, 0.5, 1]  # won, lost, tied, tied, won
    mean, interval = mean_interval(mine)
    assert (found["return_mean"], found["return_interval"]) == (mean, list(interval))
    assert (found["games"], found["won"], found["tied"]) == (5, 0.4, 0.4)
    assert found["lost"] == pytest.approx(0.2)
    assert found["won_interval"] == list(fraction_interval(2, 5)[1])
    with pytest.raises(ValueError, match="player 1 has \\[2\\] seats a game; wanted 1"):
        outcomes(returns, seating, player=1)


def test_each_seat_is_played_by_its_player():
    """One throw in one seat loses to the throw of the two others in each of ten rounds, wherever it sits."""
    settings, seating = {"noise": 0.0, "end": 0.0}, rotating_seats(6, 3)
    returns = play_episodes((Always(0), Always(1)), THROWS, 6, seed=0, settings=settings, seating=seating).returns
    assert returns.tolist() == np.where(seating == 0, -20.0, 10.0).tolist()
    found = play_against(Always(1), Always(0), THROWS, 6, seed=0, settings=settings)
    assert (found["won"], found["return_mean"], found["length_mean"]) == (1.0, 20.0, 10.0)


def test_each_player_decides_only_for_its_rows():
    one, other = Always(0), Always(1)
    play_against(one, other, THROWS, 7, seed=0, settings={"noise": 0.0})
    assert set(one.asked) == {7}
    assert set(other.asked) == {14}
    third = Always(2)
    play_against(one, (other, third), THROWS, 6, seed=0)
    assert set(third.asked) == {6}


def test_games_beyond_one_batch_keep_their_seats(monkeypatch):
    whole = play_against(Always(0), Always(1), THROWS, 9, seed=0, settings={"noise": 0.0})
    monkeypatch.setattr("mlbits.selfplay.episodes._COPIES_AT_ONCE", 4)
    parts = play_against(Always(0), Always(1), THROWS, 9, seed=0, settings={"noise": 0.0})
    assert (parts["won"], parts["games"]) == (whole["won"], 9)


def test_a_run_meets_a_bot_and_another_run(run, tmp_path, capsys):
    found = evaluate_against(run, "random", 30, seed=2)
    again = play_against(
        load_agent(run)[0], open_guest("random", THROWS, {"noise": 0.0}, "cpu"), THROWS, 30, seed=2,
        settings={"noise": 0.0},
    )  # fmt: skip
    assert found == again | {"episodes": 30, "env_steps": 64, "passed_over": []}
    assert evaluate_against(run, str(run), 6)["games"] == 6
    out = tmp_path / "found.json"
    assert (
        cli.main(["eval", str(run), "--opponents", "random", "--episodes", "30", "--seed", "2", "--json", str(out)])
        == 0
    )
    assert json.loads(out.read_text()) == found
    said = capsys.readouterr().out
    assert f"against random: won {found['won']:.1%}" in said
    assert "30 episodes" in said


def test_opponents_that_do_not_fit_are_refused(run, capsys):
    with pytest.raises(AgentError, match=r"opponents: got ppo, which has not been trained; wanted a bot \(random, "):
        evaluate_against(run, "ppo")
    with pytest.raises(UnknownIdError, match="rando"):
        evaluate_against(run, "rando")
    with pytest.raises(AgentError, match="diplomacy-greedy: got the"):
        evaluate_against(run, "diplomacy-greedy")
    with pytest.raises(ConfigError, match="opponents: mlbits/GridWorld-v0 has one seat"):
        play_against(Always(0), Always(0), "mlbits/GridWorld-v0", 3, seed=0)
    with pytest.raises(ConfigError, match="episodes: got 0"):
        play_against(Always(0), Always(0), THROWS, 0, seed=0)
    with pytest.raises(ConfigError, match="trained on the observation space"):
        open_guest(str(run), "mlbits/GridWorld-v0", None, "cpu")
    assert cli.main(["eval", str(run), "--opponents", "random", "--gif", "x.gif"]) == 2
    assert "cannot be used with --opponents" in capsys.readouterr().err


# Bots in training


def test_a_run_may_meet_bots_in_a_fraction_of_its_copies():
    run = {"num_envs": 12, "opponents": ("random",), "opponent_fraction": 0.5, "device": "cpu"}
    lineup = open_session(resolve("ppo", THROWS, preset="none", run=run, agent_settings={"num_steps": 8})).lineup
    assert len(lineup.players) == 2
    assert lineup.seating[:6].tolist() == rotating_seats(6, 3).tolist()
    assert not lineup.seating[6:].any()  # self-play


def test_opponents_in_training_that_do_not_fit_are_refused():
    for agent, env, names, error, said in (
        ("ppo", THROWS, ("ppo",), AgentError, "opponents: got ppo, which has not been trained"),
        ("ppo", THROWS, ("rando",), UnknownIdError, "rando"),
        ("ppo", "mlbits/GridWorld-v0", ("random",), ConfigError, "opponents: mlbits/GridWorld-v0 has one seat"),
    ):
        with pytest.raises(error, match=said):
            open_session(resolve(agent, env, preset="none", run={"opponents": names, "device": "cpu"}))
    with pytest.raises(ConfigError, match="opponent_fraction: got 2"):
        resolve("ppo", THROWS, run={"opponent_fraction": 2.0})
