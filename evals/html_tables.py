"""Tables as HTML, for notebooks, which show an object by its ``_repr_html_``."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from rich.table import Table


def html_table(head: Sequence[str], rows: Sequence[Sequence[Any]], below: str = "") -> str:
    """A table of text, with a paragraph below it; all of it is escaped.

    Example:
        >>> html_table(["a<b"], [[1]])
        '<table><thead><tr><th>a&lt;b</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>'
    """
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = [f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    note = f"<p>{html.escape(below)}</p>".replace("\n", "<br>") if below else ""
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table>{note}"


def html_of(table: Table) -> str:
    """A terminal's table as HTML."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return html_table(
        [str(column.header) for column in table.columns], list(zip(*columns, strict=True)), str(table.caption or "")
    )
