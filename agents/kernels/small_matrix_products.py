"""Products of small matrices in compiled code, without calls to a library, for use inside a compiled loop of updates.

For the networks of control problems a call of torch costs as much as the product that it computes (6 us for 32 rows
through 64 x 64, of which 3 are arithmetic), and the products that Numba supports start threads of their own. Here the
innermost loop is written in LLVM vector instructions: a block of sums stays in registers while one pass goes over the
inner dimension ("depth"), as in Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008):
8 x 32 sums in the 32 registers of AVX-512, else 6 x 16 in 16 registers of 256 bits (where 8 x 32 would reach 0.65 to
0.8 of that speed). Columns of the right factor are first copied to contiguous rows. Every sum is computed in the order
of the depth, whatever the block size, so the results are the same bit for bit.

Matrices are flat float32 arrays with strides, so that transposing a factor only changes its strides.

Example:
    >>> import numpy as np
    >>> left, right, out = (np.ones(4, np.float32) for _ in range(3))
    >>> add_product(left, 2, 1, right, 2, 1, out, 2, 2, 2)
    >>> out
    array([3., 3., 3., 3.], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mlbits.envs.engine.kernel_cache import njit
from mlbits.envs.engine.processor import compiles_for_avx512

ir: Any = vars(cgutils)["ir"]  # of llvmlite, a dependency of Numba
_LANES, _VECTORS, _ROWS = (16, 2, 8) if compiles_for_avx512() else (8, 2, 6)
_COLUMNS = _LANES * _VECTORS


def _block_kernel(rows: int) -> Any:
    """A function for compiled code that adds to a block [rows, C] the product of [rows, depth] and [depth, C].

    C is _COLUMNS. Its arguments are (address of the left factor, its row stride, its column stride, address of the
    right factor, address of the block, the block's row stride, depth); strides in elements, depth at least 1.
    """

    @intrinsic
    def kernel(
        _: Any, left: Any, left_row: Any, left_step: Any, right: Any, out: Any, out_row: Any, depth: Any
    ) -> tuple[Any, Callable[..., Any]]:
        signature = types.void(*[types.int64] * 7)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            _write_block(builder, rows, *arguments)
            return context.get_dummy_value()

        return signature, generate

    return kernel


def _write_block(
    builder: Any, rows: int, left: Any, left_row: Any, left_step: Any, right: Any, out: Any, out_row: Any, depth: Any
) -> None:
    """Emit the LLVM instructions of :func:`_block_kernel`."""
    single, index = ir.FloatType(), ir.IntType(64)
    vector = ir.VectorType(single, _LANES)
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{_LANES}f32"
    )
    undefined, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), _LANES), None)
    left, right, out = (builder.inttoptr(address, single.as_pointer()) for address in (left, right, out))

    def load(pointer: Any, kind: Any = vector) -> Any:
        loaded = builder.load(builder.bitcast(pointer, kind.as_pointer()))
        loaded.align = 4
        return loaded

    places = [
        builder.gep(out, [builder.add(builder.mul(out_row, index(r)), index(_LANES * v))])
        for r in range(rows) for v in range(_VECTORS)
    ]  # fmt: skip
    lefts = [builder.gep(left, [builder.mul(left_row, index(r))]) for r in range(rows)]
    begin = [load(place) for place in places]
    before, loop, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k, sums = builder.phi(index), [builder.phi(vector) for _ in places]
    step, line = builder.mul(k, left_step), builder.mul(k, index(_COLUMNS))
    rights = [load(builder.gep(right, [builder.add(line, index(_LANES * v))])) for v in range(_VECTORS)]
    added = []
    for r in range(rows):
        one = builder.insert_element(undefined, load(builder.gep(lefts[r], [step]), single), ir.IntType(32)(0))
        same = builder.shuffle_vector(one, undefined, first)
        added += [builder.call(fma, [same, rights[v], sums[r * _VECTORS + v]]) for v in range(_VECTORS)]
    following = builder.add(k, index(1))
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    for phi, start, end in zip([k, *sums], [index(0), *begin], [following, *added], strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(end, loop)
    builder.position_at_end(after)
    for place, total in zip(places, added, strict=True):
        builder.store(total, builder.bitcast(place, vector.as_pointer())).align = 4


_rows, _one_row = _block_kernel(_ROWS), _block_kernel(1)


@njit(cache=True)
def add_product(
    left: Any, left_row: Any, left_step: Any, right: Any, right_step: Any, right_column: Any,
    out: Any, rows: Any, columns: Any, depth: Any,
) -> None:  # fmt: skip
    """Add the product L R to ``out``.

    Args:
        left: L [rows, depth], flat; entry (i, k) at i * left_row + k * left_step.
        left_row: elements between rows.
        left_step: elements between columns.
        right: R [depth, columns], flat; entry (k, j) at k * right_step + j * right_column.
        right_step: elements between rows.
        right_column: elements between columns.
        out: [rows, columns], contiguous, flat.
        rows: of the product.
        columns: of the product.
        depth: at least 1.
    """
    panel, edge = _aligned(depth * _COLUMNS), _aligned(_ROWS * _COLUMNS)
    for start in range(0, columns, _COLUMNS):
        width = min(_COLUMNS, columns - start)
        _lay(right, start * right_column, right_step, right_column, panel, depth, width)
        for row in range(0, rows, _ROWS):
            high = min(_ROWS, rows - row)
            address = left.ctypes.data + 4 * row * left_row
            place, line = out.ctypes.data + 4 * (row * columns + start), columns
            if width < _COLUMNS:
                edge[:] = 0
                place, line = edge.ctypes.data, _COLUMNS
            if high == _ROWS:
                _rows(address, left_row, left_step, panel.ctypes.data, place, line, depth)
            else:
                for r in range(high):
                    begin, into = address + 4 * r * left_row, place + 4 * r * line
                    _one_row(begin, left_row, left_step, panel.ctypes.data, into, line, depth)
            if width < _COLUMNS:
                for r in range(high):
                    for j in range(width):
                        out[(row + r) * columns + start + j] += edge[r * _COLUMNS + j]


@njit(cache=True)
def _aligned(count: Any) -> Any:
    """Memory that starts at a cache line: vectors across two cache lines take twice the time."""
    memory = np.empty(count + _LANES, np.float32)
    start = (-memory.ctypes.data % 64) // 4
    return memory[start : start + count]


@njit(cache=True)
def _lay(source: Any, begin: Any, step: Any, column: Any, panel: Any, depth: Any, width: Any) -> None:
    """Copy up to _COLUMNS columns of ``source`` to rows of _COLUMNS numbers each, padded with zeros."""
    if width < _COLUMNS:
        panel[:] = 0
    if column == 1:
        for k in range(depth):
            row = source[begin + k * step : begin + k * step + width]
            into = panel[k * _COLUMNS : k * _COLUMNS + width]
            for j in range(width):
                into[j] = row[j]
    else:
        for j in range(width):
            at = begin + j * column
            for k in range(depth):
                panel[k * _COLUMNS + j] = source[at + k * step]
