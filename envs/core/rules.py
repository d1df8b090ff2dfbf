"""``@rule``: compiles a function of a game's rules with Numba, from the same source for CPU and GPU.

``rule`` is ``numba.njit`` with three settings for a game's inner loop:

* functions are inlined into the driver before type inference. Measured on an 8x8 gridworld this is 2.8 times as fast
  as leaving the choice to LLVM, which sees the functions only after Numba has wrapped each in error handling;
* no reference counting (``_nrt=False``): a view of a batch array costs no atomic operation, and a rule that
  allocates fails to compile here, as it would on a GPU;
* NumPy's error model: dividing by zero gives inf or 0 as on the GPU, instead of a branch and an exception.

A large function that is called in several places is better not inlined: ``@rule(inline=False)``.

Example:
    >>> @rule
    ... def clamp(value, low, high):
    ...     return min(max(value, low), high)
    >>> clamp(7, 0, 5)
    5
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, overload

from numba import njit, types


def _layout_number(record: Any) -> tuple[str, tuple[int]]:
    """What identifies a record type in the names of compiled functions: a hash of its fields and offsets."""
    return "Record", (int(hashlib.sha256(record.name.encode()).hexdigest()[:15], 16),)


# Numba names a compiled function after its argument types, and a record type after a per-process counter. Two layouts
# compiled in two processes could then get the same name in the disk cache, and a third process that loads both would
# call one game's rules on the other's records. A hash of the layout is the same in every process.
_record_type: Any = types.Record
_record_type.mangling_args = property(_layout_number)


@overload
def rule(function: Callable[..., Any], *, inline: bool = True) -> Callable[..., Any]: ...
@overload
def rule(*, inline: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def rule(function: Callable[..., Any] | None = None, *, inline: bool = True) -> Any:
    """Compile a function of a game's rules.

    Args:
        function: the function, when the decorator is written without brackets.
        inline: whether calls are replaced by the function's body.

    Returns:
        A Numba dispatcher; with ``NUMBA_DISABLE_JIT=1`` the function itself.
    """
    options: dict[str, Any] = {"_nrt": False, "error_model": "numpy", "inline": "always" if inline else "never"}
    decorate: Any = njit(**options)
    return decorate if function is None else decorate(function)


def python_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The plain Python function behind a rule, compiled or not."""
    return getattr(function, "py_func", function)
