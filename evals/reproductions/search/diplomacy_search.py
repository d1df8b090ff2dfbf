"""``mlbits reproduce diplomacy-search``: agents that learn from their own search, compared at equal CPU time.

FPPI-2, IBR, equilibrium search and PPO (self-play) each learn a board for the same CPU time; those that search begin
by imitating the greedy bot, as the papers begin with games of humans (``--teacher ""``: with random play). Then

- each meets random play, the greedy bot and PPO, one seat against all others, by its search and by its policy alone;
- policies meet those of five rounds before, or of more in long runs, whose rounds are a few seconds each: 15 times;
- search at play time meets the policy that it searches with;
- all of them and the bots meet in a mixed population, seats drawn from all, as a table with intervals.

All rewards of a game add up to 1, so one seat of P is worth 1/P on average. "Won" is the fraction of games in which the
agent alone has the most. On the board of seven powers one round is measured, with an estimate for one GPU, and FPPI-2,
trained for the same time, meets six greedy bots: wanted is more than a seventh of the centres.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlbits.agents.agent import Agent
from mlbits.agents.best_response.equilibrium import EquilibriumPlayer, EquilibriumSearchConfig
from mlbits.agents.best_response.learner import Frozen, SearchLearner
from mlbits.agents.best_response.players import WithoutNoise
from mlbits.agents.players import Player
from mlbits.agents.registry import make_bot
from mlbits.envs.registry import make_game
from mlbits.evals.head_to_head import play_against
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.evals.reproductions.search.seven_seats import ENV, against_greedy, measure_round
from mlbits.evals.tournament.config import TournamentConfig
from mlbits.evals.tournament.pairings import all_against_all
from mlbits.evals.tournament.standings import standings
from mlbits.evals.tournament.tournament import play_tournament
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs.checkpoints import write_file
from mlbits.selfplay.runs.config import Settings, resolve
from mlbits.selfplay.runs.saved_agents import SUFFIX, copy_bytes
from mlbits.selfplay.session import Session, open_session

BOARDS = ("mlbits/DiplomacyMini-v0", "mlbits/DiplomacyFvA-v0")
NAMES = ("fppi2", "ibr", "equilibrium", "ppo")
TARGETS = {"random": 0.99, "diplomacy-greedy": 0.85, "ppo": 0.6}
SEARCH_TARGET = 0.6  # search at play time against its own policy
_EVERY, _TIMES = 5, 15  # policies are kept every fifth round, but at most this many of a run
_TEACHER, _TAUGHT_ROUNDS = "diplomacy-greedy", 12
_BEST_RESPONSE = {"profiles": 2, "num_candidates": 16}
_EQUILIBRIUM = {"iterations": 6, "samples": 24, "candidates": 6, "joint": 2, "valued": 4, "imitated": 1}
_LEARNER = {"round_steps": 32, "uses": 6.0, "buffer_size": 24_000}
# Positions of the board for two have masks of 25 KB each.
_FEW = {"num_steps": 16, "round_steps": 32, "uses": 6.0, "buffer_size": 8000}
_AGENTS: dict[str, dict[str, dict[str, Any]]] = {
    BOARDS[0]: {
        "fppi2": _LEARNER | _BEST_RESPONSE,
        "ibr": _LEARNER | _BEST_RESPONSE,
        "equilibrium": _LEARNER | _EQUILIBRIUM,
        "ppo": {},
    },
    BOARDS[1]: {
        "fppi2": _FEW | _BEST_RESPONSE,
        "ibr": _FEW | _BEST_RESPONSE,
        "equilibrium": _FEW | {"iterations": 64, "samples": 16, "candidates": 6, "imitated": 1},
        "ppo": {},
    },
}
_COPIES = {BOARDS[0]: 64, BOARDS[1]: 32}
_PLAY = EquilibriumSearchConfig(iterations=32, samples=32, candidates=8)
_QUICK_PLAY = EquilibriumSearchConfig(iterations=2, samples=4, candidates=2)


class Trained(NamedTuple):
    """An agent after training.

    Attributes:
        agent: the agent, which plays by its search if it has one.
        history: policies by round: the initial one, and every fifth or fewer.
        settings: of its run.
        env_steps: environment steps played.
        games: games played.
        cpu_seconds: of training.
    """

    agent: Agent
    history: list[tuple[int, Agent]]
    settings: Settings
    env_steps: int
    games: int
    cpu_seconds: float


def reproduce(
    quick: bool = False, *, minutes: float = 60.0, board: str = "", games: int = 300, seed: int = 0,
    out: Path | None = None, teacher: str = _TEACHER,
) -> dict[str, Any]:  # fmt: skip
    """Train all agents on each board for the same CPU time, then let them play.

    Args:
        quick: seconds of training on the small board and a few games, without targets.
        minutes: CPU minutes of training for each agent on each board.
        board: id of one board; "" trains on DiplomacyMini and DiplomacyFvA.
        games: games of each comparison; a third of it where an agent searches.
        seed: of all runs and games.
        out: folder in which the trained agents are saved, as frozen copies for tournaments.
        teacher: bot that agents with a search imitate first; "" for none.

    Returns:
        "boards": by id "training", "opponents", "rounds", "search" and "population" (rows); "seven_seats";
        "seven_powers" (a trained agent against six greedy bots on the standard board); and "met".
    """
    set_up(threads=1)  # many small networks
    boards = (BOARDS[0],) if quick else ((board,) if board else BOARDS)
    seconds, games = (2.0, 6) if quick else (60 * minutes, games)
    found: dict[str, Any] = {"boards": {}}
    found["seven_seats"] = measure_round(0.0, seed, samples=4) if quick else measure_round(60.0, seed)
    met = True
    for env in boards:
        trained = {name: train(name, env, seconds, seed, quick, teacher) for name in NAMES}
        for name, one in trained.items():
            if out is not None:
                _save(out / f"{env.split('/')[-1]}-{name}{SUFFIX}", one)
        rows = {
            "training": [{"agent": name, "env_steps": one.env_steps, "games": one.games,
                          "cpu_seconds": one.cpu_seconds} for name, one in trained.items()],
            "opponents": against_opponents(trained, env, games, seed),
            "rounds": rounds_against_earlier(trained, env, games, seed),
            "search": search_against_policy(trained, env, games, seed, _QUICK_PLAY if quick else _PLAY),
            "population": population(trained, env, games if quick else 1000, seed),
        }  # fmt: skip
        show(env, rows)
        found["boards"][env] = rows
        met &= quick or _met(rows, make_game(env).seats)
    found["seven_powers"] = seven_powers(seconds, games, seed, quick, teacher)
    met &= quick or found["seven_powers"]["met"]
    return found | {"met": bool(met)}


def seven_powers(seconds: float, games: int, seed: int, quick: bool = False, teacher: str = "") -> dict[str, Any]:
    """FPPI-2 trained on the standard board, by its search, against six greedy bots; see :func:`against_greedy`."""
    agent: Any = train("fppi2", ENV, seconds, seed, quick, teacher).agent
    player = Player(agent) if quick else WithoutNoise(agent)
    return against_greedy(player, 7 if quick else max(7, games // 3), seed, 1901 if quick else None)


def train(name: str, env: str, seconds: float, seed: int, quick: bool = False, teacher: str = "") -> Trained:
    """Train an agent in this process for some CPU seconds, by self-play.

    Args:
        name: of the agent.
        env: id of a board.
        seconds: CPU seconds, without compiling.
        seed: of the run.
        quick: rounds of a few steps.
        teacher: bot that is imitated first, for agents with a search.
    """
    session = _open(name, env, seed, quick, teacher)
    session.start()
    agent: Any = session.learner
    searches = isinstance(agent, SearchLearner)
    history: list[tuple[int, Agent]] = [(0, agent.latest)] if isinstance(agent, SearchLearner) else []
    games, began = 0, time.process_time()
    while (spent := time.process_time() - began) < seconds or session.counters.env_steps == 0:
        _tell_progress(session, spent / seconds)
        rollout, episodes, steps = session.collect()
        session.learn(rollout)
        session.counters.env_steps += steps
        games += len(episodes.lengths)
        due = quick or time.process_time() - began >= len(history) * seconds / _TIMES
        if searches and due and agent.rounds >= history[-1][0] + (1 if quick else _EVERY):
            history.append((agent.rounds, Frozen(agent.core)))
    spent = time.process_time() - began
    return Trained(agent, history, session.settings, session.counters.env_steps, games, spent)


def _open(name: str, env: str, seed: int, quick: bool, teacher: str) -> Session:
    known = env if env in _AGENTS else BOARDS[1]
    settings: dict[str, Any] = dict(_AGENTS[known][name])
    run = {"device": "cpu", "seed": seed, "total_steps": 10**12, "num_envs": 8 if quick else _COPIES[known]}
    if name == "ppo":
        run |= {"num_envs": 8 if quick else 128, "opponents": (), "pool": "none"}
        return open_session(resolve(name, env, preset=BOARDS[0], run=run, agent_settings=settings), start=False)
    if teacher:
        settings |= {"teacher": teacher, "warm_rounds": 1 if quick else _TAUGHT_ROUNDS}
    if quick:
        few = {"profiles": 2, "num_candidates": 2} if name != "equilibrium" else {"iterations": 2, "samples": 4}
        settings |= few | {"num_steps": 8, "round_steps": 8, "buffer_size": 1000, "hidden": (16,), "batch_size": 32}
    return open_session(resolve(name, env, preset="none", run=run, agent_settings=settings), start=False)


def _tell_progress(session: Session, fraction: float) -> None:
    """Set the run's number of steps such that its present ones are this fraction of it, for what is annealed."""
    steps = int(session.counters.env_steps / max(fraction, 1e-6))
    run = dataclasses.replace(session.settings.run, total_steps=max(1, steps, session.counters.env_steps))
    session.settings = dataclasses.replace(session.settings, run=run)


