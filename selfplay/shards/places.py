"""Who goes where: which process has which shards of a run, and whether they would compute equal bits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mlbits.agents.registry import agent_entry
from mlbits.envs.engine.multicore import usable_cores
from mlbits.envs.engine.processor import describe, described
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
    if run.pool == "league":
        raise ConfigError(f"shards: got {number} with a league, whose learners share the copies out; wanted 1")


def divided(shards: int, workers: int) -> list[range]:
    """The numbers of each worker's shards, as even as possible.

    Example:
        >>> divided(4, 3)
        [range(0, 2), range(2, 3), range(3, 4)]
    """
    least, more = divmod(shards, workers)
    ends = [least * k + min(k, more) for k in range(workers + 1)]
    return [range(first, last) for first, last in itertools.pairwise(ends)]


def plan(run: RunConfig, places: Sequence[range], by: Launched | None = None) -> str:
    """Who goes where, in lines."""
    copies, workers = run.num_envs // run.shards, len(places)
    cut = f"{run.shards} shards of {copies}" if run.shards > 1 else "1 shard"
    lines = [f"{run.num_envs} copies in {cut}; {workers} worker{'s' * (workers > 1)}"]
    for rank, shards in enumerate(places):
        who = "this process, the driver" if rank == 0 else "a process of this machine"
        if by is not None:
            who = f"the driver, at {by.address}" if rank == 0 else "started by the launcher"
        several = f"shards {shards[0]} to {shards[-1]}" if len(shards) > 1 else f"shard {shards[0]}"
        lines.append(
            f"worker {rank}: {several}, copies {shards[0] * copies} to {shards[-1] * copies + copies - 1} ({who})"
        )
    return "\n".join(lines)


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
