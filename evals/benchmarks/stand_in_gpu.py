"""A GPU that is not there: tensors on the CPU that behave as a card's do, with every wait, copy and launch counted.

Inside :func:`stand_in_gpu`, ``device="cuda"`` works on any machine. A tensor made there says that it is on "cuda",
takes the code paths of a card, cannot be read by NumPy nor mixed with the host's tensors, and computes on the CPU. The
rules of games are run by the CPU's driver, each call of which counts as one launch. Three things are counted:

    waits     times the host has to wait for the device: reading a number, sizes that depend on data (``nonzero``,
              indices that are booleans), and copies from or to memory that is not pinned
    copies    transfers between host and device, in either direction
    launches  operations that start at least one kernel; many start several, so that this is a lower bound; a graph
              (:mod:`~mlbits.evals.benchmarks.stand_in_graphs`) is one

Example:
    with stand_in_gpu() as counts:
        batch = mlbits.make_batch("mlbits/CartPole-v0", 64, device="cuda", illegal="replace")
        before = counts.snapshot()
        batch.step(torch.zeros(64, 1, dtype=torch.int64, device="cuda"))
        counts.since(before)                      # Counts(waits=0, copies=0, launches=2)
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mlbits.agents.kernels import advantages_on_gpu
from mlbits.envs.engine import gpu_copies
from mlbits.envs.engine.driver import load_driver
from mlbits.evals.benchmarks.stand_in_graphs import Recording
from mlbits.evals.benchmarks.stand_in_graphs import replacements as graph_replacements

_DEVICE, _INSIDE = torch.device("cuda", 0), torch.device("meta")
_MEMORY = 64 << 30  # bytes of device memory that the stand-in claims to have
_OPS, _SET_DATA = torch.ops.aten, Tensor.data.__set__  # type: ignore[attr-defined]
# Operations that hand a number, or a size that depends on the data, to the host.
_READS = {_OPS._local_scalar_dense.default, _OPS.equal.default, _OPS.is_nonzero.default}
_DATA_SIZED = {
    _OPS.nonzero.default, _OPS.masked_select.default, _OPS.bincount.default, _OPS._unique2.default,
    _OPS.unique_consecutive.default, _OPS.repeat_interleave.Tensor,
}  # fmt: skip
_INDEXED = {_OPS.index.Tensor, _OPS.index_put_.default, _OPS.index_put.default, _OPS._index_put_impl_.default}


class Counts(NamedTuple):
    """What was counted.

    Attributes:
        waits: times the host waited for the device.
        copies: transfers between host and device.
        launches: operations that start at least one kernel.
    """

    waits: int = 0
    copies: int = 0
    launches: int = 0


class DeviceCounts:
    """The counts so far, and where they came from.

    Attributes:
        waits: times the host waited, by place: the lines of this package that were running.
        launches: operations by name.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self._copies = 0
        self.recording: Recording | None = None  # while a graph is captured

    def snapshot(self) -> Counts:
        """The counts so far."""
        return Counts(self.waits.total(), self._copies, self.launches.total())

    def since(self, before: Counts) -> Counts:
        """What was counted since a snapshot."""
        now = self.snapshot()
        return Counts(*(new - old for new, old in zip(now, before, strict=True)))

    def wait(self) -> None:
        """Count one wait, at the innermost lines of this package; a capture refuses it."""
        if self.recording is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        frame: Any = sys._getframe(1)
        places: list[str] = []
        while frame is not None and len(places) < 3:
            if _is_ours(frame.f_code.co_filename):
                places.append(f"{_short(frame.f_code.co_filename)}:{frame.f_lineno}")
            frame = frame.f_back
        self.waits[" < ".join(places)] += 1

    def copy(self, *, waits: bool = True) -> None:
        """Count one transfer between host and device."""
        self._copies += 1
        if waits:
            self.wait()

    def launch(self, name: str) -> None:
        """Count one operation on the device."""
        self.launches[name] += 1


