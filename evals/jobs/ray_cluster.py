"""Jobs on the nodes of a Ray cluster (extra ``cluster``), a task of one CPU each.

Ray finds a node for each task and says when its process or node died; what is run again is decided here, as for the
other executors, so Ray's own retries are off. Arguments and values travel as JSON text. A process that outlives its
node's Ray may still finish; its value is dropped.

Example:
    mlbits tournament runs/a runs/b runs/c --cluster local --jobs 3
    mlbits tournament runs/a runs/b runs/c --cluster 10.0.0.1:6379 --out /shared/tournament
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.engine.processor import describe
from mlbits.evals.jobs.executors import Report
from mlbits.evals.jobs.job import Job, failure, job_from, versions

ANSWER = 20.0
"""Seconds in which the head node has to answer."""
PATIENCE = 300.0
"""Seconds in which a cluster has to have a CPU for the jobs, and each node to say what it is."""
SAVING = 30.0
"""Seconds that runs have to save when the command is stopped."""
_STORE_BYTES = 100 * 2**20  # of a Ray that is started here: jobs exchange little
# How a client of gRPC begins (RFC 9113, 3.4): the preface and an empty frame of settings; the server sends its own.
_HTTP_2, _SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), 4
_AHEAD = 2  # tasks that Ray has beyond its CPUs, so that none of them waits for us


class ClusterError(MlbitsError, RuntimeError):
    """A cluster that does not answer, or does not fit."""


class RayCluster:
    """Runs jobs on a Ray cluster, to which this process is connected from now on.

    Args:
        address: HOST:PORT of the head node, "auto", or "local" to start one here.
        jobs: how many jobs at once; None is as many as there are CPUs.
        folder: a folder that all nodes have to see, or None.

    Raises:
        ClusterError: if Ray is not installed, the address does not answer, or a node has other versions or does not
            see the folder.
    """

    def __init__(self, address: str, jobs: int | None = None, *, folder: Path | None = None) -> None:
        self._ray = ray = _import_ray()
        self._jobs, self._refs = jobs, dict[Any, int]()
        self._mine = not ray.is_initialized()
        if self._mine:
            _connect(ray, address, jobs)
        try:
            self._task = ray.remote(num_cpus=1, max_retries=0)(_run)
            _check_nodes(ray, folder)
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """As many as asked for, or as the cluster has CPUs now."""
        return self._jobs or max(1, int(self._ray.cluster_resources().get("CPU", 0)) + _AHEAD)

    def submit(self, ticket: int, job: Job) -> None:
        """Hand a job to Ray."""
        self._refs[self._task.options(name=job.name[:100]).remote(job.text())] = ticket

    def next(self) -> Report:
        """Wait for a task to end.

        Raises:
            ClusterError: if the cluster has no CPU for too long.
        """
        ray, since = self._ray, time.monotonic()
        while True:
            ended, _ = ray.wait(list(self._refs), num_returns=1, timeout=5.0)
            if ended:
                break
            if ray.cluster_resources().get("CPU", 0) > 0:
                since = time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise ClusterError(f"cluster: no node with a CPU for {PATIENCE:.0f} s; wanted one (ray status)")
        ticket = self._refs.pop(ended[0])
        try:
            said = json.loads(ray.get(ended[0]))
        except ray.exceptions.RayError as error:
            return Report(ticket, lost=f"its process was lost ({_first_line(error)})")
        return Report(ticket, **said)

    def close(self) -> None:
        """Cancel what runs and disconnect: runs of training save first."""
        ray = self._ray
        if not ray.is_initialized():
            return
        with contextlib.suppress(Exception):  # whatever state the cluster is in
            for ref in self._refs:
                ray.cancel(ref, force=False)  # a KeyboardInterrupt there
            if self._refs:
                ray.wait(list(self._refs), num_returns=len(self._refs), timeout=SAVING)
        self._refs.clear()
        if self._mine:
            ray.shutdown()


def _run(text: str) -> str:
    """A task: a job as JSON, its value or error as JSON."""
    try:
        return json.dumps({"value": job_from(text).compute()})
    except KeyboardInterrupt:
        return json.dumps({"error": "stopped"})
    except Exception as error:  # what the function raises is its own
        return json.dumps(failure(error))


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its future behaviour, without its warning
    try:
        import ray
    except ImportError:
        raise ClusterError("cluster: needs Ray; wanted pip install 'mlbits[cluster]'") from None
    return ray


def _connect(ray: Any, address: str, jobs: int | None) -> None:
    """Connect to a cluster, or start one here."""
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address == "local":
        ray.init(
            address="local", num_cpus=jobs, include_dashboard=False, object_store_memory=_STORE_BYTES, **common
        )  # fmt: skip
        return
    if address != "auto":
        _check_port(address)
    try:
        ray.init(address=address, **common)
    except Exception as error:  # of many types: nobody answers, another version, a wrong token
        wanted = "the head node of a cluster with this Ray and Python (ray start --head; its token, if it has one)"
        raise ClusterError(f"cluster: {address}: {_first_line(error)}; wanted {wanted}") from None


def _check_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        raise ClusterError(f"cluster: got {address!r}; wanted HOST:PORT of the head node, auto or local")
    wanted = "wanted the head node of a Ray cluster"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return  # what is said there is not for us
            connection.sendall(_HTTP_2)  # Ray itself waits for ever for a port that says nothing
            said = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise ClusterError(f"cluster: {address} does not answer within {ANSWER:g} s ({error}); {wanted}") from None
    if len(said) < 4 or said[3] != _SETTINGS:
        raise ClusterError(f"cluster: {address} answers, but not as Ray does; {wanted}")


def node_facts(folder: str = "") -> dict[str, str]:
    """What has to be the same on all nodes, by name; and the processor, on which bits may depend."""
    facts = versions() | {"ray": importlib.metadata.version("ray"), "machine": platform.machine()}
    if folder:
        facts["folder"] = "there" if Path(folder).is_dir() else "missing"
    return facts | {"processor": describe().name}


def check_facts(host: str, found: Mapping[str, str], wanted: Mapping[str, str], folder: str = "") -> None:
    """Refuse a node that differs in anything but its processor.

    Args:
        host: the node's address.
        found: its :func:`node_facts`.
        wanted: those of this process.
        folder: the folder that it should see.

    Raises:
        ClusterError: naming the node and what differs.
    """
    for name, value in wanted.items():
        if name == "folder" and found.get(name) != value:
            raise ClusterError(f"out: {host} does not see {folder}; wanted a folder that all nodes of a cluster see")
        if name != "processor" and found.get(name) != value:
            raise ClusterError(f"cluster: {host} has {name} {found.get(name)}; wanted {name} {value}, as here")


def _check_nodes(ray: Any, folder: Path | None) -> None:
    """Compare each node with this process, before anything starts."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = "" if folder is None else str(folder.resolve())
    wanted, asked = node_facts(where), dict[str, tuple[str, Any]]()
    facts_of = ray.remote(num_cpus=0, max_retries=0)(node_facts)
    for node in ray.nodes():
        if node["Alive"]:
            at = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeID"]] = node["NodeManagerAddress"], facts_of.options(scheduling_strategy=at).remote(where)
    others = set[str]()
    for host, ref in asked.values():
        try:
            found = ray.get(ref, timeout=PATIENCE)
        except ray.exceptions.GetTimeoutError:
            raise ClusterError(f"cluster: {host} says nothing for {PATIENCE:.0f} s; wanted an answer") from None
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"cluster: {host} cannot run mlbits ({_first_line(error)}); wanted mlbits {wanted['mlbits']} there"
            ) from None
        check_facts(host, found, wanted, where)
        others |= {found["processor"]} - {wanted["processor"]}
    if others:
        print(
            f"cluster: nodes have other processors ({', '.join(sorted(others))}) than this one "
            f"({wanted['processor']}): what they compute may differ in its last bits",
            flush=True,
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
