"""The server: one page, its script and style, and a socket by which a page plays.

A page sends one of these, and gets ``{"view": ...}``, ``{"hint": ...}`` or ``{"error": ...}``:

| message | meaning |
|---|---|
| ``{"new": {"seat": k}}`` | begin a game; the answer has ``links``, by seat |
| ``{"join": {"game": id, "key": word}}`` | look at a game from a seat |
| ``{"move": {"turn": t, "action": [...]}}`` | a move, refused if the turn is another one by now |
| ``{"undo": {"turn": t}}``, ``{"hint": {"turn": t}}`` | take back; probabilities and value |
| ``{"run": true}``, ``{"keys": [...]}`` | in real time: begin or pause, and the keys that are held |
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.play.config import PlayError
from mlbits.evals.play.view import held, hints, pace, view
from mlbits.evals.play.web.hall import Hall, Open
from mlbits.evals.play.web.safety import HEADERS, Gate

_HERE = Path(__file__).parent
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/play.css": ("play.css", "text/css; charset=utf-8"),
    "/play.js": ("play.js", "text/javascript; charset=utf-8"),
}
MOST_PAGES = 400
LONGEST = 2**16  # bytes of a message
_SHOWN_A_SECOND = 25  # pictures, in real time


def application(hall: Hall, gate: Gate) -> Starlette:
    """The server's application.

    Args:
        hall: the games.
        gate: who may come in.
    """
    service = _Service(hall, gate)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await service.close()

    routes = [Route(path, service.file) for path in _FILES]
    return Starlette(routes=[*routes, WebSocketRoute("/socket", service.socket)], lifespan=lifespan)


class _Page:
    """A page that is open: its socket, and what it looks at."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.game: Open | None = None
        self.seat = 0

    async def receive(self) -> str | None:
        """The next message, or None when the page has gone (or sends bytes)."""
        try:
            return await self.socket.receive_text()
        except (WebSocketDisconnect, RuntimeError, KeyError):
            return None

    async def send(self, message: Any) -> None:
        """Send a message, unless the page has gone."""
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, OSError):
            await self.socket.send_text(json.dumps(message))


