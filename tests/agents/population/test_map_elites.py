"""MAP-Elites: who takes a cell, how new policies are made of elites, what is kept, and what is refused."""

import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError
from mlbits.agents.population.spec import Outcomes
from mlbits.selfplay.population.heat_map import heat_map
from tests.agents.rollouts import VECTOR, draw, make_agent

BOX = spaces.Box(-1, 1, (2,), np.float32)


def made(**settings):
    usual = {"hidden": (3,), "cells": (4, 5), "low": (0.0, 0.0), "high": (4.0, 5.0), "policies": 3}
    return make_agent("map-elites", BOX, **{**usual, **settings})


def outcomes(returns, places):
    returns = torch.tensor(returns, dtype=torch.float64)
    final = torch.cat([torch.tensor(places), torch.zeros(len(returns), 2)], 1)
    return Outcomes(returns, final, final[:0], torch.ones(len(returns), 1, dtype=torch.int64), returns[:, None])


def step(agent, returns, places, seed=0):
    asked = agent.ask(draw(seed)).clone()
    return asked, dict(agent.learn(outcomes(returns, places), 0.0, draw()))


def test_a_policy_takes_an_empty_cell_or_that_of_a_worse_elite():
    agent = made(qd_offset=-10.0)
    first, said = step(agent, [1.0, 2.0, 3.0], [[0.5, 0.5], [0.6, 0.9], [3.5, 4.5]])  # two in one cell
    assert said["elites"] == 2
    assert said["coverage"] == pytest.approx(2 / 20)
    assert said["qd_score"] == pytest.approx(12 + 13)
    second, said = step(agent, [5.0, 2.5, 0.0], [[0.1, 0.1], [3.9, 4.1], [1.5, 0.5]], seed=1)
    assert said["taken"] == 2  # the better one in the first cell, and an empty cell
    kept = agent.elites()
    assert kept["objective"].tolist() == [5.0, 0.0, 3.0]
    assert np.allclose(kept["solution"], torch.stack([second[0], second[2], first[2]]).numpy())
    assert said["best_return"] == 5.0


def test_new_policies_lie_near_elites_and_on_the_line_between_two():
    agent = made(policies=200, iso_sigma=0.0, line_sigma=0.5)
    start = torch.zeros(200, 2)
    start[:100] = torch.tensor([3.5, 4.5])
    first, _ = step(agent, [0.0] * 200, start.tolist())
    elites = torch.from_numpy(agent.elites()["solution"])
    assert len(elites) == 2
    asked = agent.ask(draw(2))
    along = elites[1] - elites[0]
    share = (asked - elites[0]) @ along / (along @ along)
    assert torch.allclose(asked, elites[0] + share[:, None] * along, atol=1e-5)
    assert 0.3 < float(((share - share.round()).abs() < 1e-5).float().mean()) < 0.7  # both parents the same
    assert float(first.std()) == pytest.approx(0.5, rel=0.1)


def test_own_difference_has_its_size():
    agent = made(policies=300, iso_sigma=0.1, line_sigma=0.0, cells=(1, 1))
    step(agent, [0.0] * 300, [[1.0, 1.0]] * 300)
    elite = torch.from_numpy(agent.elites()["solution"][0])
    assert float((agent.ask(draw(1)) - elite).std()) == pytest.approx(0.1, rel=0.1)


def test_the_best_elite_acts_and_the_parts_of_the_archive_are_members():
    agent = made(cells=(9, 9), high=(9.0, 9.0))
    asked, _ = step(agent, [1.0, 4.0, 2.0], [[0.5, 0.5], [1.5, 0.5], [8.5, 8.5]])  # the first two in one part
    obs = torch.randn(5, 4, generator=draw())
    assert torch.allclose(agent.act(obs, None, draw()).action, agent.policies.decide(asked[1:2], obs, None))
    assert agent.returns.tolist() == [4.0, 2.0]
    assert torch.equal(agent.member_weights(), asked[1:])
    assert agent.best == 0
    _, _ = step(agent, [6.0, 6.0, 2.0], [[2.5, 0.5], [0.5, 3.5], [8.5, 8.5]], 1)  # equal in two parts
    assert torch.equal(agent.member_weights()[agent.best], agent._best_weights[0])
    assert agent.best == 1  # of the first cell


