"""``mlbits eval RUN --off-policy DATASET``: all estimates of an agent's value from a dataset, with what they are worth.

The value is the expected discounted return from the starts of the data's episodes. Which value it is for truncated
episodes differs: see :mod:`~mlbits.evals.off_policy.estimators` and :mod:`~mlbits.evals.off_policy.model`.

A row's verdict is a rule, not a test: weights of fewer than 5 effective episodes are worth nothing, of fewer than 30
little; weights that should have mean 1 and do not show that part of what the policy does is missing from the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import pick
from mlbits.agents.maths.action_distributions import DiagonalGaussian
from mlbits.agents.memory.dataset import Dataset
from mlbits.envs.core.spaces import action_layout
from mlbits.evals.off_policy.behaviour import estimated_log_prob
from mlbits.evals.off_policy.estimators import (
    Array,
    Estimate,
    Logged,
    OffPolicyError,
    doubly_robust_estimates,
    importance_estimates,
    mean_weight,
    model_estimate,
)
from mlbits.evals.off_policy.features import features_of, rows_before
from mlbits.evals.off_policy.model import Features, fit
from mlbits.evals.off_policy.policies import TargetPolicy
from mlbits.selfplay.statistics import mean_interval

Behaviour = Literal["auto", "recorded", "estimated"]
WORTH_NOTHING, WEAK = 5.0, 30.0  # effective episodes
_MASS = 1.5  # factor by which the mean weight may differ from 1
_UNTRIED = 0.05  # fraction of the policy's actions that no logged step tried
_MOST_STEPS = 300_000  # for the model; beyond, episodes are drawn at random


def evaluate_off_policy(
    agent: Any,
    data: Dataset,
    *,
    discount: float = 0.99,
    horizon: int | None = None,
    greedy: bool = False,
    behaviour: Behaviour = "auto",
    features: int = 300,
    resamples: int = 1000,
    refits: int = 100,
    seed: int = 1,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Estimate the value of an agent's policy from a dataset.

    Args:
        agent: an agent that decides from observations.
        data: episodes, of the spaces that the agent was made for.
        discount: gamma; 1 only with a horizon.
        horizon: for FQE, DR and WDR: steps of an episode, at least the longest one's; None for no limit.
        greedy: whether the policy takes its most probable action.
        behaviour: "recorded" takes the dataset's log probabilities, "estimated" fits the policy that made it, "auto"
            takes recorded ones where they are and apply.
        features: random features of FQE, where it is not a table.
        resamples: bootstrap samples for IS, PDIS, WIS and PDWIS.
        refits: of FQE, DR and WDR.
        seed: of all random draws.
        device: the agent's.

    Returns:
        "rows": for each estimator "name", "value" and "interval" (None where undefined), "ess", "max_weight" (both
            None without weights) and
        "verdict" ("" if there is nothing to say against it); "without": (names, why) of estimators that do not apply;
        "behaviour" ("recorded", "estimated" or None) and "behaviour_fit"; "mean_weight" (None without weights);
        "model", what Q was fitted to; "data_value", "data_interval": discounted return of the data; "episodes",
        "steps", "truncated" (fraction of the episodes), "discount", "horizon", "greedy", "notes".

    Raises:
        OffPolicyError: for arguments out of range, recorded probabilities that are none, or where they are asked for
        and
            missing.
    """
    _check(discount, horizon, resamples, refits)
    notes: list[str] = []
    data = _limited(data, seed, notes).to("cpu")
    policy = TargetPolicy(agent, data.action_space, greedy=greedy, device=device)
    starts, reward = data.starts.numpy(), data.reward.double().numpy()
    before = torch.from_numpy(rows_before(data))
    ratio, which, fitted, without = _log_ratio(data, policy, before, behaviour, seed)
    unweighted = Logged.from_steps(np.zeros(len(reward)), reward, starts, discount)
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {"behaviour": which, "behaviour_fit": fitted, "mean_weight": None, "model": None}
    logged = None
    if ratio is not None:
        logged = Logged.from_steps(ratio.numpy(), reward, starts, discount)
        found["mean_weight"] = mean_weight(logged)
        rows += [_row(one, _weighting_verdict(one, found["mean_weight"])) for one in
                 importance_estimates(logged, resamples, seed)]  # fmt: skip
    missing = [("IS, PDIS, WIS, PDWIS, DR, WDR", without)] if without else []
    try:
        basis, found["model"] = features_of(data, policy, size=features, seed=seed)
    except OffPolicyError as error:
        missing.append(("FQE, DR, WDR", str(error)))
    else:
        model = fit(basis, reward, data.terminated.numpy(), starts, discount, horizon=horizon, refits=refits, seed=seed)
        one = model_estimate(model)
        verdict = _model_verdict(one, reward, data, basis, discount, horizon)
        rows.append(_row(one, verdict))
        if logged is not None:
            rows += [_row(one, _robust_verdict(one, verdict)) for one in doubly_robust_estimates(logged, model)]
    returns = unweighted.reward @ unweighted.discounts
    value, spread = mean_interval(returns)
    return found | {
        "rows": rows, "without": missing, "data_value": value, "data_interval": list(spread),
        "episodes": data.num_episodes, "steps": data.num_steps, "discount": discount, "horizon": horizon,
        "truncated": 1 - float(data.terminated.numpy()[starts[1:] - 1].mean()), "greedy": greedy, "notes": notes,
    }  # fmt: skip


