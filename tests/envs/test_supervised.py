"""Datasets as games: observations and rewards, splits, feedback after the answer, drawings, and bad data."""

import gymnasium as gym
import numpy as np
import pettingzoo
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from torch.utils.data import Dataset, TensorDataset

import mlbits
from mlbits.envs import registry
from mlbits.envs.core.errors import GameError
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.supervised import register_supervised, supervised

X = np.arange(40, dtype=np.float32).reshape(20, 2)  # example i is (2 i, 2 i + 1)
Y = np.arange(20) % 4


def examples_of(batch):
    return batch.records()["example"]


def test_an_episode_is_one_example_one_answer_and_its_reward():
    batch = GameBatch(supervised(X, Y), 500, seed=1, autoreset="disabled")
    example = examples_of(batch)
    assert set(example) == set(range(20))
    assert np.array_equal(batch.obs[:, 0].numpy(), X[example])
    answer = np.arange(500) % 4
    step = batch.step(torch.from_numpy(answer))
    assert step.terminated.all()
    assert not step.truncated.any()
    assert np.array_equal(step.reward[:, 0].numpy(), answer == Y[example])
    assert np.array_equal(examples_of(batch), example)


def test_examples_are_drawn_uniformly_in_each_episode():
    batch = GameBatch(supervised(X, Y), 20_000, seed=2)
    first = examples_of(batch)
    batch.step(batch.sample_actions())
    second = examples_of(batch)
    for drawn in (first, second):
        share = np.bincount(drawn, minlength=20) / 20_000
        assert np.abs(share - 0.05).max() < 5 * np.sqrt(0.05 * 0.95 / 20_000)
    assert 0.03 < (first == second).mean() < 0.07


def test_rewards_by_label_and_by_example():
    matrix = np.arange(16).reshape(4, 4) / 4
    table = np.arange(80).reshape(20, 4) / 8
    for rewards, wanted in ((matrix, lambda example, a: matrix[Y[example], a]), (table, lambda e, a: table[e, a])):
        batch = GameBatch(supervised(X, Y, rewards=rewards), 200, seed=3, autoreset="disabled")
        answer = np.arange(200) % 4
        reward = batch.step(torch.from_numpy(answer)).reward[:, 0].numpy()
        assert np.array_equal(reward, wanted(examples_of(batch), answer))


def test_rewards_by_example_stay_with_their_examples_in_a_split():
    table = np.repeat(np.arange(20.0)[:, None], 4, 1)  # every answer to example i pays i
    for split in ("train", "test"):
        batch = GameBatch(supervised(X, Y, rewards=table, split=split), 200, autoreset="disabled")
        reward = batch.step(batch.sample_actions()).reward[:, 0]
        assert torch.equal(reward, batch.obs[:, 0, 0] / 2)


def test_train_and_test_are_disjoint_and_stratified():
    x, y = np.arange(1000.0), np.repeat([0, 1, 2], [700, 290, 10])
    seen = {}
    for split in ("train", "test", "all"):
        game = supervised(x, y, split=split, test_fraction=0.25, split_seed=7)
        params = game.params[0]
        part = params["members"][params["first"] :][: params["examples"]]
        seen[split] = params["features"][part, 0]
        labels = params["labels"][part]
        assert np.array_equal(labels, y[seen[split].astype(int)])
        counts = {"train": [525, 218, 8], "test": [175, 72, 2], "all": [700, 290, 10]}[split]
        assert np.bincount(labels).tolist() == counts
    assert not set(seen["train"]) & set(seen["test"])
    assert set(seen["train"]) | set(seen["test"]) == set(seen["all"]) == set(range(1000))
    again = supervised(x, y, split="test", test_fraction=0.25, split_seed=7)
    other = supervised(x, y, split="test", test_fraction=0.25, split_seed=8)
    assert again.params.tobytes() == supervised(x, y, split="test", test_fraction=0.25, split_seed=7).params.tobytes()
    assert again.params.tobytes() != other.params.tobytes()


