"""Asking the processor for memory before it is needed.

With many trees, what a simulation reads of a tree is no longer in the fast caches, since all other trees were visited
since. The loop over trees on the CPU asks for the next trees' memory while it works on one.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def _prefetch(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """Ask for the cache line of ``array[row, column]``, without reading it; the place must exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, number = signature.args[0], context.get_value_type(types.intp)
        one = context.make_array(kind)(context, builder, arguments[0])
        indices = [builder.sext(index, number) if index.type != number else index for index in arguments[1:]]
        place = cgutils.get_item_pointer(context, builder, kind, one, indices)
        whole, nothing = ir.IntType(32), ir.VoidType()
        pointer = builder.bitcast(place, cgutils.voidptr_t)
        shape = ir.FunctionType(nothing, [cgutils.voidptr_t, whole, whole, whole])
        function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        builder.call(function, [pointer, whole(0), whole(3), whole(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


def _nothing(array: Any, row: Any, column: Any) -> None:
    """In plain Python there is nothing to ask for."""


_config: Any = numba.config
prefetch: Any = _nothing if _config.DISABLE_JIT else intrinsic(_prefetch)
