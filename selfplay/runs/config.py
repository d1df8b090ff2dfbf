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

import numpy as np

from mlbits.envs.core.config_fields import choices_text, configuration, setting
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.registry import plain_id
from mlbits.selfplay.runs.synonyms import ACCEPTED, canonical, suggestions

PRESETS_FILE = Path(__file__).with_name("presets.toml")


class ConfigError(MlbitsError, ValueError):
    """A run's setting that is unknown or out of range."""


@configuration(ConfigError)
class RunConfig:
    """Settings of a run that are not the agent's or the environment's."""

    total_steps: int = setting(
        500_000,
        "environment steps of the run, summed over copies (a few more where the last rollout goes beyond); gradient "
        "steps where it learns from a dataset",
        low=1,
        high=1e15,
    )
    num_envs: int = setting(64, "copies of the environment stepped together", low=1, high=2**26)
    env_workers: int = setting(
        0,
        "processes that step a Gymnasium environment's copies, this one included; 0 takes as many as pay, by the time "
        "that a step takes",
        low=0,
        high=2**16,
    )
    actors: int = setting(
        0,
        "processes that play a Gymnasium environment's copies (those of each shard) while the learner learns, with the "
        "policy one update behind; their number does not change the run; 0 plays and learns in turn, another run",
        low=0,
        high=2**16,
    )
    shards: int = setting(
        1,
        "parts that the copies are cut into, which learn in step from the mean of their gradients; part of the "
        "experiment, as the seed is",
        low=1,
        high=2**16,
    )
    workers: int = setting(
        1,
        "processes that the shards are divided among, this one included; 0 (on the command line also auto) takes one "
        "a core or GPU; the run is the same with any number",
        low=0,
        high=2**16,
    )
    worker_timeout: float = setting(
        60.0, "time after which a worker that does not answer counts as lost", low=1, high=1e6, unit="seconds"
    )
    seed: int = setting(
        0, "seed of weights, copies, draws and shuffles; on a CPU it determines the run", low=0, high=2**63 - 1
    )
    device: str = setting(
        "auto", "cpu, cuda, or auto for a GPU where there is one and it can run the environment's rules"
    )
    threads: int = setting(
        1, "CPU threads of torch; 1 is fastest for small networks, more help convolutions", low=1, high=1024
    )
    eval_every: int = setting(
        100_000, "environment steps between evaluations; 0 evaluates only at the end", low=0, high=1e15
    )
    eval_episodes: int = setting(20, "episodes per evaluation", low=1, high=1e6)
    eval_greedy: bool = setting(True, "evaluate with the most probable actions instead of sampled ones")
    video: bool = setting(True, "show the first episode of each evaluation in TensorBoard, as an image or animation")
    track: Literal["none", "wandb", "mlflow"] = setting(
        "none", "also record the curves with Weights & Biases or MLflow, which their environment variables configure"
    )
    record_every: int = setting(
        0,
        "environment steps between records; 0 records at each update, or every 1,000 steps with a replay buffer",
        low=0,
        high=1e15,
    )
    checkpoint_every: int = setting(
        100_000, "environment steps between checkpoints; 0 saves only at the end", low=0, high=1e15
    )
    keep_checkpoints: int = setting(2, "number of latest checkpoints to keep", low=1, high=1000)
    keep_best: bool = setting(
        False,
        "keep the checkpoint of the best evaluation too, beside the latest ones (mlbits eval RUN --checkpoint best)",
    )
    max_cpu_minutes: float = setting(
        0.0, "CPU time after which the run ends even if steps are left, imports included; 0 for no limit", low=0,
        high=1e9, unit="minutes",
    )  # fmt: skip
    stop_when_solved: bool = setting(False, "end the run once it is solved (see solved_episodes)")
    solved_episodes: int = setting(
        20, "training episodes whose mean return has to reach the environment's threshold", low=1, high=1e6
    )
    stop_at_return: float | None = setting(None, "end the run once an evaluation's mean return reaches this")
    stop_without_improvement: int = setting(
        0, "end the run after so many evaluations in a row without a better mean return; 0 never does", low=0, high=1e9
    )
    data: str = setting("", "dataset to learn from, for offline agents: a Minari name, or a folder")
    data_hash: str = setting(
        "", "content hash that the dataset has to have; a run keeps its own, and resumes with no other dataset"
    )
    eval_online: bool = setting(
        False, "let an offline agent play evaluation episodes in training; each counts as a policy tried online"
    )
    opponents: tuple[str, ...] = setting(
        (),
        "opponents in training, in multi-agent games, each met equally often: bots, folders of runs, "
        "Stable-Baselines3's models (.zip) or frozen copies of a pool (.safetensors)",
    )
    opponent_fraction: float = setting(
        0.5, "fraction of the copies with one seat for the learner and the others for opponents", low=0, high=1
    )
    pool: Literal["none", "latest", "uniform", "pfsp", "league"] = setting(
        "none",
        "frozen copies of the learner to play against: the latest; uniform (fictitious play); pfsp, the ones it wins "
        "least against; league, AlphaStar's league of several learners; or none, plain self-play",
    )
    pool_fraction: float = setting(
        0.5,
        "fraction of the copies with one seat for the learner and the others for the pool; in the rest it plays "
        "itself; a league has rules of its own",
        low=0,
        high=1,
    )
    pool_weighting: Literal["squared", "variance", "linear", "linear_capped"] = setting(
        "squared",
        "weight that pfsp gives to a win rate w: squared (1 - w)^2, variance w (1 - w), linear 1 - w, "
        "linear_capped min(1/2, 1 - w)",
    )
    pool_every: int = setting(
        50_000,
        "environment steps between frozen copies; in a league the least, and twice that the most",
        low=1,
        high=1e15,
    )
    pool_draws: int = setting(
        8, "opponents drawn from the pool per rollout; more represent it better and are slower", low=1, high=10_000
    )
    main_agents: int = setting(1, "main agents of a league", low=1, high=1000)
    main_exploiters: int = setting(1, "main exploiters of a league", low=0, high=1000)
    league_exploiters: int = setting(2, "league exploiters of a league", low=0, high=1000)

    def check(self) -> None:
        """Refuse shards that do not fit, and settings that need evaluations in a run without them."""
        if self.num_envs % self.shards:
            raise ConfigError(
                f"shards: got {self.shards}, which do not divide the {self.num_envs} copies (num_envs); wanted a "
                "divisor of their number"
            )
        if self.actors and self.env_workers > 1:
            raise ConfigError(
                f"env_workers: got {self.env_workers} with {self.actors} actors, which step all copies; wanted 0"
            )
        if self.workers > self.shards:
            raise ConfigError(
                f"workers: got {self.workers} for {self.shards} shard{'s' * (self.shards > 1)}; wanted at most as many "
                "workers as shards, which belong to the experiment"
            )
        if self.eval_every == 0:
            for name in ("stop_at_return", "stop_without_improvement"):
                if getattr(self, name):
                    raise ConfigError(
                        f"eval_every: got 0 with {name}; wanted a number above 0, as it needs evaluations"
                    )


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
    from mlbits.agents.networks.own import find_factories
    from mlbits.agents.registry import agent_entry

    missing = [key for key in ("agent", "env", "preset", "run", "agent_config", "env_settings") if key not in data]
    if missing:
        raise ConfigError(f"config: the key {missing[0]!r} is missing; wanted the config.json of a run")
    agent, env = names_from(data)
    config = make_config(agent_entry(agent).config_class(), data["agent_config"], "agent")
    find_factories(config, [str(folder) for folder in data.get("folders", ())])
    return Settings(
        agent=agent,
        env=env,
        preset=data["preset"],
        run=make_config(RunConfig, data["run"], "run"),
        agent_config=config,
        env_settings=dict(data["env_settings"]),
    )


