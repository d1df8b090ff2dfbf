"""Named arrays that compiled code writes and torch reads, on the host or on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.envs.engine.batch import field_view
from mlbits.envs.engine.gpu_launch import kernel_view

Shapes = Mapping[str, tuple[tuple[int, ...], Any]]


class Memory:
    """Arrays of zeros, by name.

    Args:
        shapes: shape and dtype of each.
        device: where they are; None is the host, for compiled code of the CPU.

    Attributes:
        view: each array as compiled code takes it.
    """

    def __init__(self, shapes: Shapes, device: torch.device | None) -> None:
        self.device = device
        self.view: dict[str, Any] = {}
        self._bytes: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        for name, (shape, dtype) in shapes.items():
            self.add(name, shape, dtype)

    def add(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        """Add an array of zeros, or put it in the place of one of that name."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        if self.device is None:
            array = np.zeros(shape, dtype)  # pages that are never written take no memory
            self._bytes[name], self.view[name] = torch.from_numpy(array.reshape(-1).view(np.uint8)), array
        else:
            self._bytes[name] = torch.zeros(size, dtype=torch.uint8, device=self.device)
            self.view[name] = kernel_view(self._bytes[name], dtype, shape)
        self._shapes[name] = shape, dtype

    def bytes(self, name: str, rows: int) -> Tensor:
        """The first rows of an array as bytes, uint8 [rows, bytes]."""
        return self._bytes[name].view(self._shapes[name][0][0], -1)[:rows]

    def on_host(self, name: str) -> NDArray[Any]:
        """An array in the host's memory; a copy if it is on a GPU."""
        shape, dtype = self._shapes[name]
        found: NDArray[Any] = self._bytes[name].cpu().numpy().view(dtype).reshape(shape)
        return found

    def tensor(self, name: str, rows: int) -> Any:
        """The first rows of an array as a tensor, or as a dict of strided tensors if it has fields."""
        shape, dtype = self._shapes[name]
        if dtype.names:
            fields = {key: field_view(self._bytes[name], dtype, key, (shape[0], 1)) for key in dtype.names}
            return {key: value[:rows, 0] for key, value in fields.items()}
        kind = torch.from_numpy(np.zeros(0, dtype)).dtype
        return self._bytes[name].view(kind).view(shape)[:rows]

    def widen(self, name: str, columns: int) -> None:
        """Make the second axis of an array longer; what is in it stays."""
        shape, dtype = self._shapes[name]
        old = self._bytes[name].view(shape[0], -1)
        self.add(name, (shape[0], columns, *shape[2:]), dtype)
        self.bytes(name, shape[0])[:, : old.shape[1]] = old
