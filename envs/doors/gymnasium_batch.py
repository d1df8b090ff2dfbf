"""Any Gymnasium environment as a batch with the interface of :class:`~mlbits.envs.engine.batch.GameBatch`.

``open_batch`` opens any environment for training: an id of ours gives a GameBatch, any other id copies of a Gymnasium
environment, stepped one after another, in this process or in several
(:mod:`~mlbits.envs.doors.gymnasium_workers`). Gymnasium's ``SyncVectorEnv`` plays the same trajectories for the same
seeds; it takes 50 to 130 microseconds more per call (a copy of every array, a dictionary of all copies' infos), as much
as a step of MuJoCo.

What a ``recorded`` batch keeps, so that runs can be resumed: :mod:`~mlbits.envs.doors.gymnasium_recording`.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.settings import integer
from mlbits.envs.core.spaces import ActionLayout, action_layout, cast_action
from mlbits.envs.doors.atari import is_atari, max_steps_per_game
from mlbits.envs.doors.gymnasium_copies import ErrorsNamed, GymnasiumCopies, Parts, arrays_in
from mlbits.envs.doors.gymnasium_ids import check_env_id, frame_stack_of, make_copy, reward_threshold
from mlbits.envs.doors.gymnasium_recording import Recording
from mlbits.envs.doors.gymnasium_workers import Workers, choose, elsewhere
from mlbits.envs.engine import modes
from mlbits.envs.engine.batch import GameBatch, Step, parse_device
from mlbits.envs.engine.modes import Autoreset, IllegalActions
from mlbits.envs.engine.on_host import to_device
from mlbits.envs.registry import make_game, registered

# A copy is reseeded at the first end of an episode after this many steps, which bounds what resuming has to replay.
# Seeding loads an Atari game's ROM: 0.1 s, 5% of the time of 4,096 steps.
SEED_EVERY = 4096

__all__ = ["AnyBatch", "GymnasiumBatch", "check_env_id", "open_batch", "reward_threshold"]


class GymnasiumBatch:
    """B copies of a Gymnasium environment; one seat, no masks.

    On the CPU the tensors are the batch's own memory, which the next step overwrites. Observations of float64 become
    float32, and so does the observation space.

    Args:
        env_id: a Gymnasium id, or "module:id".
        num_envs: number of copies B.
        device: device of the tensors; the environments run on the CPU.
        seed: seed of the first episodes: copy b gets ``seed + b``.
        settings: keyword arguments of the environment.
        render_mode: None or "rgb_array".
        autoreset: "same_step", "next_step" or "disabled", as for GameBatch.
        training: whether the copies are for training; only matters for Atari, see :mod:`mlbits.envs.doors.atari`.
        recorded: whether actions are kept, so that ``state_dict`` and ``load_state_dict`` can restore the copies.
        workers: how many processes step the copies, this one included; the results do not depend on it. 0 decides, by
            the time that a step takes (:func:`~mlbits.envs.doors.gymnasium_workers.choose`).
        steps: for this decision, how many steps will be played, over all copies.
        apart: whether ``workers`` other processes step all copies, so that this one is free for something else.

    Attributes:
        note: what the user should know about the number of processes; "" for nothing.
        envs: the environments that this process steps; with ``apart`` one that is made for its spaces and not stepped.
        frame_stack: k if an observation's first axis is the latest k frames, else 1.

    Raises:
        UnknownIdError: if Gymnasium does not know the id.
        GameError: if agents do not support its spaces, a setting is not accepted, a package is missing, or
            observations do not match the observation space.
    """

    can_save_state = False
    active = None
    final_active = None
    legal_mask = None
    num_seats = 1

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        device: str | torch.device = "cpu",
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        autoreset: Autoreset = "same_step",
        training: bool = False,
        recorded: bool = False,
        workers: int = 1,
        steps: float = 0,
        apart: bool = False,
    ) -> None:
        self.device, self.env_id = parse_device(device), env_id
        self.num_envs = integer("num_envs", num_envs, 1, 2**31 - 1)
        own = dict(settings or {}) | ({} if render_mode is None else {"render_mode": render_mode})
        making: dict[str, Any] = {
            "settings": own, "training": training, "autoreset": modes.choice("autoreset", autoreset, modes.AUTORESET),
            "seed_every": SEED_EVERY if recorded else 0,
        }  # fmt: skip
        self.note, self._workers = "", None
        if apart:
            self._workers = self._started(integer("actors", workers, 1, 2**16), making, apart=True)
        else:
            self._workers = self._open_workers(integer("env_workers", workers, 0, 2**16), steps, making)
        self._make_copies(making)
        first = self.envs[0]
        self.observation_space, self.action_space = single_precision(first.observation_space), first.action_space
        self.action: ActionLayout = action_layout(self.action_space)
        spec = first.spec  # of the copy: settings may change the time limit of the id
        self.horizon: int | None = None if spec is None else spec.max_episode_steps
        if self.horizon is None and spec is not None and is_atari(spec):
            self.horizon = max_steps_per_game(first, own)
        self.frame_stack = frame_stack_of(first)
        self._actions_shape = (num_envs, 1, *self.action.shape)
        self._shared = self.device.type == "cpu"
        try:
            self._allocate()
        except GameError:
            if self._workers is None or workers != 0:
                raise
            self._workers.close()  # nobody asked for them: one process needs no shared memory
            self.note, self._workers = "", None
            self._make_copies(making)
            self._allocate()
        self._recording: Recording | None = None
        if recorded:
            self._recording = Recording(env_id, self.action, self._arrays, self._copies, self._workers)
        self._generator = torch.Generator().manual_seed(seed)
        self.changes = 0  # how often the copies were stepped or started again
        self._sampled = copy.deepcopy(self.action_space)  # the copies may sample from their own
        self.reset(seed=seed)

    def _open_workers(self, workers: int, steps: float, making: Mapping[str, Any]) -> Workers | None:
        """Start other processes, if some are asked for or pay."""
        chosen = workers == 0
        if chosen:
            workers, self.note = choose(self.env_id, making["settings"], making["training"], self.num_envs, steps)
        if min(workers, self.num_envs) == 1:
            return None
        try:
            return self._started(workers, making)
        except GameError:
            if not chosen:
                raise
            self.note = ""
            return None

    def _started(self, workers: int, making: Mapping[str, Any], apart: bool = False) -> Workers:
        """Other processes that have made their copies."""
        started = Workers(self.env_id, min(workers, self.num_envs), self.num_envs, apart, **making)
        started.made()
        return started

    def _make_copies(self, making: Mapping[str, Any]) -> None:
        """Make the copies that this process steps."""
        numbers = range(self.num_envs) if self._workers is None else self._workers.own
        self._copies = GymnasiumCopies(self.env_id, numbers=numbers, **making)
        self.envs = self._copies.envs or [make_copy(self.env_id, making["settings"], making["training"])]
        self._named = ErrorsNamed(self.env_id, self._copies)

    def _allocate(self) -> None:
        """Allocate the NumPy memory that the copies write, and tensors of it (on the CPU without copying)."""
        using = (self.observation_space, self.action, self.num_envs)
        if self._workers is None:
            arrays = arrays_in(self.num_envs, *using[:2], lambda size: np.zeros(size, np.uint8))
        else:
            arrays = arrays_in(self.num_envs, *using[:2], self._workers.share)
            self._workers.ready(*using)
        self._copies.use(arrays, *using)
        self._seeds, self._seedings = self._copies.seeds, self._copies.seedings  # of the workers' copies too
        self._arrays, self._obs, self._final, self._over = arrays, arrays.obs, arrays.final, arrays.over
        self.final_obs = self._shown(self._final)
        self._show(False)

    def reset(self, seed: int | Sequence[int] | None = None, which: torch.Tensor | None = None) -> Any:
        """Start new episodes; returns observations [B, 1, ...].

        Args:
            seed: copy b gets ``seed + b``, or ``seed[b]`` of one seed per copy; None continues the copies' current
                random streams.
            which: bool [B], the copies to reset; None resets all.

        Raises:
            GameError: if an observation does not have the shape of its space; or for any error of a copy's own code.
        """
        self.changes += 1
        chosen = range(self.num_envs) if which is None else np.flatnonzero(which.cpu().numpy()).tolist()
        if seed is None:
            self._restart(chosen)
        else:
            self._seed({b: (seed + b if isinstance(seed, int) else int(seed[b]), 0) for b in chosen})
        if not self._shared:
            self._show(False)
        return self.obs

    def step(self, actions: torch.Tensor) -> Step:
        """Play one action per copy, [B, 1] or [B, 1, k].

        Raises:
            IllegalActionError: for a wrong shape.
            GameError: if an observation does not match its space, or a reward is not a number; or for any error of a
                copy's own code, which is its cause.
        """
        array = self._array(actions)
        self.changes += 1
        if self._recording is not None:
            self._recording.add(array)
        with self._named:
            if self._workers is None:
                any_ended = self._copies.step(array)
            else:
                self._arrays.actions[...] = array
                with self._workers.working() as ended:
                    any_ended = self._copies.step_shared()
                any_ended |= any(ended)
        if self._recording is not None:
            self._recording.note_seedings()
        if not self._shared:
            self._show(any_ended)
        return self._result

    def _restart(self, which: Sequence[int]) -> None:
        """Start episodes in these copies, whether or not the last ones have ended."""
        with self._named, elsewhere(self._workers, "restart", lambda part: ([b for b in which if b in part],)):
            for b in which:
                if b in self._copies.numbers:
                    self._copies.restart(b)
        if self._recording is not None:
            self._recording.note_restarts(which)

    def _seed(self, seeds: Mapping[int, tuple[int, int]]) -> None:
        """Start episodes in copies from their first seeds and numbers of reseedings."""
        with (
            self._named,
            elsewhere(self._workers, "seed", lambda part: ({b: own for b, own in seeds.items() if b in part},)),
        ):
            for b, (seed, seedings) in seeds.items():
                self._seeds[b], self._seedings[b] = seed, seedings
                if b in self._copies.numbers:
                    self._copies.seed(b, seed, seedings)
                if self._recording is not None:
                    self._recording.forget(b)

    def _array(self, actions: torch.Tensor) -> NDArray[Any]:
        if actions.shape != self._actions_shape:
            raise IllegalActionError(f"actions: got {tuple(actions.shape)}; wanted {self._actions_shape} ([B, 1, ...])")
        return (actions if self._shared else actions.cpu()).numpy()[:, 0]

    def sample_actions(self) -> torch.Tensor:
        """Sample actions from the action space, [B, 1] or [B, 1, k]."""
        self._sampled.seed(int(torch.randint(2**31, (), generator=self._generator)))
        drawn = np.stack([self._sampled.sample() for _ in range(self.num_envs)])
        return torch.from_numpy(cast_action(drawn, self.action_space, self.action)).to(self.device)[:, None]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state of a recorded batch: seeds, actions since, and the observations and rewards they led to."""
        assert self._recording is not None, "state_dict: wanted a batch made with recorded=True"
        return self._recording.state_dict()

    def load_state_dict(
        self, state: Mapping[str, torch.Tensor], say: Callable[[str], None] = lambda text: None
    ) -> list[int]:
        """Restore a recorded batch by seeding its copies and replaying their actions.

        Args:
            state: from :meth:`state_dict`.
            say: receives messages for the user: progress, and which copies failed.

        Returns:
            The copies whose replay failed, in which new episodes were started: the environment is not
            deterministic given its seed, or has changed, or the copy had too many actions to keep.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if an entry does not fit this batch.
        """
        assert self._recording is not None, "load_state_dict: wanted a batch made with recorded=True"
        failed = self._recording.restore(state, say)
        for b, why in failed.items():
            self._seed({b: (self._seeds[b], self._seedings[b] + 1)})
            say(
                f"{self.env_id}: copy {b} could not be restored ({why}); its episode is restarted. "
                "A resumed run equals an uninterrupted one only if the environment is deterministic given its seed."
            )
        self._arrays.rewards[:] = 0
        if not self._shared:
            self._show(False)
        return list(failed)

    def render(self, mode: str = "rgb_array", copy: int = 0) -> NDArray[np.uint8] | None:
        """The image of one copy, if made with render_mode="rgb_array"; None if the environment draws nothing.

        Raises:
            GameError: if drawing fails because a package or a display is missing.
        """
        if copy not in self._copies.numbers:
            assert self._workers is not None
            name, none = self._workers.setting
            raise GameError(
                f"{self.env_id}: copy {copy} is in another process and cannot be drawn; wanted {name} = {none}"
            )
        try:
            with _without_display():  # warnings are suppressed; errors are raised
                frame: Any = self.envs[copy].render()  # only this copy: drawing costs far more than stepping
        except Exception as error:  # any error of the environment's drawing code
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise GameError(f"{self.env_id}: cannot be drawn ({reason})") from None
        return None if frame is None else np.asarray(frame)

    def text(self, copy: int = 0) -> str | None:
        """One copy as the environment writes it (render mode "ansi"); None if it writes nothing."""
        env: Any = self.envs[copy].unwrapped
        if "ansi" not in (env.metadata.get("render_modes") or ()):
            return None
        mode, env.render_mode = env.render_mode, "ansi"
        try:
            return str(env.render()).strip("\n")
        except Exception:  # any error of the environment's own code
            return None
        finally:
            env.render_mode = mode

    def stop(self) -> None:
        """End other processes, whatever they are doing: a step that another thread waits for is a GameError there."""
        if self._workers is not None:
            self._workers.stop()

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()
        if self._workers is not None:
            self._workers.close()

    def _show(self, any_ended: bool) -> None:
        """Update the tensors from the memory that the copies wrote; on the CPU once, because they share it."""
        self.obs = self._shown(self._obs)
        self.reward = self._tensor(self._arrays.rewards)[:, None]
        self.terminated, self.truncated = self._tensor(self._arrays.terminated), self._tensor(self._arrays.truncated)
        if any_ended:
            self.final_obs = self._shown(self._final)
        self._result = Step(self.obs, self.reward, self.terminated, self.truncated, self.final_obs)

    def _shown(self, parts: Parts) -> Any:
        tensors = {key: self._tensor(part)[:, None] for key, part in parts.items()}
        return tensors.get(None, tensors)

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return to_device(array, self.device)


