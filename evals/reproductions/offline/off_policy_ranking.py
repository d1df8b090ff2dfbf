"""``mlbits reproduce off-policy-ranking``: do estimates from logged data put policies in the right order?

Nine policies of graded quality, from one PPO run on Pendulum: the untrained one, and one every 8,192 steps. The data
are 50 episodes of the untrained policy and 50 of the middle one, with recorded probabilities. Every policy is evaluated
from these data alone, and its true value measured by playing it. As in DOPE (Fu et al. 2021): Spearman's rank
correlation, regret@1 (how much worse the policy that looks best is than the best, as a fraction of the range of true
values), and the mean absolute error (as a fraction of that range). Discount 0.98; policies are sampled, not greedy.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

import mlbits
from mlbits.agents.memory.dataset import Dataset
from mlbits.evals.off_policy.evaluation import evaluate_off_policy
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import Session, open_session
from mlbits.selfplay.statistics import mean_interval

ENV, STEPS = "mlbits/Pendulum-v0", 200
DISCOUNT = 0.98
EVERY, POLICIES = 8192, 9
MIDDLE = 4  # the policy that played the second half of the data
EPISODES = 50  # of each of the two
NAMES = ("IS", "PDIS", "WIS", "PDWIS", "FQE", "DR", "WDR")
MEASURES = ("rank correlation", "regret@1", "error")
Weights = dict[str, Tensor]


def reproduce(quick: bool = False, seeds: int = 5, games: int = 300) -> dict[str, Any]:
    """Train, record, estimate and compare with true values.

    Args:
        quick: one seed, and every second policy.
        seeds: number of PPO runs, each with its own data.
        games: episodes that measure a policy's true value.

    Returns:
        "runs", one per seed: "truth" [policies], "estimates" and "ess" by estimator; "measures": for each estimator the
        rank correlation, regret@1 and error, each with its mean and 95% interval over seeds; "met": whether FQE's mean
        rank correlation is at least 0.9, and its regret@1 at most 0.1.
    """
    set_up(1)
    runs = [_run(seed, range(0, POLICIES, 2 if quick else 1), games) for seed in range(1 if quick else seeds)]
    found = {name: _measures(runs, name) for name in NAMES}
    print_table(
        f"policies of graded quality on {ENV}, from {2 * EPISODES} episodes, discount {DISCOUNT}; means over "
        f"{len(runs)} seeds with 95% intervals; regret and error as fractions of the range of true values",
        ["estimator", *MEASURES, "effective episodes: most, least"],
        [
            [name, *(_shown(*found[name][what]) for what in MEASURES), _sizes(runs, name)] for name in NAMES
        ],
        width=130,
    )  # fmt: skip
    for seed, run in enumerate(runs):
        print(f"seed {seed}: true {_numbers(run['truth'])}; FQE {_numbers(run['estimates']['FQE'])}")
    met = found["FQE"]["rank correlation"][0] >= 0.9 and found["FQE"]["regret@1"][0] <= 0.1
    return {"runs": runs, "measures": found, "met": met}


def _run(seed: int, numbers: range, games: int) -> dict[str, Any]:
    """True and estimated values of one run's policies."""
    session, policies = _train(seed)
    agent: Any = session.learner
    data = [_play(agent, policies[number], EPISODES, 1000 + 2 * seed + k) for k, number in enumerate((0, MIDDLE))]
    dataset = _joined(data)
    truth: list[float] = []
    estimates: dict[str, list[float | None]] = {name: [] for name in NAMES}
    sizes: dict[str, list[float | None]] = {name: [] for name in NAMES}
    for number in numbers:
        reward = _play(agent, policies[number], games, 5000 + seed)["reward"].double().numpy()
        truth.append(float((reward @ DISCOUNT ** np.arange(STEPS)).mean()))
        agent.load_state_dict(policies[number])
        # Intervals are not used here, so that few resamples do.
        result = evaluate_off_policy(agent, dataset, discount=DISCOUNT, resamples=2, refits=2, seed=seed + 1)
        for row in result["rows"]:
            estimates[row["name"]].append(row["value"])
            sizes[row["name"]].append(row["ess"])
    return {"truth": truth, "estimates": estimates, "ess": sizes}


