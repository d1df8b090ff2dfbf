"""``mlbits play``: a person plays in the terminal, by typing the names of moves.

Lines are read from standard input, be it a terminal or a pipe; at its end, or with Ctrl-C, the game is left. Where
seats act at once, the others' moves are shown only after the person's.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import gymnasium as gym

from mlbits.agents.agent import Agent
from mlbits.agents.search.player import searched_where_possible
from mlbits.agents.search.search import SearchConfig, TreeSearch
from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.envs.doors.gymnasium_batch import check_env_id
from mlbits.envs.registry import make_game, registered
from mlbits.evals.play.config import PlayError, PlayFlags
from mlbits.evals.play.hints import adviser, hint
from mlbits.evals.play.table import Table, check_game
from mlbits.selfplay.runs.folder import CONFIG, read_settings
from mlbits.selfplay.runs.saved_agents import open_guest

HELP = """  a move   its name: {some}
  moves    all legal moves
  hint     the best moves by a search, with their values (1 a win, 0 a draw, -1 a loss) and visits
  undo     take back your last move and what followed it
  board    draw the board again
  help     this list
  quit     leave the game"""


def play(flags: PlayFlags, settings: Mapping[str, Any], lines: TextIO | None = None, out: TextIO | None = None) -> bool:
    """Play one game.

    Args:
        flags: the command's flags.
        settings: settings of the environment, which override those of a run.
        lines: where the person's lines come from; None is standard input.
        out: where to write; None is standard output.

    Returns:
        Whether the game was played to its end.

    Raises:
        MlbitsError: for a game, a seat or opponents that do not fit.
    """
    lines, out = sys.stdin if lines is None else lines, sys.stdout if out is None else out
    table, helper = sit_down(flags, settings)
    try:
        return _Talk(table, helper, lines, out).run()
    except KeyboardInterrupt:
        print("\nthe game was left", file=out, flush=True)
        return False


def sit_down(flags: PlayFlags, settings: Mapping[str, Any]) -> tuple[Table, Any]:
    """The table, and who gives hints.

    Raises:
        MlbitsError: for a game, a seat or opponents that do not fit.
    """
    run = (Path(flags.game) / CONFIG).exists()
    trained = read_settings(flags.game) if run else None
    env = trained.env if trained is not None else _environment(flags.game)
    own = {**(trained.env_settings if trained is not None else {}), **settings}
    check_game(env, own, flags.seat)
    game = make_game(env, **own)
    words = list(flags.against) or ([flags.game] if run else [_default_bot(game)])
    if game.seats == 1 and flags.against:
        raise PlayError(f"against: {env} has one seat, yours; wanted no opponents")
    if len(words) > max(game.seats - 1, 1):
        raise PlayError(f"against: got {len(words)} players; wanted at most {game.seats - 1}, one for each other seat")
    opened = [open_guest(word, env, own) for word in words]
    opened = searched_where_possible(opened, game, flags.search.changes())
    players: dict[str, Agent] = {}
    for word, agent in zip(words, opened, strict=True):
        name = Path(word).name if (Path(word) / CONFIG).exists() else word
        players[name if name not in players else f"{name} ({len(players) + 1})"] = agent
    guide = open_guest(flags.game, env, own, search=flags.search.changes() or None) if run else opened[0]
    seed = random.SystemRandom().randrange(2**31) if flags.seed is None else flags.seed
    others = players if game.seats > 1 else {}
    return Table(env, own, seat=flags.seat, opponents=others, seed=seed, sample=flags.sample), adviser(guide, game)


def _environment(word: str) -> str:
    """The environment that a word names.

    Raises:
        PlayError: for a path that is not a run's folder.
        UnknownIdError: for an unknown environment; the message names the nearest.
    """
    try:
        return check_env_id(word)
    except UnknownIdError:
        spaces = {name.partition("/")[0] for name in [*registered(), *gym.registry] if "/" in name}
        if Path(word).exists() or ("/" in word and word.partition("/")[0] not in spaces):
            raise PlayError(f"game: {word} is no run's folder and no environment; wanted one of them") from None
        raise


def _default_bot(game: Any) -> str:
    try:
        TreeSearch(game, SearchConfig())
    except MlbitsError:
        return "random"
    return "mcts"


class _Talk:
    """The conversation at a table."""

    def __init__(self, table: Table, helper: Any, lines: TextIO, out: TextIO) -> None:
        self.table, self.helper, self.lines, self.out = table, helper, lines, out

    def say(self, text: str = "") -> None:
        print(text, file=self.out, flush=True)

    def run(self) -> bool:
        table = self.table
        others = [f"seat {k}: {name}" for k, name in enumerate(table.names)]
        self.say(f"{table.env}; {', '.join(others)}. Type a move, or help.")
        self.say("\n" + table.board())
        while not table.over:
            if not table.waits:
                self._show(table.advance())
            elif not self._turn():
                self.say("the game was left")
                return False
        self.say(table.result())
        return True

    def _show(self, moves: list[tuple[int, str]]) -> None:
        for seat, name in moves:
            who = self.table.names[seat]
            self.say(f"{who} play {name}" if who == "you" else f"{who} plays {name}")
        self.say("\n" + self.table.board())

    def _turn(self) -> bool:
        """One decision of the person's; returns whether to go on."""
        while True:
            print("your move> ", end="", file=self.out, flush=True)
            line = self.lines.readline() if self.lines is not None else ""
            if not line:
                self.say()
                return False
            word = line.strip()
            if word.casefold() in ("quit", "exit", "q"):
                return False
            if not word:
                continue
            command = {"help": self._help, "?": self._help, "moves": self._moves, "hint": self._hint}.get(
                word.casefold()
            )
            if word.casefold() == "board":
                self.say("\n" + self.table.board())
            elif word.casefold() == "undo":
                if self._undo():
                    return True
            elif command is not None:
                command()
            else:
                try:
                    table = self.table
                    action = table.moves.read(table.record, table.seat, word, table.legal())
                except PlayError as error:
                    self.say(str(error))
                    continue
                self._show(table.play(action))
                return True

    def _help(self) -> None:
        table = self.table
        self.say(HELP.format(some=table.moves.some(table.record, table.seat, table.legal(), 3)))

    def _moves(self) -> None:
        table, legal = self.table, self.table.legal()
        names = [table.moves.name(table.record, table.seat, action) for action in legal]
        self.say(" ".join(names))

    def _hint(self) -> None:
        try:
            found = hint(self.table, self.helper)
        except MlbitsError as error:
            found = [f"no hint: {error}"]
        self.say("\n".join(found))

    def _undo(self) -> bool:
        if not self.table.undo():
            self.say("there is nothing to take back")
            return False
        self.say("taken back\n\n" + self.table.board())
        return True
