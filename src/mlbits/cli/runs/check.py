"""``mlbits check PATH...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class CheckFlags:
    """Check whether runs, tables and games are whole. Exit status 0 if all are, 1 if one is damaged."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|TABLE|GAMES ...")] = setting(
        (), "runs, checkpoints, frozen copies, tournaments, match tables (.jsonl), games (.json, .jsonl, .pgn)"
    )
    json: Path | None = setting(None, "also write the reports to this file")


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(CheckFlags, "mlbits check", words)


def command(words: list[str]) -> int:
    """Check saved files; exit status 1 if one is damaged."""
    flags = parse(words)
    check_file("json", flags.json)
    if not flags.paths:
        raise ConfigError("paths: got none; wanted a run, a match table or a file of games")
    from mlbits.evals.integrity import check

    reports = [check(path) for path in flags.paths]
    for report in reports:
        print(report.text())
    write_json(flags.json, [report.to_json() for report in reports])
    return 0 if all(report.whole for report in reports) else 1
