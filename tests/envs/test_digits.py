"""Digits: scikit-learn's images, unchanged; a fixed split; the digits in use; and bad settings."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sklearn.datasets import load_digits

import mlbits
from mlbits.envs.core.errors import GameError

ID = "mlbits/Digits-v0"
DATA = load_digits()


def part(**settings):
    """Features and labels of a split, as the game holds them."""
    params = mlbits.make_game(ID, **settings).params[0]
    rows = params["members"][params["first"] :][: params["examples"]]
    return params["features"][rows], params["labels"][rows]


def test_all_images_are_there_with_their_labels():
    pixels, labels = part(split="all")
    wanted = {(row.tobytes(), y) for row, y in zip((DATA.data / 16).astype(np.float32), DATA.target, strict=True)}
    assert {(row.tobytes(), y) for row, y in zip(pixels, labels, strict=True)} == wanted
    assert mlbits.make_game(ID).observation_space == spaces.Box(0, 1, (64,), np.float32)


def test_the_split_is_fixed_and_stratified():
    train, test = part(), part(split="test")
    assert len(train[1]) + len(test[1]) == 1797
    assert np.bincount(test[1]).tolist() == [round(0.2 * n) for n in np.bincount(DATA.target)]
    assert not {row.tobytes() for row in train[0]} & {row.tobytes() for row in test[0]}
    # The exact images, so that accuracies are comparable between versions.
    assert (test[0] * 16).sum(0).astype(int)[[2, 10, 20, 36]].tolist() == FINGERPRINT


FINGERPRINT = [1884, 3733, 2485, 3700]


@pytest.mark.parametrize(("classes", "digits"), [(2, (0, 1)), (5, (0, 1, 2, 3, 4)), ((8, 3), (8, 3))])
def test_fewer_digits(classes, digits):
    game = mlbits.make_game(ID, classes=classes)
    assert game.layout["classes"] == digits
    assert game.action_space == spaces.Discrete(len(digits))
    pixels, labels = part(split="all", classes=classes)
    assert len(pixels) == np.isin(DATA.target, digits).sum()
    means = np.stack([pixels[labels == k].mean(0) for k in range(len(digits))])
    wanted = np.stack([DATA.data[DATA.target == digit].mean(0) / 16 for digit in digits])
    assert np.allclose(means, wanted, atol=1e-6)


def test_the_image_shows_the_same_pixels():
    flat, image = (mlbits.make_batch(ID, 50, seed=1, observation=kind).obs for kind in ("flat", "image"))
    assert image.dtype == torch.uint8
    assert image.shape == (50, 1, 8, 8)
    assert torch.equal((flat * 255).round().to(torch.uint8).view(50, 1, 8, 8), image)


@pytest.mark.parametrize("rewards", [[[1, -1], [-2, 3]], (1, -1, -2, 3)])
def test_a_matrix_of_rewards_nested_or_flattened(rewards):
    batch = mlbits.make_batch(ID, 40, classes=2, rewards=rewards, autoreset="disabled")
    label = batch.game.params["labels"][0, batch.records()["example"]]
    reward = batch.step(torch.arange(40) % 2).reward[:, 0].numpy()
    assert np.array_equal(reward, np.array([[1, -1], [-2, 3]])[label, np.arange(40) % 2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 1}, "classes: got 1; wanted an integer from 2 to 10"),
        ({"classes": 11}, "classes: got 11"),
        ({"classes": (3,)}, "classes: got"),
        ({"classes": (3, 10)}, "classes: no example has the label 10"),
        ({"observation": "pixels"}, "observation: got 'pixels'; wanted one of 'flat', 'image'"),
        ({"split": "all of it"}, "split: got 'all of it'"),
        ({"rewards": [[1, 0], [0, 1]]}, r"rewards: got shape \(2, 2\); wanted \[10, 10\]"),
        ({"rewards": 3}, r"rewards: got shape \(\); wanted \[10, 10\]"),
        ({"classes": "3"}, "classes: got '3'"),
        ({"feedback": "none"}, "feedback: got 'none'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
