"""``mlbits reproduce similarity``: networks that see how similar they are, and keep cooperating in part.

Oesterheld et al., "Similarity-based cooperative equilibrium" (arXiv 2211.14468), the high-dimensional one-shot
Prisoner's Dilemma. We know its claims in words, not its numbers: after CCDR pretraining two networks cooperate almost
fully; under alternating best response (ABR) cooperation erodes, then levels off in part; the same happens for a network
and its literal copy; from random weights, and without the gradient through the difference, they end up defecting; LOLA
was tried and is unstable.

Measured, over seeds, is the loss of a pair (the mean of both seats: 1 is mutual cooperation, 5 mutual defection) after
pretraining and after each turn of ABR, in four conditions, and with LOLA if a step size is given. The claims count as
confirmed if

- after pretraining the mean loss is at most 1.1,
- after the last turn it is at most 2 with pretraining, and at least 3 without,
- and at least 4.5 with the gradient through the difference cut.

Sizes and learning rates are ours: see :mod:`mlbits.envs.policy_similarity` and
:mod:`mlbits.agents.ccdr`. docs/similarity.md describes the results.

Example:
    mlbits reproduce similarity --plot similarity.png --json similarity.json
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.ccdr import (
    SimilarityLearningConfig,
    SimilarityPairs,
    alternate,
    make_pairs,
    pretrain,
)
from mlbits.envs.core.errors import GameError
from mlbits.envs.policy_similarity import SimilarityGame
from mlbits.evals.reproductions.plots import figure, mean_band, save
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.statistics import interquartile_mean, iqm_interval, mean_interval

PRETRAINED, PARTIAL, WITHOUT, DEFECTION = 1.1, 2.0, 3.0, 4.5  # bounds of the mean loss, in the order above
QUICK_SEEDS, QUICK_TURNS = 2, 10
SEEN, CONTEXTS = torch.linspace(0, 0.5, 26), 256  # of the response curves


class Condition(NamedTuple):
    """One experimental condition.

    Attributes:
        title: its name in the table and the plot.
        colour: colour of its curve.
        pretrained: whether CCDR pretraining comes first.
        seats: seats of the networks that are paired; (0, 0) pairs literal copies.
        cut_gradient: see :class:`~mlbits.agents.ccdr.SimilarityLearningConfig`.
        lola: whether LOLA's lookahead step is used.
    """

    title: str
    colour: str
    pretrained: bool = True
    seats: tuple[int, int] = (0, 1)
    cut_gradient: bool = False
    lola: bool = False


CONDITIONS = {
    "abr": Condition("CCDR, then ABR", "C0"),
    "copies": Condition("the same, literal copies", "C2", seats=(0, 0)),
    "no_pretraining": Condition("ABR from random weights", "C1", pretrained=False),
    "cut": Condition("CCDR, ABR with gradient cut", "C3", cut_gradient=True),
    "lola": Condition("CCDR, then LOLA", "C4", lola=True),
}


def reproduce(
    quick: bool = False,
    seeds: int = 10,
    turns: int = 60,
    lookahead: float = 0.0,
    game_seed: int = 0,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Train pairs of networks in each condition and record their losses.

    Args:
        quick: two seeds and ten turns; without literal copies and LOLA.
        seeds: number of pairs in each condition.
        turns: turns of alternating best response.
        lookahead: size of the opponent's step that LOLA differentiates through; 0 leaves LOLA out.
        game_seed: seed of the random functions that define cooperation and defection.
        plot: write a plot of the curves to this file (needs matplotlib).

    Returns:
        "turns", where 0 is after pretraining; "conditions": for each, "loss" and "cooperation", means of both
        seats, and "difference", each [seeds][turns]; "seen" and "responses": how much the networks cooperate as a
        function of the difference they see [seeds][seen], when "pretrained" and after "abr"; "lookahead"; and "met".

    Raises:
        ReproductionError: if there is no seed or turn, or a plot is asked for and cannot be drawn.
        AgentError: if the step size is negative or not finite.
        GameError: if the game's seed is negative.
    """
    for name, value in (("seeds", seeds), ("turns", turns)):
        if value < 1:
            raise ReproductionError(f"{name}: got {value}; wanted at least 1")
    # Check everything now, not after minutes of training.
    game, config = SimilarityGame(seed=game_seed), SimilarityLearningConfig(turns=turns, lookahead=lookahead)
    if plot is not None:
        figure(1)
    set_up(threads=1)
    if quick:
        seeds, turns, lookahead = QUICK_SEEDS, min(turns, QUICK_TURNS), 0.0
        config = dataclasses.replace(config, turns=turns)
    raw = make_pairs(game, config, range(seeds))
    pretrained = raw.copy()
    pretrain(game, pretrained, config)
    result: dict[str, Any] = {
        "turns": list(range(turns + 1)), "conditions": {}, "lookahead": lookahead, "seen": _rounded(SEEN),
        "responses": {"pretrained": _responses(game, pretrained)},
    }  # fmt: skip
    for name, condition in CONDITIONS.items():
        if (condition.lola and lookahead == 0) or (quick and name == "copies"):
            continue
        pairs = (pretrained if condition.pretrained else raw).copy(condition.seats)
        look = lookahead if condition.lola else 0.0
        learning = dataclasses.replace(config, cut_gradient=condition.cut_gradient, lookahead=look)
        try:
            result["conditions"][name] = _follow(game, pairs, learning)
        except GameError as error:  # weights that diverge, as LOLA's may
            print(f"{condition.title}: given up, its networks diverged ({error})", flush=True)
            continue
        if name == "abr":
            result["responses"]["abr"] = _responses(game, pairs)
        print(f"{condition.title}: loss {pair_loss(result, name)[:, -1].mean():.2f} after {turns} turns", flush=True)
    result["met"] = met(result)
    _print(result)
    if plot is not None:
        draw(result, plot)
    return result


