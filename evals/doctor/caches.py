"""The folders in which machine code is cached: where, how much, and whether they can be used."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlbits.agents import kernels
from mlbits.envs.core.private_folders import home_folder, others_may_write
from mlbits.envs.engine.driver import cache_folder
from mlbits.evals.doctor.findings import Finding

MIB = 2**20
_EVERY_TIME = "so that rules are compiled in every process; wanted MLBITS_CACHE_DIR, a folder of your own"


def rules_cache() -> Iterator[Finding]:
    """The cache of the games' rules."""
    folder = cache_folder()
    if folder is None:
        text = f"no home folder (HOME is not set, and the user is not known), {_EVERY_TIME}"
        yield Finding("caches", "rules", "slow", text)
        return
    yield _described("rules", folder, _EVERY_TIME, group=True)


def kernels_cache() -> Iterator[Finding]:
    """The cache of the agents' kernels: beside their source, or where NUMBA_CACHE_DIR says."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(chosen) if chosen else Path(kernels.__path__[0]).resolve() / "__pycache__"
    if not chosen and not _writable(folder):  # Numba's next choice
        home = home_folder("XDG_CACHE_HOME", ".cache")
        folder = folder if home is None else home / "numba"
    why = "so that agents' kernels are compiled in every process; wanted NUMBA_CACHE_DIR, a folder of your own"
    yield _described("kernels of agents", folder, why, group=False)


def _described(name: str, folder: Path, consequence: str, group: bool) -> Finding:
    """A folder: place, size, whether it can be written, and by whom."""
    files, size = _content(folder)
    facts = {"folder": str(folder), "files": files, "bytes": size, "writable": _writable(folder)}
    text = f"{name}: {folder}, {files:,} file{'s' * (files != 1)}, {size / MIB:,.1f} MiB"
    if not facts["writable"]:
        return Finding("caches", name, "slow", f"{text}: cannot be written, {consequence}", facts)
    why = others_may_write(folder, group) if folder.exists() else ""
    facts["private"] = not why
    if why:
        return Finding("caches", name, "slow", f"{text}: not used, since {why}, {consequence}", facts)
    return Finding("caches", name, "fine", text, facts)


def _writable(folder: Path) -> bool:
    """Whether this user can write into a folder, or make it: found by making a folder there, and removing it."""
    there = folder
    while not there.exists() and there.parent != there:
        there = there.parent
    try:
        with tempfile.TemporaryDirectory(prefix="mlbits-doctor-", dir=there):
            return True
    except OSError:
        return False


def _content(folder: Path) -> tuple[int, int]:
    """Files below a folder, and their bytes; those that cannot be read are left out."""
    files = size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size += (Path(place) / name).stat().st_size
                files += 1
            except OSError:
                continue
    return files, size
