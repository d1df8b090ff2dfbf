"""CollectObjects: moves, collecting, ends, returns and observations, against moves worked out by hand."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.levels.collect_objects import HELD_OUT, KINDS, NUM_LEVELS
from mlbits.envs.levels.layouts import LAYOUTS

ID = "mlbits/CollectObjects-v0"
STAY, UP, RIGHT, DOWN, LEFT, UP_RIGHT, DOWN_RIGHT, DOWN_LEFT, UP_LEFT = range(9)
COLLECT = 9


def small_game(rows, objects, *, moves=9, start=0, scattered=False, observation="index"):
    """A game of at most 6 x 6 cells and three objects: (cell, reward, ending, respawn) each."""
    game = mlbits.make_game(ID, levels="small", moves=moves, observation=observation)
    params = game.params.copy()
    wall = np.ones((6, 6), np.uint8)
    for i, row in enumerate(rows):
        for j, letter in enumerate(row):
            wall[i, j] = letter == "#"
    floor = [cell for cell in np.flatnonzero(wall.reshape(-1) == 0) if cell != start]
    params["wall"][0, :36] = wall.reshape(-1)
    params["floor"][0, : 1 + len(floor)] = [start, *floor]
    params["num_floor"], params["num_starts"], params["num_objects"] = 1 + len(floor), 1, len(objects)
    params["rows"], params["columns"], params["scattered"] = len(rows), len(rows[0]), scattered
    params["horizon"] = params["cut_after"] = 1000
    for k, (cell, reward, ending, respawn) in enumerate(objects):
        for field, value in (("place", cell), ("reward", reward), ("ending", ending), ("respawn", respawn)):
            params[field][0, k] = value
    return replace(game, params=params)


def walk(game, actions, **settings):
    """The batch after some actions, and each step's observation, reward and termination."""
    batch = GameBatch(game, 1, autoreset="disabled", **settings)
    steps = []
    for action in actions:
        step = batch.step(torch.tensor([action]))
        steps.append((int(step.obs.reshape(-1)[0]), float(step.reward[0, 0]), bool(step.terminated[0])))
    return batch, steps


def test_moves_lead_to_the_eight_neighbours_and_stop_at_walls_and_edges():
    game = small_game(["...", ".#.", "..."], [], start=0)
    ways = [
        (UP, 0), (LEFT, 0), (DOWN_RIGHT, 0), (STAY, 0), (RIGHT, 1), (DOWN, 1), (DOWN_RIGHT, 8), (DOWN_LEFT, 13),
        (DOWN, 13), (UP_RIGHT, 8), (RIGHT, 8), (UP_LEFT, 1), (DOWN_LEFT, 6), (RIGHT, 6), (DOWN, 12), (UP, 6),
    ]  # fmt: skip
    _, steps = walk(game, [action for action, _ in ways])
    assert [cell for cell, _, _ in steps] == [cell for _, cell in ways]


def test_entering_collects_what_is_there_and_bits_say_what_is_left():
    objects = [(1, 0.5, 0, 0), (2, -0.25, 0, 0), (1, 0.125, 0, 0)]
    _, steps = walk(small_game(["..."], objects), [STAY, RIGHT, STAY, RIGHT, LEFT])
    assert steps == [
        (0 + 36 * 7, 0.0, False), (1 + 36 * 2, 0.625, False), (1 + 36 * 2, 0.0, False), (2, -0.25, False),
        (1, 0.0, False),
    ]  # fmt: skip


def test_with_eighteen_actions_moves_collect_nothing_and_collecting_does_not_move():
    objects = [(1, 1.0, 0, 0), (6, 0.5, 0, 0)]
    game = small_game(["..", ".#"], objects, moves=18)
    assert game.action_space.n == 18
    _, steps = walk(game, [RIGHT, COLLECT + STAY, COLLECT + UP, COLLECT + DOWN_LEFT, LEFT], illegal="error")
    bits = [3, 2, 2, 0, 0]
    assert [obs for obs, *_ in steps] == [1 + 36 * 3, 1 + 36 * 2, 1 + 36 * 2, 1, 0]
    assert [reward for _, reward, _ in steps] == [0, 1.0, 0, 0.5, 0]
    assert bits[-1] == 0


def test_an_object_ends_the_episode_and_comes_back_with_its_own_probability():
    game = small_game([".."], [(1, 1.0, 0.25, 0.125)])
    batch = GameBatch(game, 20_000, seed=3, autoreset="disabled")
    step = batch.step(torch.full((20_000,), RIGHT))
    assert torch.all(step.reward == 1)
    ended = float(step.terminated.float().mean())
    assert abs(ended - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 20_000)
    there = (batch.obs[~step.terminated, 0] == 1 + 36).float()
    assert abs(float(there.mean()) - 0.125) < 5 * np.sqrt(0.125 * 0.875 / 15_000)
    never = GameBatch(small_game([".."], [(1, 1.0, 0, 0)]), 100, autoreset="disabled")
    for _ in range(20):
        never.step(torch.full((100,), RIGHT))
    assert torch.all(never.obs == 1)
    _, always = walk(small_game([".."], [(1, 1.0, 0, 1.0)]), [RIGHT, STAY, STAY])
    assert always == [(1 + 36, 1.0, False)] * 3


