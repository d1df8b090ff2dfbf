"""A replay for each environment's page, by random play: ``python docs/replay_pages.py [NAME ...]``.

They go into ``docs/replays``, which is not kept; the site's build takes them from there, and links to those that it
finds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import mlbits  # noqa: F401  (registers the environments)
from mlbits.envs.registry import registered
from mlbits.evals.replays.page import write_page
from mlbits.evals.replays.playing import record_replay
from mlbits.selfplay.runs.saved_agents import open_guest

FOLDER = Path(__file__).parent / "replays"


def write(names: Sequence[str] = (), folder: Path = FOLDER) -> list[Path]:
    """Write replays.

    Args:
        names: of environments, such as "Hex"; none means all of mlbits' own.
        folder: where to.

    Returns:
        The files.
    """
    folder.mkdir(exist_ok=True)
    written = []
    for env in registered():
        name = env.removeprefix("mlbits/").rpartition("-v")[0]
        if env.startswith("mlbits/") and (name in names or not names):
            game = record_replay({"random": open_guest("random", env)}, env, seed=0, max_steps=200)
            written.append(write_page(game, folder / f"{name}.html"))
    return written


if __name__ == "__main__":
    for file in write(sys.argv[1:]):
        print(f"{file}: {file.stat().st_size / 1000:,.0f} kB")
