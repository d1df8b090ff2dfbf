"""Where what a user has registered comes from, so that another process can register it again.

An id of one's own is known only once the module that registers it has been imported. A run writes that module down
("module:id"), and the folder where Python found it, for a process that would not find it there.

A script that was itself started (``python mine.py``) can be imported again only where it says ``if __name__ ==
"__main__":``; without that its training would begin anew. What a notebook registers cannot be found again at all.

Importing runs code, and a file may come from a stranger. So what a file names is imported only from where Python looks
without the working folder (installed packages, PYTHONPATH), or from a folder of this user's own list, in which every
folder stands from which this user has trained something. What a person types is looked for in the working folder too.

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

from mlbits.envs.core.errors import GameError

_OWN = ("mlbits", "gymnasium", "ale_py")  # register themselves


def caller(depth: int = 2) -> str:
    """The name of the module whose code called the function that calls this."""
    return str(sys._getframe(depth).f_globals.get("__name__", "__main__"))


def importable_name(module: str) -> str:
    """The name by which another process can import a module; "" where it cannot, or need not."""
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
    """The folder in which Python looks for a module that :func:`importable_name` has named; None where it has none."""
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
    """Import a module that a person or a file has named.

    Args:
        module: its name.
        folders: of the module, as a file has them: those of this user's own are looked in, and the working folder is
            not. None where a person has typed the name: Python's own places, then the working folder.

    Raises:
        GameError: if it is in none of them, or cannot be imported.
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
    except (ImportError, ValueError) as error:
        sys.path[:] = before
        raise GameError(
            f"the module {module!r} cannot be imported ({error}); wanted its folder on PYTHONPATH"
        ) from None
    sys.path[:] = [*before, *(place for place in places if place not in before)]
    return found


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
    """The folders from which this user has trained something of their own."""
    try:
        found = json.loads(_list_file().read_text())
    except (OSError, ValueError):
        return []
    return [str(folder) for folder in found] if isinstance(found, list) else []


def remember_folders(folders: Sequence[str]) -> None:
    """Put folders on this user's list. Where it cannot be written, they have to be on PYTHONPATH another time."""
    known = own_folders()
    new = [folder for folder in folders if folder not in known]
    if not new:
        return
    file = _list_file()
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(known + new, indent=2) + "\n")
        aside.replace(file)
    except OSError:
        return


def _list_file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "mlbits" / "own_folders.json"
