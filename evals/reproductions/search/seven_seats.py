"""Seven-seat Diplomacy: one round of best-response policy iteration, measured, with an estimate for one GPU; and games
of a trained agent against six greedy bots.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mlbits.agents.agent import Agent
from mlbits.agents.best_response.learner import SearchLearner
from mlbits.agents.best_response.transitions import Transitions
from mlbits.agents.registry import make_bot
from mlbits.envs.registry import make_game
from mlbits.evals.head_to_head import play_against
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session

ENV = "mlbits/Diplomacy-v0"
_SETTINGS = {"num_steps": 8, "round_steps": 8, "buffer_size": 2000,
             "warm_rounds": 0, "uses": 1.0, "hidden": (64, 64)}  # fmt: skip
_COPIES = 4
# What is assumed of one H100: a sixth of its 400 dense TFLOP/s of TF32, and 16 cores beside it for the rules.
_GPU_FLOPS, _CORES = 400e12 / 6, 16


def measure_round(seconds: float, seed: int, samples: int = 16) -> dict[str, Any]:
    """Play and learn rounds of FPPI-2 on the standard board for some CPU seconds.

    Args:
        seconds: CPU seconds, at least one round.
        seed: of the run.
        samples: base profiles B and candidates C.

    Returns:
        "steps" and "games" (in games of 60 phases) of the rounds, "transitions", "network_rows" and "network_calls" per
        CPU-second, "rules_fraction" (of the time), "flops_a_row", and "estimate", a text.
    """
    run = {"device": "cpu", "seed": seed, "num_envs": _COPIES, "total_steps": 10**9}
    settings = _SETTINGS | {"profiles": samples, "num_candidates": samples}
    session = open_session(resolve("fppi2", ENV, preset="none", run=run, agent_settings=settings))
    agent = session.learner
    assert isinstance(agent, SearchLearner)
    count = _Count(agent)
    session.learn(session.collect()[0])  # compiles
    count.clear()
    began, steps = time.process_time(), 0
    while steps == 0 or time.process_time() - began < seconds:
        rollout, _, played = session.collect()
        session.learn(rollout)
        steps += played
    spent = time.process_time() - began
    obs = {name: value.flatten(0, 1)[:8] for name, value in session.batch.obs.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        agent.core.network.value(obs)
    flops = counter.get_total_flops() / 8
    found: dict[str, Any] = {
        "steps": steps, "games": steps / 60, "cpu_seconds": spent, "transitions_per_second": count.transitions / spent,
        "network_rows_per_second": count.rows / spent, "network_calls_per_second": count.calls / spent,
        "rules_fraction": count.rules / spent, "flops_a_row": flops,
    }  # fmt: skip
    found["estimate"] = estimate(found, count.transitions / steps, count.transitions / max(count.rules, 1e-9))
    print_table(
        f"{ENV}: FPPI-2, B = C = {samples}, {_COPIES} copies, on one core",
        ["environment steps", "games of 60 phases", "CPU-s", "transitions/s", "values/s", "network calls/s", "rules"],
        [[steps, found["games"], spent, *(found[f"{k}_per_second"] for k in ("transitions", "network_rows",
          "network_calls")), f"{found['rules_fraction']:.0%} of the time"]],
        width=110,
    )  # fmt: skip
    print(found["estimate"])
    return found


def against_greedy(agent: Agent, games: int, seed: int, last_year: int | None = None) -> dict[str, Any]:
    """An agent in one seat, each in turn, against six greedy bots; wanted is more than a seventh of the centres.

    Args:
        agent: acts or plans on the standard board.
        games: number of games.
        seed: of the games.
        last_year: after which games end; None is the board's own.

    Returns:
        "games", "centers" (mean fraction of the supply centres at the end of a game, 1 for a win), "low" and "high"
        (its 95% interval), "wanted" (1/7), and "met": whether the whole interval is above that.
    """
    settings: dict[str, Any] = {"scoring": "centers"} | ({} if last_year is None else {"last_year": last_year})
    game = make_game(ENV, **settings)
    bot = make_bot("diplomacy-greedy", game.observation_space, game.action_space, device="cpu", game=game)
    played = play_against(agent, bot, ENV, games, seed=seed, settings=settings, greedy=False)
    low, high = played["return_interval"]
    found = {"games": games, "centers": played["return_mean"], "low": low, "high": high, "wanted": 1 / game.seats,
             "met": bool(low > 1 / game.seats)}  # fmt: skip
    print_table(
        f"{ENV}: one seat against six greedy bots, fraction of the centres", list(found), [list(found.values())]
    )
    return found


def estimate(found: dict[str, Any], transitions_a_step: float, rules_rate: float) -> str:
    """What an hour on one H100 would play, as text: the slower of its network and of 16 cores of rules."""
    by_network = _GPU_FLOPS / max(found["flops_a_row"], 1.0)
    by_rules = rules_rate * _CORES
    steps = 3600 * min(by_network, by_rules) / transitions_a_step
    slower = "the rules" if by_rules < by_network else "the network"
    return (
        f"An hour on one H100, estimated, not measured: {found['flops_a_row'] / 1e6:.1f} MFLOP a value at "
        f"{_GPU_FLOPS / 1e12:.0f} TFLOP/s are {by_network:,.0f} values/s; {_CORES} cores step {by_rules:,.0f} "
        f"transitions/s at the rate measured here. {slower.capitalize()} limit it to {steps:,.0f} environment steps, "
        f"{steps / 60:,.0f} games of 60 phases, without learning."
    )


class _Count:
    """Counts an agent's transitions, values and network calls, and the CPU time of its transitions."""

    def __init__(self, agent: Any) -> None:
        self.clear()
        values, transitions = agent.core.values, agent.transitions

        def counted_values(obs: Any, lead: int) -> Any:
            self.calls += 1
            self.rows += len(next(iter(obs.values())))
            return values(obs, lead)

        agent.core.values = counted_values
        agent.transitions = _Timed(transitions, self)

    def clear(self) -> None:
        """Start again."""
        self.transitions = self.rows = self.calls = 0
        self.rules = 0.0


class _Timed(Transitions):
    """Transitions that are counted.

    Args:
        inner: does the work.
        count: of what it does.
    """

    def __init__(self, inner: Transitions, count: _Count) -> None:
        super().__init__(inner.game, inner.device)
        self.count = count

    def __call__(self, *args: Any, **options: Any) -> Any:
        began = time.process_time()
        found = super().__call__(*args, **options)
        self.count.rules += time.process_time() - began
        self.count.transitions += len(found.reward)
        return found
