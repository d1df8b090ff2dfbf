"""Moves in UCI and SAN: names, what a person may type, and what is refused."""

import numpy as np
import pytest

import mlbits
from mlbits.envs.board.chess.fen import START, from_fen
from mlbits.envs.board.chess.notation import action_of_san, action_of_uci, after, legal_actions, san, uci_of_action
from mlbits.envs.core.errors import GameError, IllegalActionError

CASTLES = "r3k2r/8/8/8/8/8/8/R3K2R w KQkq - 0 1"
QUEENS = "2k5/3p4/8/8/1Q5Q/8/8/K6Q w - - 0 1"


@pytest.mark.parametrize(
    ("fen", "uci", "name"),
    [
        (START, "e2e4", "e4"),
        (START, "g1f3", "Nf3"),
        (CASTLES, "e1g1", "O-O"),
        (CASTLES, "e1c1", "O-O-O"),
        (CASTLES, "a1a8", "Rxa8+"),
        (CASTLES.replace(" w ", " b "), "e8g8", "O-O"),
        ("4k3/8/8/3pP3/8/8/8/4K3 w - d6 0 1", "e5d6", "exd6"),
        ("1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1", "a7a8n", "a8=N"),
        ("1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1", "a7b8q", "axb8=Q+"),
        (QUEENS, "h4e1", "Qh4e1"),  # neither file nor rank is its own
        (QUEENS, "b4e1", "Qbe1"),
        (QUEENS, "h1e1", "Q1e1"),
        (QUEENS, "h1e4", "Q1e4"),
        ("4k3/8/8/8/1b6/8/3N4/4K1N1 w - - 0 1", "g1f3", "Nf3"),  # the other is pinned
        ("8/8/8/3k4/8/1N3N2/8/4K3 w - - 0 1", "b3d4", "Nbd4"),
        ("6k1/5ppp/8/8/8/8/8/R3K3 w - - 0 1", "a1a8", "Ra8#"),
    ],
)  # fmt: skip
def test_moves_by_hand(fen, uci, name):
    state = from_fen(fen)
    action = action_of_uci(state, uci)
    assert san(state, action) == name
    assert uci_of_action(state, action) == uci
    assert action_of_san(state, name) == action
    names = mlbits.make_game("mlbits/Chess-v0").layout["moves"][int(state.turn)]
    assert names[action] == uci.removesuffix("q")


@pytest.mark.parametrize(
    ("fen", "typed", "uci"),
    [
        (START, "Ng1f3", "g1f3"),
        (START, "e2e4", "e2e4"),
        (CASTLES, "0-0", "e1g1"),
        (CASTLES, "0-0-0", "e1c1"),
        (CASTLES, "Ra8", "a1a8"),
        ("1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1", "a8N", "a7a8n"),
        ("1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1", "axb8=Q", "a7b8q"),
    ],
)
def test_san_is_read_freely(fen, typed, uci):
    state = from_fen(fen)
    assert uci_of_action(state, action_of_san(state, typed)) == uci


@pytest.mark.parametrize(
    ("fen", "typed", "message"),
    [
        (START, "", "move: got ''; wanted standard algebraic notation, such as Nf3 or exd5"),
        (START, None, "move: got NoneType"),
        (START, "x" * 99, "move: got '" + "x" * 40 + "...'; wanted standard"),
        (START, "e5", "move: got 'e5'; wanted one that is legal: Na3, Nc3, Nf3, Nh3, a3, a4, b3"),
        (START, "O-O", "wanted one that is legal"),
        (START, "0-0-", "wanted standard algebraic notation"),
        (START, "O-0", "wanted standard algebraic notation"),
        (START, "Nxf3", "move: got 'Nxf3', which takes nothing; wanted no x"),
        (START, "e4+", "move: got 'e4+', which gives no check"),
        (START, "e4#", "move: got 'e4#', which gives no mate"),
        (START, "e4=Q", "move: got 'e4=Q'; wanted no promotion"),
        (CASTLES, "Rxa8#", "gives no mate"),
        (CASTLES, "Kg1", "wanted one that is legal"),
        (CASTLES, "Kc1", "wanted one that is legal"),
        (QUEENS, "Qe1", "move: got 'Qe1'; wanted one of Q1e1, Qbe1, Qh4e1"),
        ("1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1", "a8", "move: got 'a8'; wanted a promotion, as =Q"),
        ("1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1", "a8=K", "wanted standard algebraic notation"),
        ("1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1", "xb8=Q", "wanted one that is legal"),
        ("1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1", "b8=Q", "wanted one that is legal"),
        ("R5k1/5ppp/8/8/8/8/8/4K3 b - - 0 1", "Kh8", "wanted one that is legal; there is none, the game is over"),
    ],
)
def test_san_that_is_refused(fen, typed, message):
    with pytest.raises(IllegalActionError) as refused:
        action_of_san(from_fen(fen), typed)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("e2e5", "move: got 'e2e5'; wanted one that is legal: b1a3, b1c3, g1f3"),
        ("e2e4q", "move: got 'e2e4q'; wanted one that is legal"),
        ("e2-e4", "move: got 'e2-e4'; wanted UCI's notation, such as e2e4 or e7e8q"),
        ("E2E4", "wanted UCI's notation"),
        ("e2e4\n", "wanted UCI's notation"),
        (5, "move: got int; wanted UCI's notation"),
    ],
)
def test_uci_that_is_refused(typed, message):
    with pytest.raises(IllegalActionError) as refused:
        action_of_uci(from_fen(START), typed)
    assert message in str(refused.value)


def test_a_promotion_without_its_letter_is_to_a_queen():
    state = from_fen("1n2k3/P7/8/8/8/8/8/4K3 w - - 0 1")
    assert action_of_uci(state, "a7a8") == action_of_uci(state, "a7a8q")
    with pytest.raises(IllegalActionError):
        action_of_uci(state, "a7a8k")


@pytest.mark.parametrize("function", [after, san, uci_of_action])
@pytest.mark.parametrize(
    ("action", "message"),
    [
        (-1, "action: got -1; wanted an integer from 0 to 1857"),
        (1858, "action: got 1858"),
        (True, "action: got True"),
        (0, r"action: got 0 \(a1b1\); wanted one that is legal: b1a3"),
    ],
)
def test_actions_that_are_not_legal_are_refused(function, action, message):
    with pytest.raises(IllegalActionError, match=message):
        function(from_fen(START), action)


def test_functions_leave_their_state_as_it_was():
    state = from_fen(START)
    before = state.tobytes()
    for action in legal_actions(state):
        assert action_of_san(state, san(state, action)) == action
        after(state, action)
    assert state.tobytes() == before


@pytest.mark.slow  # the game as a batch takes long to compile
def test_a_row_of_a_batch_is_a_state():
    batch = mlbits.make_batch("mlbits/Chess-v0", 3, seed=2, autoreset="disabled")
    for _ in range(20):
        batch.step(batch.sample_actions())
    for b, state in enumerate(batch.records()):
        mask = batch.legal_mask[b, int(state["turn"])].numpy()
        assert np.array_equal(np.flatnonzero(mask), legal_actions(state))
    with pytest.raises(GameError, match="wanted one state of chess"):
        legal_actions(batch.records())
