"""Who plays with a person: the game or run that a command names, its opponents, and who gives hints."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from mlbits.agents.agent import Agent
from mlbits.agents.search.player import searched_where_possible
from mlbits.agents.search.search import SearchConfig, TreeSearch
from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.envs.doors.gymnasium_batch import check_env_id, open_batch
from mlbits.envs.registry import registered
from mlbits.evals.play.config import PlayError, PlayFlags
from mlbits.evals.play.hints import adviser
from mlbits.selfplay.runs.folder import CONFIG, read_settings
from mlbits.selfplay.runs.saved_agents import game_of, open_guest


@dataclass
class Guests:
    """Who plays.

    Attributes:
        players: the opponents by name; none where people have all seats.
        adviser: who gives hints, or None.
        seed: of the game.
    """

    players: dict[str, Agent]
    adviser: Any
    seed: int


def chosen_game(word: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The environment that a word names, or that a run was trained in, and its settings.

    Args:
        word: an environment, or the folder of a run.
        settings: settings that override those of a run.

    Raises:
        PlayError: for a path that is not a run's folder.
        UnknownIdError: for an unknown environment; the message names the nearest.
    """
    if (Path(word) / CONFIG).exists():
        trained = read_settings(word)
        return trained.env, {**trained.env_settings, **settings}
    try:
        return check_env_id(word), dict(settings)
    except UnknownIdError:
        spaces = {name.partition("/")[0] for name in [*registered(), *gym.registry] if "/" in name}
        if Path(word).exists() or ("/" in word and word.partition("/")[0] not in spaces):
            raise PlayError(f"game: {word} is no run's folder and no environment; wanted one of them") from None
        raise


def invite(flags: PlayFlags, env: str, settings: Mapping[str, Any], *, people: int) -> Guests:
    """Open the players of the seats that people do not have, and who gives hints.

    Args:
        flags: the command's flags.
        env: id of the environment.
        settings: its settings.
        people: how many seats people have.

    Raises:
        PlayError: for too many players.
        MlbitsError: for players that do not fit.
    """
    run, game, seats = (Path(flags.game) / CONFIG).exists(), game_of(env, settings), _seats(env, settings)
    if seats == 1 and flags.against:
        raise PlayError(f"against: {env} has one seat, yours; wanted no opponents")
    words = list(flags.against) or ([flags.game] if run else [_default_bot(game)])
    if len(words) > max(seats - people, 1):
        raise PlayError(f"against: got {len(words)} players; wanted at most {seats - people}, one for each other seat")
    opened = [open_guest(word, env, settings) for word in words]
    if game is not None:
        opened = searched_where_possible(opened, game, flags.search.changes())
    players: dict[str, Agent] = {}
    for word, agent in zip(words, opened, strict=True):
        name = Path(word).name if (Path(word) / CONFIG).exists() else word
        players[name if name not in players else f"{name} ({len(players) + 1})"] = agent
    guide = open_guest(flags.game, env, settings, search=flags.search.changes() or None) if run else opened[0]
    seed = random.SystemRandom().randrange(2**31) if flags.seed is None else flags.seed
    return Guests(players if seats > people else {}, adviser(guide, game), seed)


def _seats(env: str, settings: Mapping[str, Any]) -> int:
    batch = open_batch(env, 1, settings=settings, start=False)
    batch.close()
    return batch.num_seats


def _default_bot(game: Any) -> str:
    try:
        if game is None:
            return "random"
        TreeSearch(game, SearchConfig())
    except MlbitsError:
        return "random"
    return "mcts"
