"""``mlbits reproduce lpg``: what a learned update rule is worth in levels it never met, and what its agents predict.

Oh et al., "Discovering reinforcement learning algorithms" (2020), figures 4 and 5, at the size of one machine. Agents
live a lifetime each in held-out levels, taught by the rule; in the same levels live agents taught by A2C and REINFORCE,
tuned on training levels, by an untrained rule and by one that says anything,
and agents that learn nothing. All differences are paired by level; intervals are bootstrapped over levels, and over
rules where several are given (one for each meta-seed).

- small: the distribution that the shipped rule was trained on, other levels.
- medium, mazes, chains: never trained on. Targets are for the area under the learning curve.
- CartPole: neural agents, by ``mlbits train lpg``; reported.
- predictions: whether true values at discounts far from the rule's own (0.99) can be read off y(s), where TD(lambda)'s
  value does not tell them; the target is for 0.5 and 0.7.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.agents.learned_rules.files import SavedRule, load_rule
from mlbits.agents.learned_rules.lifetimes import Life
from mlbits.evals.reproductions.learned_rules import predictions
from mlbits.evals.reproductions.learned_rules.lives import Suite, final_and_whole, lives, tune
from mlbits.evals.reproductions.learned_rules.paired import (
    Interval,
    normalised_iqm,
    paired_difference,
    ratio,
    share_above,
    thinned,
)
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table, train_in_process
from mlbits.selfplay.machine import set_up

SUITES = (
    Suite("small", 256),
    Suite("medium", 64, tuning_levels=24),
    Suite("mazes", 64, lifetime=1000, tuning_levels=24),
    Suite("chain_short", 32, lifetime=500, tuning_levels=16),
    Suite("chain_long_noisy", 32, lifetime=500, tuning_levels=16),
)
QUICK = Suite("small", 32, tuning_levels=12, rates=(80.0, 160.0), thorough=False)
READ = Suite("small", 96)
QUICK_READ = Suite("small", 16)
BASELINES = ("a2c", "reinforce", "untrained rule", "random rule", "random play")
MARGIN = 0.02  # of A2C's return, by which a rule may be behind it on small levels
AUC_SHARE = 0.9  # of A2C's area under the curve that a rule keeps on levels of other kinds
LEAST_GAIN = 1e-3  # reward a step; levels where A2C gains less over random play are not normalised
OWN = 0.99  # the discount at which rules are trained
NAMED = (0.5, 0.7)  # discounts at which more has to be read off y(s) than off TD(lambda)'s value
CARTPOLE, CARTPOLE_STEPS = "mlbits/CartPole-v0", 500_000


def reproduce(
    quick: bool = False,
    rules: tuple[Path, ...] = (),
    levels: tuple[str, ...] = (),
    plot: Path | None = None,
    cartpole_seeds: int = 5,
) -> dict[str, Any]:
    """Compare learned rules with A2C and others on held-out levels, and read values off their agents' predictions.

    Args:
        quick: 32 small levels and no transfer; the rule only has to beat those that learn nothing.
        rules: files of rules, one for each meta-seed; none for the rule that comes with mlbits.
        levels: the kinds of levels to compare in ("small", "medium", "mazes", "chain_short", "chain_long_noisy"); none
            for all of them.
        plot: write plots of the curves and the read-outs to this file (needs matplotlib).
        cartpole_seeds: training runs on CartPole; 0 for none.

    Returns:
        By suite the tuned settings, mean rewards and curves, and for each baseline the paired differences of final
        reward and area under the curve; "predictions"; "cartpole"; and "met".

    Raises:
        AgentError: if a file is no rule.
        ReproductionError: if the rules were trained with another discount, a kind of levels is not one of those, or the
            number of seeds is negative.
    """
    kinds = [suite.kind for suite in SUITES]
    if unknown := [kind for kind in levels if kind not in kinds]:
        raise ReproductionError(f"levels: got {unknown[0]!r}; wanted any of {', '.join(kinds)}")
    if cartpole_seeds < 0:
        raise ReproductionError(f"cartpole_seeds: got {cartpole_seeds}; wanted 0 or more")
    set_up(1)
    saved = [load_rule(path) for path in rules or ("",)]
    for path, one in zip(rules or ("the shipped rule",), saved, strict=True):
        if one.rule.config.discount != OWN:
            raise ReproductionError(f"rules: {path} has discount {one.rule.config.discount}; wanted {OWN}, as A2C has")
    found: dict[str, Any] = {"rules": [one.digest for one in saved]}
    curves: dict[str, dict[str, NDArray[np.float64]]] = {}
    chosen = [suite for suite in SUITES if not levels or suite.kind in levels]
    for suite in [QUICK] if quick else chosen:
        result, curves[suite.kind] = compare(suite, saved)
        result["met"] = _met(suite.kind, result, quick)
        result["curves"] = {name: thinned(curve)[1].mean(0).tolist() for name, curve in curves[suite.kind].items()}
        found[suite.kind] = result
    found["predictions"] = read_out(QUICK_READ if quick else READ, saved, quick)
    if not quick and cartpole_seeds:
        found["cartpole"] = cartpole(cartpole_seeds, rules[0] if rules else None)
    if plot is not None:
        from mlbits.evals.reproductions.learned_rules.plots import draw

        draw(curves, found["predictions"], plot)
    found["met"] = all(part["met"] for part in found.values() if isinstance(part, dict) and "met" in part)
    return found


def compare(suite: Suite, saved: list[SavedRule]) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    """Rules against all baselines in one suite.

    Returns:
        What :func:`reproduce` returns of a suite; and the curves [levels, updates] of each teacher, the first rule's.
    """
    tuned = {name: tune(suite, name) for name in ("a2c", "reinforce")}
    lived = lives(suite, saved, tuned)
    scores = {name: _scores(found) for name, found in lived.items()}
    a2c, play = scores["a2c"], scores["random play"]
    result: dict[str, Any] = {
        "levels": suite.levels, "copies": suite.copies, "updates": len(lived["rule"][0].rewards),
        "tuned": {name: vars(found) for name, found in tuned.items()},
        "reward": {name: {k: float(v.mean()) for k, v in both.items()} for name, both in scores.items()},
        "auc_ratio": ratio(scores["rule"]["whole"], a2c["whole"]),
        "iqm_auc": normalised_iqm(scores["rule"]["whole"], play["whole"][0], a2c["whole"][0], LEAST_GAIN),
        "above_a2c": share_above(scores["rule"]["final"], a2c["final"]),
    }  # fmt: skip
    rows: list[list[Any]] = []
    for name in BASELINES:
        result[name] = {k: paired_difference(scores["rule"][k], scores[name][k]) for k in ("final", "whole")}
        parts = [result["reward"][name]["final"], result["reward"][name]["whole"]]
        rows.append([name, *parts, *(_text(result[name][k]) for k in ("final", "whole"))])
    mean = result["reward"]["rule"]
    print_table(
        f"{suite.kind}: reward a step in {suite.levels} held-out levels, rules: {len(saved)}",
        ["taught by", "end", "life", "rule less this, end (95%)", "life (95%)"],
        [["rule", mean["final"], mean["whole"], "", ""], *rows],
        width=120,
    )
    for name, found in tuned.items():
        others = ", ".join(f"{key} {value:g}" for key, value in found.settings.items())
        print(f"  {name} tuned on training levels: learning rate {found.rate:g}, {others}")
    print(f"  area under the curve over A2C's: {_text(result['auc_ratio'])}")
    print(f"  interquartile mean of areas, 0 at random play, 1 at A2C: {_text(result['iqm_auc'])}")
    print(f"  share of levels that end above A2C: {_text(result['above_a2c'])}", flush=True)
    curves = {name: found[0].rewards.double().numpy().T for name, found in lived.items()}
    return result, curves


def _scores(found: list[Life]) -> dict[str, NDArray[np.float64]]:
    """Final reward and that of the whole life, [rules, levels] each."""
    both = [final_and_whole(life.rewards) for life in found]
    return {"final": np.stack([one for one, _ in both]), "whole": np.stack([one for _, one in both])}


def _met(kind: str, result: dict[str, Any], quick: bool) -> bool:
    """Whether a suite's targets are met."""
    helpless = ("untrained rule", "random rule", "random play")
    if quick:
        return all(result[name]["final"].low > 0 for name in helpless)
    if kind != "small":
        return bool(result["auc_ratio"].value >= AUC_SHARE)
    a2c = result["reward"]["a2c"]["final"]
    parity = result["a2c"]["final"].low > -MARGIN * a2c and result["a2c"]["final"].value >= 0
    return bool(parity and all(result[name]["final"].low > 0 for name in ("reinforce", *helpless)))