def test_scattered_objects_lie_and_come_back_on_any_free_cell_evenly():
    game = small_game(["...", ".#."], [(0, 1.0, 0, 1.0), (0, -1.0, 0, 0)], scattered=True, observation="planes")
    batch = GameBatch(game, 20_000, seed=5, autoreset="disabled")
    free = [1, 2, 6, 8]  # floor without the agent's cell 0
    places = batch.records()["place"][:, :2]
    assert np.all(places[:, 0] != places[:, 1])
    for k in range(2):
        counts = np.bincount(places[:, k], minlength=36)
        assert sorted(np.flatnonzero(counts)) == free
        assert np.abs(counts[free] / 20_000 - 0.25).max() < 0.02
    batch.step(torch.full((20_000,), RIGHT))  # those who find object 0 at cell 1 see it again at once, elsewhere
    found = places[:, 0] == 1
    again = batch.records()["place"][found, 0]
    other = batch.records()["place"][found, 1]
    assert np.all(again != 1) and np.all(again != other)
    assert set(again) == {0, 2, 6, 8}
    assert torch.all(batch.reward[torch.from_numpy(found), 0] == 1)


def test_planes_show_the_agent_and_each_object_that_is_there():
    game = small_game(["..."], [(1, 1.0, 0, 0), (2, 1.0, 0, 0)], observation="planes")
    batch, _ = walk(game, [RIGHT])
    planes = batch.obs[0, 0]
    assert planes.shape == (4, 6, 6)
    assert planes[0].nonzero().tolist() == [[0, 1]]
    assert planes[2].nonzero().tolist() == [[0, 2]]
    assert planes[1].sum() == planes[3].sum() == 0


def test_layouts_draw_places_from_the_number_and_starts_from_the_rest_of_the_floor():
    layout = LAYOUTS["longer_horizon"]
    batch = mlbits.make_batch(ID, 2000, levels="longer_horizon", level=7, seed=1)
    assert batch.observation_space.n == 63 * 2**7
    assert batch.horizon == layout.horizon == 2000
    records, params = batch.records(), batch.game.params[0]
    places = params["place"][:7]
    assert len(set(places)) == 7
    walls = {9 * i + j for i, row in enumerate(layout.rows) for j, letter in enumerate(row) if letter == "#"}
    assert set(records["cell"]) == set(range(63)) - walls - set(places.tolist())
    other = mlbits.make_game(ID, levels="longer_horizon", level=8).params[0]
    assert set(other["place"][:7]) != set(places)
    assert params["reward"][:7].tolist() == [1, 1, -1, -1, -1, -1, -1]


def test_an_index_is_refused_where_it_hides_the_objects_and_other_bad_settings():
    for settings, message in [
        ({"levels": "tiny"}, "levels: got 'tiny'; wanted one of 'small', 'medium'"),
        ({"level": -1}, "level: got -1"),
        ({"level": NUM_LEVELS}, f"level: got {NUM_LEVELS}; wanted an integer from 0 to {NUM_LEVELS - 1}"),
        ({"moves": 4}, "moves: got 4; wanted one of 5, 9, 18"),
        ({"moves": True}, "moves: got True"),
        ({"observation": "pixels"}, "observation: got 'pixels'; wanted one of 'index', 'planes'"),
        ({"levels": "scattered_small", "observation": "index"}, "which hides where 'scattered_small' scatters"),
        ({"horizon": 0}, "horizon: got 0"),
    ]:
        with pytest.raises(GameError, match=message):
            mlbits.make_game(ID, **settings)


def test_every_kind_can_be_made_and_played():
    for name in KINDS:
        game = mlbits.make_game(ID, levels=name, level=HELD_OUT + 3)
        assert game.params["num_objects"][0] >= 1
        assert game.params["num_floor"][0] > game.params["num_objects"][0]


def test_the_pictures():
    game = small_game(["..", ".#"], [(1, 1.0, 0, 0.25), (6, -0.5, 0.5, 0)])
    batch, _ = walk(game, [DOWN])
    assert batch.render("ansi") == (
        ".0\nA#\n0: +1.00, ends 0.000, returns 0.250\n1: -0.50, ends 0.500, returns 0.000 (absent)\n"
    )
    assert batch.render().shape == (129, 129, 3)


def test_gymnasium_counts_the_steps_of_the_level():
    env = gym.make(ID, levels="sparse")
    env.reset(seed=0)
    cut = [env.step(STAY)[3] for _ in range(50)]
    assert cut == [False] * 49 + [True]
