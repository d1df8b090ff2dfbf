"""Starting kernels: the device gets what Numba would give it, on torch's stream; and how many threads a block has.

The driver is stood in for (``tests.gpu.stand_in``): kernels are compiled to machine code, and starts are noted.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlbits.envs.engine import gpu_launch
from mlbits.envs.engine.gpu_launch import Launcher, block_size, borrowed_view, kernel_view

pytest.importorskip("numba_cuda")
from tests.gpu.stand_in import Card, put_in_place

ROWS = 300
RECORD = np.dtype([("x", "i4"), ("y", "f8")], align=True)
HOST = torch.device("cpu")


@pytest.fixture(scope="module")
def kernel():
    from numba import cuda

    @cuda.jit
    def add(amount, records, values, flags):
        b = cuda.grid(1)
        if b < len(values) and flags[b]:
            values[b, 0] += amount + records[b].x

    return add


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    for cached in (gpu_launch._stream, gpu_launch._borrowed):
        cached.cache_clear()
    return put_in_place(Card(), monkeypatch.setattr)


@pytest.fixture
def arrays(card):
    memory = [torch.zeros(ROWS * size, dtype=torch.uint8) for size in (RECORD.itemsize, 8, 1)]
    views = kernel_view(memory[0], RECORD, (ROWS,)), kernel_view(memory[1], np.dtype(np.int64), (ROWS, 1))
    return memory, *views, kernel_view(memory[2], np.dtype(np.bool_), (ROWS,))


def by_numba(kernel, card, arguments, stream=0):
    kernel[5, 64, stream](*arguments)
    return card.starts.pop()


def test_the_device_gets_the_words_that_numba_gives_it(kernel, card, arrays):
    memory, *views = arrays
    launch = Launcher(kernel, ROWS, HOST)
    other = torch.zeros((ROWS, 1), dtype=torch.int64)
    wanted = []
    for amount, values in ((3, views[1]), (4, views[1]), (4, borrowed_view(other, np.dtype(np.int64))), (3, views[1])):
        arguments = (amount, views[0], values, views[2])
        wanted.append(by_numba(kernel, card, arguments).words)
        launch(*arguments)
        assert card.starts.pop().words == wanted[-1]
    assert wanted[0] != wanted[1] != wanted[2] != wanted[3] == wanted[0]
    assert memory[1].data_ptr() in wanted[0]
    assert other.data_ptr() in wanted[2]


def test_kernels_start_on_torch_s_current_stream(kernel, card, arrays):
    """Also the default stream, whose pointer is 0 in torch and 1 where it is meant whatever a program was built for."""
    launch, arguments = Launcher(kernel, ROWS, HOST), (1, *arrays[1:])
    for card.stream in (0, 77, 0, 78, 77):
        launch(*arguments)
    assert [start.stream for start in card.starts] == [1, 77, 1, 78, 77]
    assert len({tuple(start.words) for start in card.starts}) == 1


def test_a_start_makes_nothing_anew(kernel, card, arrays, monkeypatch):
    from numba import cuda

    arguments = (1, *arrays[1:])
    launch, actions = Launcher(kernel, ROWS, HOST), torch.zeros((ROWS, 1), dtype=torch.int64)
    launch(*arguments)

    def refuse(*_, **__):
        raise AssertionError("made anew")

    view = borrowed_view(actions, np.dtype(np.int64))
    for name in ("external_stream", "legacy_default_stream"):
        monkeypatch.setattr(cuda, name, refuse)
    monkeypatch.setattr(gpu_launch, "_device_array", refuse)
    monkeypatch.setattr(type(kernel), "configure", refuse)
    monkeypatch.setattr(type(kernel), "compile", refuse)
    launch(*arguments)
    assert borrowed_view(actions, np.dtype(np.int64)) is view
    assert len(card.starts) == 2


def test_a_borrowed_view_does_not_keep_memory(card):
    import weakref

    actions = torch.zeros((ROWS, 1), dtype=torch.int64)
    gone = weakref.ref(actions)
    view = borrowed_view(actions, np.dtype(np.int64))
    del actions
    assert gone() is None
    assert view.shape == (ROWS, 1)


def test_another_version_of_numba_prepares_its_starts_itself(kernel, card, arrays, monkeypatch):
    monkeypatch.setattr(gpu_launch, "_prepared", lambda *_: (_ for _ in ()).throw(AttributeError("argument_types")))
    card.stream, arguments = 77, (5, *arrays[1:])
    Launcher(kernel, ROWS, HOST)(*arguments)
    (start,) = card.starts
    assert (start.stream, start.blocks, start.threads) == (77, 10, 32)
    assert 5 in start.words


def test_an_array_of_the_host_is_refused(kernel, card, arrays):
    arguments = (1, *arrays[1:])
    launch = Launcher(kernel, ROWS, HOST)
    launch(*arguments)
    with pytest.raises(TypeError, match=r"argument 2 of a kernel: got an array of the host"):
        launch(1, arrays[1], np.zeros((ROWS, 1), np.int64), arrays[3])


def test_the_block_is_chosen_by_the_driver_s_occupancy(kernel, card, arrays):
    arguments = (1, *arrays[1:])
    card.resident = lambda size: {64: 16, 128: 12, 256: 6, 512: 3}.get(size, 0)
    for rows, blocks, threads in ((ROWS, 10, 32), (1_000_000, 7813, 128)):
        Launcher(kernel, rows, HOST)(*arguments)
        start = card.starts.pop()
        assert (start.blocks, start.threads) == (blocks, threads)
    card.resident = None
    Launcher(kernel, 1_000_000, HOST)(*arguments)  # cannot be asked
    assert card.starts.pop().threads == gpu_launch.DEFAULT_BLOCK
    Launcher(kernel, ROWS, HOST, block=96)(*arguments)
    assert (card.starts[-1].blocks, card.starts[-1].threads) == (4, 96)


@pytest.mark.parametrize(
    ("rows", "resident", "wanted"),
    [
        (1 << 20, {64: 2048, 128: 2048, 256: 2048}, 64),
        (1 << 20, {64: 1024, 128: 2048, 256: 2048}, 128),
        (1 << 20, {64: 0, 128: 0}, 128),
        (1 << 20, {}, 128),
        (8448, {64: 1024, 128: 2048}, 64),  # 132 multiprocessors, a block each
        (8447, {64: 1024, 128: 2048}, 32),
        (1, {64: 2048, 1024: 2048}, 32),
    ],
)
def test_block_sizes(rows, resident, wanted):
    assert block_size(rows, resident, 132) == wanted