AnyBatch = GameBatch | GymnasiumBatch


def open_batch(
    env_id: str,
    num_envs: int,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    illegal: IllegalActions = "error",
    autoreset: Autoreset = "same_step",
    render_mode: str | None = None,
    training: bool = False,
    start: bool = True,
    recorded: bool = False,
    workers: int = 1,
    steps: float = 0,
    apart: bool = False,
    first_copy: int = 0,
) -> AnyBatch:
    """A batch of any environment: a registered game, or a wrapped Gymnasium environment.

    Args:
        env_id: an id of ours or Gymnasium's, or "module:id".
        num_envs: number of copies B.
        device: "cpu", "cuda" or a torch device.
        seed: seed of the copies.
        settings: keyword settings of the environment.
        illegal: see GameBatch; wrapped environments handle illegal actions themselves.
        autoreset: see GameBatch.
        render_mode: for wrapped environments, None or "rgb_array"; ours can always be drawn.
        training: True for the rewards and episode ends of training, False for the true ones; they differ for Atari.
        start: see GameBatch; False compiles nothing. Wrapped environments always start.
        recorded: for wrapped environments, see :class:`GymnasiumBatch`; ours can always be saved.
        workers: for wrapped environments, how many processes step them; 0 decides.
        steps: for this decision, how many steps will be played.
        apart: for wrapped environments, whether so many other processes step all copies.
        first_copy: the number of the first copy, whose random stream it gets.

    Raises:
        UnknownIdError: if there is no such id; the message names the nearest.
        GameError: for settings out of range.
    """
    name = check_env_id(env_id)
    if name in registered():
        if apart:
            raise GameError(
                f"actors: got {workers}; {name} is compiled, and its steps take less time than learning; wanted 0"
            )
        if workers > 1:
            raise GameError(f"env_workers: got {workers}; {name} is compiled and stepped here; wanted 0 or 1")
        game = make_game(name, **dict(settings or {}))
        return GameBatch(
            game, num_envs, device=device, seed=seed, illegal=illegal, autoreset=autoreset, start=start,
            first_copy=first_copy,
        )  # fmt: skip
    return GymnasiumBatch(
        env_id, num_envs, device=device, seed=seed + first_copy, settings=settings, render_mode=render_mode,
        autoreset=autoreset, training=training, recorded=recorded, workers=workers, steps=steps,
        apart=apart,
    )  # fmt: skip


def device_for(device: str, env_id: str) -> torch.device:
    """The device for training in an environment: "auto" is the GPU for games whose rules run there.

    Every step of a wrapped environment comes from the CPU, to which its agent would have to wait for a GPU: "auto" is
    the CPU for these.

    Raises:
        DeviceError: for anything but "auto", "cpu" and "cuda".
        UnknownIdError: if there is no such environment.
    """
    wrapped = device == "auto" and check_env_id(env_id) not in registered()
    return parse_device("cpu" if wrapped else device)


@contextlib.contextmanager
def _without_display() -> Iterator[None]:
    """Let libraries draw into memory: without a display, pygame needs SDL's dummy driver, and warns on stderr."""
    headless = sys.platform == "linux" and not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    chosen = headless and "SDL_VIDEODRIVER" not in os.environ
    if chosen:
        os.environ["SDL_VIDEODRIVER"] = "dummy"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if chosen:
            del os.environ["SDL_VIDEODRIVER"]


def single_precision(space: gym.Space[Any]) -> gym.Space[Any]:
    """The space with float32 instead of float64 (as in MuJoCo), as networks need it."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: single_precision(part) for key, part in space.items()})
    if isinstance(space, spaces.Box) and space.dtype == np.float64:
        return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    return space
