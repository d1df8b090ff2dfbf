"""Pictures as observations: against shapes sampled at many points of every pixel; settings, stacks, code for GPUs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.pixels import box, byte, coverage, disc, rod
from mlbits.envs.engine.gpu_copies import compile_to_ptx
from mlbits.envs.registry import make_game

GAMES = ("Pendulum", "PointMass", "CartPole")
SIZE, FINE = 32, 8  # pixels along a side, and points along a pixel's side


def seen(game: str, states: list[dict[str, float]], **settings: Any) -> NDArray[np.uint8]:
    """What copies in these states observe, [N, size, size]."""
    settings = {"observation": "pixels", "size": SIZE, **settings}
    batch = mlbits.make_batch(f"mlbits/{game}-v0", len(states), **settings)
    records = batch.records()
    for record, state in zip(records, states, strict=True):
        for name, value in state.items():
            record[name] = value
    return batch.set_state(records)[:, 0].numpy().copy()


def points(left: float, top: float, side: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """x and y of the middles of all fine points of a picture."""
    along = (np.arange(SIZE * FINE) + 0.5) / (SIZE * FINE) * side
    return left + along[None, :], top - along[:, None]


def averaged(shown: NDArray[Any]) -> NDArray[Any]:
    return shown.reshape(SIZE, FINE, SIZE, FINE).mean((1, 3)) * 255


def near_rod(x: Any, y: Any, start: tuple[float, float], end: tuple[float, float], half: float) -> NDArray[np.bool_]:
    dx, dy = end[0] - start[0], end[1] - start[1]
    part = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - part * dx, y - start[1] - part * dy) < half


def assert_drawn(got: NDArray[np.uint8], wanted: NDArray[Any]) -> None:
    """Soft edges differ from the share of points inside by a part of a pixel; the amount of light hardly does."""
    assert abs(got - wanted).max() < 0.3 * 255
    assert abs(got - wanted).mean() < 2.5
    assert got.sum() == pytest.approx(wanted.sum(), rel=0.08)


@pytest.mark.parametrize("angle", [0.0, 1.0, -2.0, math.pi, 5 * math.pi + 0.3])
def test_a_pendulum_is_a_rod_from_its_hinge_to_its_tip(angle):
    x, y = points(-1.3, 1.3, 2.6)
    tip = (-math.sin(angle), math.cos(angle))  # anticlockwise from upright
    assert_drawn(seen("Pendulum", [{"theta": angle}])[0], averaged(near_rod(x, y, (0, 0), tip, 0.1)))


def test_a_point_mass_is_seen_with_its_goal_and_wall():
    x, y = points(-3, 16, 32)
    wall = ((x > 13.5) & (x < 14.5) & (abs(y) < 2.5)) | ((x > 11.5) & (x < 14.5) & (abs(abs(y) - 2) < 0.5))
    back = np.maximum(0.4 * wall, 0.67 * (np.hypot(x - 25, y) < 1))
    for place in ((0.0, 0.0), (10.3, -7.9)):
        wanted = np.maximum(back, np.hypot(x - place[0], y - place[1]) < 1)
        assert_drawn(seen("PointMass", [{"x": place[0], "y": place[1]}])[0], averaged(wanted))
    bare = np.maximum(0.67 * (np.hypot(x - 25, y) < 1), np.hypot(x, y) < 1)
    assert_drawn(seen("PointMass", [{"x": 0, "y": 0}], wall=False)[0], averaged(bare))
    outside = seen("PointMass", [{"x": 90, "y": 3}, {"x": 29, "y": 3}])
    assert np.array_equal(outside[0], outside[1])


@pytest.mark.parametrize(("place", "angle"), [(0.0, 0.0), (-1.5, 0.2), (1.1, -0.1)])
def test_a_pole_stands_on_its_cart(place, angle):
    x, y = points(-2.6, 3.6, 5.2)
    pole = near_rod(x, y, (place, 0), (place + 2 * math.sin(angle), 2 * math.cos(angle)), 0.1)
    cart = (abs(x - place) < 0.4) & (y < 0) & (y > -0.3)
    assert_drawn(seen("CartPole", [{"x": place, "theta": angle}])[0], averaged(np.maximum(pole, 0.5 * cart)))


def test_a_tenth_of_a_pixel_changes_the_picture():
    assert not np.array_equal(*seen("CartPole", [{"x": 0.0}, {"x": 0.1 * 5.2 / SIZE}]))
    assert not np.array_equal(*seen("Pendulum", [{"theta": 0.0}, {"theta": 0.1 * 2.6 / SIZE}]))


def test_how_much_of_a_pixel_is_covered():
    assert [coverage(far, 2.0, 0.5) for far in (0.0, 1.8, 2.0, 2.2, 9.0)] == pytest.approx([1, 0.9, 0.5, 0.1, 0])
    assert disc(3.0, 4.0, 0.0, 0.0, 5.0, 1.0) == 0.5
    assert rod(1.0, 0.5, 0.0, 0.0, 1.0, 0.0, 2.0, 0.5, 1.0) == 0.5  # beside it
    assert rod(2.5, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.5, 1.0) == 0.5  # beyond its end
    assert box(2.0, 1.0, 0.0, 0.0, 2.0, 2.0, 1.0) == 0.5
    assert box(2.0, 2.0, 0.0, 0.0, 2.0, 2.0, 1.0) == 0.25
    assert [byte(0.0), byte(0.5), byte(1.0)] == [0, 128, 255]


@pytest.mark.parametrize("game", GAMES)
def test_frames_are_stacked_by_the_core_in_the_form_that_is_stored_once(game):
    made = make_game(f"mlbits/{game}-v0", observation="pixels", size=24, frame_stack=3)
    assert made.observation_space == spaces.Box(0, 255, (3, 24, 24), np.uint8)
    assert made.frame_stack == 3
    plain = make_game(f"mlbits/{game}-v0")
    assert plain.action_space == made.action_space
    assert plain.observation_space.dtype == np.float32


def test_a_stack_shows_the_last_pictures_in_order():
    batch = mlbits.make_batch("mlbits/Pendulum-v0", 2, seed=3, observation="pixels", size=24, frame_stack=2)
    first = batch.obs.clone()
    assert np.array_equal(first[:, 0, 0], first[:, 0, 1])
    second = batch.step(batch.sample_actions()).obs.clone()
    assert np.array_equal(second[:, 0, 0], first[:, 0, 1])
    assert not np.array_equal(second[:, 0, 1], first[:, 0, 1])


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observation": "pixels", "size": 23}, "size: got 23; wanted an integer from 24 to 84"),
        ({"observation": "pixels", "size": 85}, "size: got 85"),
        ({"observation": "image"}, "observation: got 'image'; wanted one of 'vector', 'pixels'"),
    ],
)
def test_other_settings_are_refused(game, settings, message):
    with pytest.raises(GameError, match=message):
        make_game(f"mlbits/{game}-v0", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_pictures_compile_for_a_gpu(game):
    made = make_game(f"mlbits/{game}-v0", observation="pixels", frame_stack=2)
    assert ".visible .entry" in compile_to_ptx(made, (9, 0))
