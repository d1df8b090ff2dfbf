"""Tables of training results for the terminal and, in Markdown, for a section of a page.

A section of a page lies between two markers, ``<!-- results: NAME -->`` and ``<!-- end of results: NAME -->``; only the
text between them is replaced.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay.runs.checkpoints import write_file
from mlbits.selfplay.runs.folder import CONFIG

_COLUMNS = ("task", "agent", "steps", "ours", "at least", "reference", "published", "steps/CPU-s, reference's")
INTERVALS = (
    "In brackets: 95% intervals of the interquartile mean (Tukey and McLaughlin 1963, not narrower than Student's t of "
    "all runs); equal runs and single ones have none."
)


def line(row: Mapping[str, Any]) -> str:
    """One row of the table as a line of text."""
    cells = _cells(row)
    return (
        f"{cells[0]} {cells[1]}: {cells[3]}, wanted {cells[4]}: {'met' if row['met'] else 'missed'}; "
        f"{row['reference_agent'] or 'reference'} {cells[5]}; published {cells[6]}"
    )


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows as a table."""
    columns = ["row", "steps", "ours", "at least", "reference", "published", "met"]
    cells = [(f"{task} {label}", *rest[:5], "yes" if row["met"] else "no") for row in rows
             for task, label, *rest in [_cells(row)]]  # fmt: skip
    print_table(title, columns, cells, width=120)


def markdown(rows: Sequence[Mapping[str, Any]], overall: Mapping[str, Any] | None, versions: Iterable[str]) -> str:
    """The rows as a Markdown table, with the command of each row.

    Args:
        rows: from :meth:`mlbits.evals.reproductions.comparison.Entry.row`.
        overall: "ours" and "reference", normalised scores over all rows that have both; or None.
        versions: versions of the software that made the runs.
    """
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    most = max((len(row["ours"]["scores"]) for row in rows if row["ours"] is not None), default=0)
    for row in rows:
        cells = _cells(row)
        for place, side in ((3, row["ours"]), (5, row["reference"])):
            if side is not None and len(side["scores"]) < most:
                cells[place] += f", {len(side['scores'])} of {most} runs"
        cells[3] = f"**{cells[3]}**" if row["met"] else cells[3]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", INTERVALS]
    if overall is not None:
        sides = (f"{side} {interval(overall[side], 2)}" for side in ("ours", "reference"))
        lines += [
            "",
            f"Over the {overall['ours']['rows']} rows that have both, scores mapped so that random play is 0 and the "
            f"published figure 1: {', '.join(sides)}.",
        ]
    lines += ["", "| row | command of a run, with `--seed 0` and on |", "|---|---|"]
    for row in rows:
        flags = f" {row['flags']}" if row["flags"] else ""
        command = f"mlbits train {row['agent']} {row['task']}{flags} --total-steps {row['steps']}"
        lines.append(f"| {row['task']}, {row['label']} | `{command}` |")
    return "\n".join([*lines, "", f"Made with {'; '.join(versions)}."])


def made_with(folders: Iterable[Path]) -> list[str]:
    """Versions, devices and commits recorded in the runs' folders; + marks a commit with local changes."""
    commits: dict[str, set[str]] = {}
    for folder in folders:
        config = json.loads((folder / CONFIG).read_text())
        commit = config.get("git_hash") or ""
        versions = f"mlbits {config.get('version')}, torch {config.get('torch')}, {config['run']['device']}"
        commits.setdefault(versions, set()).add(commit[:10] + commit[40:])
    lines = []
    for versions, found in sorted(commits.items()):
        known = ", ".join(sorted(filter(None, found)))
        lines.append(f"{versions} ({known})" if known else versions)
    return lines


def read_page(page: Path, name: str) -> tuple[str, str]:
    """The text before and after a section of a page, markers included.

    Raises:
        ReproductionError: if the page does not exist or lacks the markers.
    """
    first, last = f"<!-- results: {name} -->\n", f"<!-- end of results: {name} -->"
    try:
        text = page.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ReproductionError(f"page: {page} cannot be read ({error}); wanted a page with {first.strip()}") from None
    before, found, rest = text.partition(first)
    _, ended, after = rest.partition(last)
    if not found or not ended:
        raise ReproductionError(f"page: {page} lacks {(first if not found else last).strip()}; wanted both markers")
    return before + first, last + after


def write_page(page: Path, name: str, text: str) -> None:
    """Replace a section of a page."""
    before, after = read_page(page, name)
    write_file(page, f"{before}\n{text}\n\n{after}".encode())


def _cells(row: Mapping[str, Any]) -> list[str]:
    spread = "" if row["spread"] is None else f" ± {_number(row['spread'])}"
    speeds = [f"{side['steps_per_cpu_second']:,.0f}" if side else "-" for side in (row["ours"], row["reference"])]
    return [
        row["task"], row["label"], f"{row['steps']:,}", interval(row["ours"]), _number(row["target"]),
        interval(row["reference"]), f"{_number(row['published'])}{spread} ({row['source']})", ", ".join(speeds),
    ]  # fmt: skip


def interval(side: Mapping[str, Any] | None, digits: int = 1) -> str:
    """An interquartile mean with its interval, or why it has none; a dash without runs."""
    if side is None:
        return "-"
    low, high = side["interval"]
    if math.isinf(low):
        count = len(side.get("scores", ()))
        why = f"all {count} equal" if count > 1 else "no interval"
        return f"{_number(side['iqm'], digits)} ({why})"
    return f"{_number(side['iqm'], digits)} [{_number(low, digits)}, {_number(high, digits)}]"


def _number(value: float, digits: int = 1) -> str:
    text = f"{value:,.{digits}f}"
    return text.removesuffix(".0") if digits == 1 else text
