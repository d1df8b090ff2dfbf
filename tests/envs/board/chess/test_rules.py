"""Chess as a game: mates, draws, the fifty-move rule, repetition, views, and its actions."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.board.chess.actions import ACTIONS, GOAL, ORIGIN, PLAIN, REACH, action_of, lesser_promotion
from mlbits.envs.board.chess.drawing import headline, reason
from mlbits.envs.board.chess.fen import START, from_fen, to_fen
from mlbits.envs.board.chess.notation import action_of_uci, after, legal_actions, uci_of_action
from mlbits.envs.core.errors import GameError
from tests.envs.board.play import play, result

ID = "mlbits/Chess-v0"
SHUFFLE = "g1f3 g8f6 f3g1 f6g8"


def moved(fen, moves):
    """The state after moves in UCI's notation."""
    state = from_fen(fen)
    for move in moves.split():
        assert state.outcome == 0, move
        state = after(state, action_of_uci(state, move))
    return state


def legal(fen, start=""):
    """The legal moves in UCI's notation, those that begin with ``start``."""
    state = from_fen(fen)
    return {name for action in legal_actions(state) if (name := uci_of_action(state, action)).startswith(start)}


@pytest.mark.parametrize(
    ("moves", "wanted"),
    [
        ("f2f3 e7e5 g2g4 d8h4", [-1, 1]),
        ("e2e4 e7e5 d1h5 b8c6 f1c4 g8f6 h5f7", [1, -1]),
        ("e2e4 e7e5 d1h5 b8c6 f1c4 g7g6", None),
        (SHUFFLE, None),
        (f"{SHUFFLE} {SHUFFLE}", [0, 0]),
    ],
)
def test_games_by_hand(moves, wanted):
    assert result(ID, moves) == wanted


@pytest.mark.parametrize(
    ("fen", "moves", "wanted"),
    [
        ("k7/8/1K6/8/8/8/8/2Q5 w - - 0 1", "c1c7", "draw by stalemate"),
        ("k7/8/1K6/8/8/8/8/2Q5 w - - 0 1", "c1c8", "white won by checkmate"),
        ("8/8/8/8/8/1k6/8/Kr6 w - - 0 1", "a1b1", "draw by insufficient material"),
        ("4k3/8/8/8/8/8/8/R3K3 w - - 98 80", "a1a2", "black to move"),
        ("4k3/8/8/8/8/8/8/R3K3 w - - 98 80", "a1a2 e8e7", "draw by fifty moves"),
        ("4k3/4p3/8/8/8/8/8/R3K3 w - - 98 80", "a1a2 e7e6", "white to move"),
        ("k7/8/1K6/8/8/8/8/2Q5 w - - 99 80", "c1c8", "white won by checkmate"),
        ("k7/8/1K6/8/8/8/8/2Q5 w - - 99 80", "c1c7", "draw by fifty moves"),
        ("k7/8/1K6/8/8/8/8/2Q5 w - - 99 80", "c1c2", "draw by fifty moves"),
        ("6k1/5ppp/8/8/8/8/8/R3K3 w Q - 0 1", "a1a8", "white won by checkmate"),
        ("r3k3/8/8/8/8/8/5PPP/6K1 b q - 0 1", "a8a1", "black won by checkmate"),
        ("4k3/8/8/8/8/8/8/R3K3 w - - 0 1", "a1a8", "black to move, in check"),
        (START, f"{SHUFFLE} {SHUFFLE}", "draw by threefold repetition"),
    ],
)
def test_ends_by_hand(fen, moves, wanted):
    state = moved(fen, moves)
    assert headline(state) == wanted
    assert bool(state.over) == (reason(state) != "")


