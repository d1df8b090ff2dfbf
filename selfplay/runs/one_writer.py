"""One writer per folder: a lock that the system lets go of when its process ends, however it ends.

The lock is flock's (on Windows, msvcrt's) on the file ``.lock`` in the folder, which says who holds it and is deleted
with the lock. A file that a killed process left behind locks nothing. Where a file system has no locks (some network
file systems), the process named in the file counts: it holds the lock while it runs on this machine; if it is on
another one, the file has to be deleted by hand after a crash.

Example:
    >>> with one_writer(Path()):
    ...     Path(".lock").exists()
    True
    >>> Path(".lock").exists()
    False
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlbits.envs.core.errors import MlbitsError

LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_FAR = 2**30  # Windows locks bytes, which others then cannot read: one far behind the text
_open: set[int] = set()  # descriptors of the locks that this process holds


class InUseError(MlbitsError, RuntimeError):
    """A folder that another process is writing."""


@contextlib.contextmanager
def one_writer(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Be the only one that writes a folder, inside this context.

    Args:
        folder: the folder, which exists.
        name: name of the lock file.

    Raises:
        InUseError: if another process, or another part of this one, is writing there.
        OSError: if the lock file cannot be written.
    """
    path = folder / name
    descriptor = _acquire(path)
    _open.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _open:  # else this is a forked child, which never had the lock
            _open.discard(descriptor)
            with contextlib.suppress(OSError):  # the folder may be gone; Windows deletes no open file
                path.unlink()
            os.close(descriptor)


def writer_of(folder: Path) -> str:
    """Who is writing a folder, in words; "" if nobody is. The lock is not touched."""
    holder = _holder(folder / LOCK)
    return _words(holder) if _runs(holder) else ""


def _acquire(path: Path) -> int:
    """Lock a file, and write into it who has it; returns its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _locked(descriptor, path):
                raise InUseError(_refusal(path))
            if not _is_still(path, descriptor):  # deleted by its last holder after we had opened it
                os.close(descriptor)
                continue
            about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(about).encode())
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _locked(descriptor: int, path: Path) -> bool:
    """Take the lock of an open file, if nobody has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _NO_LOCKS:
            return not _runs(_holder(path))
        raise
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _runs(holder: dict[str, Any]) -> bool:
    """Whether a named holder may still be running; of another machine's nothing is known."""
    if not holder:
        return False
    if holder.get("host") != socket.gethostname() or sys.platform == "win32":  # where os.kill ends processes
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError, TypeError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _refusal(path: Path) -> str:
    who = _words(_holder(path))
    return f"{path.parent}: {who} is writing it; wanted a folder that no other process writes, or its end first"


def _words(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    where = "" if holder.get("host") == socket.gethostname() else f" on {holder.get('host')!s:.80}"
    return f"process {holder.get('pid')!s:.20}{where}, since {holder.get('since')!s:.40},"


def _holder(path: Path) -> dict[str, Any]:
    """What a lock file says; nothing if it is absent, empty or damaged."""
    try:
        found = json.loads(path.read_bytes()[:4096])
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _let_go_in_a_child() -> None:
    """A forked child has its parent's descriptors, and would keep the lock after the parent's end."""
    for descriptor in _open:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_a_child)
