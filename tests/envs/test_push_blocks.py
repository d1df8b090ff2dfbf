"""PushBlocks: contact worked out by hand, goals and rewards, pictures against sampled shapes, light, settings."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.goals import GameGoals
from mlbits.envs.engine.gpu_copies import compile_to_ptx
from mlbits.envs.push_blocks import factor_names, goal_rule, push_blocks
from mlbits.envs.registry import make_game

ID = "mlbits/PushBlocks-v0"
HAND, BLOCK = 0.06, 0.09


def placed(places: list[tuple[float, float]]) -> Any:
    """A copy whose hand and two blocks are at these places (one may be left out: it is far away)."""
    batch = mlbits.make_batch(ID, 1, blocks=2)
    places = [*places, (0.1, 0.9)][:3]
    records = batch.records()
    for k, (x, y) in enumerate(places):
        records["x"][0, k], records["y"][0, k] = x, y
    batch.set_state(records)
    return batch


def moved(batch: Any, *actions: tuple[float, float]) -> list[tuple[float, float]]:
    """Where hand and blocks are after some actions."""
    for action in actions:
        batch.step(torch.tensor([action]))
    records = batch.records()
    return [(float(x), float(y)) for x, y in zip(records["x"][0], records["y"][0], strict=True)]


def test_a_hand_moves_freely_and_stays_on_the_table():
    hand, block, *_ = moved(placed([(0.5, 0.1), (0.3, 0.7)]), (1.0, -0.25))
    assert hand == pytest.approx((0.58, 0.08))
    assert block == (0.3, 0.7)
    hand, *_ = moved(placed([(0.5, 0.1), (0.3, 0.7)]), *[(0.0, -1.0)] * 3)
    assert hand == pytest.approx((0.5, HAND))


def test_a_block_is_pushed_along_the_line_between_the_middles():
    hand, block, *_ = moved(placed([(0.3, 0.5), (0.48, 0.5)]), (1.0, 0.0))
    assert hand == pytest.approx((0.38, 0.5))
    assert block == pytest.approx((0.38 + HAND + BLOCK, 0.5))
    hand, block, *_ = moved(placed([(0.3, 0.5), (0.44, 0.53)]), (1.0, 0.0))  # it touches below the middle
    assert block[1] > 0.53
    assert math.dist(hand, block) == pytest.approx(HAND + BLOCK)


def test_a_block_pushes_the_next_one_and_the_rim_stops_them_all():
    batch = placed([(0.2, 0.5), (0.36, 0.5), (0.56, 0.5)])
    hand, first, second, *_ = moved(batch, (1.0, 0.0))
    assert first[0] - hand[0] >= HAND + BLOCK - 0.002
    assert second[0] - first[0] >= 2 * BLOCK - 0.004
    assert second[0] > 0.56
    hand, first, second, *_ = moved(batch, *[(1.0, 0.0)] * 12)
    assert second[0] == pytest.approx(1 - BLOCK)
    assert first[0] == pytest.approx(1 - 3 * BLOCK, abs=0.01)
    assert hand[0] == pytest.approx(1 - 4 * BLOCK - HAND, abs=0.02)


def test_a_block_at_the_rim_moves_the_hand_back():
    hand, block, *_ = moved(placed([(0.7, 0.5), (0.88, 0.5)]), *[(1.0, 0.0)] * 3)
    assert block == pytest.approx((1 - BLOCK, 0.5))
    assert hand == pytest.approx((1 - 2 * BLOCK - HAND, 0.5))


def test_nothing_ever_leaves_the_table_or_stays_in_the_hand():
    batch = mlbits.make_batch(ID, 64, seed=5, blocks=2, horizon=None)
    generator = torch.Generator().manual_seed(0)
    action = torch.zeros(64, 2)
    for _ in range(150):
        action = (0.8 * action + 0.8 * torch.randn(64, 2, generator=generator)).clamp(-1, 1)
        batch.step(action)
        records = batch.records()
        x, y = records["x"][:, :3], records["y"][:, :3]
        radius = np.array([HAND, BLOCK, BLOCK])
        for place in (x, y):
            assert (place >= radius - 1e-12).all()
            assert (place <= 1 - radius + 1e-12).all()
        apart = np.hypot(x[:, 1:] - x[:, :1], y[:, 1:] - y[:, :1])
        assert apart.min() > HAND + BLOCK - 0.03  # in the middle of a jam, for a part of a step


def test_starts_and_goals_do_not_overlap_and_leave_room_for_the_hand():
    batch = mlbits.make_batch(ID, 500, seed=2, blocks=2)
    records = batch.records()
    for x, y in ((records["x"], records["y"]), (records["goal_x"], records["goal_y"])):
        for a in range(3):
            for b in range(a):
                assert np.hypot(x[:, a] - x[:, b], y[:, a] - y[:, b]).min() > 2 * BLOCK - (BLOCK - HAND) * (b == 0)
        assert x[:, 1:3].min() > 0.22
        assert x[:, 1:3].max() < 0.78
        assert abs(x[:, 1].mean() - 0.5) < 0.03
    assert records["light"].min() >= 0.4
    assert np.ptp(records["light"]) > 0.55
    assert abs(np.corrcoef(records["light"], records["goal_light"])[0, 1]) < 0.2


def test_goals_are_the_positions_that_count():
    for goal, length in (("block", 2), ("blocks", 4), ("hand", 2), ("all", 6)):
        space = make_game(ID, blocks=2, goal=goal).observation_space
        assert space["achieved_goal"].shape == space["desired_goal"].shape == (length,)
    for goal, entries in (("block", slice(2, 4)), ("hand", slice(0, 2))):
        batch = mlbits.make_batch(ID, 5, seed=3, blocks=2, goal=goal)
        batch.step(batch.sample_actions())
        obs = batch.obs
        assert torch.equal(obs["achieved_goal"], obs["observation"][..., entries])
        records = batch.records()
        wanted = np.stack([records["goal_x"], records["goal_y"]], -1).reshape(5, -1)[:, entries]
        assert obs["desired_goal"][:, 0].numpy() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_goals_of_several_discs():
    for goal, entries in (("blocks", slice(2, 6)), ("all", slice(0, 6))):
        batch = mlbits.make_batch(ID, 5, seed=3, blocks=2, goal=goal)
        batch.step(batch.sample_actions())
        assert torch.equal(batch.obs["achieved_goal"], batch.obs["observation"][..., entries])


def test_the_reward_is_the_rule_that_relabelled_goals_are_judged_by():
    dense, sparse = (mlbits.make_batch(ID, 32, seed=4, blocks=2, reward=reward) for reward in ("dense", "sparse"))
    for _ in range(20):
        action = dense.sample_actions()
        for batch, kind in ((dense, 0), (sparse, 1)):
            batch.step(action)
            obs = batch.obs
            far = (obs["achieved_goal"] - obs["desired_goal"])[:, 0].norm(dim=1).numpy()
            wanted = np.where(far < 0.1, 0, -1) if kind else -far
            assert batch.reward[:, 0].numpy() == pytest.approx(wanted, abs=1e-6)
            params = batch.game.params.view(np.recarray)[0]
            pair = [obs[key][3, 0].numpy() for key in ("achieved_goal", "desired_goal")]
            assert goal_rule(params, *pair) == (pytest.approx(float(batch.reward[3, 0]), abs=1e-6), False)


def test_pictures_show_hand_and_blocks_in_the_light_and_the_exact_factors_stand_beside_them():
    batch = mlbits.make_batch(ID, 2, seed=1, observation="both", blocks=2)
    obs, records, size, fine = batch.obs, batch.records(), 24, 8
    along = (np.arange(size * fine) + 0.5) / (size * fine)
    at_x, at_y = along[None, :], 1 - along[:, None]
    for picture, x, y, light in (
        ("observation", "x", "y", "light"),
        ("goal_picture", "goal_x", "goal_y", "goal_light"),
    ):
        shown = np.broadcast_to(np.array([0.30, 0.28, 0.25])[:, None, None], (3, size * fine, size * fine)).copy()
        colours = [(1, 0.95, 0.2, 0.15), (2, 0.2, 0.85, 0.25), (0, 1.0, 1.0, 1.0)]
        for k, *colour in colours:
            inside = np.hypot(at_x - records[x][0, k], at_y - records[y][0, k]) < (BLOCK if k else HAND)
            shown[:, inside] = np.array(colour)[:, None]
        wanted = shown.reshape(3, size, fine, size, fine).mean((2, 4)) * records[light][0] * 255
        off = np.abs(obs[picture][0, 0].numpy() - wanted)
        assert off.max() < 60
        assert off.mean() < 1.5
    factors = obs["factors"][0, 0].numpy()
    pairs = [(records["x"][0, k], records["y"][0, k]) for k in range(3)]
    assert factors == pytest.approx([*np.ravel(pairs), records["light"][0]], rel=1e-6)
    assert len(factor_names(2)) == len(factors) == batch.game.observation_space["factors"].shape[0]
    assert factor_names(1) == ["hand_x", "hand_y", "block1_x", "block1_y", "light"] == push_blocks().layout["factors"]


@pytest.mark.parametrize("form", ["both", pytest.param("pixels", marks=pytest.mark.slow)])
def test_every_form_of_observation_is_of_the_same_play(form):
    plain, other = (mlbits.make_batch(ID, 3, seed=9, blocks=2, observation=seen) for seen in ("vector", form))
    for _ in range(5):
        action = plain.sample_actions()
        one, two = plain.step(action).obs, other.step(action).obs
        for key in ("achieved_goal", "desired_goal"):
            assert torch.equal(one[key], two[key])
        assert two["observation"].shape == (3, 1, 3, 24, 24)
        if form == "both":
            assert torch.equal(one["observation"], two["factors"])


def test_relabelled_goals_are_judged_by_the_compiled_rule():
    batch = mlbits.make_batch(ID, 6, seed=2, blocks=2, reward="sparse")
    goals = GameGoals(batch.game)
    achieved = batch.obs["achieved_goal"][:, 0]
    reward, terminated = goals(achieved, achieved + torch.tensor([0.0, 0.05]))
    assert reward.tolist() == [0] * 6
    assert not terminated.any()
    assert goals(achieved, achieved + torch.tensor([0.1, 0.05]))[0].tolist() == [-1] * 6


def test_places_and_goals_outside_the_table_are_named():
    batch = mlbits.make_batch(ID, 2, seed=2, blocks=2)
    for name, wanted in (("goal_x", r"goal_x\[2\]: got 1.5; wanted 0 to 1"), ("y", r"y\[2\]: got 1.5; wanted 0 to 1")):
        records = batch.records()
        records[name][1, 2] = 1.5
        with pytest.raises(GameError, match=wanted):
            batch.set_state(records)


def test_gymnasium_sees_the_convention_and_fixed_light():
    env = gym.make(ID, blocks=2, light=False)
    obs, _ = env.reset(seed=0)
    assert {"observation", "achieved_goal", "desired_goal"} == set(obs)
    assert obs["observation"][-1] == 1
    assert env.observation_space["desired_goal"] == spaces.Box(0, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 4}, "blocks: got 4; wanted an integer from 1 to 3"),
        ({"goal": "light"}, "goal: got 'light'; wanted one of 'block', 'blocks', 'hand', 'all'"),
        ({"reward": "shaped"}, "reward: got 'shaped'"),
        ({"light": 0.5}, "light: got 0.5; wanted True or False"),
        ({"observation": "pixels", "size": 16}, "size: got 16; wanted an integer from 24 to 84"),
        ({"observation": "pixels", "frame_stack": 2}, "frame_stack: got the observation space"),
    ],
)
def test_other_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        make_game(ID, **settings)


@pytest.mark.slow
def test_pictures_compile_for_a_gpu():
    assert ".visible .entry" in compile_to_ptx(make_game(ID, observation="both", blocks=3), (9, 0))
