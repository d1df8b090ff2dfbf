"""Sharpened distributions: temperature, and the most probable actions up to a total probability."""

import pytest
import torch

from mlbits.agents.maths.action_distributions import Categorical, MultiCategorical, sharpened

P = torch.tensor([[0.5, 0.3, 0.15, 0.05]])


def probabilities(temperature, top_p):
    return sharpened(P.log(), temperature, top_p).softmax(-1)[0].tolist()


def test_temperature_raises_probabilities_to_a_power():
    wanted = P[0] ** 2 / (P[0] ** 2).sum()
    assert probabilities(0.5, 1.0) == pytest.approx(wanted.tolist())
    assert probabilities(1.0, 1.0) == pytest.approx(P[0].tolist())


def test_top_p_keeps_the_most_probable_actions_that_reach_it():
    assert probabilities(1.0, 0.79) == pytest.approx([0.625, 0.375, 0, 0])
    assert probabilities(1.0, 0.81) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    assert probabilities(1.0, 0.01) == pytest.approx([1, 0, 0, 0])


def test_draws_are_sharpened_and_legal():
    many = P.log().expand(4000, 4)
    mask = torch.tensor([False, True, True, True]).expand(4000, 4)
    drawn = Categorical(4).sample(many, mask, torch.Generator().manual_seed(0), 0.5, 0.9)
    counts = torch.bincount(drawn, minlength=4) / 4000
    assert counts.tolist() == pytest.approx([0, 0.8, 0.2, 0], abs=0.03)
    pair = MultiCategorical((4, 4)).sample(
        torch.cat([many, many], 1), torch.cat([mask, mask], 1), torch.Generator().manual_seed(0), 0.01, 1.0
    )
    assert torch.equal(pair, torch.ones_like(pair))
