"""Proven wins and losses: against exhaustive search of tic-tac-toe, forced wins in Connect Four, and by hand."""

import functools

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents.search.gumbel import summary
from mlbits.agents.search.search import SearchConfig, TreeSearch
from mlbits.agents.search.trees import DRAW, EDGE, LOSS, UNKNOWN, WIN, decided
from mlbits.envs.core.rules import python_function
from tests.agents.search.tables import (
    Counted,
    flat_network,
    hashed_network,
    node_game,
    node_network,
    random_tree,
    search,
    start,
)

LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


@functools.cache
def perfect(board):
    """(value for the mover, plies to the end) of "XO......." by X, under the shortest win and the longest loss."""
    mover = "XO"[board.count("X") - board.count("O")]
    if any(all(board[i] == "OX"["XO".index(mover)] for i in line) for line in LINES):
        return -1, 0
    if "." not in board:
        return 0, 0
    found = []
    for cell in range(9):
        if board[cell] == ".":
            value, plies = perfect(board[:cell] + mover + board[cell + 1 :])
            found.append((-value, plies + 1))
    return max(found, key=lambda one: (one[0], -one[0] * one[1]))


def board_of(obs):
    """The board that an observation of tic-tac-toe shows to the seat that moves, as text by X."""
    own, other = obs[0].flatten().tolist(), obs[1].flatten().tolist()
    symbols = "XO" if sum(own) == sum(other) else "OX"
    return "".join(symbols[0] if a else symbols[1] if b else "." for a, b in zip(own, other, strict=True))


@pytest.fixture(scope="module")
def tic_tac_toe():
    """Positions of 3 to 7 plies, and their boards."""
    batch = mlbits.make_batch("mlbits/TicTacToe-v0", 60, seed=3, autoreset="disabled")
    kept, boards = batch.state(), [""] * 60
    for ply in range(1, 8):
        batch.step(batch.sample_actions())
        over = batch.terminated
        for b in range(60):
            if b % 5 + 3 == ply and not over[b]:
                kept[b] = batch.state()[b]
                boards[b] = board_of(batch.obs[b, ply % 2])
    alive = [b for b in range(60) if boards[b]]
    assert len(alive) > 30
    return batch.game, kept[alive], [boards[b] for b in alive]


@pytest.mark.parametrize("look_ahead", [False, True])
def test_outcomes_are_those_of_exhaustive_search(look_ahead, tic_tac_toe):
    game, states, boards = tic_tac_toe
    found = search(game, None, states, method="uct", simulations=6000, look_ahead=look_ahead)
    names = {1: WIN, -1: LOSS, 0: DRAW}
    seen = set()
    for b, board in enumerate(boards):
        value, _ = perfect(board)
        assert found.outcome[b] == names[value], board
        assert found.value[b] == value
        mover = "XO"[board.count("X") - board.count("O")]
        after = board[: found.action[b]] + mover + board[found.action[b] + 1 :]
        assert -perfect(after)[0] == value, board
        seen.add(value)
    assert seen == {-1, 0, 1}


@pytest.mark.parametrize("look_ahead", [False, True])
def test_looking_ahead_knows_the_moves_that_end_the_game_without_a_visit(look_ahead, tic_tac_toe):
    game, states, boards = tic_tac_toe
    network = Counted(flat_network)
    tree = TreeSearch(game, SearchConfig(method="puct", simulations=1, look_ahead=look_ahead))
    tree.run(states, network, torch.Generator().manual_seed(0))
    wins = 0
    for b, board in enumerate(boards):
        mover = "XO"[board.count("X") - board.count("O")]
        last = {}
        for cell in (i for i in range(9) if board[i] == "."):
            value, plies = perfect(board[:cell] + mover + board[cell + 1 :])
            if plies == 0:
                last[cell] = (WIN if value < 0 else DRAW, 1)
        wins += any(outcome == WIN for outcome, _ in last.values())
        proven = {cell: known for cell, known in tree.proven(b).items() if known[1] == 1}
        assert proven == last if look_ahead else len(proven) <= 1, board
    assert wins > 5
    assert sum(network.rows) <= 2 * len(boards) - wins * (2 if look_ahead else 0)  # a won root is not evaluated


def test_looking_ahead_sees_the_reply_that_wins_at_the_first_visit(tic_tac_toe):
    """Every move that loses to the next one is known to, after a visit each; and the policy avoids all of them."""
    game, states, boards = tic_tac_toe
    found = search(game, flat_network, states, simulations=12, look_ahead=True)
    threatened = 0
    for b, board in enumerate(boards):
        mover = "XO"[board.count("X") - board.count("O")]
        blunders = [i for i in range(9) if board[i] == "." and perfect(board[:i] + mover + board[i + 1 :]) == (1, 1)]
        if blunders and perfect(board)[0] >= 0 and perfect(board)[1] > 1:
            threatened += 1
            assert (found.q[b, blunders] == -1).all(), board
            assert found.action[b] not in blunders
            assert found.policy[b, blunders].sum() < 0.05 * len(blunders)
    assert threatened > 5


