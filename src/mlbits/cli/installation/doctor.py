"""``mlbits doctor``."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.printing import printable
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class DoctorFlags:
    """Tell what is installed here, whether it works, and what is slow and why. Exit status 1 if something is broken."""

    quick: bool = setting(False, "leave out compiling and running rules, and starting processes")
    json: Path | None = setting(None, "also write the findings to this file")


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(DoctorFlags, "mlbits doctor", words)


def command(words: list[str]) -> int:
    """Examine this machine and installation; exit status 1 if something is broken."""
    flags = parse(words)
    check_file("json", flags.json)
    from mlbits.evals.doctor.examine import conclusion, examine, to_json

    lines = textwrap.TextWrapper(
        max(60, shutil.get_terminal_size((120, 24)).columns), subsequent_indent=" " * 10, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    found, section = [], ""
    for one in examine(flags.quick):
        if one.section != section:
            section = one.section
            print(section)
        found.append(one)
        mark = "" if one.state == "fine" else one.state
        print(lines.fill(f"  {mark:<8}{printable(one.text)}"), flush=True)
    print(f"\n{conclusion(found)}")
    write_json(flags.json, to_json(found))
    return 1 if any(one.state == "broken" for one in found) else 0