def _log_ratio(
    data: Dataset, policy: TargetPolicy, before: Tensor, behaviour: Behaviour, seed: int
) -> tuple[Tensor | None, str | None, str | None, str]:
    """Log pi - log b of each step [N], where b comes from, what was fitted, and why there is none, or ""."""
    obs, mask = pick(data.obs, before), None if data.mask is None else data.mask[before]
    problem = _unusable(data, policy) if behaviour != "estimated" else "not asked for"
    if behaviour == "recorded" and problem:
        raise OffPolicyError(f"behaviour: got 'recorded'; {problem}. Wanted 'estimated' or 'auto'")
    try:
        if not problem:
            assert data.log_prob is not None
            target = policy.log_prob(data, obs, mask, drawn=data.draw is not None)
            return target - data.log_prob.double(), "recorded", None, ""
        target = policy.log_prob(data, obs, mask, drawn=False)
        logged, fitted = estimated_log_prob(data, before, seed)
        return target - logged, "estimated", fitted if behaviour == "estimated" else f"{fitted}; {problem}", ""
    except OffPolicyError as error:
        return None, None, None, str(error)


def _unusable(data: Dataset, policy: TargetPolicy) -> str:
    """Why recorded probabilities cannot be used, or "".

    Raises:
        OffPolicyError: for log probabilities of Discrete actions above 0.
    """
    if data.log_prob is None:
        return f"{data.name} has no recorded probabilities"
    if policy.discrete:
        above = data.log_prob > 1e-4
        if bool(above.any()):
            step = int(above.int().argmax())
            episode = int(data.episode_of_step[step])
            raise OffPolicyError(
                f"{data.name}: episode {episode}: log_prob: got {float(data.log_prob[step]):g} in step "
                f"{step - int(data.starts[episode])}; wanted at most 0, the logarithm of a probability"
            )
        return ""
    if data.draw is None:
        return ""
    if not hasattr(policy.agent, "draw_log_prob"):
        return "its probabilities are those of draws before clipping, which this policy does not have"
    layout = action_layout(data.action_space)
    played = DiagonalGaussian(layout.low, layout.high).played(data.draw)
    if not torch.allclose(played, data.action, rtol=1e-4, atol=1e-4):
        return "its probabilities are those of draws that this policy would play as other actions"
    return ""


def _limited(data: Dataset, seed: int, notes: list[str]) -> Dataset:
    """At most 300,000 steps: whole episodes, drawn at random."""
    if data.num_steps <= _MOST_STEPS or data.num_episodes == 1:
        return data
    order = torch.randperm(data.num_episodes, generator=torch.Generator().manual_seed(seed))
    count = max(1, int((data.lengths[order].cumsum(0) <= _MOST_STEPS).sum()))
    notes.append(
        f"{count:,} of {data.num_episodes:,} episodes, drawn at random: at most {_MOST_STEPS:,} steps are used"
    )
    return data.episodes(order[:count].sort().values)


def _row(estimate: Estimate, verdict: str) -> dict[str, Any]:
    value, low, high = (
        None if math.isnan(number) else number for number in (estimate.value, estimate.low, estimate.high)
    )
    return {
        "name": estimate.name, "value": value, "interval": [low, high],
        "ess": estimate.ess, "max_weight": estimate.max_weight, "verdict": verdict,
    }  # fmt: skip


