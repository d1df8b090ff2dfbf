"""Tournaments: agents play all against all, or Swiss rounds, in balanced seats; every game goes into a match table.

What the table says of the agents (payoffs, ratings, ranks, mixtures) is :mod:`mlbits.evals.tournament.standings`'s to
work out. Who sits where is :mod:`mlbits.evals.tournament.pairings`'s; here the games are played, many in one batch, in
which each agent decides once a step for all seats that are its own.

A schedule is a function of the entries' number, the config and, for Swiss rounds, of the games so far. A batch draws
from a seed of its own. So a tournament that is interrupted at any moment goes on where it was, and ends with the table
that it would have had.

Example:
    >>> import mlbits
    >>> from mlbits.agents import make_bot
    >>> game = mlbits.make_game("mlbits/MatrixGame-v0")
    >>> bots = [make_bot("random", game.observation_space, game.action_space, device="cpu") for _ in range(2)]
    >>> table = play_tournament({"a": bots[0], "b": bots[1]}, "mlbits/MatrixGame-v0", TournamentConfig(games=100))
    >>> table.returns.shape, standings(table).ratings.elo.shape
    ((100, 2), (2,))
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.agents.agent import Agent, content_hash
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.evals.tournament.config import TournamentConfig, TournamentError
from mlbits.evals.tournament.entrants import Entries, open_entries
from mlbits.evals.tournament.match_table import MatchTable, MatchWriter, open_matches, read_matches
from mlbits.evals.tournament.pairings import all_against_all, swiss_round
from mlbits.evals.tournament.standings import Standings, standings, write_standings
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs import checkpoints
from mlbits.version import __version__

MATCHES, FACTS = "matches.jsonl", "tournament.json"

Report = Callable[[int, int], None]
"""Told how many games have been played, and of how many."""


def play_tournament(
    agents: Mapping[str, Agent],
    env: str,
    config: TournamentConfig | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    path: Path | None = None,
    report: Report | None = None,
) -> MatchTable:
    """Play a tournament, or what is left of it.

    Args:
        agents: by name, two or more; what they decide depends on what they see alone.
        env: id of an environment with two seats or more.
        config: how it is held; None takes the defaults.
        settings: of the environment.
        device: where to play.
        path: the file of the match table, which may hold the first games already; None keeps it in memory.
        report: told how many games have been played, and of how many.

    Returns:
        The match table.

    Raises:
        TournamentError: for fewer agents than two (Swiss: than seats), one seat, or a table of another tournament.
        MatchTableError: if the file cannot be read or written, or is of another environment or other agents.
    """
    config = TournamentConfig() if config is None else config
    batch = open_batch(env, 1, settings=settings, start=False)
    seats = batch.num_seats
    batch.close()
    _check_size(len(agents), seats, env, config)
    hashes = {name: content_hash(agent) for name, agent in agents.items()}
    writer, games = _open_table(path, env, settings, seats, hashes)
    all_games = all_against_all(len(agents), seats, config.games, config.seed) if config.format == "all" else None
    total = _swiss_games(len(agents), seats, config) if all_games is None else len(all_games)
    for start, part in _batches(len(agents), seats, config, games, all_games):
        if report is not None:
            report(len(games), total)
        played = play_episodes(
            list(agents.values()), env, len(part), seed=_seed(config.seed, start), settings=settings, device=device,
            greedy=config.greedy, seating=part,
        )  # fmt: skip
        had = len(games) - start
        if writer is not None:
            writer.add_games(part[had:], played.returns[had:])
        games.add(part[had:], played.returns[had:])
    if report is not None:
        report(len(games), total)
    plain = json.loads(json.dumps(dict(settings or {})))
    return MatchTable(env, plain, seats, hashes, games.seating, games.returns)


def hold_tournament(
    words: Sequence[str],
    config: TournamentConfig,
    *,
    env: str = "",
    env_settings: Mapping[str, Any] | None = None,
    out: Path | None = None,
    device: torch.device | str = "cpu",
    report: Report | None = None,
) -> tuple[Path, Standings]:
    """Play a tournament of runs, models and bots into a folder, or go on with one, and work out its standings.

    The folder has ``tournament.json`` (who entered, and the config), ``matches.jsonl`` and what
    :func:`~mlbits.evals.tournament.standings.write_standings` writes.

    Args:
        words: the entries, see :func:`~mlbits.evals.tournament.entrants.open_entries`.
        config: how it is held. To a tournament that is there already more ``games`` can be added, or ``rounds`` to a
            Swiss one.
        env: id of the environment; "" takes that of the runs.
        env_settings: of the environment, over those that the runs trained with.
        out: the folder; None takes ``tournaments/NAME``, the same for the same entries and config.
        device: where to play.
        report: told how many games have been played, and of how many.

    Raises:
        TournamentError: for entries that do not fit, or a folder that holds another tournament or anything else;
            nothing has been written then.
        DeviceError: if the device is not there.
        MlbitsError: as :func:`play_tournament` and :func:`~mlbits.evals.tournament.entrants.open_entries` say.
    """
    set_up(threads=1)  # many small networks: more threads would only wait for each other
    place = parse_device(device)
    place = check_cuda(place) if place.type == "cuda" else place
    entries = open_entries(words, env, env_settings, device=place)
    batch = open_batch(entries.env, 1, settings=entries.env_settings, start=False)
    _check_size(len(entries.agents), batch.num_seats, entries.env, config)
    batch.close()
    facts = _facts(entries, config)
    folder = _default_folder(facts) if out is None else out
    _check_folder(folder, facts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.write_file(folder / FACTS, json.dumps(facts, indent=2).encode() + b"\n")
    except OSError as error:
        raise TournamentError(f"out: {folder} cannot be written ({error}); wanted a folder of your own") from None
    table = play_tournament(
        entries.agents, entries.env, config, settings=entries.env_settings, device=place, path=folder / MATCHES,
        report=report,
    )  # fmt: skip
    found = standings(table)
    write_standings(found, folder)
    return folder, found


def recompute(path: Path, out: Path | None = None) -> tuple[Path, Standings]:
    """Work out the standings anew from a match table alone.

    Args:
        path: the table, or the folder of a tournament.
        out: where the standings are written; None writes them beside the table.

    Raises:
        MatchTableError: if the table cannot be read, has no games, or the standings cannot be written.
    """
    file = path / MATCHES if path.is_dir() else path
    found = standings(read_matches(file))
    folder = file.parent if out is None else out
    write_standings(found, folder)
    return folder, found


class _Games:
    """The games so far: who sat where and what each seat's return was, [G, P] both."""

    def __init__(self, seating: NDArray[np.int64], returns: NDArray[np.float64]) -> None:
        self.seating, self.returns = seating, returns

    def __len__(self) -> int:
        return len(self.seating)

    def add(self, seating: NDArray[np.int64], returns: NDArray[np.float64]) -> None:
        """Add games at the end."""
        self.seating = np.concatenate([self.seating, seating])
        self.returns = np.concatenate([self.returns, returns])


