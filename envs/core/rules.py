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

import copy
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any, overload

from numba import njit, types
from numba.core import ir
from numba.core.errors import NumbaExperimentalFeatureWarning

# The state of a game with stacked frames begins as the plain one does: what was compiled for that is called.
warnings.filterwarnings("ignore", "(?s).* has been considered a subtype of ", NumbaExperimentalFeatureWarning)


def _layout_number(record: Any) -> tuple[str, tuple[int]]:
    """What identifies a record type in the names of compiled functions: a hash of its fields and offsets."""
    return "Record", (int(hashlib.sha256(record.name.encode()).hexdigest()[:15], 16),)


# Numba names a compiled function after its argument types, and a record type after a per-process counter. Two layouts
# compiled in two processes could then get the same name in the disk cache, and a third process that loads both would
# call one game's rules on the other's records. A hash of the layout is the same in every process.
_record_type: Any = types.Record
_record_type.mangling_args = property(_layout_number)


def _same_place(place: Any, memo: dict[int, Any]) -> Any:
    return place


def _copied_scope(scope: Any, memo: dict[int, Any]) -> Any:
    """A copy of a scope that has the same variables, as objects, under their names."""
    made = memo[id(scope)] = ir.Scope.__new__(ir.Scope)
    made.parent = copy.deepcopy(scope.parent, memo)
    made.loc, made.localvars = scope.loc, ir.VarMap()
    made.localvars._con = scope.localvars._con.copy()
    made.redefined = scope.redefined.copy()
    made.var_redefinitions = defaultdict(set, {name: set(all_) for name, all_ in scope.var_redefinitions.items()})
    return made


# To inline a function, Numba copies each of its blocks, and with each block all variables of the function and their
# places in the source: a third of the time that compiling a game takes. Places never change, and variables are replaced
# in an inlined function by new ones, so that copies of both can be left out.
if set(vars(ir.Scope(None, ir.Loc("", 0)))) == {"parent", "loc", "localvars", "redefined", "var_redefinitions"}:
    _numba_ir: Any = ir
    _numba_ir.Loc.__deepcopy__, _numba_ir.Scope.__deepcopy__ = _same_place, _copied_scope


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
