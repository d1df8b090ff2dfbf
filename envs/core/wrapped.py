"""Any Gymnasium environment as a batch with the face of :class:`~mlbits.envs.core.batch.GameBatch`.

``open_batch`` is the one way in for training: an id of ours gives a GameBatch, any other id Gymnasium's own vector
environment, wrapped. Wrapped copies cannot be saved; where a run needs to (``can_save_state`` is False) the loop starts
their episodes anew from a seed instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from mlbits.envs.core.batch import GameBatch, Step, parse_device
from mlbits.envs.core.codes import Autoreset, IllegalActions
from mlbits.envs.core.errors import GameError, IllegalActionError, UnknownIdError
from mlbits.envs.core.registry import make_batch, registered
from mlbits.envs.core.spaces import ActionLayout, action_layout, observation_layout


class GymnasiumBatch:
    """B copies of a Gymnasium environment; one seat, no masks.

    Args:
        env_id: a Gymnasium id.
        num_envs: number of copies B.
        device: where the tensors go; the environments run on the CPU.
        seed: of the first episodes.
        settings: keyword arguments of the environment.
        render_mode: None or "rgb_array".

    Raises:
        UnknownIdError: if Gymnasium does not know the id.
        GameError: if its spaces are of a kind that agents cannot take, or a setting is not accepted.
    """

    can_save_state = False
    active = None
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
    ) -> None:
        self.device = parse_device(device)
        self.env_id = env_id
        self.envs = _make_vec(env_id, num_envs, dict(settings or {}), render_mode)
        self.num_envs = num_envs
        self.observation_space, self.action_space = self.envs.single_observation_space, self.envs.single_action_space
        self._layout = observation_layout(self.observation_space)
        self.action: ActionLayout = action_layout(self.action_space)
        copies: Any = self.envs
        spec = copies.envs[0].spec  # that of the copy: the settings may say another limit than the id's
        self.horizon: int | None = None if spec is None else spec.max_episode_steps
        self.reward = torch.zeros(num_envs, 1, device=self.device)
        self.terminated = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self.truncated = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._generator = torch.Generator().manual_seed(seed)
        self.obs: Any = None
        self.reset(seed=seed)
        self.final_obs: Any = _zeros_like(self.obs)

    def reset(self, seed: int | None = None) -> Any:
        """Start new episodes in all copies; returns observations [B, 1, ...]."""
        obs, _ = self.envs.reset(seed=seed)
        self.obs = self._tensors(obs)
        return self.obs

    def step(self, actions: torch.Tensor) -> Step:
        """Play one action a copy, [B, 1] or [B, 1, k]."""
        wanted = (self.num_envs, 1, *self.action.shape)
        if tuple(actions.shape) != wanted:
            raise IllegalActionError(f"actions: got {tuple(actions.shape)}; wanted {wanted} ([B, 1, ...])")
        array = actions[:, 0].cpu().numpy().astype(self.action.dtype)
        obs, reward, terminated, truncated, info = self.envs.step(array)
        self.obs = self._tensors(obs)
        self.reward = torch.as_tensor(reward, dtype=torch.float32, device=self.device)[:, None]
        self.terminated = torch.as_tensor(terminated, device=self.device)
        self.truncated = torch.as_tensor(truncated, device=self.device)
        if "final_obs" in info:
            self._keep_final(info["final_obs"], np.flatnonzero(info["_final_obs"]))
        return Step(self.obs, self.reward, self.terminated, self.truncated, self.final_obs)

    def sample_actions(self) -> torch.Tensor:
        """Actions drawn from the action space, [B, 1] or [B, 1, k]."""
        self.envs.action_space.seed(int(torch.randint(2**31, (), generator=self._generator)))
        return torch.as_tensor(self.envs.action_space.sample()).to(self.device)[:, None]

    def render(self, mode: str = "rgb_array", copy: int = 0) -> NDArray[np.uint8] | None:
        """The image of one copy, where it was made with render_mode="rgb_array"; None where it draws nothing.

        Raises:
            GameError: if what the environment draws with is not installed.
        """
        envs: Any = self.envs
        try:
            frame = envs.envs[copy].render()  # not all of them: drawing costs far more than stepping
        except (gym.error.Error, ImportError) as error:
            raise GameError(f"{self.env_id}: cannot be drawn ({str(error).splitlines()[0]})") from None
        return None if frame is None else np.asarray(frame)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def _keep_final(self, final: Any, ended: NDArray[np.int64]) -> None:
        if self._layout.keys is not None:
            for b in ended:
                for key in self._layout.keys:
                    self.final_obs[key][b, 0] = torch.as_tensor(final[b][key], device=self.device)
            return
        for b in ended:
            self.final_obs[b, 0] = torch.as_tensor(final[b], device=self.device)

    def _tensors(self, obs: Any) -> Any:
        if self._layout.keys is not None:
            return {key: torch.as_tensor(np.array(obs[key]), device=self.device)[:, None] for key in self._layout.keys}
        tensor = torch.as_tensor(np.array(obs), device=self.device)[:, None]
        return tensor.float() if tensor.dtype == torch.float64 else tensor


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
) -> AnyBatch:
    """A batch of any environment: a registered game, or any Gymnasium id, wrapped.

    Raises:
        UnknownIdError: naming the nearest id.
        GameError: for settings out of range.
    """
    if env_id in registered():
        return make_batch(
            env_id, num_envs, device, seed=seed, illegal=illegal, autoreset=autoreset, **dict(settings or {})
        )
    return GymnasiumBatch(env_id, num_envs, device=device, seed=seed, settings=settings, render_mode=render_mode)


def check_env_id(env_id: str) -> None:
    """Refuse an id that neither mlbits nor Gymnasium knows.

    Raises:
        UnknownIdError: naming the nearest id.
    """
    if env_id in registered() or env_id in gym.registry:
        return
    known = [*registered(), *gym.registry]
    if "/" in env_id and env_id.partition("/")[0] == "mlbits":
        known = list(registered())
    raise UnknownIdError("environment", env_id, known)


def reward_threshold(env_id: str) -> float | None:
    """The mean return at which an environment counts as solved, or None."""
    return gym.spec(env_id).reward_threshold if env_id in gym.registry else None


def _make_vec(env_id: str, num_envs: int, settings: dict[str, Any], render_mode: str | None) -> gym.vector.VectorEnv:
    if num_envs < 1:
        raise GameError(f"num_envs: got {num_envs}; wanted at least 1")
    check_env_id(env_id)
    if render_mode is not None:
        settings["render_mode"] = render_mode
    try:
        return gym.make_vec(
            env_id,
            num_envs,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
            **settings,
        )
    except Exception as error:  # whatever another's constructor says of settings that it does not like
        said = str(error).splitlines() or [type(error).__name__]
        given = f" with the settings {settings}" if settings else ""
        raise GameError(f"{env_id}: cannot be made{given} ({type(error).__name__}: {said[0]})") from error


def _zeros_like(obs: Any) -> Any:
    return (
        {key: torch.zeros_like(value) for key, value in obs.items()} if isinstance(obs, dict) else torch.zeros_like(obs)
    )
