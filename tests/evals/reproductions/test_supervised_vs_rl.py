"""Labels against rewards: counting examples, choosing rates, testing the law, and the plot."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlbits.cli import main
from mlbits.evals.reproductions import supervised_vs_rl as study
from mlbits.evals.reproductions.reproduction import ReproductionError

FEW = (0.5, 0.6, 0.7)


def test_the_tasks_are_the_same_images_under_fewer_labels():
    digit = study.task(10, "train", "bandit").params[0]
    for labels in (2, 5):
        data = study.task(labels, "train", "bandit").params[0]
        assert np.array_equal(data["features"], digit["features"])
        assert np.array_equal(data["labels"], digit["labels"] % labels)
        images, wanted = study.test_images(labels)
        assert 355 <= len(images) == len(wanted) <= 365
        assert set(wanted.tolist()) == set(range(labels))


def test_examples_are_counted_to_each_level_and_repeat_by_the_seed():
    runs = [study.examples_to_levels("cross_entropy", 10, 1e-2, seed, levels=FEW) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    for run in runs:
        assert all(count % study.COPIES == 0 for count in run)
        assert 0 < run[0] <= run[1] <= run[2] < 1000
    cut = study.examples_to_levels("cross_entropy", 10, 1e-2, 0, levels=(*FEW, 1.1), most=runs[0][1])
    assert cut == [runs[0][0], runs[0][1], None if runs[0][2] > runs[0][1] else runs[0][2], None]


def test_rewards_of_uniform_answers_take_about_n_times_the_examples():
    """Few runs and low levels, so wide bounds; the reproduction itself has narrow ones."""
    logs = []
    for seed in range(3):
        by_label = study.examples_to_levels("cross_entropy", 10, 1e-2, seed, levels=(0.8,))[0]
        by_reward = study.examples_to_levels("uniform", 10, 3e-3, seed, levels=(0.8,))[0]
        logs.append(math.log(by_reward / by_label))
    assert 4 < math.exp(np.mean(logs)) < 25


@pytest.mark.parametrize("learner", study.LEARNERS)
def test_every_learner_learns(learner):
    chance, better = 0.2, 0.5
    first, second = study.examples_to_levels(learner, 5, 3e-3, 0, levels=(chance, better), most=20_000)
    assert first < second


def test_ratios_by_hand():
    ratio = study.ratio_to_labels([20, 80], [10, 10])
    assert ratio["mean"] == pytest.approx(4.0)
    assert ratio["mean"] / ratio["low"] == pytest.approx(ratio["high"] / ratio["mean"])
    equal = study.ratio_to_labels([30, 30, 30], [10, 10, 10])  # whose spread is unknown
    assert equal == pytest.approx({"mean": 3, "low": 0, "high": math.inf})
    assert study.ratio_to_labels([20, None], [10, 10]) is None
    assert study.ratio_to_labels([20, 20], [10, None]) is None


def test_the_chosen_rate_needs_the_fewest_examples(monkeypatch):
    needed = {1e-3: [900, 900, 900], 3e-3: [100, 1000, 900], 1e-2: [100, 900, None], 3e-2: [None, None, None]}
    asked = []

    def made(learner, labels, rate, seed, *, levels, most):
        asked.append((learner, labels, levels))
        return [needed[rate][seed - 1000]]

    monkeypatch.setattr(study, "examples_to_levels", made)
    assert study.choose_rate("q", 5) == 3e-3
    assert set(asked) == {("q", 5, (study.TARGET,))}
    assert not set(study.CHOOSING_SEEDS) & set(range(100))  # not the seeds of the result


def invented(monkeypatch, uniform):
    """Runs whose number of examples is made up: ``uniform(labels)`` times cross-entropy's; rates are not searched."""

    def made(learner, labels, rate, seed, **settings):
        by_label = [100 * (k + 1) * (1 + seed % 2) for k in range(len(study.LEVELS))]
        if learner != "uniform":
            return by_label if learner == "cross_entropy" else [*by_label[:-1], None]
        factor = uniform(labels)
        return [None if factor is None else round(factor * count) for count in by_label]

    monkeypatch.setattr(study, "examples_to_levels", made)
    monkeypatch.setattr(study, "choose_rate", lambda learner, labels: 1e-3)


@pytest.mark.parametrize(
    ("factor", "met"),
    [
        (lambda n: n, True),
        (lambda n: 1.4 * n, True),
        (lambda n: n / 1.4, True),
        (lambda n: 1.6 * n if n == 5 else n, False),
        (lambda n: n / 1.6 if n == 10 else n, False),
        (lambda n: None if n == 2 else n, False),
        (lambda n: 1, False),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_the_law_must_hold_for_every_number_of_labels(monkeypatch, quick, factor, met):
    invented(monkeypatch, factor)
    result = study.reproduce(quick, seeds=3)
    assert result["met"] is met
    rows = result["results"]
    assert [row["labels"] for row in rows[:: len(rows) // 3]] == [2, 5, 10]
    assert {row["learner"] for row in rows} == ({"cross_entropy", "uniform"} if quick else set(study.LEARNERS))
    assert all(len(level) == 3 for row in rows for level in row["examples"])
    assert json.loads(json.dumps(result)) == result
    by_label = rows[0]
    assert by_label["ratio"][-1] == {"mean": 1, "low": 1, "high": 1}
    assert by_label["needed"][0]["mean"] == pytest.approx(100 * 2 ** (1 / 3))


@pytest.mark.slow
def test_the_command_draws_what_it_measured(monkeypatch, tmp_path, capsys):
    invented(monkeypatch, lambda n: n)
    picture, file = tmp_path / "curves.png", tmp_path / "result.json"
    words = ["reproduce", "supervised-vs-rl", "--seeds", "2", "--plot", str(picture), "--json", str(file)]
    assert main(words) == 0
    assert "target met" in capsys.readouterr().out
    with Image.open(picture) as image:
        assert min(image.size) > 300
        drawn = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) > 50
    again = tmp_path / "again.png"
    study.draw(json.loads(file.read_text()), again)
    assert again.read_bytes() == picture.read_bytes()


def test_invalid_arguments_are_refused_before_measuring(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "examples_to_levels", None)
    with pytest.raises(ReproductionError, match="seeds: got 0; wanted at least 1"):
        study.reproduce(seeds=0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ReproductionError, match="plot: matplotlib is not installed"):
        study.reproduce(plot=tmp_path / "curves.png")


def test_the_documented_result_meets_the_law_and_the_quick_form_uses_its_rates():
    result = json.loads((Path(__file__).parents[3] / "docs" / "pictures" / "supervised_vs_rl.json").read_text())
    assert result["met"] is True
    assert tuple(result["levels"]) == study.LEVELS
    for row in result["results"]:
        rates = study.LEARNERS[row["learner"]].quick_rates
        if rates:
            assert row["rate"] == rates[study.LABELS.index(row["labels"])]
