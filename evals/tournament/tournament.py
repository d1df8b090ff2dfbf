"""Tournaments: agents play round robin or Swiss rounds, in balanced seats; every game is stored in a match table.

:mod:`mlbits.evals.tournament.standings` computes payoffs, ratings, ranks and mixtures from the table;
:mod:`mlbits.evals.tournament.pairings` decides who sits where. This module plays the games, many in one batch, with one
forward pass per agent and step for all of its seats.

A schedule is a function of the number of entries, the config and, for Swiss rounds, the games so far; each batch has a
seed of its own. So an interrupted tournament continues where it was, and ends with the same table as one that was
never interrupted.

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

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.agents.agent import Agent, content_hash
from mlbits.envs.core.plain_json import read_json_file
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.evals.jobs.executors import Executor, check_jobs, open_executor
from mlbits.evals.jobs.in_process import InProcess
from mlbits.evals.jobs.job import Job
from mlbits.evals.jobs.queue import JobQueue, in_order
from mlbits.evals.jobs.store import Store
from mlbits.evals.replays.page import check_page_file, write_page
from mlbits.evals.replays.playing import record_replay
from mlbits.evals.tournament.batches import PLAY_BATCH, described, play_games
from mlbits.evals.tournament.config import TournamentConfig, TournamentError
from mlbits.evals.tournament.entrants import Entries, open_entries
from mlbits.evals.tournament.match_table import MatchTable, MatchWriter, open_matches, read_matches
from mlbits.evals.tournament.pairings import all_against_all, swiss_round
from mlbits.evals.tournament.standings import Standings, standings, write_standings
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.one_writer import one_writer
from mlbits.version import __version__

MATCHES, FACTS = "matches.jsonl", "tournament.json"

Report = Callable[[int, int], None]
"""Called with the number of games played and the total number of games."""


def play_tournament(
    agents: Mapping[str, Agent],
    env: str,
    config: TournamentConfig | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    path: Path | None = None,
    report: Report | None = None,
    executor: Executor | None = None,
    elsewhere: Mapping[str, Any] | None = None,
) -> MatchTable:
    """Play a tournament, or the rest of one.

    Args:
        agents: agents by name, two or more; their decisions may depend on observations only.
        env: id of an environment with two seats or more.
        config: schedule and seed; None takes the defaults.
        settings: settings of the environment.
        device: where to play.
        path: the match table's file, which may hold the first games already; None keeps the table in memory.
        report: called with the number of games played and the total number of games.
        executor: where batches of games are played; None plays them in this process.
        elsewhere: how other processes load the agents: the arguments of
            :func:`~mlbits.evals.tournament.batches.play_batch` from :func:`~mlbits.evals.tournament.batches.described`.

    Returns:
        The match table; it does not depend on the executor.

    Raises:
        TournamentError: for fewer than two agents (Swiss: fewer than seats), one seat, or another tournament's table.
        MatchTableError: if the file cannot be read or written, or is of another environment or other agents.
        InUseError: if another process is writing the table.
    """
    config = TournamentConfig() if config is None else config
    batch = open_batch(env, 1, settings=settings, start=False)
    seats = batch.num_seats
    batch.close()
    _check_size(len(agents), seats, env, config)
    with contextlib.ExitStack() as lock:
        if path is not None:
            checkpoints.make_folder(path.parent)
            lock.enter_context(one_writer(path.parent, f".{path.name}.lock"))
        if executor is None:
            executor = lock.enter_context(open_executor())
        store = None if path is None else Store(path.with_name(f".{path.name}.jobs"))
        # In this process results come in order, and go into the table at once.
        queue = JobQueue(executor, None if isinstance(executor, InProcess) else store, say=print)
        here = partial(
            play_games, list(agents.values()), env, settings=settings, device=device, greedy=config.greedy
        )  # fmt: skip
        common = {**(elsewhere or {}), "settings": dict(settings or {}), "greedy": config.greedy}
        table = _play(agents, env, config, settings, path, report, seats, queue, here, common)
        if store is not None:
            store.clear()
        return table


def _play(
    agents: Mapping[str, Agent], env: str, config: TournamentConfig, settings: Mapping[str, Any] | None,
    path: Path | None, report: Report | None, seats: int, queue: JobQueue, here: Callable[..., list[list[float]]],
    common: dict[str, Any],
) -> MatchTable:  # fmt: skip
    """Play the games that the table lacks; the whole table."""
    hashes = {name: content_hash(agent) for name, agent in agents.items()}
    common = {**common, "hashes": hashes}
    writer, games = _open_table(path, env, settings, seats, hashes)
    all_games = all_against_all(len(agents), seats, config.games, config.seed) if config.format == "all" else None
    total = _swiss_games(len(agents), seats, config) if all_games is None else len(all_games)
    for batches in _batches(len(agents), seats, config, games, all_games):
        jobs = []
        for start, part in batches:
            more = {"seating": part.tolist(), "seed": _seed(config.seed, start)}
            name = f"games {start + 1:,} to {start + len(part):,}"
            jobs.append(Job(name, PLAY_BATCH, common | more, here=partial(here, **more)))
        if report is not None:
            report(len(games), total)
        for ended, (start, part) in zip(in_order(jobs, queue), batches, strict=True):
            had = len(games) - start
            returns = np.array(ended.result(), float).reshape(-1, seats)
            if writer is not None:
                writer.add_games(part[had:], returns[had:])
            games.add(part[had:], returns[had:])
            if queue.store is not None:
                queue.store.forget(ended.job)
            if report is not None and len(games) < total:
                report(len(games), total)
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
    search: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    cluster: str = "",
    replay: Path | None = None,
) -> tuple[Path, Standings]:
    """Play a tournament of runs, models and bots in a folder, or continue one, and compute its standings.

    The folder has ``tournament.json`` (the entrants and the config), ``matches.jsonl`` and what
    :func:`~mlbits.evals.tournament.standings.write_standings` writes.

    Args:
        words: the entries, see :func:`~mlbits.evals.tournament.entrants.open_entries`.
        config: schedule and seed. An existing tournament can be extended by more ``games``, or a Swiss one by more
            ``rounds``.
        env: id of the environment; "" takes that of the runs.
        env_settings: settings of the environment, which override those that the runs were trained with.
        out: the folder; None takes ``tournaments/NAME``, the same for the same entries and config.
        device: where to play.
        report: called with the number of games played and the total number of games.
        search: how trained agents that can search are to look ahead, as in {"simulations": 100}.
        jobs: batches of games played at once, each in a process of its own; None is 1, or as many as a cluster has
            CPUs.
        cluster: address of a Ray cluster to play on; "" plays here.
        replay: a file for a page that shows one more game, of the best entries; None for none.

    Raises:
        TournamentError: for entries that do not fit, or a folder that holds another tournament or anything else;
            nothing has been written then.
        InUseError: if another process is writing the folder.
        DeviceError: if the device is not available.
        MlbitsError: as :func:`play_tournament` and :func:`~mlbits.evals.tournament.entrants.open_entries` raise.
    """
    check_jobs(jobs)
    check_page_file(replay)
    set_up(threads=1)  # many small networks: more threads would only wait for each other
    place = parse_device(device)
    place = check_cuda(place) if place.type == "cuda" else place
    entries = open_entries(words, env, env_settings, device=place, search=search)
    batch = open_batch(entries.env, 1, settings=entries.env_settings, start=False)
    _check_size(len(entries.agents), batch.num_seats, entries.env, config)
    batch.close()
    facts = _facts(entries, config)
    folder = _default_folder(facts) if out is None else out
    _check_folder(folder, facts)
    with open_executor(jobs, cluster) as executor, _written_by_us_alone(folder, facts):
        table = play_tournament(
            entries.agents, entries.env, config, settings=entries.env_settings, device=place, path=folder / MATCHES,
            report=report, executor=executor,
            elsewhere=described(words, entries, device=str(device), search=search),
        )  # fmt: skip
        found = standings(table)
        write_standings(found, folder)
    if replay is not None:
        best = [found.table.names[k] for k in found.order[: found.table.seats]]
        players = {name: entries.agents[name] for name in best}
        game = record_replay(players, entries.env, entries.env_settings, seed=config.seed, greedy=config.greedy)
        write_page(game, replay)
    return folder, found


def recompute(path: Path, out: Path | None = None) -> tuple[Path, Standings]:
    """Compute the standings again from a match table alone.

    Args:
        path: the table, or the folder of a tournament.
        out: folder for the standings; None writes them beside the table.

    Raises:
        MatchTableError: if the table cannot be read, has no games, or the standings cannot be written.
    """
    file = path / MATCHES if path.is_dir() else path
    found = standings(read_matches(file))
    folder = file.parent if out is None else out
    write_standings(found, folder)
    return folder, found


class _Games:
    """The games so far: the player and the return of each seat, [G, P] both."""

    def __init__(self, seating: NDArray[np.int64], returns: NDArray[np.float64]) -> None:
        self.seating, self.returns = seating, returns

    def __len__(self) -> int:
        return len(self.seating)

    def add(self, seating: NDArray[np.int64], returns: NDArray[np.float64]) -> None:
        """Append games."""
        self.seating = np.concatenate([self.seating, seating])
        self.returns = np.concatenate([self.returns, returns])


def _batches(
    entries: int, seats: int, config: TournamentConfig, games: _Games, all_games: NDArray[np.int64] | None
) -> Iterator[list[tuple[int, NDArray[np.int64]]]]:
    """Batches with games still to be played, round by round: the number of the first game, and the entry in each seat.

    Swiss rounds (``all_games`` is None) depend on the games of earlier ones, which are added meanwhile.

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
                "table was started with, or another file"
            )
        lows = range(0, len(part), config.num_envs)
        batches = [(start + low, part[low : low + config.num_envs]) for low in lows]
        yield [(first, batch) for first, batch in batches if first + len(batch) > len(games)]
        start += len(part)
    if len(games) > start:
        raise TournamentError(f"matches: the table has {len(games)} games; wanted at most {start} or a longer schedule")


