"""TensorBoard in a process of its own, on this machine alone."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path

from mlbits.envs.core.errors import MlbitsError

HOST = "127.0.0.1"  # nobody else's machine can see it
_STARTS_WITHIN = 120  # seconds; on a busy machine it needs ten or more
_NEAR = 20  # ports to look at, for one that is free


class BoardError(MlbitsError, RuntimeError):
    """TensorBoard cannot be started, or has ended."""


def serve(
    folder: Path, port: int, update: Callable[[], None], ready: Callable[[], None], refresh: float = 30.0
) -> None:
    """Run TensorBoard on a folder until it ends, as by Ctrl-C.

    Args:
        folder: the folder of its runs.
        port: its port.
        update: brings the folder up to date; called every now and then. What is wrong with a run then is passed over:
            it may be one that is just being written.
        ready: called once it answers.
        refresh: seconds between updates.

    Raises:
        BoardError: if TensorBoard does not start, or ends by itself.
        KeyboardInterrupt: at Ctrl-C; TensorBoard has ended then.
    """
    log = folder.with_name(f"{folder.name}.log")
    with tensorboard(folder, port, log) as process:
        ready()
        while True:
            try:
                process.wait(refresh)
                raise ended(process, log)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(MlbitsError, OSError):
                    update()


def open_page(page: str) -> bool:
    """Open a page in the user's browser, if there is one with a window; returns whether there is."""
    if os.name == "posix" and sys.platform != "darwin" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        return False  # a browser of text would take the terminal
    try:
        return webbrowser.open(page)
    except (webbrowser.Error, OSError):
        return False


def check_port(port: int) -> None:
    """Refuse a port that cannot be used.

    Raises:
        BoardError: naming a port near it that is free.
    """
    why = _taken(port)
    if why:
        free = next((other for other in range(port + 1, min(port + _NEAR, 65535) + 1) if not _taken(other)), None)
        wanted = "another" if free is None else f"another, as in --port {free}"
        raise BoardError(f"port: {port} {why}; wanted {wanted}")


def _taken(port: int) -> str:
    """Why a port cannot be used; the empty string if it can."""
    with socket.socket() as probe:
        if os.name != "nt":  # a port that was left a moment ago is free, as it is for TensorBoard
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            in_use = error.errno in (errno.EADDRINUSE, errno.EACCES) and port >= 1024
            return "is in use" if in_use else f"cannot be used ({error.strerror})"
    return ""


@contextlib.contextmanager
def tensorboard(folder: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run TensorBoard on a folder while inside this context, from when it answers.

    Args:
        folder: the folder of its runs.
        port: its port.
        log: the file for what it prints.

    Raises:
        BoardError: if it does not start; the message has its last line.
    """
    words = ["--logdir", str(folder), "--host", HOST, "--port", str(port), "--window_title", "mlbits"]
    with log.open("wb") as said:
        # A group of its own: Ctrl-C is for whoever started it, who ends it then.
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *words],
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            _wait(process, port, log)
            yield process
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a TensorBoard answers."""
    until = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ended(process, log)
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.2)
    raise BoardError(f"TensorBoard has not started within {_STARTS_WITHIN} seconds: {last_line(log)}")


def ended(process: subprocess.Popen[bytes], log: Path) -> BoardError:
    """The error of a TensorBoard that has ended by itself."""
    return BoardError(f"TensorBoard has ended with status {process.returncode}: {last_line(log)}")


def last_line(log: Path) -> str:
    """What a TensorBoard said last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it has said nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
