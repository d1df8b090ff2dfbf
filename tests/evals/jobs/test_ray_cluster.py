"""What a Ray cluster has to be: an address that answers, the same versions and folder on every node."""

import contextlib
import re
import socket
import subprocess
import sys
import threading
import types

import pytest

from mlbits.evals.jobs import ray_cluster
from mlbits.evals.jobs.executors import open_executor
from mlbits.evals.jobs.ray_cluster import ClusterError, check_facts, node_facts


@pytest.fixture
def no_ray(monkeypatch):
    """Ray's place without Ray: what is refused before it is asked anything."""
    fake = types.SimpleNamespace(is_initialized=lambda: False, shutdown=lambda: None)
    monkeypatch.setattr(ray_cluster, "_import_ray", lambda: fake)


def opened(address):
    with open_executor(2, address):
        pass


def test_ray_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"^cluster: needs Ray; wanted pip install 'mlbits\[cluster\]'$"):
        opened("local")


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "ray://head:10001", "head:1:x"])
def test_an_address_is_host_and_port(no_ray, address):
    with pytest.raises(ClusterError, match=r"^cluster: got '.*'; wanted HOST:PORT of the head node, auto or local"):
        opened(address)


def test_an_address_that_does_not_answer_is_told(no_ray):
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match=rf"^cluster: {address} does not answer within 20 s \(.*refused"):
        opened(address)
    with pytest.raises(ClusterError, match=r"^cluster: 127.0.0.1:99999 does not answer"):
        opened("127.0.0.1:99999")


@contextlib.contextmanager
def answering(said):
    """The address of a port that says this to whoever connects; None says nothing."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                if said is not None:
                    connection.sendall(said)
                done.wait(10)
                connection.close()

        done, thread = threading.Event(), threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        done.set()
        thread.join()


def test_a_port_of_something_else_is_told(no_ray, monkeypatch):
    """Ray's own client would wait for ever for one that says nothing."""
    silent = "does not answer within 0.2 s"
    for said, why in ((b"HTTP/1.1 400 Bad Request", "answers, but not as Ray does"), (None, silent)):
        with answering(said) as address, pytest.raises(ClusterError, match=rf"^cluster: {address} {why}.*wanted the"):
            opened(address)
        monkeypatch.setattr(ray_cluster, "ANSWER", 0.2)
    with answering(bytes([0, 0, 6, 4, 0, 0, 0, 0, 0])) as address:  # a frame of settings
        ray_cluster._check_port(address)


def test_a_node_that_differs_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(ray_cluster.importlib.metadata, "version", lambda name: "2.60.0")
    here = node_facts(str(tmp_path))
    assert here["folder"] == "there"
    check_facts("10.0.0.2", here, here)
    check_facts("10.0.0.2", here | {"processor": "another"}, here)
    for name in ("mlbits", "torch", "numpy", "numba", "python", "ray", "machine"):
        wanted = rf"^cluster: 10.0.0.2 has {name} 1.0; wanted {name} {re.escape(here[name])}, as here"
        with pytest.raises(ClusterError, match=wanted):
            check_facts("10.0.0.2", here | {name: "1.0"}, here)
    away = {key: value for key, value in here.items() if key != "folder"} | {"folder": "missing"}
    with pytest.raises(ClusterError, match=f"^out: 10.0.0.2 does not see {tmp_path}; wanted a folder that all nodes"):
        check_facts("10.0.0.2", away, here, str(tmp_path))
    assert node_facts(str(tmp_path / "none"))["folder"] == "missing"


@pytest.mark.slow
def test_nothing_imports_ray_or_optuna_unasked():
    program = (
        "import sys, mlbits.cli, mlbits.training, mlbits.evals.tournament.command, mlbits.evals.jobs.executors, "
        "mlbits.evals.sweep.command; sys.exit(bool({'ray', 'optuna'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
