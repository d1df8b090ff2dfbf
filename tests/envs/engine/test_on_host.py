"""Reading several tensors at once, and sending arrays: the same numbers on a CPU and on a stand-in GPU."""

import numpy as np
import torch

from mlbits.envs.engine.on_host import on_host, to_device
from mlbits.evals.benchmarks.stand_in_gpu import Counts, stand_in_gpu


def tensors(device):
    """Of several types and shapes, one of them not contiguous."""
    flags = torch.tensor([[True, False, True], [False, False, True]])
    parts = (torch.tensor([1.5, -2.0]), flags.t(), torch.tensor(7), torch.zeros(0, 4, dtype=torch.float64))
    return [part.to(device) for part in parts]


def test_arrays_share_the_cpu_s_memory():
    (number,) = on_host(one := torch.tensor([1.0]))
    number[0] = 3.0
    assert one.item() == 3.0
    array = np.arange(3.0)
    to_device(array, torch.device("cpu"))[0] = 5.0
    assert array[0] == 5.0


def test_several_tensors_of_a_gpu_take_one_wait():
    wanted = on_host(*tensors("cpu"))
    with stand_in_gpu() as counts:
        there = tensors("cuda")
        before = counts.snapshot()
        found = on_host(*there)
        now = counts.since(before)
    assert (now.waits, now.copies) == (1, 1)
    for one, two in zip(found, wanted, strict=True):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        np.testing.assert_array_equal(one, two)


def test_sending_an_array_does_not_wait():
    with stand_in_gpu() as counts:
        before = counts.snapshot()
        there = to_device(np.arange(3), torch.device("cuda"))
        assert counts.since(before) == Counts(0, 1, 0)
        assert there.device.type == "cuda"
        assert there.tolist() == [0, 1, 2]