def _rounds(entries: int, config: TournamentConfig) -> int:
    """Of a Swiss tournament."""
    return config.rounds or math.ceil(math.log2(entries))


def _swiss_games(entries: int, seats: int, config: TournamentConfig) -> int:
    """Number of games of a whole Swiss tournament."""
    return _rounds(entries, config) * (entries // seats) * math.ceil(config.games / seats) * seats


def _seed(seed: int, start: int) -> int:
    """The seed of a batch, from the number of its first game."""
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
    """The table's writer, and the games it already has."""
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
    """Facts that distinguish one tournament from another."""
    rounds = _rounds(len(entries.agents), config) if config.format == "swiss" else 0
    return {
        "tournament": "mlbits tournament", "version": 1, "mlbits": __version__, "env": entries.env,
        "env_settings": entries.env_settings,
        "entries": {name: content_hash(agent) for name, agent in entries.agents.items()}, **asdict(config),
        "rounds": rounds,
    }  # fmt: skip


def _default_folder(facts: Mapping[str, Any]) -> Path:
    """A folder name from the environment and everything that has to stay the same when a tournament is continued."""
    kept = {key: value for key, value in facts.items() if key not in ("mlbits", *_may_grow(facts))}
    digest = hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:8]
    game = facts["env"].rpartition("/")[2].rpartition(":")[2]
    return Path("tournaments") / f"{game}-{len(facts['entries'])}-entries-{digest}"


