"""Where what a user has registered comes from, so that another process can register it again.

An id of one's own is known only once the module that registers it has been imported. A run writes that module down
("module:id"), and the folder where Python found it, for a process that would not find it there.

A script that was itself started (``python mine.py``) can be imported again only where it says ``if __name__ ==
"__main__":``; without that its training would begin anew. What a notebook registers cannot be found again at all.

Example:
    >>> _ = Path("my_games.py").write_text("import mlbits")
    >>> module = import_module("my_games")  # in the working folder; or import_module("my_games", ["/home/me/games"])
    >>> folder_of("my_games") == str(Path.cwd().resolve())
    True
"""

from __future__ import annotations

import importlib
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


def import_module(module: str, folders: Sequence[str] = ()) -> ModuleType:
    """Import a module from where Python looks, else from the working folder or one of some others.

    Raises:
        GameError: if it is in none of them, or cannot be imported.
    """
    places, before = [str(Path.cwd()), *folders], list(sys.path)
    try:
        sys.path += [place for place in places if place not in sys.path and Path(place).is_dir()]
        importlib.invalidate_caches()
        return importlib.import_module(module)
    except (ImportError, ValueError) as error:
        sys.path[:] = before
        raise GameError(
            f"the module {module!r} cannot be imported ({error}); wanted its folder on PYTHONPATH"
        ) from None
