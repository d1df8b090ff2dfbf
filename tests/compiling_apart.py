"""Kernels that are kept on the disk are compiled in a child process, and read from the disk by the tests.

What a compiler needs (10 MB for a small game, 150 MB for Diplomacy) is never given back by the process that ran it; a
child's is. Where several test processes want one kernel at once, one compiles and the others wait for it. Kernels that
are not kept on the disk, and those on several cores, whose threads do not outlive a fork, are compiled where they are;
so are Diplomacy's, of which many call the same large functions, compiled once a process.
"""

import contextlib
import gc
import os
import sys
import warnings
from pathlib import Path

import numba
from numba.core import sigutils
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

_compile = Dispatcher.compile


def install():
    """From now on, on Linux; nothing elsewhere, where forks are unsafe or none, nor where nothing is compiled."""
    if sys.platform == "linux" and not numba.config.DISABLE_JIT:
        Dispatcher.compile = _compile_apart


def _compile_apart(dispatcher, signature):
    """``Dispatcher.compile``, by way of a child where the kernel is for the disk and is not on it."""
    if _missing(dispatcher, signature):
        with _alone(dispatcher):
            if _missing(dispatcher, signature):
                _in_a_child(dispatcher, signature)
    return _compile(dispatcher, signature)


def _missing(dispatcher, signature):
    cache = dispatcher._cache
    if not isinstance(cache, FunctionCache) or dispatcher.targetoptions.get("parallel"):
        return False
    arguments, _ = sigutils.normalize_signature(signature)
    if not dispatcher._can_compile or tuple(arguments) in dispatcher.overloads or _calls_functions(dispatcher):
        return False
    key = cache._index_key(signature, dispatcher.targetctx.codegen())
    return key not in cache._cache_file._load_index()


def _calls_functions(dispatcher):
    """Whether a rule that it reaches is compiled as a function of its own, and not into its callers."""
    reached, left = set(), [dispatcher]
    while left:
        one = left.pop()
        if id(one) not in reached:
            reached.add(id(one))
            if one is not dispatcher and one.targetoptions.get("inline") == "never":
                return True
            found = (one.py_func.__globals__.get(name) for name in one.py_func.__code__.co_names)
            left += [value for value in found if isinstance(value, Dispatcher)]
    return False


@contextlib.contextmanager
def _alone(dispatcher):
    """While no other process compiles this kernel."""
    import fcntl

    folder = Path(dispatcher._cache._impl.locator.get_cache_path())
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / f"{dispatcher._cache._impl.filename_base}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _in_a_child(dispatcher, signature):
    """What goes wrong in the child goes wrong again where the test sees it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads: the child starts none
        child = os.fork()
    if child == 0:
        try:
            gc.disable()  # it ends soon
            Dispatcher.compile = _compile
            _compile(dispatcher, signature)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
