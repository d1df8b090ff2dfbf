"""Worlds: a level of its own in every lifetime, renewed while the batch runs, and resumed exactly."""

import numpy as np
import pytest
import torch

from mlbits.agents.planning.dynamic_programming import value_iteration
from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.exact.transition_table import read_table
from mlbits.envs.levels.collect_objects import HELD_OUT
from mlbits.envs.levels.worlds import Worlds, make_worlds, read_mixture

LONG_LEVEL = 4  # whose episodes have 88 steps
SHARES = {"small": 5, "medium": 3, "chain_long": 2}


def actions_of(worlds, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(worlds.num_actions, (steps, worlds.batch.num_envs), generator=generator)


def played(worlds, steps=30, seed=0):
    """Everything that a batch shows over some steps, as numbers."""
    shown = []
    for actions in actions_of(worlds, steps, seed):
        step = worlds.batch.step(actions)
        shown += [step.obs.clone(), step.reward.clone(), step.terminated.clone(), step.truncated.clone()]
    return torch.cat([part.double().reshape(-1) for part in shown])


def test_each_lifetime_plays_its_own_level_as_a_batch_of_that_level_alone():
    worlds = Worlds("small", lifetimes=5, copies=3, seed=11)
    assert worlds.level_numbers.unique().numel() == 5
    chosen = actions_of(worlds, 60)
    alone = [GameBatch(worlds.game(lifetime), 15, seed=11) for lifetime in range(5)]
    # A copy's random stream belongs to (seed, number of the copy), whatever the others play.
    for batch in alone:
        batch.reset()  # as the levels were handed out by a reset
    for actions in chosen:
        step = worlds.batch.step(actions)
        for lifetime, batch in enumerate(alone):
            mine = slice(3 * lifetime, 3 * lifetime + 3)
            other = batch.step(actions)
            for got, wanted in zip(step[:4], other[:4], strict=True):
                assert torch.equal(got[mine], wanted[mine])


def test_renewing_changes_only_the_lifetimes_that_are_renewed():
    worlds, same = (Worlds("medium", 4, 2, seed=1) for _ in range(2))
    assert torch.equal(played(worlds), played(same))
    numbers = worlds.level_numbers.clone()
    worlds.renew(torch.tensor([2, 0]))
    assert (worlds.level_numbers != numbers).tolist() == [True, False, True, False]
    copies = torch.tensor([2, 3, 6, 7])
    for actions in actions_of(worlds, 20, seed=2):
        mine, theirs = worlds.batch.step(actions), same.batch.step(actions)
        for got, wanted in zip(mine[:4], theirs[:4], strict=True):
            assert torch.equal(got[copies], wanted[copies])
    assert worlds.batch.horizon == int(worlds.batch.copies.params["horizon"].max())


def test_the_levels_follow_from_seed_lifetime_and_renewals():
    at_once, apart = Worlds("small", 3, 1, seed=5), Worlds("small", 3, 1, seed=5)
    at_once.renew()
    at_once.renew()
    for lifetime in (2, 0, 1, 0, 1, 2):
        apart.renew(torch.tensor([lifetime]))
    assert torch.equal(at_once.level_numbers, apart.level_numbers)
    assert not torch.equal(at_once.level_numbers, Worlds("small", 3, 1, seed=6).level_numbers)
    fewer = Worlds("small", 200, 1, seed=5, num_levels=4)
    assert sorted(fewer.level_numbers.unique().tolist()) == [0, 1, 2, 3]


def test_training_and_held_out_numbers_are_disjoint():
    train, held_out = (Worlds("small", 300, 1, split=split).level_numbers for split in ("train", "held-out"))
    assert train.min() >= 0 and train.max() < HELD_OUT <= held_out.min() and held_out.max() < 2 * HELD_OUT
    with pytest.raises(GameError, match=rf"numbers\[0\]: got {HELD_OUT}; wanted a number of the train levels"):
        Worlds("small", 1, 1, numbers=[HELD_OUT])
    with pytest.raises(GameError, match=r"numbers\[0\]: got 7; wanted a number of the held-out levels"):
        Worlds("small", 1, 1, split="held-out", numbers=[7])


@pytest.mark.parametrize(
    "levels", ["small", "chain_short_noisy", pytest.param("scattered_small", marks=pytest.mark.slow)]
)
def test_a_saved_state_continues_exactly(levels):
    worlds = Worlds(levels, 3, 2, seed=4)
    played(worlds)
    worlds.renew(torch.tensor([1]))
    played(worlds, 7)
    saved = {name: part.clone() for name, part in worlds.state().items()}
    wanted = [played(worlds), worlds.renew(torch.tensor([1, 2])), worlds.level_numbers.clone(), played(worlds)]
    other = Worlds(levels, 3, 2, seed=4)
    other.load_state(saved)
    got = [played(other), other.renew(torch.tensor([1, 2])), other.level_numbers.clone(), played(other)]
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine is theirs is None or torch.equal(mine, theirs)


def test_saved_states_that_do_not_fit_are_refused():
    worlds = Worlds("small", 2, 1)
    good = worlds.state()
    for changed, message in [
        ({"level_numbers": torch.tensor([3, HELD_OUT])}, r"numbers\[1\]: got"),
        ({"level_numbers": torch.tensor([3])}, "got 1 for 2 lifetimes"),
        ({"renewals": torch.tensor([0, -1])}, "renewals: got"),
        ({"copies": good["copies"][:1]}, "state: got"),
        ({"copies": torch.full_like(good["copies"], 255)}, "state: copy 0, "),
    ]:
        with pytest.raises(GameError, match=message):
            worlds.load_state({**good, **changed})
    with pytest.raises(GameError, match=r"state: got .*; wanted level_numbers, renewals and copies"):
        worlds.load_state({"copies": good["copies"]})


def test_given_levels_are_played_and_renewed_by_number():
    worlds = Worlds("small", 2, 2, numbers=[9, 9], lifetime=7)
    assert worlds.lifetime_updates.tolist() == [7, 7]
    assert worlds.batch.copies.params[0].tobytes() == worlds.batch.copies.params[3].tobytes()
    with pytest.raises(GameError, match="numbers: got none, but the first levels were given"):
        worlds.renew()
    worlds.renew(torch.tensor([1]), numbers=[3])
    assert worlds.level_numbers.tolist() == [9, 3]
    assert np.array_equal(worlds.batch.copies.params["wall"][2], worlds.game(1).params["wall"][0])


def test_chains_keep_their_correct_action_for_a_lifetime():
    worlds = Worlds("chain_short", 8, 1, seed=2)
    correct = worlds.batch.copies.params["correct_action"].copy()
    assert 0 < correct.sum() < 8
    ends = torch.zeros(8)
    for _ in range(100):
        step = worlds.batch.step(torch.from_numpy(correct.astype(np.int64)))
        assert torch.all(step.reward[step.terminated] == 1)
        ends += step.terminated
    assert ends.min() >= 3
    assert (worlds.num_states, worlds.num_actions) == (61, 2)
    assert Worlds("chain_distraction", 1, 1).num_states is None


def test_mixtures_share_the_lifetimes():
    mixed = make_worlds("small:3, medium:1,chain_long", 10, 2, seed=3, split="held-out")
    assert [(worlds.kind.name, worlds.lifetimes) for worlds in mixed] == [
        ("small", 5),
        ("medium", 3),
        ("chain_long", 2),
    ]
    assert all(worlds.level_numbers.min() >= HELD_OUT for worlds in mixed)
    assert read_mixture("small") == {"small": 1.0}
    for text, error, message in [
        ("smal:2", UnknownIdError, "levels: unknown kind of level 'smal'; did you mean 'small'"),
        ("small:0", GameError, "levels: got the weight '0' of 'small'; wanted a positive number"),
        ("small:x", GameError, "the weight 'x'"),
        ("small,small", GameError, "levels: got 'small' twice"),
    ]:
        with pytest.raises(error, match=message):
            read_mixture(text)
    with pytest.raises(GameError, match="lifetimes: got 1; wanted an integer from 2"):
        make_worlds("small,medium", 1, 1)


def test_bad_arguments_are_refused_by_name():
    for arguments, message in [
        ({"lifetimes": 0}, "lifetimes: got 0"),
        ({"copies": 0}, "copies: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"split": "test"}, "split: got 'test'"),
        ({"lifetime": 0}, "lifetime: got 0"),
        ({"num_levels": 0}, "num_levels: got 0"),
        ({"moves": 3}, "moves: got 3"),
        ({"numbers": [1, 2]}, "numbers: got 2 for 1 lifetimes"),
        ({"levels": "chain_short", "moves": 9}, "moves: got 9 for 'chain_short'"),
    ]:
        with pytest.raises(GameError, match=message):
            Worlds(**{"levels": "small", "lifetimes": 1, "copies": 1, **arguments})
    worlds = Worlds("small", 2, 1)
    for wrong in (torch.tensor([2]), torch.tensor([0, 0]), torch.tensor([0.0])):
        with pytest.raises(GameError, match=r"lifetimes: got .*; wanted a torch.int64 tensor of different numbers"):
            worlds.renew(wrong)


def test_an_exact_model_of_a_level_predicts_its_returns():
    worlds = Worlds("small", 1, 4000, seed=1, numbers=[LONG_LEVEL])
    assert worlds.batch.horizon >= 60
    table = read_table(worlds.game(0))
    solved = value_iteration(table, 0.9)
    index = table.states["cell"].astype(int) + 36 * table.states["present"].astype(int)
    (start,) = np.flatnonzero(table.start)  # one start cell, and all objects there
    assert int(worlds.batch.obs[0, 0]) == index[start]
    best = torch.zeros(worlds.num_states, dtype=torch.int64)
    best[torch.from_numpy(index)] = torch.from_numpy(solved.policy)
    total, going = np.zeros(4000), np.ones(4000, bool)
    for t in range(60):
        step = worlds.batch.step(best[worlds.batch.obs[:, 0].long()])
        total += going * 0.9**t * step.reward[:, 0].numpy()
        going &= ~step.terminated.numpy()
    value = float(solved.value[start])
    assert value > 0.1
    assert abs(total.mean() - value) < 5 * total.std() / np.sqrt(4000) + 0.01 * value  # 0.9**60 is 0.002