def _follow(game: SimilarityGame, pairs: SimilarityPairs, config: SimilarityLearningConfig) -> dict[str, Any]:
    """Loss, cooperation and difference of each pair, before the first turn and after each turn."""
    rows: dict[str, list[Tensor]] = {"loss": [], "cooperation": [], "difference": []}
    for _ in itertools.chain([0], alternate(game, pairs, config)):
        outcome = pairs.evaluate(game)
        rows["loss"].append(outcome.loss.mean(1).double().mean(-1))
        rows["cooperation"].append(outcome.cooperation.mean(1).double().mean(-1))
        rows["difference"].append(outcome.difference)
    return {name: _rounded(torch.stack(values, 1)) for name, values in rows.items()}


def _rounded(values: Tensor) -> list[Any]:
    """Nested lists, rounded to the fifth decimal."""
    return values.double().numpy().round(5).tolist()


def _responses(game: SimilarityGame, pairs: SimilarityPairs) -> list[list[float]]:
    """How much each pair's networks cooperate when they see the differences SEEN; the mean of both seats."""
    contexts = torch.rand(CONTEXTS, game.context_size, generator=torch.Generator().manual_seed(0))
    return [
        _rounded(torch.stack([game.response(player.member(k), SEEN, contexts) for player in pairs.players]).mean(0))
        for k in range(len(pairs.generators))
    ]