class DeviceTensor(Tensor):
    """A tensor that says that it is on the card; its numbers are in ``held``, of the same shape, on the CPU."""

    held: Tensor
    from_number = False

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:  # noqa: D102
        shell = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device=_INSIDE)
        made = Tensor._make_subclass(cls, shell, False)
        made.held = held
        return made

    device = property(lambda self: _DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{function}: got a tensor of the stand-in GPU after its end; wanted one made afterwards")


class _Generator(torch.Generator):
    """A generator that says on which device it was made; it draws on the CPU."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu")  # type: ignore[call-arg]
        made.place = torch.device(device)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()

    place: torch.device
    device = property(lambda self: _DEVICE if self.place.type == "cuda" else self.place)


class _Calls(TorchFunctionMode):
    """Torch's functions as called from Python: "cuda" becomes the inner device, and NumPy is refused."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in ("numpy", "__array__") and isinstance(args[0], DeviceTensor):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")
        if function is torch.device:
            return function(*args, **kwargs)
        if isinstance(generator := kwargs.get("generator"), _Generator):
            on_gpu = isinstance(args[0], DeviceTensor) or _is_gpu(kwargs.get("device"))
            if on_gpu != (generator.device.type == "cuda"):
                raise RuntimeError(f"{name}: Expected a generator on the device of the draws, got {generator.device}")
        if name == "cuda":
            function, args = Tensor.to, (args[0], _INSIDE)
        if name == "pin_memory":
            pinned = args[0].clone()
            pinned.pinned = True
            return pinned
        if name in ("tensor", "as_tensor", "asarray") and _is_gpu(kwargs.get("device")):
            return function(*args, **{**kwargs, "device": "cpu"}).to(_INSIDE)
        if name == "tolist" and isinstance(args[0], DeviceTensor):
            return args[0].detach().to("cpu").tolist()
        if function == _SET_DATA and isinstance(args[0], DeviceTensor):
            args[0].held = args[1].held  # torch does the same to the shells
        args, kwargs = tree_map(_inner, args), tree_map(_inner, kwargs)
        return function(*args, **kwargs)


class _Operations(TorchDispatchMode):
    """Torch's operations: done on the CPU, and counted where a card would do them."""

    def __init__(self, counts: DeviceCounts) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = counts

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        ours = [part for part in given if isinstance(part, DeviceTensor)]
        device = kwargs.get("device")
        if not ours and not (device is not None and torch.device(device).type in ("meta", "cuda")):
            return function(*args, **kwargs)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        goes_home = device is not None and torch.device(device).type == "cpu"
        self._check(function, given)
        recording = self.counts.recording
        if recording is None:
            result = function(*tree_map(_held, args), **tree_map(_held, kwargs))
        else:  # a graph keeps the numbers of the host as they are now
            result = recording.operation(function, tree_map(_held_or_fixed, args), tree_map(_held_or_fixed, kwargs))
        self._count(function, args, kwargs, ours, result, goes_home)
        if goes_home or not _has_tensor(result):
            return result
        if function._schema.is_mutable and (changed := _changed(function, args, kwargs)) is not None:
            return changed
        wrapped = tree_map(lambda part: DeviceTensor(part) if isinstance(part, Tensor) else part, result)
        if function is _OPS.scalar_tensor.default:
            wrapped.from_number = True
        return wrapped

    def _check(self, function: Any, given: list[Tensor]) -> None:
        """Refuse what a card refuses: the host's tensors among the device's."""
        if function in (_OPS._to_copy.default, _OPS.copy_.default) or (function in _INDEXED):
            return
        for part in given:
            if not isinstance(part, DeviceTensor) and part.dim():
                raise RuntimeError(f"{function}: Expected all tensors to be on the same device, got cuda:0 and cpu")

    def _count(self, function: Any, args: Any, kwargs: Any, ours: list[Any], result: Any, goes_home: bool) -> None:
        counts = self.counts
        if function in _READS:
            counts.copy()
        elif function is _OPS._to_copy.default:
            if goes_home or not ours:
                counts.copy(waits=not (kwargs.get("non_blocking") and (goes_home or getattr(args[0], "pinned", False))))
            else:
                counts.launch("to")
        elif function is _OPS.copy_.default and len(ours) < 2:
            host = args[1] if isinstance(args[0], DeviceTensor) else args[0]
            non_blocking = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            if host.dim() == 0 and host is args[1]:
                counts.launch("fill")
            else:
                counts.copy(waits=not (non_blocking and getattr(host, "pinned", False)))
        elif function in _INDEXED:
            self._count_indexed(function, args)
        elif function in _DATA_SIZED:
            counts.launch(str(function))
            counts.wait()
        elif not _is_free(function, args, kwargs, result):
            counts.launch(str(function))

    def _count_indexed(self, function: Any, args: Any) -> None:
        """An index of booleans is turned into numbers, whose count the host needs; unless one number is put there."""
        indices = [index for index in args[1] if index is not None]
        values = args[2] if len(args) > 2 else None
        flags = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
        one = values is not None and values.dim() == 0 and (
            not isinstance(values, DeviceTensor) or values.from_number
        )  # fmt: skip
        if flags and not one:
            self.counts.wait()
        for index in indices:
            if not isinstance(index, DeviceTensor):
                self.counts.copy()
        self.counts.launch(str(function))


@contextmanager
def stand_in_gpu() -> Iterator[DeviceCounts]:
    """A context in which ``device="cuda"`` is the stand-in; gives the counts.

    For counting and for tests: it replaces parts of torch while it lasts, and is slow.
    """
    counts = DeviceCounts()
    with ExitStack() as stack:
        for target, name, value in _replacements(counts):
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(_Operations(counts))
        stack.enter_context(_Calls())
        yield counts


def _replacements(counts: DeviceCounts) -> list[tuple[Any, str, Any]]:
    return [
        (torch, "Generator", _Generator),
        # Modules keep the identity of their parameters when they move, as they do from a CPU to a card.
        (torch.__future__, "get_swap_module_params_on_conversion", lambda: True),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "get_device_capability", lambda device=None: (9, 0)),
        (torch.cuda, "mem_get_info", lambda device=None: (_MEMORY, _MEMORY)),
        (torch.cuda, "synchronize", lambda device=None: counts.wait()),
        *graph_replacements(counts),
        (gpu_copies, "kernel_stream", lambda device: 0),
        (gpu_copies, "kernel_view", _kernel_view),
        (gpu_copies, "borrowed_view", lambda tensor, dtype: tensor.held.numpy().view(dtype)),
        (gpu_copies, "Launcher", lambda kernel, rows, device: kernel),
        (advantages_on_gpu, "kernel", lambda: _Kernel(advantages_on_gpu.of_seat, counts)),
        (gpu_copies, "load_driver", lambda game, target: _Driver(load_driver(game), counts)),
    ]


