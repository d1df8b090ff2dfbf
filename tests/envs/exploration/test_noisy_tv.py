"""NoisyTV: when the picture changes, walls, the treasure, both observations, and bad settings."""

import itertools

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.exploration.noisy_tv import DOWN, LEFT, PRESS, RIGHT, UP

ID = "mlbits/NoisyTV-v0"


def play(batch, *actions):
    """Vectors seen, and the last step's reward and end, as plain numbers."""
    seen = [batch.obs[0, 0].numpy().copy()]
    for action in actions:
        step = batch.step(torch.tensor([action]))
        seen.append(batch.obs[0, 0].numpy().copy())
    return seen, float(step.reward[0, 0]), bool(step.terminated[0])


@pytest.mark.parametrize("tv", ["press", "always"])
def test_the_television_changes_on_a_press_or_always(tv):
    seen, _, _ = play(mlbits.make_batch(ID, 1, tv=tv, size=5), UP, PRESS, RIGHT, PRESS)
    pictures = [one[25:] for one in seen]
    changed = [not (one == other).all() for one, other in itertools.pairwise(pictures)]
    assert changed == [tv == "always", True, tv == "always", True]
    assert all((picture >= 0).all() and (picture < 1).all() for picture in pictures)


def test_it_walks_within_the_room_and_finds_the_treasure():
    batch = mlbits.make_batch(ID, 1, size=4, autoreset="disabled")
    seen, reward, ended = play(batch, LEFT, DOWN, RIGHT, UP, UP, UP, UP, RIGHT, RIGHT)
    assert [int(one[:16].argmax()) for one in seen] == [12, 12, 12, 13, 9, 5, 1, 1, 2, 3]
    assert all(one[:16].sum() == 1 for one in seen)
    assert (reward, ended) == (1.0, True)


def test_a_wall_without_a_door_keeps_it_in_the_left_half():
    batch = mlbits.make_batch(ID, 1, size=4, walled=True)
    seen, reward, ended = play(batch, RIGHT, RIGHT, UP, RIGHT)
    assert [int(one[:16].argmax()) % 4 for one in seen] == [0, 1, 1, 1, 1]
    assert (reward, ended) == (0.0, False)
    assert batch.game.layout["optimal_return"] == 0.0
    assert mlbits.make_game(ID).layout["optimal_return"] == 1.0


def test_pixels_show_the_room_the_treasure_the_wall_and_the_television():
    settings = {"size": 4, "walled": True}
    pixels = mlbits.make_batch(ID, 1, observation="pixels", **settings)
    vector = mlbits.make_batch(ID, 1, **settings)
    picture = pixels.obs[0, 0].numpy()
    assert picture.shape == (12, 8)
    assert (picture[6:8, 0:2] == 255).all()
    assert (picture[0:2, 6:8] == 192).all()
    assert (picture[0:8, 4:6] == 128).all()
    assert int((picture[:8] == 0).sum()) == 64 - 4 - 4 - 16
    shown = (255 * vector.obs[0, 0, 16:].numpy()).astype(np.uint8).reshape(4, 4)
    assert (abs(picture[8:, :4].astype(int) - shown) <= 1).all()
    assert (picture[8:, 4:] == 0).all()


@pytest.mark.parametrize(
    "settings", [{"size": 3}, {"tv": "off"}, {"walled": 1}, {"observation": "text"}, {"horizon": 0}]
)
def test_settings_out_of_range_are_refused_by_name(settings):
    with pytest.raises(GameError, match=f"^{next(iter(settings))}: got"):
        mlbits.make_game(ID, **settings)
