"""The number format of the products between hidden layers, chosen for a device."""

from __future__ import annotations

from typing import Literal

import torch

from mlbits.agents.networks.mlp import Precision
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.envs.engine.processor import describe, has_fast_bfloat16


def settled_precision(
    precision: Literal["auto", "float32", "bfloat16"], device: torch.device | str
) -> tuple[Precision, str]:
    """A precision with "auto" resolved for a device, and a line that explains the choice, or "".

    An explicit precision is kept; if it is slow on the device, the line is a warning.

    Raises:
        DeviceError: if there is no such device.
    """
    device = torch.device(device)
    if device.type == "cuda":
        device = check_cuda(device)
    on_gpu = device.type == "cuda"
    here = f"this processor ({describe().name})"
    if on_gpu:
        fast, here = torch.cuda.get_device_capability(device) >= (8, 0), "this GPU"
    else:
        fast = has_fast_bfloat16()
    lacks = f"{here} has no fast bfloat16" + ("" if on_gpu else " (AVX512-BF16 or AMX)")
    if precision == "auto":
        chosen: Precision = "bfloat16" if fast else "float32"
        why = f"{here} multiplies it faster than float32" if fast else lacks
        return chosen, f"precision {chosen}: {why}"
    if precision == "bfloat16" and not fast:
        return precision, f"warning: precision bfloat16: {lacks}; float32, or auto, may be ten times as fast"
    return precision, ""
