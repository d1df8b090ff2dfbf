"""Declaring a game: parameters, names and spaces, with an error for each mistake."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.core.game import make_params
from tests.games import nim, point, signs, throws

FIELDS = [("count", "i4"), ("payoff", "f4", (2, 3))]


def test_params_hold_the_values_and_the_horizon() -> None:
    params = make_params(FIELDS, {"count": 3, "payoff": [[1, 2, 3], [4, 5, 6]]}, 50)
    assert params.shape == (1,)
    assert (params["count"][0], params["horizon"][0]) == (3, 50)
    assert params["payoff"][0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert params.dtype.isalignedstruct


def test_a_shorter_array_fills_the_front_and_leaves_zeros() -> None:
    params = make_params(FIELDS, {"count": 3, "payoff": [[1, 2]]})
    assert params["payoff"][0].tolist() == [[1, 2, 0], [0, 0, 0]]
    assert params["horizon"][0] == 0


@pytest.mark.parametrize(
    ("fields", "values", "horizon", "message"),
    [
        (FIELDS, {"count": 3}, None, r"got values for \['count'\]; wanted \['count', 'payoff'\]"),
        (FIELDS, {"count": 3, "payoff": [[0]], "extra": 1}, None, "extra"),
        (
            FIELDS,
            {"count": 3, "payoff": [1, 2]},
            None,
            r"payoff'\]: got shape \(2,\); wanted at most \(2, 3\)",
        ),
        (FIELDS, {"count": 3, "payoff": np.zeros((3, 3))}, None, r"got shape \(3, 3\)"),
        (FIELDS, {"count": 3, "payoff": [[0]]}, 0, "horizon: got 0"),
        (FIELDS, {"count": 3, "payoff": [[0]]}, 2**31, "horizon: got"),
        ([("horizon", "i4")], {"horizon": 3}, None, "belong to the core"),
        ([("a", "i4"), ("a", "f4")], {"a": 3}, None, "each name once"),
    ],
)
def test_bad_params(fields: Any, values: Any, horizon: Any, message: str) -> None:
    with pytest.raises(GameError, match=message):
        make_params(fields, values, horizon)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Rock paper"}, "name: got 'Rock paper'"),
        ({"seats": 0}, "seats: got 0"),
        ({"state_fields": [("elapsed", "i4")]}, r"\['elapsed'\] belong to the core"),
        ({"state_fields": [("a", "i4"), ("a", "i4")]}, "each name once"),
        ({"params": np.zeros(1)}, "made by make_params"),
        ({"params": np.repeat(throws().params, 2)}, "made by make_params"),
        ({"action_space": spaces.MultiBinary(3)}, "action_space"),
        ({"observation_space": spaces.Text(3)}, "observation_space"),
        ({"action_space": spaces.Box(0, 1, (1,)), "legal": nim().legal}, "bounds, not a mask"),
    ],
)
def test_bad_games(change: dict[str, Any], message: str) -> None:
    with pytest.raises(GameError, match=message):
        dataclasses.replace(throws(), **change)


def test_derived_properties_of_a_game() -> None:
    assert (nim().horizon, throws(horizon=4).horizon) == (None, 4)
    assert (nim().masked, throws().masked, signs().masked, point().masked) == (True, False, True, False)
    assert nim().action.mask_size == 9
    assert signs().action.mask_size == 5
    assert nim().state_dtype.names == ("rng_key", "rng_counter", "elapsed", "over", "heap", "turn")
    assert nim().state_dtype.isalignedstruct


def test_games_with_passes_have_a_mask_unless_actions_are_continuous() -> None:
    from tests.games import tug

    turns_without_a_rule_for_legal = dataclasses.replace(nim(), legal=None)
    assert turns_without_a_rule_for_legal.masked
    assert not tug().masked


def test_limiting_a_game() -> None:
    game = throws(horizon=10)
    assert game.limited_to(None) is game
    assert game.limited_to(4).horizon == 4
    assert game.limited_to(40).horizon == 10
    assert throws(horizon=None).limited_to(4).horizon == 4
    assert game.horizon == 10, "the game itself is unchanged"
    with pytest.raises(GameError, match="time limit: got 0"):
        game.limited_to(0)


def test_errors_share_a_base_class() -> None:
    """The command line prints MlbitsError as one line; libraries catch the usual built-in ones."""
    with pytest.raises(MlbitsError):
        make_params([], {"x": 1})
    with pytest.raises(ValueError, match="params"):
        make_params([], {"x": 1})


@pytest.mark.parametrize("name", ["size", "shape", "max", "item", "fill"])
def test_field_names_of_record_attributes_are_refused(name: str) -> None:
    with pytest.raises(GameError, match="attributes of NumPy's records"):
        make_params([(name, "i4")], {name: 1})