@contextlib.contextmanager
def _written_by_us_alone(folder: Path, facts: Mapping[str, Any]) -> Iterator[None]:
    """Make or continue a tournament's folder, which no other process writes inside this context.

    Raises:
        TournamentError: if the folder holds another tournament or anything else, or cannot be written.
        InUseError: if another process is writing it.
    """
    _check_folder(folder, facts)
    with contextlib.ExitStack() as lock:
        try:
            checkpoints.make_folder(folder)
            lock.enter_context(one_writer(folder))
            _check_folder(folder, facts)  # another process may have begun a tournament here meanwhile
            checkpoints.write_file(folder / FACTS, json.dumps(facts, indent=2).encode() + b"\n")
        except OSError as error:
            raise TournamentError(f"out: {folder} cannot be written ({error}); wanted a writable folder") from None
        yield


def _may_grow(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The number that may grow when a tournament is continued."""
    return ("games",) if facts["format"] == "all" else ("rounds",)


def _check_folder(folder: Path, facts: Mapping[str, Any]) -> None:
    """Refuse a folder that holds another tournament, or anything else."""
    if folder.exists() and not folder.is_dir():
        raise TournamentError(f"out: {folder} is a file; wanted a folder")
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return
    try:
        held = read_json_file(folder / FACTS)
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict) or held.get("tournament") != facts["tournament"]:
        raise TournamentError(f"out: {folder} is not empty and holds no tournament; wanted a new folder")
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
