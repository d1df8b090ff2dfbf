"""Jobs by the three executors: the same results, each job once, failures tried again, killed processes replaced."""

import json
import threading
import time

import pytest

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.jobs import job as job_module
from mlbits.evals.jobs.executors import Report, open_executor
from mlbits.evals.jobs.job import Job, JobError, job_from
from mlbits.evals.jobs.local_processes import LocalProcesses
from mlbits.evals.jobs.queue import LOSSES, TRIES, JobQueue, run_jobs
from mlbits.evals.jobs.store import Store
from mlbits.selfplay.runs.config import ConfigError

WORK = "tests.evals.jobs.work"


def square(number, note=""):
    return Job(f"square of {number}", f"{WORK}:squared", {"number": number, "note": str(note)})


def counted(name, times, path):
    return Job(f"{name} {times} times", f"{WORK}:{name}", {"times": times, "count": str(path)})


# The same on all executors


def test_values_come_in_the_order_of_the_jobs(executor):
    ended = run_jobs([square(number) for number in (5, 2, 9, 2)], executor)
    assert [(one.job.name, one.value, one.error) for one in ended] == [
        (f"square of {number}", number**2, "") for number in (5, 2, 9, 2)
    ]


def test_numbers_arrive_with_all_their_bits(executor):
    (ended,) = run_jobs([Job("thirds", f"{WORK}:thirds", {"count": 50})], executor)
    assert ended.value == [1 / 3 * k for k in range(50)]


def test_equal_jobs_are_run_once_and_stored_ones_not_at_all(executor, tmp_path):
    note, store = tmp_path / "note", Store(tmp_path / "store")
    jobs = [square(number, note) for number in (3, 4, 3)]
    assert [one.value for one in run_jobs(jobs, executor, store=store)] == [9, 16, 9]
    assert sorted(note.read_text().split()) == ["3", "4"]
    again = run_jobs([*jobs, square(5, note)], executor, store=store)
    assert [(one.value, one.stored) for one in again] == [(9, True), (16, True), (9, True), (25, False)]
    assert sorted(note.read_text().split()) == ["3", "4", "5"]


def test_a_job_that_fails_is_tried_again_and_then_told_by_name(executor, tmp_path):
    said = []
    jobs = [counted("fails", TRIES - 1, tmp_path / "a"), counted("fails", 99, tmp_path / "b"), square(2)]
    late, never, other = run_jobs(jobs, executor, say=said.append)
    assert (late.value, late.error) == (TRIES, "")
    assert never.error == f"ValueError: not yet, {TRIES} (tried {TRIES} times)"
    assert (tmp_path / "b").read_text() == "x" * TRIES
    assert other.value == 4
    assert "fails 99 times: ValueError: not yet, 1; running it again" in said
    with pytest.raises(JobError, match=r"^fails 99 times: ValueError: not yet"):
        never.result()


def test_failed_jobs_are_not_stored(executor, tmp_path):
    store, job = Store(tmp_path / "store"), counted("fails", 1, tmp_path / "count")
    assert run_jobs([job], executor, store=store, tries=1)[0].error == "ValueError: not yet, 1"
    assert run_jobs([job], executor, store=store, tries=1)[0].value == 2


def test_the_jobs_of_a_process_that_is_killed_are_run_again(executor, tmp_path):
    if executor.kind == "in process":
        pytest.skip("a job that kills its process would kill this one")
    said = []
    once, always, other = run_jobs(
        [counted("dies", 1, tmp_path / "a"), counted("dies", 99, tmp_path / "b"), square(2)], executor, say=said.append
    )
    assert (once.value, other.value) == (2, 4)
    assert always.error.endswith(f"; so did {LOSSES} processes that ran it")
    assert (tmp_path / "b").read_text() == "x" * LOSSES
    assert any("dies 1 times: its process" in line and line.endswith("; running it again") for line in said)
    if executor.kind == "local":
        assert "was killed (SIGKILL)" in always.error


def test_several_jobs_run_at_once(executor, tmp_path):
    if executor.kind == "in process":
        pytest.skip("it runs one at a time")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    jobs = [Job(own, f"{WORK}:meets", {"own": own, "other": other}) for own, other in ((a, b), (b, a))]
    assert [one.value for one in run_jobs(jobs, executor)] == [True, True]


