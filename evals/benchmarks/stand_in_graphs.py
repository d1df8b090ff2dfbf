"""CUDA graphs of the stand-in GPU: what is started during a capture is noted down, and done again at each replay.

As on a card: a capture computes nothing (memory and generators are put back at its end), numbers of Python and of the
host are those of the capture, results lie in the same memory each time, and whatever waits for the device is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves


class Recording:
    """The operations between the beginning and the end of a capture.

    Args:
        generators: those that may be drawn from.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._states = [(generator, generator.get_state()) for generator in generators]
        self._undo: list[Callable[[], Any]] = []
        self._again: list[Callable[[], Any]] = []

    def operation(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Do one of torch's operations on tensors that are held, and note it down."""
        generator = kwargs.get("generator")
        if generator is not None and not any(_same(generator, known) for known, _ in self._states):
            raise RuntimeError("got a generator that the graph does not know; wanted it registered")
        for argument, value in _arguments(function, args, kwargs):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for part in tree_leaves(value):
                    if isinstance(part, Tensor):
                        self._undo.append(_putting_back(part))
        result = function(*args, **kwargs)
        aliases = any(returned.alias_info is not None for returned in function._schema.returns)

        def again() -> None:
            found = function(*args, **kwargs)
            if not aliases:
                for target, source in zip(tree_leaves(result), tree_leaves(found), strict=True):
                    if isinstance(target, Tensor):
                        target.copy_(source)

        self._again.append(again)
        return result

    def kernel(self, call: Callable[..., Any], arguments: Sequence[Any]) -> None:
        """Call a kernel on arrays, and note it down."""
        for array in arguments:
            if isinstance(array, np.ndarray) and array.flags.writeable:
                self._undo.append(_putting_array_back(array))
        call(*arguments)
        self._again.append(lambda: call(*arguments))

    def end(self) -> None:
        """Put memory and generators back to where they were at the beginning."""
        for put_back in reversed(self._undo):
            put_back()
        self._undo.clear()
        for generator, state in self._states:
            generator.set_state(state)

    def replay(self) -> None:
        """Do all of it again, on the same memory."""
        for again in self._again:
            again()


class StandInGraph:
    """``torch.cuda.CUDAGraph``."""

    def __init__(self, counts: Any) -> None:
        self.counts = counts
        self.generators: list[torch.Generator] = []
        self.recording: Recording | None = None

    def register_generator_state(self, generator: torch.Generator) -> None:
        """Let operations of the graph draw from a generator."""
        self.generators.append(generator)

    def replay(self) -> None:
        """Start the graph: one launch."""
        assert self.recording is not None, "captured before"
        self.counts.launch("graph")
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            self.recording.replay()


class StandInStream:
    """``torch.cuda.Stream``: all of the stand-in's work is done in order."""

    cuda_stream = 0

    def __init__(self, device: Any = None) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        """Nothing to wait for."""


@contextmanager
def capture(graph: StandInGraph, **_: Any) -> Iterator[None]:
    """``torch.cuda.graph``."""
    counts = graph.counts
    assert counts.recording is None, "one capture at a time"
    graph.recording = counts.recording = Recording(graph.generators)
    try:
        yield
    finally:
        counts.recording = None
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            graph.recording.end()


def replacements(counts: Any) -> list[tuple[Any, str, Any]]:
    """What of torch is replaced."""
    return [
        (torch.cuda, "CUDAGraph", lambda: StandInGraph(counts)),
        (torch.cuda, "graph", capture),
        (torch.cuda, "Stream", StandInStream),
        (torch.cuda, "current_stream", StandInStream),
        (torch.cuda, "stream", lambda stream: nullcontext()),
    ]


def _same(one: Any, two: Any) -> bool:
    """Whether two Python objects are the same generator."""
    return bool(one._cdata == two._cdata)


def _arguments(function: Any, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    for place, argument in enumerate(function._schema.arguments):
        if argument.name in kwargs:
            yield argument, kwargs[argument.name]
        elif place < len(args):
            yield argument, args[place]


def _putting_back(part: Tensor) -> Callable[[], Any]:
    before = part.clone()
    return lambda: part.copy_(before)


def _putting_array_back(array: Any) -> Callable[[], Any]:
    before = array.copy()

    def put_back() -> None:
        array[...] = before

    return put_back
