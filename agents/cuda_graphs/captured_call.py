"""A function of fixed tensors as a CUDA graph: captured once, then started by the host with a single call.

A graph repeats the kernels that the function started while it was captured, on the same memory. So the function has to

- read what changes from tensors that stay where they are (numbers of Python are those of the capture, for ever);
- draw random numbers from the generators that are named, whose positions a graph moves on as the function would;
- never wait for the device, and take no decision on its numbers.

The first call runs the function as it is, so that kernels are compiled and libraries are ready; the second captures
(which runs nothing) and starts the graph, as do all later ones. All calls give the same numbers as the function itself.

Example:
    >>> total = torch.zeros(())
    >>> add = CapturedCall(lambda: total.add_(1), total.device)
    >>> [add().item() for _ in range(3)]  # on a CPU the function itself is called
    [1.0, 2.0, 3.0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

from mlbits.agents.agent import AgentError

Result = TypeVar("Result")


class CapturedCall(Generic[Result]):
    """A function, and on a GPU the graph that repeats it.

    Args:
        function: takes nothing; returns tensors in any structure, which the graph overwrites at each call.
        device: where its tensors are; on a CPU the function is called each time.
        generators: all from which it draws, on that device.
    """

    def __init__(
        self, function: Callable[[], Result], device: torch.device, generators: Sequence[torch.Generator] = ()
    ) -> None:
        self._function, self._device, self._generators = function, device, tuple(generators)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None
        self._result: Result | None = None

    def __call__(self) -> Result:
        """Call the function, or start its graph.

        Returns:
            What the function returned; after the second call always the same tensors.

        Raises:
            AgentError: if the function cannot be captured.
        """
        if self._device.type == "cpu":
            return self._function()
        if self._stream is None:
            return self._first()
        if self._graph is None:
            self._graph = self._captured(self._stream)
        self._graph.replay()
        return self._result  # type: ignore[return-value]

    def _first(self) -> Result:
        """The function itself, on the stream on which it will be captured."""
        self._stream, current = torch.cuda.Stream(self._device), torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = self._function()
        current.wait_stream(self._stream)
        return result

    def _captured(self, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            # Other threads (a plot, a tracker) may use the device meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._result = self._function()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise AgentError(f"graphs: this run cannot be captured as a CUDA graph ({reason}); wanted none") from error
        return graph
