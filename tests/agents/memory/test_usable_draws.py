"""Draws among usable entries: uniform, never an unusable one; on a GPU without asking."""

import pytest
import torch

from mlbits.agents.memory.usable_draws import draw_usable
from mlbits.evals.benchmarks.stand_in_gpu import stand_in_gpu

USABLE = torch.tensor([False, True, True, False, False, True, False, False])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_usable_entries_are_drawn_equally_often(device):
    with stand_in_gpu() as counts:
        there = USABLE.to(device)
        generator = torch.Generator(device).manual_seed(2)
        before = counts.snapshot()
        drawn = draw_usable(there, 3000, generator)
        assert counts.since(before).waits == 0
        found = torch.bincount(drawn.cpu(), minlength=8)
    assert (found[~USABLE] == 0).all()
    assert (found[USABLE] - 1000).abs().max() < 130  # 5 standard deviations of 26


def test_nothing_usable_is_said_on_a_cpu():
    assert draw_usable(torch.zeros(5, dtype=torch.bool), 3, torch.Generator()) is None
