"""Versions of what is installed, and which extras are missing and what they would bring."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator

from mlbits.evals.doctor.findings import Finding
from mlbits.version import __version__

# What each extra of pyproject.toml brings to users.
EXTRAS = {
    "gpu": "rules and searches compiled for a GPU",
    "box2d": 'Gymnasium\'s LunarLander, BipedalWalker, CarRacing, and windows of render_mode="human"',
    "mujoco": "Gymnasium's MuJoCo environments",
    "robotics": "Gymnasium-Robotics' environments, with goals",
    "atari": "Atari games (ALE) with the usual preprocessing",
    "plot": "mlbits plot",
    "data": "datasets of Minari: mlbits record, mlbits data, offline agents",
    "diversity": "MAP-Elites (mlbits train map-elites)",
    "onnx": "mlbits export --onnx",
    "wandb": "mlbits train --track wandb",
    "mlflow": "mlbits train --track mlflow",
    "video": "Gymnasium's RecordVideo",
    "web": "mlbits play --web: games in a browser",
    "cluster": "--cluster: jobs on the machines of a Ray cluster",
    "sweep": "mlbits sweep: settings by Optuna",
    "peers": "the libraries that mlbits bench compares with",
}
_FOR_CONTRIBUTORS = ("test", "dev", "docs")


def versions() -> Iterator[Finding]:
    """mlbits, Python and the system; then each library that mlbits needs."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    facts = {"mlbits": __version__, "python": platform.python_version(), "executable": sys.executable, "system": system}
    yield Finding("versions", "mlbits", "fine", f"mlbits {__version__}, {python}, {system}", facts)
    found, absent = {}, []
    for name, extra in requirements():
        if not extra:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                absent.append(name)
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    yield Finding("versions", "libraries", "fine", text, found)
    for name in absent:
        yield Finding("versions", name, "broken", f'{name} is not installed; run pip install "{name}"')


def extras() -> Iterator[Finding]:
    """Each extra: whether its libraries are installed, and what it brings."""
    needed: dict[str, list[str]] = {}
    for name, extra in requirements():
        if extra and extra not in _FOR_CONTRIBUTORS:
            needed.setdefault(extra, []).append(name)
    for extra, names in needed.items():
        absent = [name for name in names if not _installed(name)]
        brings = EXTRAS.get(extra, ", ".join(names))
        text = f"{extra}: {brings}"
        if absent:
            text += f'; missing: {", ".join(absent)} (pip install "mlbits[{extra}]")'
        facts = {"brings": brings, "needs": names, "missing": absent}
        yield Finding("extras", extra, "missing" if absent else "fine", text, facts)


def requirements() -> list[tuple[str, str]]:
    """The libraries that mlbits' own metadata names, each with its extra; "" if it is always needed.

    Raises:
        RuntimeError: if mlbits was not installed, so that there is no metadata.
    """
    try:
        lines = importlib.metadata.requires("mlbits") or []
    except importlib.metadata.PackageNotFoundError:
        raise RuntimeError(
            'mlbits is not installed here, so what it needs is not known; wanted pip install "mlbits"'
        ) from None
    found = []
    for line in lines:
        name, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        if not _applies(line):
            continue
        plain = re.match(r"[\w.-]+", name.strip())
        if plain and plain.group().lower() != "mlbits":
            found.append((plain.group(), extra.group(1) if extra else ""))
    return found


def _applies(line: str) -> bool:
    """Whether a requirement is one of this Python and system, as far as that can be told."""
    marker = line.partition(";")[2]
    if "sys_platform != 'darwin'" in marker.replace('"', "'") and sys.platform == "darwin":
        return False
    limit = re.search(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]", marker)
    return not limit or sys.version_info[:2] < (int(limit[1]), int(limit[2]))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
