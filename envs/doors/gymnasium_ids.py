"""Gymnasium's environments by id: finding the id, making one copy, and error messages for what is missing.

Besides the ids that Gymnasium knows there are those of ale-py ("ALE/Pong-v5"), registered here if it is installed,
and "module:id", where the module is imported first (it registers the id, as MiniGrid and many others do).

Spaces that our networks do not take are converted: tuples and nested dictionaries of observations are flattened
(Gymnasium's ``FlattenObservation``), Discrete and MultiDiscrete actions start at 0, MultiBinary actions become
MultiDiscrete with two choices each, and actions with several axes are flattened to one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.envs.core.spaces import action_layout, observation_layout
from mlbits.envs.core.stack_setting import SETTING
from mlbits.envs.core.stacking import FrameStack, axis_of_frames
from mlbits.envs.doors.atari import is_atari, make_atari
from mlbits.envs.doors.outcome_checks import check_parts
from mlbits.envs.origins import import_module_of, importable_name
from mlbits.envs.registry import game_module, registered

# Where an environment's code comes from, and the extra of this package that installs what it needs.
_EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco", "ale_py": "atari"}
_named: dict[str, str] = {}  # for each id, the module that was given with it ("module:id")


def check_env_id(env_id: str, folders: Sequence[str] | None = None) -> str:
    """Raise an error for an id that neither mlbits nor Gymnasium knows.

    Args:
        env_id: an id, or "module:id" for one that is registered when the module is imported.
        folders: the module's folders, if a file has named it; see :func:`mlbits.envs.origins.import_module`.

    Returns:
        The id without the module.

    Raises:
        UnknownIdError: if the id is unknown; the message names the nearest.
        GameError: if the package or module that registers the id cannot be imported.
    """
    module, colon, name = env_id.rpartition(":")
    there = name in registered() or name in gym.registry
    if colon and not (there and env_module(name) == module):
        import_module_of(env_id, folders)
        _named[name] = module
    if name in registered() or name in gym.registry:
        return name
    _register_atari(name)
    if name in gym.registry:
        return name
    known = [*registered(), *gym.registry]
    if name.partition("/")[0] == "mlbits":
        known = list(registered())
    raise UnknownIdError("environment", name, known)


def env_module(env_id: str) -> str:
    """The module that another process must import to know an id; "" if none is needed, or none can be imported.

    Args:
        env_id: a known id.
    """
    if env_id in registered():
        return game_module(env_id)
    if env_id in _named:
        return _named[env_id]
    made: Any = gym.registry[env_id].entry_point
    module = made.partition(":")[0] if isinstance(made, str) else getattr(made, "__module__", "gymnasium")
    # A package registers all its ids when it is imported, whichever of its modules the class is in. A class of a
    # module that registers nothing was registered by the script that was run.
    root = module.partition(".")[0]
    path = getattr(sys.modules.get(root), "__file__", None)
    if module == "__main__" or (path and "." not in module and "register" not in Path(path).read_text()):
        return importable_name("__main__")
    return importable_name(root)


def _register_atari(env_id: str) -> None:
    """Register ale-py's ids, if it is installed.

    Raises:
        GameError: if the id must be one of ale-py's and it is not installed.
    """
    if importlib.util.find_spec("ale_py") is not None:
        gym.register_envs(importlib.import_module("ale_py"))
    elif env_id.startswith("ALE/") or "NoFrameskip-v" in env_id:
        raise GameError(_missing(env_id, "ale_py", "atari"))


def reward_threshold(env_id: str) -> float | None:
    """The mean return at which an environment counts as solved, or None."""
    name = env_id.rpartition(":")[2]
    return gym.spec(name).reward_threshold if name in gym.registry else None


def make_copy(env_id: str, settings: Mapping[str, Any], training: bool = False) -> gym.Env[Any, Any]:
    """One copy of a Gymnasium environment, with spaces that agents support.

    Args:
        env_id: a Gymnasium id.
        settings: keyword arguments of the environment, and ``frame_stack``
            (:mod:`mlbits.envs.core.stacking`); for Atari also those of
            :class:`~mlbits.envs.doors.atari.AtariSettings`.
        training: whether it is for training: Atari games then clip rewards and end episodes when a life is lost.

    Raises:
        UnknownIdError: if Gymnasium does not know the id.
        GameError: if a package is missing (the message names the extra that installs it), a setting is not accepted,
            or agents do not support its spaces.
    """
    return _with_plain_actions(_with_plain_observations(make_env(env_id, settings, training)))


def make_env(env_id: str, settings: Mapping[str, Any], training: bool = False) -> gym.Env[Any, Any]:
    """The same with the environment's own spaces, which agents may know in another form; not of stacked frames."""
    check_env_id(env_id)
    spec, frames = gym.spec(env_id.rpartition(":")[2]), 1
    if not is_atari(spec):
        settings = dict(settings)
        frames = settings.pop(SETTING, 1)
    try:
        made: gym.Env[Any, Any] = (
            make_atari(spec.id, settings, training) if is_atari(spec) else gym.make(spec.id, **settings)
        )
    except GameError as error:
        raise GameError(f"{env_id}: {error}") from None
    except Exception as error:  # any error of the environment's constructor, for example about its settings
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, (gym.error.DependencyNotInstalled, ImportError)):
            extra = next((extra for code, extra in _EXTRAS.items() if str(spec.entry_point).startswith(code)), None)
            raise GameError(_missing(env_id, _package(error, reason), extra)) from error
        given = f" with the settings {dict(settings)}" if settings else ""
        raise GameError(f"{env_id}: cannot be made{given} ({type(error).__name__}: {reason})") from error
    try:
        plain = type(frames) is int and frames == 1
        return made if plain else FrameStack(_with_plain_actions(_with_plain_observations(made)), frames)
    except GameError as error:
        raise GameError(f"{env_id}: {error}") from None


