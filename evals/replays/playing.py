"""Playing one game for a replay: a run's agent, or a bot, in every seat, or several players."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlbits.agents.agent import Agent
from mlbits.agents.search.player import searched_where_possible
from mlbits.envs.doors.gymnasium_batch import check_env_id, open_batch
from mlbits.evals.replays.config import ReplayFlags
from mlbits.evals.replays.recording import Watcher
from mlbits.evals.replays.replay import Replay, ReplayError
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.runs.folder import CONFIG
from mlbits.selfplay.runs.saved_agents import game_of, load_agent, open_guest


def record_replay(
    players: Mapping[str, Agent],
    env: str,
    settings: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    greedy: bool = True,
    max_steps: int = 2000,
    seating: Sequence[int] | None = None,
) -> Replay:
    """Play one game and record it.

    Args:
        players: by name.
        env: id of the environment.
        settings: its settings.
        seed: of the game and of the players' draws.
        greedy: whether they take their most probable actions.
        max_steps: steps after which an environment without a time limit is left.
        seating: the number of the player in each seat [P]; None deals the seats out in turn.

    Raises:
        MlbitsError: for players that do not fit.
    """
    watcher = Watcher(list(players), env, settings, seed)
    if seating is None:
        batch = open_batch(env, 1, settings=settings, start=False)
        seating = [seat % len(players) for seat in range(batch.num_seats)]
        batch.close()
    play_episodes(
        list(players.values()), env, 1, seed=seed, settings=settings, greedy=greedy, max_steps=max_steps,
        seating=np.array([seating], np.int64), watcher=watcher,
    )  # fmt: skip
    return watcher.replay


def replay_of(flags: ReplayFlags, settings: Mapping[str, Any]) -> Replay:
    """The game that ``mlbits replay RUN|ENV`` asks for.

    Args:
        flags: the command's flags.
        settings: settings of the environment, which override those of a run.

    Raises:
        ReplayError: without a source, or for too many players.
        MlbitsError: for a run or an environment that cannot be played.
    """
    if not flags.source:
        raise ReplayError("replay: RUN or ENV missing; wanted mlbits replay RUN, or mlbits replay --check game.html")
    if (Path(flags.source) / CONFIG).exists():
        agent, trained, _ = load_agent(flags.source, checkpoint=flags.checkpoint)
        env, played = trained.env, {**trained.env_settings, **settings}
        words, opened = [Path(flags.source).resolve().name], [agent]
    else:
        env, played = check_env_id(flags.source), dict(settings)
        words, opened = ["random"], [open_guest("random", env, played)]
    words += [Path(word).name if (Path(word) / CONFIG).exists() else word for word in flags.against]
    opened += [open_guest(word, env, played) for word in flags.against]
    batch = open_batch(env, 1, settings=played, start=False)
    seats = batch.num_seats
    batch.close()
    if len(opened) > seats:
        raise ReplayError(f"against: got {len(flags.against)} players; wanted at most {seats - 1}, for the other seats")
    game = game_of(env, played)
    if game is not None:
        opened = searched_where_possible(opened, game, flags.search.changes())
    players: dict[str, Agent] = {}
    for word, player in zip(words, opened, strict=True):
        players[word if word not in players else f"{word} ({len(players) + 1})"] = player
    seating = None
    if flags.against and seats > len(opened):
        seating = [0, *(1 + k % len(flags.against) for k in range(seats - 1))]
    return record_replay(
        players, env, played, seed=flags.seed, greedy=not flags.sample, max_steps=flags.max_steps, seating=seating
    )