def _weighting_verdict(estimate: Estimate, mass: float) -> str:
    assert estimate.ess is not None
    if math.isnan(estimate.value):
        return "undefined: no episode of the data could have been played to its end by this policy"
    if estimate.ess < WORTH_NOTHING or not math.isfinite(estimate.value):
        return f"worth nothing: as if from {estimate.ess:.1f} episodes"
    if estimate.name in ("IS", "PDIS") and abs(math.log(max(mass, 1e-300))) > math.log(_MASS):
        return f"worth nothing: weights have mean {mass:.2g} instead of 1"
    return f"weak: as if from {estimate.ess:.0f} episodes" if estimate.ess < WEAK else ""


def _model_verdict(
    estimate: Estimate, reward: Array, data: Dataset, basis: Features, discount: float, horizon: int | None
) -> str:
    """What is to be said against the model's value."""
    untried = _untried(data, basis)
    if untried > _UNTRIED:
        word = "worth nothing" if untried > 0.5 else "a guess"
        return f"{word}: {untried:.0%} of the policy's actions were never tried where it takes them"
    steps = horizon if discount == 1 else (1 - discount ** (horizon or math.inf)) / (1 - discount)
    assert steps is not None
    low, high = float(reward.min()) * steps, float(reward.max()) * steps
    if bool(data.terminated.any()):
        low, high = min(low, float(reward.min())), max(high, float(reward.max()))
    slack = 1e-6 + 0.01 * (high - low)
    if not low - slack <= estimate.value <= high + slack:
        return f"worth nothing: diverged; rewards in the data allow {low:.4g} to {high:.4g}"
    return ""


def _untried(data: Dataset, basis: Features) -> float:
    """Fraction of the policy's probability, at logged steps, on pairs that were never logged; 0 without a table."""
    if not basis.table:
        return 0.0
    seen = np.asarray(basis.logged.sum(0)).reshape(-1) > 0
    return float(1 - (basis.expected[rows_before(data)] @ seen.astype(float)).mean())


def _robust_verdict(estimate: Estimate, of_model: str) -> str:
    """DR and WDR: as good as their model where the weights are worth nothing."""
    assert estimate.ess is not None
    if of_model.startswith("worth nothing"):
        return of_model
    if estimate.ess < WORTH_NOTHING:
        return f"no better than FQE: its corrections are from {estimate.ess:.1f} episodes"
    return f"weak: as if from {estimate.ess:.0f} episodes" if estimate.ess < WEAK else ""


def _check(discount: float, horizon: int | None, resamples: int, refits: int) -> None:
    for name, value, least in (("resamples", resamples, 2), ("refits", refits, 2), ("horizon", horizon, 1)):
        if value is not None and value < least:
            raise OffPolicyError(f"{name}: got {value}; wanted at least {least}")
    if not 0 <= discount <= 1 or (discount == 1 and horizon is None):
        raise OffPolicyError(f"discount: got {discount:g}; wanted 0 to 1, and below 1 without a horizon")


def summary_lines(result: Mapping[str, Any]) -> list[str]:
    """What to say below the table: what is assumed, what is missing, and what the numbers are worth."""
    lines = list(result["notes"])
    if result["behaviour"] is not None:
        fitted = f" ({result['behaviour_fit']})" if result["behaviour_fit"] else ""
        lines.append(
            f"behaviour probabilities: {result['behaviour']}{fitted}; mean weight {result['mean_weight']:.3g}, which "
            "would be 1 if the data held all that the policy does"
        )
    lines += [f"without {names}: {why}" for names, why in result["without"]]
    if result["model"] is not None:
        limit = "without a time limit" if result["horizon"] is None else f"of {result['horizon']} steps"
        lines.append(f"FQE, DR, WDR: Q in {result['model']}; the value {limit}")
    if result["truncated"] > 0 and result["horizon"] is None:
        lines.append(
            f"{result['truncated']:.0%} of the episodes were truncated: there FQE, DR and WDR go on with the last "
            "observation's value, the others count the logged steps alone"
        )
    lines += [f"{row['name']}: {row['verdict']}" for row in result["rows"] if row["verdict"]]
    if result["rows"] and all(
        row["verdict"].startswith(("worth nothing", "undefined", "no better", "a guess")) for row in result["rows"]
    ):
        lines.append("these data say nothing about this policy: play it, or record data nearer to it")
    return lines