@pytest.mark.parametrize(
    ("pieces", "drawn"),
    [
        ("4k3/8/8/8/8/8/8/4K3", True),
        ("4k3/8/8/8/8/8/8/4KN2", True),
        ("4kn2/8/8/8/8/8/8/4K3", True),
        ("4kb2/8/8/8/8/8/8/4K3", True),
        ("4kb2/8/8/8/8/8/8/2B1K3", True),  # c1 and f8 are dark
        ("4k1b1/8/8/8/8/8/8/2B1K3", False),  # g8 is light
        ("4kb2/8/5b2/8/8/8/1B6/2B1K3", True),
        ("4kb2/8/4b3/8/8/8/1B6/2B1K3", False),
        ("4k3/8/8/8/8/8/8/3NKN2", False),
        ("4kb2/8/8/8/8/8/8/4KN2", False),
        ("4kn2/8/8/8/8/8/8/4KN2", False),
        ("4k3/8/8/8/8/8/P7/4K3", False),
        ("4k3/8/8/8/8/8/8/R3K3", False),
        ("4k3/8/8/8/8/8/8/q3K3", False),
    ],
)
def test_material_that_cannot_mate(pieces, drawn):
    for side in "wb":
        fen = f"{pieces} {side} - - 0 1"
        if not (pieces.endswith("q3K3") and side == "b"):  # white is in check
            state = from_fen(fen)
            assert (reason(state) == "insufficient material") == drawn, fen
            assert (state.outcome == 3) == drawn


def test_a_position_is_another_one_with_other_castling_rights():
    fen, away = "r3k2r/8/8/8/8/8/8/R3K2R w KQkq - 0 1", "a1b1 a8b8 b1a1 b8a8"
    assert moved(fen, away).repeats == 0  # two rights are lost
    assert moved(fen, f"{away} {away}").repeats == 1
    assert reason(moved(fen, f"{away} {away} a1b1")) == ""
    assert reason(moved(fen, f"{away} {away} a1b1 a8b8")) == "threefold repetition"
    none = fen.replace("KQkq", "-")
    assert reason(moved(none, f"{away} {away}")) == "threefold repetition"


def test_a_position_is_another_one_with_a_legal_move_en_passant():
    fen, away = "4k3/8/8/8/3p4/8/4P3/4K3 w - - 0 1", "e8d8 e1d1 d8e8 d1e1"
    assert to_fen(moved(fen, "e2e4")) == "4k3/8/8/8/3pP3/8/8/4K3 b - e3 0 1"
    assert reason(moved(fen, f"e2e4 {away} {away}")) == ""
    assert reason(moved(fen, f"e2e4 {away} {away} e8d8")) == "threefold repetition"  # this one is there thrice first
    # The pawn is pinned, so that it cannot take: the same position from the start.
    fen, away = "3k4/8/8/8/3p4/8/4P3/3RK3 w - - 0 1", "d8e8 e1f1 e8d8 f1e1"
    assert to_fen(moved(fen, "e2e4")) == "3k4/8/8/8/3pP3/8/8/3RK3 b - - 0 1"
    assert reason(moved(fen, f"e2e4 {away}")) == ""
    assert reason(moved(fen, f"e2e4 {away} {away}")) == "threefold repetition"


def test_a_capture_or_pawn_move_ends_what_repeats():
    assert moved(START, f"{SHUFFLE} e2e4 e7e5 {SHUFFLE}").repeats == 1
    assert moved(START, f"{SHUFFLE} e2e3 e7e5 e3e4").repeats == 0
    assert moved(START, f"{SHUFFLE} e2e3").clock == 0
    assert moved(START, SHUFFLE).clock == 4


CASTLES = "r3k2r/8/8/8/8/8/8/R3K2R w KQkq - 0 1"


@pytest.mark.parametrize(
    ("fen", "wanted"),
    [
        (CASTLES, {"e1g1", "e1c1"}),
        (CASTLES.replace("KQkq", "Qkq"), {"e1c1"}),
        (CASTLES.replace("KQkq", "kq"), set()),
        ("r3k2r/8/8/8/4r3/8/8/R3K2R w KQkq - 0 1", set()),  # in check
        ("r3k2r/8/8/8/5r2/8/8/R3K2R w KQkq - 0 1", {"e1c1"}),  # f1 is attacked
        ("r3k2r/8/8/8/6r1/8/8/R3K2R w KQkq - 0 1", {"e1c1"}),  # g1 is attacked
        ("r3k2r/8/8/8/1r6/8/8/R3K2R w KQkq - 0 1", {"e1g1", "e1c1"}),  # only the rook passes b1
        ("r3k2r/8/8/8/8/8/8/RN2K1NR w KQkq - 0 1", set()),
    ],
)
def test_castling_by_hand(fen, wanted):
    assert legal(fen, "e1") & {"e1g1", "e1c1"} == wanted
    # The same for black, mirrored.
    pieces, _, rights, *rest = fen.split(" ")
    mirrored = "/".join(pieces.split("/")[::-1]).swapcase(), "b", rights.swapcase() if rights != "kq" else "KQ", *rest
    rights = "".join(letter for letter in "KQkq" if letter in mirrored[2])
    fen = " ".join([mirrored[0], "b", rights, *rest])
    assert legal(fen, "e8") & {"e8g8", "e8c8"} == {name.replace("1", "8") for name in wanted}


