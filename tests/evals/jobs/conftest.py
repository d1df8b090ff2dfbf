"""The three executors, for the same tests; a Ray cluster of several nodes on this machine is for slow tests alone."""

import os

import pytest

from mlbits.evals.jobs.executors import open_executor


@pytest.fixture(scope="module", params=["in process", "local", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request):
    """One executor for all tests of a file: processes are dear."""
    if request.param == "ray":
        pytest.importorskip("ray", reason="the extra cluster is not installed")
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default, with which nothing ends on a busy machine
    jobs, cluster = {"in process": (1, ""), "local": (2, ""), "ray": (2, "local")}[request.param]
    with open_executor(jobs, cluster) as opened:
        opened.kind = request.param
        yield opened
