"""Replays that other commands write: of a game in the terminal, of an evaluation, of a tournament."""

import pytest

from mlbits.cli import main
from mlbits.evals.head_to_head import play_against
from mlbits.evals.replays.checking import check_replay
from mlbits.evals.replays.page import write_page
from mlbits.evals.replays.recording import Watcher
from tests.evals.play.test_terminal import TINY, TTT, First, talk


def test_a_game_in_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr("mlbits.evals.play.guests.open_guest", lambda *words, **more: First())
    file = tmp_path / "mine.html"
    said, _ = talk("b2\nundo\nc1\nc2\n", against=("random",), replay=file)
    assert said.endswith(f"replay: {file}\n")
    replay, differences = check_replay(file)
    told = [next(iter(step.said.values())).name for step in replay.steps]
    assert not differences and replay.names == ["person", "random"] and told == ["c1", "a1", "c2", "b1"]


def test_the_first_of_many_games(tmp_path):
    watcher = Watcher(["one", "two"], TTT, None, 3)
    found = play_against(First(), First(), TTT, 4, seed=3, watcher=watcher)
    replay, differences = check_replay(write_page(watcher.replay, tmp_path / "game.html"))
    assert not differences and replay.names == ["one", "two"] and replay.end == "terminated"
    assert found["games"] == 4 and len(replay.steps) == found["length_mean"]


@pytest.mark.slow
def test_an_evaluation_and_a_tournament(tmp_path, capsys):
    run, first, best = str(tmp_path / "run"), tmp_path / "first.html", tmp_path / "best.html"
    assert main(["train", "ppo", TTT, *TINY, "--agent.hidden", "8", "--out", run]) == 0
    assert main(["eval", run, "--episodes", "3", "--replay", str(first)]) == 0
    replay, differences = check_replay(first)
    assert not differences and replay.names == ["run", "run"] and replay.steps[0].said[0].value is not None
    words = ["tournament", run, "random", "--games", "2", "--out", str(tmp_path / "t"), "--replay", str(best)]
    assert main(words) == 0
    replay, differences = check_replay(best)
    assert not differences and sorted(replay.names) == ["random", "run"]
    assert main(["eval", run, "--episodes", "3", "--replay", "nowhere/x.html"]) == 2
    assert "--replay: nowhere/x.html cannot be written" in capsys.readouterr().err
