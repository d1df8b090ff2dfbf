"""Matches: people in any seat of any environment; what is hidden, what is undone, and keys in real time."""

import numpy as np
import pytest

from mlbits.evals.play.config import PlayError
from mlbits.evals.play.match import Match, seat_names
from mlbits.evals.play.view import held, hints, pace, view
from tests.evals.play.test_terminal import GOOF, TTT, First


def test_a_wrapped_environment_is_played_undone_and_played_again():
    match = Match("CartPole-v1", {}, people=(0,), opponents={}, seed=4)
    start = match.batch.obs.clone()
    shown = view(match, 0)
    assert shown["yours"] and shown["slots"][0]["choices"] == [[0, "0", []], [1, "1", []]] and not shown["shapes"]
    assert shown["picture"]["kind"] == "webp" and pace(match) == 50
    seen = []
    for action in (0, 1, 1):
        seen.append(match.batch.obs.clone())
        match.choose(0, match.turn, [action])
    match.undo(0, match.turn)
    assert np.array_equal(match.batch.obs, seen[2]) and len(match.replay.steps) == 2 == len(match.log)
    match.undo(0, match.turn)
    match.undo(0, match.turn)
    assert np.array_equal(match.batch.obs, start) and match.returns == [0]
    with pytest.raises(PlayError, match="nothing to take back"):
        match.undo(0, match.turn)
    with pytest.raises(Exception, match="no trained agent"):
        hints(match, 0, None)


def test_a_move_among_several_people_can_be_taken_back_before_all_have_chosen():
    match = Match(GOOF, {"cards": 3}, people=(0, 1), opponents={})
    match.choose(0, 0, [2])
    assert match.waiting == [1]
    match.undo(0, match.turn)
    assert match.waiting == [0, 1] and match.turn == 2
    match.choose(1, 2, [0])
    match.choose(0, 3, [1])
    assert match.log == ["person (seat 0) plays 2, person (seat 1) plays 1"]


def test_what_is_to_be_found_out_is_not_shown_before_the_end():
    match = Match("mlbits/Bandit-v0", {"arms": 3}, people=(0,), opponents={}, seed=1)
    shown = view(match, 0)
    assert shown["picture"] is None and shown["text"].startswith("observation:")
    assert str(match.batch.render("ansi")) not in str(shown)
    while not match.over:
        match.choose(0, match.turn, [1])
    assert view(match, 0)["picture"] is not None and view(match, 0)["text"] == match.batch.render("ansi")


class Continuous:
    """As far as keys ask: a game with a continuous action of two parts."""

    def __init__(self):
        self.batch = self
        self.action = self
        self.kind, self.low, self.high = "continuous", np.float32([-1, -2]), np.float32([1, 3])


@pytest.mark.parametrize(
    ("keys", "action"),
    [
        ([], [0, 0]), (["ArrowLeft"], [-1, 0]), (["ArrowRight", "ArrowUp"], [1, 3]), (["ArrowDown", "x"], [0, -2]),
        (["ArrowLeft", "ArrowRight"], [0, 0]),
    ],
)  # fmt: skip
def test_arrows_push_continuous_actions_to_their_bounds(keys, action):
    assert held(Continuous(), keys, None) == action


class Discrete(Continuous):
    """A game with named actions."""

    def __init__(self, *names):
        super().__init__()
        self.kind, self.names = "discrete", names

    def slots(self, seat):
        from mlbits.evals.replays.decisions import Slot

        return [Slot("", dict(enumerate(self.names)))]


@pytest.mark.parametrize(
    ("names", "keys", "last", "action"),
    [
        (("left", "right"), ["ArrowRight"], None, 1), (("left", "right"), [], [1], 1), (("left", "right"), [], None, 0),
        (("left", "stay", "right"), [], [2], 1), (("left", "stay", "right"), ["ArrowLeft", "ArrowRight"], [1], 2),
        (("0", "1", "2"), ["2"], None, 2), (("0", "1", "2"), ["z"], [2], 0),
        (("up", "down"), ["ArrowDown", "q"], None, 1),
    ],
)  # fmt: skip
def test_keys_name_actions_by_arrows_and_digits(names, keys, last, action):
    assert held(Discrete(*names), keys, last) == [action]


def test_seats_need_players():
    with pytest.raises(PlayError, match="seat: got 2; wanted 0 to 1"):
        Match(TTT, people=(2,), opponents={"first": First()})
    with pytest.raises(PlayError, match="nobody has seat 1"):
        Match(TTT, people=(0,), opponents={})
    assert seat_names(3, {1: "random"}) == ["person (seat 0)", "random", "person (seat 2)"]


def test_illegal_numbers_of_a_continuous_action_are_refused():
    match = Match("Pendulum-v1", {}, people=(0,), opponents={})
    assert view(match, 0)["bounds"] == [[-2, 2]]
    for action in ([], [3], [float("nan")], [0, 0]):
        with pytest.raises(PlayError, match="1 numbers within their bounds"):
            match.choose(0, 0, action)
    match.choose(0, 0, [1.5])
    assert match.log == ["person plays 1.5"]
