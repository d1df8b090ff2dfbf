"""Where the tests of a card run.

On a machine with an NVIDIA GPU, in full. With ``NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1`` in Numba's simulator, with
few copies and steps, through the same code. With ``MLBITS_GPU_TESTS=cpu`` the learners run in full on the CPU, which
shows that their tasks can be solved. Elsewhere they are skipped, and say why.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
from typing import Any, NamedTuple

import pytest
import torch


class Card(NamedTuple):
    """What stands for the card.

    Attributes:
        device: as our functions take it.
        where: torch's device of its tensors.
        real: whether it is a card.
        copies: copies of a game that are compared with the CPU's.
        steps: how many steps.
        train: whether there is time for learning to succeed.
    """

    device: str
    where: torch.device
    real: bool
    copies: int
    steps: int
    train: bool

    def own_stream(self) -> Any:
        """A context in which torch's current stream is another than the default one."""
        return torch.cuda.stream(torch.cuda.Stream()) if self.real else contextlib.nullcontext()

    def wait(self) -> None:
        """Until all kernels have run."""
        if self.real:
            torch.cuda.synchronize()

    def memory(self) -> int:
        """Bytes of the card's memory in tensors; without a card of all tensors that live."""
        gc.collect()
        if self.real:
            return torch.cuda.memory_allocated()
        storages = {}
        for one in gc.get_objects():
            with contextlib.suppress(Exception):  # some objects raise whatever is asked of them
                if isinstance(one, torch.Tensor):
                    storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return sum(storages.values())


def no_card() -> str:
    """Why no card can be used; "" if one can."""
    if importlib.util.find_spec("numba_cuda") is None:
        return 'the package numba-cuda is not installed (pip install "mlbits[gpu]")'
    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
        return f"torch {torch.__version__}, built for {built}, finds no NVIDIA GPU"
    return ""


def the_card() -> Card | str:
    """The card, or why there is none."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        return Card("cuda", torch.device("cpu"), False, 3, 6, False)
    if os.environ.get("MLBITS_GPU_TESTS") == "cpu":
        return Card("cpu", torch.device("cpu"), False, 3, 6, True)
    why = no_card()
    return why or Card("cuda", torch.device("cuda", torch.cuda.current_device()), True, 1000, 200, True)


@pytest.fixture(scope="session")
def card() -> Card:
    found = the_card()
    if isinstance(found, str):
        pytest.skip(found)
    return found
