"""``mlbits reproduce soak``: an hour of training, tournaments, rendering and vector stepping that nothing wears out.

| part | what has to hold |
|---|---|
| training with a pool, left alone | memory and open files stay as they were after a third of the run |
| the same run, killed (SIGKILL) every minute and resumed | the same weights, arrays and frozen copies, bit for bit |
| a tournament, killed and continued | the same match table, byte for byte |
| stepping vectors of games and drawing them | memory and open files stay as they were |

``--quick`` takes two or three minutes. Memory and open files are read from ``/proc``; elsewhere they are not measured.
"""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.folder import CHECKPOINTS, CONFIG, SUMMARY

ENV = "mlbits/Blotto-v0"
RUN = "--preset none --num-envs 64 --agent.num-steps 16 --agent.hidden 16 --pool uniform --eval-episodes 4 --quiet"
DRAWN = ("mlbits/GridWorld-v0", "mlbits/CartPole-v0")
PROBE = 20_000  # steps of a first run, which tells the speed
GROWTH, MARGIN = 0.05, 16 * 2**20  # memory may grow by so much, and so many bytes, after a third of the time
_KILL = -9


def reproduce(quick: bool = False, minutes: float = 60.0, seed: int = 0) -> dict[str, Any]:
    """Train, kill, compare, and watch memory and open files.

    Args:
        quick: two or three minutes instead of an hour.
        minutes: how long to take, about.
        seed: seed of the runs and of the moments of the kills.

    Returns:
        "rows" (part, what was found, whether it holds) and "met".
    """
    seconds = 20.0 if quick else 60 * minutes
    kills_at_most, period = (3, 0.0) if quick else (10**6, 60.0)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = _training(folder, seed, 0.35 * seconds)
        watch = _Watch()
        _finish([*words, "--out", str(folder / "alone")], watch)
        rows = [("training with a pool", *watch.verdict())]
        kills = _killed_and_resumed(words, folder / "killed", period, kills_at_most, chance)
        same = _differences(folder / "alone", folder / "killed")
        rows.append((f"killed {kills} times", same or "equal, bit for bit", not same and kills > 0))
        rows.append(_tournament(folder, 100 if quick else 20_000, chance))
        rows.append(("vector stepping and drawing", *_step_and_draw(0.15 * seconds)))
    print_table("soak: nothing is lost and nothing wears out", ["part", "found", "holds"], rows)
    return {"rows": [dict(zip(("part", "found", "holds"), row, strict=True)) for row in rows],
            "met": all(row[2] for row in rows)}  # fmt: skip


