"""``mlbits uci``: the Universal Chess Interface (Kahlen and Meyer-Kahlen, 2006), by which chess programs use engines.

The engine plays as a run or a bot does, by tree search. A ``go`` searches with more and more simulations, from 16, each
time twice as many, until the limit that was given: ``nodes`` (simulations), ``movetime``, the clocks, or ``stop``.
Without one (or with ``depth``, which means nothing in this search) it takes the option Simulations, where 0 is the
network alone. When time is up, the last search that was finished counts. The rules are compiled, if they have to be,
before the first ``isready`` or ``go`` is answered. With ``searchmoves`` the positions after those moves are searched,
each with an equal part of the simulations. What cannot be read is said in an ``info string``; after a ``position`` that
cannot, ``go`` is answered with ``bestmove (none)`` until there is another.

A value v from -1 to 1 is shown as 111.7 tan(1.562 v) centipawns, Leela Chess Zero's formula; proven wins and losses as
mates.

Example:
    mlbits uci runs/chess --search.simulations 800
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from mlbits.agents.agent import Positions
from mlbits.agents.search.player import SearchPlayer, can_search, searched
from mlbits.agents.search.search import TreeSearch
from mlbits.agents.search.trees import LOSS, UNKNOWN, WIN
from mlbits.envs.board.chess.compiled import as_states
from mlbits.envs.board.chess.fen import START, from_fen
from mlbits.envs.board.chess.notation import action_of_uci, after, legal_actions, uci_of_action
from mlbits.envs.board.conventions import DRAWN, OPEN
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.registry import make_game
from mlbits.evals.play.config import PlayError, UciFlags
from mlbits.evals.play.go import MOST, Go, limits, read_go
from mlbits.selfplay.lineup import positions_of
from mlbits.selfplay.runs.saved_agents import open_guest
from mlbits.version import __version__

CHESS = "mlbits/Chess-v0"
_FIRST = 16  # simulations of the first search of a go
_WORTH, _MARGIN = 1.5, 0.9  # a search that can be no longer than this times the last is left out; of the time for it
_LONGEST = 10.0  # seconds of a search after which there is no longer one: it cannot be broken off
_LINE = 20  # moves of a pv


@dataclass(frozen=True)
class Thought:
    """What a search found.

    Attributes:
        move: the best move, UCI's text.
        nodes: simulations.
        score: "cp N" or "mate N".
        line: the moves expected, UCI's text.
    """

    move: str
    nodes: int
    score: str
    line: tuple[str, ...]


class Thinker:
    """Searches positions as a player does.

    Args:
        player: the folder of a run, or a bot that searches.
        search: changes of the search, as in {"simulations": 100}.
        seed: of the search.

    Attributes:
        simulations: those of a search without a limit; 0 is the network alone.
        least: the fewest.

    Raises:
        MlbitsError: for a player that does not play chess, or cannot search.
    """

    def __init__(self, player: str, search: dict[str, Any], seed: int = 0) -> None:
        self.game = make_game(CHESS, horizon=None)
        self.generator = torch.Generator().manual_seed(seed)
        agent: Any = open_guest(player, CHESS)
        alone = search.get("simulations") == 0
        if can_search(agent):
            changes = {name: value for name, value in search.items() if not (alone and name == "simulations")}
            agent = searched(agent, self.game, changes if hasattr(agent, "look") else {"simulations": 200} | changes)
        elif search:
            raise PlayError(f"search: {player} is a bot, or cannot search; wanted a run, or {player}@simulations=...")
        if not hasattr(agent, "look"):
            raise PlayError(f"player: {player} cannot search; wanted a run of an agent with a critic, or mcts")
        self.agent = agent
        self.simulations = 0 if alone else agent.search.config.simulations
        self.least = 0 if isinstance(agent, SearchPlayer) else 1

    def think(self, state: Any, simulations: int, only: Sequence[int] = ()) -> Thought:
        """Search a position that has legal moves; with ``only``, choose among those actions.

        Raises:
            AgentError: if the trees do not fit into memory.
        """
        if only:
            return self._among(state, max(self.least, simulations // len(only)), only)
        if state["outcome"] == DRAWN:  # by rule: the other side may play on
            state = state.copy()
            state["outcome"], state["over"] = OPEN, 0
        positions = self._positions(state)
        agent = self.agent
        if simulations == 0:
            return self._glance(state, positions)
        if agent.search.config.simulations != simulations:
            agent.search = TreeSearch(self.game, replace(agent.search.config, simulations=simulations))
        found = agent.look(positions, self.generator)
        best, proven = int(found.action[0]), agent.search.proven(0)
        score = f"cp {centipawns(float(found.value[0]))}"
        if int(found.outcome[0]) != UNKNOWN and best in proven:
            score = score_of(*proven[best])
        moves, at = [], state
        for action in agent.search.line(0, best, _LINE):
            moves.append(uci_of_action(at, action))
            at = after(at, action)
        return Thought(moves[0], int(found.visits[0].sum()), score, tuple(moves))

    def _among(self, state: Any, simulations: int, only: Sequence[int]) -> Thought:
        """Search the position after each of some moves; returns the best move's."""
        thoughts = []
        for action in only:
            move, reached = uci_of_action(state, action), after(state, action)
            if reached["outcome"] == OPEN:
                found = self.think(reached, simulations)
            else:
                found = Thought("", 1, "cp 0" if reached["outcome"] == DRAWN else "mate 0", ())
            thoughts.append(Thought(move, found.nodes, turned(found.score), (move, *found.line)[:_LINE]))
        best = max(thoughts, key=lambda thought: _rank(thought.score))
        return replace(best, nodes=sum(thought.nodes for thought in thoughts))

    def _glance(self, state: Any, positions: Positions) -> Thought:
        """The network's move."""
        decision = self.agent.act(positions.obs, positions.legal_mask, self.generator, greedy=True)
        _, value = self.agent.policy_and_value(positions.obs, positions.legal_mask)
        move = uci_of_action(state, int(decision.action[0]))
        return Thought(move, 1, f"cp {centipawns(float(value[0]))}", (move,))

    def _positions(self, state: Any) -> Positions:
        batch = GameBatch(self.game, 1, autoreset="disabled", threads=1, start=False)
        obs = batch.set_state(np.ascontiguousarray(as_states(state)))
        index = torch.tensor([int(state["turn"])])
        assert batch.legal_mask is not None
        return positions_of(batch, index, obs.flatten(0, 1)[index], batch.legal_mask.flatten(0, 1)[index])