def test_an_examples_split_does_not_depend_on_the_classes_in_use():
    both = [supervised(X, Y, split="test", classes=classes).params[0] for classes in (None, (3, 1))]
    of_all, of_two = (params["members"][params["first"] :][: params["examples"]].tolist() for params in both)
    assert of_two == [i for i in of_all if Y[i] in (1, 3)]
    assert len(of_two) == 2


def test_classes_select_labels_and_order_the_answers():
    batch = GameBatch(supervised(X, Y, classes=(3, 1)), 100, autoreset="disabled")
    assert batch.action_space == spaces.Discrete(2)
    label = Y[examples_of(batch)]
    assert set(label) == {1, 3}
    assert torch.equal(batch.step(torch.zeros(100, dtype=torch.int64)).reward[:, 0], torch.tensor(label == 3).float())
    assert batch.game.layout["classes"] == (3, 1)


def test_labels_without_examples_are_answers_too():
    assert supervised(X, Y, num_classes=7).action_space == spaces.Discrete(7)
    assert supervised(X, Y * 2).action_space == spaces.Discrete(7)


@pytest.mark.parametrize(
    ("shape", "feedback"), [((6,), "full"), ((2, 3), "bandit"), pytest.param((3, 1, 2), "full", marks=pytest.mark.slow)]
)
def test_features_of_any_shape_are_observed_unchanged(shape, feedback):
    x = np.random.default_rng(0).integers(0, 256, (12, *shape))
    batch = GameBatch(supervised(x, np.arange(12) % 3, feedback=feedback), 50)
    seen = batch.obs["features"] if feedback == "full" else batch.obs
    assert seen.dtype == torch.uint8
    assert np.array_equal(seen[:, 0].numpy(), x[examples_of(batch)])


def test_full_feedback_shows_all_rewards_but_only_after_the_answer():
    rewards = np.random.default_rng(0).random((20, 4)).astype(np.float32) - 0.5
    batch = GameBatch(supervised(X, Y, rewards=rewards, feedback="full"), 64, seed=4)
    example = examples_of(batch)
    assert not batch.obs["feedback"].any()
    step = batch.step(batch.sample_actions())
    assert np.array_equal(step.final_obs["feedback"][:, 0].numpy(), rewards[example])
    assert not step.obs["feedback"].any()


def test_both_feedbacks_draw_the_same_examples():
    plain, told = (GameBatch(supervised(X, Y, feedback=feedback), 64, seed=5) for feedback in ("bandit", "full"))
    for _ in range(3):
        assert np.array_equal(examples_of(plain), examples_of(told))
        plain.step(plain.sample_actions())
        told.step(torch.zeros(64, dtype=torch.int64))


class Pairs(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        if i >= len(X):
            raise IndexError(i)
        return torch.from_numpy(X[i]), int(Y[i])


@pytest.mark.parametrize(
    "data", [Pairs(), TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), list(zip(X, Y, strict=True))]
)
def test_a_torch_dataset_is_the_same_game_as_its_arrays(data):
    assert supervised(data).params.tobytes() == supervised(X, Y).params.tobytes()


def test_numbers_keep_their_meaning():
    assert supervised(X > 3, Y).params["features"].dtype == np.uint8
    assert supervised(X > 3, Y).observation_space == spaces.Box(0, 1, (2,), np.uint8)
    assert supervised(X.astype(int), Y).observation_space == spaces.Box(0, 255, (2,), np.uint8)
    assert supervised(X.astype(int) - 1, Y).observation_space == spaces.Box(-1, 38, (2,), np.float32)
    assert supervised(X.astype(float), Y.astype(float)).params.tobytes() == supervised(X, Y).params.tobytes()
    assert supervised(X[:, 0], Y > 1).observation_space == spaces.Box(0, 38, (1,), np.float32)


