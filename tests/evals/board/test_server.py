"""TensorBoard in a process of its own: what goes wrong is said; slow: the real one shows what it is given."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from urllib.parse import quote

import pytest

from mlbits.cli import main
from mlbits.evals.board import server
from mlbits.evals.board.server import HOST, BoardError, check_port
from tests.evals.recorded import write_run


@pytest.fixture
def taken():
    """A port that another program has."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_in_use_is_refused_with_one_that_is_free(taken, capsys, tmp_path):
    with pytest.raises(BoardError, match=rf"port: {taken} is in use; wanted another, as in --port \d+") as refused:
        check_port(taken)
    check_port(int(str(refused.value).rpartition(" ")[2]))
    write_run(tmp_path / "run", {"return/eval": {0: 1.0}})
    assert main(["board", str(tmp_path), "--port", str(taken)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --port: {taken} is in use")


def test_a_folder_without_runs_is_one_line(tmp_path, capsys):
    assert main(["board", str(tmp_path), "--port", "6106"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no run here")


def test_a_server_that_ends_at_once_is_said_with_its_last_words(tmp_path, monkeypatch):
    real = subprocess.Popen

    def broken(words, **settings):
        return real([sys.executable, "-c", "print('first'); print('no plugins'); raise SystemExit(3)"], **settings)

    monkeypatch.setattr(server.subprocess, "Popen", broken)
    with pytest.raises(BoardError, match="ended with status 3: no plugins"):
        server.serve(tmp_path, 6107, lambda: None, lambda: pytest.fail("it is not ready"))


def test_the_folder_is_updated_while_it_runs_and_the_process_ends_with_it(tmp_path, monkeypatch, taken):
    """A process that sleeps in place of TensorBoard, at a port that answers."""
    real, started = subprocess.Popen, []

    def sleeper(words, **settings):
        started.append(words)
        started.append(real([sys.executable, "-c", "import time; time.sleep(60)"], **settings))
        return started[-1]

    def update():
        updates.append(started[1].poll())
        if len(updates) == 1:
            raise BoardError("a run that is just being written")
        raise KeyboardInterrupt

    monkeypatch.setattr(server.subprocess, "Popen", sleeper)
    updates, said = [], []
    with pytest.raises(KeyboardInterrupt):
        server.serve(tmp_path, taken, update, lambda: said.append("ready"), refresh=0.01)
    assert updates == [None, None]
    assert said == ["ready"]
    assert started[1].poll() == (-signal.SIGTERM if os.name == "posix" else 1)
    assert started[0][started[0].index("--host") + 1] == "127.0.0.1"


def test_no_browser_is_opened_where_there_is_no_window(monkeypatch):
    opened = []
    monkeypatch.setattr(server.webbrowser, "open", lambda page: opened.append(page) or True)
    monkeypatch.setattr(server.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not server.open_page("http://localhost") and opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert server.open_page("http://localhost") and opened == ["http://localhost"]

    def broken(page):
        raise server.webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(server.webbrowser, "open", broken)
    assert not server.open_page("http://localhost")


@pytest.mark.slow
def test_tensorboard_shows_the_runs_by_name_with_means_and_sorts_them(board):
    """The command, and TensorBoard's own data: runs, curves, the chart with the interval, hyperparameters."""
    with urllib.request.urlopen(board.page.partition("#")[0]) as page:
        assert b"TensorBoard" in page.read()

    def data(path, body=None):
        request = urllib.request.Request(f"http://{HOST}:{board.port}/data/{path}", body and json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    seeds, mean = (
        [f"mlbits-CartPole-v0/ppo/seed {seed}" for seed in (0, 1)],
        "mlbits-CartPole-v0/ppo/mean of 2 seeds",
    )
    assert sorted(data("runs")) == sorted([*seeds, mean])
    of_mean = f"plugin/scalars/scalars?run={quote(mean)}&tag="
    assert [row[1:] for row in data(f"{of_mean}return/eval")] == [[0, 2.0], [10, 2.0]]
    assert data(f"{of_mean}return/eval_low")[0][2] == pytest.approx(2 - 12.7062, rel=1e-4)
    (margin,) = [chart for chart in data("plugin/custom_scalars/layout")["category"][0]["chart"] if "margin" in chart]
    (series,) = margin["margin"]["series"]
    assert series == {"value": "return/eval", "lower": "return/eval_low", "upper": "return/eval_high"}
    by_return = {"metric": {"group": "", "tag": "return/eval"}, "order": "ORDER_DESC"}
    wanted = {"experimentName": "", "colParams": [by_return], "startIndex": 0, "sliceSize": 9}
    wanted["allowedStatuses"] = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"]
    groups = data("plugin/hparams/session_groups", wanted)["sessionGroups"]
    assert [group["name"] for group in groups] == [seeds[1], mean, seeds[0]]
    assert groups[0]["hparams"]["agent.learning_rate"] == groups[1]["hparams"]["agent.learning_rate"] == 0.003