def _training(folder: Path, seed: int, seconds: float) -> list[str]:
    """The command of a run that takes about so long, by the speed of a short one."""
    words = ["train", "ppo", ENV, *RUN.split(), "--seed", str(seed)]
    _finish([*words, "--total-steps", str(PROBE), "--out", str(folder / "probe")])
    records = [json.loads(line) for line in (folder / "probe" / "metrics.jsonl").read_text().splitlines()]
    speeds = sorted(row["speed/steps_per_second"] for row in records if "speed/steps_per_second" in row)
    steps = max(2 * PROBE, int(speeds[len(speeds) // 2] * seconds))
    often = {"--total-steps": steps, "--pool-every": steps // 10, "--checkpoint-every": steps // 40,
             "--eval-every": steps // 10}  # fmt: skip
    return words + [word for flag, value in often.items() for word in (flag, str(value))]


def _start(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """``mlbits`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mlbits.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _finish(words: Sequence[str], watch: _Watch | None = None) -> None:
    """Run a command to its end.

    Raises:
        ReproductionError: if it fails.
    """
    process = _start(words)
    try:
        while process.poll() is None:
            time.sleep(0.05)
            if watch is not None:
                watch.look(process.pid)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise ReproductionError(f"mlbits {' '.join(words)} ended with status {process.returncode}; wanted 0")


def _end_or_kill(words: Sequence[str], ripe: Callable[[float], bool]) -> bool:
    """Run a command; kill it once ``ripe`` says so of the seconds since its start. Whether it was killed.

    Raises:
        ReproductionError: if it fails by itself.
    """
    process, began = _start(words), time.monotonic()
    try:
        while process.poll() is None and not ripe(time.monotonic() - began):
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    if process.returncode not in (0, _KILL):
        raise ReproductionError(f"mlbits {' '.join(words)} ended with status {process.returncode}; wanted 0")
    return process.returncode == _KILL


def _killed_and_resumed(words: list[str], folder: Path, period: float, most: int, chance: random.Random) -> int:
    """Train to the end, killed at random moments, a checkpoint and ``period`` seconds apart; number of kills."""
    kills = 0
    while not (folder / SUMMARY).exists():
        before, delay = _newest(folder), chance.random()
        command = ["resume", str(folder)] if (folder / CONFIG).exists() else [*words, "--out", str(folder)]

        def ripe(passed: float, before: str = before, left: int = most - kills, after: float = period + delay) -> bool:
            return left > 0 and passed > after and _newest(folder) != before

        kills += _end_or_kill(command, ripe)
    return kills


def _newest(folder: Path) -> str:
    found = checkpoints.found(folder / CHECKPOINTS)
    return found[-1].name if found else ""


def _differences(one: Path, two: Path) -> str:
    """The first difference of two runs; "" if there is none."""
    if _newest(one) != _newest(two):
        return f"ended at {_newest(one)} and {_newest(two)}"
    ends = [checkpoints.load(folder / CHECKPOINTS / _newest(folder), {}) for folder in (one, two)]
    for name in ("weights", "arrays"):
        first, second = getattr(ends[0], name), getattr(ends[1], name)
        differ = [key for key in first if key not in second or not first[key].equal(second[key])]
        if differ or first.keys() != second.keys():
            return f"the {name} {', '.join(differ[:3])} differ"
    pools = [{path.name: path.read_bytes() for path in (folder / "pool").iterdir()} for folder in (one, two)]
    return "" if pools[0] == pools[1] else "the frozen copies differ"


def _tournament(folder: Path, games: int, chance: random.Random) -> tuple[str, str, bool]:
    """A tournament that is killed and continued, beside one that is not."""
    pool = folder / "alone" / "pool"
    entries = [
        str(folder / "alone"),
        *(str(next(pool.glob(f"copy-{number:04d}-*"))) for number in (0, 3)),
        "random",
    ]
    words = ["tournament", *entries, "--games", str(games), "--num-envs", "16"]
    _finish([*words, "--out", str(folder / "t1")])
    table, kills = folder / "t2" / "matches.jsonl", 0
    for part in (0.2, 0.6):  # of all games
        wanted = part * (folder / "t1" / "matches.jsonl").stat().st_size

        def ripe(passed: float, wanted: float = wanted) -> bool:
            return table.exists() and table.stat().st_size > wanted

        kills += _end_or_kill([*words, "--out", str(folder / "t2")], ripe)
        time.sleep(0.1 * chance.random())
    _finish([*words, "--out", str(folder / "t2")])
    same = table.read_bytes() == (folder / "t1" / "matches.jsonl").read_bytes()
    return f"tournament, killed {kills} times", "equal, byte for byte" if same else "the tables differ", same


def _step_and_draw(seconds: float) -> tuple[str, bool]:
    """Make, step, draw and close vectors of games again and again in this process."""
    import gymnasium as gym

    watch, began = _Watch(), time.monotonic()
    while time.monotonic() - began < seconds or len(watch.seen) < 12:
        for env in DRAWN:
            many = gym.make_vec(env, num_envs=64)
            many.reset(seed=0)
            for _ in range(50):
                many.step(many.action_space.sample())
            many.close()
            one = gym.make(env, render_mode="rgb_array")
            one.reset(seed=0)
            one.step(one.action_space.sample())
            one.render()
            one.close()
        gc.collect()
        watch.look(os.getpid())
    return watch.verdict()


class _Watch:
    """Memory and open files of a process over time.

    Attributes:
        seen: resident bytes and number of open files at each look.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def look(self, pid: int) -> None:
        """Note what the process has now; nothing where there is no /proc, or once it has ended."""
        proc = Path("/proc") / str(pid)
        try:
            pages = int((proc / "statm").read_text().split()[1])
            self.seen.append((pages * os.sysconf("SC_PAGE_SIZE"), len(list((proc / "fd").iterdir()))))
        except (OSError, ValueError, IndexError):
            return

    def verdict(self) -> tuple[str, bool]:
        """What was found, and whether both stayed as they were after a third of the time."""
        if len(self.seen) < 6:
            return "not measured: there is no /proc", True
        first, later = self.seen[len(self.seen) // 3 : 2 * len(self.seen) // 3], self.seen[2 * len(self.seen) // 3 :]
        (memory, files), (grown, more) = (
            tuple(max(column) for column in zip(*part, strict=True)) for part in (first, later)
        )
        text = f"{memory / 2**20:.0f} MiB, then {grown / 2**20:.0f}; {files} open files, then {more}"
        return text, grown <= memory * (1 + GROWTH) + MARGIN and more <= files