def test_castling_moves_the_rook_and_loses_the_rights():
    assert to_fen(moved(CASTLES, "e1g1")) == "r3k2r/8/8/8/8/8/8/R4RK1 b kq - 1 1"
    assert to_fen(moved(CASTLES, "e1c1 e8g8")) == "r4rk1/8/8/8/8/8/8/2KR3R w - - 2 2"
    assert to_fen(moved(CASTLES, "h1h8")) == "r3k2R/8/8/8/8/8/8/R3K3 b Qq - 0 1"
    assert to_fen(moved(CASTLES, "e1e2 a8a1")) == "4k2r/8/8/8/8/8/4K3/r6R w k - 0 2"


def test_promotions_and_en_passant_by_hand():
    fen = "1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1"
    assert legal(fen, "a7") == {f"a7{square}{piece}" for square in ("a8", "b8") for piece in "qrbn"}
    for piece in "QRBN":
        assert to_fen(moved(fen, f"a7b8{piece.lower()}")).startswith(f"1{piece}2k3/8/")
    assert to_fen(moved("4k3/8/8/4Pp2/8/8/8/4K3 w - f6 0 2", "e5f6")) == "4k3/8/5P2/8/8/8/8/4K3 b - - 0 2"
    assert to_fen(moved("4k3/8/8/4Pp2/8/8/8/4K3 w - - 0 2", "e1e2")) == "4k3/8/8/4Pp2/8/8/4K3/8 b - - 1 2"
    assert "e5f6" not in legal("4k3/8/8/4Pp2/8/8/8/4K3 w - - 0 2")
    assert "e5f6" not in legal("4k3/8/8/K3Pp1r/8/8/8/8 w - f6 0 2")  # both pawns leave the rank
    assert from_fen("4k3/8/8/K3Pp1r/8/8/8/8 w - f6 0 2").passant == -1


def test_actions_number_all_moves_of_queens_and_knights():
    assert (ACTIONS, PLAIN) == (1858, 1792)
    for action in range(PLAIN):
        assert action_of(np.uint64(ORIGIN[action]), np.uint64(GOAL[action])) == action
        assert int(REACH[ORIGIN[action]]) >> int(GOAL[action]) & 1
    firsts = [int(lesser_promotion(np.uint64(ORIGIN[a]), np.uint64(GOAL[a]))) for a in range(PLAIN, ACTIONS, 3)]
    assert firsts == list(range(PLAIN, ACTIONS, 3))


def test_names_are_of_the_board_and_actions_of_the_seats_view():
    names = mlbits.make_game(ID).layout["moves"]
    assert names[0][names[0].index("e2e4")] == "e2e4" and names[1][names[0].index("e2e4")] == "e7e5"
    assert names[1][names[0].index("g7h8n")] == "g2h1n"
    assert all(len(set(seat)) == ACTIONS for seat in names)


def test_what_the_seats_see():
    batch, _ = play(ID, "e2e4 d7d5")
    white, black = batch.obs[0].numpy()
    assert white.sum((1, 2)).tolist() == [8, 2, 2, 2, 1, 1, 8, 2, 2, 2, 1, 1, 4, 0, 0, 0, 64]
    assert white[0, 4, 4] == 1 and white[6, 3, 3] == 1 and white[5, 7, 4] == 1 and white[11, 0, 4] == 1
    assert np.argwhere(white[12]).tolist() == [[0, 0], [0, 7], [7, 0], [7, 7]]
    # Black sees the board from its side: ranks mirrored, files kept.
    swapped = np.concatenate([white[6:12], white[:6], white[12:16]])[:, ::-1]
    assert np.array_equal(black[:16], swapped)
    assert not black[16].any()
    assert batch.obs.max() == 1


