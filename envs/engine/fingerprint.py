"""A hash of everything that compiled functions depend on: their code and all values Numba freezes into machine code.

Numba reads globals, closures, default arguments and attributes of modules once, when it compiles. Hashing a function's
own source file is therefore not enough: editing a constant in another file, an enumeration that another module fills,
or the function that a name refers to must change the hash. The walk therefore goes by value, from each function
through every name that its bytecode loads, and includes

* bytecode and constants of every function reached (compiled or not), Numba's options for it, its source file's bytes,
* default arguments, closures, globals, attributes of modules and classes, also through containers and other names,
* numbers, strings, tuples, enumerations, NumPy types, scalars and arrays (all bytes, dtype, shape, memory order),
* what ``numba.extending`` has registered for a function (overloads, intrinsics),
* versions of Python, NumPy, Numba, llvmlite and mlbits, and Numba's settings that change code.

The processor is part of Numba's own cache index. Two processes find the same hash for the same source: neither
addresses nor the order of sets or imports enter it. What cannot be hashed this way (a function pointer, an object of a
class that the walk does not know) is listed; machine code that depends on it must not outlive the process.
"""

from __future__ import annotations

import builtins
import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import CodeType, MappingProxyType, MethodType, ModuleType
from typing import Any, NamedTuple

import llvmlite
import numba
import numpy as np
from numba.core import types
from numba.core.typing.templates import builtin_registry

from mlbits.version import __version__

# Modules identified by a version, which is hashed: their members are hashed by name.
_VERSIONED = frozenset({"builtins", "cmath", "llvmlite", "math", "numba", "numpy", "operator", "random"})
_SETTINGS = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "DISABLE_JIT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX",
             "DISABLE_INTEL_SVML")  # fmt: skip
_numba_config: Any = numba.config  # its attributes are set at run time
_PLAIN = (bool, complex, str, bytes, type(None), type(Ellipsis), range)
_REGISTERED = (builtin_registry.globals, builtin_registry.attributes)
_ABSENT = object()


class Fingerprint(NamedTuple):
    """The hash of functions and their dependencies.

    Attributes:
        digest: 64 hexadecimal digits; equal across processes if ``unhashable`` is empty, else valid in this one only.
        unhashable: what could not be hashed by value, with the names that lead to it.
        kept: those objects, kept alive so that no other object gets their identity.
        dispatchers: the compiled functions reached, callees first, each with a digest of its own code and of what it
            reads, without that of other functions: independent of where the walk began.
    """

    digest: str
    unhashable: tuple[str, ...]
    kept: tuple[Any, ...]
    dispatchers: tuple[tuple[Any, str], ...]


def fingerprint(functions: Mapping[str, Any], *texts: str) -> Fingerprint:
    """Hash functions with everything that their compiled form depends on.

    Args:
        functions: functions by name (any names), compiled by Numba or plain.
        texts: further strings to hash.
    """
    walk = _Walk()
    for text in (*texts, sys.version, np.__version__, numba.__version__, llvmlite.__version__, __version__):
        walk.put("text", text)
    for setting in _SETTINGS:
        walk.put(setting, repr(getattr(_numba_config, setting, None)))
    for name in sorted(functions):
        walk.put("function", name)
        walk.value(name, functions[name])
    walk.members_of_modules()
    for path in sorted(walk.files):
        walk.put("file", path)
        walk.put("bytes", Path(path).read_bytes())
    return Fingerprint(walk.hash.hexdigest(), tuple(walk.unhashable), tuple(walk.kept), tuple(walk.dispatchers))


