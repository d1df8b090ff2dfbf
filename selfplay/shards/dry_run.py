"""``mlbits train ... --dry-run``: what would be trained, and which process would have which shards."""

from __future__ import annotations

import dataclasses

from mlbits.agents.registry import agent_entry
from mlbits.selfplay.actors.checks import check_actors, check_learner
from mlbits.selfplay.league.learners import divided
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.job_flags import JobFlags, check_seeds
from mlbits.selfplay.session import open_session
from mlbits.selfplay.shards.launcher import Launched
from mlbits.selfplay.shards.places import LOOP, check_sharded, number_of_workers, plan
from mlbits.selfplay.shards.session import check_agent


def planned(settings: Settings, seeds: int | None, where: JobFlags, by: Launched | None) -> str:
    """Who goes where, in lines, after the checks that a run makes before it trains.

    Args:
        settings: of the run, or of the first of several.
        seeds: how many runs, one seed after another; None for one run.
        where: how many of them at once, and on which cluster.
        by: what a launcher says, if there is one.

    Raises:
        MlbitsError: as training would raise before its first step.
    """
    places = divided(settings.run.shards, number_of_workers(settings.run, by))
    _check(settings)
    text = plan(settings.run, places, by)
    if seeds is None:
        return text
    check_seeds(seeds)
    at_once = f"{where.jobs or 1} at once"
    if where.cluster and where.jobs is None:
        at_once = "as many at once as the cluster has CPUs"
    first = settings.run.seed
    return f"{seeds} runs, with the seeds {first} to {first + seeds - 1}, {at_once}; each:\n{text}"


def _check(settings: Settings) -> None:
    """Refuse what training would refuse: builds a run or its first shard, on the CPU of any machine."""
    check_sharded(settings)
    check_actors(settings)
    if agent_entry(settings.agent).trainer != LOOP:
        return
    run = dataclasses.replace(settings.run, device="cpu", env_workers=1, actors=0)
    first = open_session(dataclasses.replace(settings, run=run), start=False)
    try:
        if settings.run.actors:
            check_learner(settings, first.learner)
        if settings.run.shards > 1:
            check_agent(settings, first)
    finally:
        first.close()