def read_out(suite: Suite, saved: list[SavedRule], quick: bool) -> dict[str, Any]:
    """Whether true values at discounts other than the rule's own are in y(s).

    Returns:
        "r2" by feature, [levels, discounts]; "less_td" by discount: R^2 of y less that of TD(lambda)'s value; "met",
        always if ``quick``.
    """
    names = ("y", "td", "untrained y")
    parts = [predictions.measure(suite, one) for one in saved]
    r2 = {name: np.stack([part[name] for part in parts]) for name in names}  # [rules, levels, discounts]
    known = np.isfinite(np.stack(list(r2.values()))).all((0, 1, 3))
    less: dict[str, Interval] = {}
    for k, discount in enumerate(predictions.DISCOUNTS):
        less[f"{discount:g}"] = paired_difference(r2["y"][:, known, k], r2["td"][:, known, k])
    rows = [[name, *r2[name][:, known].mean((0, 1)).tolist()] for name in names]
    rows.append(["y less td (95%)", *(_text(interval) for interval in less.values())])
    print_table(
        f"R^2 of linear read-outs of true values, {int(known.sum())} levels; td: the value of TD(lambda) at {OWN}",
        ["feature", *(f"discount {discount:g}" for discount in predictions.DISCOUNTS)],
        rows,
        width=140,
    )
    others = [less[f"{discount:g}"].low > 0 for discount in NAMED]
    return {
        "discounts": list(predictions.DISCOUNTS), "r2": {name: r2[name][:, known].tolist() for name in names},
        "less_td": less, "met": quick or all(others),
    }  # fmt: skip


def cartpole(seeds: int, rule: Path | None) -> dict[str, Any]:
    """The evaluation returns of agents that learn CartPole by a rule."""
    flags = ["--total-steps", str(CARTPOLE_STEPS), "--eval-every", "0", "--eval-episodes", "100", "--no-video"]
    if rule is not None:
        flags += ["--agent.rule", str(rule)]
    returns = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            summary = train_in_process("lpg", CARTPOLE, seed, *flags, out=Path(folder) / "run")
        returns.append(float(summary["return_mean"]))
    print_table(
        f"{CARTPOLE}, {CARTPOLE_STEPS:,} steps: mean return of 100 episodes",
        ["seed", "return"],
        [[str(seed), value] for seed, value in enumerate(returns)],
    )
    return {"returns": returns, "median": float(np.median(returns)), "steps": CARTPOLE_STEPS}


def _text(interval: Interval) -> str:
    return f"{interval.value:.4g} ({interval.low:.4g}, {interval.high:.4g})"
