"""B copies of a game on a GPU, in torch memory, stepped by the driver's kernel with one thread per copy.

The kernel's body has the same source as the CPU's driver (see ``driver``). Views of torch tensors are made once, so a
step is one launch on torch's current stream (``gpu_launch``), without copying and without waiting for the device; only
``illegal="error"`` has to wait for the result of the check.

With ``NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1`` the same code runs in Numba's simulator on the CPU, and
:func:`compile_to_ptx` compiles a game without a GPU; both are used to test games on any machine.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.envs.core.errors import DeviceError, IllegalActionError
from mlbits.envs.core.game import Game
from mlbits.envs.core.random import copy_keys
from mlbits.envs.engine import modes
from mlbits.envs.engine.cpu_copies import illegal_action_error, stack_params
from mlbits.envs.engine.driver import load_driver
from mlbits.envs.engine.gpu_launch import Launcher, borrowed_view, simulated
from mlbits.envs.engine.gpu_launch import kernel_stream as kernel_stream  # for kernels that are no copies of a game
from mlbits.envs.engine.gpu_launch import kernel_view as kernel_view


def check_kernels() -> None:
    """Raise an error if compiled rules cannot run on a GPU.

    Raises:
        DeviceError: if numba-cuda is not installed.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise DeviceError('device="cuda": the package numba-cuda is not installed; run pip install "mlbits[gpu]"')


def check_cuda(device: torch.device) -> torch.device:
    """The torch device to use for a requested CUDA device: the current GPU, or the CPU under the simulator.

    Raises:
        DeviceError: if there is no such GPU, or it is not the process's current one.
    """
    if importlib.util.find_spec("numba_cuda") is not None and simulated():
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise DeviceError(
            f"device: got {str(device)!r}, and {count} usable CUDA devices; wanted 'cpu', or a machine with that "
            "NVIDIA GPU and a CUDA build of torch"
        )
    current = torch.cuda.current_device()
    if device.index not in (None, current):
        raise DeviceError(
            f"device: got {str(device)!r}, but kernels run on the process's current GPU, {current}; "
            f"wanted 'cuda', with CUDA_VISIBLE_DEVICES={device.index} set before the start"
        )
    return torch.device("cuda", current)


