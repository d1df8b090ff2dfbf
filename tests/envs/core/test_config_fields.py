"""Declared settings: checks, error messages, docstrings, help texts and copies."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Literal

import numpy as np
import pytest

from mlbits.envs.core.config_fields import configuration, help_text, range_text, setting


class SettingError(ValueError):
    """The exception that the configs here raise."""


@configuration(SettingError)
class Training:
    """How something is trained.

    At some length.
    """

    steps: int = setting(4, "steps per round", low=1, high=1e6)
    rate: float = setting(0.5, "learning rate", low=0, high=1)
    target: float | None = setting(None, "divergence to stop at, or None", low=1e-9, unit="nats")
    norm: float = setting(math.inf, "largest gradient", low=1e-9, high=math.inf)
    start: float = setting(0.0, "initial value")
    kind: Literal["plain", "double", "triple"] = setting("plain", "kind of update")
    widths: tuple[int, ...] = setting((64, 64), "widths of the layers", low=1)
    quiet: bool = setting(False, "show nothing")

    def check(self) -> None:
        """Reject double updates at full rate."""
        if self.kind == "double" and self.rate == 1:
            raise SettingError("rate: got 1 with kind='double'; wanted less")


@configuration(SettingError)
class Longer(Training):
    """More of it."""

    steps: int = 9
    seed: int = setting(0, "seed of the draws", low=0)


@pytest.mark.parametrize("config", [Training, Longer])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, "steps: got 0; wanted a number from 1 to 1,000,000"),
        ("steps", 1_000_001, "steps: got 1000001; wanted a number from 1 to 1,000,000"),
        ("steps", math.nan, "steps: got nan; wanted a whole number from 1 to 1,000,000"),
        ("steps", 1.5, "steps: got 1.5; wanted a whole number from 1 to 1,000,000"),
        ("steps", True, "steps: got True; wanted a whole number from 1 to 1,000,000"),
        ("steps", "4", "steps: got '4'; wanted a whole number from 1 to 1,000,000"),
        ("steps", None, "steps: got None; wanted a whole number from 1 to 1,000,000"),
        ("rate", -0.1, "rate: got -0.1; wanted a number from 0 to 1"),
        ("rate", math.nan, "rate: got nan; wanted a number from 0 to 1"),
        ("target", 0.0, "target: got 0.0; wanted a positive number, or None"),
        ("target", math.inf, "target: got inf; wanted a positive number, or None"),
        ("norm", math.nan, "norm: got nan; wanted a positive number"),
        ("start", math.nan, "start: got nan; wanted a finite number"),
        ("start", -math.inf, "start: got -inf; wanted a finite number"),
        ("kind", "single", "kind: got 'single'; wanted 'plain', 'double' or 'triple'"),
        ("widths", (), "widths: got (); wanted one or more positive widths"),
        ("widths", (8, 0), "widths: got (8, 0); wanted one or more positive widths"),
        ("quiet", 1, "quiet: got 1; wanted True or False"),
    ],
)
def test_invalid_values_are_rejected(config, name, value, message):
    with pytest.raises(SettingError) as caught:
        config(**{name: value})
    assert str(caught.value) == message


def test_ranges_are_inclusive_and_may_include_infinity():
    for values in ({"steps": 1, "rate": 1}, {"steps": 10**6, "rate": 0}, {"norm": 3.0}, {"target": 1e-9}):
        assert Training(**values) == Training(**values)
    assert Training().norm == math.inf
    assert Training(steps=np.int64(3), rate=np.float32(0.25)).steps == 3


def test_rules_across_settings_are_checked():
    for config in (Training, Longer):
        with pytest.raises(SettingError, match=r"^rate: got 1 with kind='double'"):
            config(kind="double", rate=1)
    with pytest.raises(SettingError, match=r"^rate: got 1 with"):
        dataclasses.replace(Training(kind="double"), rate=1)


def test_it_is_an_ordinary_frozen_dataclass():
    made = Longer(rate=0.1)
    assert dataclasses.replace(made, steps=2) == Longer(rate=0.1, steps=2)
    assert Longer(**dataclasses.asdict(made)) == made == pickle.loads(pickle.dumps(made))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.rate = 0.2
    with pytest.raises(TypeError):
        Training(3)
    assert not hasattr(made, "__dict__")
    with pytest.raises(SettingError):
        dataclasses.replace(made, rate=math.nan)


def test_a_subclass_keeps_help_and_range_with_its_own_default():
    steps, *_, seed = dataclasses.fields(Longer)
    assert (steps.name, steps.default, seed.name) == ("steps", 9, "seed")
    assert help_text(steps, Longer) == "steps per round; at least 1"


def test_docstrings_list_the_settings():
    assert Training.__doc__.startswith(
        "How something is trained.\n\nAt some length.\n\nAttributes:\n    steps: steps per"
    )
    assert "    steps: steps per round.\n" in Longer.__doc__
    assert Longer.__doc__.endswith("    seed: seed of the draws.")


def test_ranges_in_words():
    texts = {field.name: range_text(Longer, field) for field in dataclasses.fields(Longer)}
    assert texts == {
        "steps": "at least 1",
        "rate": "0 to 1",
        "target": "above 0, in nats",
        "norm": "above 0",
        "start": "",
        "kind": "'plain', 'double' or 'triple'",
        "widths": "each at least 1",
        "quiet": "",
        "seed": "at least 0",
    }
    shown = {field.name: help_text(field, Longer) for field in dataclasses.fields(Longer)}
    assert shown["kind"] == "kind of update"  # the flag shows the choices
    assert shown["target"] == "divergence to stop at, or None; above 0, in nats"


@configuration(SettingError)
class Names:
    """Settings that are not numbers."""

    device: str = setting("cpu", "where it runs")
    rivals: tuple[str, ...] = setting((), "who is met")
    bounds: tuple[float, ...] = setting((0.5,), "limits", low=0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("device", 3, "device: got 3; wanted a string"),
        ("rivals", "random", "rivals: got 'random'; wanted a tuple of strings"),
        ("rivals", (3,), r"rivals: got \(3,\); wanted a tuple of strings"),
        ("bounds", (), r"bounds: got \(\); wanted one or more numbers of at least 0"),
        ("bounds", ("a",), r"bounds: got \('a',\); wanted one or more numbers of at least 0"),
    ],
)
def test_strings_and_tuples_are_checked_too(name, value, message):
    with pytest.raises(SettingError, match=f"^{message}$"):
        Names(**{name: value})


def test_widths_are_whole_numbers():
    for widths in ((64.5,), (64.0,), (True,), (10**400, 0)):
        with pytest.raises(SettingError, match=r"^widths: got .*; wanted one or more positive widths$"):
            Training(widths=widths)


def test_numbers_of_any_size_are_compared():
    for name in ("steps", "rate"):
        with pytest.raises(SettingError, match=f"^{name}: got 1000"):
            Training(**{name: 10**400})
    assert Training(widths=(10**400,)).widths == (10**400,)


def test_numbers_of_numpy_and_lists_become_pythons():
    made = Training(steps=np.int64(7), rate=np.float32(0.5), quiet=np.bool_(True), widths=[np.int32(8), 4])
    assert (made.steps, made.rate, made.quiet, made.widths) == (7, 0.5, True, (8, 4))
    assert [type(value) for value in (made.steps, made.rate, made.quiet, made.widths[0])] == [int, float, bool, int]
    assert Names(rivals=["random"]).rivals == ("random",)
