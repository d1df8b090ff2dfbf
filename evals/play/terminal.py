"""``mlbits play``: a person plays in the terminal, by typing the names of moves.

Lines are read from standard input, be it a terminal or a pipe; at its end, or with Ctrl-C, the game is left. Where
seats act at once, the others' moves are shown only after the person's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.play.config import PlayError, PlayFlags
from mlbits.evals.play.guests import chosen_game, invite
from mlbits.evals.play.hints import hint
from mlbits.evals.play.table import Table, check_game
from mlbits.evals.replays.page import check_page_file, write_page

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
    check_page_file(flags.replay)
    table, helper = sit_down(flags, settings)
    try:
        return _Talk(table, helper, lines, out).run()
    except KeyboardInterrupt:
        print("\nthe game was left", file=out, flush=True)
        return False
    finally:
        if flags.replay is not None:
            print(f"replay: {write_page(table.recorder.replay, flags.replay)}", file=out, flush=True)


def sit_down(flags: PlayFlags, settings: Mapping[str, Any]) -> tuple[Table, Any]:
    """The table, and who gives hints.

    Raises:
        MlbitsError: for a game, a seat or opponents that do not fit.
    """
    env, own = chosen_game(flags.game, settings)
    check_game(env, own, flags.seat)
    guests = invite(flags, env, own, people=1)
    table = Table(env, own, seat=flags.seat, opponents=guests.players, seed=guests.seed, sample=flags.sample)
    return table, guests.adviser


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