class _Walk:
    """Walks from value to value and hashes what it finds, in an order that depends only on the source."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.files: set[str] = set()
        self.unhashable: list[str] = []
        self.kept: list[Any] = []
        self.dispatchers: list[tuple[Any, str]] = []
        self._own = hashlib.sha256()  # of the function being walked, without those that it calls
        self._seen: dict[int, tuple[int, Any]] = {}  # functions and classes, by identity, with their numbers
        self._inside: set[int] = set()  # containers being walked
        self._modules: list[ModuleType] = []  # reached as values: any function may read their members
        self._attributes: set[str] = set()  # attributes that any function loads, or strings that getattr could take
        self._by_function, self._by_attribute = _registered_outside_numba(*map(len, _REGISTERED))

    def put(self, tag: str, data: str | bytes) -> None:
        """Hash one piece; tag and length separate it from the next."""
        data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        data = f"{tag}:{len(data)}:".encode() + data
        self.hash.update(data)
        self._own.update(data)

    def value(self, name: str, value: Any) -> None:
        """Hash a value.

        Args:
            name: the names that led to it, for messages.
            value: anything.
        """
        kind = type(value)
        self._registered(name, value)
        if kind in _PLAIN:
            self.put(kind.__name__, repr(value))
        elif kind is float:
            self.put("float", value.hex())
        elif kind is int:
            self.put("int", hex(value))
        elif isinstance(value, enum.Enum):
            self._class_name("member", kind)
            self.put("name", str(value.name))
            self.value(name, value.value)
        elif isinstance(value, (np.ndarray, np.generic, np.dtype)):
            self._numpy(name, value)
        elif isinstance(value, types.Type):
            self._numba_type(name, value)
        elif isinstance(value, (tuple, list, set, frozenset, dict, MappingProxyType, slice)):
            self._container(name, value)
        elif isinstance(value, ModuleType):
            self.put("module", value.__name__)
            if not _has_version(value) and value not in self._modules:
                self._modules.append(value)
        elif _is_versioned(value):
            self.put("versioned", f"{value.__module__}.{value.__qualname__}")
        elif inspect.isclass(value):
            self._class(name, value)
        elif (function := _function_of(value)) is not None:
            self._function(name, value, function)
        elif isinstance(value, MethodType):
            self.value(f"{name}.__func__", value.__func__)
            self.value(f"{name}.__self__", value.__self__)
        elif isinstance(value, functools.partial):
            self._container(name, (value.func, value.args, value.keywords))
        elif dataclasses.is_dataclass(value):
            self._class_name("dataclass", kind)
            for field in dataclasses.fields(value):
                self.put("field", field.name)
                self.value(f"{name}.{field.name}", getattr(value, field.name))
        elif isinstance(value, (int, float, complex, str, bytes)):  # an instance of a subclass
            self._class_name("subclass", kind)
            base: Any = next(base for base in (int, float, complex, str, bytes) if isinstance(value, base))
            self.value(name, base(value))
        else:
            self._unknown(name, value)

    def members_of_modules(self) -> None:
        """Hash what functions may read from modules that are default arguments, arguments or local variables."""
        done: set[tuple[int, str]] = set()
        while True:
            found = [
                (k, attribute)
                for k, module in enumerate(self._modules)
                for attribute in sorted(self._attributes & vars(module).keys())
                if (k, attribute) not in done
            ]
            if not found:
                return
            for k, attribute in found:
                done.add((k, attribute))
                self._found(f"{self._modules[k].__name__}.{attribute}", vars(self._modules[k])[attribute])

    def _unknown(self, name: str, value: Any) -> None:
        """Hash the identity of something that cannot be hashed by value."""
        self.unhashable.append(f"{name} ({type(value).__module__}.{type(value).__qualname__})")
        self.kept.append(value)
        self.put("identity", str(id(value)))

    def _class_name(self, tag: str, kind: type) -> None:
        self.put(tag, f"{kind.__module__}.{kind.__qualname__}")

    def _numpy(self, name: str, value: Any) -> None:
        dtype = value if isinstance(value, np.dtype) else value.dtype
        self._dtype(dtype)
        if isinstance(value, np.dtype):
            return
        if dtype.hasobject:
            self._unknown(name, value)
            return
        self._class_name("array", type(value))
        if isinstance(value, np.ndarray):  # the parts of its type that machine code depends on
            self.put("shape", repr(value.shape))
            self.put("flags", repr(value.flags))
        self.put("bytes", value.tobytes())

    def _dtype(self, dtype: np.dtype[Any]) -> None:
        self.put(
            "dtype", repr((dtype.str, dtype.itemsize, dtype.alignment, dtype.isalignedstruct, dtype.type.__name__))
        )
        if dtype.subdtype is not None:
            self.put("shape", repr(dtype.subdtype[1]))
            self._dtype(dtype.subdtype[0])
        for field in dtype.names or ():
            assert dtype.fields is not None
            self.put("field", repr((field, dtype.fields[field][1])))
            self._dtype(dtype.fields[field][0])

    def _numba_type(self, name: str, value: Any) -> None:
        """Hash a Numba type by its name, except types of objects, which are named after an address."""
        if " at 0x" in str(value):
            self._unknown(name, value)
        else:
            self._class_name("type", type(value))
            self.put("name", str(value))

    def _container(self, name: str, value: Any) -> None:
        if id(value) in self._inside:  # it contains itself
            self._unknown(name, value)
            return
        self._inside.add(id(value))
        self._class_name("container", type(value))
        if isinstance(value, slice):
            parts: list[Any] = [value.start, value.stop, value.step]
        elif isinstance(value, (dict, MappingProxyType)):
            parts = list(value.items())
        else:
            parts = list(value)
        self.put("length", str(len(parts)))
        if hasattr(value, "_fields"):  # a named tuple
            self.put("fields", repr(value._fields))
        if isinstance(value, (set, frozenset)):
            for digest in sorted(self._apart(f"{name}[...]", part) for part in parts):
                self.put("part", digest)
        else:
            for k, part in enumerate(parts):
                self.value(f"{name}[{k}]", part)
        self._inside.discard(id(value))

    def _apart(self, name: str, value: Any) -> str:
        """A value's own digest, independent of what was hashed before it."""
        outer, seen = self.hash, self._seen
        self.hash, self._seen = hashlib.sha256(), {}
        self.value(name, value)
        digest = self.hash.hexdigest()
        self.hash, self._seen = outer, seen
        return digest

    def _again(self, value: Any) -> bool:
        """Whether a function or class was walked before; it is then hashed by its number."""
        if id(value) in self._seen:
            self.hash.update(f"again:{self._seen[id(value)][0]}:".encode())
            return True
        self._seen[id(value)] = (len(self._seen), value)
        return False

    def _class(self, name: str, value: type) -> None:
        self._class_name("class", value)
        if self._again(value):
            return
        if issubclass(value, enum.Enum):
            for member, of in value.__members__.items():
                self.put("member", member)
                self.value(f"{name}.{member}", of.value)
        elif issubclass(value, tuple) and hasattr(value, "_fields"):
            self.put("fields", repr(value._fields))
            self.value(f"{name}._field_defaults", getattr(value, "_field_defaults", {}))
        elif type(value) is type or dataclasses.is_dataclass(value):
            self._file(value)
        else:  # a class with a metaclass, such as Numba's jitclass
            self._unknown(name, value)

    def _file(self, value: Any) -> None:
        try:
            path = inspect.getsourcefile(value)
        except TypeError:
            return
        if path and Path(path).is_file():
            self.files.add(path)

    def _function(self, name: str, value: Any, function: Any) -> None:
        """Hash a plain function, or Numba's compiled form of one."""
        self.put("function", f"{function.__module__}.{function.__qualname__}")
        if self._again(function):
            return
        outside, self._own = self._own, hashlib.sha256()
        options = _options(value)
        self._container(f"{name}'s options", {key: options[key] for key in sorted(options)})
        self.put("class", type(value).__name__)
        if id(value) not in self._by_function:  # otherwise the function registered for it is compiled instead
            self._code(name, function)
        if hasattr(value, "targetoptions"):
            self.dispatchers.append((value, self._own.hexdigest()))
        self._own = outside

    def _code(self, name: str, function: Any) -> None:
        self._file(function)
        self._bytecode(function.__code__)
        self._container(f"{name}'s defaults", (function.__defaults__, function.__kwdefaults__))
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        closed = {variable: _contents(cell) for variable, cell in cells}
        chains, attributes = _loads(function.__code__)
        self._attributes |= attributes
        for chain in chains:
            self.put("name", ".".join(chain))
            first = closed[chain[0]] if chain[0] in closed else function.__globals__.get(chain[0], _ABSENT)
            if first is _ABSENT and hasattr(builtins, chain[0]):
                first = getattr(builtins, chain[0])
            self._chain(function.__module__, chain, first, attributes)
        for attribute in sorted(attributes & self._by_attribute.keys()):
            self._container(f"overloads of .{attribute}", self._by_attribute[attribute])

    def _chain(self, name: str, chain: tuple[str, ...], value: Any, attributes: frozenset[str]) -> None:
        """Hash what a dotted name refers to; the value is hashed as a whole, with its attributes."""
        name = f"{name}.{chain[0]}"
        for k, attribute in enumerate(chain[1:], 1):
            if not (isinstance(value, ModuleType) or inspect.isclass(value)):
                break
            owner, value = value, getattr(value, attribute, _ABSENT)
            name = f"{name}.{attribute}"
            if _has_version(owner) and not isinstance(value, ModuleType):
                self.put("versioned", f"{owner.__name__}.{'.'.join(chain[k:])}")
                self._registered(name, value)
                return
        if isinstance(value, ModuleType) and not _has_version(value):
            for attribute in sorted(attributes & vars(value).keys()):  # a module under another name
                self._found(f"{name}.{attribute}", vars(value)[attribute])
        self._found(name, value)

    def _registered(self, name: str, value: Any) -> None:
        """Hash what ``numba.extending.overload`` has registered for a function."""
        for other in self._by_function.get(id(value), ()):
            self.put("overload", name)
            self.value(f"overload of {name}", other)

    def _found(self, name: str, value: Any) -> None:
        if value is _ABSENT:
            self.put("absent", name)
        else:
            self.value(name, value)

    def _bytecode(self, code: CodeType) -> None:
        self.put("code", code.co_code)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.put("names", repr((counts, names)))
        self.put("exceptions", getattr(code, "co_exceptiontable", b""))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._bytecode(constant)
            else:
                self.value("a constant", constant)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return _ABSENT


