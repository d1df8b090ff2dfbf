"""``mlbits board [RUNS]``."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from pathlib import Path
from typing import Annotated, Any

import tyro

from mlbits.envs.core.config_fields import configuration, setting
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class BoardFlags:
    """Open TensorBoard on the returns of runs, named by what differs, with means over seeds. Ctrl-C ends it."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")] = setting(
        ("runs",), "folders of runs, or folders that hold runs"
    )
    port: int = setting(6006, "the port, on this machine alone", low=1, high=65535)
    open: bool = setting(True, "open the page in a browser")
    refresh: float = setting(30.0, "how often to look for new runs and records", low=1, high=86400, unit="seconds")


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(BoardFlags, "mlbits board", words)


def command(words: list[str]) -> int:
    """Start TensorBoard and wait for its end."""
    flags = parse(words)
    from mlbits.evals.board.links import address, tags_to_pin
    from mlbits.evals.board.named_runs import NamedRuns
    from mlbits.evals.board.server import check_port, open_page, serve
    from mlbits.selfplay.statistics import counted

    check_port(flags.port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, and TensorBoard with it
    with tempfile.TemporaryDirectory(prefix="mlbits-board-") as name, contextlib.ExitStack() as open_files:
        folder = Path(name) / "runs"
        folder.mkdir()
        runs = NamedRuns(flags.runs, folder)
        open_files.callback(runs.close)
        runs.update()
        page = address(flags.port, tags_to_pin(curve for run in runs.runs for curve in run.curves))

        def ready() -> None:
            print(f"{page}\nCtrl-C ends it", flush=True)
            if flags.open:
                open_page(page)

        nothing = "" if any(run.curves for run in runs.runs) else ", without a record yet"
        print(f"{counted(len(runs.runs), 'run')}{nothing}; TensorBoard starts", flush=True)
        try:
            serve(folder, flags.port, runs.update, ready, flags.refresh)
        except KeyboardInterrupt:
            print("TensorBoard has ended")
    return 0
