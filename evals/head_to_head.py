"""An agent in one seat against others in the remaining seats: its mean return and the fraction of games it wins.

The agent's seat rotates from game to game, so that all seats count the same. A game is won by the seat with the highest
return, if only one seat has it; several seats with the highest return tie.

Example:
    mlbits eval runs/mine --opponents diplomacy-greedy
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.agents.agent import Agent
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.selfplay.episodes import Watcher, play_episodes
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.statistics import fraction_interval, mean_interval


def rotating_seats(games: int, seats: int, players: int = 2) -> NDArray[np.int64]:
    """The player in each seat, [games, seats]: player 0 in seat g mod ``seats`` of game g, the others in turn."""
    seating = np.empty((games, seats), np.int64)
    for game in range(games):
        others = (np.arange(seats - 1) + game // seats) % (players - 1) + 1
        seating[game] = np.insert(others, game % seats, 0)
    return seating


def outcomes(returns: NDArray[np.float64], seating: NDArray[np.int64], player: int = 0) -> dict[str, Any]:
    """The results of a player that has one seat per game.

    Args:
        returns: return of each seat, [E, P].
        seating: the number of the player in each seat, [E, P].
        player: the player; it has exactly one seat in each game.

    Returns:
        return_mean and return_interval of its seats (95%, see :mod:`mlbits.selfplay.statistics`; -inf and inf where
        all returns are equal), games, won and won_interval (fraction of games in which it alone has the highest return;
        95%, Wilson), tied (it has the highest return, but not alone) and lost.

    Raises:
        ValueError: if the player has another number of seats in some game.
    """
    own = seating == player
    if (own.sum(1) != 1).any():
        raise ValueError(f"seating: player {player} has {sorted(set(own.sum(1).tolist()))} seats a game; wanted 1")
    mine = returns[own]
    best_other = np.where(own, -np.inf, returns).max(1)
    mean, interval = mean_interval(mine, bounds=(float(returns.min()), float(returns.max())))
    games, wins = len(mine), int((mine > best_other).sum())
    won, won_interval = fraction_interval(wins, games)
    tied = float((mine == best_other).mean())
    return {
        "return_mean": mean, "return_interval": list(interval), "games": games, "won": won,
        "won_interval": list(won_interval), "tied": tied, "lost": float((mine < best_other).mean()),
    }  # fmt: skip


def play_against(
    agent: Agent,
    opponents: Agent | Sequence[Agent],
    env: str,
    games: int,
    *,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    greedy: bool = True,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Play games with an agent in one seat, each seat in turn, and opponents in all others.

    Args:
        agent: the agent to measure.
        opponents: one for all other seats, or several that take turns.
        env: id of an environment with two seats or more.
        games: number of games.
        seed: seed of the games.
        settings: settings of the environment.
        device: where to play.
        greedy: whether to take the most probable actions instead of draws.
        watcher: called with every step of the first game.

    Returns:
        The results of :func:`outcomes`, and length_mean.

    Raises:
        ConfigError: if the environment has one seat, or there are no games.
    """
    if games < 1:
        raise ConfigError(f"episodes: got {games}; wanted at least 1")
    batch = open_batch(env, 1, settings=settings, start=False)
    seats = batch.num_seats
    batch.close()
    if seats < 2:
        raise ConfigError(f"opponents: {env} has one seat; wanted an environment with two or more")
    others = tuple(opponents) if isinstance(opponents, Sequence) else (opponents,)
    seating = rotating_seats(games, seats, 1 + len(others))
    played = play_episodes(
        (agent, *others), env, games, seed=seed, settings=settings, device=device, greedy=greedy, seating=seating,
        watcher=watcher,
    )  # fmt: skip
    return outcomes(played.returns, seating) | {"length_mean": float(played.lengths.mean())}
