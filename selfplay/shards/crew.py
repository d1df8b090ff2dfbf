"""The worker processes of a run: started, watched, ended, and started again.

Only the driver writes the run's folder. Where a worker dies or hangs, all are ended, and new ones go on from the last
checkpoint. Each group of workers has a generation number and a meeting place of its own, so that what is left of an
older one finds nobody; its processes end when they miss the driver.

The workers of one machine meet in a private folder and talk over the loopback interface, so that no one else can reach
them. Those that a launcher started (torchrun, srun) meet at MASTER_ADDR; the launcher starts them again.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.finite import NotFiniteError
from mlbits.selfplay.league.learners import divided, learner_groups
from mlbits.selfplay.runs.config import ConfigError, Settings, portable
from mlbits.selfplay.shards.launcher import Launched, launched
from mlbits.selfplay.shards.links import (
    Alone,
    Group,
    GroupLostError,
    Links,
    Order,
    Orders,
    WorkersError,
    packed,
    unpacked,
)
from mlbits.selfplay.shards.places import (
    about_this_process,
    check_same,
    number_of_workers,
)

_WORKER = "mlbits.selfplay.shards.worker"
LOST = 3  # exit status of a worker whose group is lost
START_SECONDS = 300.0  # for all workers to come, and to begin
LOAD_SECONDS = 7200.0  # to restore a checkpoint, for which wrapped environments play their episodes again
_END_SECONDS = 5.0  # for them to leave
_MOST_LOSSES = 3  # of the group without a step further


class Crew:
    """The workers of a run.

    Args:
        settings: the run's.
        start_seconds: for all workers to come.

    Attributes:
        restarts: how often they were started again.
        generation: number of the present group, from 1.
        leaving: the workers that were asked to stop.

    Raises:
        ConfigError: if there are more workers than shards.
    """

    def __init__(self, settings: Settings, start_seconds: float = START_SECONDS) -> None:
        self._settings, self._by, self._start_seconds = settings, launched(), start_seconds
        if self._by is not None and self._by.rank:
            raise ConfigError(
                f"RANK: got {self._by.rank}; wanted 0 here: launchers start mlbits train or mlbits resume"
            )
        self._places = divided(settings.run.shards, number_of_workers(settings.run, self._by))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder: Path | None = None
        self.restarts, self.generation, self.leaving = 0, 0, list[int]()
        self._lost_at, self._losses = -1, 0

    @property
    def processes(self) -> list[int]:
        """The ids of the workers that this process has started, by rank from 1."""
        return [process.pid for process in self._processes]

    def gathered(self) -> Links:
        """Start the workers, if there are any, and meet them.

        Raises:
            ConfigError: if one does not come in time, or would not compute equal bits.
        """
        world = len(self._places)
        if world == 1:
            return Alone(self._settings.run.shards)
        self.generation += 1
        try:
            store = self._started(world) if self._by is None else meet(self._by, self._start_seconds)
            store.set("settings", json.dumps(portable(self._settings)))
            with _interface(self._by):
                groups = [one.shards for one in learner_groups(self._settings.run)]
                timeout, alive = self._settings.run.worker_timeout, None if self._by else self._alive
                group = Group(store, 0, self._places, timeout, alive, groups)
            found = group.exchange(packed(about_this_process()))
        except GroupLostError as error:
            written = self._written_error()
            raise written or ConfigError(f"{error}{self._why()} as they met; wanted all {world}") from None
        check_same([unpacked(one)[0] for one in found])
        return group

    def _alive(self) -> bool:
        """Whether all workers that this process has started run."""
        return all(process.poll() is None for process in self._processes)

    def _started(self, world: int) -> Any:
        """The meeting place of new workers on this machine, once all are there."""
        distributed: Any = importlib.import_module("torch.distributed")

        self._folder = Path(tempfile.mkdtemp(prefix="mlbits-workers-"))  # of mode 0700
        for rank in range(1, world):
            self._processes.append(self._start(rank, world))
        deadline = time.monotonic() + self._start_seconds
        missing = list(range(1, world))
        while missing:
            missing = [rank for rank in missing if not (self._folder / f"ready-{rank}").exists()]
            gone = [rank for rank in missing if self._processes[rank - 1].poll() is not None]
            if gone or (missing and time.monotonic() > deadline):
                why = self._why() if gone else f" did not come within {self._start_seconds:g} seconds"
                raise ConfigError(f"workers: {len(missing)} of {world}{why}; wanted all of them")
            time.sleep(0.02)
        return distributed.FileStore(str(self._folder / "meet"), world)

    def _start(self, rank: int, world: int) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if sys.platform == "linux":
            environment["GLOO_SOCKET_IFNAME"] = "lo"
        if gpu := _gpu_of(rank, self._settings.run.device):
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        words = ["-m", _WORKER, str(self._folder), str(rank), str(world)]
        with (self._folder / f"stderr-{rank}").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said,
                env=environment, start_new_session=True,
            )  # fmt: skip

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """A context in which the loss of the group says who is gone and why.

        Raises:
            MlbitsError: what a worker raised, if that was it.
            GroupLostError: otherwise.
        """
        try:
            yield
        except GroupLostError as lost:
            found = self._written_error()
            raise found or GroupLostError(f"{lost}{self._why()}") from None

    def _written_error(self) -> MlbitsError | None:
        """The error that a worker wrote down before it ended."""
        for rank in range(1, len(self._places) if self._folder is not None else 1):
            with contextlib.suppress(OSError, ValueError):
                assert self._folder is not None
                found = json.loads((self._folder / f"error-{rank}").read_text())
                return NotFiniteError(*found["parts"]) if found["parts"] else MlbitsError(found["text"])
        return None

    def _why(self) -> str:
        """What is known of workers that have ended, beginning with a colon; "" if nothing is."""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and self._processes:
            ended = {rank: one.poll() for rank, one in enumerate(self._processes, start=1)}
            for rank, status in ended.items():
                if status is not None and status not in (0, LOST):
                    return f": worker {rank} {self._ending(rank, status)}"
            time.sleep(0.05)
        return ""

    def _ending(self, rank: int, status: int) -> str:
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        said = [""]
        with contextlib.suppress(OSError):
            assert self._folder is not None
            said = (self._folder / f"stderr-{rank}").read_text(errors="replace").split("\n")
        last = next((line for line in reversed(said) if line.strip()), "it said nothing")
        return f"ended with status {status} ({last.strip():.200})"

    def restart(self, lost: MlbitsError, env_steps: int) -> None:
        """End what is left of the group, so that :meth:`gathered` starts another.

        Args:
            lost: why.
            env_steps: environment steps of the run when it was lost.

        Raises:
            WorkersError: where a launcher started the workers, or they were lost too often at the same step.
        """
        self.kill()
        if self._by is not None:
            raise WorkersError(f"{lost}; the launcher has to start all of them again, with mlbits resume")
        self._losses = self._losses + 1 if env_steps <= self._lost_at else 1
        self._lost_at = max(env_steps, self._lost_at)
        if self._losses > _MOST_LOSSES:
            raise WorkersError(f"{lost}; that was {self._losses} times without a step further")
        self.restarts += 1
        self.leaving = []

    def end(self, links: Links) -> None:
        """Let the workers go, and end those that do not."""
        with contextlib.suppress(GroupLostError):
            if len(self._places) > 1:
                links.order(Orders(Order.END))
                deadline = time.monotonic() + _END_SECONDS
                while any(one.poll() is None for one in self._processes) and time.monotonic() < deadline:
                    time.sleep(0.01)
        self.kill()  # before the links are closed, which wait for what hangs
        links.close()

    def kill(self) -> None:
        """End the workers of this machine at once, also those that are stopped."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._processes = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def meet(by: Launched, seconds: float) -> Any:
    """The meeting place of the processes that a launcher started.

    Raises:
        ConfigError: if the driver does not answer, or not all processes come within so many seconds.
    """
    distributed: Any = importlib.import_module("torch.distributed")

    if by.rank:
        host, _, port = by.address.rpartition(":")
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=min(seconds, 5.0)).close()
                break
            except OSError as error:
                if time.monotonic() > deadline or isinstance(error, socket.gaierror):
                    raise ConfigError(
                        f"MASTER_ADDR: {by.address} does not answer ({error}); wanted the address of the process with "
                        "RANK 0"
                    ) from None
                time.sleep(0.2)
    place = f"tcp://{by.address}?rank={by.rank}&world_size={by.world}"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun itself listens there
        place = "env://"
    try:
        return next(iter(distributed.rendezvous(place, timeout=timedelta(seconds=seconds))))[0]
    except RuntimeError as error:
        raise ConfigError(
            f"workers: not all {by.world} came to {by.address} within {seconds:g} seconds "
            f"({str(error).splitlines()[0]:.120}); wanted all of them"
        ) from None


@contextlib.contextmanager
def _interface(by: Launched | None) -> Iterator[None]:
    """Talk over the loopback interface with workers of this machine."""
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    if by is None and sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("GLOO_SOCKET_IFNAME", None)
        else:
            os.environ["GLOO_SOCKET_IFNAME"] = before


def _gpu_of(rank: int, device: str) -> str:
    """The GPU of a worker of this machine, as CUDA names it; "" where there is none."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(k) for k in range(torch.cuda.device_count())]
    return names[rank % len(names)]