class _Driver:
    """A game's driver on a card, by that of the CPU: ``run(*arguments)`` as its launcher is called."""

    def __init__(self, driver: Any, counts: DeviceCounts) -> None:
        self.run, self._driver, self._counts = self, driver, counts

    def __call__(self, *arguments: Any) -> None:
        self._counts.launch("rules")
        _run(self._counts, self._played, arguments)

    def _played(self, *arguments: Any) -> None:
        fault = self._driver.run(*arguments[:-1])
        if fault >= 0:
            arguments[-1][0] = fault


class _Kernel:
    """A kernel with a thread for each of ``count`` rows: ``kernel[blocks, threads, stream](count, *arguments)``."""

    def __init__(self, of_row: Callable[..., None], counts: DeviceCounts) -> None:
        self._of_row, self._counts = of_row, counts

    def __getitem__(self, launch: Any) -> Callable[..., None]:
        return self._launched

    def _launched(self, count: int, *arguments: Any) -> None:
        self._counts.launch(self._of_row.__name__)
        _run(self._counts, self._all_rows, (count, *arguments))

    def _all_rows(self, count: int, *arguments: Any) -> None:
        for k in range(count):
            self._of_row(k, *arguments)


def _run(counts: DeviceCounts, kernel: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Run a kernel; while a graph is captured, note it down."""
    if counts.recording is None:
        kernel(*arguments)
    else:
        counts.recording.kernel(kernel, arguments)


def _kernel_view(memory: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """A tensor of bytes as the driver's array."""
    return memory.held.numpy().view(dtype).reshape(shape)


def _is_ours(path: str) -> bool:
    return "/mlbits/" in path and __file__ != path


def _short(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def _is_gpu(device: Any) -> bool:
    return device is not None and not isinstance(device, int) and torch.device(device).type == "cuda"


def _inner(value: Any) -> Any:
    """The device that torch's own code sees, in place of the card."""
    if isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda")):
        return _INSIDE if torch.device(value).type == "cuda" else value
    return value


def _held(value: Any) -> Any:
    return value.held if isinstance(value, DeviceTensor) else value


def _held_or_fixed(value: Any) -> Any:
    if isinstance(value, Tensor) and not isinstance(value, DeviceTensor) and not value.dim():
        return value.clone()
    return _held(value)


def _has_tensor(result: Any) -> bool:
    return isinstance(result, Tensor | list | tuple)


def _changed(function: Any, args: Any, kwargs: Any) -> Any:
    """What an operation in place returns: its own argument. None if it returns none of them."""
    returned = function._schema.returns
    if len(returned) != 1 or returned[0].alias_info is None:
        return None
    names = returned[0].alias_info.before_set
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.before_set == names:
            return kwargs[argument.name] if argument.name in kwargs else args[place]
    return None


def _is_free(function: Any, args: Any, kwargs: Any, result: Any) -> bool:
    """Whether an operation starts no kernel: a view, or memory that nothing is written to."""
    if function._schema.is_mutable:
        return function.overloadpacket in (_OPS.detach_, _OPS.resize_, _OPS.set_)
    # A number that Python puts into a tensor stays with the host.
    nothing = (_OPS.empty, _OPS.empty_like, _OPS.empty_strided, _OPS.new_empty, _OPS.detach, _OPS.scalar_tensor)
    if function.overloadpacket in nothing:
        return True
    return any(argument.alias_info is not None for argument in function._schema.arguments)
