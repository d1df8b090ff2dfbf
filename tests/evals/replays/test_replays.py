"""Replays: what they hold, and that a page which does not tell the truth is found out."""

import json
import re

import numpy as np
import pytest

from mlbits.agents.agent import Decision
from mlbits.cli import main
from mlbits.envs.core.trust import NeedsTrust
from mlbits.evals.replays.checking import check_replay, read_replay
from mlbits.evals.replays.decisions import path_of
from mlbits.evals.replays.page import page, write_page
from mlbits.evals.replays.playing import record_replay
from mlbits.evals.replays.recording import webp_text
from mlbits.evals.replays.replay import Pictures, ReplayError
from mlbits.selfplay.runs.saved_agents import open_guest
from tests.evals.play.test_terminal import TTT

GRID = "mlbits/GridWorld-v0"


class Careful:
    """Plays the last legal action, and says what it thinks."""

    experience = object()

    def act(self, obs, legal_mask, generator, *, greedy=False):
        action = legal_mask.shape[1] - 1 - legal_mask.flip(1).int().argmax(1)
        return Decision(action, action, None)

    def action_probabilities(self, obs, legal_mask, *, greedy=False):
        return legal_mask.double() / legal_mask.sum(1, keepdim=True)

    def state_values(self, obs):
        return obs.float().flatten(1).sum(1)


@pytest.fixture(scope="module")
def game():
    return record_replay({"careful": Careful(), "random": open_guest("random", TTT)}, TTT, seed=5)


@pytest.fixture
def file(game, tmp_path):
    return write_page(game, tmp_path / "game.html")


def test_a_replay_holds_the_game_and_what_was_thought_of_it(game):
    assert game.names == ["careful", "random"] and game.end == "terminated" and game.settings == {}
    assert sorted(game.returns()) == [-1, 1] or game.returns() == [0, 0]
    first = game.steps[0]
    assert first.actions[0] == 8 and list(first.said) == [0] and first.said[0].name == "c3"
    assert first.said[0].chances[0][1] == pytest.approx(1 / 9, abs=1e-4) and len(first.said[0].chances) == 9
    assert first.said[0].value == 9.0  # nine ones: it is its turn
    assert [list(step.said) for step in game.steps[:4]] == [[0], [1], [0], [1]]
    assert len(game.frames) == len(game.steps) + 1 == len(game.pictures.list)


def test_a_true_replay_is_true_and_survives_reading(game, file):
    replay, differences = check_replay(file)
    assert differences == [] and replay == game


def changed(text, change):
    """The page with its data changed, as somebody would who knows how it is written."""
    found = re.search(r'(id="replay">)(.*?)(</script>)', text, re.S)
    data = json.loads(found[2])
    change(data)
    return text.replace(found[2], json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))


def move(data):
    data["steps"][0]["actions"][0] = 0


def name(data):
    data["steps"][1]["said"]["1"]["name"] = "z9"


def reward(data):
    data["steps"][-1]["rewards"] = [5.0, -5.0]


def end(data):
    data["end"] = "truncated"


def unfinished(data):
    data["steps"].pop()
    data["frames"].pop()


def actor(data):
    data["steps"][0]["said"]["1"] = data["steps"][0]["said"]["0"]


def picture(data):
    data["frames"][1] = data["frames"][2]


def drawn(data):
    data["pictures"]["parts"][1] = webp_text(np.zeros((4, 4, 3), np.uint8))


def more(data):
    data["steps"].append(data["steps"][0])
    data["frames"].append(0)


def setting(data):
    data["seed"] = 6
    data["env"] = GRID


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (move, "step 0: seat 0 plays 'a1', not 'c3'"), (name, "not 'z9'"), (reward, "the rewards are"),
        (end, "the game is terminated, not truncated"), (unfinished, "the game is unfinished, not terminated"),
        (actor, "seats [0] act, not [0, 1]"), (picture, "pictures differ from those drawn now: steps 1"),
        (drawn, "pictures differ"), (more, "the game had ended before it"), (setting, "it has 2 seats; the game has 1"),
    ],
)  # fmt: skip
def test_what_is_not_true_is_named(change, said, file, capsys):
    file.write_text(changed(file.read_text(), change))
    assert main(["replay", "--check", str(file)]) == 1
    assert said in capsys.readouterr().out


def test_a_page_around_the_game_that_was_changed_is_found(file):
    file.write_text(file.read_text().replace("<header>", "<header><p>seat 0 won</p>"))
    assert check_replay(file)[1][0].startswith("the page around the game is not what this version writes")