def _batches(
    entries: int, seats: int, config: TournamentConfig, games: _Games, all_games: NDArray[np.int64] | None
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Batches of games of which some are missing: the number of the first, and the entry in each seat.

    What Swiss rounds there will be (``all_games`` is None) depends on the games that are added meanwhile.

    Raises:
        TournamentError: if the games so far are not the first of this schedule.
    """
    start = 0
    for _ in range(1 if all_games is not None else _rounds(entries, config)):
        before = games.seating[:start], games.returns[:start]
        part = all_games if all_games is not None else swiss_round(entries, seats, config.games, *before, config.seed)
        had = games.seating[start : start + len(part)]
        differ = np.flatnonzero((had != part[: len(had)]).any(1))
        if len(differ):
            raise TournamentError(
                f"matches: game {start + differ[0] + 1} is not one of this schedule; wanted the tournament that the "
                "table began with, or another file"
            )
        for low in range(0, len(part), config.num_envs):
            batch = part[low : low + config.num_envs]
            if start + low + len(batch) > len(games):
                yield start + low, batch
        start += len(part)
    if len(games) > start:
        raise TournamentError(f"matches: the table has {len(games)} games; wanted at most {start}, or more to be asked")


def _rounds(entries: int, config: TournamentConfig) -> int:
    """Of a Swiss tournament."""
    return config.rounds or math.ceil(math.log2(entries))


def _swiss_games(entries: int, seats: int, config: TournamentConfig) -> int:
    """Games of a whole Swiss tournament."""
    return _rounds(entries, config) * (entries // seats) * math.ceil(config.games / seats) * seats


def _seed(seed: int, start: int) -> int:
    """Of a batch, by the number of its first game."""
    return int(np.random.SeedSequence([seed, start]).generate_state(1, np.uint64)[0] >> np.uint64(2))


def _check_size(entries: int, seats: int, env: str, config: TournamentConfig) -> None:
    if seats < 2:
        raise TournamentError(f"env: {env} has one seat; wanted an environment with two or more")
    least = seats if config.format == "swiss" else 2
    if entries < least:
        why = f" (Swiss, {env} has {seats} seats)" if least > 2 else ""
        raise TournamentError(f"entries: got {entries}; wanted at least {least}{why}")


def _open_table(
    path: Path | None, env: str, settings: Mapping[str, Any] | None, seats: int, hashes: dict[str, str]
) -> tuple[MatchWriter | None, _Games]:
    """The table to write, and the games that it has."""
    if path is None:
        return None, _Games(np.empty((0, seats), np.int64), np.empty((0, seats)))
    writer = open_matches(path, env, settings, seats=seats)
    table = read_matches(path)
    if list(table.players) != list(hashes)[: len(table.players)]:
        raise TournamentError(
            f"{path}: the players are {', '.join(table.players)}; wanted {', '.join(hashes)}, or another file"
        )
    writer.add_players(hashes)
    return writer, _Games(table.seating, table.returns)


def _facts(entries: Entries, config: TournamentConfig) -> dict[str, Any]:
    """What tells one tournament from another."""
    rounds = _rounds(len(entries.agents), config) if config.format == "swiss" else 0
    return {
        "tournament": "mlbits tournament", "version": 1, "mlbits": __version__, "env": entries.env,
        "env_settings": entries.env_settings,
        "entries": {name: content_hash(agent) for name, agent in entries.agents.items()}, **asdict(config),
        "rounds": rounds,
    }  # fmt: skip


def _default_folder(facts: Mapping[str, Any]) -> Path:
    """A name for the environment and all that may not change when a tournament is gone on with."""
    kept = {key: value for key, value in facts.items() if key not in ("mlbits", *_may_grow(facts))}
    digest = hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:8]
    game = facts["env"].rpartition("/")[2].rpartition(":")[2]
    return Path("tournaments") / f"{game}-{len(facts['entries'])}-entries-{digest}"


def _may_grow(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """A number of which there may be more when a tournament is gone on with."""
    return ("games",) if facts["format"] == "all" else ("rounds",)


def _check_folder(folder: Path, facts: Mapping[str, Any]) -> None:
    """Refuse a folder that holds another tournament, or anything else."""
    if folder.exists() and not folder.is_dir():
        raise TournamentError(f"out: {folder} is a file; wanted a folder")
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return
    try:
        held = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict) or held.get("tournament") != facts["tournament"]:
        raise TournamentError(f"out: {folder} holds no tournament, but is not empty; wanted a new folder")
    for name in facts.keys() - {"mlbits"}:
        got, wanted = held.get(name), facts[name]
        more = name in _may_grow(facts) and isinstance(got, int) and got <= wanted
        if got != wanted and not more:
            if name == "entries" and isinstance(got, dict):
                changed = [entry for entry in wanted if entry in got and got[entry] != wanted[entry]]
                got, wanted = ", ".join(got), f"{changed[0]} as it was" if changed else ", ".join(wanted)
            raise TournamentError(
                f"out: {folder} holds a tournament with {name} {got}; wanted {wanted}, or another folder"
            )
