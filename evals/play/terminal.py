"""``mlbits play``: a person plays in the terminal, by typing the names of moves, numbers, or orders.

Lines are read from standard input, be it a terminal or a pipe; at its end, or with Ctrl-C, the game is left. Where
seats act at once, the others' moves are shown only after the person's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.engine.batch import GameBatch
from mlbits.evals.play.config import PlayError, PlayFlags
from mlbits.evals.play.guests import chosen_game, invite
from mlbits.evals.play.hints import hint
from mlbits.evals.play.match import Match
from mlbits.evals.play.typed import read_action, read_orders, takes_orders, wanted
from mlbits.evals.play.view import MOST_NUMBERS, position_text
from mlbits.evals.replays.page import check_page_file, write_page

HELP = """  a move   {wanted}
  moves    all legal moves; with a word, those in which it occurs
  hint     the best moves by a search, with their values (1 a win, 0 a draw, -1 a loss), or what the agent would play
  undo     take back your last move and what followed it
  board    draw the board again
  help     this list
  quit     leave the game"""
HELP_ORDERS = """  orders   in standard notation, one or several with commas: A PAR - BUR, F BRE H, A MAR S A PAR - BUR
  send     send them; units without an order hold
"""


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
    match, helper = sit_down(flags, settings)
    try:
        return _Talk(match, helper, lines, out).run()
    except KeyboardInterrupt:
        print("\nthe game was left", file=out, flush=True)
        return False
    finally:
        if flags.replay is not None:
            print(f"replay: {write_page(match.replay, flags.replay)}", file=out, flush=True)
        match.close()


def sit_down(flags: PlayFlags, settings: Mapping[str, Any]) -> tuple[Match, Any]:
    """The game, and who gives hints.

    Raises:
        MlbitsError: for a game, a seat or opponents that do not fit.
    """
    env, own = chosen_game(flags.game, settings)
    guests = invite(flags, env, own, people=1)
    match = Match(
        env, own, people=(flags.seat,), opponents=guests.players, seed=guests.seed, sample=flags.sample
    )  # fmt: skip
    check_readable(match)
    return match, guests.adviser


def check_readable(match: Match) -> None:
    """Refuse an environment that can be followed by its pictures alone.

    Raises:
        PlayError: naming it.
    """
    if isinstance(match.batch, GameBatch) or match.batch.text() is not None:
        return
    obs: Any = match.batch.obs
    sizes = [part[0, 0].numel() for part in (obs.values() if isinstance(obs, dict) else [obs])]
    if min(sizes) > MOST_NUMBERS:
        match.close()
        raise PlayError(f"{match.env}: is seen as pictures, which a terminal does not show; wanted --web")


class _Talk:
    """The conversation at a match."""

    def __init__(self, match: Match, helper: Any, lines: TextIO, out: TextIO) -> None:
        self.match, self.helper, self.lines, self.out = match, helper, lines, out
        self.seat = match.people[0]
        self.names = ["you" if seat == self.seat else name for seat, name in enumerate(match.names)]
        self.orders: dict[int, int] = {}

    def say(self, text: str = "") -> None:
        print(text, file=self.out, flush=True)

    def run(self) -> bool:
        match = self.match
        others = [f"seat {k}: {name}" for k, name in enumerate(self.names)]
        what = "orders" if takes_orders(match) else "numbers" if match.batch.action.kind == "continuous" else "a move"
        self.say(f"{match.env}; {', '.join(others)}. Type {what}, or help.")
        self._board()
        while not match.over:
            if not match.waiting:
                match.advance()
                self._show()
            elif not self._turn():
                self.say("the game was left")
                return False
        self.say(match.result(self.seat))
        return True

    def _board(self) -> None:
        self.say("\n" + position_text(self.match, self.seat))

    def _show(self) -> None:
        """Say what was played, and draw the board."""
        step = self.match.replay.steps[-1]
        for seat, said in sorted(step.said.items()):
            self.say(f"{self.names[seat]} {'play' if seat == self.seat else 'plays'} {said.name}")
        if len(self.names) == 1 and not self.match.over:
            self.say(f"reward {step.rewards[0]:g}, {self.match.returns[0]:g} in all")
        self._board()

    def _turn(self) -> bool:
        """One decision of the person's; returns whether to go on."""
        self.orders = {}
        match, prompt = self.match, "your orders> " if takes_orders(self.match) else "your move> "
        while True:
            print(prompt, end="", file=self.out, flush=True)
            line = self.lines.readline() if self.lines is not None else ""
            if not line:
                self.say()
                return False
            word, _, rest = line.strip().partition(" ")
            command = word.casefold()
            if command in ("quit", "exit", "q") and not rest:
                return False
            try:
                if not word:
                    continue
                if command in ("help", "?"):
                    self._help()
                elif command == "board":
                    self._board()
                elif command == "moves":
                    self._moves(rest.strip())
                elif command == "hint":
                    self.say("\n".join(hint(match, self.seat, self.helper)))
                elif command == "undo":
                    if self._undo():
                        return True
                elif takes_orders(match):
                    if command == "send":
                        return self._choose(self._all_orders())
                    self.orders = read_orders(match, self.seat, line.strip(), self.orders)
                    self._list_orders()
                else:
                    return self._choose(read_action(match, self.seat, line.strip()))
            except MlbitsError as error:
                self.say(f"no hint: {error}" if command == "hint" else str(error))

    def _choose(self, action: list[float]) -> bool:
        self.match.choose(self.seat, self.match.turn, action)
        self._show()
        return True

    def _help(self) -> None:
        if takes_orders(self.match):
            self.say(HELP_ORDERS + HELP.partition("\n")[2])
        else:
            self.say(HELP.format(wanted=self._wanted()))

    def _wanted(self) -> str:
        named = self.match.batch.action.kind == "discrete"
        return ("its name: " if named else "") + wanted(self.match, self.seat)

    def _moves(self, word: str) -> None:
        """List the legal moves in which a word occurs."""
        slots = self.match.slots(self.seat)
        if not slots:
            self.say(wanted(self.match, self.seat))
        for slot in slots:
            names = [name for name in slot.names.values() if word.casefold() in name.casefold()]
            between = ", " if takes_orders(self.match) else " "
            if names:
                self.say((f"{slot.heading}: " if slot.heading else "") + between.join(names))

    def _all_orders(self) -> list[float]:
        """The orders given, and the first of the legal ones in place of those that are not."""
        slots = self.match.slots(self.seat)
        return [self.orders.get(k, next(iter(slot.names))) for k, slot in enumerate(slots)]

    def _list_orders(self) -> None:
        chosen = self._all_orders()
        for k, slot in enumerate(self.match.slots(self.seat)):
            self.say(f"  {slot.heading}: {slot.names[int(chosen[k])]}{'' if k in self.orders else ' (no order yet)'}")
        self.say("'send' sends them")

    def _undo(self) -> bool:
        """Take back; returns whether the position is another one."""
        if self.orders:
            self.orders = {}
            self.say("the orders are taken back")
            return False
        self.match.undo(self.seat, self.match.turn)
        self.say("taken back")
        self._board()
        return True
