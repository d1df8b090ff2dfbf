"""The benchmark of Stable-Baselines3's door: the same random play on each side, every step counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlbits.evals.benchmarks import groups
from mlbits.evals.benchmarks.stopwatch import Row


class Once:
    """A stopwatch that measures nothing: each function is called once, and its steps recorded."""

    device = "cpu"

    def __init__(self) -> None:
        self.steps: list[int] = []

    def row(self, name: str, call: Callable[[], Any], steps: int, peer: str | None = None) -> Row:
        call()
        self.steps.append(steps)
        return Row(name, 1.0, 1.0, peer)


def test_rows_of_ours_and_sb3s() -> None:
    watch = Once()
    rows = list(groups.GROUPS["sb3"](watch))  # type: ignore[arg-type]
    names = [f"CartPole, make_sb3 of {count}" for count in ("8", "64", "1,024")]
    names += [f"CartPole-{version}, DummyVecEnv of {count}" for version in ("v1", "v0") for count in (8, 64)]
    assert [row.name for row in rows] == names
    assert [row.peer is None for row in rows] == [True] * 3 + [False] * 4
    assert all(row.peer.startswith("stable-baselines3 ") for row in rows if row.peer)
    assert watch.steps == [64, 512, 8192, 64, 512, 64, 512]
