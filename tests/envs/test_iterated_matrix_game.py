"""IteratedMatrixGame: observations of each seat, lengths of episodes, and bad settings."""

import itertools

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.matrix_game import payoff_table

ID = "mlbits/IteratedMatrixGame-v0"
COOPERATE, DEFECT = 0, 1


def test_a_game_of_tit_for_tat_against_a_defector():
    """Tit for tat from the observation only: the last digit of the joint action is the other's."""
    batch = mlbits.make_batch(ID, 1, rounds=4, autoreset="disabled")
    assert batch.obs[0].tolist() == [[4, 0, 0], [4, 0, 1]]
    total, seen = np.zeros(2), []
    for _ in range(4):
        joint = int(batch.obs[0, 0, 0])
        copies = COOPERATE if joint == 4 else joint % 2
        step = batch.step(torch.tensor([[copies, DEFECT]]))
        total += step.reward[0].numpy()
        seen.append(batch.obs[0].tolist())
    assert total.tolist() == [0 + 1 + 1 + 1, 5 + 1 + 1 + 1]
    assert seen[0] == [[1, 1, 0], [2, 1, 1]]  # own action first: seat 0 was defected on, seat 1 defected
    assert seen[1:] == [[[3, k, 0], [3, k, 1]] for k in (2, 3, 4)]
    assert (bool(step.terminated[0]), bool(step.truncated[0])) == (True, False)


def test_every_joint_action_of_three_seats_is_seen_from_each_as_its_digits():
    payoffs = np.random.default_rng(0).integers(-9, 9, (3, 2, 3, 2))
    joints = list(itertools.product(range(2), range(3), range(2)))
    batch = mlbits.make_batch(ID, len(joints), payoffs=payoffs)
    step = batch.step(torch.tensor(joints))
    assert batch.observation_space.nvec.tolist() == [28, 11, 3]
    for b, (x, y, z) in enumerate(joints):
        assert step.obs[b, :, 0].tolist() == [9 * x + 3 * y + z, 9 * y + 3 * z + x, 9 * z + 3 * x + y]
        assert step.reward[b].tolist() == payoffs[:, x, y, z].tolist()
    assert batch.legal_mask[0].tolist() == [[True, True, False], [True, True, True], [True, True, False]]


def test_it_ends_after_its_rounds_and_is_reset():
    batch = mlbits.make_batch(ID, 2, rounds=3)
    ends = []
    for _ in range(6):
        step = batch.step(torch.zeros((2, 2), dtype=torch.int64))
        ends.append(bool(step.terminated.all()))
    assert ends == [False, False, True] * 2
    assert step.final_obs[0, 0].tolist() == [0, 3, 0]
    assert batch.obs[0, 0].tolist() == [4, 0, 0]


@pytest.mark.parametrize(("continuation", "rounds"), [(0.75, None), (0.5, None), (0.9, 4), (0.0, None)])
def test_it_continues_with_the_given_probability(continuation, rounds):
    copies = 20_000
    settings = {"rounds": rounds, "continuation": continuation}
    batch = mlbits.make_batch(ID, copies, autoreset="disabled", seed=3, threads=1, **settings)
    going, k = copies, 0
    while going > 500 and k < 5:
        k += 1
        step = batch.step(torch.zeros((copies, 2), dtype=torch.int64))
        left = int((~step.terminated).sum())
        stay = 0.0 if k == rounds else continuation
        assert abs(left - stay * going) <= 5 * np.sqrt(going * stay * (1 - stay))
        going = left
    if rounds is None:
        assert batch.observation_space.nvec.tolist() == [5, 1, 2]
        assert not batch.obs[:, :, 1].any()


def test_the_seat_may_be_hidden():
    batch = mlbits.make_batch(ID, 1, see_seat=False)
    assert batch.obs[0].tolist() == [[4, 0, 0]] * 2
    assert batch.observation_space.nvec.tolist() == [5, 11, 1]


def test_an_episode_pays_the_sum_of_its_rounds():
    batch = mlbits.make_batch(ID, 50, payoffs="battle_of_the_sexes", rounds=5, seed=4, autoreset="disabled")
    table, total, wanted = payoff_table("battle_of_the_sexes"), np.zeros((50, 2)), np.zeros((50, 2))
    for _ in range(5):
        actions = batch.sample_actions()
        total += batch.step(actions).reward.numpy()
        wanted += table[:, actions[:, 0], actions[:, 1]].T
    assert np.array_equal(total, wanted)


def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, autoreset="disabled")
    assert batch.render("ansi") == "round 0 of 10\n2 seats, nothing played\n"
    before = batch.render()
    batch.step(torch.tensor([[1, 0]]))
    assert batch.render("ansi") == "round 1 of 10\nseat 0: defect, paid 5\nseat 1: cooperate, paid 0\n"
    assert before.shape == batch.render().shape
    assert (batch.render() != before).any()
    endless = mlbits.make_batch(ID, 1, rounds=None, continuation=0.5)
    assert endless.render("ansi").startswith("round 0\n")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds: got 0; wanted an integer from 1 to 1000000"),
        ({"rounds": 2.5}, "rounds: got 2.5"),
        ({"rounds": None}, "rounds: got None with continuation 1, which never ends"),
        ({"continuation": 1.5}, "continuation: got 1.5; wanted a finite number from 0 to 1"),
        ({"continuation": float("nan")}, "continuation: got nan"),
        ({"payoffs": "go"}, "payoffs: got 'go'; wanted one of"),
        ({"payoffs": np.zeros((3, 2, 2))}, r"payoffs: got shape \(3, 2, 2\)"),
        ({"payoffs": [[0.0] * 2000]}, "payoffs: got 4000000 joint actions to observe; wanted at most 1048576"),
        ({"see_seat": None}, "see_seat: got None"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
