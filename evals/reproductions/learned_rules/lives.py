"""Lives of agents in held-out levels: taught by a rule, by A2C or REINFORCE, at random, or by nothing.

All of them live in the same levels with the same random streams of the environment, and the same number of steps. The
settings of A2C and REINFORCE (learning rate, entropy bonus, discount, lambda) are tuned on training levels of the
same kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.learned_rules.files import SavedRule
from mlbits.agents.learned_rules.lifetimes import LEVEL_STEPS, Life, Teacher, by_rule, live, population_of, values_of
from mlbits.agents.learned_rules.populations import Hyper, Lesson, Outputs
from mlbits.agents.learned_rules.rule import LPGRule, Targets
from mlbits.agents.learned_rules.teachers import A2C, Reinforce, nothing
from mlbits.agents.learned_rules.values import TabularValues
from mlbits.envs.levels.collect_objects import HELD_OUT
from mlbits.envs.levels.worlds import Worlds

NUM_STEPS = 20
FINAL = 0.1  # the last fraction of a lifetime
TABLE_RATES, NETWORK_RATES = (40.0, 80.0, 160.0, 320.0), (5e-4, 1e-3, 2e-3, 4e-3)
# What is tried with each learning rate; the first alone where tuning is quick.
GRIDS: dict[str, list[dict[str, float]]] = {
    "a2c": [
        {"discount": discount, "gae_lambda": gae_lambda, "entropy_coef": entropy_coef}
        for discount, gae_lambda, entropy_coef in itertools.product((0.95, 0.99), (0.8, 0.95), (0.0, 0.01))
    ],
    "reinforce": [{"discount": 0.95}, {"discount": 0.99}],
}
_VALUE_RATE = 0.05  # of A2C's table; a faster one, as meta-training has, is worse by some percent
NETWORK_RATE = 1e-3  # of agents with a network that a rule teaches
_TUNING_SEED, _SEED = 500_000_003, 900_000_011


@dataclass(frozen=True)
class Suite:
    """Levels to live in.

    Attributes:
        kind: of the levels.
        levels: how many, with numbers from the first one held out.
        copies: of each level.
        lifetime: updates of 20 steps; None for as many as the levels are meant for.
        tuning_levels: training levels on which the yardsticks are tuned.
        rates: learning rates that are tried; () for the usual ones.
        thorough: whether to try all settings of the yardsticks.
    """

    kind: str
    levels: int
    copies: int = 16
    lifetime: int | None = None
    tuning_levels: int = 64
    rates: tuple[float, ...] = ()
    thorough: bool = True

    def worlds(self, split: str, repeats: int = 1) -> Worlds:
        """The suite's levels ``repeats`` times over; of the training levels as many as are for tuning."""
        held_out = split == "held-out"
        first, count = (HELD_OUT, self.levels) if held_out else (0, self.tuning_levels)
        numbers = np.tile(np.arange(first, first + count), repeats)
        seed = _SEED if held_out else _TUNING_SEED
        return Worlds(
            self.kind, len(numbers), self.copies, seed, split, numbers=numbers, lifetime=self.lifetime
        )  # fmt: skip


@dataclass(frozen=True)
class Tuned:
    """What a yardstick does best with.

    Attributes:
        rate: learning rate.
        settings: the others.
        tried: each combination and its score on the training levels.
    """

    rate: float
    settings: dict[str, float]
    tried: list[dict[str, float]]


def random_targets(seed: int) -> Teacher:
    """A rule that says anything: pi_hat ~ N(0, 1), and predictions' targets of random logits."""
    generator = torch.Generator().manual_seed(seed)

    def teach(lesson: Lesson, outputs: Outputs) -> Targets:
        pi_hat = torch.randn(lesson.reward.shape, generator=generator)
        return Targets(pi_hat, torch.randn(outputs.log_y.shape, generator=generator).log_softmax(-1))

    return teach


