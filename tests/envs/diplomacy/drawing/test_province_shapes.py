"""Shapes of boards: every province has one, neighbours touch, units are inside, and results are deterministic."""

import numpy as np
import pytest

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.drawing.borders import OUTSIDE, outlines, trace
from mlbits.envs.diplomacy.drawing.partition import IMPASSABLE, WIDTH, adjacent_pairs
from mlbits.envs.diplomacy.drawing.province_shapes import compute_geometry, geometry_of


def without(board, *keys):
    """A board's content without some keys of its coordinates; without all coordinates if none is named."""
    content = dict(board.source)
    if keys:
        content["coordinates"] = {k: v for k, v in content["coordinates"].items() if k not in keys}
    else:
        del content["coordinates"]
    return load_board(content)


@pytest.fixture(scope="module")
def standard():
    return load_board("standard")


@pytest.fixture(scope="module")
def bare(standard):
    return without(standard)


def inside(point, ring):
    """Whether a point is inside a closed outline, by the number of edges to its right."""
    (x, y), start, end = point, ring[:-1], ring[1:]
    rising = (start[:, 1] > y) != (end[:, 1] > y)
    slope = (end[:, 0] - start[:, 0]) / np.where(rising, end[:, 1] - start[:, 1], 1)
    return bool((rising & (start[:, 0] + (y - start[:, 1]) * slope > x)).sum() % 2)


@pytest.mark.parametrize("name", ["standard", "mini"])
def test_every_province_has_an_area_and_exactly_its_neighbours_touch_it(name):
    board = load_board(name)
    geometry = geometry_of(board)
    assert {province for province, _ in geometry.areas} - {IMPASSABLE} == set(range(len(board.provinces)))
    assert geometry.touching == adjacent_pairs(board)


def test_without_sites_and_land_most_neighbours_still_touch(standard):
    board = without(standard, "sites", "land")
    wanted, touching = adjacent_pairs(board), geometry_of(board).touching
    assert len(wanted & touching) > 0.9 * len(wanted)  # measured: 0.96
    assert len(touching - wanted) < 0.15 * len(wanted)


def test_without_coordinates_a_layout_keeps_most_neighbours_together(bare):
    wanted, touching = adjacent_pairs(bare), geometry_of(bare).touching
    assert len(wanted & touching) > 0.8 * len(wanted)  # measured: 0.86
    assert {province for province, _ in geometry_of(bare).areas} >= set(range(len(bare.provinces)))


@pytest.mark.parametrize("name", ["standard", "mini"])
def test_units_and_centres_are_in_their_province_and_names_on_the_picture(name):
    board = load_board(name)
    geometry = geometry_of(board)
    for location, province in enumerate(board.province_of):
        rings = [ring for owner, ring in geometry.areas if owner == province]
        assert any(inside(geometry.unit_points[location], ring) for ring in rings), board.locations[location]
    points = np.concatenate([geometry.unit_points, geometry.label_points])
    assert (points > 5).all() and (points < (WIDTH - 5, geometry.height - 5)).all()


def test_units_names_and_centres_do_not_overlap(standard):
    geometry = geometry_of(standard)
    units = geometry.unit_points[: len(standard.provinces)]
    gaps = np.linalg.norm(units[:, None] - units[None], axis=2) + 1e3 * np.eye(len(units))
    assert gaps.min() > 17  # units are 20 wide
    apart = np.abs(geometry.label_points[:, None] - geometry.label_points[None])
    overlap = (apart[..., 0] < 22) & (apart[..., 1] < 9) & ~np.eye(len(units), dtype=bool)
    assert not overlap.any()


def test_the_same_map_gives_the_same_shapes(bare):
    for board in (load_board("mini"), bare):
        a, b = geometry_of(board), compute_geometry(load_board(board.source))
        assert a is not b and geometry_of(board) is geometry_of(load_board(board.source)) is a
        np.testing.assert_array_equal(a.unit_points, b.unit_points)
        np.testing.assert_array_equal(a.label_points, b.label_points)
        assert all((p == q and (r == s).all()) for (p, r), (q, s) in zip(a.areas, b.areas, strict=True))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("land", "all of it", "coordinates.land: got 'all of it'; wanted a list of outlines"),
        ("land", [[[0, 0], [1, "x"]]], "coordinates.land[0]"),
        ("land", [[[0, 0], [1, 1]]], "coordinates.land[0]: got 2 points; wanted 3 or more"),
        ("sites", [], "coordinates.sites: got []; wanted an object"),
        ("sites", {"XYZ": [[1, 2]]}, "coordinates.sites: got 'XYZ'; wanted a province or an impassable place"),
        ("sites", {"ISL": [[1, float("nan")]]}, "coordinates.sites['ISL']"),
        ("viewBox", "0 0 0 100", "wanted a width and height above 0"),
        ("viewBox", "0 0 10 100", "neither over 4 times the other"),
    ],
)
def test_wrong_drawing_keys_are_refused(key, value, said):
    content = dict(load_board("mini").source)
    content["coordinates"] = content["coordinates"] | {key: value}
    with pytest.raises(GameError) as error:
        geometry_of(load_board(content))
    assert said in str(error.value)


def test_points_in_one_place_or_outside_the_box_are_drawn():
    content = dict(load_board("mini").source)
    for unit in ([100, 100], [-500, 20000]):
        points = {name: {"unit": unit} for name in content["coordinates"]["points"]}
        board = load_board(content | {"coordinates": {"viewBox": "0 0 300 200", "points": points}})
        geometry = geometry_of(board)
        assert ((geometry.unit_points >= 0) & (geometry.unit_points <= (WIDTH, geometry.height))).all()
        assert np.isfinite(geometry.label_points).all() and len(geometry.areas) >= 1


def test_borders_of_a_small_grid():
    """Two halves and an island: four lines; the island's outline comes last, because it is inside."""
    labels = np.zeros((20, 30), int)
    labels[:, 15:] = 1
    labels[8:12, 4:8] = 2
    lines = trace(labels, cell=2.0)
    between = sorted(tuple(sorted((line.left, line.right))) for line in lines)
    assert between == [(OUTSIDE, 0), (OUTSIDE, 1), (0, 1), (0, 2)]
    middle = next(line for line in lines if {line.left, line.right} == {0, 1})
    np.testing.assert_allclose(middle.points[:, 0], 30.0)
    assert {tuple(middle.points[0]), tuple(middle.points[-1])} == {(30.0, 0.0), (30.0, 40.0)}
    areas = outlines(lines)
    assert [label for label, _ in areas] == [0, 1, 2] or [label for label, _ in areas] == [1, 0, 2]
    assert inside((12, 20), areas[2][1]) and not inside((40, 20), areas[2][1])
