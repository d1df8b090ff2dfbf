"""Starts kernels on torch's current stream; what is the same from one start to the next is made once.

Numba makes much anew at every start: a stream, a configuration, and the arguments as the words that the device gets.
The kernel of a game has 21 arguments and 131 words, which takes 150 to 200 us of a core: in that time a GPU could step
a million copies of GridWorld. A :class:`Launcher` keeps the stream and the configuration for each pointer of a stream,
and the words of an argument for as long as the argument is the same object; a start then takes 15 to 20 us, the
driver's part aside (``python -m tests.gpu.launching`` measures both, without a GPU).

How many threads a block has is asked of the driver: the fewest with which a multiprocessor holds the most threads, and
fewer yet while some multiprocessor would get no block.

With ``NUMBA_ENABLE_CUDASIM=1`` kernels run in Numba's simulator on the CPU.
"""

from __future__ import annotations

import functools
import importlib
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

_log = logging.getLogger(__name__)
DEFAULT_BLOCK, WARP = 128, 32
_BLOCKS = (64, 128, 256, 512, 1024)
# A block of the simulator takes a Python thread for each of its own: two, so that with an odd number one is to spare.
_SIMULATED_BLOCK = 2
_NONE = object()


@functools.cache
def simulated() -> bool:
    """Whether Numba's CUDA simulator replaces the GPU in this process."""
    from numba import cuda

    return "simulator" in type(cuda.jit(lambda: None)).__module__


