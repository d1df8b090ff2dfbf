"""The games that a server has open: who may sit where, how many there may be, and that each is saved.

A game is found by its id and a seat by its key; both are long random words, which the page keeps in its address. What
a page says is data for one game: it names no files, players or settings.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlbits.agents.agent import Agent
from mlbits.evals.play.config import PlayError
from mlbits.evals.play.match import Match
from mlbits.evals.replays.page import write_page

MOST_GAMES = 200
IDLE = 3600.0  # seconds without an open page, after which a game may make room for another
LINES = "games.jsonl"


class Open:
    """An open game.

    Args:
        match: the game.
        file: where it is saved.

    Attributes:
        id: its name.
        keys: by seat of a person, the word that lets one sit there.
        pages: the number of pages that show it.
        seen: when a page was last open, in seconds.
    """

    def __init__(self, match: Match, file: Path) -> None:
        self.match, self.file = match, file
        self.id = secrets.token_urlsafe(12)
        self.keys = {seat: secrets.token_urlsafe(12) for seat in match.people}
        self.pages, self.seen = 0, time.monotonic()
        self._saved = -1  # the turn that is saved

    def seat_of(self, key: str) -> int:
        """The seat that a key is for.

        Raises:
            PlayError: for another word.
        """
        for seat, own in self.keys.items():
            if hmac.compare_digest(own.encode(), key.encode()):
                return seat
        raise PlayError("this link is for no seat of this game; wanted the link as it was given")

    def save(self) -> None:
        """Save what was played, with a line that sums it up once the game is over."""
        match = self.match
        if not match.replay.steps or self._saved == match.turn:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_page(match.replay, self.file)
        self._saved = match.turn
        if not match.over:
            return
        line = {
            "file": self.file.name, "env": match.env, "settings": match.replay.settings, "seed": match.seed,
            "names": match.names, "returns": match.returns, "steps": len(match.replay.steps), "end": match.replay.end,
        }  # fmt: skip
        with (self.file.parent / LINES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Hall:
    """All open games of one kind.

    Args:
        env: id of the environment.
        settings: its settings.
        people: seats of people.
        opponents: players by name, for the other seats.
        adviser: who gives hints, or None.
        seed: of the first game; each next one has the next.
        sample: whether opponents draw their moves.
        folder: where games are saved.
        most: how many games may be open.
        clock: seconds, as ``time.monotonic``.

    Attributes:
        games: by id.
    """

    def __init__(
        self,
        env: str,
        settings: Mapping[str, Any],
        *,
        people: tuple[int, ...],
        opponents: Mapping[str, Agent],
        adviser: Any = None,
        seed: int = 0,
        sample: bool = False,
        folder: Path,
        most: int = MOST_GAMES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.env, self.settings, self.people, self.opponents = env, settings, people, opponents
        self.adviser, self.sample, self.folder, self.most, self.clock = adviser, sample, folder, most, clock
        self.games: dict[str, Open] = {}
        self._seed = seed

    def prepare(self) -> None:
        """Compile what a game needs, before the first page waits for it."""
        self._match(self.people).close()

    def begin(self, seat: int | None = None) -> Open:
        """Open a game.

        Args:
            seat: where the person sits, if there is one person; None as the command said.

        Raises:
            PlayError: if too many games are open, or there is no such seat.
        """
        self._make_room()
        people = self.people if seat is None or len(self.people) > 1 else (seat,)
        match = self._match(people)
        name = self.env.partition(":")[2] or self.env
        stem = f"{name.rpartition('/')[2]}-{time.strftime('%Y%m%d-%H%M%S')}-{self._seed}"
        self._seed = (self._seed + 1) % 2**62
        game = Open(match, self.folder / f"{stem}.html")
        game.seen = self.clock()
        self.games[game.id] = game
        return game

    def find(self, name: str) -> Open:
        """An open game by its id.

        Raises:
            PlayError: if it is not open.
        """
        game = self.games.get(name)
        if game is None:
            raise PlayError("this game is not open any more; what was played of it is saved. Begin a new one")
        return game

    def look(self, game: Open, pages: int) -> None:
        """Note that a page was opened (1) or closed (-1)."""
        game.pages += pages
        game.seen = self.clock()

    def close(self) -> None:
        """Save and close all games."""
        for game in list(self.games.values()):
            self._drop(game)

    def _match(self, people: tuple[int, ...]) -> Match:
        return Match(
            self.env, self.settings, people=people, opponents=self.opponents, seed=self._seed, sample=self.sample
        )

    def _make_room(self) -> None:
        """Close games that nobody looks at and that are over, were never begun, or were left long ago.

        Raises:
            PlayError: if as many as may be are still open.
        """
        if len(self.games) < self.most:
            return
        left = sorted((game for game in self.games.values() if not game.pages), key=lambda game: game.seen)
        for game in left:
            if game.match.over or not game.match.replay.steps or self.clock() - game.seen > IDLE:
                self._drop(game)
        if len(self.games) >= self.most:
            raise PlayError(f"{self.most} games are open, and no more may be; close one, or try again later")

    def _drop(self, game: Open) -> None:
        game.save()
        game.match.close()
        del self.games[game.id]
