"""Labyrinth: mazes are trees, walls hold, a walk through one worked out by hand, and bad settings."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError

ID = "mlbits/Labyrinth-v0"
UP, RIGHT, DOWN, LEFT = range(4)
# Two rows of two: 0 - 1
#                      |
#                  2 - 3
U = np.array([1 << RIGHT, (1 << LEFT) | (1 << DOWN), 1 << RIGHT, (1 << LEFT) | (1 << UP)], np.uint8)


def placed(start):
    """One copy in the maze above."""
    batch = mlbits.make_batch(ID, 1, size=2, autoreset="disabled")
    state = batch.records()
    state["ways"][0, :4], state["seen"][0, :4], state["cell"], state["unseen"] = U, 0, start, 3
    state["seen"][0, start] = 1
    batch.set_state(torch.from_numpy(state.view(np.uint8).reshape(1, -1).copy()))
    return batch


def step(batch, action):
    found = batch.step(torch.tensor([action]))
    return float(found.reward[0, 0]), bool(found.terminated[0]), batch.obs[0, 0].tolist()


@pytest.mark.parametrize("size", [2, 5])
def test_every_maze_joins_all_cells_by_one_way_each(size):
    batch = mlbits.make_batch(ID, 60, seed=1, size=size)
    mazes = set()
    for record in batch.records():
        ways = record["ways"][: size * size].astype(int).reshape(size, size)
        right, down = ways >> RIGHT & 1, ways >> DOWN & 1
        assert (right[:, :-1] == ways[:, 1:] >> LEFT & 1).all()
        assert (down[:-1] == ways[1:] >> UP & 1).all()
        assert not right[:, -1].any()
        assert not down[-1].any()
        assert right.sum() + down.sum() == size * size - 1
        reached = {0}
        for _ in range(size * size):  # with one way less than cells, all are reached only if there is no loop
            for cell in list(reached):
                row, column = divmod(cell, size)
                for way, there in ((UP, cell - size), (RIGHT, cell + 1), (DOWN, cell + size), (LEFT, cell - 1)):
                    if ways[row, column] >> way & 1:
                        reached.add(there)
        assert len(reached) == size * size
        mazes.add(ways.tobytes())
    assert len(mazes) > (3 if size == 2 else 55)
    starts = batch.records()["cell"]
    assert len(set(starts.tolist())) > size


def test_it_walks_where_the_way_is_open_and_ends_when_all_is_seen():
    batch = placed(0)
    assert batch.obs[0, 0].tolist() == [0, 1, 0, 0]
    assert step(batch, DOWN) == (-1, False, [0, 1, 0, 0])  # a wall
    assert step(batch, LEFT) == (-1, False, [0, 1, 0, 0])  # the edge
    assert step(batch, RIGHT) == (-1, False, [0, 0, 1, 1])
    assert step(batch, LEFT) == (-1, False, [0, 1, 0, 0])
    assert step(batch, RIGHT)[1:] == (False, [0, 0, 1, 1])
    assert step(batch, DOWN) == (-1, False, [1, 0, 0, 1])
    assert step(batch, LEFT) == (-1, True, [0, 1, 0, 0])


def test_the_text_and_the_picture_show_where_it_has_been():
    batch = placed(3)
    step(batch, LEFT)
    assert batch.render("ansi").splitlines()[3] == "|A  . |"
    assert batch.render().shape[2] == 3


def test_it_is_cut_after_the_horizon():
    batch = mlbits.make_batch(ID, 1, size=16, horizon=2, autoreset="disabled")
    assert not bool(batch.step(torch.tensor([0])).truncated[0])
    assert bool(batch.step(torch.tensor([0])).truncated[0])


@pytest.mark.parametrize("settings", [{"size": 1}, {"size": 17}, {"horizon": 0}])
def test_settings_out_of_range_are_refused_by_name(settings):
    with pytest.raises(GameError, match=f"^{next(iter(settings))}: got"):
        mlbits.make_game(ID, **settings)
