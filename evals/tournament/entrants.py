"""Entrants of a tournament: runs, frozen copies, models of Stable-Baselines3 and bots, all checked before any play.

All entrants play one game: the one that the runs and copies were trained on, which must be the same for all, unless the
caller gives the settings to be played; then the spaces and seats must still be those they were trained with. An entrant
that does not fit is refused by name.

Example:
    >>> entries = open_entries(["random", "diplomacy-hold"], "mlbits/DiplomacyMini-v0")  # or ["runs/a", ...]
    >>> entries.env, list(entries.agents)
    ('mlbits/DiplomacyMini-v0', ['random', 'diplomacy-hold'])
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlbits.agents.agent import Agent
from mlbits.agents.registry import AGENTS, bare_name, bot_names
from mlbits.agents.search.player import searched, searched_where_possible
from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.envs.doors.gymnasium_batch import AnyBatch, check_env_id, open_batch
from mlbits.evals.tournament.config import TournamentError
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.folder import read_settings
from mlbits.selfplay.runs.saved_agents import SUFFIX, copy_settings, game_of, load_agent, open_guest, own_settings

_RUN, _COPY, _MODEL, _BOT = "run", "copy", "model", "bot"


@dataclass(frozen=True)
class Entries:
    """The entrants and their game.

    Attributes:
        env: id of the environment.
        env_settings: settings that differ from the environment's defaults.
        agents: by name: a run's folder name, a model's file name, a bot's name.
    """

    env: str
    env_settings: dict[str, Any]
    agents: dict[str, Agent]


def open_entries(
    words: Sequence[str],
    env: str = "",
    env_settings: Mapping[str, Any] | None = None,
    *,
    device: torch.device | str = "cpu",
    search: Mapping[str, Any] | None = None,
) -> Entries:
    """Load all entries of a tournament.

    Args:
        words: folders of runs, frozen copies of a pool (``.safetensors``), models saved by Stable-Baselines3 (``.zip``)
            and names of bots, with their settings if any (``mcts@simulations=100``), two or more.
        env: id of the environment; "" takes that of the runs.
        env_settings: settings of the environment, which override those that the runs were trained with.
        device: the agents' device.
        search: how trained agents that can search are to look ahead, as in {"simulations": 100}; see
            :func:`~mlbits.agents.search.player.searched`.

    Raises:
        TournamentError: naming the entry that is unknown, given twice or does not fit, or another mistake.
        UnknownIdError: for an unknown environment, or a name that is none of these.
        SavedAgentError: for a frozen copy that is damaged or of another version.
        RunError: for a run whose config is damaged.
        CheckpointError: for a run without a usable checkpoint.
    """
    if len(words) < 2:
        raise TournamentError(f"entries: got {len(words)}; wanted two or more")
    kinds = [_kind(word) for word in words]
    names = _names(words, kinds)
    read: dict[str, Callable[[Path], Settings]] = {_RUN: read_settings, _COPY: copy_settings}
    runs = {word: read[kind](Path(word)) for word, kind in zip(words, kinds, strict=True) if kind in read}
    env, settings = _game(runs, env, dict(env_settings or {}))
    batch = open_batch(env, 1, settings=settings, start=False)
    if batch.num_seats < 2:
        raise TournamentError(f"env: {env} has one seat; wanted an environment with two or more")
    for word, run in runs.items():
        _check_run(word, run, env, batch)
    if env_settings is None or not env_settings:
        _check_settings(runs, env, settings)
    agents = {}
    for name, word, kind in zip(names, words, kinds, strict=True):
        agents[name] = _load(word, kind, env, settings, device)
    batch.close()
    players = searched_where_possible(list(agents.values()), game_of(env, settings), search)
    return Entries(env, own_settings(env, settings), dict(zip(agents, players, strict=True)))


def _kind(word: str) -> str:
    """The kind of an entry.

    Raises:
        TournamentError: for a learning agent's name.
        UnknownIdError: for a name that is none of these.
    """
    if Path(word).is_dir():
        return _RUN
    if word.endswith(SUFFIX):
        return _COPY
    if word.endswith(".zip"):
        return _MODEL
    name = bare_name(word)
    if name in AGENTS and not AGENTS[name].bot:
        raise TournamentError(
            f"entries: {name} has not been trained; wanted the folder of a run, or a bot ({', '.join(bot_names())})"
        )
    if name not in AGENTS:
        unknown = name if "=" in word else word
        raise UnknownIdError("entry (no run's folder, no MODEL.zip, no bot)", unknown, bot_names(), "entries")
    return _BOT


def _names(words: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """The last part of each path, with as many parts before it as are needed to make the names unique.

    Raises:
        TournamentError: for an entry that is given twice.
    """
    parts = [(word,) if kind == _BOT else Path(word).resolve().parts for word, kind in zip(words, kinds, strict=True)]
    for k, word in enumerate(words):
        if parts[k] in parts[:k]:
            raise TournamentError(f"entries: {word} is given twice; wanted each once")
    lengths = [1] * len(words)
    while True:
        names = ["/".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]
        again = [k for k, name in enumerate(names) if names.count(name) > 1 and lengths[k] < len(parts[k])]
        if not again:
            return names
        for k in again:
            lengths[k] += 1


def _game(runs: Mapping[str, Settings], env: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The environment to play, and its settings."""
    if env:
        check_env_id(env)
    if not runs:
        if not env:
            raise TournamentError("env: missing, and no entry is a run, which would have one; wanted --env ID")
        return env, given
    first = next(iter(runs.values()))
    return env or first.env, {**(first.env_settings if first.env == (env or first.env) else {}), **given}


def _check_run(word: str, run: Settings, env: str, played: AnyBatch) -> None:
    """Refuse a run that was trained with other seats or spaces, or on another environment."""
    trained = open_batch(run.env, 1, settings=run.env_settings, start=False)
    facts = {
        "seats": (trained.num_seats, played.num_seats),
        "observation space": (trained.observation_space, played.observation_space),
        "action space": (trained.action_space, played.action_space),
        "environment": (run.env, env),
    }
    trained.close()
    for what, (got, wanted) in facts.items():
        if got != wanted:
            raise TournamentError(
                f"entries: {word} was trained on {run.env}, {what} {got}; wanted {what} {wanted}, that of {env} as it "
                "is played"
            )


def _check_settings(runs: Mapping[str, Settings], env: str, settings: Mapping[str, Any]) -> None:
    """Refuse runs that were trained with settings other than the first one's, unless settings to play were given."""
    wanted = own_settings(env, settings)
    for word, run in runs.items():
        got = own_settings(env, run.env_settings)
        if got != wanted:
            raise TournamentError(
                f"entries: {word} was trained on {env} with {json.dumps(got)}, {next(iter(runs))} with "
                f"{json.dumps(wanted)}; wanted one game, or its settings (--env.NAME)"
            )


def _load(word: str, kind: str, env: str, settings: Mapping[str, Any], device: torch.device | str) -> Agent:
    if kind == _RUN:
        return searched(load_agent(word, str(device))[0], game_of(env, settings), None)
    try:
        return open_guest(word, env, settings, device)
    except MlbitsError as error:
        raise TournamentError(f"entries: {word}: {error}") from None
