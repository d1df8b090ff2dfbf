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


def launched(environment: Mapping[str, str] | None = None) -> Launched | None:
    """What the launcher says: RANK and WORLD_SIZE (or SLURM's), MASTER_ADDR and MASTER_PORT; None without a launcher.

    Raises:
        ConfigError: if a number is none, or the port is missing.
    """
    found = os.environ if environment is None else environment
    host = found.get("MASTER_ADDR", "")
    rank = found.get("RANK", found.get("SLURM_PROCID", ""))
    world = found.get("WORLD_SIZE", found.get("SLURM_NTASKS", ""))
    if not (host and rank and world):
        return None
    port = found.get("MASTER_PORT", "")
    for name, text in {"RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}.items():
        if not text.isdecimal():
            raise ConfigError(f"{name}: got {text!r} beside MASTER_ADDR {host}; wanted a number")
    if not int(rank) < int(world):
        raise ConfigError(f"RANK: got {rank} of {world} processes (WORLD_SIZE); wanted 0 to {int(world) - 1}")
    return Launched(int(rank), int(world), f"{host}:{port}") if int(world) > 1 else None
