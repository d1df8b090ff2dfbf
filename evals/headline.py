"""The result of a run in a few lines: its mean return, or in multi-agent games exploitability or win rates.

Where all seats learn and the game is zero-sum, the mean return is the same whatever has been learned. Instead the
result is, in this order: the exact exploitability, if the game is small enough; else the fraction of games won, in one
seat, against the game's bots; and with a pool, against the pool, also as Elo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mlbits.agents.agent import Agent
from mlbits.agents.registry import agent_entry, bot_names, make_bot
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.head_to_head import play_against
from mlbits.selfplay.offline import tried_online
from mlbits.selfplay.statistics import counted, fraction_interval, interval_text

_MODEST = {"mcts": "mcts@simulations=100"}  # settings of bots that are slow by default
_POOL_AGENTS = 16  # maximum number of frozen copies to play against, evenly spaced


def measure(
    agent: Agent,
    env: str,
    settings: Mapping[str, Any] | None,
    games: int,
    *,
    seed: int,
    exploitability: float | None = None,
    pool: Sequence[Agent] = (),
    guests: Mapping[str, Agent] | None = None,
    greedy: bool = True,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Measure an agent in a multi-agent game.

    Args:
        agent: the agent, in all seats or in one against others.
        env: id of the environment.
        settings: its settings.
        games: games against each of the others; rounded up until the agent has had every seat equally often.
        seed: seed of the games.
        exploitability: the exact exploitability, where it is known.
        pool: frozen copies, which alternate in the other seats; a sample of them if there are many.
        guests: further opponents, by name.
        greedy: whether all take their most probable actions.
        device: where to play.

    Returns:
        Plain data: "exploitability" (exact; "exploitability_of" is "network" for an agent that plans and was measured
        without its search) or "against", a list of {opponent, games, won, won_interval (95%, Wilson),
        tied, lost, elo, elo_interval}; Elo in games of two seats, from points (a draw is half a win), its bounds None
        where they are infinite.
    """
    if exploitability is not None:
        network = hasattr(agent, "plan") and not hasattr(agent, "planned_probabilities")
        return {"exploitability": float(exploitability)} | ({"exploitability_of": "network"} if network else {})
    batch = open_batch(env, 1, settings=settings, start=False)
    seats = batch.num_seats
    others: dict[str, Agent | Sequence[Agent]] = {**_bots(batch, hasattr(agent, "plan")), **(guests or {})}
    batch.close()
    if pool:
        chosen = _evenly(list(pool), _POOL_AGENTS)
        others[f"the pool ({len(chosen)} of {len(pool)} copies)" if len(pool) > len(chosen) else "the pool"] = chosen
    found = []
    for name, opponent in others.items():
        turns = math.ceil(games / seats) * seats
        played = play_against(agent, opponent, env, turns, seed=seed, settings=settings, device=device, greedy=greedy)
        row = {key: played[key] for key in ("games", "won", "won_interval", "tied", "lost")}
        found.append({"opponent": name, **row, **(_elo(played) if seats == 2 else {})})
    return {"against": found}


def headlines(summary: Mapping[str, Any]) -> list[str]:
    """A run's result, most important line first: the measurements, and the return unless it is always the same."""
    measured = summary.get("measured") or {}
    parts = measured_lines(measured)
    tried = [tried_online.line(summary)] if "policies_tried_online" in summary else []
    if "rule" in summary:
        return _of_rule(summary)
    if "return_mean" not in summary:
        return ["trained on the dataset", "not evaluated online (--eval-online or mlbits eval does)", *tried]
    if not parts or not measured.get("same_return"):
        interval = interval_text(summary["return_interval"], summary["episodes"])
        episodes = counted(summary["episodes"], "episode")
        parts.append(f"return {summary['return_mean']:.4g} over {episodes} ({interval})")
    return parts + tried


def _of_rule(summary: Mapping[str, Any]) -> list[str]:
    """The result of meta-training: reward beside A2C's and that of random play, in the same levels."""
    rewards, interval = summary["rewards"], interval_text(summary["return_interval"], summary["episodes"])
    levels = counted(summary["episodes"], "training level")
    beside = f"A2C {rewards['final_reward_a2c']:.4g}, random play {rewards['final_reward_random']:.4g}"
    return [f"reward {summary['return_mean']:.4g} a step late in a lifetime, in {levels} ({interval}); {beside}"]


def measured_lines(measured: Mapping[str, Any]) -> list[str]:
    """What :func:`measure` found, a line each."""
    lines = []
    if "exploitability" in measured:
        pool = measured.get("pool_exploitability")
        mixture = "" if pool is None else f"; of the pool's mixture {pool:.4g}"
        alone = ", of the network alone, without its search" if "exploitability_of" in measured else ""
        lines.append(f"exploitability {measured['exploitability']:.4g} (exact{alone}, 0 is an equilibrium{mixture})")
    for row in measured.get("against", ()):
        low, high = row["won_interval"]
        line = (
            f"won {row['won']:.1%} of {row['games']} games against {row['opponent']} "
            f"(95% interval {low:.1%} to {high:.1%})"
        )
        if "elo" in row and row["opponent"].startswith("the pool"):
            ends = [f"{bound:+.0f}" if bound is not None else "any" for bound in row["elo_interval"]]
            elo = "off the scale" if row["elo"] is None else f"{row['elo']:+.0f}"
            line += f", Elo {elo} to it ({ends[0]} to {ends[1]})"
        lines.append(line)
    return lines


def _bots(batch: Any, planner: bool) -> dict[str, Agent | Sequence[Agent]]:
    """Random play, and the last of the other bots that can play a game, which is the strongest of those listed.

    Bots that plan are slow, and are there only for agents that plan themselves.
    """
    found: dict[str, Agent | Sequence[Agent]] = {}
    for plain in bot_names():
        name = _MODEST.get(plain, plain)
        if agent_entry(plain).plans and not planner:
            continue
        try:
            bot = make_bot(
                name,
                batch.observation_space,
                batch.action_space,
                device=batch.device,
                game=getattr(batch, "game", None),
            )
        except MlbitsError:
            continue
        if len(found) == 2:
            found.popitem()
        found[name] = bot
    return found


def _elo(played: Mapping[str, Any]) -> dict[str, Any]:
    """The difference in Elo that makes this fraction of points the expected one, and its 95% interval."""
    points, (low, high) = fraction_interval((played["won"] + played["tied"] / 2) * played["games"], played["games"])
    return {"elo": _difference(points), "elo_interval": [_difference(low), _difference(high)]}


def _difference(fraction: float) -> float | None:
    return 400 * math.log10(fraction / (1 - fraction)) if 0 < fraction < 1 else None


def _evenly(some: list[Any], most: int) -> list[Any]:
    if len(some) <= most:
        return some
    return [some[round(k * (len(some) - 1) / (most - 1))] for k in range(most)]
