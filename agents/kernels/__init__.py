"""Kernels: fast paths of updates. Tensors in, tensors out; no module, config or replay buffer is seen here.

Each gives the numbers of plain code beside its caller, to which its test holds it. With ``MLBITS_KERNELS=0`` in the
environment that plain code runs instead (to read it in a debugger, or to suspect a kernel): slower, equal up to
rounding. The products of TRPO's natural gradient have no plain form outside their tests.
"""

import os


def enabled() -> bool:
    """Whether kernels take the place of plain code; looked up when an agent is made."""
    return os.environ.get("MLBITS_KERNELS", "1") != "0"
