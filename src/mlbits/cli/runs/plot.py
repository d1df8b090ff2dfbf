"""``mlbits plot RUN...``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mlbits.cli.printing import check_file
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.printing import printable
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class PlotFlags:
    """Plot the curves of runs. Runs that differ only in the seed become one curve, with a 95% interval over seeds."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")] = setting(
        (), "folders of runs, or folders that hold runs"
    )
    tag: tuple[str, ...] = setting(
        (), "curves to draw, as in return/eval learn/entropy; by default the return of evaluations, or of training"
    )
    x: Literal["steps", "cpu", "wall"] = setting("steps", "the horizontal axis: environment steps, CPU time, wall time")
    smooth: int = setting(1, "records in the running mean that is drawn", low=1, high=1e6)
    out: Path = setting(Path("curves.png"), "the picture, .png, .svg or .pdf")


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(PlotFlags, "mlbits plot", words)


def command(words: list[str]) -> int:
    """Plot curves."""
    flags = parse(words)
    check_file("out", flags.out)
    if not flags.runs:
        raise ConfigError("runs: got none; wanted mlbits plot RUN ..., folders of runs")
    from mlbits.evals.curves import check_picture, draw, last_values, write_figure
    from mlbits.evals.recorded_runs import grouped, read_runs

    check_picture(flags.out)
    groups = grouped(read_runs(flags.runs))
    write_figure(draw(groups, flags.tag or None, x=flags.x, smooth=flags.smooth), flags.out)
    for group in groups:
        for run in group.repeated:
            same = f"settings and seed {run.seed} of another run that got further"
            print(printable(f"left out {run.folder}: it has the {same}"), file=sys.stderr)
    for line in last_values(groups, flags.tag or None):
        print(printable(line))
    print(f"picture: {flags.out}")
    return 0
