"""A replay of each registered environment, played at random: ``python docs/environment_replays.py [ID ...]``.

The pages are those of ``mlbits replay ID``, in ``docs/site/replays``, which is not kept; the site's page of an
environment links to its replay where there is one. All of them take some minutes of CPU time where the rules are not
compiled yet. One that is there is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import mlbits
from mlbits import cli

FOLDER = Path(__file__).resolve().parent / "site" / "replays"
SEED, MOST_STEPS = 1, 200


def main() -> None:
    """Make the replays of the environments named on the command line, or of all."""
    write(sys.argv[1:] or list(mlbits.registered()), FOLDER)


def write(envs: Sequence[str], folder: Path) -> None:
    """Make the replays that are missing.

    Raises:
        SystemExit: if one cannot be made; the command has said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for env in envs:
        path = folder / f"{env.partition('/')[2].rpartition('-v')[0]}.html"
        words = ["replay", env, "--seed", str(SEED), "--max-steps", str(MOST_STEPS), "--out", str(path)]
        if not path.exists() and cli.main(words):
            raise SystemExit(f"{env}: no replay")


if __name__ == "__main__":
    main()