def centipawns(value: float) -> int:
    """A value from -1 to 1 in hundredths of a pawn, at most 12,800 either way."""
    return round(max(-12_800.0, min(12_800.0, 111.714640912 * math.tan(1.5620688421 * max(-1.0, min(1.0, value))))))


def score_of(outcome: int, distance: int) -> str:
    """A proven outcome in so many plies: a mate in so many moves of the winner, negative for a loss; else a draw."""
    if outcome == WIN:
        return f"mate {(distance + 1) // 2}"
    return f"mate {-((distance + 1) // 2)}" if outcome == LOSS else "cp 0"


def turned(score: str) -> str:
    """A score of the position after a move, seen by the side that made it; "mate 0" is that of a mated side."""
    kind, text = score.split()
    number = int(text)
    return f"mate {1 - number}" if kind == "mate" and number <= 0 else f"{kind} {-number}"


def _rank(score: str) -> tuple[int, int]:
    """Mates first, the shortest first; mated last, the longest first; the rest between."""
    kind, text = score.split()
    number = int(text)
    return (1, number) if kind == "cp" else (2 if number > 0 else 0, -number)


class Engine:
    """The engine's end of the conversation.

    Args:
        thinker: who searches; it is used from one thread at a time.
        name: the player's name.
        out: where to write.
    """

    def __init__(self, thinker: Thinker, name: str, out: TextIO) -> None:
        self.thinker, self.name, self.out = thinker, name, out
        self.state: Any = from_fen(START)  # None after a position that was refused
        self._asked = Go()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._timer: threading.Timer | None = None
        self._answered = True
        self._latest: Thought | None = None
        self._forever = self._done = False
        self._warm = threading.Thread(target=thinker.think, args=(self.state, 1), daemon=True)
        self._warm.start()

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self.out, flush=True)

    def hear(self, line: str) -> bool:
        """Obey one line; returns whether to go on."""
        words = line.split()
        if not words:
            return True
        command, rest = words[0], words[1:]
        if command == "quit":
            self._stop.set()
            self._answered = True
            return False
        try:
            if command == "uci":
                self.say(f"id name mlbits {__version__} {self.name}")
                self.say("id author the authors of mlbits")
                own = f"default {self.thinker.simulations} min {self.thinker.least} max {MOST}"
                self.say(f"option name Simulations type spin {own}")
                self.say("uciok")
            elif command == "isready":
                self._warm.join()
                self.say("readyok")
            elif command == "setoption":
                self._option(rest)
            elif command == "position":
                self._position(rest)
            elif command == "go":
                self._go(rest)
            elif command == "stop":
                self._answer()
        except MlbitsError as error:
            self.say(f"info string {error}")
        return True

    def finish(self) -> None:
        """Wait for the answer to the search in progress; one without an end is ended."""
        if self._forever:
            self._answer()
        if self._thread is not None:
            self._thread.join()

    def _option(self, words: list[str]) -> None:
        text = " ".join(words)
        name, _, value = text.removeprefix("name ").partition(" value ")
        if name.casefold() != "simulations":
            self.say(f"info string there is no option {name}; wanted Simulations")
        elif not value.isdecimal() or not self.thinker.least <= int(value) <= MOST:
            wanted = f"a number from {self.thinker.least} to {MOST}"
            self.say(f"info string Simulations: got {value or 'nothing'}; wanted {wanted}")
        else:
            self.thinker.simulations = int(value)

    def _position(self, words: list[str]) -> None:
        self._answer()
        self.state = None
        split = words.index("moves") if "moves" in words else len(words)
        what, moves = words[:split], words[split + 1 :]
        if what[:1] == ["startpos"]:
            state = from_fen(START)
        elif what[:1] == ["fen"]:
            state = from_fen(" ".join(what[1:]))
        else:
            raise PlayError(f"position: got {' '.join(what)[:40]!r}; wanted startpos or fen")
        for move in moves:
            state = after(state, action_of_uci(state, move))
        self.state = state

    def _go(self, words: list[str]) -> None:
        self._warm.join()
        self._answer()
        if self._thread is not None:
            self._thread.join()
        self._latest, self._answered, self._done = None, False, False
        self._stop = threading.Event()
        if self.state is None:
            self.say("info string go: the last position was refused; wanted another before it")
        if self.state is None or not len(legal_actions(self.state)):
            self._answered = True
            self.say("bestmove (none)")
            return
        self._asked = asked = read_go(words, self.state, self.thinker.least)
        for problem in asked.problems:
            self.say(f"info string {problem}")
        most, seconds = limits(asked.numbers, asked.infinite, int(self.state["turn"]), self.thinker.simulations)
        self._forever = asked.infinite
        arguments = (self.state, most, seconds, asked, self._stop)
        self._thread = threading.Thread(target=self._search, args=arguments, daemon=True)
        self._thread.start()
        if seconds is not None:
            self._timer = threading.Timer(seconds, self._answer, (self._stop,))
            self._timer.daemon = True
            self._timer.start()

    def _search(self, state: Any, most: int, seconds: float | None, asked: Go, stop: threading.Event) -> None:
        try:
            self._deepen(state, most, seconds, asked.moves, stop)
        except MlbitsError as error:  # no memory for more
            self.say(f"info string {error}")
        finally:
            self._done = True
            if asked.infinite:
                stop.wait()
            self._answer(stop)

    def _deepen(self, state: Any, most: int, seconds: float | None, only: Sequence[int], stop: threading.Event) -> None:
        """Search with more and more simulations."""
        start, count = time.monotonic(), min(_FIRST, most)
        while True:
            begun = time.monotonic()
            found = self.thinker.think(state, count, only)
            now = time.monotonic()
            with self._lock:
                if self._answered:
                    return
                self._latest = found
                self._report(found, now - start)
            last = now - begun
            room = math.inf if seconds is None else (seconds - (now - start)) / max(last, 1e-6)
            if stop.is_set() or count >= most or found.score.startswith("mate") or room < _WORTH or last > _LONGEST:
                return
            count = min(2 * count, most, round(count * room * _MARGIN) if room < 2 else most)

    def _report(self, found: Thought, seconds: float) -> None:
        speed = round(found.nodes / max(seconds, 1e-3))
        self.say(
            f"info depth {len(found.line)} nodes {found.nodes} nps {speed} time {round(1000 * seconds)} "
            f"score {found.score} pv {' '.join(found.line)}"
        )

    def _answer(self, of: threading.Event | None = None) -> None:
        """Say the best move of the search in progress (or of the search ``of``), once."""
        stop = self._stop if of is None else of
        stop.set()
        while True:
            with self._lock:
                if self._answered or stop is not self._stop:
                    return
                if self._latest is not None or self._done:
                    self._answered = True
                    if self._timer is not None:
                        self._timer.cancel()
                    move = self._latest.move if self._latest else self._any()
                    self.say(f"bestmove {move}")
                    return
            time.sleep(0.001)  # the first search, of a few simulations, is not finished yet

    def _any(self) -> str:
        return uci_of_action(self.state, int((self._asked.moves or list(legal_actions(self.state)))[0]))


def serve(flags: UciFlags, lines: TextIO | None = None, out: TextIO | None = None) -> None:
    """Be an engine until ``quit`` or the end of input.

    Args:
        flags: the command's flags.
        lines: where commands come from; None is standard input.
        out: where to write; None is standard output.

    Raises:
        MlbitsError: for a player that does not play chess, or cannot search.
    """
    lines, out = sys.stdin if lines is None else lines, sys.stdout if out is None else out
    thinker = Thinker(flags.player, flags.search.changes(), flags.seed)
    name = Path(flags.player).name
    engine = Engine(thinker, f"({name})", out)
    while lines is not None and (line := lines.readline()):
        if not engine.hear(line):
            return
    engine.finish()  # the end of a file of commands: what was asked for is answered
