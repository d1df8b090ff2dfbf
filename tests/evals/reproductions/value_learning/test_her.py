"""``reproduce her``: what counts as met, and that a small run of every side works."""

import pytest

from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.evals.reproductions.value_learning import her


@pytest.mark.parametrize(
    ("hindsight", "success", "met"),
    [("future", 0.95, True), ("future", 0.94, False), ("none", 0.49, True), ("none", 0.5, False)],
)
def test_hindsight_has_to_solve_it_and_its_absence_must_not(hindsight, success, met):
    assert her.met({"hindsight": hindsight, "success": success}) is met


def test_success_is_the_share_of_goals_that_were_reached(monkeypatch):
    """One bit, which is always wrong: any play reaches the goal."""
    monkeypatch.setattr(her, "EPISODES", 40)
    task = her.QUICK._replace(settings={"bits": 1}, steps=64, learning={"hidden": (8,), "learning_starts": 0})
    row = her._row(task, "future", 0)
    assert (row["success"], row["hindsight"]) == (1.0, "future")
    far = her.QUICK._replace(settings={"bits": 40}, steps=64, learning={"hidden": (8,), "learning_starts": 0})
    assert her._row(far, "none", 0)["success"] < 0.1


def test_no_seeds_are_refused():
    with pytest.raises(ReproductionError, match="seeds: got 0; wanted at least 1"):
        her.reproduce(seeds=0)