def test_a_restored_archive_goes_on_the_same():
    one, other = made(), made()
    step(one, [1.0, 2.0, 3.0], [[0.5, 0.5], [2.6, 0.9], [3.5, 4.5]])
    other.load_state_dict(one.state_dict())
    for seed in (1, 2):
        places = [[1.5, 1.5], [0.5, 0.5], [2.5, 3.5]]
        mine, theirs = (step(agent, [0.5, 1.5, 2.0], places, seed) for agent in (one, other))
        assert torch.equal(mine[0], theirs[0])
        assert mine[1] == theirs[1]
    states = one.state_dict(), other.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_best_elite_and_the_score_do_not_depend_on_when_cells_were_filled():
    one, other = made(policies=1), made(policies=1)
    for seed, (value, place) in enumerate(((5.0, 3.5), (0.1, 1.5), (0.2, 2.5), (5.0, 0.5), (0.3, 3.5))):
        step(one, [value], [[place, 0.5]], seed)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one._best_weights, other._best_weights)
    assert torch.equal(one._best_weights[0], torch.from_numpy(one.elites()["solution"][0]))  # of the first cell
    wide = [made(cells=(50, 50), policies=300) for _ in range(2)]
    generator = draw(1)

    def round_of(agent, numbers, seed):
        return step(agent, (-731 * numbers[:, 0]).tolist(), (4 * numbers[:, 1:]).tolist(), seed)[1]

    numbers = torch.rand(4, 300, 3, generator=generator, dtype=torch.float64)
    for k in range(3):
        round_of(wide[0], numbers[k], k)
    wide[1].load_state_dict(wide[0].state_dict())
    assert round_of(wide[0], numbers[3], 3) == round_of(wide[1], numbers[3], 3)


def test_two_policies_in_one_cell_take_it_once():
    agent = made()
    assert step(agent, [1.0, 2.0, 3.0], [[0.5, 0.5], [0.6, 0.9], [3.5, 4.5]])[1]["taken"] == 2


def test_the_heat_map_is_light_where_returns_are_high():
    agent = made(cells=(2, 3), high=(2.0, 3.0))
    step(agent, [0.0, 5.0, 10.0], [[0.5, 0.5], [1.5, 0.5], [1.5, 2.5]])
    values = agent.heat_map()
    assert np.array_equal(values, [[0, np.nan, np.nan], [5, np.nan, 10]], equal_nan=True)
    picture = heat_map(values)
    size = picture.shape[0] // 3
    cells = picture[size // 2 :: size, size // 2 :: size].astype(int).sum(-1)  # rows from the top
    assert cells.shape == (3, 2)
    assert cells[0, 0] == 3 * 255
    assert cells[2, 0] < cells[2, 1] < cells[0, 1] < 3 * 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cells": (4,)}, r"cells: got \(4,\); wanted two numbers"),
        ({"entries": (0, 9)}, "entries: got 9; wanted entries of the observation, 0 to 3"),
        ({"low": (5.0, 5.0), "high": (4.0, 6.0)}, r"low, high: got \(5.0, 5.0\) and \(4.0, 6.0\)"),
    ],
)
def test_archives_that_cannot_be_are_named(settings, message):
    with pytest.raises(AgentError, match=message):
        made(**settings)


def test_bounds_are_the_spaces_or_have_to_be_given():
    agent = made(low=(), high=())
    assert agent.archive.lower_bounds.tolist() == VECTOR.low[:2].tolist()
    endless = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    with pytest.raises(AgentError, match="low: missing; wanted numbers, as entry 0 of the observation has no bound"):
        make_agent("map-elites", BOX, endless)


def test_without_pyribs_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ribs.archives", None)
    with pytest.raises(AgentError, match=r'map-elites: needs pyribs; wanted pip install "mlbits\[diversity\]"'):
        made()
