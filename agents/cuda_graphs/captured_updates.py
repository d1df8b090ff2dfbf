"""All gradient steps of an iteration as one CUDA graph, for a learner whose rows have the same shapes each time.

The rows are copied to where the graph reads them, and so are the numbers that change from one iteration to the next
(learning rate, clipping), which are tensors in it. Rows of other shapes (of a game in which seats wait for their turns,
say) are learned from without a graph.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.cuda_graphs.captured_call import CapturedCall

# Learns from rows by numbers that are floats or, in a graph, tensors [], and by draws; returns tensors.
Update = Callable[[dict[str, Any], Mapping[str, Any], torch.Generator], Any]


class CapturedUpdates:
    """The gradient steps of one learner.

    Args:
        update: makes them: called with rows (tensors or dicts of tensors by name), numbers by name and the generator.
    """

    def __init__(self, update: Update) -> None:
        self._update = update
        self._data: dict[str, Any] | None = None
        self._numbers: dict[str, Tensor] = {}
        self._call: CapturedCall[Any] | None = None
        self._generator: torch.Generator | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> CapturedUpdates:
        return CapturedUpdates(copy.deepcopy(self._update, memo))  # a graph is of its own learner's memory

    def __call__(self, data: dict[str, Any], numbers: Mapping[str, float], generator: torch.Generator) -> Any:
        """Learn from rows.

        Args:
            data: tensors, or dicts of tensors, by name, on one device.
            numbers: by name; always the same names.
            generator: the only one from which the update draws, on that device.

        Returns:
            What the update returns; the next call overwrites it.

        Raises:
            AgentError: if the update waits for the device.
        """
        device = generator.device
        if device.type == "cpu":
            return self._update(data, numbers, generator)
        if self._data is None:
            self._data = _mapped(torch.empty_like, data)
            self._numbers = {name: torch.zeros((), device=device) for name in numbers}
        if self._call is None or self._generator is not generator:  # a resumed run has a new one
            whole = functools.partial(self._update, self._data, self._numbers, generator)
            self._call, self._generator = CapturedCall(whole, device, [generator]), generator
        if _shapes(data) != _shapes(self._data):
            return self._update(data, numbers, generator)
        for target, source in zip(_leaves(self._data), _leaves(data), strict=True):
            target.copy_(source)
        for name, number in numbers.items():
            self._numbers[name].fill_(number)
        return self._call()


def _leaves(value: Any) -> list[Tensor]:
    """The tensors of nested dicts, in the order of their names."""
    return [value] if isinstance(value, Tensor) else [leaf for name in sorted(value) for leaf in _leaves(value[name])]


def _mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    return {name: _mapped(function, part) for name, part in value.items()}


def _shapes(value: Any) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in _leaves(value)]
