"""What a power decides, in words, and the board as pages show it: from positions alone, without compiled rules."""

import re

import numpy as np
import pytest

from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import HOLD, MOVE
from mlbits.envs.diplomacy.drawing.board_page import board_layers, province_shapes
from mlbits.envs.diplomacy.drawing.choices import decisions
from mlbits.envs.diplomacy.game import game_on
from mlbits.envs.diplomacy.position import Position, first_position
from mlbits.envs.diplomacy.records import write_position
from mlbits.envs.diplomacy.vocabulary import vocabulary
from mlbits.evals.replays.decisions import path_of

BOARD = load_board("mini")
WORDS = vocabulary(BOARD)


@pytest.fixture(scope="module")
def game():
    return game_on(BOARD, None, "centers", "standard", "datc-2.4", None)


def record(game, position):
    """A state with a position."""
    state = np.zeros(1, game.state_dtype)[0]
    write_position(position, state)
    return state


def mask(game, *chosen):
    """The mask of a seat in which these choices are legal, slot by slot; the rest passes."""
    legal = np.zeros((int(game.params["slots"][0]), int(game.params["width"][0])), bool)
    legal[:, 0] = True
    for slot, choices in enumerate(chosen):
        legal[slot] = False
        legal[slot, choices] = True
    return legal.reshape(-1)


def test_units_are_slots_and_orders_have_the_notations_names(game):
    position = first_position(BOARD)
    state, place = record(game, position), BOARD.location_index
    lists = [WORDS.moving(unit.kind, unit.location) for p, unit in sorted(position.units.items()) if unit.power == 0]
    whole = [list(range(WORDS.start[c + 1] - WORDS.start[c])) for c in lists]
    found = decisions(BOARD, state, game.params[0], 0, mask(game, *whole))
    assert [heading for heading, _ in found] == ["A ALT", "F AVE"]
    army = found[0][1]
    assert army[0] == "A ALT H" and len(set(army.values())) == len(army) == len(whole[0])
    for choice, name in army.items():
        order = WORDS.order(lists[0], choice)
        assert order.location == place["ALT"]
        if order.kind == MOVE and not order.via:
            assert name == f"A ALT - {BOARD.locations[order.target]}"
        if order.kind == HOLD:
            assert name.endswith(" H")


def test_builds_and_disbands_are_slots_without_a_unit(game):
    position = first_position(BOARD)
    winter = Position.from_json({**position.to_json(), "phase": "W1901A"}, BOARD)
    state = record(game, winter)
    state["due"] = [1, -1, 0]
    found = decisions(BOARD, state, game.params[0], 0, mask(game, [0, 1, 2]))
    assert [heading for heading, _ in found] == ["build 1"]
    assert found[0][1][0] == "WAIVE" and all(name.endswith(" B") for k, name in found[0][1].items() if k)
    own = [p for p, unit in sorted(winter.units.items()) if unit.power == 1]
    found = decisions(BOARD, state, game.params[0], 1, mask(game, [1 + p for p in own]))
    assert found[0][0] == "disband 1"
    assert sorted(found[0][1].values()) == ["A BIR D", "F BAY D"]
    assert decisions(BOARD, state, game.params[0], 2, mask(game)) == []


def test_the_board_is_one_svg_whose_ground_stays_the_same(game):
    start = first_position(BOARD)
    taken = Position.from_json(start.to_json() | {"centers": {"ARDEN": ["ALT", "AVE", "BIR"]}}, BOARD)
    one, two = (board_layers(BOARD, record(game, position), None) for position in (start, taken))
    assert one[0] == two[0] and one[3] == two[3] and one[1] != two[1] and one[2] != two[2]
    document = "".join(one)
    assert document.startswith("<svg xmlns=") and document.count("<svg") == document.count("</svg>") == 1
    assert document.count("<g") == document.count("</g>")
    assert re.search(r'viewBox="0 -[0-9.]+ 1000 [0-9.]+"', one[0])
    assert len(one[0]) > 5 * (len(one[1]) + len(one[2]))  # what is stored again for each position is small


def test_every_province_is_a_place_that_orders_name(game):
    shapes = province_shapes(BOARD, None, None, 0)
    assert list(shapes) == [province.id for province in BOARD.provinces]
    assert all(re.fullmatch(r"M[-\d. L]+z", path) for path in shapes.values())
    assert path_of("A ALT S F AVE - BIR", shapes) == ("ALT", "AVE", "BIR")