def _function_of(value: Any) -> Any:
    """The Python function behind a function, Numba dispatcher, ufunc or intrinsic; None for anything else."""
    for candidate in (value, getattr(value, "py_func", None), getattr(value, "_defn", None)):
        if inspect.isfunction(candidate):
            return candidate
    return getattr(getattr(value, "_dispatcher", None), "py_func", None)


def _options(value: Any) -> dict[str, Any]:
    """Numba's compile options, types of locals, and the signatures if these are fixed."""
    made_by = getattr(value, "_dispatcher", value)  # for a ufunc
    builder = getattr(value, "gufunc_builder", None)  # has the options of a generalised ufunc
    options = {**getattr(made_by, "targetoptions", {}), **getattr(builder, "targetoptions", {})}
    options["locals"] = getattr(made_by, "locals", {})
    if not getattr(value, "_can_compile", True):
        options["signatures"] = [(*one.args, one.return_type) for one in value.nopython_signatures]
    if made_by is not value:
        options["layout"], options["identity"] = getattr(value, "signature", None), getattr(value, "identity", None)
        options["types"] = list(value.types) if value._frozen else None
    return options


def _is_versioned(value: Any) -> bool:
    """Whether this very object is found under its own name in a module whose version is hashed."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)) or module.partition(".")[0] not in _VERSIONED:
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _has_version(value: Any) -> bool:
    return isinstance(value, ModuleType) and value.__name__.partition(".")[0] in _VERSIONED


@lru_cache(maxsize=1)
def _registered_outside_numba(*sizes: int) -> tuple[dict[int, list[Any]], dict[str, list[Any]]]:
    """What users of ``numba.extending`` have registered, by function identity and by attribute name.

    Args:
        sizes: sizes of the registries, which only grow; used as cache key.
    """
    by_function: dict[int, list[Any]] = {}
    by_attribute: dict[str, list[Any]] = {}
    for function, kind in builtin_registry.globals:
        for template in getattr(kind, "templates", ()):
            if (made_by := _registered_function(template)) not in (None, function):
                by_function.setdefault(id(function), []).append(made_by)
    for template in builtin_registry.attributes:
        if (made_by := _registered_function(template)) is not None:
            by_attribute.setdefault(template._attr, []).append(made_by)
    return by_function, by_attribute


def _registered_function(template: Any) -> Any:
    made_by = getattr(template, "_overload_func", None)
    module = getattr(made_by, "__module__", None) or "numba"
    return None if module.partition(".")[0] in ("numba", "numba_cuda") else made_by


@lru_cache(maxsize=4096)
def _loads(code: CodeType) -> tuple[tuple[tuple[str, ...], ...], frozenset[str]]:
    """Dotted names that begin with a global or a closure variable, sorted, and all attributes that may be loaded.

    A string that could be an attribute's name counts as one, because of ``getattr(module, "X")``.
    """
    chains: set[tuple[str, ...]] = set()
    attributes: set[str] = set()
    chain: tuple[str, ...] = ()
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        if name == "EXTENDED_ARG":
            continue
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(value)
            chain = (*chain, value) if chain else ()
            continue
        if chain:
            chains.add(chain)
        chain = (value,) if name in ("LOAD_GLOBAL", "LOAD_NAME") or (
            name in ("LOAD_DEREF", "LOAD_CLASSDEREF") and value in code.co_freevars
        ) else ()  # fmt: skip
    for constant in code.co_consts:
        if isinstance(constant, str) and constant.isidentifier():
            attributes.add(constant)
        if isinstance(constant, CodeType):
            inner, more = _loads(constant)
            chains |= {one for one in inner if one[0] not in code.co_cellvars}  # those are locals here
            attributes |= more
    return tuple(sorted(chains)), frozenset(attributes)
