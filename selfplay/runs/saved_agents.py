"""Agents from files: the agent of a run, a frozen copy of a pool, a model of Stable-Baselines3, or a bot by name.

Example:
    agent, settings, _ = load_agent("runs/mine")
    opponent = open_guest("runs/mine/pool/copy-0003-1f9c04e7b2da.safetensors", "mlbits/Blotto-v0")
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mlbits.agents.agent import Agent, content_hash, split_optimizers
from mlbits.agents.networks.own import find_factories
from mlbits.agents.registry import AGENTS, AgentEntry, agent_entry, bare_name, bot_names, make_bot
from mlbits.agents.sb3.agent import load_sb3
from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.envs.core.game import Game
from mlbits.envs.core.plain_json import read_json
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.envs.registry import entry, make_game, registered
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.config import ConfigError, RunConfig, Settings, make_config, names_from, names_to
from mlbits.selfplay.runs.folder import BEST, CHECKPOINTS, CONFIG, read_settings

FORMAT = "mlbits agent"
VERSION, _READ = "2", ("1", "2")  # copies of version 1 hold their learner's optimisers too
SUFFIX = ".safetensors"
_ABOUT = "mlbits"


class SavedAgentError(MlbitsError, RuntimeError):
    """An agent's file that is damaged, or of another game or version."""


def load_agent(
    folder: str | Path, device: str = "cpu", checkpoint: str | int | Path = "latest"
) -> tuple[Any, Any, dict[str, Any]]:
    """The agent of a run's newest whole checkpoint, or of another one.

    Args:
        folder: the run's folder.
        device: the agent's device.
        checkpoint: "latest", "best" (of a run with ``keep_best``), the environment steps of one, or its folder.

    Returns:
        The agent, the run's settings and the checkpoint's counters.

    Raises:
        RunError: if the folder is no run.
        CheckpointError: if it has no usable checkpoint.
    """
    return load_agent_and_problems(folder, device, checkpoint)[:3]


def load_agent_and_problems(
    folder: str | Path, device: torch.device | str, checkpoint: str | int | Path = "latest"
) -> tuple[Any, Any, dict[str, Any], list[str]]:
    """As :func:`load_agent`, and a message for each newer checkpoint that could not be used."""
    settings = read_settings(folder)
    place = parse_device(str(device))
    place = check_cuda(place) if place.type == "cuda" else place
    plain = json.loads(json.dumps(settings.to_json()))
    facts = {key: plain[key] for key in ("agent", "env", "agent_config", "env_settings")}
    spaces, game = spaces_of(settings.env, settings.env_settings), game_of(settings.env, settings.env_settings)
    agent = agent_entry(settings.agent).make(settings.agent_config, *spaces, seed=0, device=place, game=game)

    def restore(found: checkpoints.Checkpoint) -> None:
        try:
            agent.load_state_dict(found.weights)
        except (MlbitsError, LookupError, TypeError, ValueError, RuntimeError) as error:
            said = f"{folder}, step {found.state['env_steps']}: weights that do not fit ({error})"
            raise checkpoints.CheckpointError(said) from None

    if checkpoint not in ("latest", "best"):
        one = checkpoints.load(_checkpoint_at(Path(folder), checkpoint), facts)
        restore(one)
        return agent, settings, one.state, []
    kept = Path(folder) / (BEST if checkpoint == "best" else CHECKPOINTS)
    found, _, problems = checkpoints.load_latest(kept, facts, restore)
    if found is None:
        lacks, wanted = "there is no checkpoint yet", "a run that has saved one"
        if checkpoint == "best":
            lacks, wanted = "there is no best checkpoint", "a run with keep_best (--keep-best) that has been evaluated"
        raise checkpoints.CheckpointError(f"{folder}: {lacks}; wanted {wanted}")
    return agent, settings, found.state, problems


def _checkpoint_at(folder: Path, which: str | int | Path) -> Path:
    """The folder of a checkpoint that is named by its environment steps, or by itself.

    Raises:
        CheckpointError: if the run has not kept it.
    """
    if isinstance(which, Path):
        return which
    kept = {int(path.name.partition("-")[2]): path for path in checkpoints.found(folder / CHECKPOINTS)}
    steps = int(which) if isinstance(which, int) or which.isdecimal() else None
    if steps not in kept:
        known = ", ".join(["'latest'", "'best'", *map(str, kept)])
        raise checkpoints.CheckpointError(f"checkpoint: got {which!r}; wanted one of {known}, as {folder} has")
    return kept[steps]


