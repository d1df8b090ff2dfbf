"""Damaged FENs, moves and PGN files for the readers: ``python -m tests.envs.board.chess.fuzz [INPUTS] [SEED]``.

A reader may refuse an input with an error of ours, or accept it; anything else ends the run. What is accepted must be
right: a FEN or file that we write again reads as the same, its games are replayed by the legal moves, and where
python-chess is installed, that agrees about every position, about moves and results.
"""

from __future__ import annotations

import importlib
import random
import sys
import time
from collections import Counter
from typing import Any

import numpy as np

from mlbits.envs.board.chess.fen import START, from_fen, to_fen
from mlbits.envs.board.chess.notation import action_of_san, action_of_uci, legal_actions, san, uci_of_action
from mlbits.envs.board.chess.pgn import PgnGame, read_pgn, write_pgn
from mlbits.envs.core.errors import GameError, IllegalActionError

FENS = (
    START,
    "r3k2r/p1ppqpb1/bn2pnp1/3PN3/1p2P3/2N2Q1p/PPPBBPPP/R3K2R w KQkq - 0 1",
    "8/2p5/3p4/KP5r/1R3p1k/8/4P1P1/8 w - -",
    "n1n5/PPPk4/8/8/8/8/4Kppp/5N1N b - - 12 44",
    "rnbqkbnr/ppp1p1pp/8/3pPp2/8/8/PPPP1PPP/RNBQKBNR w KQkq f6 0 3",
    "4k3/8/8/8/3pP3/8/8/4K3 b - e3 0 31",
    "3k4/3p4/8/K1P4r/8/8/8/8 b - -",
)
PGNS = (
    '[Event "Casual"]\n[White "A"]\n[Black "B"]\n[Result "0-1"]\n\n1. f3 {weak} e5 2. g4 $4 '
    "(2. e4 d5 (2... Nf6) 3. d4) 2... Qh4# 0-1\n",
    '[Result "1-0"]\n\n1.e4 e5 2.Qh5!? Nc6 3.Bc4 Nf6?? ; oh\n4.Qxf7# 1-0\n\n[Result "*"]\n\n1. d4 *\n',
    "1. e4 e5 2. Nf3 Nf6 3. Be2 Be7 4. O-O O-O 1/2-1/2\n",
    '[SetUp "1"]\n[FEN "1n2k3/P7/8/8/8/8/8/4K2R w K - 3 20"]\n[Result "*"]\n\n20. axb8=Q+ Ke7 21. O-O Ke6 *\n',
    '[FEN "4k3/8/8/8/3p4/8/4P3/4K3 w - - 0 1"]\n\n% escaped\n1. e4 dxe3 {[%clk 0:01]} 2. Kd1 *\n',
    '[SetUp "1"]\n[FEN "2k5/8/8/8/1Q5Q/8/8/K6Q w - - 0 1"]\n[Result "*"]\n\n1. Qh4e1 Kc7 2. Qhg2 *\n',
)
PIECES = "KQRBNPkqrbnp12345678/ wb-abcdefgh0"
WORDS = (
    *"KQRBNOx+#=!?.*[](){};%$\"\\/-0123456789abcdefgh\n\t ", "1-0", "0-1", "1/2-1/2", "O-O", "O-O-O", "e4", "Nf3",
    "exd5", "e8=Q", "1.", "1...", "[FEN \"", "\"]", "[Result \"1-0\"]", "é", "\x00", "\ufeff", "9" * 30, "(" * 50, "{"
    * 20,
)  # fmt: skip


def damaged(text: str, generator: random.Random, pieces: Any) -> str:
    """A text after one to four changes of characters, words or stretches."""
    for _ in range(generator.choice((1, 1, 2, 4))):
        a, b = sorted((generator.randrange(len(text) + 1), generator.randrange(len(text) + 1)))
        near = min(a + generator.randrange(1, 5), len(text))
        kind = generator.randrange(7)
        if kind == 0:
            text = text[:a] + generator.choice(pieces) + text[near:]
        elif kind == 1:
            text = text[:a] + generator.choice(pieces) + text[a:]
        elif kind == 2:
            text = text[:a] + text[near:]
        elif kind == 3:
            text = text[:a] + text[a:near][::-1] + text[near:]
        elif kind == 4:
            text = text[:a] + text[a : min(b, a + 30)] * 2 + text[b:]
        elif kind == 5:
            words = text.split(" ")
            i, j = generator.randrange(len(words)), generator.randrange(len(words))
            words[i], words[j] = words[j], words[i]
            text = " ".join(words)
        else:
            text = text[:a] + text[a : a + 1].swapcase() + text[a + 1 :]
    return text


