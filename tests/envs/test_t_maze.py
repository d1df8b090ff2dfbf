"""TMaze: both turns by hand for both cues, what is seen on the way, exact values, and bad settings."""

import pytest
import torch

import mlbits
from mlbits.agents.planning.dynamic_programming import backward_induction
from mlbits.envs.core.errors import GameError
from mlbits.envs.exact.transition_table import read_table
from mlbits.envs.t_maze import DOWN, LEFT, RIGHT, UP

ID = "mlbits/TMaze-v0"


def play(batch, action):
    """Observation, reward, terminated and truncated of copy 0."""
    found = batch.step(torch.full((batch.num_envs,), action))
    return (
        int(found.obs[0, 0]),
        round(float(found.reward[0, 0]), 6),
        bool(found.terminated[0]),
        bool(found.truncated[0]),
    )


def with_cue(cue, **settings):
    """A batch whose copy shows the cue, 1 for up or 2 for down."""
    seed = next(seed for seed in range(50) if int(mlbits.make_batch(ID, 1, seed=seed).obs[0, 0]) == cue)
    return mlbits.make_batch(ID, 1, seed=seed, autoreset="disabled", **settings)


@pytest.mark.parametrize("cue", [1, 2])
@pytest.mark.parametrize("turn", [UP, DOWN])
def test_only_the_turn_that_the_cue_told_pays(cue, turn):
    batch = with_cue(cue, length=3)
    assert [play(batch, RIGHT) for _ in range(3)] == [(0, 0, False, False), (0, 0, False, False), (3, 0, False, False)]
    told = UP if cue == 1 else DOWN
    assert play(batch, turn) == (3, 4.0 if turn == told else -0.1, True, False)
    assert batch.render("ansi").splitlines()[0 if turn == UP else 2] == "    A"
    assert batch.render("ansi").splitlines()[1] == ("^...." if cue == 1 else "v....")


def test_walls_cost_and_the_cue_can_be_seen_again_at_the_start():
    batch = with_cue(2, length=2)
    assert [play(batch, action) for action in (LEFT, UP, DOWN)] == [(2, -0.1, False, False)] * 3
    assert play(batch, RIGHT) == (0, 0, False, False)
    assert play(batch, UP) == (0, -0.1, False, False)
    assert play(batch, LEFT) == (2, 0, False, False)
    assert [play(batch, RIGHT)[0] for _ in range(2)] == [0, 3]
    assert play(batch, RIGHT) == (3, -0.1, False, False)


def test_cues_are_equally_likely_and_the_corridor_does_not_show_them():
    batch = mlbits.make_batch(ID, 20_000, seed=1)
    assert abs(float((batch.obs == 1).float().mean()) - 0.5) < 0.02
    assert set(batch.obs.flatten().tolist()) == {1, 2}
    batch.step(torch.full((20_000,), RIGHT))
    assert set(batch.obs.flatten().tolist()) == {0}


def test_the_optimum_is_the_one_that_is_stated():
    """For a planner who sees the cue; and for one who turns the same way always."""
    game = mlbits.make_game(ID, length=4)
    table = read_table(game)
    solution = backward_induction(table)
    assert float(table.start @ solution.value) == pytest.approx(game.layout["optimal_return"])
    batch = mlbits.make_batch(ID, 4000, seed=1, length=4)
    returns = torch.zeros(4000)
    for action in [RIGHT] * 4 + [UP]:
        returns += batch.step(torch.full((4000,), action)).reward[:, 0]
    assert abs(float(returns.mean()) - 1.95) < 0.2


def test_the_time_limit_truncates():
    batch = with_cue(1, length=2, horizon=4)
    assert [play(batch, LEFT)[3] for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length: got 0; wanted an integer from 1 to 10000"),
        ({"length": 2.0}, "length: got 2.0"),
        ({"length": 10, "horizon": 10}, "horizon: got 10 for a corridor of length 10; wanted at least 11"),
        ({"horizon": True}, "horizon: got True"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
