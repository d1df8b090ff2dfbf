"""Stands in for a GPU's driver: kernels are compiled to machine code for a real GPU, and starts are noted, not made.

What the host does is then that of a machine with a GPU, up to the call that starts the kernel: compiling, caching on
disk, streams, arguments. What kernels do is shown by Numba's simulator, and on a card by ``pytest -m gpu``.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from mlbits.envs.engine import gpu_copies, gpu_launch


class Start(NamedTuple):
    """One start of a kernel: the pointer of its stream, blocks, threads a block, and the words that the device gets."""

    stream: int
    blocks: int
    threads: int
    words: list[int]


class Card:
    """A GPU that is not there.

    Attributes:
        stream: pointer of torch's current stream; 0 is the default one.
        starts: kernels started so far.
        compiled: machine code made so far, not loaded: name and bytes.
        resident: blocks of a size that a multiprocessor holds.
    """

    def __init__(self, compute_capability: tuple[int, int] = (9, 0)) -> None:
        self.device = SimpleNamespace(compute_capability=compute_capability, id=0, MULTIPROCESSOR_COUNT=132)
        self.stream = 0
        self.starts: list[Start] = []
        self.compiled: list[str] = []
        self.resident: Callable[[int], int] = lambda size: 2048 // size
        self._driver = importlib.import_module("numba.cuda.cudadrv.driver")

    def create_external_stream(self, pointer: int) -> Any:
        return self._driver.Stream(self._driver.binding.CUstream(pointer), external=True)

    def get_legacy_default_stream(self) -> Any:
        return self.create_external_stream(self._driver.binding.CU_STREAM_LEGACY)

    def get_active_blocks_per_multiprocessor(self, function: Any, size: int, memory: int) -> int:
        return self.resident(size)

    def start(self, stream: Any, config: Any, code: Any, *words: Any) -> None:
        """In place of cuda.core's launch."""
        numbers = [int(getattr(word, "value", word)) for word in words]
        self.starts.append(Start(int(stream.handle), config.grid[0], config.block[0], numbers))


def put_in_place(card: Card, patch: Callable[[Any, str, Any], None] = setattr) -> Card:
    """Have Numba and our launcher see a card.

    Args:
        card: the card.
        patch: ``monkeypatch.setattr``, to see it for one test.
    """
    names = ("", ".api", ".dispatcher", ".codegen", ".cudadrv.devices")
    cuda, api, dispatcher, codegen, devices = (importlib.import_module(f"numba.cuda{name}") for name in names)
    for module in (cuda, api, dispatcher, devices):
        for name in ("get_context", "current_context"):
            if hasattr(module, name):
                patch(module, name, lambda *_: card)
    patch(devices._runtime, "ensure_context", contextlib.nullcontext)
    patch(dispatcher, "get_current_device", lambda: card.device)
    patch(dispatcher, "launch", card.start)
    patch(torch.cuda, "current_stream", lambda *_: SimpleNamespace(cuda_stream=card.stream))
    for module in (gpu_copies, gpu_launch):
        patch(module, "simulated", lambda: False)

    def load(library: Any) -> Any:
        """Link the machine code, and do not load it."""
        if card.device.compute_capability not in library._cubin_cache:
            card.compiled.append(library.name)
        library.get_cubin(card.device.compute_capability)
        return SimpleNamespace(kernel=object(), module=SimpleNamespace(initialized=True), name=library.name)

    patch(codegen.CUDACodeLibrary, "get_cufunc", load)
    patch(codegen.CUDACodeLibrary, "_ensure_cc", lambda library, cc: cc or card.device.compute_capability)
    return card
