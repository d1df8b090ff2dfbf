"""Stable-Baselines3's door: B copies of a one-seat game as a ``VecEnv``, stepped in one call.

Plays the same trajectories as ``DummyVecEnv`` over ``gym.make`` for the same seeds, without its loop over the copies:
Python handles only copies whose episode has ended. All returned arrays are copies, because SB3 keeps references to
them and adds to rewards in place.

Example:
    >>> import mlbits
    >>> from stable_baselines3 import PPO
    >>> envs = mlbits.make_sb3("mlbits/CartPole-v0", 8, seed=0)
    >>> model = PPO("MlpPolicy", envs, n_steps=64, n_epochs=1).learn(512)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.game import Game
from mlbits.envs.core.spaces import cast_action
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.envs.engine.modes import IllegalActions

Indices = None | int | Iterable[int]


class SB3VecEnv(VecEnv):
    """B copies of a one-seat game as a Stable-Baselines3 ``VecEnv``.

    Args:
        game: the game.
        num_envs: number of copies B.
        seed: copy b gets the random stream of ``gym.make(id).reset(seed=seed + b)``; None draws a seed from the system.
        illegal: what happens on an action that the mask forbids. The default is "replace" (the lowest-numbered legal
            action, or the nearest bound, is played), because SB3's algorithms do not use masks. See
            :class:`~mlbits.envs.engine.cpu_copies.Copies`.
        render_mode: None, "rgb_array" or "ansi".
        threads: CPU threads; None uses one per 8,192 copies.

    As with a ``Monitor`` around each copy, ``infos[b]["episode"]`` holds the return "r", length "l" and time
    "t" (seconds) of an episode that has ended. sb3-contrib's MaskablePPO gets the masks by
    ``env_method("action_masks")``.

    Raises:
        GameError: if the game has several seats, or a setting is out of range.
    """

    def __init__(
        self,
        game: Game,
        num_envs: int = 1,
        *,
        seed: int | None = None,
        illegal: IllegalActions = "replace",
        render_mode: str | None = None,
        threads: int | None = None,
    ) -> None:
        if game.seats != 1:
            raise GameError(
                f"make_sb3: {game.name} has {game.seats} seats and Stable-Baselines3 supports one; "
                "use mlbits.make_batch(...), in which an SB3 model can hold a seat"
            )
        if render_mode not in (None, "rgb_array", "ansi"):
            raise GameError(f"render_mode: got {render_mode!r}; wanted None, 'rgb_array' or 'ansi'")
        self.game, self.render_mode = game, render_mode
        self._copies = Copies(game, num_envs, illegal=illegal, threads=threads)
        self._views: dict[int, _Copy] = {}
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
        self._began = time.time()
        self._seeded = False
        self._actions: NDArray[Any] = np.zeros((num_envs, *game.action.shape), game.action.dtype)
        self._bind()
        super().__init__(num_envs, game.observation_space, game.action_space)
        metadata: Any = {"render_modes": ["rgb_array", "ansi"], "render_fps": game.frames_per_second}
        self.metadata = metadata
        if seed is not None:
            self.seed(seed)

    def _bind(self) -> None:
        """Create views of the copies' memory as SB3 sees it."""
        self._obs = self.game.observation.user_view(self._copies.obs[:, 0])
        self._final_obs = self.game.observation.user_view(self._copies.final_obs[:, 0])

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._bind()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed copy b with ``seed + b`` at the next reset, as SB3 does; None draws a seed from the system."""
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        return super().seed(seed)

    def reset(self) -> Any:
        """Start an episode in every copy; return observations [B, ...]."""
        if self._seeds[0] is None and not self._seeded:
            self.seed()
        if self._seeds[0] is not None:
            self._copies.seed([int(seed) for seed in self._seeds if seed is not None])
            self._seeded = True
        self._reset_seeds()
        self._reset_options()
        self._copies.reset()
        self._returns[:], self._lengths[:] = 0, 0
        return _own(self._obs, self.observation_space)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Set the actions [B] or [B, k] of the next step.

        Raises:
            IllegalActionError: for a wrong shape or dtype.
        """
        layout, array = self.game.action, np.asarray(actions)
        shape = (self.num_envs, *layout.shape)
        fits = array.dtype == layout.dtype or (
            np.can_cast(array.dtype, layout.dtype, "same_kind") and array.dtype != np.bool_
        )
        if array.shape != shape or not fits:
            raise IllegalActionError(
                f"actions: got {array.dtype} {array.shape}; wanted {layout.dtype} {shape}, in {self.action_space}"
            )
        if array.dtype != layout.dtype:
            array = cast_action(array, self.action_space, layout)
        self._actions = np.ascontiguousarray(array)

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Play the actions set by :meth:`step_async`.

        Returns:
            Observations [B, ...] (of the new episode if one ended), rewards float32 [B], dones [B] and one info per
            copy.

        Raises:
            gym.error.ResetNeeded: if no episode has begun.
        """
        if not self._seeded:
            raise gym.error.ResetNeeded(f"{self.game.name}: no episode has begun; call reset() first")
        copies = self._copies
        copies.step(self._actions[:, None])
        rewards = copies.rewards[:, 0].copy()
        dones = copies.terminated | copies.truncated
        self._returns += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if dones.any():
            self._end_episodes(np.flatnonzero(dones), infos)
        return _own(self._obs, self.observation_space), rewards, dones, infos

    def _end_episodes(self, ended: NDArray[np.int64], infos: list[dict[str, Any]]) -> None:
        final = _own(_pick(self._final_obs, ended), self.observation_space)
        seconds = round(time.time() - self._began, 6)
        cut = self._copies.truncated[ended] & ~self._copies.terminated[ended]
        for k, b in enumerate(ended.tolist()):
            infos[b] = {
                "TimeLimit.truncated": bool(cut[k]),
                "terminal_observation": _pick(final, k),
                "episode": {"r": round(float(self._returns[b]), 6), "l": int(self._lengths[b]), "t": seconds},
            }
        self._returns[ended], self._lengths[ended] = 0, 0

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are legal now, [B, A]: the choices of all sub-actions, concatenated."""
        if self.game.masked:
            return self._copies.legal[:, 0].copy()
        return np.ones((self.num_envs, self.game.action.mask_size), bool)

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of each copy: a value set by :meth:`set_attr`, or ``game``, ``render_mode``, ...

        Raises:
            AttributeError: if a copy has no such attribute.
        """
        return [getattr(self._copy(b), attr_name) for b in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of each copy. The game does not read it: its settings are fixed when it is made."""
        for b in self._get_indices(indices):
            setattr(self._copy(b), attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call ``action_masks`` or ``render`` of each copy."""
        if method_name == "action_masks" and indices is None:
            return list(self.action_masks())
        copies = [self._copy(b) for b in self._get_indices(indices)]
        return [getattr(one, method_name)(*method_args, **method_kwargs) for one in copies]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Indices = None
    ) -> list[bool]:
        """True for SB3's ``Monitor``, whose work this class does itself; False for any other wrapper."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """An image of each copy; None for each unless ``render_mode="rgb_array"``."""
        return [one if isinstance(one, np.ndarray) else None for one in self.env_method("render")]

    def close(self) -> None:
        """Do nothing."""

    def _copy(self, b: int) -> _Copy:
        b = range(self.num_envs)[b]
        if b not in self._views:
            self._views[b] = _Copy(self, b)
        return self._views[b]


class _Copy:
    """One copy of a :class:`SB3VecEnv`, for ``get_attr``, ``set_attr`` and ``env_method``."""

    spec = None

    def __init__(self, envs: SB3VecEnv, b: int) -> None:
        self._envs, self._b = envs, b
        self.game, self.render_mode = envs.game, envs.render_mode
        self.observation_space, self.action_space = envs.game.observation_space, envs.game.action_space

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are legal now, [A]."""
        return self._envs.action_masks()[self._b]

    def render(self) -> Any:
        """An image uint8 [H, W, 3] or a string, depending on the render mode; None without one."""
        if self.render_mode is None:
            return None
        state, params = self._envs._copies.record(self._b)
        return self.game.draw(state, params) if self.render_mode == "rgb_array" else self.game.text(state, params)


def _own(obs: Any, space: Any) -> Any:
    """A copy of observations [B, ...] in the space's dtypes."""
    if isinstance(obs, dict):
        return {key: part.astype(space[key].dtype) for key, part in obs.items()}
    return obs.astype(space.dtype)


def _pick(obs: Any, index: Any) -> Any:
    """Rows of an array, or of each array of a dict."""
    return {key: part[index] for key, part in obs.items()} if isinstance(obs, dict) else obs[index]
