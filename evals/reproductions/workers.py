"""``mlbits reproduce workers``: runs on several processes have the bits of a run on one, whatever happens to them.

Each run is trained once in one process. Then workers are killed (SIGKILL), stopped (SIGSTOP) and asked to leave
(SIGTERM), or the driver is killed and the run resumed on another number of workers, at random moments. The last
checkpoint has to have the same weights, generators, episodes under way and replay buffers, bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay import training
from mlbits.selfplay.callbacks import Callbacks, RunUnderWay
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.flags import parse_train
from mlbits.selfplay.runs.folder import CHECKPOINTS, CONFIG

_COMMON = "--preset none --shards 4 --num-envs 16 --eval-every 0 --eval-episodes 1 --no-video --device cpu"
_REPLAY = "--agent.learning-starts 200 --agent.buffer-size 2000 --agent.batch-size 16 --agent.num-steps 4"
RUNS = {
    "ppo": f"ppo mlbits/CartPole-v0 {_COMMON} --total-steps 16000 --checkpoint-every 3000 --agent.num-steps 32",
    "dqn": f"dqn mlbits/CartPole-v0 {_COMMON} --total-steps 4000 --checkpoint-every 700 {_REPLAY}",
    "ddpg": f"ddpg mlbits/Pendulum-v0 {_COMMON} --total-steps 4000 --checkpoint-every 700 {_REPLAY} "
    "--agent.hidden 32 32 --agent.replay-ratio 0.1",
    "pool": f"ppo mlbits/Blotto-v0 {_COMMON} --total-steps 8000 --checkpoint-every 1500 --agent.num-steps 32 "
    "--pool pfsp --pool-every 1000",
    "league": f"ppo mlbits/Blotto-v0 {_COMMON} --total-steps 8000 --checkpoint-every 1500 --agent.num-steps 32 "
    "--pool league --pool-every 1000",
}
FAULTS = ("SIGKILL", "SIGSTOP", "SIGTERM", "driver killed")
_TIMEOUT = "--worker-timeout 15"  # a busy machine may take seconds to compile, or to answer


class Disturb:
    """A callback that sends a signal to a random worker, a random time after a random iteration.

    Args:
        number: the signal.
        iterations: of the run.
        draws: where the moment comes from.
    """

    def __init__(self, number: int, iterations: int, draws: random.Random) -> None:
        self._number, self._draws = number, draws
        self.at = draws.randrange(1, max(2, iterations))
        self.restarts = 0

    def __call__(self, run: RunUnderWay) -> None:
        """Called after each iteration."""
        self.restarts = run.restarts
        if run.iterations == self.at and run.workers:
            process, self.at = self._draws.choice(run.workers), -self.at
            threading.Timer(self._draws.uniform(0, 0.05), self._send, [process]).start()

    def _send(self, process: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # the run may be over
            os.kill(process, self._number)


def reproduce(quick: bool = False, faults: int = 60, seed: int = 0) -> dict[str, Any]:
    """Disturb runs at random moments and compare their bits.

    Args:
        quick: one fault of each kind for PPO alone.
        faults: how many, over all kinds and runs.
        seed: of the moments; they are moments of wall time, so that no two calls are the same.

    Returns:
        "rows" (run, fault, workers, restarts, equal) and "met": whether all ended with the bits of an undisturbed run.
    """
    draws, rows = random.Random(seed), []
    names = ["ppo"] if quick else list(RUNS)
    kinds = [
        (names[k % len(names)], FAULTS[k // len(names) % len(FAULTS)]) for k in range(len(FAULTS) if quick else faults)
    ]
    with tempfile.TemporaryDirectory() as folder:
        wanted: dict[str, tuple[str, int, float]] = {}
        for k, (name, fault) in enumerate(kinds):
            if name not in wanted:
                wanted[name] = _undisturbed(name, Path(folder) / name)
            bits, iterations, seconds = wanted[name]
            workers, out = draws.choice([2, 3, 4]), Path(folder) / f"{name}-{k}"
            if fault == "driver killed":
                again = _killed_and_resumed(name, out, workers, seconds, draws)
                row = {"run": name, "fault": fault, "workers": f"{workers}, then {again}", "restarts": 0}
            else:
                disturb = Disturb(getattr(signal, fault), iterations, draws)
                _train(name, out, workers, disturb)
                row = {"run": name, "fault": fault, "workers": str(workers), "restarts": disturb.restarts}
            rows.append({**row, "equal": digest(out) == bits})
    print_table(
        f"{len(rows)} faults at random moments; wanted the bits of an undisturbed run on one process",
        ["run", "fault", "workers", "restarts", "equal bits"],
        [list(row.values()) for row in rows],
    )
    return {"rows": rows, "met": all(row["equal"] for row in rows)}


def _undisturbed(name: str, out: Path) -> tuple[str, int, float]:
    """The bits of a run in one process, its iterations, and the seconds that it takes."""
    count, began = [0], time.monotonic()
    _train(name, out, 1, lambda run: count.append(run.iterations))
    return digest(out), count[-1], time.monotonic() - began


def _train(name: str, out: Path, workers: int, on_iteration: Any) -> None:
    settings, _, _ = parse_train([*RUNS[name].split(), *_TIMEOUT.split(), "--workers", str(workers)])
    training.train(settings, out, console=False, callbacks=Callbacks({"on_iteration": [on_iteration]}))


def _killed_and_resumed(name: str, out: Path, workers: int, seconds: float, draws: random.Random) -> int:
    """A run whose driver is killed while it trains; returns the number of workers that it is resumed on."""
    words = [*RUNS[name].split(), *_TIMEOUT.split(), "--workers", str(workers), "--out", str(out), "--quiet"]
    with subprocess.Popen([sys.executable, "-m", "mlbits.cli", "train", *words], stdout=subprocess.DEVNULL) as process:
        while not (out / CONFIG).exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draws.uniform(0, 1.5 * seconds))
        process.kill()
    again = draws.choice([1, 2, 4])
    training.resume(out, workers=again, console=False)
    return again


def digest(folder: Path) -> str:
    """A hash of the newest checkpoint of a run: weights and arrays by name."""
    newest, found = checkpoints.found(folder / CHECKPOINTS)[-1], hashlib.sha256()
    found.update(newest.name.encode())
    for file in ("weights.safetensors", "arrays.safetensors"):
        for name, value in sorted(load_file(newest / file).items()):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.numpy().tobytes())
    return found.hexdigest()