def test_what_the_seats_see_of_the_rules():
    batch, _ = play(ID, "e2e4 g8f6 e4e5 d7d5")
    assert np.argwhere(batch.obs[0, 0, 13].numpy()).tolist() == [[2, 3]]
    assert np.argwhere(batch.obs[0, 1, 13].numpy()).tolist() == [[5, 3]]
    batch, _ = play(ID, SHUFFLE)
    assert batch.obs[0, :, 14].float().mean((1, 2)).tolist() == [1, 1]
    assert np.argwhere(batch.obs[0, 0, 15].numpy()).tolist() == [[7, 0], [7, 1]]  # 4 of 100 plies
    batch, _ = play(ID, "g1f3 g8f6 h1g1")
    assert np.argwhere(batch.obs[0, 0, 12].numpy()).tolist() == [[0, 0], [0, 7], [7, 0]]
    assert np.argwhere(batch.obs[0, 1, 12].numpy()).tolist() == [[0, 0], [7, 0], [7, 7]]


@pytest.mark.slow  # the game as a batch takes long to compile
def test_it_is_cut_after_its_horizon():
    batch = mlbits.make_batch(ID, 1, horizon=3, autoreset="disabled")
    for t in range(3):
        step = batch.step(batch.sample_actions())
        assert bool(step.truncated[0]) == (t == 2)
        assert not step.terminated[0] and not step.reward.any()
    assert mlbits.make_game(ID).horizon == 512 and mlbits.make_game(ID, horizon=None).horizon is None


@pytest.mark.slow  # the game as a batch takes long to compile
def test_it_starts_from_a_fen():
    fen = "4k3/8/8/8/8/8/4P3/4K3 b - - 7 31"
    batch = mlbits.make_batch(ID, 2, fen=fen)
    assert batch.active[:, :2].tolist() == [[False, True]] * 2
    states = batch.records()
    assert to_fen(states[1]) == fen
    batch.step(torch.tensor([[0, action_of_uci(states[1], "e8e7")]] * 2))
    assert to_fen(batch.records()[1]) == "8/4k3/8/8/8/8/4P3/4K3 w - - 8 32"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fen": "4k3/8/8/8/8/8/8/4K3 w - - 0 1"}, "the game is over in this position"),
        ({"fen": "R5k1/5ppp/8/8/8/8/8/4K3 b - - 0 1"}, "the game is over in this position"),
        ({"fen": "4k3/8/8/8/8/8/4P3/4K3 w - - 100 90"}, "the game is over in this position"),
        ({"fen": "start"}, "fen 'start': wanted six fields"),
        ({"fen": 3}, "fen: got int; wanted text"),
        ({"horizon": 0}, "horizon: got 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)


@pytest.mark.slow  # the game as a batch takes long to compile
def test_keys_and_all_other_fields_are_those_of_the_position_itself():
    """After every move of random games, what is kept up move by move equals what the position's FEN gives."""
    batch = mlbits.make_batch(ID, 8, seed=4)
    seen = 0
    for t in range(240):
        batch.step(batch.sample_actions())
        for state in batch.records() if t % 6 == 0 else ():
            whole = from_fen(to_fen(state))
            for name in ("pieces", "sides", "key", "clock", "number", "castling", "passant", "checked", "turn"):
                assert np.array_equal(state[name], whole[name]), (name, to_fen(state))
            assert state["history"][state["clock"]] == state["key"]
            seen += int(state["castling"] == 0)
    assert seen > 50


def test_the_clock_of_a_game_without_end_stops_where_its_field_ends():
    state = from_fen("4k3/8/8/8/8/8/8/R3K3 w - - 9999 9999")
    state.clock = 31_999
    for move in ("a1a2", "e8e7"):
        state = after(state, action_of_uci(state, move))
    assert state.clock == 32_000


def test_a_state_is_small():
    assert mlbits.make_game(ID).state_dtype.itemsize == 912  # 800 of them keys of 100 plies
