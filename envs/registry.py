"""The registry of games: one registration makes a game available through every door.

``register("mlbits/GridWorld-v0", "mlbits.envs.gridworld:gridworld")`` makes the id known to ``make_game`` and
``make_batch``, to Gymnasium (``gym.make``, ``gym.make_vec``) and, where it is installed, to PettingZoo's own registry
(``pettingzoo.make``, parallel and AEC). The factory is imported at first use, so that ``import mlbits`` is fast.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.core.stack_setting import stackable
from mlbits.envs.origins import caller, import_name, importable_name
from mlbits.envs.registry_table import Registry

if TYPE_CHECKING:
    from mlbits.envs.doors.sb3_vec_env import SB3VecEnv
    from mlbits.envs.engine.batch import GameBatch

Factory = Callable[..., Game]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One registered game.

    Attributes:
        id: "namespace/Name-vN".
        factory: a function that makes the game from keyword settings, or "module:function".
        summary: one line for listings.
        reward_threshold: mean return at which the game counts as solved under its default settings, or None.
        defaults: settings that override the factory's own defaults.
    """

    id: str
    factory: Factory | str
    summary: str
    reward_threshold: float | None
    defaults: Mapping[str, Any]

    def load(self) -> Factory:
        """The factory itself, with the setting ``frame_stack``, which every game has."""
        if isinstance(self.factory, str):
            module, _, name = self.factory.partition(":")
            factory: Factory = import_name(module, name)
            return stackable(factory)
        return stackable(self.factory)


_entries: Registry[Entry] = Registry("environment", argument="game_id")


def register(
    game_id: str,
    factory: Factory | str,
    *,
    summary: str = "",
    reward_threshold: float | None = None,
    **defaults: Any,
) -> None:
    """Register a game, here and with Gymnasium and PettingZoo.

    Args:
        game_id: "namespace/Name-vN".
        factory: a function of keyword settings that returns a Game, or "module:function" to import it at first use.
        summary: one line for ``mlbits list``.
        reward_threshold: mean return at which the game counts as solved.
        **defaults: settings passed to the factory unless the user gives others.

    Raises:
        GameError: if the id is malformed, or taken by another game.
    """
    namespace, slash, rest = game_id.partition("/")
    name, dash, version = rest.rpartition("-v")
    if not (namespace and slash and name and dash and version.isdigit()):
        raise GameError(f"game_id: got {game_id!r}; wanted 'namespace/Name-vN'")
    entry = Entry(
        id=game_id, factory=factory, summary=summary, reward_threshold=reward_threshold, defaults=defaults
    )  # fmt: skip
    if not _entries.register(game_id, entry, importable_name(caller())):
        return
    gym.register(
        game_id,
        entry_point="mlbits.envs.doors.gymnasium_envs:make_env",
        vector_entry_point="mlbits.envs.doors.gymnasium_envs:make_vector_env",
        reward_threshold=reward_threshold,
        kwargs={"game_id": game_id},
    )
    registry = gym.envs.registration.registry
    plain = registry[game_id]
    registry[game_id] = GameSpec(**{item.name: getattr(plain, item.name) for item in fields(plain) if item.init})
    _register_with_pettingzoo(game_id)


class GameSpec(gym.envs.registration.EnvSpec):
    """Gymnasium's spec of a game, whose ``max_episode_steps`` is by default the game's default horizon.

    The horizon is looked up on demand, which imports the game's factory.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if vars(self).get("_limit") is None:
            vars(self).pop("_limit", None)

    @property
    def max_episode_steps(self) -> int | None:
        """Steps after which Gymnasium's ``TimeLimit`` truncates an episode, or None."""
        return vars(self)["_limit"] if "_limit" in vars(self) else default_horizon(self.id)

    @max_episode_steps.setter
    def max_episode_steps(self, steps: int | None) -> None:
        vars(self)["_limit"] = steps


def default_horizon(game_id: str) -> int | None:
    """The horizon of a game under its default settings; None if its factory has no such setting, or no limit.

    Raises:
        UnknownIdError: if there is no such id.
    """
    found = entry(game_id)
    setting = inspect.signature(found.load()).parameters.get("horizon")
    default = found.defaults.get("horizon", None if setting is None else setting.default)
    return default if isinstance(default, int) else None


def _register_with_pettingzoo(game_id: str) -> None:
    try:
        from pettingzoo import register as pettingzoo_register
    except ImportError:  # not installed, or older than its registry
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in ("parallel", "aec"):
            pettingzoo_register(
                kind, game_id, f"mlbits.envs.doors.pettingzoo_envs:make_{kind}", kwargs={"game_id": game_id}
            )


