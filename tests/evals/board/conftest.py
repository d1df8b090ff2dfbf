"""``mlbits board`` on two runs that differ in their seed."""

import json
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mlbits.evals.board.server import HOST, check_port
from mlbits.selfplay.curves.tracking import Tracker
from tests.evals.recorded import write_run


@pytest.fixture
def board(tmp_path):
    """The command as it runs: its port, and the page it names. Ctrl-C ends it, without a word on its errors."""
    for seed, value in enumerate((1.0, 3.0)):
        curves = {"return/eval": {0: value, 10: value}, "return/train": {10: value}}
        folder = write_run(tmp_path / f"run{seed}", curves, seed=seed)
        (folder / "metrics.jsonl").unlink()
        tracker = Tracker(folder, 10, console=False)
        tracker.describe(json.loads((folder / "config.json").read_text()))
        for step in (0, 10):
            tracker.record(step, {"learn/loss": 0.5, "return/eval": value, "return/train": value})
        tracker.close()
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlbits", "board", str(tmp_path), "--port", str(port), "--no-open"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = [process.stdout.readline() for _ in range(3)]
        assert said[0] == "2 runs; TensorBoard starts\n"
        assert said[1].startswith(f"http://localhost:{port}/?pinnedCards=%5B%7B")
        yield SimpleNamespace(port=port, page=said[1].strip())
    finally:
        process.send_signal(signal.SIGINT)
        left, wrong = process.communicate(timeout=60)
    assert (process.returncode, left, wrong) == (0, "TensorBoard has ended\n", "")
    check_port(port)  # nobody has it any more
