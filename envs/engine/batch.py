"""GameBatch: B copies of a game as torch tensors on one device, for agents, search and dynamic programming.

Shapes: obs [B, P, ...] (a dict of those for a Dict space), reward [B, P], terminated and truncated [B],
legal_mask [B, P, A], active [B, P] (None if every seat always acts), final_active [B, P]: who would have acted at
final_obs where the last step truncated an episode under "same_step" (stale elsewhere). The tensors are views of the
game's own memory: nothing is copied, and the next step overwrites them. Clone what you want to keep.

Example:
    >>> import mlbits
    >>> batch = mlbits.make_batch("mlbits/GridWorld-v0", num_envs=4, seed=0)
    >>> batch.step(batch.sample_actions()).reward.shape
    torch.Size([4, 1])
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.envs.core.box_sampling import BoxSampler
from mlbits.envs.core.errors import DeviceError, GameError, IllegalActionError
from mlbits.envs.core.game import Game
from mlbits.envs.core.spaces import ActionLayout
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.envs.engine.gpu_copies import CudaCopies, check_cuda, check_kernels, host_records
from mlbits.envs.engine.modes import Autoreset, IllegalActions
from mlbits.envs.engine.state_checks import check_params, check_states

Observation = torch.Tensor | dict[str, torch.Tensor]

_TORCH_DTYPES = {
    np.dtype(numpy_dtype): torch_dtype
    for numpy_dtype, torch_dtype in {
        np.bool_: torch.bool, np.uint8: torch.uint8, np.int8: torch.int8, np.int16: torch.int16,
        np.int32: torch.int32, np.int64: torch.int64, np.float16: torch.float16, np.float32: torch.float32,
        np.float64: torch.float64,
    }.items()
}  # fmt: skip


class Step(NamedTuple):
    """The result of one step. The tensors are the batch's own memory.

    Attributes:
        obs: [B, P, ...]; in copies that were reset, the first observation of the new episode.
        reward: float32 [B, P].
        terminated: bool [B], the game is over; the value of ``final_obs`` is zero.
        truncated: bool [B], a time limit cut the episode; ``final_obs`` has a value. Both flags may be set at once.
        final_obs: [B, P, ...], the last observation of episodes that ended in this step (stale elsewhere).
    """

    obs: Any
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    final_obs: Any


class GameBatch:
    """B copies of a game on a device.

    Args:
        games: one game for all copies, or one per copy that differ only in their parameters (for example a map each).
        num_envs: number of copies B.
        device: "cpu", "cuda" or a torch device.
        seed: a trajectory depends only on (seed, copy index, actions).
        autoreset: "same_step" (an ended copy is reset in the step that ends it, and ``final_obs`` keeps the last
            observation), "next_step" or "disabled".
        illegal: "error" (nothing is stepped, IllegalActionError; on a GPU this waits for the device), "replace" (the
            lowest-numbered legal action, or the nearest bound) or "forfeit" (the episode ends with reward -1 for
            that seat).
        threads: CPU threads; None uses one per 8,192 copies, up to the number of cores.
        start: whether to begin the first episodes now. Otherwise :meth:`reset` begins them (and may compile the
            rules); until then only shapes and spaces are available.
        first_copy: the number of the first copy; copies 4 to 7 of a batch of 8 play as a batch of 4 with this 4 does.

    Attributes:
        changes: how often the copies were stepped, reset or set; where it is the same, so are they.

    Raises:
        GameError: if a setting is out of range or the games are incompatible.
        DeviceError: if the device is not available.
    """

    can_save_state = True

    def __init__(
        self,
        games: Game | Sequence[Game],
        num_envs: int,
        *,
        device: str | torch.device = "cpu",
        seed: int | Sequence[int] = 0,
        autoreset: Autoreset = "same_step",
        illegal: IllegalActions = "error",
        threads: int | None = None,
        start: bool = True,
        first_copy: int = 0,
    ) -> None:
        self.device = parse_device(device)
        self.copies: Copies | CudaCopies
        if self.device.type == "cuda":
            check_kernels()
            self.device = check_cuda(self.device)
            how: Any = {"autoreset": autoreset, "illegal": illegal, "first_copy": first_copy}
            self.copies = CudaCopies(games, num_envs, device=self.device, **how)
        else:
            self.copies = Copies(
                games, num_envs, autoreset=autoreset, illegal=illegal, threads=threads, first_copy=first_copy
            )
        self.game = self.copies.game
        self.num_envs, self.num_seats = num_envs, self.game.seats
        self.observation_space, self.action_space = self.game.observation_space, self.game.action_space
        self.action, self.horizon = self.game.action, _longest(self.copies.params)
        self._generator = torch.Generator(self.device)
        self.changes = 0
        self._bind()
        if start:
            self.reset(seed=seed)

    def _bind(self) -> None:
        """Create the tensors as views of the copies' memory."""
        game, num_envs = self.game, self.num_envs
        self.obs: Any = self._observation_views("obs")
        self.final_obs: Any = self._observation_views("final_obs")
        flags = {"terminated": (num_envs,), "truncated": (num_envs,)}
        self.reward = self._tensor("rewards", np.dtype(np.float32), (num_envs, game.seats))
        self.terminated, self.truncated = (self._tensor(k, np.dtype(np.bool_), v) for k, v in flags.items())
        mask_shape = (num_envs, game.seats, game.action.mask_size)
        self.legal_mask = self._tensor("legal", np.dtype(np.bool_), mask_shape) if game.masked else None
        self.active: torch.Tensor | None = None
        self.final_active: torch.Tensor | None = None
        if game.acts is not None:
            turns = self._tensor("active", np.dtype(np.bool_), (num_envs, 2 * game.seats))
            self.active, self.final_active = turns.split(game.seats, 1)
        self._result = Step(self.obs, self.reward, self.terminated, self.truncated, self.final_obs)

    @property
    def frame_stack(self) -> int:
        """How many of the latest frames the first axis of an observation holds; 1 if none."""
        return self.game.frame_stack

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self.copies, CudaCopies):
            raise TypeError("a GameBatch on a GPU cannot be copied or pickled; wanted state() and set_state()")
        kept = (
            "device",
            "copies",
            "game",
            "num_envs",
            "num_seats",
            "observation_space",
            "action_space",
            "action",
            "horizon",
            "changes",
        )
        return {name: getattr(self, name) for name in kept} | {"generator": self._generator.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        generator = state.pop("generator")
        vars(self).update(state)
        self._generator = torch.Generator(self.device)
        self._generator.set_state(generator)
        self._bind()

    def reset(self, seed: int | Sequence[int] | None = None, which: torch.Tensor | None = None) -> Any:
        """Start new episodes.

        Args:
            seed: first gives the copies that are reset new random streams; None continues the present ones.
            which: bool [B], the copies to reset; None resets all.

        Returns:
            The observations [B, P, ...].

        Raises:
            GameError: if ``which`` is not a bool tensor [B].
            GameError: if a seed is out of range, or the number of seeds is not B.
        """
        if which is not None:
            if not isinstance(which, torch.Tensor) or which.dtype != torch.bool or which.shape != (self.num_envs,):
                got = f"{getattr(which, 'dtype', type(which).__name__)} {tuple(np.shape(which))}"
                raise GameError(f"which: got {got}; wanted a torch.bool tensor {(self.num_envs,)}")
            which = which.to(self.device)
        copies = self.copies
        self.changes += 1
        if isinstance(copies, CudaCopies):
            if seed is not None:
                copies.seed(seed, which)
            copies.reset(which)
        else:
            chosen = None if which is None else which.numpy()
            if seed is not None:
                copies.seed(seed, chosen)
            copies.reset(chosen)
        if seed is not None:
            self._generator.manual_seed(int(np.asarray(seed).flat[0]) % 2**63)
        return self.obs

    def step(self, actions: torch.Tensor | NDArray[Any]) -> Step:
        """Play one action per seat in every copy.

        Args:
            actions: [B, P] int64 for Discrete, [B, P, k] int64 for MultiDiscrete or float32 for Box; the axis P may be
                left out if the game has one seat. Other integer and float types are converted.

        Returns:
            Views of the batch's memory.

        Raises:
            IllegalActionError: for a wrong shape or dtype; under illegal="error" also for illegal values.
        """
        actions = self._actions(actions)
        self.changes += 1
        if isinstance(self.copies, Copies):
            self.copies.step(actions.numpy())
        else:
            self.copies.step(actions)
        return self._result

    def sample_actions(self) -> torch.Tensor:
        """Draw actions uniformly from the legal ones, [B, P] or [B, P, k]; continuous ones as ``Box.sample`` does."""
        layout, shape = self.game.action, (self.num_envs, self.num_seats)
        if layout.kind == "continuous":
            return BoxSampler(self.action_space).sample(shape, self._generator)
        parts = []
        start = 0
        for n in layout.nvec:
            score = torch.rand((*shape, n), generator=self._generator, device=self.device)
            if self.legal_mask is not None:
                # Multiplying by the mask would not do: a legal draw of exactly 0 would tie with illegal actions.
                score = score.masked_fill(~self.legal_mask[..., start : start + n], -1)
            parts.append(score.argmax(-1))
            start += n
        return parts[0] if layout.kind == "discrete" else torch.stack(parts, -1)

    def state(self) -> torch.Tensor:
        """A copy of the complete state of every copy, random stream included: uint8 [B, state bytes]."""
        if isinstance(self.copies, CudaCopies):
            return self.copies.memory["states"].view(self.num_envs, -1).clone()
        return torch.from_numpy(self.copies.states.view(np.uint8).reshape(self.num_envs, -1).copy())

    def set_state(self, state: torch.Tensor | NDArray[Any], *, check: bool = True) -> Any:
        """Continue from saved states: restore a batch, or step copies from states chosen by a search.

        Args:
            state: uint8 [B, state bytes]: B rows from :meth:`state`, in any order and with repetition; or a NumPy
                array [B] of the game's ``state_dtype``.
            check: whether to check that the fields are in range, as they are in states that rules wrote. Rules that
                read other states may end the process.

        Returns:
            The observations of those states [B, P, ...]. Rewards and flags are cleared.

        Raises:
            GameError: if the shape or dtype does not fit this game and batch, or a field is out of range; the batch is
                unchanged then.
        """
        size = self.game.state_dtype.itemsize
        if isinstance(state, np.ndarray):
            if state.dtype != self.game.state_dtype:
                raise GameError(
                    f"state: got dtype {state.dtype}; wanted the game's state_dtype {self.game.state_dtype}"
                )
            state = torch.from_numpy(np.ascontiguousarray(state).view(np.uint8).reshape(len(state), size))
        if state.dtype != torch.uint8 or tuple(state.shape) != (self.num_envs, size):
            raise GameError(
                f"state: got {state.dtype} {tuple(state.shape)}; wanted torch.uint8 {(self.num_envs, size)}"
            )
        if check:
            check_states(self.game, host_records(state, self.game.state_dtype).reshape(self.num_envs))
        self.changes += 1
        if isinstance(self.copies, CudaCopies):
            self.copies.memory["states"].view(self.num_envs, size).copy_(state)
        else:
            self.copies.states.view(np.uint8).reshape(self.num_envs, size)[:] = state.cpu().numpy()
        for tensor in (self.reward, self.terminated, self.truncated):
            tensor.zero_()
        self.copies.refresh()
        return self.obs

    def set_params(self, params: NDArray[Any], copies: torch.Tensor | None = None) -> Any:
        """Give copies other parameters (another level, say) and start new episodes in them, while the others go on.

        The copies' random streams continue. To bring back a saved batch, set its parameters first and then its state.

        Args:
            params: records [n] of the dtype of ``game.params``, one for each of the copies.
            copies: int64 [n], each copy at most once; None means all of them.

        Returns:
            The observations [B, P, ...].

        Raises:
            GameError: if the game does not say what its parameters may be (``Game.params_ranges``), shape or dtype do
                not fit, or a field is out of range; the batch is unchanged then.
        """
        rows = np.arange(self.num_envs) if copies is None else _rows(copies, self.num_envs)
        dtype = self.game.params.dtype
        if getattr(params, "dtype", None) != dtype or params.shape != rows.shape:
            got = f"{getattr(params, 'dtype', type(params).__name__)} {np.shape(params)}"
            raise GameError(f"params: got {got}; wanted records {rows.shape} of {self.game.name}'s params.dtype")
        check_params(self.game, params)
        self.copies.set_params(params, rows)
        self.horizon = _longest(self.copies.params)
        which = torch.zeros(self.num_envs, dtype=torch.bool)
        which[torch.from_numpy(rows)] = True
        return self.reset(which=which)

    def records(self) -> NDArray[Any]:
        """The states as a NumPy structured array [B] on the host (a copy), for reading fields by name."""
        return host_records(self.state(), self.game.state_dtype).reshape(self.num_envs)

    def render(self, mode: str = "rgb_array", copy: int = 0) -> Any:
        """Draw one copy: "rgb_array" gives uint8 [H, W, 3], "ansi" a string."""
        if mode not in ("rgb_array", "ansi"):
            raise GameError(f"render mode: got {mode!r}; wanted 'rgb_array' or 'ansi'")
        if not 0 <= copy < self.num_envs:
            raise GameError(f"copy: got {copy}; wanted 0..{self.num_envs - 1}")
        state, params = self.copies.record(copy)
        return self.game.draw(state, params) if mode == "rgb_array" else self.game.text(state, params)

    def close(self) -> None:
        """Do nothing; present because wrapped environments have it."""

    def _actions(self, actions: torch.Tensor | NDArray[Any]) -> torch.Tensor:
        layout = self.game.action
        if not isinstance(actions, torch.Tensor):
            try:
                actions = torch.as_tensor(np.asarray(actions))
            except (TypeError, ValueError):
                raise IllegalActionError(f"actions: got {actions!r}; wanted a tensor or array of numbers") from None
        if self.num_seats == 1 and tuple(actions.shape) == (self.num_envs, *layout.shape):
            actions = actions.unsqueeze(1)
        wanted = _TORCH_DTYPES[layout.dtype]
        if actions.dtype != wanted:
            fits = not actions.dtype.is_floating_point and not actions.dtype.is_complex and actions.dtype != torch.bool
            if not (fits or (wanted.is_floating_point and actions.dtype.is_floating_point)):
                raise IllegalActionError(f"actions: got dtype {actions.dtype}; wanted {wanted}")
            if wanted.is_floating_point and actions.shape[-1:] == layout.shape:
                actions = _rounded_into(actions, self.action_space, layout)
            else:
                actions = actions.to(wanted)
        return self._checked(actions, (self.num_envs, self.num_seats, *layout.shape), wanted, "actions")

    def _checked(self, tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> torch.Tensor:
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise IllegalActionError(
                f"{name}: got {tensor.dtype} {tuple(tensor.shape)}; wanted {dtype} {shape} ([B, P, ...])"
            )
        return tensor.detach().to(self.device).contiguous()

    def _tensor(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> torch.Tensor:
        """The memory called ``name`` as a tensor, without copying."""
        if isinstance(self.copies, CudaCopies):
            return self.copies.memory[name].view(_TORCH_DTYPES[dtype]).view(shape)
        return torch.from_numpy(getattr(self.copies, name)).view(shape)

    def _observation_views(self, name: str) -> Any:
        layout, lead = self.game.observation, (self.num_envs, self.num_seats)
        if layout.keys is None:
            tensor = self._tensor(name, layout.dtype, (*lead, *layout.shape))
            return tensor[..., 0] if layout.scalar else tensor
        if isinstance(self.copies, CudaCopies):
            memory = self.copies.memory[name]
        else:
            memory = torch.from_numpy(getattr(self.copies, name).view(np.uint8).reshape(-1))
        return {key: field_view(memory, layout.dtype, key, lead) for key in layout.keys}


def _longest(params: NDArray[Any]) -> int | None:
    """The horizon that no copy exceeds, or None if some copy has no limit."""
    limits = params["cut_after"]
    return int(limits.max()) if (limits > 0).all() else None


def _rows(copies: Any, num_envs: int) -> NDArray[np.int64]:
    """Numbers of copies as NumPy int64 [n]."""
    fits = isinstance(copies, torch.Tensor) and copies.dtype == torch.int64 and copies.ndim == 1
    rows: NDArray[np.int64] = copies.cpu().numpy() if fits else np.full(1, -1)
    if not fits or ((rows < 0) | (rows >= num_envs)).any() or len(np.unique(rows)) < len(rows):
        raise GameError(f"copies: got {copies!r}; wanted a torch.int64 tensor of different numbers below {num_envs}")
    return rows


def _rounded_into(actions: torch.Tensor, space: Any, layout: ActionLayout) -> torch.Tensor:
    """Actions in float32; those that the space contains stay within its bounds."""
    low, high = (torch.from_numpy(bound.astype(np.float64)).to(actions.device) for bound in (space.low, space.high))
    inner_low, inner_high = (torch.from_numpy(bound).to(actions.device) for bound in (layout.low, layout.high))
    inside, cast = (actions >= low) & (actions <= high), actions.to(torch.float32)
    return torch.where(inside, torch.minimum(torch.maximum(cast, inner_low), inner_high), cast)


def field_view(memory: torch.Tensor, record: np.dtype[Any], key: str, lead: tuple[int, int]) -> torch.Tensor:
    """One field of an array of records as a strided tensor [B, P, *shape]."""
    kind, offset = record.fields[key][:2]  # type: ignore[index]
    base, shape = (kind.subdtype or (kind, ()))[0], kind.shape
    size = base.itemsize
    inner = [int(np.prod(shape[axis + 1 :], initial=1)) for axis in range(len(shape))]
    row = record.itemsize // size
    return memory.view(_TORCH_DTYPES[base]).as_strided((*lead, *shape), (row * lead[1], row, *inner), offset // size)


def parse_device(device: str | torch.device) -> torch.device:
    """A torch device of type cpu or cuda; "auto" is the GPU if there is one on which compiled rules can run.

    Raises:
        DeviceError: for any other device.
    """
    if device == "auto":
        usable = torch.cuda.is_available() and importlib.util.find_spec("numba_cuda") is not None
        device = "cuda" if usable else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise DeviceError(f"device: got {device!r}; wanted 'auto', 'cpu', 'cuda' or 'cuda:N'") from None
    if parsed.type not in ("cpu", "cuda"):
        raise DeviceError(f"device: got {device!r}; wanted 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return parsed
