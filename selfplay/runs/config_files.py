"""Settings from a file: a run's ``config.json``, which repeats that run, or a TOML or JSON file of one's own.

A TOML file says what the command line would::

    agent = "ppo"
    env = "mlbits/GridWorld-v0"

    [run]
    total_steps = 300_000
    seed = 3

    [agent_settings]
    learning_rate = 1e-3

    [env_settings]
    map = "maze"

Whatever it leaves out is the preset's (``preset = "auto"``, "none" or another environment's id). What a user gives
besides the file overrides it; settings of the file's environment are left out if another one is given. Modules that it
names are not looked for in the working folder.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlbits.agents.networks.own import SETTINGS, find_factory
from mlbits.agents.registry import check_agent
from mlbits.envs.core.plain_json import read_json_file
from mlbits.envs.doors.gymnasium_ids import check_env_id
from mlbits.envs.origins import own_folders
from mlbits.envs.registry import plain_id
from mlbits.selfplay.runs.config import ConfigError, Settings, presets, resolve

# What a run's config.json says besides: how it was made, and the presets' name for the agent's settings.
_ASIDE = ("version", "git_hash", "python", "torch", "processor", "started", "folders", "agent_config")
_KEYS = ("agent", "env", "preset", "run", "agent_settings", "env_settings")


class ConfigFile(NamedTuple):
    """What a file of settings says; None and empty where it says nothing.

    Attributes:
        path: the file.
        agent: the agent's name.
        env: the environment's id.
        preset: "auto", "none" or the environment whose preset to use.
        run: settings of the run.
        agent_settings: settings of the agent.
        env_settings: settings of the environment.
    """

    path: Path
    agent: str | None
    env: str | None
    preset: str
    run: dict[str, Any]
    agent_settings: dict[str, Any]
    env_settings: dict[str, Any]

    def resolved(
        self, agent: str | None = None, env: str | None = None, *, preset: str | None = None,
        run: Mapping[str, Any] | None = None, agent_settings: Mapping[str, Any] | None = None,
        env_settings: Mapping[str, Any] | None = None,
    ) -> Settings:  # fmt: skip
        """Settings from the file, overridden by what is given.

        Raises:
            ConfigError: if there is no agent, if the file's settings are of another agent, and as
                :func:`mlbits.selfplay.runs.config.resolve` does.
        """
        agent = self.check_agent(agent)
        return resolve(
            agent, env or self.env, preset=preset or self.preset, run={**self.run, **(run or {})},
            agent_settings={**self.agent_settings, **(agent_settings or {})},
            env_settings={**self.settings_of(env or self.env), **(env_settings or {})},
        )  # fmt: skip

    def settings_of(self, env: str | None) -> dict[str, Any]:
        """The file's settings of an environment; none of another one than the file's."""
        return self.env_settings if self.env in (None, env and plain_id(env).rpartition(":")[2]) else {}

    def check_agent(self, agent: str | None) -> str:
        """The agent to train: the one given, or the file's.

        Raises:
            ConfigError: if there is none, or the file has settings of another one.
        """
        if agent is None and self.agent is None:
            raise ConfigError(f'{self.path}: it names no agent; wanted one, as in agent = "ppo"')
        same = agent is None or self.agent in (None, agent.rpartition(":")[2])
        if not same and self.agent_settings:
            raise ConfigError(f"agent: got {agent}; {self.path} has the settings of {self.agent}: wanted that, or none")
        return agent or str(self.agent)


def read_config_file(path: str | Path) -> ConfigFile:
    """Read a file of settings.

    Args:
        path: a run's folder or its config.json, or a file ``.json`` or ``.toml``.

    Raises:
        ConfigError: if it cannot be read; naming a key that is unknown or of a wrong kind.
    """
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    try:
        data = tomllib.loads(path.read_text()) if path.suffix == ".toml" else read_json_file(path)
    except FileNotFoundError:
        raise ConfigError(f"config: {path} not found; wanted a run's config.json, or a file .toml or .json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"config: {path} cannot be read ({error}); wanted JSON, or TOML in a file .toml") from None
    if not isinstance(data, dict):
        raise ConfigError(f"config: {path} holds a {type(data).__name__}; wanted a table of settings")
    for key in data:
        if key not in (*_KEYS, *_ASIDE):
            near = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"wanted any of {', '.join(_KEYS)}"
            raise ConfigError(f"{path}: {key}: unknown key; {hint}")
    if "agent_config" in data and "agent_settings" in data:
        raise ConfigError(f"{path}: agent_config, agent_settings: got both, which are the same; wanted one")
    tables = {name: data.get(name, {}) for name in ("run", "env_settings")}
    tables["agent_settings"] = data.get("agent_settings", data.get("agent_config", {}))
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name}: got {table!r:.60}; wanted a table of settings")
    for name in ("agent", "env", "preset"):
        if not isinstance(data.get(name, ""), str):
            raise ConfigError(f"{path}: {name}: got {data[name]!r:.60}; wanted a string")
    agent, env = _names(path, data, tables["agent_settings"])
    return ConfigFile(path, agent, env, _preset(data, agent), **tables)


def _names(path: Path, data: Mapping[str, Any], agent_settings: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The agent's and the environment's names without their modules.

    The modules that the file names, those of networks too, are imported here: a file may be a stranger's, and so they
    are not looked for in the working folder, as those are that a user types (:mod:`mlbits.envs.origins`).
    """
    folders = data.get("folders", own_folders())
    if not isinstance(folders, list):
        raise ConfigError(f"{path}: folders: got {folders!r:.60}; wanted a list of folders")
    folders = [str(folder) for folder in folders]
    agent, env = data.get("agent"), data.get("env")
    for name in SETTINGS:
        if isinstance(factory := agent_settings.get(name), str) and factory:
            find_factory(name, factory, folders)
    return (
        None if agent is None else check_agent(agent, folders),
        check_env_id(env, folders) if env is not None and ":" in env else env,
    )


def _preset(data: Mapping[str, Any], agent: str | None) -> str:
    """The choice of a preset; of a run, whose settings are complete, the name only tells where they came from."""
    name = str(data.get("preset", "auto"))
    own = name.removeprefix(f"{agent}/")
    return own if own in ("auto", "none") or name == own or own in presets().get(str(agent), {}) else "none"
