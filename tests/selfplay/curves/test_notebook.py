"""In a notebook's kernel a run's progress is one line of the cell; elsewhere nothing of it is imported."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from mlbits.selfplay.curves import progress
from mlbits.selfplay.curves.notebook import CellLine, in_notebook
from mlbits.selfplay.curves.progress import Progress


class Handle:
    """Jupyter's handle of what a cell displays."""

    def __init__(self, shown: list[Any]) -> None:
        self.shown = shown

    def update(self, data: Any, *, raw: bool) -> None:
        assert raw
        self.shown.append(("update", data["text/plain"]))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a cell displays, in a process with a kernel's IPython."""
    shown: list[Any] = []

    def display(data: Any, *, raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        shown.append(("display", data["text/plain"]))
        return Handle(shown)

    ipython, inner = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    inner.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)
    return shown


def test_only_a_kernel_is_a_notebook(kernel: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_notebook()
    terminal = types.SimpleNamespace()  # IPython in a terminal
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: terminal)
    assert not in_notebook()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)  # imported by a script
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


def test_a_line_is_written_in_place(kernel: list[Any]) -> None:
    line = CellLine()
    line.write("one")
    line.write("two")
    assert kernel == [("display", "one"), ("update", "two")]


def test_progress_is_one_line_of_the_cell(
    kernel: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LIVE_LINE_EVERY", 0.0)
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = Progress(1000)
    for step in (100, 1000):
        shown.show(step, {"speed/steps_per_second": 50.0, "return/train": 1.5})
    shown.close()
    assert [kind for kind, _ in kernel] == ["display", "update"]
    assert kernel[-1][1].startswith("1,000/1,000 steps (100%)")
    assert capsys.readouterr().out == ""
