"""BitFlipping: its rules by hand, its goals, and the goal rule that it shares with hindsight."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.bit_flipping import bit_flipping
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.goals import GameGoals

ENV = "mlbits/BitFlipping-v0"


@pytest.fixture(scope="module")
def batch():
    return mlbits.make_batch(ENV, 64, seed=3, bits=13)


def test_flips_rewards_and_ends(batch):
    obs = {key: part[:, 0].clone() for key, part in batch.reset(seed=3).items()}
    assert torch.equal(obs["observation"], obs["achieved_goal"])
    wrong = obs["achieved_goal"] != obs["desired_goal"]
    assert wrong.any(1).all()
    assert 5 < wrong.float().sum(1).mean() < 8
    for t in range(13):
        # Flip the first bit that is wrong.
        step = batch.step(wrong.int().argmax(1)[:, None])
        left = wrong.sum(1) - 1
        reached = left == 0
        assert torch.equal(step.reward[:, 0], torch.where(reached, 0.0, -1.0))
        assert torch.equal(step.terminated, reached)
        if t == 12:
            break
        now = {key: part[:, 0].clone() for key, part in batch.obs.items()}
        again = now["achieved_goal"] != now["desired_goal"]
        going = ~reached
        assert torch.equal(again[going].sum(1), left[going])
        wrong = again


def test_episodes_are_cut_after_as_many_steps_as_bits(batch):
    batch.reset(seed=1)
    cut = torch.zeros(64, dtype=torch.bool)
    for t in range(13):
        step = batch.step(torch.zeros(64, 1, dtype=torch.int64))
        cut = step.truncated & ~step.terminated
        assert not cut.any() or t == 12
    assert cut.any()


def test_a_goal_of_ones_own():
    batch = mlbits.make_batch(ENV, 8, seed=0, bits=5, goal="01101")
    assert batch.obs["desired_goal"][:, 0].tolist() == [[0, 1, 1, 0, 1]] * 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bits": 4, "goal": "011"}, "goal: got '011'; wanted 4 bits, such as '0101'"),
        ({"bits": 3, "goal": "0a1"}, "goal: got '0a1'; wanted 3 bits, such as '010'"),
        ({"bits": 0}, "bits: got 0"),
    ],
)
def test_goals_outside_their_space_are_named(settings, said):
    with pytest.raises(GameError, match=said):
        bit_flipping(**settings)


def test_the_goal_rule_of_many_rows():
    goals = GameGoals(bit_flipping(bits=3))
    achieved = torch.tensor([[0, 1, 1], [0, 1, 0], [1, 1, 1]], dtype=torch.int8)
    reward, ends = goals(achieved, torch.tensor([[0, 1, 1]] * 3, dtype=torch.int8))
    assert (reward.tolist(), ends.tolist()) == ([0.0, -1.0, -1.0], [True, False, False])
    assert (reward.dtype, ends.dtype) == (torch.float32, torch.bool)


def test_a_game_without_goals_is_named():
    with pytest.raises(GameError, match="CartPole: has no goals; wanted a game with a rule goal"):
        GameGoals(mlbits.make_game("mlbits/CartPole-v0"))


def test_the_picture_shows_every_bit():
    game = bit_flipping(bits=2, goal="10")
    state, params = np.zeros(1, game.state_dtype).view(np.recarray), game.params.view(np.recarray)
    state[0].desired[0] = 1
    assert game.text(state[0], params[0]) == "bits 00\ngoal 10\n"
    assert game.draw(state[0], params[0]).shape == (110, 200, 3)
