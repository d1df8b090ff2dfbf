"""Between host and device: reading several tensors in one transfer, and sending arrays without waiting."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def on_host(*tensors: Tensor) -> list[NDArray[Any]]:
    """Tensors of one device as NumPy arrays: of the same memory on a CPU, else of a copy that is waited for once.

    Example:
        >>> on_host(torch.tensor([1.5]), torch.tensor([[True, False]]))
        [array([1.5], dtype=float32), array([[ True, False]])]
    """
    if tensors[0].is_cpu:
        return [tensor.numpy() for tensor in tensors]
    packed = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors]).cpu().numpy()
    arrays, start = [], 0
    for tensor in tensors:
        end = start + tensor.numel() * tensor.element_size()
        kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        arrays.append(packed[start:end].view(kind).reshape(tuple(tensor.shape)))
        start = end
    return arrays


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device: of the same memory on a CPU, else of a copy that is not waited for."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
