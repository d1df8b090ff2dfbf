"""Images, SVG and text of a position: sizes, a mark for each kind of order, no external references."""

from xml.etree import ElementTree

import numpy as np
import pytest

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy import codes
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.drawing.board_image import draw_position
from mlbits.envs.diplomacy.drawing.board_marks import heading_height, marks_of
from mlbits.envs.diplomacy.drawing.board_svg import svg
from mlbits.envs.diplomacy.drawing.palette import letter_colour, power_colours
from mlbits.envs.diplomacy.drawing.partition import WIDTH
from mlbits.envs.diplomacy.drawing.position_text import board_text
from mlbits.envs.diplomacy.drawing.province_shapes import geometry_of
from mlbits.envs.diplomacy.order_parser import parse_order
from mlbits.envs.diplomacy.position import Position, first_position

MOVES = {
    "phase": "F1902M",
    "units": {"ARDEN": ["A ARN", "F ESO", "F AVE"], "BRENN": ["A EMA", "A BIR"], "CORVO": ["F COL/SC"]},
    "centers": {"ARDEN": ["ALT", "AVE"], "BRENN": ["BIR", "EMA"], "CORVO": ["COR"]},
}
RETREATS = {
    "phase": "F1902R",
    "units": {"ARDEN": ["A EMA"], "BRENN": ["A BIR"]},
    "centers": {"ARDEN": ["ALT"], "BRENN": ["BIR"]},
    "dislodged": {"A EMA": {"power": "BRENN", "from": "ARN", "retreats": ["BOR", "ALT"]}},
}
BUILDS = {"phase": "W1902A", "units": {"BRENN": ["A BIR"]}, "centers": {"ARDEN": ["ALT"]}}
KINDS = [
    (MOVES, "A ARN H"), (MOVES, "A ARN - EMA"), (MOVES, "F ESO S A ARN"), (MOVES, "F ESO S A ARN - EMA"),
    (MOVES, "F ESO C A ARN - BOR"), (MOVES, "F COL/SC - SSO"), (RETREATS, "A EMA R BOR"), (RETREATS, "A EMA D"),
    (BUILDS, "A ALT B"), (BUILDS, "A BIR D"),
]  # fmt: skip


@pytest.fixture(scope="module")
def board():
    return load_board("mini")


def one(board, form, text):
    """A position and one order in it."""
    position = Position.from_json(form, board)
    order = parse_order(text, board, position)
    return position, int(board.province_of[order.location]), order


def test_sizes_and_independent_images(board):
    position = first_position(board)
    for size in (400, 1000):
        picture = draw_position(position, size=size)
        assert picture.dtype == np.uint8 and picture.shape[1:] == (size, 3)
        wanted = (geometry_of(board).height + heading_height(3)) / WIDTH * size
        assert wanted < picture.shape[0] < wanted + 0.05 * size
    picture[:] = 0
    assert draw_position(position).any()
    for size in (0, 199, 4001):
        with pytest.raises(GameError, match=f"size: got {size}; wanted 200 to 4000 pixels"):
            draw_position(position, size=size)


@pytest.mark.parametrize(("form", "text"), KINDS)
def test_each_kind_of_order_has_a_mark_and_failure_another(board, form, text):
    position, province, order = one(board, form, text)
    pictures = [
        draw_position(position, *rest)
        for rest in ((), ({province: order},), ({province: order}, {province: codes.BOUNCE | codes.DISLODGED}))
    ]
    assert (pictures[0] != pictures[1]).any() and (pictures[1] != pictures[2]).any()
    np.testing.assert_array_equal(draw_position(position, {province: order}), pictures[1])


def test_an_arrow_runs_from_the_unit_to_its_target(board):
    position, province, order = one(board, MOVES, "F COL/SC - SSO")
    (stroke,) = marks_of(position, {province: order}).strokes
    points, radius = geometry_of(board).unit_points, 10 * geometry_of(board).scale
    start, end = points[board.location_index["COL/SC"]], points[board.location_index["SSO"]]
    assert np.hypot(*(np.array(stroke.points[0]) - start)) < radius
    assert np.hypot(*(np.array(stroke.points[-1]) - end)) < 0.5 * radius
    position, province, order = one(board, MOVES, "A ARN - EMA")  # where another unit is
    (stroke,) = marks_of(position, {province: order}).strokes
    gap = np.hypot(*(np.array(stroke.points[-1]) - points[board.location_index["EMA"]]))
    assert radius < gap < 1.5 * radius


