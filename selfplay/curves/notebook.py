"""One line of a notebook's cell that is written anew in place; Jupyter's kernels only, found without importing them."""

from __future__ import annotations

import sys
from typing import Any


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this process (IPython in a terminal does not count)."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class CellLine:
    """A line in the output of the cell that is running."""

    def __init__(self) -> None:
        self._handle: Any = None

    def write(self, line: str) -> None:
        """Write the line, in place of what it was."""
        data = {"text/plain": line}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
