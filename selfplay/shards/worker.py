"""A worker: a process that has some shards of a run and does what the driver orders; it writes nothing of the run.

The driver (:mod:`~mlbits.selfplay.shards.crew`) starts it as ``python -m mlbits.selfplay.shards.worker FOLDER RANK
WORLD``, or a launcher does. It ends with the driver, when its standard input is closed. Ctrl-C and a closed terminal
are the driver's business; SIGTERM is passed on to it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.finite import NotFiniteError
from mlbits.selfplay.league.learners import divided, learner_groups
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs.config import settings_from_json
from mlbits.selfplay.shards.crew import LOAD_SECONDS, LOST, START_SECONDS, meet
from mlbits.selfplay.shards.launcher import Launched
from mlbits.selfplay.shards.links import Group, GroupLostError, Order, packed, unpacked
from mlbits.selfplay.shards.parts import Parts
from mlbits.selfplay.shards.places import about_this_process, check_same


class _Leaving:
    """Whether this process was asked to stop."""

    asked = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM."""
        self.asked = True


def serve(store: Any, rank: int, world: int) -> None:
    """Do what the driver orders, until it ends the run.

    Args:
        store: where the processes meet.
        rank: this one's number, from 1.
        world: how many there are, the driver included.

    Raises:
        MlbitsError: what ended the run here; the other processes notice that this one is gone.
    """
    leaving = _Leaving()
    signal.signal(signal.SIGTERM, leaving.note)
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    settings = settings_from_json(json.loads(store.get("settings")))
    set_up(settings.run.threads)
    places, groups = divided(settings.run.shards, world), [one.shards for one in learner_groups(settings.run)]
    group = Group(store, rank, places, settings.run.worker_timeout, groups=groups)
    check_same([unpacked(one)[0] for one in group.exchange(packed(about_this_process()))])
    parts, restorings = Parts(settings, group), 0
    while True:
        now = group.order(None)
        if now.order == Order.START:
            parts.start()
            group.wait_for_all("begun", START_SECONDS)
        elif now.order == Order.ITERATE:
            rollouts, _, _ = parts.collect(now)
            parts.learn(rollouts, leaving.asked)
            parts.note(without_first=False)
        elif now.order == Order.SAVE:
            group.bring(parts.saved())
        elif now.order == Order.LOAD:
            folder = Path(group.exchange(b"")[0].decode())
            fault = parts.restore(group.hand_out([]), folder, lambda text: None)
            restorings += 1
            group.wait_for_all(f"restored-{restorings}", LOAD_SECONDS)
            group.exchange(fault.encode())
        else:
            return


def serve_launched(by: Launched) -> NoReturn:
    """Be a worker that a launcher started, and end this process.

    Raises:
        MlbitsError: what ended the run here.
    """
    status = 0
    try:
        serve(meet(by, START_SECONDS), by.rank, by.world)
    except GroupLostError as error:
        print(f"worker {by.rank}: {error}", file=sys.stderr)
        status = LOST
    _end(status)


def _end(status: int) -> NoReturn:
    """End this process without waiting for its threads and connections."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_with_driver() -> None:
    """End this process, whatever it is doing, when the driver's end of the pipe is closed."""
    sys.stdin.buffer.read()
    os._exit(LOST)


def main(folder: Path, rank: int, world: int) -> int:
    """Be a worker that the driver started; returns the exit status."""
    threading.Thread(target=_end_with_driver, daemon=True).start()
    distributed: Any = importlib.import_module("torch.distributed")

    store: Any = distributed.FileStore(str(folder / "meet"), world)
    (folder / f"ready-{rank}").touch()
    try:
        serve(store, rank, world)
    except GroupLostError:
        return LOST
    except MlbitsError as error:
        parts = None
        if isinstance(error, NotFiniteError):
            parts = [error.env, error.quantity, error.value, error.env_steps, error.copy]
        (folder / f"error-{rank}.new").write_text(json.dumps({"text": str(error), "parts": parts}))
        (folder / f"error-{rank}.new").rename(folder / f"error-{rank}")
        return 2
    return 0


if __name__ == "__main__":
    _end(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
