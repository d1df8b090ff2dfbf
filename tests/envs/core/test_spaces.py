"""Memory layouts of spaces, and checks of an action's shape and dtype."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.spaces import action_layout, checked_action, observation_layout, own_observation


@pytest.mark.parametrize(
    ("space", "dtype", "shape", "view_shape"),
    [
        (spaces.Discrete(5), np.int32, (1,), (2, 3)),
        (spaces.Box(0, 255, (4, 5), np.uint8), np.uint8, (4, 5), (2, 3, 4, 5)),
        (spaces.Box(-1, 1, (), np.float64), np.float64, (), (2, 3)),
        (spaces.MultiDiscrete([3, 4]), np.int32, (2,), (2, 3, 2)),
        (spaces.MultiBinary(6), np.int8, (6,), (2, 3, 6)),
    ],
)
def test_observation_layouts(space: Any, dtype: Any, shape: tuple[int, ...], view_shape: tuple[int, ...]) -> None:
    layout = observation_layout(space)
    assert (layout.dtype, layout.shape, layout.keys) == (dtype, shape, None)
    assert layout.user_view(np.zeros((2, 3, *shape), dtype)).shape == view_shape


def test_a_dict_is_one_record_per_seat() -> None:
    space = spaces.Dict({"far": spaces.Box(0, 1, (2, 3), np.float64), "id": spaces.Discrete(9)})
    layout = observation_layout(space)
    assert layout.shape == ()
    assert layout.dtype.isalignedstruct
    buffer = np.zeros((4, 1), layout.dtype)
    view = layout.user_view(buffer)
    assert view["far"].shape == (4, 1, 2, 3)
    assert view["id"].shape == (4, 1)
    view["id"][2] = 7
    assert buffer["id"][2, 0] == 7, "it is a view, not a copy"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(3, start=1), "start=1; wanted start=0"),
        (spaces.MultiDiscrete([3, 3], start=[0, 1]), "wanted start=0"),
        (spaces.Box(0, 1, (2,), np.uint16), "got Box of uint16; wanted one of bool"),
        (spaces.Text(4), "got Text.*wanted Discrete, Box"),
        (spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}), r"\['a'\]: got a nested Dict"),
        (spaces.Tuple([spaces.Discrete(2)]), "got Tuple"),
    ],
)
def test_observation_spaces_that_are_refused(space: Any, message: str) -> None:
    with pytest.raises(GameError, match=message):
        observation_layout(space)


def test_action_layouts() -> None:
    one = action_layout(spaces.Discrete(5))
    assert (one.kind, one.dtype, one.shape, one.nvec, one.mask_size) == ("discrete", np.int64, (), (5,), 5)
    several = action_layout(spaces.MultiDiscrete([3, 4]))
    assert (several.kind, several.dtype, several.shape) == ("multi_discrete", np.int64, (2,))
    assert (several.nvec, several.mask_size) == ((3, 4), 7)
    box = action_layout(spaces.Box(np.array([-1, 0]), np.array([1, np.inf]), dtype=np.float64))
    assert (box.kind, box.dtype, box.shape, box.mask_size) == ("continuous", np.float32, (2,), 0)
    assert box.low.tolist() == [-1, 0]
    assert box.high.tolist() == [1, np.inf]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=2),
        spaces.MultiDiscrete([2, 2], start=[1, 1]),
        spaces.MultiDiscrete([[2, 2], [2, 2]]),
        spaces.Box(0, 1, (2, 2)),
        spaces.MultiBinary(3),
    ],
)
def test_action_spaces_that_are_refused(space: Any) -> None:
    with pytest.raises(GameError, match="action_space: got"):
        action_layout(space)


DISCRETE, SEVERAL, BOX = spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("space", "action", "wanted"),
    [
        (DISCRETE, 3, 3),
        (DISCRETE, np.int8(3), 3),
        (DISCRETE, np.array(3, np.uint16), 3),
        (DISCRETE, 9, 9),  # the driver checks the range
        (SEVERAL, [1, 2], [1, 2]),
        (SEVERAL, (1, 2), [1, 2]),
        (SEVERAL, np.array([1, 2], np.int32), [1, 2]),
        (BOX, [0.5, 1], [0.5, 1]),
        (BOX, np.array([0, 1]), [0, 1]),
        (BOX, np.array([0.25, np.nan]), [0.25, np.nan]),
        (BOX, np.array([1e300, 0]), [np.inf, 0]),
    ],
)
def test_actions_are_cast_to_the_layout(space: Any, action: Any, wanted: Any) -> None:
    layout = action_layout(space)
    got = checked_action(action, space, layout)
    assert (got.dtype, got.shape) == (layout.dtype, layout.shape)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (DISCRETE, 1.0),
        (DISCRETE, True),
        (DISCRETE, None),
        (DISCRETE, "up"),
        (DISCRETE, [1]),
        (DISCRETE, 2**80),
        (SEVERAL, 1),
        (SEVERAL, [1, 2, 0]),
        (SEVERAL, [1.0, 2.0]),
        (SEVERAL, [[1], [1, 2]]),
        (BOX, [0.5]),
        (BOX, 0.5),
        (BOX, [True, False]),
        (BOX, [1j, 0]),
        (BOX, ["a", "b"]),
    ],
)
def test_actions_of_a_wrong_shape_or_dtype_are_refused(space: Any, action: Any) -> None:
    with pytest.raises(IllegalActionError, match=r"^move of Ann: got .*; wanted (Multi|Disc|Box)"):
        checked_action(action, space, action_layout(space), "move of Ann")


def test_own_observations_have_the_dtypes_of_the_space_and_are_copies() -> None:
    space = spaces.Dict({"id": spaces.Discrete(9), "pair": spaces.MultiDiscrete([3, 3])})
    layout = observation_layout(space)
    buffer = np.ones(1, layout.dtype)
    own = own_observation(space, layout.user_view(buffer[0]))
    assert type(own["id"]) is np.int64
    assert own["pair"].dtype == np.int64
    assert own in space
    buffer["pair"] = 2
    assert own["pair"].tolist() == [1, 1]


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (0,)), spaces.Box(-1, 1, (2, 0)), spaces.Dict({})])
def test_empty_spaces_are_refused(space):
    with pytest.raises(GameError, match=f"^observation_space: got {re.escape(str(space))}, which is empty; wanted"):
        observation_layout(space)
    if not isinstance(space, spaces.Dict):
        with pytest.raises(GameError, match=r"^action_space: got .*, which is empty; wanted"):
            action_layout(space)


def test_spaces_with_too_many_values_for_int32_are_refused():
    for space in (spaces.Discrete(2**31), spaces.MultiDiscrete([2, 2**31])):
        for layout in (observation_layout, action_layout):
            with pytest.raises(GameError, match=r"_space: got .*; wanted fewer than 2147483648 values"):
                layout(space)
    assert observation_layout(spaces.Discrete(2**31 - 1)).scalar