class CudaCopies:
    """B copies of a game on a GPU, with the interface of :class:`~mlbits.envs.engine.cpu_copies.Copies`.

    Each array is a torch tensor of bytes in ``memory`` (under the attribute's name) and a Numba view for the kernel.
    """

    def __init__(
        self,
        games: Game | Sequence[Game],
        num_envs: int,
        *,
        device: torch.device,
        autoreset: str = "same_step",
        illegal: str = "error",
        first_copy: int = 0,
    ) -> None:
        games = [games] if isinstance(games, Game) else list(games)
        params = stack_params(games, num_envs)
        self.game = game = games[0]
        self.num_envs, self.device, self.first_copy = num_envs, device, first_copy
        self.autoreset = modes.choice("autoreset", autoreset, modes.AUTORESET)
        self.illegal = modes.choice("illegal", illegal, modes.ILLEGAL)
        seats, layout, action = game.seats, game.observation, game.action
        self._run = Launcher(load_driver(game, "cuda").run, num_envs, device)
        self.params = params  # on the host
        self._stride = int(len(params) > 1)
        states = np.zeros(num_envs, game.state_dtype)
        states["over"] = 1
        states["rng_key"] = copy_keys(0, num_envs)
        self.memory: dict[str, torch.Tensor] = {}
        self._views: dict[str, Any] = {}
        everyone = np.ones(num_envs, bool)
        no_actions = np.zeros((num_envs, seats, *action.shape), action.dtype)
        for name, array in {
            "states": states,
            "params": params,
            "obs": np.zeros((num_envs, seats, *layout.shape), layout.dtype),
            "final_obs": np.zeros((num_envs, seats, *layout.shape), layout.dtype),
            "legal": np.zeros((num_envs, seats, action.mask_size) if game.masked else (1, 1, 1), bool),
            "active": np.ones((num_envs, 2 * seats) if game.acts is not None else (1, 1), bool),
            "rewards": np.zeros((num_envs, seats), np.float32),
            "terminated": np.zeros(num_envs, bool),
            "truncated": np.zeros(num_envs, bool),
            "everyone": everyone,
            "no_actions": no_actions,
            "played": no_actions,
            "low": action.low,
            "high": action.high,
            "fault": np.full(1, -1, np.int64),
        }.items():
            data = torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8).copy())
            self.memory[name] = data.to(device)
            self._views[name] = kernel_view(self.memory[name], array.dtype, array.shape)

    def _call(self, op: int, actions: Any, which: Any) -> None:
        view = self._views
        played = view["played"] if self.illegal == modes.REPLACE else actions
        self._run(
            op, 0, self.num_envs, self._stride, self.autoreset, self.illegal, view["states"], view["params"], actions,
            played, view["obs"], view["final_obs"], view["legal"], view["active"], view["rewards"],
            view["terminated"], view["truncated"], which, view["low"], view["high"], view["fault"],
        )  # fmt: skip

    def seed(self, seed: int | Sequence[int], which: torch.Tensor | None = None) -> None:
        """Give every copy, or those where ``which`` [B] is True, the random stream of (seed, copy index)."""
        keys = torch.from_numpy(copy_keys(seed, self.num_envs, self.first_copy).view(np.int64).copy()).to(self.device)
        everyone = self.memory["everyone"].view(torch.bool)
        chosen = everyone if which is None else which
        self.field("states", "rng_key", torch.int64)[chosen] = keys[chosen]
        self.field("states", "rng_counter", torch.int64)[chosen] = 0

    def field(self, memory: str, name: str, dtype: torch.dtype) -> torch.Tensor:
        """A strided view [B] of one scalar field of a structured array, in the device's memory."""
        record = self.game.state_dtype
        offset = record.fields[name][1]  # type: ignore[index]
        size = torch.empty(0, dtype=dtype).element_size()
        typed = self.memory[memory].view(dtype)
        return typed.as_strided((self.num_envs,), (record.itemsize // size,), offset // size)

    def reset(self, which: torch.Tensor | None = None) -> None:
        """Start a new episode in all copies, or in those where ``which`` [B] is True."""
        chosen = None if which is None else which.contiguous()  # held until the kernel has been started
        view = self._views["everyone"] if chosen is None else borrowed_view(chosen, np.dtype(np.bool_))
        self._call(modes.RESET, self._views["no_actions"], view)

    def step(self, actions: torch.Tensor) -> None:
        """Play one action per seat; ``actions`` [B, P, ...] is contiguous, on this device."""
        view = borrowed_view(actions, np.dtype(self.game.action.dtype))
        if self.illegal == modes.ERROR:
            self._call(modes.CHECK, view, self._views["everyone"])
            fault = int(self.memory["fault"].view(torch.int64).item())
            if fault >= 0:
                self.memory["fault"].view(torch.int64).fill_(-1)
                raise self._illegal_action(actions, fault)
        self._call(modes.STEP, view, self._views["everyone"])

    def set_params(self, params: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Give the copies ``rows`` [n] their records of ``params`` [n]; what was shared becomes one record per copy."""
        size = self.params.dtype.itemsize
        if len(self.params) < self.num_envs:
            self.params = np.repeat(self.params, self.num_envs)
            self._stride = 1
            self.memory["params"] = self.memory["params"].repeat(self.num_envs)
            self._views["params"] = kernel_view(self.memory["params"], self.params.dtype, self.params.shape)
        self.params[rows] = params
        data = torch.from_numpy(np.ascontiguousarray(params).view(np.uint8).reshape(len(rows), size))
        self.memory["params"].view(self.num_envs, size)[torch.from_numpy(rows).to(self.device)] = data.to(self.device)

    def refresh(self) -> None:
        """Rewrite observations and masks from the states."""
        self._call(modes.REFRESH, self._views["no_actions"], self._views["everyone"])

    def _illegal_action(self, actions: torch.Tensor, fault: int) -> IllegalActionError:
        b, seat = divmod(fault, self.game.seats)
        mask = None
        if self.game.masked:
            mask = self.memory["legal"].view(torch.bool).view(self.num_envs, self.game.seats, -1)[b, seat].cpu().numpy()
        return illegal_action_error(self.game, f"copy {b}, seat {seat}", actions[b, seat].cpu().numpy(), mask)

    def record(self, b: int = 0) -> tuple[Any, Any]:
        """The (state, params) of copy ``b`` on the host, for drawing."""
        states = host_records(self.memory["states"], self.game.state_dtype)
        params = host_records(self.memory["params"], self.game.params.dtype)
        return states.view(np.recarray)[b], params.view(np.recarray)[b if self._stride else 0]


def host_records(memory: torch.Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A structured array on the host from a tensor of bytes."""
    return memory.cpu().numpy().view(dtype)


def compile_to_ptx(game: Game, compute_capability: tuple[int, int] = (9, 0)) -> str:
    """Compile a game's kernel to PTX; this needs no GPU.

    Args:
        game: the game.
        compute_capability: of the GPU; (9, 0) is Hopper.

    Returns:
        The PTX text.

    Raises:
        numba.core.errors.NumbaError: if a rule uses what the GPU cannot run.
    """
    from numba import types

    layout, action = game.observation, game.action
    obs = kernel_type(layout.dtype, 2 + len(layout.shape))
    actions = kernel_type(action.dtype, 2 + len(action.shape))
    flags, bounds = kernel_type(np.bool_, 1), kernel_type(np.float32, 1)
    signature = types.void(
        *[types.int64] * 6, kernel_type(game.state_dtype, 1), kernel_type(game.params.dtype, 1), actions, actions, obs,
        obs, kernel_type(np.bool_, 3), kernel_type(np.bool_, 2), kernel_type(np.float32, 2), flags, flags, flags,
        bounds, bounds, kernel_type(np.int64, 1),
    )  # fmt: skip
    return kernel_ptx(load_driver(game, "cuda").run, signature, compute_capability)


def kernel_type(dtype: Any, axes: int) -> Any:
    """Numba's type of a contiguous array."""
    from numba import from_dtype, types

    return types.Array(from_dtype(np.dtype(dtype)), axes, "C")


def kernel_ptx(kernel: Any, signature: Any, compute_capability: tuple[int, int]) -> str:
    """Compile any kernel to PTX for arguments of some types; this needs no GPU."""
    compiler: Any = importlib.import_module("numba.cuda")
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")

    class _Absent:
        pass

    absent = _Absent()
    absent.compute_capability = compute_capability  # type: ignore[attr-defined]
    present = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: absent
    try:
        ptx, _ = compiler.compile_ptx(kernel.py_func, signature, cc=compute_capability)
    finally:
        dispatcher.get_current_device = present
    return str(ptx)
