"""``mlbits play GAME|RUN --web``: begin the server, say where it is, and stop it by Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.board.server import open_page
from mlbits.evals.play.config import PlayError, PlayFlags
from mlbits.evals.play.guests import chosen_game, invite
from mlbits.evals.play.match import check_seats
from mlbits.evals.play.web.hall import Hall
from mlbits.evals.play.web.safety import Gate, is_loopback
from mlbits.selfplay.machine import set_up


def serve(flags: PlayFlags, settings: Mapping[str, Any]) -> None:
    """Serve games until Ctrl-C.

    Args:
        flags: the command's flags.
        settings: settings of the environment, which override those of a run.

    Raises:
        PlayError: without the packages, for a port in use, or for seats and players that do not fit.
        MlbitsError: for a game that cannot be opened.
    """
    try:
        import uvicorn
        import websockets  # noqa: F401

        from mlbits.evals.play.web.server import LONGEST, application
    except ImportError as error:
        raise PlayError(f"--web needs {error.name}; wanted pip install 'mlbits[web]'") from None
    if flags.replay is not None:
        raise PlayError("replay: with --web every game is saved; wanted --games FOLDER")
    set_up(1)
    say = partial(print, flush=True)  # the link at once, to a pipe too
    listening = _listen(flags.host, flags.port)
    try:
        gate = Gate(flags.host, "" if is_loopback(flags.host) else secrets.token_urlsafe(16))
        hall = open_hall(flags, settings)
        hall.prepare()
        config = uvicorn.Config(
            application(hall, gate),
            log_level="warning",
            ws="auto",
            ws_max_size=LONGEST,
            timeout_graceful_shutdown=2,
        )
        link = _link(flags.host, listening.getsockname()[1], gate)
        say(f"{hall.env}: play at {link}\ngames are saved in {flags.games}; Ctrl-C stops the server")
        if flags.open and not open_page(link):
            say("no browser could be opened; open the link yourself")
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()
    say("the server has stopped; what was played is saved")


def open_hall(flags: PlayFlags, settings: Mapping[str, Any]) -> Hall:
    """The games that a command's flags ask for.

    Raises:
        MlbitsError: for a game, seats or players that do not fit.
    """
    env, own = chosen_game(flags.game, settings)
    batch = open_batch(env, 1, settings=own, start=False)
    seats = batch.num_seats
    batch.close()
    people = tuple(sorted(set(flags.seats))) or (flags.seat,)
    check_seats(env, people, seats)
    guests = invite(flags, env, own, people=len(people))
    return Hall(
        env, own, people=people, opponents=guests.players, adviser=guests.adviser, seed=guests.seed,
        sample=flags.sample, folder=flags.games,
    )  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        PlayError: if the port is in use, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise PlayError(
            f"port: {host} port {port} cannot be used ({error.strerror or error}); wanted another --port, or 0 for any"
        ) from None
    return listening


def _link(host: str, port: int, gate: Gate) -> str:
    """The address to open."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={gate.token}" if gate.token else "")
