"""The stopwatch: rates by hand on a fake clock, and a limit for slow functions."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from mlbits.cli import main
from mlbits.envs.engine.processor import Processor
from mlbits.evals.benchmarks import groups
from mlbits.evals.benchmarks.stopwatch import Row, Skipped, Stopwatch
from tests.evals.jobs.elsewhere import everywhere


class Clock:
    """A clock that only advances when told to."""

    def __init__(self) -> None:
        self.now, self.calls = 100.0, 0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.calls += 1


def test_rates_are_steps_over_seconds() -> None:
    """0.1 s a call of 50 steps; a warm-up call, and three times four calls until 0.33 s are over."""
    clock = Clock()
    row = Stopwatch(1.0, clock=clock).row("work", lambda: clock.work(0.1), 50)
    assert row.per_second == pytest.approx(500)
    assert clock.calls == 1 + 3 * 4


@pytest.mark.parametrize(("seconds", "calls"), [(3.0, 4), (4.0, 3), (60.0, 2)])
def test_slow_functions_stop_at_the_limit(seconds: float, calls: int) -> None:
    """The limit is 10 s: after it, only the one call that a measurement needs."""
    clock = Clock()
    row = Stopwatch(1.0, clock=clock).row("slow", lambda: clock.work(seconds), 6)
    assert row.per_second == pytest.approx(6 / seconds)
    assert clock.calls == calls


def test_a_warm_up_stops_at_the_limit() -> None:
    clock = Clock()
    watch = Stopwatch(1.0, clock=clock)
    watch.warm_up(lambda: clock.work(3.0), lambda: False)
    assert clock.calls == 4, "begun at 0, 3, 6 and 9 seconds"
    watch.warm_up(lambda: clock.work(0.1), lambda: clock.calls >= 9)
    assert clock.calls == 9


OLD = Processor("Some Old CPU", "avx2", False, 4)


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_skipped_by_name_where_it_is_slow(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(groups, "has_fast_bfloat16", lambda: fast)
    monkeypatch.setattr(groups, "describe", lambda: OLD)
    monkeypatch.setattr(groups, "_replay_row", lambda watch, name, *words, **settings: Row(name, 1.0, 1.0))
    monkeypatch.setattr(groups.peers, "ddpg", lambda watch: Row("theirs", 1.0, 1.0, "them"))
    rows = list(groups.bench_ddpg(Stopwatch(1.0)))
    skipped = [row for row in rows if isinstance(row, Skipped)]
    assert [row.name.endswith("bfloat16") for row in skipped] == ([] if fast else [True] * 3)
    assert all("avx2" in row.reason for row in skipped)
    assert sum(isinstance(row, Row) and row.name.endswith("float32") for row in rows) == 3
    assert len(rows) == 7


def test_the_command_names_the_processor_and_what_it_skips(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    monkeypatch.setattr(groups, "describe", lambda: OLD)
    monkeypatch.setattr("mlbits.envs.engine.processor.describe", lambda: OLD)
    rows = [Row("quick work", 2000.0, 1000.0), Skipped("wide work", "avx2 is too narrow")]
    monkeypatch.setattr(groups, "GROUPS", {"single": lambda watch: iter(rows)})
    path = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["mlbits", "bench", "single", "--json", str(path)])
    assert main() in (0, None)
    printed = capsys.readouterr().out
    assert printed.startswith("Some Old CPU, avx2, 4 cores\n")
    assert "wide work" in printed and "skipped: avx2 is too narrow" in printed
    assert json.loads(path.read_text()) == [
        {"name": "quick work", "per_cpu_second": 2000.0, "per_second": 1000.0, "peer": None,
         "processor": "Some Old CPU", "isa": "avx2", "cores": 4}
    ]  # fmt: skip


def test_groups_are_jobs(monkeypatch, capsys):
    """Other processes measure a group whole; it is printed when it is there, in the order of the groups."""
    first = [Row("alpha", 2000.0, 1000.0, "them"), Skipped("wide", "too narrow")]
    monkeypatch.setattr(
        groups, "GROUPS", {"one": lambda watch: iter(first), "two": lambda watch: iter([Row("beta", 1.0, 2.0)])}
    )
    threads, executor = torch.get_num_threads(), everywhere(monkeypatch, groups)
    rows = groups.run_benchmarks(jobs=2)
    torch.set_num_threads(threads)
    assert rows == [first[0], Row("beta", 1.0, 2.0)]
    assert executor.ran == 2
    said = capsys.readouterr().out
    assert said.index("alpha") < said.index("wide") < said.index("skipped: too narrow") < said.index("beta")


# Groups on a GPU


@pytest.mark.parametrize("group", sorted(groups.CPU_ONLY))
def test_groups_that_measure_nothing_on_a_gpu_are_refused(group, capsys):
    assert main(["bench", group, "--device", "cuda"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --device: got 'cuda' for the group {group}: ")
    assert groups.CPU_ONLY[group] in said


def test_all_groups_on_a_gpu_name_those_that_are_left_out(monkeypatch, capsys):
    """On a card that is not there; the groups are given the device."""

    def row(watch):
        yield Row(f"on {watch.device}", 1.0, 2.0)

    for name in ("check_kernels", "check_cuda"):
        monkeypatch.setattr(f"mlbits.envs.engine.gpu_copies.{name}", lambda *_: None)
    monkeypatch.setattr(groups, "GROUPS", {"gridworld": row, "single": row})
    rows = groups.run_benchmarks(device="cuda")
    assert [one.name for one in rows] == ["on cuda"]
    assert f"skipped: {groups.CPU_ONLY['single']}" in " ".join(capsys.readouterr().out.split())


def test_the_help_names_every_group(capsys):
    main(["bench", "--help"])
    said = capsys.readouterr().out
    for group in groups.GROUPS:
        assert group in said
