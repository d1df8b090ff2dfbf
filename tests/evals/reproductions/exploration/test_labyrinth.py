"""The labyrinth's yardsticks on mazes worked out by hand, means over many, and which rows meet the target."""

import numpy as np
import pytest

from mlbits.envs.exploration.labyrinth import DOWN, LEFT, RIGHT, UP
from mlbits.evals.reproductions.exploration.labyrinth import depth_first_walk, met, open_ways, shortest_walk, yardsticks

# 0 - 1 - 2
# |   |
# 3   4   5
# |       |
# 6 - 7 - 8
WAYS = np.zeros(9, np.uint8)
for one, way, other, back in (
    (0, RIGHT, 1, LEFT), (1, RIGHT, 2, LEFT), (0, DOWN, 3, UP), (1, DOWN, 4, UP), (3, DOWN, 6, UP),
    (6, RIGHT, 7, LEFT), (7, RIGHT, 8, LEFT), (8, UP, 5, DOWN),
):  # fmt: skip
    WAYS[one] |= 1 << way
    WAYS[other] |= 1 << back


def test_ways_lead_to_the_cells_beside():
    assert open_ways(WAYS, 1, 3) == [2, 4, 0]
    assert open_ways(WAYS, 5, 3) == [8]


@pytest.mark.parametrize(("start", "steps"), [(5, 16 - 7), (0, 16 - 5), (2, 16 - 7), (6, 16 - 4)])
def test_the_shortest_walk_does_not_come_back_from_the_farthest_cell(start, steps):
    assert shortest_walk(WAYS, start, 3) == steps


def test_the_depth_first_walk_turns_back_at_dead_ends():
    """From 5 it has no choice up to 1; from 0 it may take the long branch first, and walk it back."""
    rng = np.random.default_rng(0)
    taken = {depth_first_walk(WAYS, 5, 3, rng) for _ in range(30)}
    assert taken == {6 + 1 + 1 + 1}
    taken = {depth_first_walk(WAYS, 0, 3, rng) for _ in range(50)}
    assert taken == {1 + 2 + 1 + 2 + 5, 2 * 5 + 1 + 2 + 1}


def test_the_means_lie_where_they_were_found_before():
    found = yardsticks(3, mazes=400)
    assert found["depth_first"] == pytest.approx(11.8, abs=0.4)
    assert found["known"] == pytest.approx(10.3, abs=0.3)


def test_the_target_is_a_bonus_no_worse_than_depth_first_for_every_size():
    known = {4: {"depth_first": 24.0, "known": 20.0}, 5: {"depth_first": 40.0, "known": 33.0}}
    rows = [{"size": size, "arm": arm, "mean": mean} for size, arm, mean in
            [(4, "none", 20.0), (4, "lwm", 23.0), (5, "none", 20.0), (5, "lwm", 39.0)]]  # fmt: skip
    assert met(rows, known)
    rows[1]["mean"] = 24.5
    assert not met(rows, known)
