"""Datasets: rows of steps in episodes, subsets, and what is refused."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.memory.dataset import Dataset, DatasetError, Episode

BOX = spaces.Box(-100.0, 100.0, (2,), np.float32)
MOVES = spaces.Discrete(4)


def numbered(number, steps, *, terminated=True, **other):
    """An episode whose observations and actions say where they belong: (episode, step), and the step modulo 4."""
    obs = np.array([[number, step] for step in range(steps + 1)], np.float32)
    flags = np.arange(steps) == steps - 1
    ends = {"terminated": flags} if terminated else {"truncated": flags}
    return Episode(obs, np.arange(steps) % 4, np.full(steps, float(number)), **ends, **{"seed": number, **other})


def dataset(lengths=(3, 1, 5, 2), **other):
    episodes = [numbered(k, steps, terminated=k % 2 == 0) for k, steps in enumerate(lengths)]
    return Dataset.from_episodes(episodes, BOX, MOVES, name="d", **other)


def test_obs_action_and_next_obs_of_every_step_belong_together():
    data = dataset()
    drawn = data.transitions(torch.arange(data.num_steps))
    episode, step = drawn.obs.long().unbind(1)
    assert episode.tolist() == [0] * 3 + [1] + [2] * 5 + [3] * 2
    assert drawn.next_obs.long().tolist() == torch.stack([episode, step + 1], 1).tolist()
    assert drawn.action.tolist() == (step % 4).tolist()
    assert drawn.reward.tolist() == episode.tolist()


def test_truncated_steps_bootstrap_and_terminated_ones_do_not():
    drawn = dataset().transitions(torch.arange(11), discount=0.5)
    assert drawn.discount.tolist() == [0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.5, 0.5]


def test_sampling_is_uniform_over_steps_and_a_function_of_the_generator():
    data = dataset()
    drawn = data.sample(22_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn.slot, minlength=11)
    assert counts.min() > 1800 and counts.max() < 2200
    assert torch.equal(drawn.slot, data.sample(22_000, torch.Generator().manual_seed(0)).slot)


def test_episodes_are_taken_whole_in_the_order_asked_for_and_may_repeat():
    chosen = dataset().episodes([2, 0, 2])
    assert chosen.lengths.tolist() == [5, 3, 5] and chosen.seeds.tolist() == [2, 0, 2]
    assert chosen.obs[:, 0].tolist() == [2] * 6 + [0] * 4 + [2] * 6
    drawn = chosen.transitions(torch.arange(13))
    assert torch.equal(drawn.next_obs[:, 1], drawn.obs[:, 1] + 1)
    assert chosen.returns.tolist() == [10, 0, 10]


def test_a_split_gives_every_episode_to_one_side():
    data = dataset((1, 2, 3, 4, 5, 6, 7, 8))
    one, other = data.split(0.25, seed=3)
    assert one.num_episodes == 2 and sorted([*one.seeds.tolist(), *other.seeds.tolist()]) == list(range(8))
    assert data.split(0.25, seed=3)[0].seeds.tolist() == one.seeds.tolist()
    assert any(data.split(0.25, seed=s)[0].seeds.tolist() != one.seeds.tolist() for s in range(5))


def test_the_best_episodes_are_those_of_highest_return():
    assert dataset((9, 1, 1, 2)).best(0.5).seeds.tolist() == [2, 3]  # returns 0, 1, 2, 6
    assert dataset().best(0.01).seeds.tolist() == [2]  # returns 0, 1, 10, 6


def test_mixing_shuffles_the_chosen_fractions_of_episodes():
    many, few = dataset([2] * 10), dataset([3] * 4)
    mixed = Dataset.mix([many, few], [0.5, 1.0], seed=1)
    assert sorted(mixed.lengths.tolist()) == [2] * 5 + [3] * 4
    assert mixed.lengths.tolist() != sorted(mixed.lengths.tolist())
    again = Dataset.mix([many, few], [0.5, 1.0], seed=1)
    assert torch.equal(mixed.obs, again.obs) and torch.equal(mixed.starts, again.starts)
    drawn = mixed.transitions(torch.arange(mixed.num_steps))
    assert torch.equal(drawn.next_obs[:, 1], drawn.obs[:, 1] + 1)


def test_mixing_refuses_other_spaces_and_other_environments():
    other = Dataset.from_episodes([numbered(0, 2)], BOX, spaces.Discrete(5), name="e")
    with pytest.raises(DatasetError, match=r"e: action_space: got Discrete\(5\); wanted that of d: Discrete\(4\)"):
        Dataset.mix([dataset(), other])
    with pytest.raises(DatasetError, match="d: env: got B-v0; wanted that of d: A-v0"):
        Dataset.mix([dataset(env="A-v0"), dataset(env="B-v0")])


NESTED = spaces.Dict(
    {
        "b": spaces.Tuple([spaces.Box(0.0, 1.0, (2,), np.float64), spaces.Discrete(4, start=1)]),
        "a": spaces.MultiDiscrete([2, 3]),
    }
)


def test_nested_observations_are_flattened_as_in_the_environments():
    rows = [{"b": (np.array([0.0, 0.1 * k]), k + 1), "a": np.array([k % 2, k])} for k in range(3)]
    obs = {
        "a": [row["a"] for row in rows], "b": ([row["b"][0] for row in rows], [row["b"][1] for row in rows])
    }  # fmt: skip
    data = Dataset.from_episodes([Episode(obs, [0, 1], [0.0, 0.0])], NESTED, MOVES)
    expected = np.stack([spaces.flatten(NESTED, row) for row in rows])
    assert data.observation_space == spaces.Box(
        spaces.flatten_space(NESTED).low.astype(np.float32), spaces.flatten_space(NESTED).high.astype(np.float32)
    )
    np.testing.assert_array_equal(data.obs.numpy(), expected.astype(np.float32))
    obs["b"][1][2] = 5
    with pytest.raises(DatasetError, match=r"bad: episode 0: obs: got 5 at step 2; wanted a value of Discrete\(4"):
        Dataset.from_episodes([Episode(obs, [0, 1], [0.0, 0.0])], NESTED, MOVES, name="bad")
    with pytest.raises(DatasetError, match=r"bad: episode 0: obs\['b'\]\[0\]: missing"):
        Dataset.from_episodes([Episode({"a": obs["a"]}, [0, 1], [0.0, 0.0])], NESTED, MOVES, name="bad")


def test_a_dict_of_plain_spaces_stays_a_dict():
    space = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (2,), np.float64), "n": MOVES})
    data = Dataset.from_episodes([Episode({"x": np.zeros((3, 2)), "n": [3, 2, 1]}, [0, 1], [0.0, 0.0])], space, MOVES)
    assert data.obs["x"].dtype == torch.float32 and data.obs["n"].dtype == torch.int32
    drawn = data.transitions(torch.tensor([1]))
    assert drawn.obs["n"].tolist() == [2] and drawn.next_obs["n"].tolist() == [1]


@pytest.mark.parametrize(
    ("space", "given", "plain", "found"),
    [
        (spaces.Discrete(3, start=5), [7, 5], spaces.Discrete(3), [2, 0]),
        (spaces.MultiDiscrete([[2], [3]]), [[[1], [2]], [[0], [0]]], spaces.MultiDiscrete([2, 3]), [[1, 2], [0, 0]]),
        (spaces.MultiBinary(2), [[1, 0], [0, 1]], spaces.MultiDiscrete([2, 2]), [[1, 0], [0, 1]]),
        (spaces.Box(-1, 1, (1, 2)), [[[0.5, 1.0]], [[0, 0]]], spaces.Box(-1, 1, (2,)), [[0.5, 1.0], [0.0, 0.0]]),
    ],
)
def test_actions_are_converted_as_in_the_environments(space, given, plain, found):
    data = Dataset.from_episodes([Episode(np.zeros((3, 2)), np.array(given), [0.0, 0.0])], BOX, space)
    assert data.action_space == plain and data.action.tolist() == found


def test_an_episode_without_an_end_was_cut_and_bootstraps():
    data = Dataset.from_episodes([Episode(np.zeros((3, 2)), [0, 1], [0.0, 1.0])], BOX, MOVES)
    assert data.truncated.tolist() == [False, True] and not data.terminated.any()


def test_log_probs_masks_and_draws_follow_their_steps():
    extra = [
        {"log_prob": -np.arange(n) - 1.0, "mask": np.ones((n + 1, 4), bool), "draw": 0.5 * np.arange(n)} for n in (2, 3)
    ]
    data = Dataset.from_episodes([numbered(k, k + 2, **more) for k, more in enumerate(extra)], BOX, MOVES)
    chosen = data.episodes([1, 0])
    assert chosen.log_prob.tolist() == [-1, -2, -3, -1, -2] and chosen.draw.tolist() == [0, 0.5, 1, 0, 0.5]
    drawn = chosen.transitions(torch.tensor([4]))
    assert drawn.mask.shape == drawn.next_mask.shape == (1, 4)


BAD = {
    "reward": (
        lambda e: e._replace(reward=[0.0, np.nan, 0.0]),
        r"episode 1: reward: got nan at step 1; wanted finite",
    ),
    "obs": (lambda e: e._replace(obs=np.where(e.obs == 3, np.inf, e.obs)), r"episode 1: obs: got \[.*inf\] at step 3"),
    "huge": (lambda e: e._replace(reward=[0.0, -1e20, 0.0]), r"episode 1: reward: got -1.*e\+20 at step 1; wanted f"),
    "log_prob": (lambda e: e._replace(log_prob=[0.0, -np.inf, 0.0]), r"episode 1: log_prob: got -inf at step 1"),
    "T obs": (
        lambda e: e._replace(obs=e.obs[:-1]),
        r"episode 1: obs: got 3 rows; wanted 4, one more than steps",
    ),
    "ragged": (
        lambda e: e._replace(obs=[[0, 0], [0], [0, 0], [1, 1]]),
        r"episode 1: obs: got rows of different lengths",
    ),
    "short": (lambda e: e._replace(action=[0, 1]), r"episode 1: action: got 2 rows; wanted 3, as many as steps"),
    "width": (lambda e: e._replace(obs=np.zeros((4, 5))), r"episode 1: obs: got shape \[5\] per step; wanted \[2\]"),
    "outside": (
        lambda e: e._replace(action=[0, 4, 0]),
        r"episode 1: action: got 4 at step 1; wanted an action of Discre",
    ),
    "float": (lambda e: e._replace(action=[0.0, 0.5, 1.0]), r"episode 1: action: got float64; wanted int64"),
    "missing": (lambda e: e._replace(reward=None), r"episode 1: reward: missing"),
    "early": (
        lambda e: e._replace(terminated=[True, False, True]),
        r"episode 1: terminated or truncated: got True at s",
    ),
    "empty": (lambda e: Episode(np.zeros((1, 2)), [], []), r"episode 1: reward: got 0 steps"),
    "illegal": (
        lambda e: e._replace(mask=np.zeros((4, 4), bool)),
        r"episode 1: action: got 0 at step 0; wanted a legal",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_is_wrong_is_refused_with_dataset_episode_and_field(fault):
    change, message = BAD[fault]
    more = {"log_prob": np.zeros(3)} if fault == "log_prob" else {}
    more = {"mask": np.ones((4, 4), bool)} if fault == "illegal" else more
    episodes = [numbered(0, 3, **more), numbered(1, 3, **more), numbered(2, 3, **more)]
    assert Dataset.from_episodes(episodes, BOX, MOVES).num_episodes == 3
    episodes[1] = change(episodes[1])
    with pytest.raises(DatasetError, match="^bad: " + message):
        Dataset.from_episodes(episodes, BOX, MOVES, name="bad")


def test_observations_that_are_indices_are_checked_against_their_space():
    rows = [Episode([0, 5, 1], [0, 0], [0.0, 0.0])]
    with pytest.raises(DatasetError, match=r"bad: episode 0: obs: got 5 at step 1; wanted a value of Discrete\(3\)"):
        Dataset.from_episodes(rows, spaces.Discrete(3), MOVES, name="bad")


def test_continuous_actions_outside_the_bounds_are_refused_and_those_on_them_are_not():
    space = spaces.Box(np.array([-0.1]), np.array([0.1]), dtype=np.float64)
    rows = [Episode(np.zeros((3, 2)), [[-0.1], [0.1]], [0.0, 0.0])]
    assert Dataset.from_episodes(rows, BOX, space).action.dtype == torch.float32
    rows[0] = rows[0]._replace(action=[[-0.1], [0.2]])
    with pytest.raises(DatasetError, match=r"episode 0: action: got \[0.2\d*\] at step 1"):
        Dataset.from_episodes(rows, BOX, space)


def test_a_field_that_only_some_episodes_have_is_missing():
    rows = [numbered(0, 2, log_prob=[0.0, 0.0]), numbered(1, 2)]
    with pytest.raises(DatasetError, match="dataset: episode 1: log_prob: missing; the episodes before it have it"):
        Dataset.from_episodes(rows, BOX, MOVES)


def test_arrays_given_directly_are_checked_too():
    data = dataset()
    with pytest.raises(DatasetError, match=r"d: obs: got shape \[11, 2\]; wanted \[15, 2\]"):
        dataclasses.replace(data, obs=data.obs[:11])
    with pytest.raises(DatasetError, match="d: starts: wanted ascending numbers of first steps from 0 to 11"):
        dataclasses.replace(data, starts=data.starts[:-1])


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Graph(MOVES, MOVES)])
def test_spaces_that_agents_do_not_support_are_named(space: gym.Space):
    with pytest.raises(DatasetError, match="bad: observation_space: got"):
        Dataset.from_episodes([numbered(0, 2)], space, MOVES, name="bad")
