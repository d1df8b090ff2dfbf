"""FEN: what is written, what is refused and why, and damaged texts."""

import pytest

from mlbits.envs.board.chess.fen import START, from_fen, to_fen
from mlbits.envs.core.errors import GameError
from tests.envs.board.chess.fuzz import FENS, Fuzz


@pytest.mark.parametrize("fen", FENS)
def test_positions_are_written_as_they_were_read(fen):
    wanted = fen if fen.count(" ") == 5 else f"{fen} 0 1"
    assert to_fen(from_fen(fen)) == wanted


def test_a_square_for_en_passant_is_kept_only_where_a_legal_move_takes():
    fen = "rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR b KQkq e3 0 1"
    assert to_fen(from_fen(fen)) == fen.replace("e3", "-")
    assert from_fen(fen).key == from_fen(fen.replace("e3", "-")).key


def test_every_part_of_a_position_changes_its_key():
    fens = [
        "r3k2r/8/8/3pP3/8/8/8/R3K2R w KQkq d6 0 1", "r3k2r/8/8/3pP3/8/8/8/R3K2R w KQkq - 0 1",
        "r3k2r/8/8/3pP3/8/8/8/R3K2R b KQkq - 0 1", "r3k2r/8/8/3pP3/8/8/8/R3K2R w KQk - 0 1",
        "r3k2r/8/8/3pP3/8/8/8/R3K2R w KQq - 0 1", "r3k2r/8/8/3pP3/8/8/8/R3K2R w Kkq - 0 1",
        "r3k2r/8/8/3pP3/8/8/8/R3K2R w Qkq - 0 1", "r3k2r/8/8/3Pp3/8/8/8/R3K2R w KQkq - 0 1",
        "r3k2r/8/8/3pP3/8/8/8/R3K1NR w KQkq - 0 1", "r3k2r/8/8/3pP3/8/8/8/R3K1BR w KQkq - 0 1",
    ]  # fmt: skip
    assert len({int(from_fen(fen).key) for fen in fens}) == len(fens)
    assert from_fen(fens[0]).key == from_fen(fens[0].replace("0 1", "0 9")).key


@pytest.mark.parametrize(
    ("fen", "message"),
    [
        (b"8", "fen: got bytes; wanted text"),
        ("8" * 101, "fen: got 101 characters"),
        ("", "wanted six fields"),
        (START.replace(" ", "  ", 1), "wanted six fields"),
        (START + " 1", "wanted six fields"),
        (START.replace("/8/8/8", "/8/8"), "pieces: got 7 ranks; wanted 8"),
        (START.replace("/8/", "/7/", 1), "rank 6: got 7 squares in '7'; wanted 8"),
        (START.replace("/8/", "/44/", 1), "rank 6: got '44'; wanted letters of PNBRQKpnbrqk, and single digits"),
        (START.replace("/8/", "/9/", 1), "rank 6: got '9'"),
        (START.replace("/8/", "/7x/", 1), "rank 6: got '7x'"),
        (START.replace("/8/", "/٨/", 1), "wanted six fields"),
        (START.replace(" w ", " W "), "side to move: got 'W'; wanted w or b"),
        (START.replace("KQkq", "kqKQ"), "castling: got 'kqKQ'; wanted letters of KQkq in this order, or -"),
        (START.replace("KQkq", "KK"), "castling: got 'KK'"),
        (START.replace("KQkq", "HAha"), "castling: got 'HAha'"),
        ("4k3/8/8/8/8/8/8/4K3 w K - 0 1", "castling K: wanted white's king on e1 and a rook on h1"),
        ("r3k3/8/8/8/8/8/8/4K3 w kq - 0 1", "castling k: wanted black's king on e8 and a rook on h8"),
        ("r4k2/8/8/8/8/8/8/4K3 w q - 0 1", "castling q: wanted black's king on e8 and a rook on a8"),
        ("4k2R/8/8/8/8/8/8/4K3 b k - 0 1", "castling k: wanted black's king on e8"),
        ("8/8/8/8/8/8/8/4K3 w - - 0 1", "black has 0 kings; wanted 1"),
        ("4k3/8/8/8/8/8/8/K3K3 w - - 0 1", "white has 2 kings; wanted 1"),
        ("4k2P/8/8/8/8/8/8/4K3 w - - 0 1", "a pawn on h8; wanted none on ranks 1 and 8"),
        ("4k3/8/8/8/8/8/8/p3K3 w - - 0 1", "a pawn on a1"),
        ("4k3/8/8/8/P7/8/PPPPPPPP/4K3 w - - 0 1", "white has 9 pawns and 0 promoted pieces; wanted at most 8"),
        ("4k3/8/8/8/8/QQ6/PPPPPPPP/4K3 w - - 0 1", "white has 8 pawns and 1 promoted pieces"),
        ("nnnnknnn/nnn5/8/8/8/8/8/4K3 w - - 0 1", None),
        ("nnnnknnn/nnnn4/8/8/8/8/8/4K3 w - - 0 1", "black has 0 pawns and 9 promoted pieces"),
        ("4k3/pppppppp/pppppppp/8/8/8/8/4K3 w - - 0 1", "black has 17 pieces; wanted at most 16"),
        ("4k3/8/8/8/8/8/8/R3K2r b - - 0 1", "white is in check, and it is not its turn"),
        ("4k3/8/8/8/8/8/4R3/4K3 w - - 0 1", "black is in check, and it is not its turn"),
        ("8/8/8/8/8/8/4k3/4K3 w - - 0 1", "black is in check, and it is not its turn"),
        (START.replace("- 0", "e3 0"), "en passant: got 'e3'; wanted a square of rank 6, or -"),
        (START.replace("- 0", "e6 0"), "no pawn of black's can have just moved two squares past e6"),
        (START.replace("- 0", "i6 0"), "en passant: got 'i6'"),
        ("4k3/4p3/8/4p3/8/8/8/4K3 w - e6 0 1", "no pawn of black's can have just moved two squares past e6"),
        ("4k3/8/4n3/4p3/8/8/8/4K3 w - e6 0 1", "no pawn of black's"),
        ("4k3/8/8/4P3/8/8/8/4K3 w - e6 0 1", "no pawn of black's"),
        ("4k3/8/8/8/4P3/8/8/4K3 b - e3 2 1", "got '2'; wanted 0 where a pawn has just moved"),
        (START.replace("0 1", "-1 1"), "plies since the last capture or pawn move: got '-1'"),
        (START.replace("0 1", "0 0"), "number of the move: got '0'; wanted a number from 1 to 9999"),
        (START.replace("0 1", "00 1"), "got '00'"),
        (START.replace("0 1", "0 10000"), "got '10000'"),
        (START.replace("0 1", "² 1"), "wanted six fields"),
    ],
)  # fmt: skip
def test_what_is_refused(fen, message):
    if message is None:
        assert to_fen(from_fen(fen)) == fen
        return
    with pytest.raises(GameError) as refused:
        from_fen(fen)
    assert message in str(refused.value)


def test_damaged_texts():
    """Thousands here; ``python -m tests.envs.board.chess.fuzz 1000000`` reads more."""
    fuzz = Fuzz(seed=12)
    for _ in range(2000):
        fuzz.one()
    assert fuzz.slowest < 60
    for kind in ("fen", "san", "uci", "pgn"):
        assert 0 < fuzz.counts[f"{kind} accepted"] < fuzz.counts[kind] / 2