def pair_loss(result: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """The loss of a condition's pairs [seeds, turns]."""
    return np.array(result["conditions"][name]["loss"], float)


def met(result: Mapping[str, Any]) -> bool:
    """Whether the mean losses lie within the bounds above; False if a condition was given up."""
    judged = ("abr", "no_pretraining", "cut")
    if not set(judged) <= set(result["conditions"]):
        return False
    loss = {name: pair_loss(result, name).mean(0) for name in judged}
    return bool(
        loss["abr"][0] <= PRETRAINED
        and loss["abr"][-1] <= PARTIAL
        and loss["no_pretraining"][-1] >= WITHOUT
        and loss["cut"][-1] >= DEFECTION
    )


def _print(result: Mapping[str, Any]) -> None:
    rows = []
    last = result["turns"][-1]
    shown = [turn for turn in (0, 1, 20) if turn < last] + [last]
    for name, curves in result["conditions"].items():
        loss = pair_loss(result, name)
        mean, (low, high) = mean_interval(loss[:, -1])
        middle, middle_interval = interquartile_mean(loss[:, -1]), iqm_interval([loss[:, -1]])
        partial = int(((loss[:, -1] > PRETRAINED) & (loss[:, -1] <= PARTIAL)).sum())
        rows.append(
            [
                CONDITIONS[name].title, *(f"{loss[:, turn].mean():.2f}" for turn in shown[:-1]),
                f"{mean:.2f} [{low:.2f}, {high:.2f}]", f"{loss[:, -1].min():.2f} to {loss[:, -1].max():.2f}",
                f"{middle:.2f} [{middle_interval[0]:.2f}, {middle_interval[1]:.2f}]", f"{partial} of {len(loss)}",
                f"{np.mean(curves['difference'], 0)[-1]:.3f}",
            ]
        )  # fmt: skip
    print_table(
        f"a pair's loss (1: both cooperate, 5: both defect) after each turn shown; wanted at 0 at most {PRETRAINED:g}, "
        f"at {last} at most {PARTIAL:g}, from random weights at least {WITHOUT:g}, gradient cut at least {DEFECTION:g}",
        [
            "condition", *(str(turn) for turn in shown[:-1]), f"{last}: mean [95%]", "range", "IQM [95%]",
            f"in part (over {PRETRAINED:g}, to {PARTIAL:g})", "difference",
        ],
        rows,
        width=150,
    )  # fmt: skip


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Plot losses and differences over turns, each condition's mean with its 95% band, and response curves.

    Args:
        result: from :func:`reproduce`.
        path: an image file to write.

    Raises:
        ReproductionError: if matplotlib is not installed, or the file cannot be written.
    """
    canvas, (losses, differences, responses) = figure(3, width=4.2)
    turns = np.array(result["turns"], float)
    for name in result["conditions"]:
        condition = CONDITIONS[name]
        if condition.lola:  # too unstable for a band
            for k, run in enumerate(pair_loss(result, name)):
                title = "" if k else f"{condition.title} (each run)"
                losses.plot(turns, run, color=condition.colour, linewidth=0.6, alpha=0.7, label=title)
            continue
        mean_band(losses, turns, pair_loss(result, name), condition.title, condition.colour)
        mean_band(differences, turns, np.array(result["conditions"][name]["difference"]), "", condition.colour)
    for level, word in ((1, "both cooperate"), (5, "both defect")):
        losses.axhline(level, color="black", linewidth=1, linestyle=":")
        losses.text(turns[-1], level, word, fontsize=8, ha="right", va="bottom")
    losses.set(xlabel="turns of best response", ylabel="loss of a pair", ylim=(0.8, 5.6))
    differences.set(xlabel="turns of best response", ylabel="difference of the two", yscale="log")
    seen = np.array(result["seen"])
    looks = {"pretrained": ("after CCDR", "black"), "abr": (f"{turns[-1]:.0f} turns later", "C0")}
    for name, curves in result["responses"].items():
        mean_band(responses, seen, np.array(curves), *looks[name])
    responses.axvspan(0, 0.1, color="grey", alpha=0.15, linewidth=0)
    responses.set(xlabel="difference seen (grey: what copies see)", ylabel="cooperation", ylim=(0, 1))
    responses.legend(frameon=False)
    for panel in (losses, differences, responses):
        panel.grid(alpha=0.25)
    handles, titles = losses.get_legend_handles_labels()
    canvas.legend(handles, titles, loc="outside lower center", ncols=3, frameon=False)
    save(canvas, path)
