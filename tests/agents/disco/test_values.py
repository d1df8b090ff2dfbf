"""Action values on the squashed scale, Retrace and the scale of advantages, with numbers worked out by hand."""

import pytest
import torch

from mlbits.agents.disco.values import BINS, Scale, expected, retrace, squashed, two_hot, unsquashed


def test_the_squashed_scale_and_its_inverse():
    x = torch.tensor([-1e4, -3.0, 0.0, 3.0, 99.0], dtype=torch.float64)
    assert squashed(x).tolist() == pytest.approx([-109.005, -1.003, 0, 1.003, 9.099], abs=1e-3)
    assert unsquashed(squashed(x)).tolist() == pytest.approx(x.tolist(), rel=1e-9)


def test_a_value_is_shared_by_the_two_nearest_points():
    shares = two_hot(torch.tensor([3.0, 0.0, 1e9, -1e9], dtype=torch.float64))
    assert shares.shape == (4, BINS)
    assert shares[0].nonzero().flatten().tolist() == [301, 302]  # 1.003 lies between the points 1 and 2
    assert shares[0, 301:303].tolist() == pytest.approx([0.997, 0.003])
    assert [int(row.argmax()) for row in shares[1:]] == [300, 600, 0]
    assert expected(shares.clamp(min=1e-30).log())[:2].tolist() == pytest.approx([3.0, 0.0], abs=1e-6)


def test_retrace_by_hand():
    """Copy 0 goes on; copy 1 terminates with its second step, and copy 2 is cut there."""
    reward = torch.tensor([[1.0, 1, 1], [2, 2, 2], [3, 3, 3]])
    terminated = torch.tensor([[False] * 3, [False, True, False], [False] * 3])
    ended = torch.tensor([[False] * 3, [False, True, True], [False] * 3])
    discount = 0.5 * (~terminated).float()
    value, taken, trace = torch.full((3, 3), 10.0), torch.full((3, 3), 4.0), torch.full((3, 3), 0.5)
    target = retrace(reward, discount, ended, value, taken, trace)
    # the last: 3 + 10 / 2 = 8. Copy 0: 2 + (10 + (8 - 4) / 2) / 2 = 8, then 1 + (10 + (8 - 4) / 2) / 2 = 7.
    # Copy 1: 2 alone, then 1 + (10 + (2 - 4) / 2) / 2 = 5.5. Copy 2: 2 + 10 / 2 = 7, then 1 + (10 + 3 / 2) / 2 = 6.75.
    assert target.tolist() == [[7, 5.5, 6.75], [8, 2, 7], [8, 8, 8]]


def test_retrace_weighs_each_step_by_the_trace_of_the_next_one():
    zero = torch.zeros(3, 1)
    reward, trace = torch.tensor([[0.0], [0.0], [8.0]]), torch.tensor([[0.9], [0.5], [0.25]])
    target = retrace(reward, zero + 1, zero.bool(), zero, zero, trace)
    assert target.flatten().tolist() == [1.0, 2.0, 8.0]  # 8 x 0.25, then x 0.5


def test_the_scale_of_advantages_by_hand():
    scale = Scale.new("cpu").updated(torch.tensor([1.0, 3.0]))
    assert scale.normalised(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([-1, 0, 1], abs=1e-4)
    scale = scale.updated(torch.tensor([4.0, 4.0]))
    weights = torch.tensor([0.0099, 0.01]) / 0.0199  # 0.01 x 0.99 for the first batch
    mean, square = weights[0] * 2 + weights[1] * 4, weights[0] * 5 + weights[1] * 16
    wanted = (5.0 - mean) / (square - mean**2).sqrt()
    assert float(scale.normalised(torch.tensor(5.0))) == pytest.approx(float(wanted), rel=1e-4)