def _train(seed: int) -> tuple[Session, list[Weights]]:
    """A PPO run, and its weights before training and every 8,192 steps."""
    run = {"seed": seed, "total_steps": 100_000, "device": "cpu"}
    session = open_session(resolve("ppo", ENV, run=run))
    policies = [copy.deepcopy(session.learner.state_dict())]
    while len(policies) < POLICIES:
        rollout, _, played = session.collector.collect(session.lineup)
        session.learn(rollout)
        session.counters.env_steps += played
        if session.counters.env_steps >= len(policies) * EVERY:
            policies.append(copy.deepcopy(session.learner.state_dict()))
    return session, policies


def _play(agent: Any, weights: Weights, episodes: int, seed: int) -> dict[str, Tensor]:
    """Episodes of a policy: obs [E, T + 1, 3]; action, draw [E, T, 1]; reward and log_prob [E, T]."""
    agent.load_state_dict(weights)
    batch = mlbits.make_batch(ENV, episodes, seed=seed, autoreset="disabled")
    generator = torch.Generator().manual_seed(seed)
    steps: dict[str, list[Tensor]] = {name: [] for name in ("obs", "action", "draw", "log_prob", "reward")}
    for _ in range(STEPS):
        steps["obs"].append(batch.obs[:, 0].clone())
        decision = agent.act(batch.obs[:, 0], None, generator)
        steps["action"].append(decision.action)
        steps["draw"].append(decision.sample)
        steps["log_prob"].append(decision.log_prob)
        steps["reward"].append(batch.step(decision.action).reward[:, 0].clone())
    steps["obs"].append(batch.obs[:, 0].clone())
    return {name: torch.stack(values, 1) for name, values in steps.items()}


def _joined(parts: list[dict[str, Tensor]]) -> Dataset:
    """Episodes of several policies as one dataset; all are truncated at the time limit."""
    whole: dict[str, Any] = {name: torch.cat([part[name] for part in parts]).flatten(0, 1) for name in parts[0]}
    count = len(whole["reward"]) // STEPS
    truncated = torch.zeros(count, STEPS, dtype=torch.bool)
    truncated[:, -1] = True
    game = mlbits.make_game(ENV)
    return Dataset(
        **whole, terminated=torch.zeros(count * STEPS, dtype=torch.bool), truncated=truncated.flatten(),
        starts=torch.arange(count + 1) * STEPS, observation_space=game.observation_space,
        action_space=game.action_space, env=ENV, name="two policies",
    )  # fmt: skip


def _measures(runs: list[dict[str, Any]], name: str) -> dict[str, tuple[float, tuple[float, float]]]:
    """Each measure's mean over seeds and its interval."""
    each = np.array([compare(run["truth"], run["estimates"][name]) for run in runs])
    return {what: mean_interval(each[:, k]) for k, what in enumerate(MEASURES)}


def compare(truth: list[float], estimates: list[float | None]) -> tuple[float, float, float]:
    """Rank correlation, regret@1 and mean absolute error of estimates, the last two as fractions of the truth's range.

    Args:
        truth: true values of at least two policies.
        estimates: their estimates; None, undefined, counts as the worst, and not in the error.
    """
    true = np.array(truth)
    known: NDArray[np.bool_] = np.array([one is not None for one in estimates])
    guess = np.array([np.nan if one is None else one for one in estimates], float)
    spread = float(np.ptp(true))
    error = float(np.abs(guess - true)[known].mean()) / spread if known.any() else float("nan")
    ranked = np.where(known, guess, -np.inf)
    order = float(spearmanr(ranked, true).statistic) if len(set(ranked.tolist())) > 1 else 0.0
    return order, float(true.max() - true[int(ranked.argmax())]) / spread, error


def _shown(mean: float, span: tuple[float, float]) -> str:
    return f"{mean:.2f}" if not np.isfinite(span).all() else f"{mean:.2f} [{span[0]:.2f}, {span[1]:.2f}]"


def _sizes(runs: list[dict[str, Any]], name: str) -> str:
    sizes = [size for run in runs for size in run["ess"][name] if size is not None]
    return f"{max(sizes):.1f}, {min(sizes):.1f}" if sizes else "-"


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.0f}" for value in values)
