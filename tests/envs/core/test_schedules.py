"""Schedules: every form worked by hand, what is refused, and settings that take them."""

import math

import pytest

from mlbits.envs.core.config_fields import configuration, help_text, setting
from mlbits.envs.core.schedules import Scheduled, changes, schedule, value_at


@configuration(ValueError)
class Learner:
    """Settings for tests."""

    rate: Scheduled = setting(0.5, "learning rate", low=0, high=1, scheduled=True)
    clip: Scheduled = setting(0.2, "clip", low=1e-6, high=1, scheduled=True)
    weight: Scheduled = setting("auto", "weight", low=0, high=1, scheduled=True, auto="what fits")


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("constant:0.25", {0: 0.25, 0.5: 0.25, 1: 0.25}),
        ("linear:8:0", {0: 8, 0.25: 6, 0.5: 4, 0.75: 2, 1: 0}),
        ("linear:0:8", {0: 0, 0.25: 2, 1: 8}),
        ("linear:1:0.5:0.2", {0: 1, 0.1: 0.75, 0.2: 0.5, 0.9: 0.5}),  # over a fifth of the run
        ("linear:1:0.5:0", {0: 0.5, 1: 0.5}),
        # 2 + 6 (1 + cos(pi p)) / 2: cos is 1/2 at a third, 0 at a half, -1/2 at two thirds
        ("cosine:8:2", {0: 8, 1 / 3: 6.5, 1 / 2: 5, 2 / 3: 3.5, 1: 2}),
        ("cosine:8:2:0.5", {0: 8, 0.25: 5, 0.5: 2, 1: 2}),
        ("piecewise:0=0,0.1=4,1=0", {0: 0, 0.05: 2, 0.1: 4, 0.55: 2, 1: 0}),
        ("piecewise:0.2=1,0.6=3", {0: 1, 0.2: 1, 0.4: 2, 0.6: 3, 1: 3}),
        ("piecewise:0=4,0.5=4,0.5=1,1=0", {0.25: 4, 0.5: 1, 0.75: 0.5}),  # a jump
        ("stepwise:0=4,0.5=2,0.75=1", {0: 4, 0.49: 4, 0.5: 2, 0.74: 2, 0.75: 1, 1: 1}),
    ],
)
def test_values_by_hand(text, points):
    made = schedule(text)
    assert {progress: made(progress) for progress in points} == pytest.approx(points)


def test_a_progress_beyond_the_run_keeps_the_last_value():
    assert schedule("linear:8:1")(1.2) == 1


@pytest.mark.parametrize(
    "text",
    ["", "fast", "linear", "linear:1", "linear:1:2:0.5:1", "linear:a:b", "cosine:1", "constant:1:2", "piecewise:1",
     "piecewise:0=1,0.5", "stepwise:", "quadratic:1:0", "auto"],
)  # fmt: skip
def test_other_texts_are_refused_with_the_forms_that_exist(text):
    with pytest.raises(ValueError, match=r"^a number, or a schedule such as 'linear:3e-4:0', 'cosine"):
        schedule(text)


@pytest.mark.parametrize("text", ["linear:1:0:1.5", "piecewise:0=1,2=0", "stepwise:0.5=1,0.2=0", "linear:1:0:nan"])
def test_points_outside_the_run_or_out_of_order_are_refused(text):
    with pytest.raises(ValueError, match="fractions of the run from 0 to 1"):
        schedule(text)


def test_a_number_is_annealed_only_if_asked_and_a_schedule_never():
    assert value_at(0.8, 0.75) == 0.8
    assert value_at(0.8, 0.75, anneal=True) == pytest.approx(0.2)
    assert value_at(0.8, 1.0, anneal=True, left=0.1) == pytest.approx(0.08)
    assert value_at("linear:0.8:0.4", 0.5, anneal=True, left=0.1) == pytest.approx(0.6)


def test_what_changes_is_a_curve():
    assert [changes(0.1), changes(0.1, True), changes("linear:1:0"), changes("constant:1", True)] == [
        False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "linear:0.5:-0.1"}, r"^rate: got 'linear:0.5:-0.1'; wanted a schedule of numbers from 0 to 1$"),
        ({"rate": "piecewise:0=0,0.5=1.1,1=0"}, "^rate: got 'piecewise.*wanted a schedule of numbers from 0 to 1$"),
        ({"rate": "linear:inf:0"}, "^rate: got .*; wanted a schedule of numbers from 0 to 1$"),
        ({"rate": "fast"}, "^rate: got 'fast'; wanted a number, or a schedule such as"),
        ({"rate": 1.5}, "^rate: got 1.5; wanted a number from 0 to 1, or a schedule$"),
        ({"rate": True}, "^rate: got True; wanted a number"),
        ({"rate": math.nan}, "^rate: got nan; wanted a number"),
        ({"rate": "auto"}, "^rate: got 'auto'; wanted a number, or a schedule"),
        ({"clip": 0.0}, "^clip: got 0.0; wanted a number"),
        ({"weight": "fast"}, "^weight: got 'fast'; wanted .*, or 'auto'$"),
        ({"weight": 2}, "^weight: got 2; wanted a number from 0 to 1, or a schedule, or 'auto'$"),
    ],
)
def test_what_a_setting_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        Learner(**values)


def test_what_a_setting_takes():
    assert Learner(rate="cosine:1:0", clip="linear:0.2:0", weight=1).clip == "linear:0.2:0"  # only a constant 0 is bad
    assert Learner().weight == "auto"
    fields = {name: help_text(field, Learner) for name, field in Learner.__dataclass_fields__.items()}
    assert fields == {
        "rate": "learning rate; 0 to 1, or a schedule",
        "clip": "clip; above 0, at most 1, or a schedule",
        "weight": "weight; auto: what fits; 0 to 1, or a schedule",
    }