@pytest.mark.parametrize("method", ["gumbel", "puct", "uct"])
def test_with_the_solver_no_fewer_values_are_kept(method):
    """Moves that keep the value of random trees, in which a network knows nothing of what comes."""
    tables = [random_tree(seed) for seed in range(60)]
    params = np.concatenate([table.game().params for table in tables])
    kept = {}
    for solver in (True, False):
        kept[solver] = 0
        for simulations in (5, 10, 20, 40):
            config = SearchConfig(method=method, simulations=simulations, solver=solver)
            tree, states = TreeSearch(tables[0].game(), config), start(tables[0].game(), 60)
            found = tree.run(states, hashed_network, torch.Generator(), params=params)
            for table, action in zip(tables, found.action.tolist(), strict=True):
                kept[solver] += table.value(int(table.child[0, action])) == table.value()
    assert kept[True] > kept[False]


def connect_four(moves):
    batch = mlbits.make_batch("mlbits/ConnectFour-v0", 1)
    for ply, column in enumerate(moves):
        actions = np.zeros((1, 2), np.int64)
        actions[0, ply % 2] = "abcdefg".index(column)
        batch.step(actions)
    return batch.game, batch.state()


@pytest.mark.parametrize("method", ["gumbel", pytest.param("puct", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("moves", "outcome", "plays"),
    [
        ("ddeeff", WIN, "cg"),  # c or g wins at once
        ("ddee", WIN, "cf"),  # makes an open three
        ("ddeef", LOSS, "abcdefg"),  # whatever is played
    ],
)
def test_forced_wins_in_connect_four(method, moves, outcome, plays):
    game, states = connect_four(moves)
    network = Counted(flat_network)
    found = search(game, network, states, method=method, simulations=3000)
    assert found.outcome[0] == outcome
    assert found.value[0] == (1 if outcome == WIN else -1)
    assert "abcdefg"[found.action[0]] in plays
    assert found.policy[0].sum() == 1
    assert found.policy[0, found.action[0]] > 0
    assert len(network.rows) < 1500, "a decided root ends the search"


@pytest.mark.slow
def test_a_lost_position_is_held_as_long_as_possible():
    """X threatens c and g; O's only moves that do not lose at once are these two."""
    game, states = connect_four("ddeef")
    found = search(game, flat_network, states, method="puct", simulations=3000)
    assert "abcdefg"[found.action[0]] in "cg" or found.policy[0].count_nonzero() == 7


def edges(*known):
    made = np.zeros((1, len(known)), EDGE).view(np.recarray)
    for e, (outcome, distance) in enumerate(known):
        made[0, e].outcome, made[0, e].distance = outcome, distance
    return made


@pytest.mark.parametrize(
    ("known", "want"),
    [
        ([(LOSS, 2), (WIN, 5), (WIN, 3), (DRAW, 9)], (WIN, 3)),  # the shortest win
        ([(WIN, 3), (UNKNOWN, 0), (WIN, 5)], (WIN, 3)),  # one win is enough
        ([(LOSS, 4), (LOSS, 8), (LOSS, 2)], (LOSS, 8)),  # the longest loss
        ([(LOSS, 4), (UNKNOWN, 0)], (UNKNOWN, 0)),
        ([(DRAW, 4), (UNKNOWN, 0)], (UNKNOWN, 0)),
        ([(LOSS, 20), (DRAW, 4), (DRAW, 6), (LOSS, 30)], (DRAW, 6)),  # a draw before any loss, the longest
    ],
)
def test_a_node_is_decided_by_its_edges(known, want):
    assert python_function(decided)(edges(*known), 0, 0, len(known)) == want


@pytest.mark.slow
def test_a_decided_root_costs_no_more_calls_and_the_other_trees_go_on():
    game, states = connect_four("ddeeff")
    _, start_states = connect_four("")
    network = Counted(flat_network)
    config = SearchConfig(method="puct", simulations=40)
    found = TreeSearch(game, config).run(torch.cat([states, start_states]), network, torch.Generator())
    assert found.outcome.tolist() == [WIN, UNKNOWN]
    assert network.rows[0] == 2
    assert network.rows[-1] == 1
    assert found.nodes[1] == 41


@pytest.mark.slow
def test_the_mixed_value_of_mctx_s_one_node():
    """Visits 9 and 8, Q 3 and -1: prior means 0.047426 and 0.952574, -0.810297 of those visited, -1.043058 in all."""
    config = SearchConfig(simulations=17, c_scale=0.05, c_visit=60, discount=1e-6)
    tree = TreeSearch(node_game(), config)
    tree.run(start(node_game()), node_network, torch.Generator())
    nodes, tree_edges = (tree._memory.view[name].view(np.recarray) for name in ("nodes", "edges"))
    assert tree_edges[0, :2].prior.tolist() == pytest.approx([0.047426, 0.952574], abs=1e-6)
    mixed, low, high, most, visits = python_function(summary)(nodes, tree_edges, 0, 0, 4)
    assert mixed == pytest.approx(-1.043058, abs=2e-6)
    assert (low, high) == (pytest.approx(mixed), pytest.approx(3, abs=1e-5))
    assert (most, visits) == (9, 17)
