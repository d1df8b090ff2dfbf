"""``mlbits reproduce sbr-blotto`` and ``blotto-brpi``: sampled best response where exact payoffs are known.

The first compares what the sampled best response to uniform play earns against it with reference values, for several
numbers of base profiles B and candidates C. The second runs best-response policy iteration on the payoff table
(:mod:`mlbits.agents.best_response.tabular`): fictitious play from samples (FPPI-1, FPPI-2) approaches the equilibrium,
and iterated best response (IBR), the negative control, cycles, as does FPPI-2 whose candidates are the latest policy's
alone: actions that once disappear never come back. All exploitabilities are exact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.agents.best_response.policies import SamePolicy, Uniform
from mlbits.agents.best_response.sampled_best_response import SampledBestResponse
from mlbits.agents.best_response.tabular import METHODS, policy_iteration
from mlbits.envs.exact.normal_form import payoff_tensor
from mlbits.envs.registry import make_batch, make_game
from mlbits.evals.game_theory.nash_conv import exploitability
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay.statistics import mean_interval

ENV, COINS = "mlbits/Blotto-v0", 10
# Mean payoff against uniform of the sampled best response, by (B, C); each +-.0002.
SBR_VALUES = {(1, 16): 0.0903, (4, 16): 0.1539, (16, 16): 0.2093, (64, 66): 0.2716}
SBR_ERROR = 0.0002
_COPIES = 2000
ROUNDS, MARKS = 128, (16, 64, 128)
ROWS = {**METHODS, "fppi2, latest alone": replace(METHODS["fppi2"], candidates="latest")}
# After 128 rounds: the mean over the seeds of the exploitability of the average of the rounds, and of the latest one.
MOST = {("fppi1", "average"): 0.04, ("fppi2", "average"): 0.04, ("fppi2", "latest"): 0.09}
LEAST = {("ibr", "latest"): 0.9, ("ibr", "average"): 0.9, ("fppi2, latest alone", "latest"): 0.15}
_QUICK_ROOM = 1.25  # a single seed may be this much above


def sbr(quick: bool = False, *, seed: int = 0) -> dict[str, Any]:
    """Sampled best responses to uniform play in Blotto(10,3).

    Args:
        quick: a twentieth of the answers.
        seed: of all draws.

    Returns:
        "rows" (profiles B, candidates C, value, standard_error, wanted, errors: the distance in standard errors) and
        "met": whether every value is within three standard errors of the reference.
    """
    game = make_game(ENV, coins=COINS)
    worth = torch.from_numpy(payoff_tensor(game)[0].mean(1))
    batch, generator = make_batch(ENV, _COPIES, coins=COINS), torch.Generator().manual_seed(seed)
    rows = []
    for (profiles, candidates), wanted in SBR_VALUES.items():
        search = SampledBestResponse(game, SamePolicy(Uniform(game)), [(Uniform(game), candidates)], profiles=profiles)
        table = search.transitions.look(batch.copies.states.copy(), game.params)  # type: ignore[union-attr]
        earned = torch.cat([worth[search(table, generator).action.flatten()] for _ in range(1 if quick else 20)])
        value, error = float(earned.mean()), float(earned.std()) / len(earned) ** 0.5
        distance = abs(value - wanted) / (error**2 + SBR_ERROR**2) ** 0.5
        rows.append({"profiles": profiles, "candidates": candidates, "value": value, "standard_error": error,
                     "wanted": wanted, "errors": distance})  # fmt: skip
    print_table(
        f"Blotto({COINS},3): payoff of sampled best responses against uniform play, within 3 standard errors",
        ["B", "C", "payoff", "standard error", "wanted", "distance in standard errors"],
        [[row["profiles"], row["candidates"], *(f"{row[k]:.4f}" for k in ("value", "standard_error", "wanted")),
          f"{row['errors']:.1f}"] for row in rows],
    )  # fmt: skip
    return {"rows": rows, "met": all(row["errors"] <= 3 for row in rows)}


def policy_iterations(quick: bool = False, *, seeds: int = 5) -> dict[str, Any]:
    """Best-response policy iteration on Blotto(10,3): B 10, C 25, 1,000 answers a round, 128 rounds.

    Args:
        quick: one seed, and a quarter more room for it.
        seeds: number of runs of each method.

    Returns:
        "rows" (method, policy: latest or average, round, mean and 95% interval of the exploitability, worst seed,
        wanted) and "met".
    """
    payoffs = payoff_tensor(make_game(ENV, coins=COINS))
    count, room = (1, _QUICK_ROOM) if quick else (seeds, 1.0)
    rows, met = [], True
    for name, config in ROWS.items():
        runs = [_exploitabilities(payoffs, policy_iteration(payoffs, config, ROUNDS, seed)) for seed in range(count)]
        for policy in ("latest", "average"):
            for k, mark in enumerate(MARKS):
                values = np.array([run[policy][k] for run in runs])
                mean, (low, high) = mean_interval(values, bounds=(0, 1))
                key, last = (name, policy), mark == ROUNDS
                most, least = (bounds.get(key) if last else None for bounds in (MOST, LEAST))
                met &= (most is None or mean <= most * room) and (least is None or mean >= least)
                wanted = f"at most {most:g}" if most is not None else f"above {least:g}" if least is not None else ""
                rows.append({"method": name, "policy": policy, "round": mark, "exploitability": mean, "low": low,
                             "high": high, "worst": float(values.max()), "wanted": wanted})  # fmt: skip
    print_table(
        f"Blotto({COINS},3): exact exploitability, mean over {count} seeds",
        ["method", "policy", "round", "exploitability", "95% from", "to", "worst", "wanted"],
        [[row["method"], row["policy"], row["round"],
          *(f"{row[k]:.3f}" for k in ("exploitability", "low", "high", "worst")), row["wanted"]] for row in rows],
        width=110,
    )  # fmt: skip
    return {"rows": rows, "met": bool(met)}


def _exploitabilities(payoffs: NDArray[np.float64], history: list[NDArray[np.float64]]) -> dict[str, list[float]]:
    """Of the latest round and of the average of all rounds, at the marks."""
    latest = [exploitability(payoffs, [mixture[mark] for mixture in history]) for mark in MARKS]
    average = [exploitability(payoffs, [mixture[: mark + 1].mean(0) for mixture in history]) for mark in MARKS]
    return {"latest": latest, "average": average}
