"""``mlbits reproduce supervised-vs-rl``: examples needed to learn from rewards and from labels; is the ratio n?

Kaplan, "Notes on Contemporary Machine Learning for Physicists", section 8.4: under uniform answers the policy gradient
equals the gradient of cross-entropy times 1/n, n being the number of labels (see :mod:`mlbits.agents.classifier`). So
learning from the reward of one answer should take n times the examples that learning from labels takes: the 1/n law.

Measured on the images of Digits with 2, 5 and 10 labels, the label being the digit modulo n: the images are the same,
and only the number of possible answers changes. All learners have the same network, optimiser and batch size; each gets
the best of several learning rates for each n, chosen on separate seeds. A run counts the examples drawn, repeated
images included, until the accuracy on the test images first reaches a level. Seeds are paired between learners: the
same initial weights, the same examples in the same order.

The law counts as confirmed if under uniform answers the ratio to cross-entropy is within a factor of 1.5 of n, at 95%
accuracy. All other measurements show where it breaks down; docs/supervised.md describes the results.

Example:
    mlbits reproduce supervised-vs-rl --plot curves.png --json curves.json
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.classifier import Classifier, ClassifierConfig
from mlbits.envs.core.game import Game
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.registry import make_game
from mlbits.envs.supervised import supervised
from mlbits.evals.reproductions.plots import figure, save
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.statistics import mean_interval

LABELS = (2, 5, 10)
COPIES = 8  # examples per gradient step
LEVELS = (0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95)
TARGET, TOLERANCE = LEVELS[-1], 1.5
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
CHOOSING_SEEDS, MOST_CHOOSING = range(1000, 1003), 25_000
MOST = 60_000  # maximum number of examples of a run
QUICK_SEEDS = 3


class Learner(NamedTuple):
    """A learner to compare.

    Attributes:
        title: its name in tables.
        settings: settings of :class:`~mlbits.agents.classifier.ClassifierConfig`.
        colour: colour of its curves.
        quick_rates: the learning rates that the full run chose, by number of labels, for the quick run.
    """

    title: str
    settings: Mapping[str, Any]
    colour: str
    quick_rates: tuple[float, ...] = ()


BY_LABEL, UNIFORM = "cross_entropy", "uniform"
LEARNERS = {
    BY_LABEL: Learner("cross-entropy", {"loss": "cross_entropy"}, "black", (3e-2, 3e-2, 1e-2)),
    UNIFORM: Learner(
        "policy gradient, uniform answers", {"loss": "epsilon_greedy", "epsilon": 1.0}, "C0", (3e-2, 1e-2, 3e-3)
    ),
    "policy_gradient": Learner("policy gradient", {"loss": "policy_gradient"}, "C2"),
    "baseline": Learner("policy gradient, mean baseline", {"loss": "policy_gradient", "baseline": "mean"}, "C4"),
    "epsilon_greedy": Learner("policy gradient, epsilon-greedy", {"loss": "epsilon_greedy", "epsilon": 0.3}, "C1"),
    "q": Learner("Q loss, epsilon-greedy", {"loss": "q", "epsilon": 0.3}, "C3"),
}


@cache
def task(labels: int, split: Literal["train", "test"], feedback: Literal["bandit", "full"]) -> Game:
    """The images of Digits, with the digit modulo ``labels`` as label."""
    data = make_game("mlbits/Digits-v0", split="all").params[0]
    return supervised(data["features"], data["labels"] % labels, split=split, feedback=feedback)


@cache
def test_images(labels: int) -> tuple[Tensor, Tensor]:
    """All images of the test split [N, 64], and their labels [N]."""
    data = task(labels, "test", "bandit").params[0]
    rows = data["members"][data["first"] :][: data["examples"]]
    return torch.from_numpy(data["features"][rows]), torch.from_numpy(data["labels"][rows].astype(np.int64))


def accuracy(agent: Classifier, labels: int) -> float:
    """Fraction of the test images whose greatest score is that of the right label."""
    images, wanted = test_images(labels)
    with torch.no_grad():
        scores = agent.network({"features": images} if agent.config.loss == "cross_entropy" else images)
    return float((scores.argmax(-1) == wanted).float().mean())


def examples_to_levels(
    learner: str, labels: int, rate: float, seed: int, *, levels: Sequence[float] = LEVELS, most: int = MOST
) -> list[int | None]:
    """Train until the last accuracy level is reached.

    Args:
        learner: key of LEARNERS.
        labels: number of labels n.
        rate: learning rate.
        seed: seed of weights, examples and answers.
        levels: accuracies on the test images, ascending.
        most: maximum number of examples.

    Returns:
        For each level, the number of examples drawn when the accuracy first reached it, or None.
    """
    settings = LEARNERS[learner].settings
    game = task(labels, "train", "full" if settings["loss"] == "cross_entropy" else "bandit")
    batch = GameBatch(game, COPIES, seed=seed, threads=1)
    config = ClassifierConfig(**settings, learning_rate=rate)
    agent = Classifier(config, game.observation_space, game.action_space, seed=seed)
    collector = Collector(batch, agent.experience, torch.Generator().manual_seed(seed))
    lineup, shuffles = self_play(agent, COPIES, 1, batch.device), torch.Generator()
    found: list[int | None] = []
    drawn, look_at = 0, 0.0
    while drawn < most and len(found) < len(levels):
        rollout, _, steps = collector.collect(lineup)
        agent.learn(rollout, 0.0, shuffles)
        drawn += steps
        if drawn >= look_at:
            look_at = 1.03 * drawn
            right = accuracy(agent, labels)
            while len(found) < len(levels) and right >= levels[len(found)]:
                found.append(drawn)
    return found + [None] * (len(levels) - len(found))


def choose_rate(learner: str, labels: int) -> float:
    """The learning rate that needs the fewest examples, by the geometric mean over separate seeds."""

    def cost(rate: float) -> float:
        runs = [
            examples_to_levels(learner, labels, rate, seed, levels=(TARGET,), most=MOST_CHOOSING)[0]
            for seed in CHOOSING_SEEDS
        ]
        return sum(math.log(run or 2 * MOST_CHOOSING) for run in runs)

    return min(RATES, key=cost)


def ratio_to_labels(runs: Sequence[float | None], by_label: Sequence[float | None]) -> dict[str, float] | None:
    """The ratio of examples needed: the geometric mean over paired seeds, with its 95% interval.

    None if a seed did not reach the level.
    """
    logs = [math.log(one / other) for one, other in zip(runs, by_label, strict=True) if one and other]
    return _geometric(logs) if len(logs) == len(runs) else None


def _geometric(logs: Sequence[float]) -> dict[str, float]:
    mean, (low, high) = mean_interval(logs)
    return {"mean": math.exp(mean), "low": math.exp(low), "high": math.exp(high)}


def reproduce(quick: bool = False, seeds: int = 10, plot: Path | None = None) -> dict[str, Any]:
    """Measure all learners with 2, 5 and 10 labels.

    Args:
        quick: only cross-entropy and uniform answers, three seeds, learning rates as chosen by the full run.
        seeds: runs of each learner and number of labels.
        plot: write a plot of the curves to this file (needs matplotlib).

    Returns:
        "levels"; "results", a list with labels, learner, rate, examples (by level, then seed; None where not reached),
        needed and ratio (by level: mean, low, high, or None); and "met".

    Raises:
        ReproductionError: if there are no seeds, or a plot is asked for and cannot be drawn.
    """
    if seeds < 1:
        raise ReproductionError(f"seeds: got {seeds}; wanted at least 1")
    if plot is not None:
        figure(1)  # fails now, not after minutes of training, if it cannot be drawn
    set_up(threads=1)
    names = [name for name, learner in LEARNERS.items() if learner.quick_rates] if quick else list(LEARNERS)
    results = []
    for column, labels in enumerate(LABELS):
        by_label: list[list[int | None]] = []
        for name in names:
            rate = LEARNERS[name].quick_rates[column] if quick else choose_rate(name, labels)
            runs = [examples_to_levels(name, labels, rate, seed) for seed in range(QUICK_SEEDS if quick else seeds)]
            examples = [list(level) for level in zip(*runs, strict=True)]
            by_label = examples if name == BY_LABEL else by_label
            results.append(_result(labels, name, rate, examples, by_label))
            print(_line(results[-1]), flush=True)
    result = {
        "levels": list(LEVELS),
        "results": results,
        "met": all(_follows_the_law(r) for r in results if r["learner"] == UNIFORM),
    }
    _print(result)
    if plot is not None:
        draw(result, plot)
    return result


def _result(
    labels: int, name: str, rate: float, examples: list[list[int | None]], by_label: list[list[int | None]]
) -> dict[str, Any]:
    needed = [_geometric([math.log(run) for run in level if run]) if all(level) else None for level in examples]
    ratio = [ratio_to_labels(*levels) for levels in zip(examples, by_label, strict=True)]
    if name == BY_LABEL:  # its ratio to itself is 1
        ratio = [None if level is None else {"mean": 1.0, "low": 1.0, "high": 1.0} for level in ratio]
    return {"labels": labels, "learner": name, "rate": rate, "examples": examples, "needed": needed, "ratio": ratio}


def _follows_the_law(result: Mapping[str, Any]) -> bool:
    """Whether the ratio at the target is about n."""
    ratio = result["ratio"][-1]
    return ratio is not None and 1 / TOLERANCE <= ratio["mean"] / result["labels"] <= TOLERANCE


def _line(result: Mapping[str, Any]) -> str:
    return (
        f"{result['labels']:2} labels, {LEARNERS[result['learner']].title}: {_needed(result)} examples to {TARGET:.0%}"
    )


def _needed(result: Mapping[str, Any]) -> str:
    """Examples to the target, or how many runs did not reach it."""
    runs = result["examples"][-1]
    short = sum(run is None for run in runs)
    return f"{short} of {len(runs)} not in {MOST:,}" if short else _cell(result["needed"][-1], ",.0f")


def _cell(value: Mapping[str, float] | None, form: str) -> str:
    return "-" if value is None else f"{value['mean']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def _print(result: Mapping[str, Any]) -> None:
    shown = [LEVELS.index(level) for level in (0.8, 0.9, 0.95)]
    print_table(
        f"examples to {TARGET:.0%} test accuracy [95% interval], and how many times cross-entropy's at three levels; "
        f"target: under uniform answers within a factor of {TOLERANCE} of the number of labels at {TARGET:.0%}",
        ["labels", "learner", "rate", "examples", *(f"ratio at {LEVELS[k]:.0%}" for k in shown)],
        [
            [
                row["labels"], LEARNERS[row["learner"]].title, row["rate"], _needed(row),
                *(_cell(row["ratio"][k], ".1f") for k in shown),
            ]
            for row in result["results"]
        ],
        width=150,
    )  # fmt: skip


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw accuracy over examples and, below, the ratio to cross-entropy over accuracy; a column per number of labels.

    Args:
        result: from :func:`reproduce`.
        path: an image file to write.

    Raises:
        ReproductionError: if matplotlib is not installed, or the file cannot be written.
    """
    counts = sorted({row["labels"] for row in result["results"]})
    canvas, panels = figure(len(counts), width=3.0, height=2.8, rows=2)
    levels = np.array(result["levels"])
    for row in result["results"]:
        column = counts.index(row["labels"])
        look = {"color": LEARNERS[row["learner"]].colour, "label": LEARNERS[row["learner"]].title, "marker": "."}
        accuracy_at, examples, low, high = _band(levels, row["needed"])
        panels[column].plot(examples, accuracy_at, **look)
        panels[column].fill_betweenx(accuracy_at, low, high, color=look["color"], alpha=0.15, linewidth=0)
        accuracy_at, ratio, low, high = _band(levels, row["ratio"])
        panels[column + len(counts)].plot(accuracy_at, ratio, **look)
        panels[column + len(counts)].fill_between(accuracy_at, low, high, color=look["color"], alpha=0.15, linewidth=0)
    parts = [part for row in result["results"] for part in row["ratio"] if part is not None]
    most = max(part["high"] if math.isfinite(part["high"]) else part["mean"] for part in parts)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= 1.2 * most]
    for column, labels in enumerate(counts):
        upper, lower = panels[column], panels[column + len(counts)]
        upper.set(title=f"{labels} labels", xscale="log", xlabel="examples drawn", ylim=(levels[0] - 0.02, 1))
        lower.set(xlabel="test accuracy", yscale="log", ylim=(0.6, 1.2 * most))
        lower.set_yticks(ticks, [str(tick) for tick in ticks])
        lower.minorticks_off()
        lower.axhline(labels, color="black", linestyle="--", linewidth=1)
        lower.set_title(f"dashed: the law, {labels}", fontsize=9)
        for panel in (upper, lower):
            panel.grid(alpha=0.25)
    panels[0].set_ylabel("test accuracy")
    panels[len(counts)].set_ylabel("examples, relative to cross-entropy")
    handles, titles = panels[0].get_legend_handles_labels()
    canvas.legend(handles, titles, loc="outside lower center", ncols=3, frameon=False)
    save(canvas, path)


def _band(levels: NDArray[np.float64], values: Sequence[Mapping[str, float] | None]) -> tuple[list[float], ...]:
    """The levels that were reached, and the mean, low and high of each; no band where an interval is infinite."""
    there = [(level, value) for level, value in zip(levels.tolist(), values, strict=True) if value is not None]
    means = [value["mean"] for _, value in there]
    ends = [
        [value[end] if math.isfinite(value["high"]) else value["mean"] for _, value in there] for end in ("low", "high")
    ]
    return [level for level, _ in there], means, *ends
