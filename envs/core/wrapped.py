"""Any Gymnasium environment as a batch with the face of :class:`~mlbits.envs.core.batch.GameBatch`.

``open_batch`` is the one way in for training: an id of ours gives a GameBatch, any other id copies of a Gymnasium
environment, stepped one after another. Gymnasium's ``SyncVectorEnv`` plays the same, seed for seed; it takes 50 to 130
microseconds more a call (a copy of every array, a dictionary of every copy's infos), as much as a step of MuJoCo's.

Wrapped copies cannot be saved; where a run needs to (``can_save_state`` is False) the loop starts their episodes anew
from a seed instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core import codes
from mlbits.envs.core.atari import is_atari, steps_a_game
from mlbits.envs.core.batch import GameBatch, Step, parse_device
from mlbits.envs.core.codes import Autoreset, IllegalActions
from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.gymnasium_ids import check_env_id, make_copy, reward_threshold
from mlbits.envs.core.registry import make_game, registered
from mlbits.envs.core.settings import integer
from mlbits.envs.core.spaces import ActionLayout, action_layout, observation_layout

# Arrays [B, ...] by the key of a Dict space; one under None for any other space.
_Parts = dict[str | None, NDArray[Any]]

__all__ = ["AnyBatch", "GymnasiumBatch", "check_env_id", "open_batch", "reward_threshold"]


class GymnasiumBatch:
    """B copies of a Gymnasium environment; one seat, no masks.

    On the CPU the tensors are the batch's own memory, which the next step writes over. Observations of float64 become
    float32, in the space too.

    Args:
        env_id: a Gymnasium id, or "module:id".
        num_envs: number of copies B.
        device: where the tensors go; the environments run on the CPU.
        seed: of the first episodes: copy b gets ``seed + b``.
        settings: keyword arguments of the environment.
        render_mode: None or "rgb_array".
        autoreset: "same_step", "next_step" or "disabled", as for GameBatch.
        training: whether the copies are for training; see :mod:`mlbits.envs.core.atari`, the one kind that it matters
            to.

    Raises:
        UnknownIdError: if Gymnasium does not know the id.
        GameError: if its spaces are of a kind that agents cannot take, a setting is not accepted, or a package is
            missing.
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
    ) -> None:
        self.device, self.env_id = parse_device(device), env_id
        self.num_envs = integer("num_envs", num_envs, 1, 2**31 - 1)
        self._autoreset = codes.choice("autoreset", autoreset, codes.AUTORESET)
        own = dict(settings or {}) | ({} if render_mode is None else {"render_mode": render_mode})
        self.envs = [make_copy(env_id, own, training) for _ in range(num_envs)]
        first = self.envs[0]
        self.observation_space, self.action_space = _single_precision(first.observation_space), first.action_space
        self.action: ActionLayout = action_layout(self.action_space)
        spec = first.spec  # that of the copy: the settings may say another limit than the id's
        self.horizon: int | None = None if spec is None else spec.max_episode_steps
        if self.horizon is None and spec is not None and is_atari(spec):
            self.horizon = steps_a_game(first, own)
        self._actions_shape = (num_envs, 1, *self.action.shape)
        self._shared = self.device.type == "cpu"
        self._allocate()
        self._generator = torch.Generator().manual_seed(seed)
        self.reset(seed=seed)

    def _allocate(self) -> None:
        """NumPy memory that the copies write, and the tensors that show it (on the CPU without copying)."""
        count, layout = self.num_envs, observation_layout(self.observation_space)
        kinds: dict[str | None, np.dtype[Any]] = {key: layout.dtype[key] for key in layout.keys or ()}
        if layout.keys is None:
            kinds[None] = np.dtype((layout.dtype, () if layout.scalar else layout.shape))
        self._obs: _Parts = {key: np.zeros((count, *kind.shape), kind.base) for key, kind in kinds.items()}
        self._final: _Parts = {key: np.zeros_like(part) for key, part in self._obs.items()}
        self._rewards = np.zeros(count, np.float32)
        self._terminated, self._truncated = np.zeros(count, bool), np.zeros(count, bool)
        self._over = np.zeros(count, bool)
        self.final_obs = self._shown(self._final)
        self._show(False)

    def reset(self, seed: int | None = None, which: torch.Tensor | None = None) -> Any:
        """Start new episodes; returns observations [B, 1, ...].

        Args:
            seed: copy b gets ``seed + b``; None goes on with the copies' present random streams.
            which: bool [B], the copies to reset; None resets all.

        Raises:
            GameError: if a copy's observation has not the shape that its space says.
        """
        chosen = range(self.num_envs) if which is None else np.flatnonzero(which.cpu().numpy()).tolist()
        for b in chosen:
            obs, _ = self.envs[b].reset(seed=None if seed is None else seed + b)
            for key, part in self._obs.items():
                got, wanted = np.shape(obs if key is None else obs[key]), part.shape[1:]
                if got != wanted:
                    raise GameError(f"{self.env_id}: got an observation of shape {got}; wanted {wanted}, as its space")
            _write(self._obs, b, obs)
            self._rewards[b], self._terminated[b], self._truncated[b], self._over[b] = 0, False, False, False
        if not self._shared:
            self._show(False)
        return self.obs

    def step(self, actions: torch.Tensor) -> Step:
        """Play one action a copy, [B, 1] or [B, 1, k].

        Raises:
            IllegalActionError: for another shape.
        """
        played, any_ended = self._played(actions), False
        for b, env in enumerate(self.envs):
            if self._over[b]:
                self._stand(b)
                continue
            obs, reward, terminated, truncated, _ = env.step(played[b])
            self._rewards[b], self._terminated[b], self._truncated[b] = reward, terminated, truncated
            if terminated or truncated:
                any_ended = True
                if self._autoreset == codes.SAME_STEP:
                    _write(self._final, b, obs)
                    obs, _ = env.reset()
                else:
                    self._over[b] = True
            _write(self._obs, b, obs)
        if not self._shared:
            self._show(any_ended)
        return self._result

    def _stand(self, b: int) -> None:
        """A step of a copy whose episode is over, under "disabled" or "next_step"."""
        self._rewards[b] = 0
        if self._autoreset == codes.NEXT_STEP:
            _write(self._obs, b, self.envs[b].reset()[0])
            self._terminated[b], self._truncated[b], self._over[b] = False, False, False

    def _played(self, actions: torch.Tensor) -> Any:
        """What each copy is given: an int for Discrete, else an array of its own in the space's dtype."""
        if actions.shape != self._actions_shape:
            raise IllegalActionError(f"actions: got {tuple(actions.shape)}; wanted {self._actions_shape} ([B, 1, ...])")
        array = (actions if self._shared else actions.cpu()).numpy()[:, 0]
        if self.action.kind == "discrete":
            return array.tolist()
        return array.astype(self.action_space.dtype)  # a copy, which the environments may keep

    def sample_actions(self) -> torch.Tensor:
        """Actions drawn from the action space, [B, 1] or [B, 1, k]."""
        self.action_space.seed(int(torch.randint(2**31, (), generator=self._generator)))
        drawn = np.stack([self.action_space.sample() for _ in range(self.num_envs)])
        return torch.from_numpy(drawn.astype(self.action.dtype)).to(self.device)[:, None]

    def render(self, mode: str = "rgb_array", copy: int = 0) -> NDArray[np.uint8] | None:
        """The image of one copy, where it was made with render_mode="rgb_array"; None where it draws nothing.

        Raises:
            GameError: if it cannot be drawn: a package or a display is missing.
        """
        try:
            with warnings.catch_warnings():  # of libraries without a display; what matters is raised
                warnings.simplefilter("ignore")
                frame: Any = self.envs[copy].render()  # not all of them: drawing costs far more than stepping
        except Exception as error:  # whatever another's drawing says of what it lacks
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise GameError(f"{self.env_id}: cannot be drawn ({said})") from None
        return None if frame is None else np.asarray(frame)

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def _show(self, any_ended: bool) -> None:
        """Make the tensors of what the copies wrote; on the CPU once, for they are the memory itself."""
        self.obs = self._shown(self._obs)
        self.reward = self._tensor(self._rewards)[:, None]
        self.terminated, self.truncated = self._tensor(self._terminated), self._tensor(self._truncated)
        if any_ended:
            self.final_obs = self._shown(self._final)
        self._result = Step(self.obs, self.reward, self.terminated, self.truncated, self.final_obs)

    def _shown(self, parts: _Parts) -> Any:
        tensors = {key: self._tensor(part)[:, None] for key, part in parts.items()}
        return tensors.get(None, tensors)

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


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
) -> AnyBatch:
    """A batch of any environment: a registered game, or any Gymnasium id, wrapped.

    Args:
        env_id: of ours, or Gymnasium's, or "module:id".
        num_envs: number of copies B.
        device: "cpu", "cuda" or a torch device.
        seed: of the copies.
        settings: keyword settings of the environment.
        illegal: see GameBatch; wrapped environments deal with illegal actions themselves.
        autoreset: see GameBatch.
        render_mode: for wrapped environments, None or "rgb_array"; ours can always be drawn.
        training: whether rewards and ends are for learning from, or (False) the true ones; they differ for Atari.
        start: see GameBatch; False compiles nothing. Wrapped environments always start.

    Raises:
        UnknownIdError: naming the nearest id.
        GameError: for settings out of range.
    """
    name = check_env_id(env_id)
    if name in registered():
        game = make_game(name, **dict(settings or {}))
        return GameBatch(game, num_envs, device=device, seed=seed, illegal=illegal, autoreset=autoreset, start=start)
    return GymnasiumBatch(
        env_id, num_envs, device=device, seed=seed, settings=settings, render_mode=render_mode, autoreset=autoreset,
        training=training,
    )  # fmt: skip


def _write(parts: _Parts, b: int, obs: Any) -> None:
    for key, part in parts.items():
        part[b] = obs if key is None else obs[key]


def _single_precision(space: gym.Space[Any]) -> gym.Space[Any]:
    """The space with float32 in place of float64 (MuJoCo's), as networks take it."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _single_precision(part) for key, part in space.items()})
    if isinstance(space, spaces.Box) and space.dtype == np.float64:
        return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    return space
