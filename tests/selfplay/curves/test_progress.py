"""Progress: one line that fits, the time left once the speed is known, compilation messages."""

import errno
import logging
import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from mlbits.envs.engine.compiling import logger
from mlbits.selfplay.curves import progress
from mlbits.selfplay.curves.progress import Pace, Progress, compilation_messages, duration, fit, say, short

CELLS = [(0, "100/300,000 steps (0%)"), (4, "2.5k steps/s"), (2, "return 1"), (1, "0:30 left"), (5, "rest 9%")]


def test_the_least_important_cells_are_dropped_first():
    whole = "100/300,000 steps (0%)  2.5k steps/s  return 1  0:30 left  rest 9%"
    assert fit(CELLS, len(whole)) == whole
    assert fit(CELLS, len(whole) - 1) == "100/300,000 steps (0%)  2.5k steps/s  return 1  0:30 left"
    assert fit(CELLS, 50) == "100/300,000 steps (0%)  return 1  0:30 left"
    assert fit(CELLS, 33) == "100/300,000 steps (0%)  0:30 left"
    assert fit(CELLS, 32) == "100/300,000 steps (0%)"
    assert fit(CELLS, 10) == "0%"
    assert fit(CELLS, 1) == "0"
    assert all(len(fit(CELLS, width)) <= width for width in range(1, 120))


def test_the_speed_is_unknown_until_three_records_after_the_first():
    pace = Pace()
    for step in (100, 200, 300):
        pace.add(step, 50.0)
        assert pace.steps_per_second() is None
    pace.add(400, 50.0)
    assert pace.steps_per_second() == pytest.approx(50)


def test_the_speed_leaves_out_compilation():
    """1,000 steps a record at 500 a second: but the first took 60 s, and the third 40 s more."""
    pace = Pace()
    for step, speed in ((1000, 1000 / 62), (2000, 500.0), (3000, 1000 / 42), (4000, 500.0), (5000, 500.0)):
        pace.add(step, speed)
    assert pace.steps_per_second() == pytest.approx(500)


def test_the_speed_is_a_mean_over_the_latest_records():
    pace = Pace()
    pace.add(0, 1.0)
    for step in (100, 200, 300):  # 1 s each
        pace.add(step, 100.0)
    pace.add(500, 100.0)  # 200 steps in 2 s
    pace.add(600, 50.0)  # 100 steps in 2 s
    assert pace.steps_per_second() == pytest.approx(600 / 7)
    for k in range(1, 31):
        pace.add(600 + 100 * k, 200.0)
    assert pace.steps_per_second() == pytest.approx(200)


def test_the_time_left_is_not_shown_until_it_is_known(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PLAIN_LINE_EVERY", 0.0)
    shown = Progress(1000)
    shown.show(100, {"speed/steps_per_second": 0.1})  # compiled for a quarter of an hour
    for step in (200, 300, 400):
        shown.show(step, {"speed/steps_per_second": 10.0})
    lines = capsys.readouterr().out.splitlines()
    assert ["left" in line for line in lines] == [False, False, False, True]
    assert lines[3].startswith("400/1,000 steps (40%)  10 steps/s  1:00 left")


def test_multi_agent_games_show_better_measures_than_a_return(capsys):
    Progress(100).show(
        100, {"speed/steps_per_second": 1.0, "return/train": 0.0, "pool/win_rate": 0.625, "exploitability/agent": 0.25}
    )
    assert capsys.readouterr().out == "100/100 steps (100%)  1 steps/s  exploitability 0.25  won against pool 62%\n"


@pytest.mark.parametrize("columns", [20, 40])
def test_plain_lines_fit_given_columns(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    Progress(300_000).show(150_000, {"speed/steps_per_second": 12_345.0, "return/train": 1.0, "time/learning": 0.5})
    (line,) = capsys.readouterr().out.splitlines()
    assert 0 < len(line) <= columns


LIVE = """
from mlbits.selfplay.curves import progress
from mlbits.selfplay.curves.progress import Progress, say
progress._LIVE_LINE_EVERY = 0
shown = Progress(300_000)
values = {"return/train": -0.123, "return/eval": 0.87, "time/learning": 0.6, "time/rest": 0.4}
for step in range(1000, 300_001, 23_000):
    shown.show(step, values | {"speed/steps_per_second": 12_345.0})
    if step == 47_000:
        say("compiling something")
shown.close()
"""


def on_terminal(columns, text):
    """The output of a program on a terminal with this many columns."""
    main, end = pty.openpty()
    termios.tcsetwinsize(end, (24, columns))
    env = {**{k: v for k, v in os.environ.items() if k != "COLUMNS"}, "TERM": "xterm"}
    running = subprocess.Popen([sys.executable, "-c", text], stdout=end, env=env)
    os.close(end)
    parts = []
    while True:
        try:
            part = os.read(main, 65536)
        except OSError as error:  # Linux's way of saying that the other end is closed
            assert error.errno == errno.EIO
            break
        if not part:
            break
        parts.append(part)
    os.close(main)
    assert running.wait() == 0
    return b"".join(parts).decode()


@pytest.mark.parametrize("columns", [80, 40, 12])
def test_on_a_terminal_it_is_one_line_that_never_wraps(columns):
    said = on_terminal(columns, LIVE)
    assert "\x1b" not in said
    rows = said.replace("\r\n", "\n").split("\n")
    assert len(rows) == 3  # what was said, the last line, and nothing
    assert rows[0].rpartition("\r")[2] == "compiling something"
    for part in re.split(r"[\r\n]+", said):
        assert len(part) < columns or part == "compiling something"
    last = rows[1].rpartition("\r")[2].rstrip()
    assert last.startswith("300,000/300,000 steps (100%)" if columns >= 40 else "100%")
    assert ("return -0.123  eval 0.87" in last) == (columns == 80)


def test_compilation_messages_are_printed_in_the_context(capsys):
    before = logger.level
    logger.info("nobody asked")
    with compilation_messages():
        logger.info("compiling the rules of Chess, once, about 5 s")
    with compilation_messages(False):
        logger.info("nobody wants it")
    assert capsys.readouterr().out == "compiling the rules of Chess, once, about 5 s\n"
    assert logger.level == before
    assert not [handler for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]
    say("plain")
    assert capsys.readouterr().out == "plain\n"


def test_numbers_and_times_are_short():
    assert [short(number) for number in (7, 1234, 2.5e6, 3e9)] == ["7", "1.23k", "2.5M", "3G"]
    assert [duration(seconds) for seconds in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]


def test_fractions_of_time_are_since_the_previous_line(monkeypatch, capsys):
    """2 s of learning, then 8 s of which half went to the evaluation: 6 and 4 of 10 s; then 10 s more."""
    clock = iter([0.0, 2.0, 10.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = Progress(1_000)
    shown._shown_at = 0.0  # a line every five seconds: none at 2 s
    shown.show(100, {"speed/steps_per_second": 50.0, "time/learning": 1.0})
    shown.show(200, {"speed/steps_per_second": 25.0, "time/learning": 0.5, "time/evaluation": 0.5})
    shown.show(300, {"speed/steps_per_second": 25.0, "time/evaluation": 1.0})
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  learning 60% evaluation 40%")
    assert second.endswith("  evaluation 100%")
