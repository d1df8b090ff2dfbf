"""Shared checks of game factories: accepted and refused values, and array sizes."""

import numpy as np
import pytest

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.settings import capacity, choice, flag, integer, number, numbers


def test_valid_values_are_returned_in_plain_types():
    assert integer("n", np.int16(3), 3, 3) == 3
    assert type(integer("n", np.int16(3), 0, 9)) is int
    assert type(number("x", np.float32(0.5))) is float
    assert number("x", 2, 0.0, 2.0) == 2.0
    assert numbers("xs", (1, 2.5)).tolist() == [1.0, 2.5]
    assert choice("word", "b", ("a", "b")) == "b"
    assert flag("on", np.True_) is True


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 4, -1, float("nan")])
def test_integers_are_whole_and_within_their_bounds(value):
    with pytest.raises(GameError, match=r"n: got .*; wanted an integer from 0 to 3"):
        integer("n", value, 0, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", None, -0.1])
def test_numbers_are_finite_and_within_their_bounds(value):
    with pytest.raises(GameError, match=r"x: got .*; wanted a finite number from 0$"):
        number("x", value, 0.0)
    with pytest.raises(GameError, match=r"xs\[1\]: got .*; wanted a finite number from 0$"):
        numbers("xs", [1.0, value], 0.0)


@pytest.mark.parametrize("value", [1, 0, "yes", None])
def test_flags_are_true_or_false(value):
    with pytest.raises(GameError, match=r"on: got .*; wanted True or False"):
        flag("on", value)


def test_the_error_of_a_choice_lists_the_choices():
    for value in ("c", None, 1, ["a"]):
        with pytest.raises(GameError, match=r"word: got .*; wanted one of 'a', 'b'"):
            choice("word", value, ("a", "b"))


def test_arrays_come_in_few_sizes():
    assert [capacity(n) for n in (1, 16, 17, 64, 65, 1000, 40_000)] == [16, 16, 64, 64, 256, 1024, 65536]
