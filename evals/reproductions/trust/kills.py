"""``mlbits reproduce kills``: runs of every kind, killed (SIGKILL) at random moments, end as if nothing had happened.

Every kind of run is first left alone. Then one of each kind in turn is started, killed after a random time, resumed,
killed again and so on, until it ends; the moments are spread evenly over the time that the run left alone took,
beginning with the command, so that settings, curves, checkpoints and frozen copies are killed while they are written.
In the end the two have to be the same bit for bit: weights, arrays, counters, frozen copies, records of the curves and
summary (without times), of a tournament the table of matches and the standings; and ``mlbits check`` has to find them
whole.

The processes are real ones, but forked from one that has imported everything (multiprocessing's "forkserver", on
Linux and macOS), so that no time is spent on imports, where a kill says nothing.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlbits.evals.integrity import check
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.folder import CHECKPOINTS, CONFIG, SUMMARY
from mlbits.selfplay.runs.integrity import METRICS

_RUN = (
    "--preset none --num-envs 8 --total-steps 1000 --eval-every 250 --checkpoint-every 200 --eval-episodes 2 "
    "--no-video --quiet"
)
_POLICY = f"{_RUN} --agent.num-steps 16 --agent.hidden 8"
_REPLAY = f"{_RUN} --agent.learning-starts 100 --agent.buffer-size 400 --agent.batch-size 8 --record-every 50"
_PLAN = f"{_RUN} --agent.learning-starts 50 --agent.buffer-size 400 --agent.batch-size 8"
_ROUNDS = (
    f"{_RUN} --agent.hidden 16 --agent.num-steps 2 --agent.round-steps 64 --agent.buffer-size 2000 "
    "--agent.batch-size 32"
)
_OFFLINE = (
    "--preset none --data {data} --total-steps 200 --checkpoint-every 40 --no-video --quiet --agent.hidden 8 "
    "--agent.batch-size 16 --agent.updates-per-iteration 10"
)
_BLOTTO = "mlbits/Blotto-v0 --env.coins 3"

# What is killed: the command without its folder. {alone} is the folder of the runs left alone, {data} a dataset there.
KINDS: dict[str, str] = {
    "ppo": f"train ppo mlbits/CartPole-v0 {_POLICY} --agent.normalize-obs --agent.normalize-reward",
    "ppo, wrapped": f"train ppo CartPole-v1 {_POLICY}",
    "trpo": f"train trpo mlbits/CartPole-v0 {_POLICY}",
    "reinforce": f"train reinforce mlbits/CartPole-v0 {_POLICY}",
    "q-learning": f"train q-learning mlbits/GridWorld-v0 {_RUN} --agent.num-steps 4",
    "dqn": f"train dqn mlbits/CartPole-v0 {_REPLAY} --agent.hidden 8",
    "dqn, prioritised": f"train dqn mlbits/CartPole-v0 {_REPLAY} --agent.hidden 8 --agent.priority-exponent 0.6 "
    "--agent.head quantile --agent.n-step 3",
    "ddpg": f"train ddpg mlbits/Pendulum-v0 {_REPLAY} --agent.hidden 16 16 --agent.num-steps 4 "
    "--agent.replay-ratio 0.1",
    "sac": f"train sac mlbits/Pendulum-v0 {_REPLAY} --agent.hidden 16 16 --agent.num-steps 4 --agent.replay-ratio 0.1",
    "pool": f"train ppo {_BLOTTO} {_POLICY} --pool pfsp --pool-every 256 --pool-draws 3 --opponents random "
    "--opponent-fraction 0.25",
    "league": f"train ppo {_BLOTTO} {_POLICY} --pool league --pool-every 128 --league-exploiters 1 --pool-draws 3",
    "alphazero": f"train alphazero mlbits/TicTacToe-v0 {_PLAN} --agent.num-steps 3 --agent.simulations 4 "
    "--agent.width 8 --agent.blocks 1",
    "best response": f"train fppi2 mlbits/MatrixGame-v0 {_ROUNDS}",
    "equilibrium": f"train equilibrium mlbits/MatrixGame-v0 {_ROUNDS}",
    "offline": f"train crr {_OFFLINE}",
    "tournament": "tournament {alone}/pool {alone}/pool/pool/copy-0000-*.safetensors random --games 60 --num-envs 4",
}
_DATASET = "record mlbits/CartPole-v0 --episodes 40 --num-envs 4 --dataset {data}"
_MOST = 3  # kills of one run
_TIMES = ("speed/", "time/", "wall_seconds", "cpu_seconds")


def reproduce(quick: bool = False, kills: int = 500, seed: int = 0, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Kill runs of all kinds at random moments, resume them, and compare them with runs that were left alone.

    Args:
        quick: one kill of each kind.
        kills: how many kills in all, about equally many of each kind.
        seed: seed of the runs and of the moments.
        only: kinds of runs, as "pool"; none takes all.

    Returns:
        "rows" (kind, kills, runs compared, what was found) and "met": whether all are equal and all kills were made.

    Raises:
        ReproductionError: for an unknown kind, or a command that fails.
    """
    for kind in only:
        if kind not in KINDS:
            raise ReproductionError(f"only: got {kind!r}; wanted any of {', '.join(map(repr, KINDS))}")
    kinds, chance = list(only or KINDS), random.Random(seed)
    wanted = len(kinds) if quick else kills
    share, most = math.ceil(wanted / len(kinds)), 1 if quick else _MOST
    done, runs, found = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0), dict[str, str]()
    with tempfile.TemporaryDirectory() as name:
        place = _Place(Path(name), seed)
        seconds = {kind: place.leave_alone(kind) for kind in kinds}
        while sum(done.values()) < wanted:
            for kind in (kind for kind in kinds if done[kind] < share):
                left = min(most, share - done[kind], wanted - sum(done.values()))
                done[kind] += place.kill_to_the_end(kind, left, seconds[kind], chance)
                runs[kind] += 1
                if differs := differences(place.alone / kind, place.killed / kind):
                    found.setdefault(kind, differs)
                shutil.rmtree(place.killed / kind)
    rows = [(kind, done[kind], runs[kind], found.get(kind, "equal, bit for bit")) for kind in kinds]
    print_table(f"{sum(done.values())} kills at random moments", ["kind of run", "kills", "runs", "found"], rows)
    return {"rows": [dict(zip(("kind", "kills", "runs", "found"), row, strict=True)) for row in rows],
            "met": not found and sum(done.values()) >= wanted}  # fmt: skip