def test_units_that_swap_places_pass_each_other(board):
    position = Position.from_json(MOVES, board)
    orders = {}
    for text in ("A ARN - EMA", "A EMA - ARN"):
        order = parse_order(text, board, position)
        orders[int(board.province_of[order.location])] = order
    one_way, other_way = (np.array(stroke.points) for stroke in marks_of(position, orders).strokes)
    middle = one_way.mean(0) - other_way.mean(0)
    assert np.hypot(*middle) > 5


def test_orders_of_the_previous_phase_start_where_the_units_were(board):
    before, province, order = one(board, MOVES, "A ARN - ALT")
    units = {board.location_index["ALT"]: before.units[province]._replace(location=board.location_index["ALT"])}
    after = Position(board, 1903, 0, units, {}, before.centers)
    marks = marks_of(after, {province: order}, {}, {province: 0})
    assert marks.strokes[0].colour == power_colours(board.powers)[0]
    start = geometry_of(board).unit_points[province]
    assert np.hypot(*(np.array(marks.strokes[0].points[0]) - start)) < 20


def test_dislodged_units_are_drawn_beside_their_attackers(board):
    marks = marks_of(Position.from_json(RETREATS, board))
    at = geometry_of(board).unit_points[board.location_index["EMA"]]
    near = [piece for piece in marks.pieces if np.hypot(*(np.array(piece.at) - at)) < 3 * piece.radius]
    assert len(near) == 2 and near[0].rim != near[1].rim and near[0].colour != near[1].colour
    assert np.hypot(*np.subtract(near[0].at, near[1].at)) > 1.2 * near[0].radius


def test_centres_have_their_owners_colour(board):
    owned, free = (
        draw_position(Position.from_json({"phase": "S1901M", "centers": centers}, board))
        for centers in ({"CORVO": ["EMA"]}, {})
    )
    x, y = geometry_of(board).center_points[board.location_index["EMA"]]
    spot = (round(y + heading_height(3)), round(x))
    assert tuple(owned[spot]) == power_colours(board.powers)[2] and tuple(free[spot]) == (255, 255, 255)


def test_colours_of_the_powers():
    seven = load_board("standard").powers
    colours = power_colours(seven)
    assert len(set(power_colours([f"P{chr(65 + i)}" for i in range(16)]))) == 16
    assert power_colours(["FRANCE", "AUSTRIA"]) == (colours[2], colours[0])
    assert len(set(power_colours(["X", "FRANCE", "Y", "AUSTRIA"]))) == 4
    # Distinguishable to red- and green-blind people (Vienot, Brettel and Mollon 1999).
    linear = (np.array(colours) / 255) ** 2.2
    for matrix in ([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
                   [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]):  # fmt: skip
        seen = 255 * np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        gaps = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 1e3 * np.eye(7)
        assert gaps.min() > 40
    assert letter_colour(colours[3]) == (255, 255, 255) and letter_colour(colours[6]) != (255, 255, 255)


def test_svg_is_well_formed_and_complete(board):
    position, province, order = one(board, RETREATS, "A EMA R BOR")
    text = svg(position, {province: order}, {province: codes.BOUNCE})
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert {path.get("class") for path in root.iter(f"{space}path")} >= {f"p{i}" for i in range(16)}
    words = [word.text for word in root.iter(f"{space}text")]
    assert {"Fall 1902, retreats", *(p.id for p in board.provinces)} <= set(words)
    rest = text.replace("http://www.w3.org/2000/svg", "")
    assert not any(outside in rest for outside in ("http", "href", "url(", "@import", "src="))
    assert svg(position) != text == svg(position, {province: order}, {province: codes.BOUNCE})


def test_a_map_without_coordinates_and_with_odd_names_is_drawn():
    content = dict(load_board("mini").source)
    del content["coordinates"]
    content["provinces"] = [row | {"name": f"<{row['name']} & more>"} for row in content["provinces"]]
    position = first_position(load_board(content))
    assert draw_position(position, size=300).std() > 10
    titles = [title.text for title in ElementTree.fromstring(svg(position)).iter("{http://www.w3.org/2000/svg}title")]
    assert "<Altburg & more>" in titles


def test_text_of_a_position(board):
    position, province, order = one(board, RETREATS, "A EMA R BOR")
    assert board_text(position, {province: order}, {province: codes.BOUNCE | codes.DISBANDED}) == (
        "Fall 1902, retreats\n"
        "\n"
        "ARDEN  1 centre   A EMA\n"
        "BRENN  1 centre   A BIR\n"
        "CORVO  0 centres\n"
        "\n"
        "dislodged:\n"
        "BRENN  A EMA, attacked from ARN, can go to BOR, ALT\n"
        "\n"
        "orders:\n"
        "BRENN  A EMA R BOR  (bounce, disband)\n"
    )
