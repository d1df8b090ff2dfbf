"""The machine a run uses: memory kept mapped, number of threads, the process's wall clock."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def set_up(threads: int) -> None:
    """Prepare the process for learning on the CPU.

    Sets torch's number of threads, and makes glibc keep freed memory: by default the activations of every minibatch
    go back to the system and are paged in again, a third of a PPO update's time (measured: 7.8 against 5.8 us a step).

    Args:
        threads: torch's intra-operation threads.
    """
    torch.set_num_threads(threads)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def process_wall_seconds() -> float:
    """Wall seconds since the process started (or since this module's import, if the system does not report it).

    ``MLBITS_STARTED`` ("pid:time") is a later start, of a command that took the place of the one that installed it.
    """
    pid, _, started_at = os.environ.get("MLBITS_STARTED", "").partition(":")
    if pid == str(os.getpid()):
        with contextlib.suppress(ValueError):
            return time.time() - float(started_at)
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = float(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, IndexError, ValueError):
        return time.perf_counter() - _IMPORTED


def run_wall_seconds() -> float:
    """Wall seconds of the run under way in this process: since the process started, or since :func:`count_from_now`."""
    return process_wall_seconds() - _before["wall"]


def run_cpu_seconds() -> float:
    """CPU seconds of the run under way in this process, counted in the same way."""
    return time.process_time() - _before["cpu"]


def count_from_now() -> None:
    """Count time from now on, of runs that a program starts after it has done other things."""
    _before.update(wall=process_wall_seconds(), cpu=time.process_time())


_before = {"wall": 0.0, "cpu": 0.0}
_IMPORTED = time.perf_counter()
