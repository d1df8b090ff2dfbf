"""Benchmarks of boards and search: what is counted is what is done."""

import numpy as np
import pytest

import mlbits
from mlbits.agents.search.search import TreeSearch
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.evals.benchmarks import board_peers, boards, groups
from mlbits.evals.benchmarks.stopwatch import Row


class Once:
    """A stopwatch that calls each function once."""

    device = "cpu"

    def __init__(self):
        self.steps = {}

    def row(self, name, call, steps, peer=None):
        call()
        self.steps[name] = steps
        return Row(name, 1.0, 1.0, peer)


def test_drawn_actions_are_legal_and_uniform():
    """In 3,000 copies of one position; each column of Connect Four about as often, a full one never."""
    batch = mlbits.make_batch("mlbits/ConnectFour-v0", 3000)
    copies = batch.copies
    actions, streams = np.zeros((3000, 2), np.int64), np.arange(3000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for ply in range(6):
        copies.step(np.full((3000, 2), 0) if ply % 2 else np.array([[0, 0]] * 3000))
    boards.draw_legal(copies.legal, copies.active, actions, streams)
    counts = np.bincount(actions[:, 0], minlength=7)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - 500) < 100).all()
    assert (actions[:, 1] == 0).all()


@pytest.mark.slow
def test_every_counted_step_and_simulation_is_made(monkeypatch):
    made = {"steps": 0, "simulations": 0}
    step, run = Copies.step, TreeSearch.run

    def counted_step(self, actions):
        made["steps"] += len(actions)
        return step(self, actions)

    def counted_run(self, *arguments, **settings):
        found = run(self, *arguments, **settings)
        made["simulations"] += int(found.visits.sum())
        return found

    monkeypatch.setattr(Copies, "step", counted_step)
    monkeypatch.setattr(TreeSearch, "run", counted_run)
    for name in ("random_steps", "perft", "rollouts", "gumbel"):
        monkeypatch.setattr(board_peers, name, lambda *arguments: iter(()))
    monkeypatch.setattr(boards, "BOARDS", boards.BOARDS[:1])
    monkeypatch.setattr(boards, "GAMES", 8)
    watch = Once()
    rows = [*groups.GROUPS["boards"](watch), *groups.GROUPS["search"](watch)]
    assert made["steps"] == sum(steps for name, steps in watch.steps.items() if "legal steps" in name) == 8 * 4096
    assert made["simulations"] == sum(n for name, n in watch.steps.items() if "MLP" in name or "UCT" in name)
    assert all(len(row.name) <= 52 for row in rows), "the column of names is 52 wide"
    assert [row.peer for row in rows] == [None] * len(rows)
