"""RandomGridWorld: maps are solvable functions of their level, splits are disjoint, moves follow the map."""

from collections import deque

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import mlbits
from mlbits.envs.core.errors import GameError

ID = "mlbits/RandomGridWorld-v0"
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
EMPTY, WALL, GOAL, PIT = range(4)
LEVEL_ZERO = """\
..#..
.A.##
.#...
.G.#.
....#
level 0, shortest way 4
"""


def maps(batch):
    """Kinds [B, H, W] and the states' records [B]."""
    records, layout = batch.records(), batch.game.layout
    height, width = layout["height"], layout["width"]
    return records["kind"][:, : height * width].reshape(-1, height, width), records


def distances(kinds):
    """Moves to the goal from each cell, by an independent breadth-first search; unreachable: -1."""
    found = np.full(kinds.shape, -1)
    goal = tuple(np.argwhere(kinds == GOAL)[0])
    found[goal] = 0
    queue = deque([goal])
    while queue:
        row, column = queue.popleft()
        for down, right in MOVES:
            r, c = row + down, column + right
            inside = 0 <= r < kinds.shape[0] and 0 <= c < kinds.shape[1]
            if inside and kinds[r, c] == EMPTY and found[r, c] < 0:
                found[r, c] = found[row, column] + 1
                queue.append((r, c))
    return found


@pytest.mark.parametrize(
    ("size", "walls", "pits"),
    [((3, 7), 0.6, 0.0), (8, 0.25, 0.1), ((5, 12), 0.4, 0.2), ((32, 20), 0.45, 0.1)],
)
def test_every_map_can_be_solved_and_the_stored_distances_are_right(size, walls, pits):
    batch = mlbits.make_batch(ID, 150, size=size, wall_density=walls, pit_density=pits, seed=1)
    kinds, records = maps(batch)
    cells = kinds[0].size
    for kind, record in zip(kinds, records, strict=True):
        wanted = distances(kind).reshape(-1)
        assert np.array_equal(record["distance"][:cells], wanted)
        assert record["shortest"] == wanted[record["cell"]] > 0
        assert np.flatnonzero(kind.reshape(-1) == GOAL).tolist() == [record["goal"]]


def test_walls_and_pits_have_their_densities_and_start_and_goal_may_be_anywhere():
    batch = mlbits.make_batch(ID, 4000, size=6, wall_density=0.1, pit_density=0.05, seed=2)
    kinds, records = maps(batch)
    # Two cells of 36 are start and goal. Solvable maps are a little less walled than maps at large.
    assert abs((kinds == WALL).mean() / (34 / 36) - 0.1) < 0.01
    assert abs((kinds == PIT).mean() / (34 / 36) - 0.05) < 0.005
    for field in ("cell", "goal"):
        counts = np.bincount(records[field], minlength=36)
        assert abs(counts / 4000 - 1 / 36).max() < 5 * np.sqrt(1 / 36 / 4000)


def test_a_map_depends_on_its_level_alone():
    """Two batches with different seeds and numbers of copies have the same maps for the same levels."""
    met = {}
    for seed, num_envs in ((0, 40), (99, 7)):
        batch = mlbits.make_batch(ID, num_envs, levels=4, first_level=1000, seed=seed, horizon=1, slip=0.5)
        for _ in range(6):
            kinds, records = maps(batch)
            for kind, record in zip(kinds, records, strict=True):
                one = (kind.tobytes(), int(record["cell"]), int(record["goal"]))
                assert met.setdefault(int(record["level"]), one) == one
            batch.step(batch.sample_actions())
    assert sorted(met) == [1000, 1001, 1002, 1003]
    assert len(set(met.values())) == 4


def test_the_copys_stream_advances_by_one_draw_per_reset():
    batch = mlbits.make_batch(ID, 5, wall_density=0.6)
    assert batch.records()["rng_counter"].tolist() == [1] * 5
    batch.reset()
    assert batch.records()["rng_counter"].tolist() == [2] * 5
    assert len(set(batch.records()["rng_key"].tolist())) == 5


def test_train_and_test_levels_are_disjoint():
    train = mlbits.make_batch(ID, 5000, split="train").records()["level"]
    test = mlbits.make_batch(ID, 5000, split="test").records()["level"]
    assert train.max() < 2**31 <= test.min()
    assert train.max() > 0.99 * 2**31
    assert test.max() > 0.99 * 2**32
    few = mlbits.make_batch(ID, 500, split="test", levels=3, first_level=7).records()["level"]
    assert set(few.tolist()) == {2**31 + 7, 2**31 + 8, 2**31 + 9}


@pytest.mark.parametrize(("size", "walls"), [(3, 0.25), (4, 0.1), (8, 0.25)])
def test_no_map_is_in_both_splits(size, walls):
    settings = {"size": size, "wall_density": walls}
    seen = [
        {kinds.tobytes() for kinds in maps(mlbits.make_batch(ID, 4000, split=split, **settings))[0]}
        for split in ("train", "test")
    ]
    assert not seen[0] & seen[1]
    assert min(map(len, seen)) > 20, "both splits have maps"


def test_level_zero_stays_the_same_in_every_version():
    batch = mlbits.make_batch(ID, 1, size=5, levels=1)
    assert batch.render("ansi") == LEVEL_ZERO


