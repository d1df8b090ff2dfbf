"""Fingerprints of compiled functions: edits that change a result change the hash, and others do not."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
import pytest
from numba import njit

from mlbits.envs.engine import fingerprint as module
from mlbits.envs.engine.fingerprint import fingerprint

# Each kind: a line of values.py, that line after an edit, and code in another file that makes ``f`` from it.
KINDS = {
    "global": ('X = 1', 'X = 2', 'def f(): return X'),
    "int_or_float": ('X = 1', 'X = 1.0', 'def f(): return X'),
    "int_or_bool": ('X = 1', 'X = True', 'def f(): return X'),
    "sign_of_zero": ('X = 0.0', 'X = -0.0', 'def f(): return X'),
    "last_bit": ('X = 0.1', 'X = 0.1 + 2**-56', 'def f(): return X'),
    "text": ("X = 'a'", "X = b'a'", 'def f(): return X'),
    "default": ('X = 1', 'X = 2', 'def f(bonus=X): return bonus'),
    "keyword_default": ('X = 1', 'X = 2', 'def f(*, bonus=X): return bonus'),
    "default_below": ('X = 1', 'X = 2', '@njit\ndef g(y=X): return y\ndef f(): return g()'),
    "enumeration": ('X = 1', 'X = 2', 'class K(enum.IntEnum): A = X\ndef f(): return K.A'),
    "whole_enumeration": ('X = 1', 'X = 2', 'class K(enum.Enum): A = X\ndef f(x): return K(x) is not None'),
    "member": ('X = 1', 'X = 2', 'class K(enum.IntEnum): A = X\nM = K.A\ndef f(): return M'),
    "member_of_another": ("X = 'A'", "X = 'B'", 'class K(enum.Enum): A, B = 1, 2\nM = K[X]\ndef f(): return M'),
    "builtin": ('X = max', 'X = min', 'def f(a, b): return X(a, b)'),
    "math": ('import math\nX = math.floor', 'import math\nX = math.ceil', 'ROUND = X\ndef f(x): return ROUND(x)'),
    "ufunc": ('X = np.floor', 'X = np.ceil', 'ROUND = X\ndef f(x): return ROUND(x)'),
    "numpy_function": ('X = np.argmax', 'X = np.argmin', 'def f(x): return X(x)'),
    "numpy_type": ('X = np.float32', 'X = np.float64', 'def f(x): return X(x)'),
    "dtype": ("X = np.dtype('f4')", "X = np.dtype('f8')", 'def f(x): return x.view(X)'),
    "fields": (
        "X = np.dtype([('a', 'i4'), ('b', 'i4')])",
        "X = np.dtype([('b', 'i4'), ('a', 'i4')])",
        'def f(x): return x.view(X)',
    ),
    "field_types": ("X = np.dtype([('a', 'i4')])", "X = np.dtype([('a', 'f4')])", "def f(x): return x.view(X)"),
    "offsets": (
        "X = np.dtype([('a', 'i1'), ('b', 'i4')])",
        "X = np.dtype([('a', 'i1'), ('b', 'i4')], align=True)",
        'def f(x): return x.view(X)',
    ),
    "numba_type": ('X = numba.int32', 'X = numba.int64', 'def f(x): return X(x)'),
    "scalar": ('X = np.int32(1)', 'X = np.int64(1)', 'def f(x): return x + X'),
    "date": ("X = np.timedelta64(1, 's')", "X = np.timedelta64(1, 'm')", 'def f(x): return x + X'),
    "middle": (
        'X = (np.arange(5000), 0)',
        'X = (np.arange(5000) + (np.arange(5000) == 2500), 0)',
        'def f(k): return X[0][k]',
    ),
    "array": ('X = np.arange(5000)', 'X = np.arange(5000) + (np.arange(5000) == 2500)', 'def f(k): return X[k]'),
    "array_dtype": ("X = np.zeros(4, 'i4')", "X = np.zeros(4, 'f4')", 'def f(k): return X[k]'),
    "array_shape": ('X = np.zeros((2, 3))', 'X = np.zeros((3, 2))', 'def f(k): return X[k, 0]'),
    "array_order": ('X = np.zeros((2, 3))', "X = np.zeros((2, 3), order='F')", 'def f(): return X.ravel()'),
    "record": ("X = np.zeros(1, [('a', 'i4')])[0]", "X = np.ones(1, [('a', 'i4')])[0]", 'def f(): return X.a'),
    "nested": ('X = 1', 'X = 2', "T = (0, ((X, 'a'), 3.0))\ndef f(): return T[1][0][0]"),
    "nesting": ('X = ((1, 2), 3)', 'X = (1, (2, 3))', 'def f(): return X'),
    "named_tuple": ('X = 1', 'X = 2', 'class N(NamedTuple):\n    a: int\nN1 = N(X)\ndef f(): return N1.a'),
    "named_tuple_default": ('X = 1', 'X = 2', 'class N(NamedTuple):\n    a: int = X\ndef f(): return N().a'),
    "dataclass": (
        'X = 1',
        'X = 2',
        'import dataclasses\n@dataclasses.dataclass\nclass D: a: int = 0\nD1 = D(X)\ndef f(): return D1.a',
    ),
    "class_attribute": ('X = 1', 'X = 2', 'class C: A = X\ndef f(): return C.A'),
    "dictionary": ('X = 1', 'X = 2', "D = {'a': [X]}\ndef f(): return D['a'][0]"),
    "set": ("X = {'a', 'b'}", "X = {'a', 'c'}", 'def f(x): return x in X'),
    "subclass_of_int": ('X = 1', 'X = 2', 'class I(int): pass\nI1 = I(X)\ndef f(): return I1'),
    "slice": ('X = slice(1, 2)', 'X = slice(1, 3)', 'def f(x): return x[X]'),
    "module": ('X = 1', 'X = 2', 'def f(): return values.X'),
    "module_of_package": ('X = 1', 'X = 2', 'import package.below\ndef f(): return package.below.X'),
    "module_as_a_local": ('X = 1', 'X = 2', 'def f():\n    other = values\n    return other.X'),
    "module_in_a_closure": (
        'X = 1',
        'X = 2',
        'def make(m):\n    def f(): return m.X\n    return f\nf = make(values)',
    ),
    "which_module": ('import math\nX = math', 'import cmath\nX = cmath', 'def f(x): return X.sqrt(x)'),
    "which_module_as_a_local": (
        "import math\nX = math", "import cmath\nX = cmath", "def f(x):\n    m = X\n    return m.sqrt(x)"
    ),
    "module_of_a_module_as_a_local": (
        'X = 1',
        'X = 2',
        'import package.below\ndef f():\n    other = package\n    return other.below.X',
    ),
    "module_as_a_default": ('X = 1', 'X = 2', 'def f(m=values): return m.X'),
    "module_as_an_argument": ('X = 1', 'X = 2', '@njit\ndef g(m): return m.X\ndef f(): return g(values)'),
    "attribute_by_a_text": ('X = 1', 'X = 2', 'def f(): return getattr(values, "X")'),
    "signature": ("X = 'i8(i8)'", "X = 'f8(f8)'", '@njit(X)\ndef g(y): return y / 2 // 1\ndef f(y): return g(y)'),
    "vectorized_signature": (
        "X = ['i1(i1)']", "X = ['i8(i8)']", '@numba.vectorize(X)\ndef g(y): return y\ndef f(y): return g(y)'
    ),
    "vectorized_option": (
        "X = False",
        "X = True",
        "@numba.guvectorize('(n)->()', fastmath=X)\ndef g(y, out): out[0] = y[0]\ndef f(y, out): g(y, out)",
    ),
    "identity": ("X = 0", "X = 1", '@numba.vectorize(identity=X)\ndef g(y, z): return y\ndef f(y): return g.reduce(y)'),
    "layout": (
        "X = '(n)->()'",
        "X = '(n)->(n)'",
        "@numba.guvectorize(['(i8[:], i8[:])'], X)\ndef g(y, out): out[0] = len(y)\ndef f(y, out): g(y, out)",
    ),
    "closure": ('X = 1', 'X = 2', 'def make(x):\n    def f(): return x\n    return f\nf = make(X)'),
    "closure_below": (
        'X = 1',
        'X = 2',
        'def make(x):\n    def f():\n        def g(): return x\n        return g()\n    return f\nf = make(X)',
    ),
    "function_of_function": ('X = 1', 'X = 2', 'def f(y):\n    g = lambda z: z + X\n    return g(y)'),
    "alias": ('from both import less as X', 'from both import more as X', 'def f(y): return X(y)'),
    "alias_below": (
        'from both import less as X',
        'from both import more as X',
        '@njit\ndef g(y): return X(y)\ndef f(y): return g(y)',
    ),
    "functions_in_a_tuple": (
        'from both import *\nX = (less, more)',
        'from both import *\nX = (more, less)',
        'def f(y): return X[0](y)',
    ),
    "partial": ('X = 1', 'X = 2', 'import functools, both\nP = functools.partial(both.less, X)\ndef f(): return P()'),
    "function_in_an_attribute": (
        'from both import less as X',
        'from both import more as X',
        'class C: do = staticmethod(X)\ndef f(y): return C.do(y)',
    ),
    "option": ('X = False', 'X = True', '@njit(fastmath=X)\ndef g(y): return y\ndef f(y): return g(y)'),
    "options_in_a_set": ("X = {'nnan', 'ninf'}", "X = {'nnan', 'nsz'}", '@njit(fastmath=X)\ndef f(y): return y'),
    "error_model": ("X = 'numpy'", "X = 'python'", '@njit(error_model=X)\ndef f(y): return 1 / y'),
    "vectorized": ('X = 1', 'X = 2', '@numba.vectorize\ndef g(y): return y + X\ndef f(y): return g(y)'),
    "intrinsic": (
        'X = 1',
        'X = 2',
        'def make(x):\n    @intrinsic\n    def g(context):\n'
        '        return numba.int64(), lambda c, b, s, a: c.get_constant(numba.int64, x)\n    return g\n'
        'g = make(X)\ndef f(): return g()',
    ),
    "overload": (
        'X = 1',
        'X = 2',
        'import both\n@overload(both.nothing)\ndef over(y): return lambda y: y + X\n'
        'def f(y): return both.nothing(y)',
    ),
    "overload_of_numpy": (
        'X = 1',
        'X = 2',
        "@overload(np.packbits)\ndef over(y): return lambda y: X\n"
        'def f(y): return np.packbits(y)',
    ),
    "overload_of_attribute": (
        'X = 1',
        'X = 2',
        "@overload_attribute(types.Integer, 'twice')\ndef over(y): return lambda y: X\ndef f(y): return y.twice",
    ),
}  # fmt: skip
PRELUDE = "import numba\nimport numpy as np\nfrom numba import njit\n"
RULES = PRELUDE + (
    "import enum, values\nfrom typing import NamedTuple\nfrom numba import types\nfrom values import X\n"
    "from numba.extending import intrinsic, overload, overload_attribute\n"
)
BOTH = (
    "def less(x): return x - 1\n\n\ndef more(x): return x + 1\n\n\ndef nothing(x): return None\n"
    "__all__ = ['less', 'more']\n"
)
PRINT = """
import importlib, sys
from mlbits.envs.engine.fingerprint import fingerprint
for folder in sorted(sys.argv[1:]):
    sys.path.insert(0, folder)
    found = fingerprint({"f": importlib.import_module("rules").f})
    print(folder.split("/")[-1], found.digest, *found.unhashable)
    sys.path.pop(0)
    for name in ("rules", "values", "both", "package", "package.below"):
        sys.modules.pop(name, None)
