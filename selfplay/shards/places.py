"""Who goes where: which process has which shards of a run, and whether they would compute equal bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mlbits.agents.registry import agent_entry
from mlbits.envs.engine.multicore import usable_cores
from mlbits.envs.engine.processor import describe, described
from mlbits.selfplay.league.learners import learner_groups, learner_names, overlap, roles_of
from mlbits.selfplay.runs.config import ConfigError, RunConfig, Settings
from mlbits.selfplay.shards.launcher import Launched, one_of_several_tasks
from mlbits.version import __version__

LOOP = "mlbits.selfplay.loop"


def number_of_workers(run: RunConfig, by: Launched | None) -> int:
    """Among how many processes the shards of a run are divided.

    Args:
        run: its settings.
        by: what a launcher says, if there is one.

    Raises:
        ConfigError: if the launcher has started more than there are shards, or others than were asked for, or does
            not say where they meet.
    """
    if by is not None:
        if run.workers not in (0, 1, by.world):
            raise ConfigError(f"workers: got {run.workers}, and the launcher started {by.world}; wanted one number")
        if by.world > run.shards:
            raise ConfigError(
                f"workers: the launcher started {by.world} for {run.shards} shard{'s' * (run.shards > 1)}; wanted at "
                "most as many workers as shards (shards)"
            )
        return by.world
    if run.shards > 1 and one_of_several_tasks():  # else each would train the same run
        raise ConfigError(
            "MASTER_ADDR: missing, and srun started several processes; wanted it and MASTER_PORT, or srun --ntasks=1 "
            "with workers"
        )
    if run.workers:
        return run.workers
    places = torch.cuda.device_count() if run.device != "cpu" and torch.cuda.is_available() else usable_cores()
    return max(1, min(run.shards, places))


def check_sharded(settings: Settings) -> None:
    """Refuse what cannot be cut into shards, before anything is built.

    Raises:
        ConfigError: naming the setting.
    """
    run, number = settings.run, settings.run.shards
    if number == 1:
        return
    if agent_entry(settings.agent).trainer != LOOP:
        raise ConfigError(f"shards: got {number} with {settings.agent}, whose training has a loop of its own; wanted 1")
    if run.data:
        raise ConfigError(f"shards: got {number} with a dataset (data), which has no copies; wanted 1")
    copies, most = run.num_envs // number, max(len(group.learners) for group in learner_groups(run))
    if copies < most:
        raise ConfigError(
            f"num_envs: got {run.num_envs} in {number} shards of {copies}, each for up to {most} learners of the "
            "league; wanted at least one copy for each"
        )


def plan(run: RunConfig, places: Sequence[range], by: Launched | None = None) -> str:
    """Who goes where, in lines."""
    copies, workers = run.num_envs // run.shards, len(places)
    cut = f"{run.shards} shards of {copies}" if run.shards > 1 else "1 shard"
    lines = [f"{run.num_envs} copies in {cut}; {workers} worker{'s' * (workers > 1)}"]
    for rank, shards in enumerate(places):
        who = "this process, the driver" if rank == 0 else "a process of this machine"
        if by is not None:
            who = f"the driver, at {by.address}" if rank == 0 else "started by the launcher"
        first, last = shards[0] * copies, shards[-1] * copies + copies - 1
        lines.append(f"worker {rank}: {_several('shard', shards)}, copies {first} to {last} ({who})")
    return "\n".join([*lines, *_plan_of_league(run, places)])


def _plan_of_league(run: RunConfig, places: Sequence[range]) -> list[str]:
    """Which learners of a league learn from which shards, and on which workers; nothing without a league."""
    names, groups = learner_names(roles_of(run)), learner_groups(run)
    if len(names) == 1:
        return []
    lines = [f"a league of {len(names)} learners in {len(groups)} group{'s' * (len(groups) > 1)}"]
    for number, group in enumerate(groups):
        own = " and ".join(names[k] for k in group.learners)
        ranks = [rank for rank, shards in enumerate(places) if overlap(shards, group.shards)]
        lines.append(f"group {number}: {own}; {_several('shard', group.shards)}, {_several('worker', ranks)}")
    return lines


def _several(what: str, numbers: Sequence[int]) -> str:
    """Shard 3, or shards 3 to 5."""
    return f"{what}s {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{what} {numbers[0]}"


def about_this_process() -> dict[str, str]:
    """What has to be the same in all processes of a run for them to compute equal bits."""
    return {
        "mlbits": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": described(describe()),
    }


def check_same(facts: Sequence[Mapping[str, str]]) -> None:
    """Refuse processes that would not compute equal bits.

    Args:
        facts: of each process, by rank, from :func:`about_this_process`.

    Raises:
        ConfigError: naming the first that differs from the driver.
    """
    for rank, own in enumerate(facts):
        for name, wanted in facts[0].items():
            if own.get(name) != wanted:
                raise ConfigError(
                    f"workers: worker {rank} has the {name} {own.get(name)}, the driver {wanted}; wanted the same in "
                    "all, because the run has to have equal bits"
                )
