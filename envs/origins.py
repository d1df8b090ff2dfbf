"""Which module and folder registered a user's environment or agent, so that another process can import it again.

A user's id is known only after the module that registers it has been imported. A run therefore records that module
("module:id") and the folder where Python found it, for processes that would not find it by themselves.

A script that was run directly (``python mine.py``) can be imported again only if it has ``if __name__ == "__main__":``;
otherwise importing it would start its training again. What a notebook registers cannot be imported at all.

Importing runs code, and run files may come from strangers. A module named in a file is therefore imported only from
Python's path without the working folder (installed packages, PYTHONPATH), or from a folder on this user's own list,
which holds the folders from which this user has trained something. Names typed by the user are also looked up in the
working folder.

Example:
    >>> _ = Path("my_games.py").write_text("import mlbits")
    >>> module = import_module("my_games")  # in the working folder; or import_module("my_games", ["/home/me/games"])
    >>> folder_of("my_games") == str(Path.cwd().resolve())
    True
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.plain_json import read_json_file
from mlbits.envs.core.private_folders import home_folder, private_folder

_LIST = "own_folders.json"
_OWN = ("mlbits", "gymnasium", "ale_py")  # these register themselves


def caller(depth: int = 2) -> str:
    """The name of the module that called the caller of this function."""
    return str(sys._getframe(depth).f_globals.get("__name__", "__main__"))


def importable_name(module: str) -> str:
    """The name under which another process can import a module; "" if it cannot, or need not."""
    if module.partition(".")[0] in _OWN:
        return ""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if spec is not None or path is None or Path(path).suffix != ".py" or not Path(path).stem.isidentifier():
        return ""
    return Path(path).stem if "__name__" in Path(path).read_text(errors="replace") else ""


def folder_of(module: str) -> str | None:
    """The folder from which Python imports a module named by :func:`importable_name`; None if it has none."""
    root = sys.modules.get(module.partition(".")[0])
    path = getattr(root, "__file__", None)
    if root is None:
        main = getattr(sys.modules["__main__"], "__file__", None)
        path = main if main is not None and Path(main).stem == module else None
    if path is None:
        return None
    folder = Path(path).resolve().parent
    return str(folder.parent if hasattr(root, "__path__") else folder)


def import_module(module: str, folders: Sequence[str] | None = None) -> ModuleType:
    """Import a module named by the user or by a file.

    Args:
        module: its name.
        folders: the module's folders as recorded in a file: only those on this user's own list are searched, and the
            working folder is not. None if the user typed the name: Python's path, then the working folder.

    Raises:
        GameError: if it is in none of these, or cannot be imported.
    """
    if module in sys.modules:
        return sys.modules[module]
    before, here = list(sys.path), str(Path.cwd())
    if folders is None:
        places = [*before, here]
    else:
        asked_for = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        known = own_folders()
        places = [place for place in before if place not in ("", here) or (place and place in asked_for)]
        places += [folder for folder in folders if folder in known and Path(folder).is_dir()]
    try:
        sys.path[:] = places
        importlib.invalidate_caches()
        found = importlib.import_module(module)
    except SyntaxError as error:
        sys.path[:] = before
        raise GameError(_syntax(module, error)) from None
    except (ImportError, ValueError) as error:
        sys.path[:] = before
        raise GameError(
            f"the module {module!r} cannot be imported ({error}); wanted its folder on PYTHONPATH"
        ) from None
    sys.path[:] = [*before, *(place for place in places if place not in before)]
    return found


def import_name(module: str, name: str) -> Any:
    """Import what a registry's entry names: a class or a function of a module.

    Raises:
        GameError: if the module cannot be imported, or has no such name.
    """
    try:
        found = importlib.import_module(module)
    except SyntaxError as error:
        raise GameError(_syntax(module, error)) from None
    except (ImportError, ValueError) as error:
        raise GameError(f"the module {module!r} cannot be imported ({error})") from None
    if not hasattr(found, name):
        raise GameError(f"the module {module!r} has no {name!r}")
    return getattr(found, name)


def _syntax(module: str, error: SyntaxError) -> str:
    return f"the module {module!r} cannot be imported: {error.msg} in {error.filename}, line {error.lineno}"


def import_module_of(name: str, folders: Sequence[str] | None = None) -> None:
    """Import the module of "module:name", which registers the name; see :func:`import_module`.

    Raises:
        GameError: if it cannot be imported; the message begins with the name.
    """
    try:
        import_module(name.rpartition(":")[0], folders)
    except GameError as error:
        raise GameError(f"{name}: {error}") from None


def own_folders() -> list[str]:
    """The folders from which this user has trained environments or agents of their own."""
    folder = private_folder(_list_folder(), "the list of your own folders is not used")
    if folder is None:
        return []
    try:
        found = read_json_file(folder / _LIST)
    except (OSError, ValueError):
        return []
    return [str(folder) for folder in found] if isinstance(found, list) else []


def remember_folders(folders: Sequence[str]) -> None:
    """Add folders to this user's list. If the list cannot be written, they must be on PYTHONPATH next time."""
    known = own_folders()
    new = [folder for folder in folders if folder not in known]
    if not new:
        return
    folder = private_folder(_list_folder(), "the list of your own folders is not kept")
    if folder is None:
        return
    file = folder / _LIST
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(known + new, indent=2) + "\n")
        aside.replace(file)
    except OSError:
        return


def _list_folder() -> Path | None:
    home = home_folder("XDG_CONFIG_HOME", ".config")
    return None if home is None else home / "mlbits"
