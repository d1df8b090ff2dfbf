"""Kernels: fast implementations of updates and passes, which take tensors and return tensors.

Each has a plain implementation beside its caller, with which its test compares it. With ``MLBITS_KERNELS=0`` in the
environment the plain code runs instead (to read it in a debugger, or to suspect a kernel): slower, equal up to
rounding. The passes of TRPO have a plain form in their tests alone. Modules, configs and replay buffers do not belong
here.
"""

import os


def enabled() -> bool:
    """Whether kernels take the place of plain code; looked up when an agent is made."""
    return os.environ.get("MLBITS_KERNELS", "1") != "0"