class _Place:
    """A folder in which runs are left alone, and others of the same commands are killed.

    Args:
        folder: the folder.
        seed: of the runs.

    Attributes:
        alone: folder of the runs that are left alone, by kind.
        killed: folder of those that are killed.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.alone, self.killed = folder / "alone", folder / "killed"
        self._folder, self._seed, self._data = folder, seed, folder / "data-v0"

    def leave_alone(self, kind: str) -> float:
        """Make a run of a kind, and what it needs; the seconds that it takes once everything is compiled."""
        if kind == "offline" and not self._data.exists():
            self._finish(_DATASET.format(data=self._data).split())
        if kind == "tournament" and not (self.alone / "pool").exists():
            self._finish(self._words("pool", self.alone / "pool"))
        if not (self.alone / kind).exists():
            self._finish(self._words(kind, self.alone / kind))
        began = time.monotonic()
        self._finish(self._words(kind, self._folder / "timed"))
        shutil.rmtree(self._folder / "timed")
        return time.monotonic() - began

    def kill_to_the_end(self, kind: str, most: int, seconds: float, chance: random.Random) -> int:
        """Make a run of a kind, killed up to so many times, each after up to so many seconds; how often it was."""
        folder, kills = self.killed / kind, 0
        while kills < most:
            if not self._ended_by_kill(self._words(kind, folder), chance.uniform(0, seconds)):
                return kills
            kills += 1
        self._finish(self._words(kind, folder))
        return kills

    def _words(self, kind: str, folder: Path) -> list[str]:
        """The command that begins a run of a kind in a folder, or goes on with it."""
        if (folder / CONFIG).exists():
            return ["resume", str(folder)]
        given = [word.format(alone=self.alone, data=self._data) for word in KINDS[kind].split()]
        words = [found for word in given for found in _files_of(word)]
        return [*words, "--seed", str(self._seed), "--out", str(folder)]

    def _finish(self, words: Sequence[str]) -> None:
        if self._ended_by_kill(words, None):
            raise ReproductionError(f"mlbits {' '.join(words)} was killed by another process; wanted it to end")

    def _ended_by_kill(self, words: Sequence[str], after: float | None) -> bool:
        """Run a command in a process of its own, and kill it after so many seconds; whether that ended it.

        Raises:
            ReproductionError: if it fails by itself.
        """
        said = self._folder / "said"
        process = _processes().Process(target=_run, args=(list(words), said), daemon=True)
        process.start()
        process.join(after)
        process.kill()
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            last = said.read_text(errors="replace").strip().splitlines()[-1:] if said.exists() else []
            status = f"ended with status {process.exitcode}"
            raise ReproductionError(f"mlbits {' '.join(words)} {status}; wanted 0: {''.join(last)}")
        return process.exitcode != 0


def _files_of(word: str) -> list[str]:
    """The files that a word with a star in its last part stands for; else the word itself."""
    path = Path(word)
    return [str(found) for found in sorted(path.parent.glob(path.name))] if "*" in path.name else [word]


def _processes() -> Any:
    """The kind of processes: forked from one that has imported what the commands need.

    Raises:
        ReproductionError: where the system has no such processes.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise ReproductionError(f"kills: this system ({sys.platform}) cannot fork; wanted Linux or macOS")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__name__}_server"])
    return context


