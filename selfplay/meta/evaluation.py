"""How good a rule is while it is trained: whole lifetimes of new agents, beside A2C and random play in the same levels.

The levels are always the same ones, drawn from those for training with a seed that no run trains with; the held-out
levels are left for the end (``mlbits reproduce lpg``). Reward is per step, so that long and short lifetimes compare.

It also tells what the predictions contain: at the end of a lifetime, how well a linear read-out of y gives the values
of the agent's own policy at several discounts, which tables learned by temporal differences beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.learned_rules.bandit import Bandit
from mlbits.agents.learned_rules.config import MetaLPGConfig
from mlbits.agents.learned_rules.lifetimes import LEVEL_STEPS, Life, Teacher, by_rule, live, population_of, values_of
from mlbits.agents.learned_rules.populations import Hyper, Lesson
from mlbits.agents.learned_rules.readout import readout_r2, temporal_difference
from mlbits.agents.learned_rules.rule import LPGRule, log_softmax
from mlbits.agents.learned_rules.teachers import A2C, nothing
from mlbits.envs.levels.worlds import Worlds
from mlbits.selfplay.statistics import mean_interval

SEED = 1_000_000_007  # of levels and actions, as of other runs' evaluations
DISCOUNTS = (0.5, 0.9, 0.99)
_TD_RATE = 0.1
_FINAL = 0.1  # the last fraction of a lifetime


class Evaluator:
    """Measures rules in one set of levels.

    Args:
        config: of meta-training.
        kinds: of levels.
        agents: how many agents live, each in a level of its own, over all kinds.
        device: where they live.
    """

    def __init__(self, config: MetaLPGConfig, kinds: Sequence[str], agents: int, device: torch.device) -> None:
        self._config, self._kinds, self._device = config, kinds, device
        self._each = max(2, agents // len(kinds))
        self._yardsticks: dict[str, dict[str, Tensor]] = {}

    def measure(self, rule: LPGRule, arms: Sequence[int]) -> tuple[dict[str, float], dict[str, Any]]:
        """The scalars to record, and the evaluation as plain data.

        Args:
            rule: as it is now.
            arms: the agents' hyperparameters in each kind of levels, as numbers of the bandit's arms.
        """
        final, whole = dict[str, list[Tensor]](), dict[str, list[Tensor]]()
        found = list[Tensor]()
        for kind, arm in zip(self._kinds, arms, strict=True):
            if kind not in self._yardsticks:
                self._yardsticks[kind] = self._yardstick(kind)
            life, r2 = self._live(kind, "rule", by_rule(rule), arm)
            found.append(r2)
            for name, rewards in {"rule": life.rewards, **self._yardsticks[kind]}.items():
                last = max(1, round(_FINAL * len(rewards)))
                final.setdefault(name, []).append(rewards[-last:].mean(0))
                whole.setdefault(name, []).append(rewards.mean(0))
        ends = {name: torch.cat(parts).double().cpu().numpy() for name, parts in final.items()}
        mean, (low, high) = mean_interval(ends["rule"])
        scalars = {"return/eval": mean, "return/eval_low": low, "return/eval_high": high}
        for name, parts in whole.items():
            scalars[f"rule/final_reward_{name}"] = float(ends[name].mean())
            scalars[f"rule/lifetime_reward_{name}"] = float(torch.cat(parts).mean())
        scalars = {name.removesuffix("_rule"): value for name, value in scalars.items()}
        contained = torch.stack(found).nanmean(0).tolist()
        scalars |= {f"prediction/r2_discount_{d:g}": r2 for d, r2 in zip(DISCOUNTS, contained, strict=True)}
        return scalars, {
            "return_mean": mean, "return_interval": [low, high], "episodes": len(ends["rule"]),
            "rewards": {name.partition("/")[2]: value for name, value in scalars.items() if name.startswith("rule/")},
        }  # fmt: skip

    def _yardstick(self, kind: str) -> dict[str, Tensor]:
        """The rewards of A2C and of random play, [updates, L] each."""
        return {name: self._live(kind, name, None, 0)[0].rewards for name in ("a2c", "random")}

    def _live(self, kind: str, name: str, teacher: Teacher | None, arm: int) -> tuple[Life, Tensor]:
        """A lifetime by a teacher, and R^2 of its predictions' read-outs, [discounts]."""
        config = self._config
        levels = Worlds(kind, self._each, config.copies, seed=SEED, device=self._device, **config.level_settings())
        tabular, count = levels.num_states is not None, self._each
        arms = Bandit(config.table_rates if tabular else config.network_rates, config.alphas)
        hyper = arms.hyper(torch.full((count,), arm), self._device)
        if teacher is None:
            values = values_of(levels, count, torch.Generator(self._device).manual_seed(SEED))
            rate = config.a2c_rate if tabular else config.a2c_network_rate
            hyper = Hyper(torch.full_like(hyper.alpha, rate), hyper.alpha)
            a2c = A2C(values, discount=config.discount, entropy_coef=config.a2c_entropy_coef)
            teacher = a2c if name == "a2c" else nothing
        population = population_of(levels, config.predictions)
        shape = len(DISCOUNTS), count, levels.num_states or 1
        tables, seen = torch.zeros(shape, device=self._device), torch.zeros(shape[1:], device=self._device)

        def watch(lesson: Lesson) -> None:
            if tabular and name == "rule":
                for table, discount in zip(tables, DISCOUNTS, strict=True):
                    temporal_difference(lesson, table, discount=discount, rate=_TD_RATE)

        updates = int(levels.lifetime_updates.max()) * LEVEL_STEPS // config.num_steps
        life = live(
            teacher, levels, population, hyper, updates=updates, num_steps=config.num_steps, seed=SEED, watch=watch
        )
        if not (tabular and name == "rule"):
            return life, torch.full((len(DISCOUNTS),), torch.nan, device=self._device)
        y = log_softmax(life.state["table"][..., levels.num_actions :]).exp()
        places = life.lesson.obs.transpose(0, 1).flatten(1)
        seen.scatter_add_(1, places, torch.ones_like(places, dtype=seen.dtype))
        return life, torch.stack([readout_r2(y, table, seen).nanmean() for table in tables])