def test_moves_follow_the_map():
    """Step a batch at random and compare it with rules written on arrays."""
    batch = mlbits.make_batch(ID, 300, size=(4, 7), pit_density=0.1, step_cost=0.25, pit_reward=-2.0, goal_reward=3.0)
    generator = torch.Generator().manual_seed(0)
    ends = 0
    for _ in range(15):
        kinds, records = maps(batch)
        actions = torch.randint(4, (300,), generator=generator)
        step = batch.step(actions)
        after = batch.records()
        for b in range(300):
            cell = divmod(int(records["cell"][b]), 7)
            target = tuple(np.add(cell, MOVES[actions[b]]))
            inside = 0 <= target[0] < 4 and 0 <= target[1] < 7
            if not inside or kinds[b][target] == WALL:
                target = cell
            kind = kinds[b][target]
            assert float(step.reward[b, 0]) == {EMPTY: -0.25, GOAL: 3.0, PIT: -2.0}[kind]
            assert bool(step.terminated[b]) == (kind in (GOAL, PIT))
            if kind == EMPTY:
                assert divmod(int(after["cell"][b]), 7) == target
                assert np.array_equal(after["kind"][b], records["kind"][b])
            ends += kind != EMPTY
    assert ends > 50


def test_following_the_distances_earns_the_documented_optimum():
    batch = mlbits.make_batch(ID, 50, autoreset="disabled", wall_density=0.3, seed=3)
    _, start = maps(batch)
    total = np.zeros(50)
    for _ in range(int(start["shortest"].max())):
        _, records = maps(batch)
        actions = np.zeros(50, np.int64)
        for b, record in enumerate(records):
            row, column = divmod(int(record["cell"]), 8)
            for action, (down, right) in enumerate(MOVES):
                r, c = row + down, column + right
                if (
                    0 <= r < 8
                    and 0 <= c < 8
                    and record["distance"][8 * r + c] == record["distance"][record["cell"]] - 1
                ):
                    actions[b] = action
        total += batch.step(torch.from_numpy(actions)).reward[:, 0].numpy()
    assert np.allclose(total, 1 - 0.01 * (start["shortest"] - 1), atol=1e-5)
    assert batch.terminated.all()


def test_slips_go_in_all_directions():
    batch = mlbits.make_batch(ID, 20_000, levels=1, wall_density=0.0, slip=0.4, size=7, seed=4, autoreset="disabled")
    state = batch.records()
    state["cell"], state["goal"] = 24, 0  # the middle of a 7 x 7 map
    state["kind"][:, :49] = EMPTY
    batch.set_state(state)
    batch.step(torch.zeros(20_000, dtype=torch.int64))
    moved = batch.records()["cell"]
    for cell, share in ((17, 0.7), (25, 0.1), (31, 0.1), (23, 0.1)):
        assert abs((moved == cell).mean() - share) < 5 * np.sqrt(share * (1 - share) / 20_000)


@pytest.mark.parametrize("observation", ["planes", "pixels"])
def test_observations_show_the_map(observation):
    batch = mlbits.make_batch(ID, 20, size=(4, 6), pit_density=0.1, observation=observation)
    kinds, records = maps(batch)
    for b in range(20):
        obs = batch.obs[b, 0].numpy()
        if observation == "planes":
            assert obs.shape == (5, 4, 6)
            assert np.flatnonzero(obs[0]).tolist() == [records["cell"][b]]
            for kind in (WALL, GOAL, PIT):
                assert np.array_equal(obs[kind], kinds[b] == kind)
            assert not obs[4].any()
        else:
            assert obs.shape == (32, 48, 3)
            colours = {EMPTY: (245, 245, 240), WALL: (70, 70, 80), GOAL: (60, 170, 90), PIT: (200, 60, 50)}
            for row in range(4):
                for column in range(6):
                    tile = obs[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                    assert tuple(tile[0, 0]) == tuple(tile[7, 7]) == colours[kinds[b][row, column]]
                    agent = 6 * row + column == records["cell"][b]
                    assert (tuple(tile[3, 4]) == (30, 90, 220)) == agent
    if observation == "pixels":
        check_env(gym.make(ID, size=(4, 6), observation="pixels").unwrapped)


@pytest.mark.slow
def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, size=(3, 32))
    text = batch.render("ansi")
    assert text.count("A") == text.count("G") == 1
    assert [len(line) for line in text.splitlines()[:3]] == [32] * 3
    assert batch.render().shape == (3 * 16 + 1, 32 * 16 + 1, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 2}, "size: got 2; wanted an integer from 3 to 32"),
        ({"size": 33}, "size: got 33"),
        ({"size": (8, 0)}, r"size\[1\]: got 0"),
        ({"size": (8, 8, 8)}, "size: got .8, 8, 8.; wanted one number or a pair"),
        ({"size": "8x8"}, "size: got '8x8'"),
        ({"split": "validation"}, "split: got 'validation'; wanted one of 'train', 'test'"),
        ({"levels": 0}, "levels: got 0"),
        ({"levels": 2**31 + 1}, "levels: got 2147483649"),
        ({"levels": 2, "first_level": 2**31 - 1}, "levels: got 2; wanted an integer from 1 to 1"),
        ({"first_level": -1}, "first_level: got -1"),
        ({"wall_density": 0.7}, "wall_density: got 0.7; wanted a finite number from 0 to 0.6"),
        ({"wall_density": -0.1}, "wall_density: got -0.1"),
        (
            {"wall_density": 0.5, "pit_density": 0.2},
            "pit_density: got 0.2; wanted a finite number from 0 to 0.1",
        ),
        ({"pit_density": float("nan")}, "pit_density: got nan"),
        ({"slip": 1.5}, "slip: got 1.5"),
        ({"step_cost": float("inf")}, "step_cost: got inf"),
        ({"goal_reward": "one"}, "goal_reward: got 'one'"),
        (
            {"observation": "index"},
            "observation: got 'index', which hides the map; wanted 'planes' or 'pixels'",
        ),
        ({"observation": "text"}, "observation: got 'text'; wanted one of 'planes', 'pixels'"),
        ({"horizon": 0}, "horizon: got 0"),
        ({"horizon": 2.5}, "horizon: got 2.5"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
