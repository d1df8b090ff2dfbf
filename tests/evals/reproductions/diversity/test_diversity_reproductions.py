"""What the reproductions of diversity measure, on policies whose way is known; and when their targets are met."""

import numpy as np
import pytest
import torch

from mlbits.agents.population.policies import Policies
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.benchmarks import populations
from mlbits.evals.benchmarks.stopwatch import Stopwatch
from mlbits.evals.reproductions.diversity import dvd, map_elites
from mlbits.selfplay.population.playing import play

UP, DOWN, AHEAD = 1.0, -1.0, 0.0


def heading(*sides):
    """Policies that head to a side until x = 13 m, and back beyond."""
    batch = open_batch(dvd.ENV, 1, start=False)
    form = Policies(batch.observation_space, batch.action_space, (1,), "tanh")
    weights = torch.zeros(len(sides), form.size)
    weights[:, 0], weights[:, 4] = 1.0, -13.0  # hidden: -1 before x = 13, 1 beyond
    for row, side in zip(weights, sides, strict=True):
        row[6] = -1.2 * side
        row[7], row[8] = 0.7, 0.05 * side
    return form, weights


def test_sides_are_those_that_policies_pass():
    form, weights = heading(UP, DOWN, AHEAD)
    returns, sides, places = dvd.paths(form, weights, {"wall": False})
    assert places.shape == (51, 3, 2)
    assert (places[10, 0, 1] > 1) and (places[10, 1, 1] < -1)
    assert sides[0] == -sides[1]
    assert returns[0] == pytest.approx(returns[1], abs=20)


def test_nobody_is_round_in_the_u():
    form, weights = heading(AHEAD)
    weights[:, 7] = 9.0
    returns, sides, _ = dvd.paths(form, weights, dvd.WALL)
    assert sides.tolist() == [0]
    assert returns[0] == pytest.approx(-731, abs=2)


def test_targets_of_diversity():
    def rows(alone, diverse):
        names = ("independent", "diverse, fixed")
        return [
            {"arm": name, "members": 30, "members_round": members, "populations_round": ways}
            for name, (members, ways) in zip(names, (alone, diverse), strict=True)
        ]

    assert dvd.met(rows((10, 8), (20, 8)))
    assert not dvd.met(rows((10, 8), (10, 9)))
    assert not dvd.met(rows((10, 8), (20, 7)))
    assert dvd._p_value(rows((0, 0), (30, 10))) < 1e-10
    assert dvd._p_value(rows((10, 8), (10, 8))) == pytest.approx(1.0)


def test_peers_play_as_the_population_does():
    batch = open_batch(map_elites.ENV, 6, seed=0)
    form = Policies(batch.observation_space, batch.action_space, (16, 16), "tanh")
    weights = 0.4 * torch.randn(6, form.size, generator=torch.Generator().manual_seed(1))
    ours = play(form, weights, batch)
    for evaluate in (map_elites._one_by_one(), map_elites._vectorised()):
        returns, places = evaluate(weights.numpy())
        assert np.allclose(returns, ours.returns.numpy(), rtol=0.02)  # starts differ by up to 0.2 m
        assert np.allclose(places, ours.final[:, :2].numpy(), atol=1.0)


def test_the_peers_loop_ends_at_the_goal_or_the_most():
    def evaluate(weights):
        return np.zeros(len(weights)), 20 * np.tanh(weights[:, :2].astype(float))

    pytest.importorskip("ribs")
    found = map_elites.ribs_loop(evaluate, 0, most=100, goal=np.inf, at_once=20)
    assert (found["policies"], found["reached"]) == (100, False)
    found = map_elites.ribs_loop(evaluate, 0, most=10_000, goal=100 * 2500.0, at_once=20)
    assert found["reached"]
    assert 100 <= found["policies"] < 1000
    assert map_elites.ribs_loop(evaluate, 0, most=100, goal=np.inf, most_seconds=0.0, at_once=20)["policies"] == 20


def test_the_fastest_loop_is_ours_or_the_target_is_missed():
    rows = [{"seed": 0, "loop": name, "cpu_seconds": s} for name, s in (("ours", 1.0), ("a", 2.0), ("b", 1.5))]
    assert map_elites.met(rows)
    assert not map_elites.met([*rows, {"seed": 0, "loop": "c", "cpu_seconds": 0.9}])


def test_the_benchmark_counts_every_step(monkeypatch):
    monkeypatch.setattr(populations, "POLICIES", 7)
    counts = []
    monkeypatch.setattr(Stopwatch, "row", lambda self, name, call, steps: counts.append((steps, call())))
    list(populations.bench_population(Stopwatch(0.1)))
    assert [steps for steps, _ in counts] == [350, 350]
    one, other = (played for _, played in counts)
    assert int(one.lengths.sum()) == int(other.lengths.sum()) == 350
    assert (one.returns < 0).all() and (other.returns < 0).all()