def registered() -> dict[str, Entry]:
    """All registered games by id, in order of registration."""
    return dict(_entries)


def plain_id(env_id: str) -> str:
    """A game's id without the prefix "mlbits:" that Gymnasium accepts; any other id unchanged.

    Example:
        >>> plain_id("mlbits:mlbits/GridWorld-v0"), plain_id("minigrid:MiniGrid-Empty-5x5-v0")
        ('mlbits/GridWorld-v0', 'minigrid:MiniGrid-Empty-5x5-v0')
    """
    module, _, name = env_id.rpartition(":")
    return name if module == "mlbits" and name in _entries else env_id


def entry(game_id: str) -> Entry:
    """One registered game.

    Raises:
        UnknownIdError: if there is no such id; the message names the nearest.
    """
    return _entries[plain_id(game_id)]


def game_module(game_id: str) -> str:
    """The module that another process imports to know a registered game; "" for our own."""
    return _entries.module(game_id)


def make_game(game_id: str, **settings: Any) -> Game:
    """Make a registered game.

    Args:
        game_id: a registered id.
        **settings: settings of the game's factory; see its docstring.

    Raises:
        UnknownIdError: if there is no such id; the message names the nearest.
        GameError: if a setting is unknown or out of range.
    """
    found = entry(game_id)
    factory = found.load()
    known = inspect.signature(factory).parameters
    unknown = [name for name in settings if name not in known]
    if unknown:
        wanted = f"wanted any of {', '.join(known)}" if known else "it has no settings"
        raise GameError(f"{game_id}: unknown setting {unknown[0]!r}; {wanted}")
    return factory(**{**found.defaults, **settings})


def make_batch(
    game_id: str,
    num_envs: int,
    device: Any = "cpu",
    *,
    settings_per_copy: Sequence[Mapping[str, Any]] | None = None,
    seed: int | Sequence[int] = 0,
    autoreset: Any = "same_step",
    illegal: Any = "error",
    threads: int | None = None,
    **settings: Any,
) -> GameBatch:
    """B copies of a registered game as torch tensors on a device; see :class:`~mlbits.envs.engine.batch.GameBatch`.

    Args:
        game_id: a registered id.
        num_envs: number of copies B.
        device: "cpu", "cuda" or "auto".
        settings_per_copy: B dicts of settings, one per copy (for example a map each), which override ``settings``.
        seed: see GameBatch.
        autoreset: see GameBatch.
        illegal: see GameBatch.
        threads: see GameBatch.
        **settings: settings of the game's factory, for all copies.

    Raises:
        UnknownIdError: if there is no such id; the message names the nearest.
        GameError: if a setting is unknown or out of range, or the copies' games are incompatible.
        DeviceError: if the device is not available.
    """
    from mlbits.envs.engine.batch import GameBatch

    games: Game | list[Game]
    if settings_per_copy is None:
        games = make_game(game_id, **settings)
    elif len(settings_per_copy) != num_envs:
        raise GameError(f"settings_per_copy: got {len(settings_per_copy)} for {num_envs} copies; wanted one per copy")
    else:
        games = [make_game(game_id, **{**settings, **own}) for own in settings_per_copy]
    return GameBatch(games, num_envs, device=device, seed=seed, autoreset=autoreset, illegal=illegal, threads=threads)


def make_sb3(
    game_id: str,
    num_envs: int = 1,
    *,
    seed: int | None = None,
    illegal: Any = "replace",
    render_mode: str | None = None,
    threads: int | None = None,
    **settings: Any,
) -> SB3VecEnv:
    """B copies of a registered game as a Stable-Baselines3 ``VecEnv``, stepped in one call.

    Args:
        game_id: a registered id of a game of one seat.
        num_envs: number of copies B.
        seed: see :class:`~mlbits.envs.doors.sb3_vec_env.SB3VecEnv`.
        illegal: see there.
        render_mode: see there.
        threads: see there.
        **settings: settings of the game's factory.

    Raises:
        UnknownIdError: if there is no such id; the message names the nearest.
        GameError: if a setting is unknown or out of range, or the game has several seats.
    """
    from mlbits.envs.doors.sb3_vec_env import SB3VecEnv

    game = make_game(game_id, **settings)
    return SB3VecEnv(game, num_envs, seed=seed, illegal=illegal, render_mode=render_mode, threads=threads)
