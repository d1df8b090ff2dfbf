"""``reproduce sac``: how a row is judged by its reference, and that every row's runs can be trained."""

import pytest

from mlbits.evals.reproductions.comparison import Runs
from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.evals.reproductions.value_learning import sac


def side(iqm, low, scores=(1.0, 2.0)):
    return {"scores": list(scores), "iqm": iqm, "interval": [low, iqm + 1], "steps_per_cpu_second": 9.0}


@pytest.mark.parametrize(
    ("ours", "reference", "met"),
    [
        (side(-150, -160), side(-149, -155), True),
        (side(-156, -160), side(-149, -155), False),
        (side(-150, -160, (1.0,)), side(-149, -155), False),  # a run is missing
        (None, side(-149, -155), False),
        (side(-150, -160), None, False),
    ],
)
def test_ours_must_not_be_below_the_references_interval(ours, reference, met):
    row = sac.judged({"ours": ours, "reference": reference})
    assert row["met"] is met


def test_every_row_has_settings_for_both_sides(tmp_path):
    runs = Runs(tmp_path)
    for row in sac._TABLE:
        ours, theirs = sac.entry(*row).trainings([0], reference=True)
        mine, other = runs.settings(ours).agent_config, runs.settings(theirs).agent_config
        assert mine.critic_learning_rate == mine.actor_learning_rate == other.learning_rate
        names = [("tau", "tau"), ("discount", "gamma"), ("learning_starts", "learning_starts"), ("hidden", "hidden"),
                 ("anneal_lr", "anneal_lr"), ("batch_size", "batch_size")]  # fmt: skip
        assert [getattr(mine, one) for one, _ in names] == [getattr(other, two) for _, two in names]


def test_one_seed_has_no_interval():
    with pytest.raises(ReproductionError, match="seeds: got 1; wanted at least 2"):
        sac.reproduce(seeds=1)