def test_values_that_are_not_plain_data_are_refused(executor):
    if executor.kind == "in process":
        pytest.skip("they stay in this process")
    (ended,) = run_jobs([Job("a set", f"{WORK}:unplain", {})], executor, tries=1)
    assert "not JSON serializable" in ended.error


# Keys and stored results


def test_a_key_says_what_is_computed(monkeypatch):
    job = Job("a", "module:function", {"b": 1, "a": [1.5, "x"]})
    assert job.key == Job("other name", "module:function", {"a": [1.5, "x"], "b": 1}, here=print).key
    others = [
        Job("a", "module:other", job.arguments), Job("a", "module:function", {"b": 2, "a": [1.5, "x"]}),
        Job("a", "module:function", {"b": 1.0, "a": [1.5, "x"]}),
    ]  # fmt: skip
    assert len({job.key, *(other.key for other in others)}) == 4
    assert job_from(job.text()).key == job.key
    assert list(job_from(job.text()).arguments) == ["b", "a"]  # an order may mean something
    monkeypatch.setattr(job_module, "versions", lambda: {"mlbits": "another"})
    assert Job("a", "module:function", job.arguments).key != job.key


def test_arguments_are_plain_data():
    with pytest.raises(JobError, match=r"^a set: its arguments are not plain data"):
        LocalProcesses(1).submit(0, Job("a set", f"{WORK}:squared", {"number": {1}}))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"value": 9}', "flip"])
def test_a_damaged_result_is_computed_again(tmp_path, damage):
    store = Store(tmp_path / "store")
    store.write(square(3), 9)
    assert store.read(square(3)) == (9,)
    path = store.path(square(3))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"value": 10}) if damage == "flip" else damage)
    assert store.read(square(3)) is None


def test_a_forgotten_result_leaves_nothing(tmp_path):
    store = Store(tmp_path / "store")
    store.write(square(3), 9)
    store.write(square(4), 16)
    store.forget(square(3))
    assert (store.read(square(3)), store.read(square(4))) == (None, (16,))
    store.forget(square(4))
    assert list(tmp_path.iterdir()) == []


# One process and its parts


class Scripted:
    """An executor whose reports are written down."""

    slots = 1

    def __init__(self, *reports):
        self.reports, self.submitted = list(reports), []

    def submit(self, ticket, job):
        self.submitted.append(ticket)

    def next(self):
        return self.reports.pop(0)

    def close(self):
        pass


def test_what_an_orphan_reports_late_is_dropped(tmp_path):
    """A node that was thought dead finishes the job too, after it was run again elsewhere."""
    executor = Scripted(Report(0, lost="its node died"), Report(0, 9), Report(0, 9), Report(1, 16))
    queue = JobQueue(executor, Store(tmp_path / "store"))
    queue.submit(square(3))
    assert queue.next().value == 9
    queue.submit(square(4))
    assert (queue.next().value, executor.submitted, len(queue)) == (16, [0, 0, 1], 0)


def test_errors_of_this_process_are_raised_as_they_are():
    def wrong():
        raise ConfigError("num_envs: got 0; wanted at least 1")

    with open_executor() as executor:
        (ended,) = run_jobs([Job("a", "none:none", {}, here=wrong)], executor, tries=1)
    with pytest.raises(ConfigError, match=r"^num_envs: got 0"):
        ended.result()


def test_closing_stops_what_runs(tmp_path):
    begun, stopped = tmp_path / "begun", tmp_path / "stopped"
    executor = LocalProcesses(1)
    executor.submit(0, Job("waits", f"{WORK}:waits", {"begun": str(begun), "stopped": str(stopped)}))
    for _ in range(3000):
        if begun.exists():
            break
        threading.Event().wait(0.01)
    since = time.monotonic()
    executor.close()
    assert stopped.read_text() == "15"
    assert time.monotonic() - since < 30


@pytest.mark.parametrize("jobs", [0, -1])
def test_fewer_than_one_job_is_refused(jobs):
    with pytest.raises(MlbitsError, match=f"^jobs: got {jobs}; wanted at least 1"), open_executor(jobs):
        pass
