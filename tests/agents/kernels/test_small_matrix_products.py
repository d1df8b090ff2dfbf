"""Compiled products against NumPy's in double precision, for all strides and for sizes that leave partial blocks."""

import itertools
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from mlbits.agents.kernels.small_matrix_products import add_product

SIZES = [(1, 1, 1), (3, 5, 7), (8, 4, 32), (9, 1, 33), (2, 31, 64), (17, 64, 40), (64, 64, 64)]


@pytest.mark.parametrize(("rows", "depth", "columns"), SIZES)
@pytest.mark.parametrize(("left_across", "right_across"), [*itertools.product([False, True], repeat=2)])
def test_products_match_numpys_and_are_added(rows, depth, columns, left_across, right_across):
    rng = np.random.default_rng(0)
    left, right, out = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((rows, depth), (depth, columns), (rows, columns))
    )
    wanted = out.astype(float) + left.astype(float) @ right.astype(float)
    lefts = (np.ascontiguousarray(left.T).ravel(), 1, rows) if left_across else (left.ravel(), depth, 1)
    rights = (np.ascontiguousarray(right.T).ravel(), 1, depth) if right_across else (right.ravel(), columns, 1)
    add_product(*lefts, *rights, out.reshape(-1), rows, columns, depth)
    np.testing.assert_allclose(out, wanted, atol=1e-6 * depth + 1e-6)


@pytest.mark.slow
def test_narrower_vectors_give_the_same_bits():
    """A process that compiles for AVX2 has different block sizes, but the same sums in the same order."""
    code = """
import hashlib, sys
import numpy as np
from mlbits.agents.kernels import small_matrix_products
rng = np.random.default_rng(0)
left, right, out = (rng.standard_normal(n).astype(np.float32) for n in (17 * 64, 64 * 40, 17 * 40))
small_matrix_products.add_product(left, 64, 1, right, 40, 1, out, 17, 40, 64)
print(small_matrix_products._ROWS, hashlib.sha256(out.tobytes()).hexdigest())
"""
    narrow = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2,+bmi,+bmi2"}
    lines = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **more}, capture_output=True, text=True, check=True
        ).stdout.split()
        for more in ({}, narrow if platform.machine() in ("x86_64", "AMD64") else {})
    ]
    assert lines[1][0] == "6" or platform.machine() not in ("x86_64", "AMD64")
    assert lines[0][1] == lines[1][1]


def test_nothing_beyond_the_product_is_written():
    """The output is in the middle of a longer vector, as a layer's activations are."""
    out = np.zeros(5 * 9 + 200, np.float32)
    ones = np.ones(5 * 9, np.float32)
    add_product(ones, 3, 1, ones, 9, 1, out[100:145], 5, 9, 3)
    assert (out[100:145] == 3).all()
    assert (out[:100] == 0).all()
    assert (out[145:] == 0).all()


def test_nan_propagates():
    left, right, out = (np.ones(4, np.float32) for _ in range(3))
    left[0] = np.nan
    add_product(left, 2, 1, right, 2, 1, out, 2, 2, 2)
    assert np.isnan(out[:2]).all()
    assert out[2:].tolist() == [3.0, 3.0]
