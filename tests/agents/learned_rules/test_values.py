"""The meta-objective's values, and read-outs of predictions, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from mlbits.agents.learned_rules.populations import Lesson
from mlbits.agents.learned_rules.readout import readout_r2, temporal_difference
from mlbits.agents.learned_rules.values import MLPValues, TabularValues, advantages, normalised
from tests.agents.learned_rules.lessons import LIFETIMES, STATES, lesson


def chain(terminated: bool) -> Lesson:
    """One copy of one lifetime goes from state 0 to 1, which pays 1, and there its episode ends with another 2."""
    ends = torch.tensor([False, True])[:, None, None]
    none = torch.zeros_like(ends)
    return Lesson(
        obs=torch.tensor([0, 1])[:, None, None],
        next_obs=torch.tensor([1, 2])[:, None, None],
        action=torch.zeros(2, 1, 1, dtype=torch.int64),
        reward=torch.tensor([1.0, 2.0])[:, None, None],
        terminated=ends if terminated else none,
        truncated=none if terminated else ends,
    )


@pytest.mark.parametrize("terminated", [True, False])
def test_advantages_keep_terminated_and_truncated_apart(terminated: bool) -> None:
    values = TabularValues(1, 3, rate=0.5)
    values.state["value"][0] = torch.tensor([0.5, 1.0, 4.0])
    found = advantages(values, chain(terminated), discount=0.9, gae_lambda=0.8).flatten().tolist()
    second = 2 - 1.0 + (0.0 if terminated else 0.9 * 4)
    first = 1 + 0.9 * 1.0 - 0.5 + 0.9 * 0.8 * second
    assert found == pytest.approx([first, second])
    # Afterwards each state that was seen is half way to its target, the advantage plus the value.
    assert values.state["value"][0].tolist() == pytest.approx([0.5 + first / 2, 1 + second / 2, 4.0])


def test_values_move_towards_the_mean_of_a_states_targets() -> None:
    values = TabularValues(2, 3, rate=0.5)
    obs = torch.tensor([[[1, 1], [0, 2]]])
    values.fit(obs, torch.tensor([[[1.0, 3.0], [8.0, -4.0]]]))
    assert values.state["value"].tolist() == [[0, 1, 0], [4, 0, -2]]
    assert values.of(obs).tolist() == [[[1, 1], [4, -2]]]
    values.forget(torch.tensor([False, True]))
    assert values.state["value"].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_mlp_values_learn_their_targets() -> None:
    values = MLPValues(LIFETIMES, 4, 1e-2, torch.Generator().manual_seed(0))
    seen = lesson(0, inputs=4, dtype=torch.float32)
    target = seen.obs.sum(-1)
    errors = []
    for _ in range(200):
        errors.append(float((values.of(seen.obs) - target).square().mean()))
        values.fit(seen.obs, target)
    assert errors[-1] < 0.05 * errors[0]
    values.forget(torch.tensor([True, False, True]))
    assert [bool(part.any()) for part in values.of(seen.obs).unbind(1)] == [False, True, False]  # new heads are 0


def test_normalised_within_each_lifetime() -> None:
    advantage = (
        torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 9.0, 0.0])[:, None]
    )
    found = normalised(advantage + torch.tensor([0.0, 4.0, 2.0])[:, None])
    assert found.mean((0, 2)).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert found.square().mean((0, 2)).tolist() == pytest.approx([1, 1, 0], abs=1e-5)


def test_a_read_out_finds_what_is_linear_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.softmax(torch.randn(3, 50, 4, generator=generator), -1)
    values = features @ torch.tensor([1.0, -2.0, 3.0, 0.5]) + 7
    values[1] = torch.randn(50, generator=generator)
    values[2] = 3.0
    weights = torch.ones(3, 50)
    weights[0, 10:] = 0
    values[0, 10:] = 100.0  # never seen
    found = readout_r2(features, values, weights)
    assert float(found[0]) > 0.999 and float(found[1]) < 0.3 and bool(found[2].isnan())


def test_temporal_differences_reach_the_values_of_a_chain() -> None:
    values = torch.zeros(1, 3)
    for _ in range(400):
        temporal_difference(chain(terminated=True), values, discount=0.5, rate=0.1)
    assert values[0].tolist() == pytest.approx([1 + 0.5 * 2, 2.0, 0.0], abs=1e-4)


def test_tables_of_lifetimes_are_apart() -> None:
    seen, values = lesson(0, dtype=torch.float32), TabularValues(LIFETIMES, STATES, 0.5)
    other = seen._replace(reward=seen.reward.clone())
    other.reward[:, 1] += 1
    again = TabularValues(LIFETIMES, STATES, 0.5)
    advantages(values, seen, discount=0.9, gae_lambda=0.9)
    advantages(again, other, discount=0.9, gae_lambda=0.9)
    assert (values.state["value"] != again.state["value"]).any(1).tolist() == [False, True, False]
