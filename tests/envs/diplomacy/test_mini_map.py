"""The small board: it loads, no seat has an advantage, and every rule can apply on it."""

import numpy as np
import pytest

from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import ARMY, FLEET, SEA

# Rotation by a third of a turn: each place moves to the corresponding one of the next power.
_ORBITS = (
    "ALT BIR COR", "ARN BOR COL", "AVE BAY CAP", "EMA SMA WMA", "ESO SSO WSO", "ISL ISL ISL",
    "ARN/WC BOR/NC COL/SC", "ARN/EC BOR/SC COL/NC", "ARDEN BRENN CORVO",
)  # fmt: skip
TURN = {a: b for orbit in _ORBITS for a, b in zip(orbit.split(), orbit.split()[1:] + orbit.split()[:1], strict=True)}


@pytest.fixture(scope="module")
def board():
    return load_board("mini")


def test_size_and_centres(board):
    assert len(board.powers) == 3 and len(board.provinces) == 16
    assert len(board.centers) == 10 and board.victory_centers == 6
    assert sum(province.type == SEA for province in board.provinces) == 3
    homes = [sum(province.home == power for province in board.provinces) for power in range(3)]
    assert homes == [2, 2, 2]
    assert sum(province.coasts != () for province in board.provinces) == 3


def test_rotation_by_a_third_of_a_turn_changes_nothing(board):
    source = board.source
    for table in ("army_adjacency", "fleet_adjacency"):
        turned = {TURN[name]: {TURN[other] for other in row} for name, row in source[table].items()}
        assert turned == {name: set(row) for name, row in source[table].items()}
    units = source["initial_units"]
    for power, own in units.items():
        assert {f"{unit[:2]}{TURN[unit[2:]]}" for unit in own} == set(units[TURN[power]])
    by_id = {province.id: province for province in board.provinces}
    for province in board.provinces:
        other = by_id[TURN[province.id]]
        assert (province.type, province.center, len(province.coasts)) == (other.type, other.center, len(other.coasts))
        home = None if province.home is None else TURN[board.powers[province.home]]
        assert home == (None if other.home is None else board.powers[other.home])


def test_both_kinds_move_support_and_convoy(board):
    def steps(kind, start):
        return {board.locations[place] for place in board.neighbours(kind, board.location_index[start])}

    assert {unit[1] for unit in board.initial_units} == {ARMY, FLEET}
    # Two armies of neighbours meet at a centre that both can take first, and a fleet can help.
    assert "EMA" in steps(ARMY, "ALT") & steps(ARMY, "BIR") and "EMA" in steps(FLEET, "ESO")
    # A fleet reaches a neck at one coast from each sound, and both from the port between them.
    assert "ARN/EC" in steps(FLEET, "ESO") and "ARN/WC" not in steps(FLEET, "ESO")
    assert {"ARN/EC", "ARN/WC"} <= steps(FLEET, "AVE")
    # The island has no land neighbour: armies come by convoy, over one sound or by way of two.
    assert steps(ARMY, "ISL") == set() and steps(FLEET, "ISL") == {"ESO", "SSO", "WSO"}
    assert "SSO" in steps(FLEET, "ESO") and "AVE" in steps(FLEET, "ESO")


def test_the_coordinates_have_the_same_symmetry(board):
    points = board.coordinates["points"]
    centre = np.array(points["ISL"]["unit"])
    angle = 2 * np.pi / 3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for name in board.locations:
        turned = turn @ (np.array(points[name]["unit"]) - centre) + centre
        np.testing.assert_allclose(turned, points[TURN[name]]["unit"], atol=0.2)
