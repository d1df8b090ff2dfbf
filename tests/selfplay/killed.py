"""``mlbits`` in a process that is killed (SIGKILL, without clean-up) at a named moment.

python -m tests.selfplay.killed MOMENT COUNT train ppo ...: killed at the COUNT-th occurrence of the moment.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from safetensors.torch import save

from mlbits.cli import main
from mlbits.selfplay import bookkeeping
from mlbits.selfplay.curves.tracking import Tracker
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.session import Session
from tests.games import register_test_games


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Moment:
    """Counts down to the call at which to die."""

    def __init__(self, count):
        self.left = count

    def now(self):
        self.left -= 1
        return self.left == 0


def before(owner, name, moment, applies=lambda *arguments: True, halfway=lambda *arguments: None):
    """Die on entering a function, after ``halfway`` has done a part of its work."""
    original = getattr(owner, name)

    def wrapped(*arguments, **settings):
        if applies(*arguments) and moment.now():
            halfway(*arguments)
            die()
        return original(*arguments, **settings)

    setattr(owner, name, wrapped)


def half_a_file(path, tensors):
    data = save(dict(tensors))
    path.write_bytes(data[: len(data) // 2])


def half_a_line(tracker, step, values):
    tracker._file.write('{"env_steps": ' + str(step) + ', "return/tr')
    tracker._file.flush()


def one_file_gone(path, **settings):
    next(path.iterdir()).unlink()


def arrange(name, count):
    moment = Moment(count)
    if name == "learning":
        before(Session, "learn", moment)
    elif name == "recording":
        before(Tracker, "record", moment, halfway=half_a_line)
    elif name == "writing the weights":
        before(checkpoints, "write_tensors", moment, lambda path, tensors: "weights" in path.name, half_a_file)
    elif name == "renaming the checkpoint":
        before(Path, "rename", moment, lambda path, target: path.suffix == ".tmp")
    elif name == "dropping an old checkpoint":
        before(shutil, "rmtree", moment, lambda path, **_: path.name.startswith("step-"), one_file_gone)
    elif name == "writing the summary":
        before(bookkeeping, "write_summary", moment)
    else:
        raise SystemExit(f"no such moment: {name}")


if __name__ == "__main__":
    register_test_games()
    arrange(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
