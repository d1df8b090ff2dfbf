"""One batch of a tournament's games: a job that any process can do, given where the entrants are.

A batch has a seed of its own and its seating, so it has the same returns wherever it is played (on processors of one
kind: other ones may round differently).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlbits.agents.agent import Agent, content_hash
from mlbits.envs.core.trust import trusted, trusting_files
from mlbits.envs.doors.gymnasium_ids import check_env_id, env_module
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.origins import folder_of
from mlbits.evals.tournament.config import TournamentError
from mlbits.evals.tournament.entrants import Entries, open_entries
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.machine import set_up

PLAY_BATCH = "mlbits.evals.tournament.batches:play_batch"


def play_games(
    agents: Sequence[Agent], env: str, *, seating: Sequence[Sequence[int]], seed: int,
    settings: Mapping[str, Any] | None = None, device: torch.device | str = "cpu", greedy: bool = False,
) -> list[list[float]]:  # fmt: skip
    """Play a batch of games.

    Args:
        agents: the entrants.
        env: id of the environment.
        seating: the number of the entrant in each seat, [G, P].
        seed: of the batch.
        settings: settings of the environment.
        device: where to play.
        greedy: whether to take the most probable actions.

    Returns:
        The return of each seat, [G, P].
    """
    played = play_episodes(
        list(agents), env, len(seating), seed=seed, settings=settings, device=device, greedy=greedy,
        seating=np.asarray(seating, np.int64),
    )  # fmt: skip
    returns: list[list[float]] = played.returns.tolist()
    return returns


def described(
    words: Sequence[str], entries: Entries, *, device: str, search: Mapping[str, Any] | None
) -> dict[str, Any]:
    """How another process loads the entrants, as arguments of :func:`play_batch`.

    Args:
        words: the entries as they were given to :func:`~mlbits.evals.tournament.entrants.open_entries`.
        entries: what it made of them.
        device: where to play.
        search: how trained agents look ahead.
    """
    module = env_module(entries.env)
    folder = folder_of(module) if module else None
    return {
        "words": [str(Path(word).resolve()) if Path(word).exists() else word for word in words],
        "env": f"{module}:{entries.env}" if module else entries.env,
        "folders": [] if folder is None else [str(folder)],
        "device": device,
        "search": None if search is None else dict(search),
        "trust": trusted(),
    }


def play_batch(
    *, hashes: Mapping[str, str], settings: Mapping[str, Any], greedy: bool, seating: Sequence[Sequence[int]],
    seed: int, device: str, **where: Any,
) -> list[list[float]]:  # fmt: skip
    """Play a batch of games in any process.

    Args:
        hashes: the content hash of each entrant by name; others are refused.
        settings: settings of the environment.
        greedy: whether to take the most probable actions.
        seating: the number of the entrant in each seat, [G, P].
        seed: of the batch.
        device: where to play.
        **where: the rest of :func:`described`.

    Returns:
        The return of each seat, [G, P].

    Raises:
        TournamentError: if an entrant is another one here.
        MlbitsError: as :func:`~mlbits.evals.tournament.entrants.open_entries` raises.
    """
    set_up(threads=1)
    env, agents = _opened(json.dumps({**where, "settings": settings, "device": device}))
    for agent, (name, wanted) in zip(agents, hashes.items(), strict=True):
        if content_hash(agent) != wanted:
            raise TournamentError(f"entries: {name} is another agent here; wanted the same files on all nodes")
    return play_games(agents, env, seating=seating, seed=seed, settings=settings, device=device, greedy=greedy)


@functools.lru_cache(2)  # a process plays many batches of one tournament
def _opened(text: str) -> tuple[str, list[Agent]]:
    said = json.loads(text)
    env = check_env_id(said["env"], said["folders"])
    with trusting_files(said["trust"]):
        entries = open_entries(
            said["words"], env, said["settings"], device=parse_device(said["device"]), search=said["search"]
        )  # fmt: skip
    return entries.env, list(entries.agents.values())
