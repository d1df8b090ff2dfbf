"""Gymnasium's doors: ``gym.make`` (one copy) and ``gym.make_vec`` (B copies, stepped in one call)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.game import Game
from mlbits.envs.core.spaces import cast_action, checked_action, own_observation
from mlbits.envs.doors.masked_spaces import legal_action_space, legal_batch_space, watch_mask
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.envs.engine.modes import Autoreset, IllegalActions
from mlbits.envs.registry import default_horizon, make_game

RENDER_MODES = ["rgb_array", "ansi"]


def make_env(
    game_id: str, render_mode: str | None = None, illegal: IllegalActions = "error", **settings: Any
) -> GymnasiumEnv:
    """The entry point of ``gym.make``, which wraps the result in a ``TimeLimit``."""
    return GymnasiumEnv(_for_gymnasium(game_id, settings), render_mode, illegal)


# From these, ``gym.make`` derives the modes "human" and "rgb_array_list".
make_env.metadata = {"render_modes": RENDER_MODES}  # type: ignore[attr-defined]


def make_vector_env(game_id: str, num_envs: int = 1, **settings: Any) -> GymnasiumVectorEnv:
    """The entry point of ``gym.make_vec``."""
    names = ("render_mode", "autoreset_mode", "copy", "threads", "illegal")
    own = {name: settings.pop(name) for name in names if name in settings}
    # Gymnasium passes the user's time limit to a vector entry point, which must apply it or the registered one.
    steps = settings.pop("max_episode_steps", None)
    steps = default_horizon(game_id) if steps is None else steps
    game = _for_gymnasium(game_id, settings)
    return GymnasiumVectorEnv(game if steps == -1 else game.limited_to(steps), num_envs, **own)


def _for_gymnasium(game_id: str, settings: dict[str, Any]) -> Game:
    """The game, without its own time limit if that is the registered one, which Gymnasium enforces.

    Raises:
        GameError: if the settings ask for a longer horizon, because Gymnasium would truncate episodes earlier.
    """
    game, registered = make_game(game_id, **settings), default_horizon(game_id)
    if registered is None:
        return game
    if game.horizon is None or game.horizon > registered:
        wanted = -1 if game.horizon is None else game.horizon
        raise GameError(
            f"horizon: got {game.horizon}, but Gymnasium truncates episodes of {game_id} after {registered} steps; "
            f"wanted max_episode_steps={wanted} instead"
        )
    return game.unlimited() if game.horizon == registered else game


def _single_seat(game: Game, door: str) -> None:
    if game.seats != 1:
        raise GameError(
            f"{door}: {game.name} has {game.seats} seats and Gymnasium supports one; "
            "use pettingzoo.make(...) or mlbits.make_batch(...)"
        )


class GymnasiumEnv(gym.Env[Any, Any]):
    """One copy of a one-seat game as a Gymnasium environment.

    Args:
        game: the game.
        render_mode: None, "rgb_array" or "ansi".
        illegal: what happens on an action that the mask forbids: "error", "replace" (the lowest-numbered legal action
            is played; for learners without action masks) or "forfeit"; see
            :class:`~mlbits.envs.engine.cpu_copies.Copies`.

    If the game has masks, ``info`` has "action_mask" (int8 [A], as for ``action_space.sample(mask)``) and
    ``action_space.sample()`` draws legal actions. An illegal action raises ``IllegalActionError`` and changes nothing.
    Stepping after the end of an episode raises ``gym.error.ResetNeeded``.
    """

    def __init__(self, game: Game, render_mode: str | None = None, illegal: IllegalActions = "error") -> None:
        _single_seat(game, "gym.make")
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise GameError(f"render_mode: got {render_mode!r}; wanted None, 'rgb_array' or 'ansi'")
        self.metadata = {"render_modes": RENDER_MODES, "render_fps": game.frames_per_second}
        self.game, self.render_mode = game, render_mode
        self._spec: EnvSpec | None = None
        self._copies = Copies(game, 1, autoreset="disabled", illegal=illegal)
        self.observation_space = game.observation_space
        self.action_space = legal_action_space(game, self._copies.legal[0, 0])
        self._scalar = game.observation.scalar
        self._plain = game.observation.keys is None and game.observation.dtype == game.observation_space.dtype
        self._actions = np.zeros((1, 1, *game.action.shape), game.action.dtype)
        self._discrete = game.action.kind == "discrete"
        self._masked = game.masked
        self._over, self._seeded = True, False
        self._bind()

    def _bind(self) -> None:
        """Create views of the copy's memory, which make a step faster."""
        self._obs, self._reward = self._copies.obs[0, 0], self._copies.rewards[0]
        watch_mask(self.action_space, self._copies.legal[0, 0])

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._bind()

    @property
    def spec(self) -> EnvSpec | None:
        """Gymnasium's spec of the environment; its ``max_episode_steps`` is at most the game's own limit."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = spec if spec is None or self.game.horizon is None else _limited_spec(spec, self.game.horizon)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; a seed gives the copy the random stream of (seed, copy 0)."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self._copies.seed(seed)
            self._seeded = True
        self._copies.reset()
        self._over = False
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one action.

        Raises:
            IllegalActionError: for an action that is not in the action space, or that the mask forbids.
            gym.error.ResetNeeded: if the episode is over, or none has begun.
        """
        if self._over:
            raise gym.error.ResetNeeded(f"{self.game.name}: the episode is over or has not begun; call reset() first")
        try:
            if self._discrete and type(action) in _INTEGERS:
                self._actions[0, 0] = action
            else:
                self._actions[0, 0] = checked_action(action, self.action_space, self.game.action)
        except OverflowError:  # an integer beyond int64
            raise IllegalActionError(f"action: got {action!r}; wanted {self.action_space}") from None
        copies = self._copies
        copies.step(self._actions)
        terminated, truncated = copies.terminated.item(), copies.truncated.item()
        self._over = terminated or truncated
        if self._masked and truncated:
            copies.write_truncated_masks()
        return self._observation(), self._reward.item(), terminated, truncated, self._info() if self._masked else {}

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are legal now, bool [A], for sb3-contrib; all True if the game has no masks."""
        return self._copies.legal[0, 0].copy() if self._masked else np.ones(self.game.action.mask_size, bool)

    def render(self) -> Any:
        """An image uint8 [H, W, 3] or a string, depending on the render mode."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a mode: gym.make(id, render_mode="rgb_array") or "ansi"')
            return None
        if not self._seeded:
            raise gym.error.ResetNeeded(f"{self.game.name}: nothing to draw yet; call reset() first")
        state, params = self._copies.record()
        return self.game.draw(state, params) if self.render_mode == "rgb_array" else self.game.text(state, params)

    def _observation(self) -> Any:
        if self._scalar:
            return self._obs.item()
        if self._plain:
            return self._obs.copy()
        return own_observation(self.observation_space, self.game.observation.user_view(self._copies.obs[0, 0]))

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self._copies.legal[0, 0].astype(np.int8)} if self._masked else {}


