"""Catch: paths worked out by hand, the edges, the board that is seen, who can be caught, and bad settings."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import mlbits
from mlbits.envs.core.errors import GameError

ID = "mlbits/Catch-v0"


def placed(ball, **settings):
    """One copy whose ball falls in a column of the test's choice."""
    batch = mlbits.make_batch(ID, 1, autoreset="disabled", **settings)
    state = batch.records()
    state["ball"] = ball
    batch.set_state(torch.from_numpy(state.view(np.uint8).reshape(1, -1).copy()))
    return batch


def play(batch, actions):
    """Rewards, and the flags of the steps, as plain numbers (the batch writes the next step over its tensors)."""
    rewards, ends = [], []
    for action in actions:
        step = batch.step(torch.tensor([action]))
        rewards.append(float(step.reward[0, 0]))
        ends.append((bool(step.terminated[0]), bool(step.truncated[0])))
    return rewards, ends


@pytest.mark.parametrize(
    ("ball", "actions", "reward"),
    [
        (2, [1] * 9, 1), (0, [1] * 9, -1), (0, [0, 0] + [1] * 7, 1), (4, [1] * 7 + [2, 2], 1), (4, [2] * 9, 1),
        (4, [2, 2, 0] + [1] * 6, -1), (0, [0] * 9, 1), (3, [0, 0, 0, 2, 2, 2] + [1] * 3, 1),
    ],
)  # fmt: skip
def test_the_last_step_pays_for_a_paddle_under_the_ball(ball, actions, reward):
    """The paddle starts in column 2 of 5; the ball lands after nine steps; edges hold the paddle."""
    rewards, ends = play(placed(ball), actions)
    assert rewards == [0] * 8 + [reward]
    assert ends == [(False, False)] * 8 + [(True, False)]


def test_the_board_shows_ball_and_paddle():
    batch = placed(1, rows=3, columns=4)
    assert batch.observation_space.shape == (3, 4)
    play(batch, [2])
    assert batch.obs[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    play(batch, [0])  # the ball lands beside the paddle
    assert batch.obs[0, 0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]]


def test_balls_fall_in_all_columns_alike():
    batch = mlbits.make_batch(ID, 5000, seed=3)
    counts = np.bincount(batch.records()["ball"], minlength=5)
    assert (abs(counts - 1000) < 5 * np.sqrt(800)).all()  # five standard deviations


@pytest.mark.parametrize(("rows", "columns", "best"), [(10, 5, 1.0), (2, 5, 0.2), (2, 1, 1.0), (3, 6, 2 * 5 / 6 - 1)])
def test_the_best_return_counts_the_columns_in_reach(rows, columns, best):
    assert mlbits.make_game(ID, rows=rows, columns=columns).layout["optimal_return"] == pytest.approx(best)


def test_text_marks_a_catch():
    batch = placed(1, rows=2, columns=3)
    assert batch.render("ansi") == ".o.\n.=.\n"
    play(batch, [1])
    assert batch.render("ansi") == "...\n.@.\n"


def test_gymnasiums_checker_passes():
    check_env(gym.make(ID).unwrapped)


@pytest.mark.parametrize(("name", "value"), [("rows", 1), ("rows", 101), ("columns", 0), ("columns", 2.5)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(GameError, match=f"^{name}: got {value}"):
        mlbits.make_game(ID, **{name: value})