def same(one: Any, other: Any) -> bool:
    """Whether two states hold the same position."""
    return all(np.array_equal(one[name], other[name]) for name in one.dtype.names if name not in ("elapsed", "history"))


class Fuzz:
    """Damaged inputs from a seed; ``counts`` says what was read and what was accepted."""

    def __init__(self, seed: int) -> None:
        self.generator = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.slowest = 0.0
        try:
            self.oracle: Any = importlib.import_module("chess")
        except ImportError:
            self.oracle = None

    def one(self) -> None:
        """Read one input."""
        kind = self.generator.choices(("fen", "san", "uci", "pgn"), (4, 3, 1, 4))[0]
        self.counts[kind] += 1
        began = time.perf_counter()
        try:
            getattr(self, kind)()
            self.counts[f"{kind} accepted"] += 1
        except (GameError, IllegalActionError) as error:
            assert str(error)
        self.slowest = max(self.slowest, time.perf_counter() - began)

    def fen(self) -> None:
        text = damaged(self.generator.choice(FENS), self.generator, PIECES)
        state = from_fen(text)
        written = to_fen(state)
        assert same(from_fen(written), state), text
        assert text.split(" ")[0] == written.split(" ")[0], text
        if self.oracle is not None:
            board = self.oracle.Board(text)
            # It knows more about checks that no move can have given; otherwise both agree.
            unreachable = self.oracle.STATUS_TOO_MANY_CHECKERS | self.oracle.STATUS_IMPOSSIBLE_CHECK
            assert not board.status() & ~unreachable, (text, board.status())
            assert board.fen() == written, text
            assert board.legal_moves.count() == len(legal_actions(state)), text

    def san(self) -> None:
        state = from_fen(self.generator.choice(FENS))
        names = [san(state, action) for action in self.generator.sample(legal_actions(state).tolist(), 1)]
        text = damaged(names[0], self.generator, WORDS)
        action = action_of_san(state, text)
        if self.oracle is not None:
            board = self.oracle.Board(to_fen(state))
            assert board.parse_san(text).uci() == uci_of_action(state, action), text

    def uci(self) -> None:
        state = from_fen(self.generator.choice(FENS))
        text = damaged(
            uci_of_action(state, self.generator.choice(legal_actions(state).tolist())), self.generator, WORDS
        )
        action = action_of_uci(state, text)
        assert uci_of_action(state, action) in (text, text + "q"), text

    def pgn(self) -> None:
        text = damaged(self.generator.choice(PGNS), self.generator, WORDS)
        games = read_pgn(text)
        self.counts["games"] += len(games)
        again = read_pgn(write_pgn(games))
        for game, other in zip(games, again, strict=True):
            assert (game.moves, game.actions, game.result) == (other.moves, other.actions, other.result), text
            assert game.start == other.start, text
            self.replay(game)

    def replay(self, game: PgnGame) -> None:
        """Every move is legal, and the oracle's game ends in the same position."""
        states = list(game.states())
        for state, action in zip(states, game.actions, strict=False):
            assert action in legal_actions(state)
        if self.oracle is not None:
            board = self.oracle.Board(game.start)
            for move in game.moves:
                assert board.san(board.parse_san(move)) == move
                board.push_san(move)
            assert board.fen() == to_fen(states[-1])
            if board.is_checkmate():
                assert game.result == ("0-1" if board.turn else "1-0")


def main(inputs: int, seed: int) -> None:
    """Read inputs, and print what became of them."""
    fuzz, began = Fuzz(seed), time.process_time()
    for k in range(inputs):
        state = fuzz.generator.getstate()
        try:
            fuzz.one()
        except Exception:
            print(f"input {k} of seed {seed}; generator at {hash(state)}", flush=True)
            raise
    spent = time.process_time() - began
    print(f"{inputs} inputs, seed {seed}, {spent:.0f} CPU-s, slowest {fuzz.slowest * 1000:.1f} ms", dict(fuzz.counts))


if __name__ == "__main__":
    main(*[int(text) for text in [*sys.argv[1:], *("100000", "1")[len(sys.argv) - 1 :]]])
