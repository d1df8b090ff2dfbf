"""Folders whose contents are run or trusted: the cache of machine code, and the list of the user's own folders.

Whoever may write into such a folder can have this user run code. They are made for this user alone (mode 0700, whatever
the umask), and used only if nobody else may write into them: they belong to this user, and neither they nor a folder
above them can be written by others. (Above them, a folder with the sticky bit, such as /tmp, is safe: others cannot
rename what is in it.)
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

_log = logging.getLogger(__name__)
_said: set[str] = set()


def home_folder(variable: str, default: str) -> Path | None:
    """The folder that a variable of the XDG specification names, or its default in the home folder.

    Args:
        variable: "XDG_CACHE_HOME" or "XDG_CONFIG_HOME".
        default: its name in the home folder.

    Returns:
        The folder; None for a user without a home folder (``HOME`` is not set, and the user is not known).
    """
    if chosen := os.environ.get(variable):
        return Path(chosen)
    try:
        return Path.home() / default
    except RuntimeError:
        return None


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone.

    Raises:
        OSError: if it cannot be made.
    """
    missing = [folder]
    while not missing[-1].exists() and missing[-1].parent != missing[-1]:
        missing.append(missing[-1].parent)
    for path in reversed(missing[:-1]):
        path.mkdir(mode=0o700, exist_ok=True)  # another process may have just made it


def others_may_write(folder: Path, group: bool = True) -> str:
    """Why others may write into a folder of this user; "" if they may not, or where there are no users.

    Args:
        folder: the folder.
        group: whether members of its group are others.
    """
    if not hasattr(os, "getuid"):
        return ""
    here = folder.resolve()
    for path in (here, *here.parents):
        found = path.stat()
        if found.st_uid not in (os.getuid(), 0) and not (path != here and _sticky(found)):
            return f"{path} belongs to another user"
        own = path == here
        writable = stat.S_IWOTH | (stat.S_IWGRP if own and group else 0)
        if found.st_mode & writable and not (_sticky(found) and not own):
            return f"others may write into {path} (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _sticky(found: os.stat_result) -> bool:
    return bool(found.st_mode & stat.S_ISVTX)


def private_folder(folder: Path | None, what: str, group: bool = True) -> Path | None:
    """A folder that only this user can write into, made if it is missing.

    Args:
        folder: the folder, or None if there is none.
        what: what is not done without it, for the log, as in "machine code is not cached".
        group: whether members of the folder's group are others.

    Returns:
        The folder; None if there is none, it cannot be made, or others may write into it (a warning says so, once).
    """
    if folder is None:
        return None
    try:
        make_private(folder)
        why = others_may_write(folder, group)
    except OSError:  # a home folder that cannot be written, or read
        return None
    if why and str(folder) not in _said:
        _said.add(str(folder))
        _log.warning("%s: %s; wanted a folder of your own (delete it, or chmod 700)", what, why)
    return None if why else folder