class _Service:
    def __init__(self, hall: Hall, gate: Gate) -> None:
        self.hall, self.gate = hall, gate
        self.pages: set[_Page] = set()
        self.running: dict[str, asyncio.Task[None]] = {}
        self.keys: dict[str, list[str]] = {}
        self._thread: CapacityLimiter | None = None

    async def work(self, job: Callable[..., Any], *arguments: Any) -> Any:
        """Do what takes time in the one thread in which games are played: players may hold a search's trees."""
        if self._thread is None:
            self._thread = CapacityLimiter(1)
        return await to_thread.run_sync(job, *arguments, limiter=self._thread)

    async def close(self) -> None:
        """Stop what runs, and save all games."""
        for task in self.running.values():
            task.cancel()
        await self.work(self.hall.close)

    async def file(self, request: Request) -> Response:
        """The page, its script or its style."""
        why = self.gate.host_refused(request.headers.get("host", ""))
        name, kind = _FILES[request.url.path]
        if request.url.path == "/":
            why = why or self.gate.token_refused(request.query_params.get("token", ""))
        if why:
            return PlainTextResponse(why + "\n", 403, HEADERS)
        return Response((_HERE / name).read_bytes(), media_type=kind, headers=HEADERS)

    async def socket(self, socket: WebSocket) -> None:
        """A page's socket, until it is closed."""
        host = socket.headers.get("host", "")
        why = self.gate.host_refused(host) or self.gate.origin_refused(socket.headers.get("origin", ""), host)
        why = why or self.gate.token_refused(socket.query_params.get("token", ""))
        if why:
            await socket.close(1008, why[:120])  # before it is open: a stranger's page learns nothing
            return
        await socket.accept()
        if len(self.pages) >= MOST_PAGES:
            await socket.close(1008, f"{MOST_PAGES} pages are open, and no more may be; close one")
            return
        page = _Page(socket)
        self.pages.add(page)
        try:
            while (text := await page.receive()) is not None:
                try:
                    await self.answer(page, _message(text))
                except (MlbitsError, OSError) as error:
                    await page.send({"error": str(error)})
        finally:
            self.pages.discard(page)
            await self.leave(page)

    async def answer(self, page: _Page, message: dict[str, Any]) -> None:
        """Do what a page asks for.

        Raises:
            MlbitsError: for what cannot be done, in words for the person.
        """
        if "new" in message:
            await self.enter(page, await self.work(self.hall.begin, _seat(message["new"])), None)
        elif "join" in message:
            game, key = (_text(message["join"], name) for name in ("game", "key"))
            await self.enter(page, self.hall.find(game), key)
        elif page.game is None:
            raise PlayError("no game is open here; wanted a new one, or the link of one")
        elif "move" in message:
            await self.move(page.game, page.seat, message["move"])
        elif "undo" in message:
            await self.work(page.game.match.undo, page.seat, _number(message["undo"], "turn"))
            await self.tell(page.game)
        elif "hint" in message:
            if _number(message["hint"], "turn") != page.game.match.turn or page.seat not in page.game.match.waiting:
                raise PlayError("hints are for your own move; ask again when it is")
            await page.send({"hint": await self.work(hints, page.game.match, page.seat, self.hall.adviser)})
        elif "run" in message:
            self.run(page.game, message["run"] is True)
        elif "keys" in message:
            keys = message["keys"]
            if isinstance(keys, list) and len(keys) <= 16 and all(isinstance(key, str) for key in keys):
                self.keys[page.game.id] = keys
        else:
            raise PlayError("message: unknown; wanted new, join, move, undo, hint, run or keys")

    async def enter(self, page: _Page, game: Open, key: str | None) -> None:
        """Let a page look at a game: from the seat of its key, or as who began it."""
        seat = min(game.keys) if key is None else game.seat_of(key)
        await self.leave(page)
        page.game, page.seat = game, seat
        self.hall.look(game, 1)
        links = game.keys if key is None else {seat: key}
        await page.send({"joined": {"game": game.id, "links": links, "seat": seat, "pace": pace(game.match)}})
        await self.show(page)
        await self.others(game)

    async def leave(self, page: _Page) -> None:
        """A page looks at its game no more."""
        game, page.game = page.game, None
        if game is None:
            return
        self.hall.look(game, -1)
        if not game.pages and game.id in self.running:
            self.run(game, False)

    async def move(self, game: Open, seat: int, asked: Any) -> None:
        """A person's move, and what follows it."""
        turn, action = _number(asked, "turn"), asked.get("action")
        if not isinstance(action, list) or len(action) > 1000 or not all(_is_number(part) for part in action):
            raise PlayError("a move: wanted a list of numbers")
        await self.work(game.match.choose, seat, turn, action)
        await self.tell(game)
        await self.others(game)

    async def others(self, game: Open) -> None:
        """Let the players of other seats move until a person has to, and save a game that is over."""
        match = game.match
        while not match.over and not any(seat in match.people for seat in match.acting):
            await self.work(match.advance)
            await self.tell(game)
        if match.over:
            await self.work(game.save)

    async def tell(self, game: Open) -> None:
        """Show a game's position to all who look at it."""
        for page in [page for page in self.pages if page.game is game]:
            await self.show(page)

    async def show(self, page: _Page) -> None:
        """Show a page what its seat may see."""
        if page.game is not None:
            await page.send({"view": await self.work(view, page.game.match, page.seat)})

    def run(self, game: Open, on: bool) -> None:
        """Begin or pause a game in real time."""
        task = self.running.pop(game.id, None)
        if task is not None:
            task.cancel()
        if on and pace(game.match) and not game.match.over:
            self.running[game.id] = asyncio.get_running_loop().create_task(self._run(game))

    async def _run(self, game: Open) -> None:
        match, rate = game.match, pace(game.match)
        every = max(1, round(rate / _SHOWN_A_SECOND))
        loop = asyncio.get_running_loop()
        due, last = loop.time(), None
        while not match.over:
            try:
                last = await self.work(self._tick, game, last)
            except MlbitsError:  # a move was taken back meanwhile
                await self.tell(game)
                continue
            if len(match.replay.steps) % every == 0 or match.over:
                await self.tell(game)
            due = max(due + 1 / rate, loop.time())
            await asyncio.sleep(due - loop.time())
        self.running.pop(game.id, None)
        await self.work(game.save)

    def _tick(self, game: Open, last: list[float] | None) -> list[float]:
        """Play one step by the keys that are held."""
        match = game.match
        action = held(match, self.keys.get(game.id, []), last)
        match.choose(match.people[0], match.turn, action)
        return action


def _message(text: str) -> dict[str, Any]:
    """A page's message.

    Raises:
        PlayError: if it is none.
    """
    try:
        found = json.loads(text) if len(text) <= LONGEST else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise PlayError("message: wanted a JSON object of at most 65,536 bytes")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**53


def _number(asked: Any, name: str) -> int:
    value = asked.get(name) if isinstance(asked, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise PlayError(f"{name}: missing; wanted a whole number")
    return value


def _text(asked: Any, name: str) -> str:
    value = asked.get(name) if isinstance(asked, dict) else None
    if not isinstance(value, str) or len(value) > 100:
        raise PlayError(f"{name}: missing; wanted the word in the link")
    return value


def _seat(asked: Any) -> int | None:
    seat = asked.get("seat") if isinstance(asked, dict) else None
    return seat if isinstance(seat, int) and not isinstance(seat, bool) else None
