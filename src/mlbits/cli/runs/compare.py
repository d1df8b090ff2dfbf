"""``mlbits compare RUN...``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import tyro

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.printing import printable
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class CompareFlags:
    """Compare runs: the settings that differ, results with 95% intervals, speed. Seeds of one kind are one column."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")] = setting(
        (), "folders of runs, or folders that hold runs"
    )
    json: Path | None = setting(None, "write the comparison to this file")


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(CompareFlags, "mlbits compare", words)


def command(words: list[str]) -> int:
    """Compare runs."""
    flags = parse(words)
    check_file("json", flags.json)
    if not flags.runs:
        raise ConfigError("runs: got none; wanted mlbits compare RUN RUN ..., folders of runs")
    from mlbits.evals.compare import compare, table

    found = compare(flags.runs)
    print(printable(table(found, width=shutil.get_terminal_size((100, 24)).columns), keep="\n"))
    write_json(flags.json, found)
    return 0