def open_guest(
    name: str,
    env: str,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    search: Mapping[str, Any] | None = None,
) -> Agent:
    """A player for an environment: a bot by name, or the agent in a file or folder.

    Args:
        name: a bot, with its settings if any (``mcts@simulations=100``), the folder of a run, a model of
            Stable-Baselines3 ("model.zip"), or a frozen copy from a run's pool (its file, ".safetensors").
        env: id of the environment to be played.
        settings: its settings.
        device: the agent's device.
        search: how a trained agent is to look ahead, as in {"simulations": 100}; see
            :func:`~mlbits.agents.search.player.searched`.

    Raises:
        ConfigError: for a run trained with other spaces or seats, or in another environment.
        SavedAgentError: for a copy of another game or version.
        UnknownIdError: for a name that is none of these.
        AgentError: for an agent that has not been trained, or that cannot play this environment.
    """
    from mlbits.agents.search.player import searched

    game = game_of(env, settings)
    return searched(_opened(name, env, settings, device, game), game, search)


def _opened(
    name: str, env: str, settings: Mapping[str, Any] | None, device: torch.device | str, game: Game | None
) -> Agent:
    path = Path(name)
    if path.suffix == SUFFIX:
        return read_copy(path, env, settings, device)
    if path.suffix == ".zip":
        return load_sb3(path, *spaces_of(env, settings), device=device)
    if (path / CONFIG).exists():
        agent: Agent
        agent, trained, _, _ = load_agent_and_problems(name, device)
        theirs = _game_facts(trained.env, trained.env_settings)
        for what, mine in _game_facts(env, settings).items():
            if mine != theirs[what]:
                raise ConfigError(f"opponents: {name} was trained on the {what} {theirs[what]}; wanted {mine}")
        return agent
    check_guest(name)
    bot: Agent = make_bot(name, *spaces_of(env, settings), device=device, game=game)
    return bot


def check_guest(name: str, argument: str = "opponents") -> None:
    """Refuse a name that is not a file, a run's folder or an agent.

    Args:
        name: the player.
        argument: the argument or setting that the name was given for.

    Raises:
        ConfigError: for a file or run with a bot's settings, or an environment.
        UnknownIdError: with the nearest bot's name.
    """
    plain = bare_name(name)
    if not _is_trained(name) and plain not in AGENTS:
        if plain != name and _is_trained(plain):
            raise ConfigError(
                f"{argument}: got {name!r}; wanted {plain!r}: settings after @ are for bots, a trained agent's search "
                "is set by --search.NAME, as in --search.simulations 100"
            )
        if name in registered() or name in gym.registry:
            where = f"--env {name}" if argument == "players" else "bots or folders of runs"
            raise ConfigError(f"{argument}: got the environment {name!r}; wanted {where}")
        kind = f"player (no run's folder, no MODEL.zip, no COPY{SUFFIX}, no bot)"
        raise UnknownIdError(kind, plain if "=" in name else name, bot_names(), argument)


def _is_trained(name: str) -> bool:
    return Path(name).suffix in (SUFFIX, ".zip") or (Path(name) / CONFIG).exists()


def copy_bytes(agent: Agent, settings: Settings, facts: Mapping[str, Any]) -> bytes:
    """A frozen copy as safetensors bytes: weights without optimisers; metadata that name its game and agent.

    Args:
        agent: the agent.
        settings: settings of its run.
        facts: more metadata, as plain data.
    """
    about = {
        "format": FORMAT, "version": VERSION, "hash": content_hash(agent), "env_settings": settings.env_settings,
        "agent_config": dataclasses.asdict(settings.agent_config),
        **names_to(settings.agent, settings.env, settings.agent_config), **facts,
    }  # fmt: skip
    weights = split_optimizers(agent.state_dict())[0]
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    return save(tensors, {_ABOUT: json.dumps(about)})  # one entry, as safetensors writes several in any order


