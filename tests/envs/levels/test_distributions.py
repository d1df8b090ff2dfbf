"""Distributions of levels: functions of the number, within their ranges, solvable, and apart from each other."""

import hashlib

import numpy as np
import pytest

from mlbits.envs.core.errors import GameError
from mlbits.envs.engine.state_checks import check_params
from mlbits.envs.levels.catalogue import NAMES, checked_numbers, level_kind
from mlbits.envs.levels.collect_objects import HELD_OUT
from mlbits.envs.levels.distributions import DISTRIBUTIONS, reach
from mlbits.envs.levels.mazes import MAZES

COUNT = 400


def records(name, first=0, count=COUNT):
    return level_kind(name).records(np.arange(first, first + count, dtype=np.uint64))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_levels_lie_in_their_ranges_and_reach_both_ends(name):
    ranges, drawn = DISTRIBUTIONS[name], records(name)
    for field, (low, high) in (("rows", ranges.sides), ("num_objects", ranges.objects)):
        assert (drawn[field].min(), drawn[field].max()) == (low, high)
        counts = np.bincount(drawn[field], minlength=high + 1)[low:]
        assert np.abs(counts / COUNT - 1 / len(counts)).max() < 0.1
    low, high = ranges.horizon
    assert low <= drawn["horizon"].min() < low * 1.05
    assert high * 0.95 < drawn["horizon"].max() <= high
    assert abs(np.median(drawn["horizon"]) / np.sqrt(low * high) - 1) < 0.2
    exists = np.arange(8) < drawn["num_objects"][:, None]
    reward = drawn["reward"]
    assert reward[:, 0].min() >= 0
    assert (reward[:, 1][exists[:, 1]].min() < -0.9) == (name != "mazes")
    for field, low, high in (("ending", 0.01, 1), ("respawn", 0.001, 0.1)):
        values = drawn[field][exists]
        assert low * 0.999 <= values.min() < low * 1.1
        assert high * 0.9 < values.max() <= high
        assert abs(np.median(values) / np.sqrt(low * high) - 1) < 0.25
        assert not drawn[field][~exists].any()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_all_objects_are_apart_and_can_be_reached(name):
    drawn = records(name)
    width, cells = int(drawn["width"][0]), int(drawn["height"][0] * drawn["width"][0])
    wall = drawn["wall"][:, :cells] == 1
    reached = reach(wall, drawn["floor"][:, 0].astype(int), width)
    inside = np.zeros_like(wall)
    for k, level in enumerate(drawn):
        places = level["place"][: level["num_objects"]].tolist()
        start = int(level["floor"][0])
        assert len({start, *places}) == 1 + len(places)
        assert reached[k, places].all()
        assert sorted(level["floor"][: level["num_floor"]]) == np.flatnonzero(~wall[k]).tolist()
        inside[k].reshape(-1, width)[: level["rows"], : level["columns"]] = True
    assert wall[~inside].all()
    if DISTRIBUTIONS[name].walls is not None:
        inner = (wall & inside).sum(1)
        most = np.minimum(DISTRIBUTIONS[name].walls, 7 * drawn["rows"].astype(int) ** 2 // 16)
        assert (inner == most).mean() > 0.99  # a level goes without walls when 16 draws have no room
        assert np.isin(inner, [0, *most]).all()


def test_mazes_are_connected_and_all_are_drawn():
    drawn = records("mazes")
    cells = drawn["wall"][:, :169] == 0
    for text in MAZES.values():
        rows = text.strip("\n").split("\n")
        assert [len(row) for row in rows] == [13] * 13
        floor = np.array([[letter == "." for letter in row] for row in rows])
        start = np.array([np.flatnonzero(floor.reshape(-1))[0]])
        assert np.array_equal(reach(~floor.reshape(1, -1), start, 13)[0], floor.reshape(-1))
        assert 30 < (cells == floor.reshape(-1)).all(1).sum() < 110  # 67 expected


@pytest.mark.parametrize("name", NAMES)
def test_a_level_depends_on_its_number_alone(name):
    kind, numbers = level_kind(name), np.array([5, HELD_OUT + 1, 2**32 - 1, 0], np.uint64)
    together = kind.records(numbers)
    for k, number in enumerate(numbers):
        assert repr(kind.records(np.array([number], np.uint64))[0].tolist()) == repr(together[k].tolist())
        assert repr(kind.level(int(number)).params[0].tolist()) == repr(together[k].tolist())
    check_params(kind.game, together)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_held_out_level_equals_a_training_level(name):
    def contents(first):
        return {level.tobytes() for level in records(name, first, 2000)}

    train, held_out = contents(0), contents(HELD_OUT)
    assert len(train) == len(held_out) == 2000
    assert not train & held_out


def test_levels_do_not_change_between_versions():
    """A rule that is shipped names the levels on which it was trained."""
    digests = {}
    for name in ("small", "mazes", "dense"):
        level = records(name, 0, 20)
        whole = [level[field].tolist() for field in ("horizon", "num_objects", "rows", "place", "wall", "floor")]
        rounded = [np.round(level[field], 3).tolist() for field in ("reward", "ending", "respawn")]
        digests[name] = hashlib.sha256(repr((whole, rounded)).encode()).hexdigest()[:12]
    assert digests == {"small": "a6d1cc9a2b3d", "mazes": "7e9e714f9ebe", "dense": "08890a042ef0"}


def test_numbers_of_the_other_split_are_refused_by_number():
    with pytest.raises(GameError, match=rf"numbers\[1\]: got {HELD_OUT}; wanted a number of the train levels, 0 to"):
        checked_numbers([3, HELD_OUT], "train")
    with pytest.raises(GameError, match=r"numbers\[0\]: got 3; wanted a number of the held-out levels"):
        checked_numbers([3, HELD_OUT], "held-out")
    with pytest.raises(GameError, match=r"numbers\[0\]: got -1; wanted a number, 0 to"):
        checked_numbers([-1])
    with pytest.raises(GameError, match="split: got 'test'; wanted 'train' or 'held-out'"):
        checked_numbers([1], "test")
    with pytest.raises(GameError, match=r"numbers: got .*; wanted one or more integers"):
        checked_numbers([0.5])
