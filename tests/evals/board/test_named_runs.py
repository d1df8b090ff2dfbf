"""Runs under names of their own, and means over seeds: compared with numbers worked out by hand."""

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mlbits.evals.board.named_runs import NamedRuns
from mlbits.evals.recorded_runs import RecordedRunError
from mlbits.selfplay.curves.events import PREFIX
from tests.evals.recorded import write_run

POLE = "mlbits-CartPole-v0"


def shown(folder):
    """What TensorBoard would call runs."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("*/*/*")}


def scalars(folder):
    """The scalars of a folder's event files, by tag: (step, value) in the order in which they were written."""
    found = {}
    for file in sorted(folder.glob(f"{PREFIX}*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    found.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return found


@pytest.fixture
def runs(tmp_path):
    """Two seeds with one learning rate, and one run with another."""
    for seed, values in enumerate(({0: 1.0, 10: 3.0}, {0: 3.0, 10: 3.0})):
        curves = {"return/eval": values, "return/eval_low": values, "learn/entropy": values}
        write_run(tmp_path / "runs" / f"slow{seed}", curves, seed=seed)
    write_run(tmp_path / "runs" / "fast", {"return/eval": {0: 2.0}}, agent_settings={"learning_rate": 0.5})
    for run in (tmp_path / "runs").iterdir():
        (run / f"{PREFIX}1").write_bytes(b"")
    return tmp_path / "runs"


@pytest.fixture
def named(runs, tmp_path):
    (tmp_path / "board").mkdir()
    found = NamedRuns([runs], tmp_path / "board")
    yield found
    found.close()


def test_runs_are_called_by_what_differs(named, runs, tmp_path):
    named.update()
    of_slow = f"{POLE}/ppo, learning_rate 0.003"
    assert shown(tmp_path / "board") == {
        f"{of_slow}/seed 0", f"{of_slow}/seed 1", f"{of_slow}/mean of 2 seeds", f"{POLE}/ppo, learning_rate 0.5/seed 0"
    }  # fmt: skip
    assert (tmp_path / "board" / of_slow / "seed 1").resolve() == runs / "slow1"
    assert len(named.runs) == 3


def test_means_have_students_interval_over_the_seeds(named, tmp_path):
    named.update()
    found = scalars(tmp_path / "board" / POLE / "ppo, learning_rate 0.003" / "mean of 2 seeds")
    assert set(found) == {"return/eval", "return/eval_low", "return/eval_high"}, "losses say nothing over seeds"
    assert found["return/eval"] == [(0, 2.0), (10, 3.0)]
    half = 12.7062 * np.sqrt(2) / np.sqrt(2)  # t of one degree of freedom, deviation of 1 and 3, two seeds
    assert found["return/eval_low"] == [(0, pytest.approx(2 - half, rel=1e-5)), (10, 3.0)]  # equal seeds: no band
    assert found["return/eval_high"] == [(0, pytest.approx(2 + half, rel=1e-5)), (10, 3.0)]


def test_a_new_record_is_added_and_what_changed_is_written_again(named, runs, tmp_path):
    mean = tmp_path / "board" / POLE / "ppo, learning_rate 0.003" / "mean of 2 seeds"
    named.update()
    for seed in (0, 1):
        with (runs / f"slow{seed}" / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"env_steps": 20, "return/eval": 5.0 + seed}) + "\n")
    named.update()
    named.update()
    assert scalars(mean)["return/eval"] == [(0, 2.0), (10, 3.0), (20, 5.5)], "each once"
    with (runs / "slow0" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"env_steps": 0, "return/eval": 5.0}) + "\n")
    named.update()
    assert scalars(mean)["return/eval"][3:] == [(0, 4.0), (10, 3.0), (20, 5.5)], "from the step that changed"


def test_runs_come_and_go(named, runs, tmp_path):
    named.update()
    (runs / "fast" / "config.json").unlink()
    write_run(runs / "slow2", {"return/eval": {0: 2.0, 10: 6.0}}, seed=2)
    named.update()
    assert shown(tmp_path / "board") == {
        f"{POLE}/ppo/{name}" for name in ("seed 0", "seed 1", "seed 2", "mean of 3 seeds")
    }
    assert scalars(tmp_path / "board" / POLE / "ppo" / "mean of 3 seeds")["return/eval"] == [(0, 2.0), (10, 4.0)]
    assert (runs / "fast").is_dir(), "a run's own folder is only read"


def test_a_seed_twice_is_shown_twice_and_counts_once(named, runs, tmp_path):
    write_run(runs / "again", {"return/eval": {0: 9.0}}, seed=0)
    named.update()
    of_slow = tmp_path / "board" / POLE / "ppo, learning_rate 0.003"
    assert {path.name for path in of_slow.iterdir()} == {"seed 0", "seed 0, again", "seed 1", "mean of 2 seeds"}


def test_where_links_are_not_allowed_event_files_are_copied(named, runs, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr(type(tmp_path), "symlink_to", refuse)
    named.update()
    copy = tmp_path / "board" / POLE / "ppo, learning_rate 0.5" / "seed 0" / f"{PREFIX}1"
    assert copy.read_bytes() == b""
    (runs / "fast" / f"{PREFIX}1").write_bytes(b"more")
    named.update()
    assert copy.read_bytes() == b"more"
    assert not copy.is_symlink()


def test_a_folder_without_runs_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordedRunError, match="no run here"):
        NamedRuns([tmp_path / "empty"], tmp_path).update()