def copy_settings(path: Path) -> Settings:
    """The agent and game of a frozen copy; settings of its run are unknown.

    Raises:
        SavedAgentError: if the file cannot be read, is damaged, or is of another version.
        UnknownIdError: if the agent is not known.
    """
    about, _ = _read(path)
    _check_fields(path, about, {"format": (FORMAT,), "version": _READ})
    try:
        agent, env = names_from(about)
        config = _config_of(agent_entry(agent), about)
        settings = dict(about["env_settings"])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, MlbitsError):
            raise
        raise SavedAgentError(f"{path}: damaged: it does not say what it is ({str(error)[:200]})") from None
    return Settings(
        agent=agent, env=env, preset="none", run=RunConfig(), agent_config=config, env_settings=settings
    )  # fmt: skip


def read_copy(
    path: Path, env: str, settings: Mapping[str, Any] | None = None, device: torch.device | str = "cpu"
) -> Agent:
    """A frozen copy from its file.

    Args:
        path: the file.
        env: id of the environment to be played.
        settings: its settings.
        device: the agent's device.

    Raises:
        SavedAgentError: if it cannot be read, is damaged, or is of another game or version.
    """
    about, tensors = _read(path)
    about["env"] = str(about.get("env")).rpartition(":")[2]  # without the module that registers it
    _check_fields(path, about, {"format": (FORMAT,), "version": _READ, "env": (env,)})
    theirs, mine = about.get("env_settings", {}), _plain(settings or {})
    if not isinstance(theirs, dict):
        raise SavedAgentError(f"{path}: its env_settings is {str(theirs)[:80]!r}; wanted a table")
    if own_settings(env, theirs) != own_settings(env, mine):
        raise SavedAgentError(f"{path}: its env_settings is {theirs!r}; wanted {mine!r}")
    try:
        kind = agent_entry(names_from(about)[0])
        config = _config_of(kind, about)
        agent: Agent = kind.make(config, *spaces_of(env, settings), seed=0, device=device, game=game_of(env, settings))
        agent.load_state_dict(split_optimizers(agent.state_dict())[1] | tensors)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise SavedAgentError(f"{path}: lacks what this version of mlbits needs ({error})") from None
    if content_hash(agent) != about.get("hash"):
        raise SavedAgentError(f"{path}: damaged: its content does not match its hash")
    return agent


def _config_of(kind: AgentEntry, about: Mapping[str, Any]) -> Any:
    """The agent's settings in a copy's metadata, after importing the modules of networks that they name."""
    config = make_config(kind.config_class(), about["agent_config"], "agent")
    find_factories(config, [str(folder) for folder in about.get("folders", ())])
    return config


def _check_fields(path: Path, about: Mapping[str, Any], wanted: Mapping[str, tuple[str, ...]]) -> None:
    for field, want in wanted.items():
        if about.get(field) not in want:
            raise SavedAgentError(f"{path}: its {field} is {about.get(field)!r}; wanted {' or '.join(map(repr, want))}")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            about = read_json((file.metadata() or {}).get(_ABOUT, "{}"))
            if not isinstance(about, dict) or not isinstance(about.get("env_settings", {}), dict):
                raise ValueError(f"{_ABOUT} is {about!r:.60}")
            return about, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise SavedAgentError(f"{path}: not found; wanted a frozen copy's file") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise SavedAgentError(f"{path}: damaged: {error}") from None


def own_settings(env: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that differ from the environment's defaults, as plain data."""
    plain: dict[str, Any] = _plain(dict(settings))
    if env not in registered():
        return plain
    known = entry(env)
    defaults = {name: parameter.default for name, parameter in inspect.signature(known.load()).parameters.items()}
    defaults = json.loads(json.dumps({**defaults, **known.defaults}, default=str))
    return {name: value for name, value in plain.items() if value != defaults.get(name)}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _game_facts(env: str, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Facts of the game that an agent was made for, which have to match the game to be played."""
    batch = open_batch(env, 1, settings=settings, start=False)
    facts = {
        "observation space": batch.observation_space, "action space": batch.action_space,
        "number of seats": batch.num_seats, "environment": env,
    }  # fmt: skip
    batch.close()
    return facts


def spaces_of(env: str, settings: Mapping[str, Any] | None) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """The observation and action space of one seat, as agents know them."""
    batch = open_batch(env, 1, settings=settings, start=False)
    spaces = batch.observation_space, batch.action_space
    batch.close()
    return spaces


def game_of(env: str, settings: Mapping[str, Any] | None) -> Game | None:
    """The game's rules, or None for an environment that is not one of mlbits' own."""
    return make_game(env, **dict(settings or {})) if env in registered() else None
