"""What a launcher (torchrun, srun) says about this process, in environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from mlbits.selfplay.runs.config import ConfigError


class Launched(NamedTuple):
    """A process that a launcher started, as its environment says.

    Attributes:
        rank: its number; 0 is the driver.
        world: how many there are.
        address: where the driver listens, as host:port.
    """

    rank: int
    world: int
    address: str


_MOST_PORT = 65535


def launched(environment: Mapping[str, str] | None = None) -> Launched | None:
    """What the launcher says: RANK and WORLD_SIZE (or SLURM's), MASTER_ADDR and MASTER_PORT; None without a launcher.

    Raises:
        ConfigError: if one of them is missing beside the others, or no number.
    """
    found = os.environ if environment is None else environment
    host = found.get("MASTER_ADDR", "")
    rank_name, world_name = _names(found)
    rank, world = found.get(rank_name, ""), found.get(world_name, "")
    if rank_name == "RANK" and (host or (rank and world)):  # else they may be another program's
        for name, text in {"RANK": rank, "WORLD_SIZE": world}.items():
            if not text:
                raise ConfigError(f"{name}: missing beside MASTER_ADDR {host}; wanted RANK and WORLD_SIZE, or neither")
        if not host and world != "1":
            raise ConfigError(
                f"MASTER_ADDR: missing beside RANK {rank} and WORLD_SIZE {world}; wanted the driver's host, or none of "
                "the three"
            )
    if not (host and rank and world):
        return None
    port = found.get("MASTER_PORT", "")
    for name, text in {rank_name: rank, world_name: world, "MASTER_PORT": port}.items():
        if not text.isdecimal():
            raise ConfigError(f"{name}: got {text!r} beside MASTER_ADDR {host}; wanted a number")
    if not int(rank) < int(world):
        raise ConfigError(f"{rank_name}: got {rank} of {world} processes ({world_name}); wanted 0 to {int(world) - 1}")
    if not 0 < int(port) <= _MOST_PORT:
        raise ConfigError(f"MASTER_PORT: got {port}; wanted a port from 1 to {_MOST_PORT}")
    return Launched(int(rank), int(world), f"{host}:{port}") if int(world) > 1 else None


def one_of_several_tasks(environment: Mapping[str, str] | None = None) -> bool:
    """Whether srun has started this process beside others; a batch job's own shell is none of them."""
    found = os.environ if environment is None else environment
    return found.get("SLURM_PROCID", "0") != "0" or found.get("SLURM_STEP_NUM_TASKS", "1") != "1"


def _names(found: Mapping[str, str]) -> tuple[str, str]:
    """The variables of rank and world: a launcher's own if it has set one, else SLURM's."""
    own = ("RANK", "WORLD_SIZE")
    slurm = ("SLURM_PROCID", "SLURM_NTASKS")
    if all(found.get(name) for name in slurm) and not all(found.get(name) for name in own):
        return slurm
    return own if any(found.get(name) for name in own) else slurm