def against_opponents(trained: Mapping[str, Trained], env: str, games: int, seed: int) -> list[dict[str, Any]]:
    """Each agent in one seat against random play, the greedy bot and PPO in all others, by search and by policy."""
    rows = []
    for name, one in trained.items():
        for opponent in TARGETS:
            if opponent == name:
                continue
            other = trained[opponent].agent if opponent in trained else _bot(opponent, one)
            ways: dict[str, tuple[Agent, int]] = {"policy": (Player(one.agent), games)}
            if hasattr(one.agent, "plan"):
                ways["search"] = (WithoutNoise(one.agent), max(1, games // 3))
            for way, (player, count) in ways.items():
                played = play_against(player, other, env, count, seed=seed, greedy=False)
                rows.append({"agent": name, "plays by": way, "against": opponent, **_figures(played)})
    return rows


def rounds_against_earlier(trained: Mapping[str, Trained], env: str, games: int, seed: int) -> list[dict[str, Any]]:
    """Every policy of the history against the one before it."""
    rows = []
    for name, one in trained.items():
        for (before, old), (number, new) in zip(one.history[:-1], one.history[1:], strict=True):
            played = play_against(new, old, env, games, seed=seed, greedy=False)
            rows.append({"agent": name, "round": number, "against round": before, **_figures(played)})
    return rows


def search_against_policy(
    trained: Mapping[str, Trained], env: str, games: int, seed: int, config: EquilibriumSearchConfig
) -> list[dict[str, Any]]:
    """Equilibrium search at play time over each agent's policy and value, against that policy."""
    rows = []
    for name, one in trained.items():
        agent, session = Player(one.agent), one.settings
        player = EquilibriumPlayer(one.agent, _game(session), config)
        played = play_against(player, agent, env, max(1, games // 3), seed=seed, greedy=False)
        rows.append({"agent": name, **_figures(played)})
    return rows


def population(trained: Mapping[str, Trained], env: str, games: int, seed: int) -> list[dict[str, Any]]:
    """All agents by search, their policies, and the bots, in a mixed population of this many games or a few more."""
    entries: dict[str, Agent] = {}
    for name, one in trained.items():
        entries[name] = one.agent
        if hasattr(one.agent, "plan"):
            entries[name] = WithoutNoise(one.agent)
            entries[f"{name}, policy"] = Player(one.agent)
    first = next(iter(trained.values()))
    entries |= {name: _bot(name, first) for name in ("diplomacy-greedy", "random")}
    a_pair = games_of_pairs(games, len(entries), _game(first.settings).seats, seed)
    config = TournamentConfig(games=a_pair, seed=seed, num_envs=64)
    return standings(play_tournament(entries, env, config)).rows()


def games_of_pairs(games: int, entries: int, seats: int, seed: int) -> int:
    """The least number of games of every pair with which a round robin has at least this many games in all."""
    low, high = 1, max(1, games)  # a table of more seats has several pairs
    while low < high:
        middle = (low + high) // 2
        enough = len(all_against_all(entries, seats, middle, seed)) >= games
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def _figures(played: Mapping[str, Any]) -> dict[str, Any]:
    low, high = played["won_interval"]
    return {"games": played["games"], "won": played["won"], "low": low, "high": high,
            "return_mean": played["return_mean"], "return_low": played["return_interval"][0]}  # fmt: skip


def _met(rows: Mapping[str, list[dict[str, Any]]], seats: int) -> bool:
    """Whether agents that search reach all targets, and each fifth round earns more than one seat's part of a game."""
    wins = [row["won"] >= TARGETS[row["against"]] for row in rows["opponents"] if row["plays by"] == "search"]
    searched = [row["won"] >= SEARCH_TARGET for row in rows["search"]]
    return all(wins) and all(searched) and all(row["return_mean"] > 1 / seats for row in rows["rounds"])


def _game(settings: Settings) -> Any:
    return make_game(settings.env, **settings.env_settings)


def _bot(name: str, like: Trained) -> Agent:
    game = _game(like.settings)
    bot: Agent = make_bot(name, game.observation_space, game.action_space, device="cpu", game=game)
    return bot


def _save(path: Path, one: Trained) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, copy_bytes(one.agent, one.settings, {"env_steps": one.env_steps}))


def show(env: str, rows: Mapping[str, list[dict[str, Any]]]) -> None:
    """Print the tables of a board."""
    titles = {
        "training": "training", "opponents": "one seat against all others; wanted of search: "
        + ", ".join(f"{target:.0%} against {name}" for name, target in TARGETS.items()),
        "rounds": "policies against those of some rounds before",
        "search": f"search at play time against its own policy; wanted {SEARCH_TARGET:.0%}",
        "population": "mixed population",
    }  # fmt: skip
    for part, title in titles.items():
        if rows[part]:
            columns = list(rows[part][0])
            print_table(f"{env}: {title}", columns, [list(row.values()) for row in rows[part]], width=130)
