"""Choice between one core and several: simulated machines on which other processes come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest

from mlbits.envs.engine import cpu_copies as copies_module
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.envs.engine.multicore import CoreChoice
from tests.games import throws

Seconds = Callable[[float, int], float]  # of a step, from the clock and the step's number


class Step(NamedTuple):
    """A simulated step.

    Attributes:
        began: time at its start, in seconds.
        several: whether it ran on several cores.
        seconds: time that it took.
        alone: time that it would have taken on one core.
    """

    began: float
    several: bool
    seconds: float
    alone: float


def simulate(one: Seconds, many: Seconds, until: float = 20.0) -> list[Step]:
    choice, clock, steps = CoreChoice(), 0.0, []
    while clock < until:
        several = choice.several()
        alone = one(clock, len(steps))
        seconds = many(clock, len(steps)) if several else alone
        choice.note(seconds)
        steps.append(Step(clock, several, seconds, alone))
        clock += seconds
    return steps


def relative_speeds(steps: list[Step], width: float = 1.0) -> Iterator[float]:
    """Work done in every interval, divided by the work that one core alone would have done in it."""
    done = np.cumsum([0.0, *(step.alone for step in steps)])
    clock = np.array([0.0, *(step.began + step.seconds for step in steps)])
    for k, began in enumerate(clock):
        end = int(np.searchsorted(clock, began + width))
        if end < len(clock):
            yield float((done[end] - done[k]) / (clock[end] - began))


def several_fraction(steps: list[Step], since: float = 0.0, until: float = np.inf) -> float:
    """The fraction of steps that ran on several cores."""
    chosen = [step.several for step in steps if since <= step.began < until]
    return sum(chosen) / len(chosen)


MS = 1e-3
draw = np.random.default_rng(0).random(100_000)


def constant(seconds: float) -> Seconds:
    return lambda clock, step: seconds


def loaded(fast: float, slow: float, chance: float, when: Callable[[float], bool] = lambda clock: True) -> Seconds:
    """A step that with some probability finds a core taken, and then waits up to ``slow`` seconds for it."""

    def seconds(clock: float, step: int) -> float:
        waits = when(clock) and draw[2 * step % 100_000] < chance
        return fast + (slow * draw[(2 * step + 1) % 100_000] if waits else 0.0)

    return seconds


def every(period: int, fast: float, slow: float) -> Seconds:
    return lambda clock, step: slow if step % period == 0 else fast


BUSY: dict[str, tuple[Seconds, Seconds]] = {
    "half of the steps wait for a slice": (constant(1.3 * MS), loaded(0.7 * MS, 15 * MS, 0.5)),
    "one step in ten waits": (constant(1.3 * MS), loaded(0.7 * MS, 15 * MS, 0.1)),
    "one step in forty waits long": (constant(1.3 * MS), loaded(0.7 * MS, 60 * MS, 0.025)),
    "every step waits": (constant(1.3 * MS), constant(15 * MS)),
    "always a little slower": (constant(1.3 * MS), constant(1.45 * MS)),
    "always twice as slow": (constant(1.3 * MS), constant(2.6 * MS)),
    "small steps": (constant(0.1 * MS), loaded(0.06 * MS, 15 * MS, 0.2)),
    "larger steps": (constant(20 * MS), loaded(11 * MS, 30 * MS, 0.8)),
    "one core is slowed down too": (loaded(1.3 * MS, 8 * MS, 0.05), loaded(0.7 * MS, 15 * MS, 0.5)),
    "comes and goes": (constant(1.3 * MS), loaded(0.7 * MS, 15 * MS, 0.5, lambda clock: clock % 6 > 3)),
    "comes and goes fast": (constant(1.3 * MS), loaded(0.7 * MS, 15 * MS, 0.5, lambda clock: clock % 0.4 > 0.2)),
    "an early step is held up": (lambda clock, step: (30 if step == 4 else 1.3) * MS, loaded(0.7 * MS, 15 * MS, 0.5)),
    "begins under load": (lambda clock, step: (30 if step < 4 else 1.3) * MS, loaded(0.7 * MS, 15 * MS, 0.5)),
} | {f"every {n}th waits": (constant(1.3 * MS), every(n, 0.7 * MS, 15 * MS)) for n in (2, 3, 5, 8, 9, 16, 17, 30)}


@pytest.mark.parametrize("case", BUSY)
def test_no_second_is_slower_than_one_core_by_much(case: str) -> None:
    """Under any load, at most a sixth of any second is lost, and a fiftieth of all time in the end."""
    steps = simulate(*BUSY[case])
    assert min(relative_speeds(steps)) > 1 - 1 / 6
    assert sum(step.alone for step in steps) > (1 - 1 / 50) * sum(step.seconds for step in steps)


def test_a_free_machine_is_used() -> None:
    steps = simulate(constant(1.3 * MS), loaded(0.7 * MS, 0.2 * MS, 0.1))
    assert several_fraction(steps) > 0.99
    assert sum(step.alone for step in steps) > 1.7 * sum(step.seconds for step in steps)


def test_rare_waits_on_a_free_machine_do_not_lead_to_one_core() -> None:
    """A step in 200 that waits 20 ms leaves the mean far below one core's."""
    steps = simulate(constant(1.3 * MS), every(200, 0.7 * MS, 20 * MS))
    assert several_fraction(steps) > 0.98