def _run(words: list[str], said: Path) -> None:
    """Run ``python -m mlbits.cli WORDS`` in this process; what it prints goes to a file."""
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv[1:] = words
    runpy.run_module("mlbits.cli", run_name="__main__")


def differences(alone: Path, killed: Path) -> str:
    """The first difference of two runs, or of two tournaments; "" if they are the same but for times."""
    if damages := check(killed).damages:
        return damages[0]
    if not (alone / CONFIG).exists():
        names = sorted(path.name for path in alone.iterdir())
        found = [name for name in names if not _same_file(alone / name, killed / name)]
        return f"{found[0]} differs" if found else ""
    ends = [checkpoints.found(folder / CHECKPOINTS)[-1] for folder in (alone, killed)]
    if ends[0].name != ends[1].name:
        return f"ended at {ends[1].name}, not {ends[0].name}"
    one, two = (checkpoints.load(end, {}) for end in ends)
    for name in ("weights", "arrays"):
        first, second = getattr(one, name), getattr(two, name)
        differ = [key for key in first if key not in second or not first[key].equal(second[key])]
        if differ or first.keys() != second.keys():
            return f"the {name} {', '.join(differ[:3])} differ"
    if _untimed(one.state) != _untimed(two.state):
        return "the counters differ"
    pools = [{path.name: path.read_bytes() for path in folder.glob("pool/*")} for folder in (alone, killed)]
    if pools[0] != pools[1]:
        return "the frozen copies differ"
    for name in (SUMMARY, METRICS):
        rows = [[_untimed(json.loads(line)) for line in _records(folder / name)] for folder in (alone, killed)]
        if rows[0] != rows[1]:
            return f"{name} differs"
    return ""


def _same_file(one: Path, two: Path) -> bool:
    return two.exists() and one.read_bytes() == two.read_bytes()


def _records(path: Path) -> list[str]:
    """The JSON objects of a file: one a line, or one."""
    return path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]


def _untimed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without times, which differ from run to run."""
    return {name: value for name, value in values.items() if not name.startswith(_TIMES)}