def settled(settings: Settings) -> tuple[Settings, list[str]]:
    """The settings with open choices decided for this machine, and a line for the user for each.

    An agent's config with open choices has a method ``settled(device)``, which returns the config with all of them
    decided and a line for the user, or "".

    Raises:
        DeviceError: for an unknown device.
    """
    from mlbits.agents.networks.own import factories_of
    from mlbits.envs.engine.batch import parse_device

    notes = [
        f"warning: agent.{name} {value}: was defined in a notebook, or in a script without "
        '`if __name__ == "__main__":`; no other process can resume this run or load its agent'
        for name, value in factories_of(settings.agent_config).items()
        if value.startswith("__main__:")
    ]
    decide = getattr(settings.agent_config, "settled", None)
    if decide is None:
        return settings, notes
    config, note = decide(parse_device(settings.run.device))
    return dataclasses.replace(settings, agent_config=config), [*notes, *([note] if note else [])]


def portable(settings: Settings) -> dict[str, Any]:
    """Plain data that another process can read; a custom environment or agent is named with its module.

    Returns:
        The result of :meth:`Settings.to_json`, with "env" and "agent" as "module:name" where they are neither mlbits'
        nor Gymnasium's, and then "folders", where Python found those modules.
    """
    return settings.to_json() | names_to(settings.agent, settings.env, settings.agent_config)


def names_to(agent: str, env: str, config: Any = None) -> dict[str, Any]:
    """An agent's and an environment's names, as "module:name" where needed, and the folders of those modules.

    They include those of the factories that the agent's config names (:mod:`mlbits.agents.networks.own`).

    The folders are added to the user's own list, from which such names may be imported again
    (:mod:`mlbits.envs.origins`).
    """
    from mlbits.agents.networks.own import factories_of
    from mlbits.agents.registry import agent_module
    from mlbits.envs.doors.gymnasium_ids import env_module
    from mlbits.envs.origins import folder_of, remember_folders

    modules = {"agent": agent_module(agent), "env": env_module(env)}
    names = {"agent": agent, "env": env}
    found: dict[str, Any] = {key: f"{module}:{names[key]}" if module else names[key] for key, module in modules.items()}
    made = [name.partition(":")[0] for name in factories_of(config).values()]
    folders = {folder for module in [*modules.values(), *made] if module and (folder := folder_of(module)) is not None}
    remember_folders(sorted(folders))
    return found | ({"folders": sorted(folders)} if folders else {})