def test_a_registered_dataset_works_at_every_door_and_trains(monkeypatch, tmp_path):
    from mlbits.selfplay.runs.config import resolve
    from mlbits.selfplay.training import train

    monkeypatch.setattr(registry, "_entries", registry._entries.copy())
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    register_supervised("mine/Data-v0", X, Y, summary="my data", test_fraction=0.4)
    assert mlbits.registered()["mine/Data-v0"].summary == "my data"
    check_env(gym.make("mine/Data-v0", feedback="full").unwrapped)
    assert gym.make_vec("mine/Data-v0", 3).reset(seed=0)[0].shape == (3, 2)
    assert pettingzoo.make("parallel", "mine/Data-v0").possible_agents
    splits = [mlbits.make_game("mine/Data-v0", split=split).params["examples"][0] for split in ("train", "test", "all")]
    assert splits == [12, 8, 20]
    assert mlbits.make_game("mine/Data-v0").params["examples"][0] == 12
    run = {"total_steps": 64, "num_envs": 8, "eval_episodes": 4, "video": False, "device": "cpu"}
    settings = resolve("ppo", "mine/Data-v0", preset="none", run=run, agent_settings={"num_steps": 4})
    assert 0 <= train(settings, tmp_path / "run", console=False)[1]["return_mean"] <= 1
    with pytest.raises(GameError, match="labels: got one class, 0"):
        register_supervised("mine/Other-v0", X, Y * 0)
    assert "mine/Other-v0" not in mlbits.registered()


def test_the_pictures():
    batch = GameBatch(supervised(X, Y, classes=(2, 3)), 1, seed=0, autoreset="disabled")
    example = int(examples_of(batch)[0])
    label = int(Y[example])
    assert batch.render("ansi") == f"example {example}: label {label}, no answer yet\n"
    before = batch.render()
    batch.step(torch.tensor([(2, 3).index(label)]))
    assert batch.render("ansi") == f"example {example}: label {label}, answer {label}, paid 1\n"
    right = batch.render()
    batch.reset(seed=0)
    batch.step(torch.tensor([1 - (2, 3).index(label)]))
    wrong = batch.render()
    assert batch.render("ansi").endswith(f"answer {5 - label}, paid 0\n")
    assert before.shape == right.shape == wrong.shape
    assert (before != right).any()
    assert (right != wrong).any()


def drawing(game):
    """Example 0, answered by 0, without compiling anything."""
    return game.draw(np.zeros(1, game.state_dtype).view(np.recarray)[0], game.params.view(np.recarray)[0])


@pytest.mark.parametrize("shape", [(1,), (100,), (1000,), (3, 5), (32, 32, 3), (3, 32, 32), (1, 28, 28), (600, 700)])
def test_any_features_can_be_drawn(shape):
    x = np.random.default_rng(0).random((4, *shape))
    game = supervised(x, np.array([0, 1, 2, 150]))
    image = drawing(game)
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert max(image.shape) < 1000


def test_colours_are_drawn_unchanged():
    x = np.zeros((2, 8, 8, 3), np.uint8)
    x[..., 0] = 255
    for table in (x, np.moveaxis(x, 3, 1)):
        image = drawing(supervised(table, [0, 1])).reshape(-1, 3)
        assert (image == [255, 0, 0]).all(1).sum() == 240 * 240