def cut(text):
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "holds no replay"),
        (lambda text: "<html></html>", "holds no replay"),
        (lambda text: changed(text, lambda data: data.update(format="other")), "no replay of mlbits"),
        (lambda text: changed(text, lambda data: data.update(version=99)), "version: got 99; wanted 1"),
        (lambda text: changed(text, lambda data: data.update(seed=-1)), "seed: got '-1'"),
        (lambda text: changed(text, lambda data: data["frames"].pop()), "frames: got"),
        (lambda text: changed(text, lambda data: data["steps"][2].update(rewards=["x", 1])), "step 2: rewards"),
        (lambda text: changed(text, lambda data: data["steps"][2].pop("said")), "step 2: said: got 'none'"),
        (lambda text: changed(text, lambda data: data.update(env="mlbits/TikTakToe-v0")), "its game cannot be played"),
        (lambda text: changed(text, lambda data: data.update(settings={"size": 9})), "its game cannot be played"),
        (lambda text: text.replace('"settings":{}', '"settings":{"seed":NaN}'), "its game cannot be played"),
    ],
)
def test_foreign_and_damaged_pages_are_refused(damage, said, file, capsys):
    file.write_text(damage(file.read_text()))
    assert main(["replay", "--check", str(file)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_files_that_are_no_pages_are_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "bytes").write_bytes(b"\x89PNG\xf4\x00")
    (tmp_path / "folder").mkdir()
    for name, said in (("bytes", "is no text; wanted a page"), ("folder", "Is a directory"), ("none", "not found")):
        assert main(["replay", "--check", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {tmp_path / name}: {said}")


@pytest.mark.parametrize("actions", [[0], [99, 0], [0.5, 0], ["a", 0], [[0], [0]], [None, 0], [1e400, 0], [-1, 0]])
def test_actions_that_are_none_are_named(actions, file):
    file.write_text(changed(file.read_text(), lambda data: data["steps"][0].update(actions=actions)))
    try:
        assert any("are no actions of" in line for line in check_replay(file)[1])
    except ReplayError as error:
        assert "step 0: actions" in str(error)


def test_a_replay_imports_no_module_and_reads_no_file_that_it_names(file, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    whole = file.read_text()
    for change in (
        {"env": "os_is_not_this:x/Y-v0"},
        {"settings": {"map": str(secret)}},
        {"settings": {"map": {"a": [str(secret)]}}},
    ):
        file.write_text(changed(whole, lambda data, change=change: data.update(change)))
        with pytest.raises(NeedsTrust, match="trust"):
            check_replay(file)


def test_names_are_text_and_the_policy_is_strict(game, tmp_path):
    game = read_replay(write_page(game, tmp_path / "a.html"))[0]
    game.names = ["</script><script>alert(1)</script>", "<b>"]
    text = page(game)
    assert "<script>alert(1)" not in text and text.count("<script") == 2
    policy = re.search(r'content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy
    assert "http" not in re.sub(r'id="replay">.*?</script>', "", text, flags=re.S).replace("http-equiv", "")


def test_pictures_and_their_parts_are_stored_once():
    pictures = Pictures("svg")
    assert [pictures.add(parts) for parts in (("a", "b"), ("a", "c"), ("a", "b"))] == [0, 1, 0]
    assert pictures.parts == ["a", "b", "c"] and pictures.list == [[0, 1], [0, 2]] and pictures.of(1) == ("a", "c")


def test_places_to_click_are_found_in_names():
    shapes = dict.fromkeys(["e2", "e4", "BUR", "PAR", "MAR", "10"], "")
    assert path_of("e2e4", shapes) == ("e2", "e4") == path_of("e2e4n", shapes)
    assert path_of("A PAR S A MAR - BUR", shapes) == ("PAR", "MAR", "BUR")
    assert path_of("10", shapes) == ("10",) and path_of("pass", shapes) == () and path_of("x9y9", shapes) == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "RUN or ENV missing"),
        ([TTT, "--out", "game.txt"], "wanted a file name that ends in .html"),
        ([TTT, "--out", "nowhere/game.html"], "its folder does not exist"),
        ([TTT, "--against", "random", "random"], "against: got 2 players; wanted at most 1"),
        ([TTT, "--check", "game.html"], "cannot be used with"),
        (["--check", "nothing.html"], "nothing.html: not found"),
        (["mlbits/TikTakToe-v0"], "did you mean"),
    ],
)
def test_mistakes_are_refused(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["replay", *words]) == 2
    assert said in capsys.readouterr().err


def test_wrapped_environments_have_replays(tmp_path, capsys):
    file = tmp_path / "taxi.html"
    assert main(["replay", "CartPole-v1", "--seed", "4", "--out", str(file)]) == 0
    assert main(["replay", "--check", str(file)]) == 0
    assert "CartPole-v1, seed 4" in capsys.readouterr().out
    replay = read_replay(file)[0]
    assert replay.frames_per_second == 50 and len(replay.pictures.list) > 9
    file.write_text(changed(file.read_text(), lambda data: data.update(seed=5)))
    assert check_replay(file)[1]
