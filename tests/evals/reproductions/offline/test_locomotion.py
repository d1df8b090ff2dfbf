"""``mlbits reproduce crr-locomotion``: which stages are chosen, what is kept and goes on, what is checked."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from mlbits.agents.memory.minari import read_dataset
from mlbits.evals.reproductions.offline import locomotion
from mlbits.evals.reproductions.offline.behaviours import PENDULUM
from mlbits.evals.reproductions.reproduction import ReproductionError

TINY = {"hidden": (4,), "batch_size": 8, "updates_per_iteration": 2}
CASE = locomotion.Case(
    PENDULUM, -3000, -2500, 100, 300, {"hidden": (4,), "learning_starts": 150, "batch_size": 8}, episodes=2, trials=2,
    agents={"bc": ("bc", TINY), "crr exp": ("crr", TINY)},
)  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folder and the result of a tiny case."""
    out = tmp_path_factory.mktemp("locomotion")
    return out, locomotion.compare(CASE, out, seeds=2, steps=4)


def refuse(*words, **settings):
    raise AssertionError("made again")


def test_the_same_command_goes_on_where_it_was(kept, tmp_path, monkeypatch):
    out, result = kept
    assert [len(values) for values in result["returns"].values()] == [2, 2]
    assert {name: result["behaviours"][name]["steps"] for name in ("medium", "expert")} == {
        "medium": 100,
        "expert": 100,
    }
    again = shutil.copytree(out, tmp_path / "again")
    for module, name in ((locomotion.training, "train"), (locomotion.training, "resume"), (locomotion, "record")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(locomotion, "learned", refuse)
    assert locomotion.compare(CASE, again, seeds=2, steps=4) == result
    with pytest.raises(AssertionError, match="made again"):  # of other settings, or of other data, there are none
        locomotion.compare(CASE, again, seeds=2, steps=6)
    shutil.rmtree(again / "medium-v0")
    shutil.copytree(again / "expert-v0", again / "medium-v0")
    with pytest.raises(AssertionError, match="made again"):
        locomotion.compare(CASE, again, seeds=2, steps=4)


def test_an_interrupted_training_is_resumed_to_the_same_stages(kept, tmp_path):
    out, _ = kept
    weights = {}
    for name in ("straight", "interrupted"):
        run = tmp_path / name
        if name == "interrupted":
            shutil.copytree(out / "behaviour", run)
        weights[name] = [agent.state_dict() for _, agent in locomotion.stages(CASE, run)]
    assert len(weights["straight"]) == 3
    for one, other in zip(*weights.values(), strict=True):
        assert all(bool((one[key] == other[key]).all()) for key in one)
    assert any(
        bool((weights["straight"][0][key] != weights["straight"][2][key]).any()) for key in weights["straight"][0]
    )


def test_each_policy_plays_half_of_the_episodes(kept):
    out, _ = kept
    _, data = locomotion.behaviours_and_data(CASE, out)
    parts = [read_dataset(out / f"{name}-v0") for name in ("medium", "expert")]
    assert [part.num_episodes for part in parts] == [2, 2] and data.num_episodes == 4
    assert not set(parts[0].seeds.tolist()) & set(parts[1].seeds.tolist())
    assert sorted(data.returns.tolist()) == sorted([*parts[0].returns.tolist(), *parts[1].returns.tolist()])


def grades_of(monkeypatch, grades):
    """Stages with these grades, in place of training."""
    monkeypatch.setattr(locomotion, "stages", lambda case, run: ((100 * k, k) for k in range(1, len(grades) + 1)))
    monkeypatch.setattr(locomotion, "return_of", lambda agent, env, episodes, seed: grades[agent - 1])


def test_the_first_stages_that_reach_the_levels_are_chosen(monkeypatch, tmp_path):
    case = dataclasses.replace(CASE, medium=10, expert=30)
    grades_of(monkeypatch, [5, 12, 8, 29, 31, 50])
    assert locomotion.graded(case, tmp_path) == {"medium": (200, 12, 2), "expert": (500, 31, 5)}
    grades_of(monkeypatch, [0, 0, 0, 0, 0])  # graded already
    assert locomotion.graded(case, tmp_path)["expert"] == (500, 31, 5)


def test_a_training_that_reaches_no_expert_is_named(monkeypatch, tmp_path):
    grades_of(monkeypatch, [5, 12, 8])
    with pytest.raises(ReproductionError, match="returns up to 12 in 300 steps of training; wanted 30"):
        locomotion.graded(dataclasses.replace(CASE, medium=10, expert=30), tmp_path)


def test_checks():
    scores = {"bc": [50.0, 60.0], "bc, best 10%": [70.0, 80.0], "crr exp": [70.0, 78.0], "crr+": [90.0, 20.0]}
    assert locomotion._checks(scores, 30.0) == {
        "crr exp scores above bc": True,
        "crr exp scores above bc, best 10%": False,
        "no seed of crr exp scores below the medium policy": True,
        "crr+ scores above bc": False,
        "crr+ scores above bc, best 10%": False,
        "no seed of crr+ scores below the medium policy": False,
    }


@pytest.mark.parametrize("name", ["seeds", "steps"])
def test_errors(name):
    with pytest.raises(ReproductionError, match=f"{name}: got 0; wanted at least 1"):
        locomotion.reproduce(**{name: 0})


@pytest.mark.slow
def test_the_short_form_meets_its_target():
    assert locomotion.reproduce(quick=True)["met"]


def test_a_relative_folder_holds_the_data_too(kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(locomotion, "SWING_UP", CASE)
    shutil.copytree(kept[0], "kept")
    shutil.rmtree(Path("kept", "medium-v0"))
    assert locomotion.reproduce(quick=True, out=Path("kept"))["behaviours"] == kept[1]["behaviours"]
    assert Path("kept", "medium-v0").is_dir()
    assert not (tmp_path / "elsewhere").exists()