def kernel_view(memory: torch.Tensor, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """A tensor of bytes as the kernel's array: Numba's on the device, NumPy's in the simulator."""
    if simulated():
        array = memory.numpy().view(dtype).reshape(shape)
        return array.view(np.recarray) if dtype.names else array
    return _device_array(memory.data_ptr(), dtype, shape, memory)


def borrowed_view(tensor: torch.Tensor, dtype: np.dtype[Any]) -> Any:
    """The kernel's array of a caller's contiguous tensor, for one start; the view does not keep the tensor alive."""
    if simulated():
        return tensor.numpy().view(dtype)
    return _borrowed(tensor.data_ptr(), dtype, tuple(tensor.shape))


@functools.lru_cache(maxsize=4096)
def _borrowed(pointer: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    return _device_array(pointer, dtype, shape, None)


def _device_array(pointer: int, dtype: np.dtype[Any], shape: tuple[int, ...], owner: Any) -> Any:
    from numba.cuda.api import from_cuda_array_interface

    description = {"shape": shape, "strides": None, "typestr": dtype, "data": (pointer, False), "version": 3}
    return from_cuda_array_interface(description, owner=owner)


def kernel_stream(device: torch.device) -> Any:
    """Torch's current stream, so that kernels and tensor operations run in order (and graphs capture both)."""
    return 0 if simulated() else _stream(torch.cuda.current_stream(device).cuda_stream)


@functools.lru_cache(maxsize=256)
def _stream(pointer: int) -> Any:
    """Numba's stream of a pointer; 0 is the default stream that all streams wait for, which torch means by it."""
    from numba import cuda

    return cuda.external_stream(pointer) if pointer else cuda.legacy_default_stream()


class Launcher:
    """Starts one kernel, on torch's current stream, with a thread for each of N rows (and some to spare).

    Args:
        kernel: a function compiled by ``numba.cuda.jit``, called with arguments of the same types each time.
        rows: N.
        device: the GPU; the CPU in the simulator.
        block: threads a block; None asks the driver.
    """

    def __init__(self, kernel: Any, rows: int, device: torch.device, block: int | None = None) -> None:
        self._kernel, self._rows, self._device, self._block = kernel, rows, device, block
        self._starts: dict[int, Callable[..., None]] = {}  # by the stream's pointer

    def __call__(self, *arguments: Any) -> None:
        """Start the kernel; arguments are numbers, and views of the device's memory (:func:`kernel_view`)."""
        if simulated():
            # Numba's simulator keeps one configuration a kernel, so it is given each time.
            self._kernel[-(-self._rows // _SIMULATED_BLOCK), _SIMULATED_BLOCK](*arguments)
            return
        pointer = torch.cuda.current_stream(self._device).cuda_stream
        if pointer not in self._starts:
            self._starts[pointer] = self._prepare(_stream(pointer), arguments)
        self._starts[pointer](*arguments)

    def _prepare(self, stream: Any, arguments: tuple[Any, ...]) -> Callable[..., None]:
        """Compile the kernel, or load it; returns what starts it on a stream."""
        compiled = self._kernel.compile(tuple(self._kernel.typeof_pyval(argument) for argument in arguments))
        if self._block is None:
            self._block = _suitable_block(compiled, self._rows)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Grid size")  # a small batch does not fill the GPU
            configured = self._kernel[-(-self._rows // self._block), self._block, stream]
        try:
            return _prepared(compiled, configured)
        except (AttributeError, ImportError, TypeError) as error:  # another version of numba-cuda
            _log.debug("each start is prepared by Numba: %r", error)
            return configured


def _prepared(compiled: Any, configured: Any) -> Callable[..., None]:
    """What starts a compiled kernel as Numba does, without preparing again what has not changed.

    Args:
        compiled: the kernel for some types.
        configured: Numba's kernel with grid, block and stream.
    """
    numbas = importlib.import_module("numba.cuda.dispatcher")
    launch, config = numbas.launch, numbas.LaunchConfig(grid=configured.griddim, block=configured.blockdim)
    kinds, words_of, stream = compiled.argument_types, compiled._prepare_args, configured.stream
    code = compiled.library.get_cufunc().kernel
    if compiled.debug or compiled.cooperative:
        raise TypeError("a kernel for debugging, or whose blocks wait for each other")
    last: list[tuple[Any, list[Any]]] = [(_NONE, [])] * len(kinds)  # each argument of the last start, and its words

    def start(*arguments: Any) -> None:
        words: list[Any] = []
        for k, argument in enumerate(arguments):
            held, found = last[k]
            if held is not argument:
                if isinstance(argument, np.ndarray):  # Numba would copy it there and back
                    raise TypeError(f"argument {k} of a kernel: got an array of the host; wanted one of the device")
                found = []
                words_of(kinds[k], argument, stream, [], found)
                last[k] = argument, found
            words += found
        launch(stream, config, code, *words)

    return start


def _suitable_block(compiled: Any, rows: int) -> int:
    """Threads a block for a compiled kernel, by the driver's occupancy; the default if it cannot be asked."""
    from numba import cuda

    try:
        context, function = cuda.current_context(), compiled.library.get_cufunc()
        resident = {size: size * context.get_active_blocks_per_multiprocessor(function, size, 0) for size in _BLOCKS}
        return block_size(rows, resident, context.device.MULTIPROCESSOR_COUNT)
    except Exception as error:  # whatever a driver raises: the default always works
        _log.debug("blocks of %d threads: occupancy cannot be asked: %r", DEFAULT_BLOCK, error)
        return DEFAULT_BLOCK


def block_size(rows: int, resident: Mapping[int, int], processors: int) -> int:
    """Threads a block: the fewest that fill a multiprocessor best, halved while some multiprocessor would get no block.

    Args:
        rows: threads wanted in all.
        resident: threads that a multiprocessor holds at a time, by the size of a block.
        processors: multiprocessors of the GPU.

    Example:
        >>> resident = {64: 1536, 128: 2048, 256: 2048}
        >>> block_size(1_000_000, resident, 132), block_size(4096, resident, 132)
        (128, 32)
    """
    most = max(resident.values(), default=0)
    if not most:
        return DEFAULT_BLOCK
    size = min(size for size, threads in resident.items() if threads == most)
    while size > WARP and rows < size * processors:
        size //= 2
    return size