def test_after_load_has_gone_several_cores_are_used_again_within_ten_seconds() -> None:
    steps = simulate(constant(1.3 * MS), loaded(0.7 * MS, 15 * MS, 0.5, lambda clock: clock < 60), until=90)
    assert several_fraction(steps, 50, 60) < 0.03
    assert several_fraction(steps, 70) > 0.98


def test_steady_load_costs_less_and_less() -> None:
    steps = simulate(constant(1.3 * MS), constant(15 * MS), until=60)
    lost = [sum(s.seconds - s.alone for s in steps if a <= s.began < a + 20) for a in (0, 20, 40)]
    assert 0 < lost[2] < 0.01 * 20
    assert lost[2] < lost[0]


def test_one_core_becoming_faster_is_noticed_while_several_are_used() -> None:
    """Under load at first, 5 ms compared with 3; then one core takes 1 ms, which several never reach."""
    steps = simulate(
        lambda clock, step: (5 if clock < 5 else 1) * MS, lambda clock, step: (3 if clock < 5 else 1.5) * MS
    )
    assert several_fraction(steps, 2, 5) > 0.95
    assert several_fraction(steps, 8) < 0.1


def test_one_delayed_measurement_is_not_trusted() -> None:
    """One core's step takes 1.3 ms, once 500; several cores, then at 2.6 ms, are given up within half a second."""
    choice = CoreChoice()
    for _ in range(5):
        choice.note(1.3 * MS)
    while choice.several():
        choice.note(0.7 * MS)
    choice.note(0.5)
    clock = 0.0
    while choice.several():
        choice.note(2.6 * MS)
        clock += 2.6 * MS
    assert clock < 0.4
    assert not choice.several()
    choice.note(1.3 * MS)
    assert not choice.several(), "a period on one core, not a measurement"


def test_steps_of_seconds_lose_no_more_than_a_few_of_them() -> None:
    steps = simulate(constant(0.2), constant(1.0), until=100)
    assert sum(step.several for step in steps) <= 8


class Alternating(CoreChoice):
    """Runs every other step on several cores."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[float] = []

    def several(self) -> bool:
        return len(self.noted) % 2 == 1

    def note(self, seconds: float) -> None:
        self.noted.append(seconds)


@pytest.mark.parametrize("illegal", ["error", "replace"])
def test_results_do_not_depend_on_the_choice(monkeypatch: pytest.MonkeyPatch, illegal: str) -> None:
    monkeypatch.setattr(copies_module, "_COPIES_A_THREAD", 4)
    monkeypatch.setattr(copies_module, "usable_cores", lambda: 2)
    one, some = (Copies(throws(), 9, threads=threads, illegal=illegal) for threads in (1, None))  # type: ignore[arg-type]
    some._core_choice = choice = Alternating()
    used = []
    parallel = some._driver.run_parallel
    monkeypatch.setattr(some._driver, "run_parallel", lambda *a: (used.append(a[0]), parallel(*a)))
    for copies in (one, some):
        copies.reset()
    for step in range(20):
        actions = (np.arange(27).reshape(9, 3) + step) % 3
        one.step(actions)
        some.step(actions)
        assert one.states.tobytes() == some.states.tobytes()
        assert (one.obs == some.obs).all() and (one.rewards == some.rewards).all()
        assert (one.terminated == some.terminated).all()
    assert len(choice.noted) == 20, "checks and steps are timed together"
    assert len(used) == (20 if illegal == "error" else 10), "a check runs on the same cores as its step"
