"""``mlbits reproduce scaling``: how much faster a run in shards is on more processes, measured and by a model.

An iteration of a run on P processes is taken to last

    T(P) = C(P) + X(P)

C(P) is what P processes need for their shards when they run at the same time and exchange nothing: each is a run of its
own with as many copies and shards as a worker has. X(P) is what P processes need for the exchanges of an iteration,
replayed alone: the tensors and messages that one process sends are noted, and sent again without playing or learning in
between. Neither part is fitted to a run on several processes; the runs on 2 and 4 are the check.

For machines that are not here, each process with a core and a shard of its own, C is that of one shard alone, and each
gather of s bytes goes round a ring of P processes in P - 1 steps, each of which takes latency + s / bandwidth.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay import training
from mlbits.selfplay.callbacks import Callbacks, RunUnderWay
from mlbits.selfplay.league.learners import divided
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs.flags import parse_train
from mlbits.selfplay.shards.links import Alone, Group, Order, Orders
from mlbits.selfplay.shards.parts import Parts

SHARDS, WORKERS = 4, (1, 2, 4)
TOLERANCE, SPEED_UP = 0.15, 1.8
FARTHER = (8, 64)
_WARM = 2  # iterations before those that count
_RUN = "ppo mlbits/CartPole-v0 --eval-every 0 --eval-episodes 1 --no-video --device cpu --checkpoint-every 0"
_CHILD = "from mlbits.evals.reproductions import scaling; scaling.child()"


def reproduce(
    quick: bool = False, iterations: int = 12, num_envs: int = 2048, latency: float = 20.0, bandwidth: float = 100.0
) -> dict[str, Any]:
    """Measure runs on 1, 2 and 4 processes and the parts of the model.

    Args:
        quick: 256 copies, 6 iterations.
        iterations: of each run, the first two of which do not count.
        num_envs: copies of the environment, a multiple of four.
        latency: microseconds from a machine to another, for the prediction.
        bandwidth: gigabits per second between machines, for the prediction.

    Returns:
        "rows" (workers, measured and modelled seconds of an iteration, the model's parts, speed-up), "farther"
        (processes, seconds, efficiency), "exchanges" (how many, bytes), and "met": whether two workers are 1.8 times as
        fast as one and the model is within 15% for two and four.

    Raises:
        ReproductionError: if there are too few iterations, or the copies cannot be divided.
    """
    if quick:
        iterations, num_envs = 6, 256
    if iterations <= _WARM or num_envs < SHARDS or num_envs % SHARDS:
        raise ReproductionError(
            f"iterations, num_envs: got {iterations}, {num_envs}; wanted more than {_WARM}, and a multiple of {SHARDS}"
        )
    if latency < 0 or bandwidth <= 0:
        raise ReproductionError(f"latency, bandwidth: got {latency:g}, {bandwidth:g}; wanted at least 0, above 0")
    set_up(1)
    sent = exchanges(num_envs)
    rows = []
    for workers in WORKERS:
        measured = _measured(num_envs, workers, iterations)
        computing, exchanging = _computing(num_envs, workers, iterations), _exchanging(sent, workers)
        rows.append({"workers": workers, "measured": measured, "model": computing + exchanging,
                     "computing": computing, "exchanging": exchanging})  # fmt: skip
    for row in rows:
        row["speed_up"] = rows[0]["measured"] / row["measured"]
    one = _computing(num_envs // SHARDS, 1, iterations, shards=1)
    farther = [_farther(one, sent, processes, latency * 1e-6, bandwidth * 1e9 / 8) for processes in FARTHER]
    size = sum(size for _, size in sent)
    print_table(
        f"PPO on CartPole, {num_envs:,} copies in {SHARDS} shards, {os.cpu_count()} cores: seconds of an iteration "
        f"(median of {iterations - _WARM}); {len(sent)} exchanges, {size / 1000:,.0f} kB a shard; targets: {SPEED_UP} "
        f"times as fast with two, model within {TOLERANCE:.0%}",
        ["workers", "measured", "model", "of it computing", "exchanging", "times as fast", "model off by"],
        [
            [row["workers"], row["measured"], row["model"], row["computing"], row["exchanging"],
             row["speed_up"], f"{row['model'] / row['measured'] - 1:+.0%}"]
            for row in rows
        ],
        width=120,
    )  # fmt: skip
    print_table(
        f"predicted for machines that are not here: a core and {num_envs // SHARDS:,} copies a process, {latency:g} us "
        f"and {bandwidth:g} Gbit/s between any two",
        ["processes", "seconds of an iteration", "efficiency"],
        [list(row.values()) for row in farther],
        width=120,
    )
    near = all(abs(row["model"] / row["measured"] - 1) <= TOLERANCE for row in rows[1:])
    return {
        "rows": rows,
        "farther": farther,
        "exchanges": {"count": len(sent), "bytes": size},
        "met": near and rows[1]["speed_up"] >= SPEED_UP,
    }


def _settings(num_envs: int, shards: int, workers: int, iterations: int = 1) -> Any:
    words = f"{_RUN} --num-envs {num_envs} --shards {shards} --workers {workers} --total-steps 1"
    rollout = num_envs * parse_train(words.split())[0].agent_config.num_steps
    return parse_train([*words.split()[:-1], str(iterations * rollout)])[0]


def exchanges(num_envs: int) -> list[tuple[str, int]]:
    """What a process sends in an iteration, in order: "tensor" or "message", and the bytes of one shard."""
    links = _Noting(SHARDS)
    parts = Parts(_settings(num_envs, SHARDS, 1), links)
    parts.start()
    for _ in range(2):  # the first one also sends what is sent once
        links.sent.clear()
        rollouts, _, _ = parts.collect(Orders(Order.ITERATE))
        parts.learn(rollouts)
    parts.close()
    return links.sent


class _Noting(Alone):
    """One process that has all shards, and notes what it would send."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.sent: list[tuple[str, int]] = []
        self._number = number

    def gather(self, value: Tensor, group: int = 0) -> Tensor:
        self.sent.append(("tensor", value.nbytes // self._number))
        return value

    def exchange(self, message: bytes) -> list[bytes]:
        self.sent.append(("message", len(message) // self._number))
        return [message]


def _measured(num_envs: int, workers: int, iterations: int) -> float:
    """Seconds of an iteration of a run on so many workers."""
    times: list[float] = []

    def note(run: RunUnderWay) -> None:
        times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(num_envs, SHARDS, workers, iterations)
        training.train(settings, Path(folder) / "run", console=False, callbacks=Callbacks({"on_iteration": [note]}))
    return _median(times)


def _computing(num_envs: int, workers: int, iterations: int, shards: int = SHARDS) -> float:
    """Seconds of an iteration of so many runs at the same time, each with the copies and shards of one worker."""
    task = {"part": "computing", "num_envs": num_envs // workers, "shards": shards // workers, "iterations": iterations}
    return max(_together(task, workers))


def _exchanging(sent: Sequence[tuple[str, int]], workers: int) -> float:
    """Seconds of an iteration's exchanges between so many processes that do nothing else."""
    if workers == 1:
        return 0.0
    with tempfile.TemporaryDirectory() as folder:
        task = {"part": "exchanging", "sent": list(sent), "workers": workers, "store": str(Path(folder) / "store")}
        return max(_together(task, workers))


def _farther(
    one: float, sent: Sequence[tuple[str, int]], processes: int, latency: float, bandwidth: float
) -> dict[str, float]:
    """An iteration of processes with a shard each, on machines of their own."""
    ring = sum((processes - 1) * (latency + size / bandwidth) for _, size in sent)
    return {"processes": processes, "seconds": one + ring, "efficiency": one / (one + ring)}


def _together(task: dict[str, Any], count: int) -> list[float]:
    """What so many processes that start at the same time answer to a task."""
    children = []
    for rank in range(count):
        words = [sys.executable, "-c", _CHILD, json.dumps({**task, "rank": rank})]
        children.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
    said = [child.communicate()[0] for child in children]
    for child in children:
        if child.returncode:
            raise ReproductionError(f"a process that measures ended with status {child.returncode}; wanted 0")
    return [float(text.strip().splitlines()[-1]) for text in said]


def child() -> None:
    """Do the task of the command line, and print the seconds that it took."""
    task = json.loads(sys.argv[1])
    set_up(1)
    print(_compute(task) if task["part"] == "computing" else _exchange(task))


def _compute(task: dict[str, Any]) -> float:
    times, settings = [], _settings(task["num_envs"], task["shards"], 1)
    parts = Parts(settings, Alone(task["shards"]))
    parts.start()
    for _ in range(task["iterations"]):
        rollouts, _, _ = parts.collect(Orders(Order.ITERATE))
        parts.learn(rollouts)
        times.append(time.perf_counter())
    parts.close()
    return _median(times)


def _exchange(task: dict[str, Any]) -> float:
    distributed: Any = importlib.import_module("torch.distributed")
    places = divided(SHARDS, task["workers"])
    store = distributed.FileStore(task["store"], task["workers"])
    group = Group(store, task["rank"], places, 60.0)
    own, times = len(places[task["rank"]]), []
    for _ in range(_WARM + 10):
        group.order(Orders(Order.ITERATE) if task["rank"] == 0 else None)
        for kind, size in task["sent"]:
            if kind == "tensor":
                group.gather(torch.zeros(own, max(size // 4, 1)))
            else:
                group.exchange(bytes(own * size))
        times.append(time.perf_counter())
    group.close()
    return _median(times)


def _median(times: Sequence[float]) -> float:
    """The median time between two iterations, without the first ones."""
    return float(np.median(np.diff(times[_WARM - 1 :])))