"""


def digests(folders: list[Path], seed: int) -> dict[str, str]:
    """The hash that a new process computes for each folder's rules."""
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", PRINT, *map(str, folders)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert all(len(line) == 2 for line in lines), "not hashable: " + done.stdout
    return dict(lines)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Hashes of all kinds: from two processes before the edit and from one after it, at the same paths."""
    root = tmp_path_factory.mktemp("kinds")
    folders = [root / name for name in KINDS]
    for folder in folders:
        before, _, rules = KINDS[folder.name]
        (folder / "package").mkdir(parents=True)
        (folder / "package" / "__init__.py").write_text("")
        (folder / "both.py").write_text(BOTH)
        (folder / "rules.py").write_text(RULES + rules + "\n")
        for file in (folder / "values.py", folder / "package" / "below.py"):
            file.write_text(PRELUDE + before + "\n")
    results = [digests(folders, 0), digests(folders, 12345)]
    for folder in folders:
        for file in (folder / "values.py", folder / "package" / "below.py"):
            file.write_text(PRELUDE + KINDS[folder.name][1] + "\n")
    return [*results, digests(folders, 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_elsewhere_gives_a_new_hash(found: list[dict[str, str]], kind: str) -> None:
    first, again, after = (digest[kind] for digest in found)
    assert first == again, "two processes with the same source"
    assert after != first


class Unknown:
    """An object that Numba could not freeze."""


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        Unknown(),
        ctypes.CFUNCTYPE(ctypes.c_double)(lambda: 1.0),
        numba.cfunc("f8(f8)")(lambda x: x),
        numba.typeof(njit(lambda x: x)),
        np.array([Unknown()]),
        (1, (2, Unknown())),
        {"a": Unknown()},
        LOOP,
        numba.typed.List([1]),
        iter([1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_cannot_be_hashed_are_listed(value: Any) -> None:
    code = compile("def f(): return X", "f.py", "exec").co_consts[0]
    found = fingerprint({"f": FunctionType(code, {"X": value, "__name__": "here"})})
    assert len(found.unhashable) == len(found.kept) == 1
    assert found.unhashable[0].startswith("here.X")
    other = fingerprint({"f": FunctionType(code, {"X": Unknown(), "__name__": "here"})})
    assert found.digest != other.digest, "another object, another hash, within the process"


def test_other_globals_of_the_module_and_attributes_of_records_do_not_matter() -> None:
    """``state.log`` is a field, not the logger that the module calls ``log``."""
    code = compile("def f(state): return state.log + X", "f.py", "exec").co_consts[0]
    one, two = (FunctionType(code, {"X": 1, "log": log, "__name__": "here"}) for log in (Unknown(), None))
    assert fingerprint({"f": one}) == fingerprint({"f": two})
    assert not fingerprint({"f": one}).unhashable


def test_mutually_recursive_functions_terminate() -> None:
    names: dict[str, Any] = {"__name__": "here", "X": 1}
    exec("def f(x): return g(x - X) if x > 0 else 0\ndef g(x): return f(x - 2)", names)
    before = fingerprint({"f": names["f"]}).digest
    names["X"] = 3
    assert fingerprint({"f": names["f"]}).digest != before


@pytest.mark.parametrize("setting", ["BOUNDSCHECK", "OPT", "LOOP_VECTORIZE"])
def test_numbas_settings_matter(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint({"f": digests}).digest
    monkeypatch.setattr(numba.config, setting, 1 - int(getattr(numba.config, setting) or 0))
    assert fingerprint({"f": digests}).digest != before


@pytest.mark.parametrize("library", ["numba", "np", "llvmlite"])
def test_versions_matter(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint({"f": digests}).digest
    monkeypatch.setattr(getattr(module, library), "__version__", "0.0.0")
    assert fingerprint({"f": digests}).digest != before
    monkeypatch.undo()
    monkeypatch.setattr(module, "__version__", "0.0.0")
    assert fingerprint({"f": digests}).digest != before


def test_compiled_functions_come_callees_first_with_what_each_reads() -> None:
    names: dict[str, Any] = {"__name__": "here", "njit": njit, "X": 1, "Y": 1}
    exec("@njit\ndef low(x): return x + X\n@njit\ndef high(x): return low(x) + Y\n", names)

    def own(root: str) -> dict[str, str]:
        return {one.py_func.__name__: digest for one, digest in fingerprint({"f": names[root]}).dispatchers}

    before = own("high")
    assert list(before) == ["low", "high"]
    assert own("low")["low"] == before["low"], "independent of where the walk began"
    names["X"] = 2
    after = own("high")
    assert (after["low"] == before["low"], after["high"] == before["high"]) == (False, True)