GOOD = {"features": X, "labels": Y}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": np.full(20, 3)}, "labels: got one class, 3; wanted at least two"),
        ({"labels": np.full(20, 3), "num_classes": 5}, "labels: got one class, 3"),
        ({"features": X + np.where(X == 7, np.nan, 0)}, r"features\[3, 1\]: got nan; wanted a finite number"),
        ({"features": X + np.where(X == 4, np.inf, 0)}, r"features\[2, 0\]: got inf; wanted a finite number"),
        ({"features": X.astype(float) * 1e300}, r"features\[0, 1\]: got 1e\+300; wanted .* \(as float32\)"),
        ({"labels": Y[:19]}, "labels: got 19 for 20 examples; wanted one per example"),
        ({"labels": Y + 0.5}, r"labels\[0\]: got 0.5; wanted an integer"),
        ({"labels": np.where(Y == 2, np.nan, Y)}, r"labels\[2\]: got nan; wanted an integer"),
        ({"labels": [str(y) for y in Y]}, "labels: got <U1, as in .*'0'.*; wanted non-negative integers"),
        ({"labels": Y[:, None]}, r"labels: got shape \(20, 1\); wanted \[N\]"),
        ({"labels": Y - 1}, r"labels\[0\]: got -1; wanted an integer from 0 to 999"),
        ({"num_classes": 3}, r"labels\[3\]: got 3; wanted an integer from 0 to 2"),
        ({"labels": Y * 1000}, r"labels\[1\]: got 1000; wanted an integer from 0 to 999"),
        ({"num_classes": 1}, "num_classes: got 1; wanted an integer from 2 to 1000"),
        ({"features": X[:0], "labels": Y[:0]}, "features: got no examples"),
        ({"features": [], "labels": []}, "features: got no examples"),
        ({"features": np.zeros((20, 0))}, r"features: got shape \(20, 0\)"),
        ({"features": np.zeros((20, 1, 1, 1, 1))}, r"features: got shape \(20, 1, 1, 1, 1\); wanted \[N, ...\]"),
        ({"features": 3.0}, r"features: got shape \(\)"),
        ({"features": [[1, 2], [3]], "labels": [0, 1]}, "features: got examples of different shapes"),
        ({"features": [["a"]] * 20}, "features: got <U1; wanted numbers"),
        ({"labels": None}, r"labels: got none, and features of type ndarray; wanted labels \[N\], or a Dataset"),
        ({"features": 3, "labels": None}, "labels: got none, and features of type int"),
        ({"classes": (1,)}, r"classes: got \(1,\); wanted at least two labels, each once"),
        ({"classes": (1, 1)}, r"classes: got \(1, 1\)"),
        ({"classes": (1, 9)}, r"classes: no example has the label 9; wanted labels of \[0, 1, 2, 3\]"),
        ({"classes": (1, 2.5)}, r"classes\[1\]: got 2.5"),
        ({"classes": 2}, "classes: got 2; wanted a list of labels"),
        ({"rewards": np.eye(3)}, r"rewards: got shape \(3, 3\); wanted \[4, 4\] by label .* \[20, 4\] by example"),
        ({"rewards": np.full((4, 4), np.nan)}, r"rewards\[0, 0\]: got nan; wanted a finite number"),
        ({"rewards": "accuracy"}, "rewards: got 'accuracy'; wanted numbers"),
        ({"split": "valid"}, "split: got 'valid'; wanted one of 'all', 'train', 'test'"),
        ({"split": "test", "labels": np.arange(20)}, "split: got 'test', with one example of the label 0"),
        ({"test_fraction": 0}, "test_fraction: got 0; wanted a number above 0 and below 1"),
        ({"test_fraction": 1.5}, "test_fraction: got 1.5"),
        ({"split_seed": -1}, "split_seed: got -1"),
        ({"feedback": "some"}, "feedback: got 'some'; wanted one of 'bandit', 'full'"),
        ({"name": "my data"}, "name: got 'my data'"),
    ],
)
def test_bad_data_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        supervised(**(GOOD | settings))


def test_data_too_large_for_a_record_are_refused_with_their_size():
    x = np.broadcast_to(np.float32(1), (600_000, 1000))  # takes no memory
    with pytest.raises(GameError, match=r"600,000 examples of 1,000 numbers \(float32\) take 2.2 GiB; wanted less"):
        supervised(x, np.arange(600_000) % 2)
