"""The settings of a training run, and the presets for pairs of agent and environment."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.registry import plain_id

PRESETS_FILE = Path(__file__).with_name("presets.toml")


class ConfigError(MlbitsError, ValueError):
    """A run's setting that is unknown or out of range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Settings of a run that are not the agent's or the environment's.

    Attributes:
        total_steps: environment steps, summed over copies, after which the run ends (whole rollouts are played, so it
            may be a little more).
        num_envs: copies of the environment stepped together.
        seed: of weights, copies, draws and shuffles; a run on the CPU is a function of it.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        threads: torch's threads; 1 is fastest for small networks, more help convolutions.
        eval_every: environment steps between evaluations; 0 evaluates at the end alone.
        eval_episodes: episodes of each evaluation.
        eval_greedy: whether evaluation takes the most probable action in place of a draw.
        video: whether evaluations put an image or animation of the first episode into TensorBoard.
        record_every: environment steps between records; 0 records whenever the agent learns, and every 1,000 steps
            where it learns from a replay.
        checkpoint_every: environment steps between checkpoints; 0 saves at the end alone.
        keep_checkpoints: how many of the latest checkpoints are kept.
        stop_when_solved: whether the run ends once it is solved (see ``solved_episodes``).
        solved_episodes: training episodes whose mean return has to reach the environment's threshold.
        opponents: whom the learner meets in training, in games of several seats: bots, folders of runs, models of
            Stable-Baselines3 (.zip) or frozen copies of a pool (.safetensors); each has the same share.
        opponent_share: share of the copies in which the learner has one seat, turn about, and one of ``opponents`` the
            others.
        pool: frozen copies of the learner that it meets: the "latest", all alike ("uniform", fictitious play), those
            that it wins least against ("pfsp"), or AlphaStar's "league" of several learners; "none" is plain self-play.
        pool_share: share of the copies in which the learner has one seat, turn about, and frozen copies the others; a
            league has rules of its own. In the rest it plays itself.
        pool_weighting: how "pfsp" weighs the share of games won, w: "squared" is (1 - w)^2, "variance" w (1 - w),
            "linear" 1 - w, "linear_capped" min(1/2, 1 - w).
        pool_every: environment steps between frozen copies; in a league the least, with twice as many the most.
        pool_draws: how many times opponents are drawn for a rollout; more are more alike to the whole pool, and slower.
        main_agents: of a league.
        main_exploiters: of a league.
        league_exploiters: of a league.
    """

    total_steps: int = 500_000
    num_envs: int = 64
    seed: int = 0
    device: str = "auto"
    threads: int = 1
    eval_every: int = 100_000
    eval_episodes: int = 20
    eval_greedy: bool = True
    video: bool = True
    record_every: int = 0
    checkpoint_every: int = 100_000
    keep_checkpoints: int = 2
    stop_when_solved: bool = False
    solved_episodes: int = 20
    opponents: tuple[str, ...] = ()
    opponent_share: float = 0.5
    pool: Literal["none", "latest", "uniform", "pfsp", "league"] = "none"
    pool_share: float = 0.5
    pool_weighting: Literal["squared", "variance", "linear", "linear_capped"] = "squared"
    pool_every: int = 50_000
    pool_draws: int = 8
    main_agents: int = 1
    main_exploiters: int = 1
    league_exploiters: int = 2

    def __post_init__(self) -> None:
        limits = {
            "total_steps": (1, 1e15), "num_envs": (1, 2**26), "seed": (0, 2**63 - 1), "threads": (1, 1024),
            "eval_every": (0, 1e15), "eval_episodes": (1, 1e6), "checkpoint_every": (0, 1e15),
            "record_every": (0, 1e15), "keep_checkpoints": (1, 1000), "solved_episodes": (1, 1e6),
            "opponent_share": (0, 1), "pool_share": (0, 1), "pool_every": (1, 1e15), "pool_draws": (1, 10_000),
            "main_agents": (1, 1000), "main_exploiters": (0, 1000), "league_exploiters": (0, 1000),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}: got {value}; wanted a number from {low} to {int(high):,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a run, resolved.

    Attributes:
        agent: the agent's name.
        env: the environment's id.
        preset: name of the preset that the values started from, or "none".
        run: settings of the run.
        agent_config: the agent's config dataclass.
        env_settings: keyword settings of the environment.
    """

    agent: str
    env: str
    preset: str
    run: RunConfig
    agent_config: Any
    env_settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data, from which :func:`settings_from_json` makes the same settings."""
        return {
            "agent": self.agent,
            "env": self.env,
            "preset": self.preset,
            "run": dataclasses.asdict(self.run),
            "agent_config": dataclasses.asdict(self.agent_config),
            "env_settings": dict(self.env_settings),
        }


def settings_from_json(data: Mapping[str, Any]) -> Settings:
    """Settings from the result of :meth:`Settings.to_json` or :func:`portable`.

    Raises:
        ConfigError: for missing or unknown keys.
        UnknownIdError: if the agent is not registered.
        GameError: if the module that registers the environment or the agent cannot be imported.
    """
    from mlbits.agents import agent_entry

    missing = [key for key in ("agent", "env", "preset", "run", "agent_config", "env_settings") if key not in data]
    if missing:
        raise ConfigError(f"config: the key {missing[0]!r} is missing; wanted the config.json of a run")
    agent, env = names_from(data)
    return Settings(
        agent=agent,
        env=env,
        preset=data["preset"],
        run=make_config(RunConfig, data["run"], "run"),
        agent_config=make_config(agent_entry(agent).config_class(), data["agent_config"], "agent"),
        env_settings=dict(data["env_settings"]),
    )


def settled(settings: Settings) -> tuple[Settings, list[str]]:
    """The settings with open choices decided for this machine, and a line for the user for each.

    An agent's config with open choices has a method ``settled(device)``, which returns the config with all of them
    decided and a line for the user, or "".

    Raises:
        DeviceError: for an unknown device.
    """
    from mlbits.envs.engine.batch import parse_device

    decide = getattr(settings.agent_config, "settled", None)
    if decide is None:
        return settings, []
    config, note = decide(parse_device(settings.run.device))
    return dataclasses.replace(settings, agent_config=config), [note] if note else []


def portable(settings: Settings) -> dict[str, Any]:
    """Plain data that another process can read; a custom environment or agent is named with its module.

    Returns:
        The result of :meth:`Settings.to_json`, with "env" and "agent" as "module:name" where they are neither mlbits'
        nor Gymnasium's, and then "folders", where Python found those modules.
    """
    return settings.to_json() | names_to(settings.agent, settings.env)


def names_to(agent: str, env: str) -> dict[str, Any]:
    """An agent's and an environment's names, as "module:name" where needed, and the folders of those modules.

    The folders are added to the user's own list, from which such names may be imported again
    (:mod:`mlbits.envs.origins`).
    """
    from mlbits.agents import agent_module
    from mlbits.envs.doors.gymnasium_ids import env_module
    from mlbits.envs.origins import folder_of, remember_folders

    modules = {"agent": agent_module(agent), "env": env_module(env)}
    names = {"agent": agent, "env": env}
    found: dict[str, Any] = {key: f"{module}:{names[key]}" if module else names[key] for key, module in modules.items()}
    folders = {folder for module in modules.values() if module and (folder := folder_of(module)) is not None}
    remember_folders(sorted(folders))
    return found | ({"folders": sorted(folders)} if folders else {})


def names_from(data: Mapping[str, Any]) -> tuple[str, str]:
    """The agent's and the environment's names from :func:`names_to`'s data, after importing the modules in it.

    Raises:
        GameError: if a module cannot be imported.
        UnknownIdError: if the agent is unknown; an unknown environment is found when it is opened.
    """
    from mlbits.agents import check_agent
    from mlbits.envs.doors.gymnasium_ids import check_env_id

    agent, env = str(data["agent"]), str(data["env"])
    folders = [str(folder) for folder in data.get("folders", ())]
    return check_agent(agent, folders), check_env_id(env, folders) if ":" in env else env


def make_config(config_class: Any, values: Mapping[str, Any], where: str) -> Any:
    """A config dataclass from plain values; lists become tuples.

    Raises:
        ConfigError: naming an unknown key and the nearest known one, or a value of the wrong type.
    """
    hints = typing.get_type_hints(config_class)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"wanted any of {', '.join(hints)}"
            raise ConfigError(f"{where}.{key}: unknown setting; {hint}")
        arguments[key] = tuple(value) if isinstance(value, list) else value
        if not _fits(arguments[key], hints[key]):
            raise ConfigError(f"{where}.{key}: got {value!r}; wanted {_type_name(hints[key])}")
    return config_class(**arguments)


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_origin(hint) else str(hint).replace("typing.", "")


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(part, typing.get_args(hint)[0]) for part in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def presets() -> dict[str, dict[str, dict[str, Any]]]:
    """All presets: by agent, then by environment id."""
    return tomllib.loads(PRESETS_FILE.read_text())


def find_preset(agent: str, env: str, choice: str = "auto") -> tuple[str, dict[str, Any]]:
    """The preset for a pair of agent and environment.

    Args:
        agent: the agent's name.
        env: the environment's id.
        choice: "auto" (the pair's own, if there is one), "none", or the id of another environment.

    Returns:
        Its name ("agent/env", or "none") and its values: settings of the run, and a table "agent" and "env".

    Raises:
        ConfigError: if a preset was named that does not exist.
    """
    known = presets().get(agent, {})
    if choice == "none" or (choice == "auto" and env not in known):
        return "none", {}
    name = env if choice == "auto" else choice
    if name not in known:
        raise ConfigError(
            f"preset: {agent} has none for {name!r}; wanted 'auto', 'none' or one of {', '.join(known) or 'no others'}"
        )
    return f"{agent}/{name}", known[name]


def resolve(
    agent: str,
    env: str,
    *,
    preset: str = "auto",
    run: Mapping[str, Any] | None = None,
    agent_settings: Mapping[str, Any] | None = None,
    env_settings: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from defaults, overridden by the preset, overridden by the values given.

    Raises:
        UnknownIdError: if the agent or environment is not known.
        ConfigError: for unknown settings or values out of range.
    """
    from mlbits.agents import agent_entry, check_agent
    from mlbits.envs.doors.gymnasium_batch import check_env_id

    agent, env = check_agent(agent), check_env_id(plain_id(env))
    config_class = agent_entry(agent).config_class()
    name, values = find_preset(agent, env, preset)
    values = dict(values)
    agent_values = dict(values.pop("agent", {})) | dict(agent_settings or {})
    env_values = dict(values.pop("env", {})) | dict(env_settings or {})
    values = dict(getattr(config_class, "run_defaults", ())) | values
    return Settings(
        agent=agent,
        env=env,
        preset=name,
        run=make_config(RunConfig, values | dict(run or {}), "run"),
        agent_config=make_config(config_class, agent_values, "agent"),
        env_settings=env_values,
    )