class _LimitedSpec(EnvSpec):
    """The spec of an environment that truncates its own episodes, even if a longer limit is set outside."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "max_episode_steps" and name in vars(self):
            own = self.max_episode_steps or 0
            value = min(value or own, own)
        super().__setattr__(name, value)


def _limited_spec(spec: EnvSpec, steps: int) -> EnvSpec:
    given = {item.name: getattr(spec, item.name) for item in fields(spec) if item.init}
    return _LimitedSpec(**{**given, "max_episode_steps": min(given["max_episode_steps"] or steps, steps)})


_INTEGERS = {int, np.int64, np.int32}


class GymnasiumVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """B copies of a one-seat game as a Gymnasium vector environment.

    Args:
        game: the game.
        num_envs: number of copies B.
        render_mode: None, "rgb_array" or "ansi".
        autoreset_mode: Gymnasium's AutoresetMode or its name; NEXT_STEP, as in Gymnasium, by default.
        copy: whether returned arrays are copies; with False the next step overwrites them.
        threads: CPU threads; None uses one per 8,192 copies.
        illegal: see :class:`GymnasiumEnv`.

    Under SAME_STEP, ``info["final_obs"]`` is an array [B, ...] whose rows are valid where ``info["_final_obs"]`` is
    True, and ``info["final_info"]`` holds the corresponding infos. If the game has masks, both infos have an
    "action_mask", int8 [B, A]. For a truncated episode it marks the actions that would be legal next, for a terminated
    one all actions. Under NEXT_STEP and DISABLED it is in the info of the step that ended the episode.
    """

    def __init__(
        self,
        game: Game,
        num_envs: int = 1,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        threads: int | None = None,
        illegal: IllegalActions = "error",
    ) -> None:
        _single_seat(game, "gym.make_vec")
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise GameError(f"render_mode: got {render_mode!r}; wanted None, 'rgb_array' or 'ansi'")
        mode = _autoreset_mode(autoreset_mode)
        names: dict[AutoresetMode, Autoreset] = {
            AutoresetMode.NEXT_STEP: "next_step",
            AutoresetMode.SAME_STEP: "same_step",
            AutoresetMode.DISABLED: "disabled",
        }
        self.metadata = {
            "render_modes": RENDER_MODES, "render_fps": game.frames_per_second, "autoreset_mode": mode,
        }  # fmt: skip
        self.game, self.num_envs, self.render_mode = game, num_envs, render_mode
        self._spec: EnvSpec | None = None
        self.autoreset_mode = mode
        # The driver's own reset would overwrite the mask of the last observation, so with masks we reset here.
        self._resets = game.masked and mode == AutoresetMode.SAME_STEP
        autoreset: Autoreset = "disabled" if self._resets else names[mode]
        self._copies = Copies(game, num_envs, autoreset=autoreset, illegal=illegal, threads=threads)
        self.single_observation_space, self.single_action_space = game.observation_space, game.action_space
        self.observation_space = batch_space(game.observation_space, num_envs)
        self.action_space = legal_batch_space(game, self._copies.legal[:, 0], num_envs)
        self._copy = copy
        self._scalar = game.observation.scalar
        self._shape = (num_envs, *game.action.shape)
        self._seeded = False
        self._bind()

    def _bind(self) -> None:
        """Create views of the copies' memory as users see it."""
        self._obs = self.game.observation.user_view(self._copies.obs[:, 0])
        self._final_obs = self.game.observation.user_view(self._copies.final_obs[:, 0])
        watch_mask(self.action_space, self._copies.legal[:, 0])

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._bind()

    @property
    def spec(self) -> EnvSpec | None:
        """Gymnasium's spec of the environment; its ``max_episode_steps`` is the time limit of these copies."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = spec
        if spec is not None:
            spec.max_episode_steps = self.game.horizon

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes in all copies, or only in those of ``options={"reset_mask": bool [B]}``.

        A single seed gives copy b the random stream of (seed, b); a list gives each copy that of (seed[b], 0).
        Copies that are not reset keep their streams.
        """
        which = None if options is None else options.get("reset_mask")
        if which is not None:
            which = np.asarray(which)
            if which.dtype != np.bool_ or which.shape != (self.num_envs,):
                raise GameError(f"reset_mask: got {which.dtype} {which.shape}; wanted bool ({self.num_envs},)")
        if isinstance(seed, (int, np.integer)):
            seed = int(seed)
            super().reset(seed=seed)
        if seed is None and not self._seeded:
            self._copies.seed(int(self.np_random.integers(2**31)))
        elif isinstance(seed, int):
            self._copies.seed(seed, which)
        elif seed is not None:
            drawn = [int(self.np_random.integers(2**31)) if one is None else int(one) for one in seed]
            self._copies.seed(drawn, which)
        self._seeded = True
        self._copies.reset(which)
        return self._handed_out(self._obs), self._info()

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Play one action per copy, [B] or [B, k].

        Raises:
            IllegalActionError: for a wrong shape, dtype or range; then no copy is stepped.
        """
        copies, layout = self._copies, self.game.action
        array = np.asarray(actions)
        if array.shape != self._shape or not (
            array.dtype == layout.dtype
            or (np.can_cast(array.dtype, layout.dtype, "same_kind") and array.dtype != np.bool_)
        ):
            raise IllegalActionError(
                f"actions: got {array.dtype} {array.shape}; wanted {layout.dtype} {self._shape}, in {self.action_space}"
            )
        if not self._seeded:
            raise gym.error.ResetNeeded(f"{self.game.name}: no episode has begun; call reset() first")
        if array.dtype != layout.dtype:
            array = cast_action(array, self.single_action_space, layout)
        copies.step(np.ascontiguousarray(array)[:, None])
        reward, terminated, truncated = copies.rewards[:, 0], copies.terminated, copies.truncated
        if self._copy or self._resets:
            reward, terminated, truncated = reward.copy(), terminated.copy(), truncated.copy()
        final: dict[str, Any] = {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            ended = terminated | truncated
            if ended.any():
                last = self._begin_anew(ended) if self._resets else {}
                final = {"final_obs": self._handed_out(self._final_obs), "_final_obs": ended}
                final |= {"final_info": last, "_final_info": ended.copy()}
        elif self.game.masked:
            copies.write_truncated_masks()
        return self._handed_out(self._obs), reward, terminated, truncated, self._info() | final

    def _begin_anew(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        """Store the last observations of ended episodes and start new ones; return the last infos."""
        copies = self._copies
        copies.write_truncated_masks()
        copies.final_obs[ended] = copies.obs[ended]
        mask = copies.legal[:, 0].astype(np.int8)
        mask[~ended] = 0  # as in Gymnasium's vector environments: rows without meaning are zero
        copies.reset(ended)
        return {"action_mask": mask, "_action_mask": ended.copy()}

    def render(self) -> Any:
        """A tuple of B images or strings, depending on the render mode."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a mode: gym.make_vec(id, num_envs, render_mode="rgb_array") or "ansi"')
            return None
        records = (self._copies.record(b) for b in range(self.num_envs))
        draw = self.game.draw if self.render_mode == "rgb_array" else self.game.text
        return tuple(draw(state, params) for state, params in records)

    def _handed_out(self, obs: Any) -> Any:
        if not self._copy and not self._scalar:
            return obs
        space: Any = self.observation_space
        if isinstance(obs, dict):
            return {key: part.astype(space[key].dtype) for key, part in obs.items()}
        return obs.astype(space.dtype)

    def _info(self) -> dict[str, Any]:
        """The masks of all copies, reset or not."""
        if not self.game.masked:
            return {}
        mask = self._copies.legal[:, 0].astype(np.int8)
        return {"action_mask": mask, "_action_mask": np.ones(self.num_envs, bool)}


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    for member in AutoresetMode:
        if str(mode).lower() in (member.name.lower(), str(member.value).lower()):
            return member
    raise GameError(f"autoreset_mode: got {mode!r}; wanted one of {', '.join(m.name for m in AutoresetMode)}")