def names_from(data: Mapping[str, Any]) -> tuple[str, str]:
    """The agent's and the environment's names from :func:`names_to`'s data, after importing the modules in it.

    Raises:
        GameError: if a module cannot be imported.
        UnknownIdError: if the agent is unknown; an unknown environment is found when it is opened.
    """
    from mlbits.agents.registry import check_agent
    from mlbits.envs.doors.gymnasium_ids import check_env_id

    agent, env = str(data["agent"]), str(data["env"])
    folders = [str(folder) for folder in data.get("folders", ())]
    return check_agent(agent, folders), check_env_id(env, folders) if ":" in env else env


def make_config(config_class: Any, values: Mapping[str, Any], where: str) -> Any:
    """A config dataclass from plain values; lists become tuples, and ``gamma`` is understood as ``discount``.

    Raises:
        ConfigError: naming an unknown key and the nearest known one, or a value of the wrong type.
    """
    from mlbits.agents.networks.own import SETTINGS, factory_name

    hints = typing.get_type_hints(config_class)
    arguments = {}
    for other, name in ACCEPTED.items():
        if other in values and name in values and other not in hints:
            raise ConfigError(f"{where}.{other}, {where}.{name}: got both, which are the same setting; wanted one")
    for key, value in canonical(values, config_class).items():
        if key not in hints:
            raise ConfigError(f"{where}.{key}: unknown setting; {_hint(key, config_class, where)}")
        value = value.item() if type(value).__module__ == "numpy" and np.ndim(value) == 0 else value
        arguments[key] = tuple(value) if isinstance(value, list) else value
        if key in SETTINGS and callable(value):
            arguments[key] = factory_name(key, value)
        if not _fits(arguments[key], hints[key]):
            raise ConfigError(f"{where}.{key}: got {value!r}; wanted {_type_name(hints[key])}")
    return config_class(**arguments)


def _hint(key: str, config_class: Any, where: str) -> str:
    """What may have been meant by an unknown setting: the name that we have for it, or one that is spelt like it."""
    known = [field.name for field in dataclasses.fields(config_class)]
    if names := suggestions(key, config_class) or difflib.get_close_matches(key, known, n=1, cutoff=0.8):
        return f"did you mean {choices_text(names)}?"
    of_run = [field.name for field in dataclasses.fields(RunConfig)]
    if where == "agent" and (names := [key] if key in of_run else suggestions(key, RunConfig)):
        return f"did you mean {choices_text(names)} of the run?"
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"wanted any of {', '.join(known)}"


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
    env: str | None,
    *,
    preset: str = "auto",
    run: Mapping[str, Any] | None = None,
    agent_settings: Mapping[str, Any] | None = None,
    env_settings: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from defaults, overridden by the preset, overridden by the values given.

    Without an environment it is that of the run's dataset, with the settings in which it was recorded.

    Raises:
        UnknownIdError: if the agent or environment is not known.
        ConfigError: for unknown settings or values out of range.
    """
    from mlbits.agents.networks.own import find_factories
    from mlbits.agents.registry import agent_entry, check_agent
    from mlbits.envs.doors.gymnasium_batch import check_env_id

    for name, given in (("run", run), ("agent_settings", agent_settings), ("env_settings", env_settings)):
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"{name}: got {given!r}; wanted a mapping of names to values")
    recorded: dict[str, Any] = {}
    if env is None:
        from mlbits.selfplay.offline.data import environment_of

        if not (run or {}).get("data"):
            raise ConfigError("env: got None; wanted an environment's id (or data, a dataset that names its own)")
        env, recorded = environment_of(str((run or {})["data"]))
    for what, word in (("agent", agent), ("env", env)):
        if not isinstance(word, str):
            hint = "; one of your own is named by gym.register" if what == "env" else ""
            raise ConfigError(f"{what}: got {type(word).__name__}; wanted a registered name as text{hint}")
    agent, env = check_agent(agent), check_env_id(plain_id(env))
    config_class = agent_entry(agent).config_class()
    name, values = find_preset(agent, env, preset)
    values = dict(values)
    agent_values = canonical(values.pop("agent", {}), config_class) | canonical(agent_settings or {}, config_class)
    env_values = dict(values.pop("env", {})) | recorded | dict(env_settings or {})
    values = dict(getattr(config_class, "run_defaults", ())) | values
    known = {field.name for field in dataclasses.fields(RunConfig)}
    for key in run or {}:
        agents_own = [
            other for other in canonical({key: None}, config_class) if other in config_class.__dataclass_fields__
        ]
        agents_own += suggestions(key, config_class)
        if key not in known and not suggestions(key, RunConfig) and agents_own:
            raise ConfigError(
                f"run.{key}: unknown setting; did you mean the agent's {agents_own[0]!r}, "
                f"as in agent_settings={{{agents_own[0]!r}: ...}}?"
            )
    config = make_config(config_class, agent_values, "agent")
    find_factories(config, None)
    return Settings(
        agent=agent,
        env=env,
        preset=name,
        run=make_config(RunConfig, values | dict(run or {}), "run"),
        agent_config=config,
        env_settings=env_values,
    )
