"""What the jobs of tests do; other processes import it by name."""

import os
import signal
import time
from pathlib import Path


def squared(number, note=""):
    if note:
        with Path(note).open("a") as file:
            file.write(f"{number}\n")
    return number * number


def thirds(count):
    return [1 / 3 * k for k in range(count)]


def fails(times, count):
    """Raises an error the first ``times`` times, which the file ``count`` counts."""
    path = Path(count)
    before = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (before + 1))
    if before < times:
        raise ValueError(f"not yet, {before + 1}")
    return before + 1


def dies(times, count):
    """Kills its process the first ``times`` times."""
    path = Path(count)
    before = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (before + 1))
    if before < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return before + 1


def meets(own, other):
    """Returns once the other one has begun too: two that run one after the other never do."""
    Path(own).touch()
    for _ in range(3000):
        if Path(other).exists():
            return True
        time.sleep(0.01)
    return False


def unplain():
    return {1, 2}


def waits(begun, stopped):
    """Says in a file that it was told to stop."""

    def note(number, frame):
        Path(stopped).write_text(str(number))
        os._exit(0)

    signal.signal(signal.SIGTERM, note)
    Path(begun).touch()
    time.sleep(60)
