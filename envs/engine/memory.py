"""The size of a machine's memory, for refusing what does not fit before the system grants it."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import torch


def memory_bytes(device: torch.device | None = None) -> float:
    """The memory of the machine, or the container's limit if lower; of a GPU what is free. Infinite if unknown."""
    if device is not None and device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for new tensors
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    limits = [math.inf]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        limits.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            limits.append(float(Path(path).read_text()))
    return min(limits)