def frame_stack_of(env: gym.Env[Any, Any]) -> int:
    """How many frames an observation stacks along its first axis, by the setting ``frame_stack`` or Gymnasium's
    ``FrameStackObservation``; 1 if the environment has none.

    Wrappers around it may change the frames, but not how many there are.
    """
    shape = env.observation_space.shape
    while isinstance(env, gym.Wrapper):
        if isinstance(env, FrameStack):
            return axis_of_frames(env.observation_space, env.frames)
        if isinstance(env, gym.wrappers.FrameStackObservation):
            return int(env.stack_size) if shape is None or shape[:1] == (env.stack_size,) else 1
        env = env.env
    return 1


def _package(error: Exception, message: str) -> str:
    """The name of the missing package, from Python's error or from the start of Gymnasium's message."""
    cause = error if isinstance(error, ImportError) else error.__cause__ or error.__context__
    return getattr(cause, "name", None) or message.partition(" ")[0]


def _missing(env_id: str, package: str, extra: str | None) -> str:
    remedy = f'pip install "mlbits[{extra}]"' if extra else f"wanted: pip install {package}"
    return f"{env_id}: the package {package} is missing; {remedy}"


class _Checked(gym.ObservationWrapper[Any, Any, Any]):
    """Raises an error for observations that are not in the environment's observation space."""

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._name = name

    def observation(self, observation: Any) -> Any:
        check_parts(self._name, self.observation_space, observation)
        return observation


def _with_plain_observations(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    try:
        observation_layout(env.observation_space)
    except GameError:
        if not env.observation_space.is_np_flattenable:
            raise
        name = env.spec.id if env.spec is not None else str(env)
        return gym.wrappers.FlattenObservation(_Checked(env, name))
    return env


def _with_plain_actions(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The environment with a kind of action space that agents support; actions are converted to its own space."""
    space = env.action_space
    plain: gym.Space[Any]
    if isinstance(space, spaces.Discrete) and space.start != 0:
        kind, first = space.dtype.type, space.start
        plain = spaces.Discrete(int(space.n))
        return gym.wrappers.TransformAction(env, lambda action: kind(action + first), plain)
    if isinstance(space, spaces.MultiDiscrete) and (space.start.any() or len(space.shape) != 1):
        shape, dtype, starts = space.shape, space.dtype, space.start
        plain = spaces.MultiDiscrete(space.nvec.reshape(-1))
        return gym.wrappers.TransformAction(
            env, lambda action: (np.reshape(action, shape) + starts).astype(dtype), plain
        )
    if isinstance(space, spaces.Box) and len(space.shape) != 1:
        shape = space.shape
        plain = spaces.Box(space.low.reshape(-1), space.high.reshape(-1), dtype=space.dtype.type)
        return gym.wrappers.TransformAction(env, lambda action: np.reshape(action, shape), plain)
    if isinstance(space, spaces.MultiBinary):
        shape, dtype = space.shape, space.dtype
        plain = spaces.MultiDiscrete(np.full(int(np.prod(shape)), 2))
        return gym.wrappers.TransformAction(env, lambda action: np.reshape(action, shape).astype(dtype), plain)
    action_layout(space)
    return env
