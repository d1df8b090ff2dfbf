"""The speed of many small policies, each with its own weights: whole episodes of 1,000 policies on PointMass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from mlbits.agents import kernels
from mlbits.agents.population.policies import Policies
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.registry import make_batch
from mlbits.evals.benchmarks.stopwatch import Row, Stopwatch
from mlbits.selfplay.population.playing import play

ENV, POLICIES, HIDDEN = "mlbits/PointMass-v0", 1000, (16, 16)


def bench_population(watch: Stopwatch) -> Iterator[Row]:
    """Policy-steps of a population: decisions, game and sums of rewards; weights are laid out anew for each episode."""
    batch = make_batch(ENV, POLICIES, watch.device, threads=1, illegal="replace")
    if kernels.enabled() and watch.device == "cpu":
        yield _row(watch, batch, f"{POLICIES:,} policies 4-16-16-2 on PointMass", plain=False)
    yield _row(watch, batch, f"{POLICIES:,} policies, plain torch (batched products)", plain=True)


class _Plain(Policies):
    """Policies that decide by plain torch."""

    def deciding(self, weights: torch.Tensor, each: int = 1) -> Any:
        return lambda obs, mask: self.decide(weights, obs, mask)


def _row(watch: Stopwatch, batch: GameBatch, name: str, plain: bool) -> Row:
    form = (_Plain if plain else Policies)(batch.observation_space, batch.action_space, HIDDEN, "tanh")
    weights = 0.3 * torch.randn(POLICIES, form.size, generator=torch.Generator().manual_seed(0))
    weights = weights.to(batch.device)
    assert batch.horizon is not None
    return watch.row(name, lambda: play(form, weights, batch, env=ENV), POLICIES * batch.horizon)