def final_and_whole(rewards: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean reward a step at the end of each life, and over all of it (the area under its curve), [L] each."""
    last = max(1, round(FINAL * len(rewards)))
    return rewards[-last:].double().mean(0).numpy(), rewards.double().mean(0).numpy()


def tune(suite: Suite, yardstick: str) -> Tuned:
    """The settings with the best sum of final and whole reward on training levels.

    Args:
        suite: whose training levels are used.
        yardstick: "a2c" or "reinforce".
    """
    tabular = suite.worlds("train").num_states is not None
    rates = suite.rates or (TABLE_RATES if tabular else NETWORK_RATES)
    tried: list[dict[str, float]] = []
    for settings in GRIDS[yardstick] if suite.thorough else GRIDS[yardstick][:1]:
        worlds = suite.worlds("train", len(rates))
        each = torch.tensor(rates).repeat_interleave(suite.tuning_levels)
        life = _live(worlds, _yardstick(yardstick, worlds, settings), each, torch.zeros_like(each), predictions=1)
        score = np.add(*final_and_whole(life.rewards)).reshape(len(rates), -1).mean(1)
        tried += [{"rate": r, **settings, "score": float(s)} for r, s in zip(rates, score, strict=True)]
    best = max(tried, key=lambda one: one["score"])
    return Tuned(best["rate"], {k: v for k, v in best.items() if k not in ("rate", "score")}, tried)


def lives(
    suite: Suite, saved: Sequence[SavedRule], tuned: dict[str, Tuned], watch: Callable[[Lesson], None] | None = None
) -> dict[str, list[Life]]:
    """Lives in the suite's held-out levels, by teacher.

    Args:
        suite: the levels.
        saved: rules, one or more.
        tuned: of "a2c" and "reinforce".
        watch: called with each rollout of the first rule's agents.

    Returns:
        "rule" (one life for each rule), "untrained rule" (for each rule one of its shape at its initial weights),
        "random rule", "a2c", "reinforce" and "random play" (one life each).
    """
    found: dict[str, list[Life]] = {"rule": [], "untrained rule": []}
    for k, one in enumerate(saved):
        for name, rule in (("rule", one.rule), ("untrained rule", LPGRule(one.rule.config, seed=k))):
            watching = watch if name == "rule" and k == 0 else None
            found[name].append(by_saved_rule(suite, one, by_rule(rule), watching))
    found["random rule"] = [by_saved_rule(suite, saved[0], random_targets(0))]
    found["random play"] = [by_saved_rule(suite, saved[0], nothing)]
    for name, chosen in tuned.items():
        worlds = suite.worlds("held-out")
        rate = torch.full((worlds.lifetimes,), chosen.rate)
        teacher = _yardstick(name, worlds, chosen.settings)
        found[name] = [_live(worlds, teacher, rate, torch.zeros_like(rate), predictions=1)]
    return found


def by_saved_rule(
    suite: Suite, saved: SavedRule, teacher: Teacher, watch: Callable[[Lesson], None] | None = None
) -> Life:
    """Lives of agents with a rule's own hyperparameters in the suite's held-out levels."""
    worlds = suite.worlds("held-out")
    alpha = torch.full((worlds.lifetimes,), saved.alpha)
    rate = torch.full_like(alpha, saved.learning_rate if worlds.num_states is not None else NETWORK_RATE)
    return _live(worlds, teacher, rate, alpha, predictions=saved.rule.config.predictions, watch=watch)


def _yardstick(name: str, worlds: Worlds, settings: dict[str, float]) -> Teacher:
    if name == "reinforce":
        return Reinforce(**settings)
    if worlds.num_states is not None:
        return A2C(TabularValues(worlds.lifetimes, worlds.num_states, _VALUE_RATE), **settings)
    return A2C(values_of(worlds, worlds.lifetimes, torch.Generator().manual_seed(_SEED)), **settings)


def _live(
    worlds: Worlds, teacher: Teacher, rate: Tensor, alpha: Tensor, *, predictions: int,
    watch: Callable[[Lesson], None] | None = None,
) -> Life:  # fmt: skip
    watching: dict[str, Any] = {} if watch is None else {"watch": watch}
    updates = int(worlds.lifetime_updates.max()) * LEVEL_STEPS // NUM_STEPS
    return live(
        teacher, worlds, population_of(worlds, predictions), Hyper(rate, alpha), updates=updates, num_steps=NUM_STEPS,
        seed=_SEED, **watching,
    )  # fmt: skip
