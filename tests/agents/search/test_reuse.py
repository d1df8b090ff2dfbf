"""Subtrees that are kept from one search to the next."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents.agent import Positions
from mlbits.agents.alphazero import AlphaZero, AlphaZeroConfig
from mlbits.agents.search.search import SearchConfig, TreeSearch
from tests.agents.search.tables import Counted, flat_network, hashed_network, random_tree, start


def tree_of(search, b):
    """A tree as nested tuples of all that a node and its edges hold, in the order of actions."""
    nodes, edges, states = (search._memory.view[name][b] for name in ("nodes", "edges", "states"))

    def below(i):
        node = nodes[i]
        kept = tuple(node[name].item() for name in ("total", "value", "visits", "count", "seat", "kind", "outcome"))
        found = []
        for edge in edges[node["first"] : node["first"] + node["count"]]:
            numbers = tuple(edge[name].item() for name in ("total", "logit", "prior", "action", "visits", "outcome"))
            child = None
            if edge["child"] >= 0:
                child = (nodes[edge["child"]]["reward"].item(), below(edge["child"]))
                assert nodes[edge["child"]]["parent"] == i
                assert edges[nodes[edge["child"]]["edge"]]["action"] == edge["action"]
            found.append((numbers, child))
        return kept, states[i].tobytes(), tuple(found)

    return below(0)


def child_of(tree, action):
    return next(child[1] for numbers, child in tree[2] if numbers[3] == action)


def after_begin(search, monkeypatch):
    """A list that gets all trees as they are when a search begins."""
    seen, call = [], search._call

    def watched(name, *arguments):
        result = call(name, *arguments)
        if name == "begin":
            seen.append([tree_of(search, b) for b in range(arguments[0])])
        return result

    monkeypatch.setattr(search, "_call", watched)
    return seen


def most_visited(tree):
    return max(tree[2], key=lambda edge: edge[0][4])[0][3]


def step(batch, moves, seat):
    actions = np.zeros((batch.num_envs, 2), np.int64)
    actions[:, seat] = moves
    batch.step(actions)


@pytest.mark.parametrize("plies", [0, 1, 2])
def test_a_kept_subtree_is_what_it_was(plies, monkeypatch):
    """At the same position, after a move, and after a move and its answer."""
    batch = mlbits.make_batch("mlbits/ConnectFour-v0", 12, seed=1, autoreset="disabled")
    for ply in range(4):
        step(batch, batch.sample_actions()[:, ply % 2], ply % 2)
    tree = TreeSearch(batch.game, SearchConfig(method="puct", simulations=60, noise=0.25))
    generator = torch.Generator().manual_seed(0)
    first = tree.run(batch.state(), hashed_network, generator, reuse=True, explore=True)
    assert first.nodes.max() == 61
    want = [tree_of(tree, b) for b in range(12)]
    for ply in range(plies):
        moves = [most_visited(one) for one in want]
        want = [child_of(one, move) for one, move in zip(want, moves, strict=True)]
        step(batch, moves, ply % 2)
    seen = after_begin(tree, monkeypatch)
    network = Counted(hashed_network)
    second = tree.run(batch.state(), network, generator, reuse=True, explore=True)
    assert seen[0] == want
    before = torch.tensor([sum(numbers[4] for numbers, _ in one[2]) for one in want])
    if plies:
        assert before.min() > 5
    assert torch.equal(second.visits.sum(1), before + 60)
    assert len(network.rows) == 60, "no call for the roots"
    assert (second.nodes <= 121).all()


def test_reuse_saves_calls_and_trees_stay_within_their_room():
    """The same position again and again: 2 x 20 simulations fill a tree of 41 nodes."""
    game = mlbits.make_game("mlbits/ConnectFour-v0")
    state = mlbits.make_batch("mlbits/ConnectFour-v0", 1).state()
    tree, rows = TreeSearch(game, SearchConfig(method="puct", simulations=20)), []
    for _ in range(4):
        found = tree.run(state, hashed_network, torch.Generator(), reuse=True)
        rows.append(found.rows)
    assert rows == [21, 20, 0, 0]
    assert found.nodes[0] == 41
    assert found.visits.sum() == 40
    tree.forget()
    assert tree.run(state, hashed_network, torch.Generator(), reuse=True).rows == 21
    assert tree.run(state, hashed_network, torch.Generator()).rows == 21


def test_what_is_not_in_the_tree_is_searched_anew():
    """Three plies on, another game, another time of the game, other parameters, a row that was not there."""
    batch = mlbits.make_batch("mlbits/ConnectFour-v0", 6, seed=1, autoreset="disabled")
    tree = TreeSearch(batch.game, SearchConfig(method="puct", simulations=200))
    fresh = TreeSearch(batch.game, SearchConfig(method="puct", simulations=200))
    tree.run(batch.state(), flat_network, torch.Generator(), reuse=True)
    trees = [tree_of(tree, b) for b in range(6)]
    for ply in range(3):
        moves = [most_visited(one) for one in trees]
        trees = [child_of(one, move) for one, move in zip(trees, moves, strict=True)]
        step(batch, moves, ply % 2)
    found = tree.run(batch.state(), flat_network, torch.Generator(), reuse=True)
    assert torch.equal(found.visits, fresh.run(batch.state(), flat_network, torch.Generator()).visits)
    later = batch.state()
    later.numpy().view(batch.game.state_dtype)["elapsed"] += 1
    assert tree.run(later, flat_network, torch.Generator(), reuse=True).rows == found.rows
    params = np.repeat(batch.game.params, 6)
    params["horizon"] = 1000
    assert tree.run(later, flat_network, torch.Generator(), params=params, reuse=True).rows == found.rows
    assert tree.run(later, flat_network, torch.Generator(), params=params, reuse=True).rows == 6 * 200
    assert tree.run(later[:3], flat_network, torch.Generator(), params=params[:3], reuse=True).rows > 600


def test_known_outcomes_are_kept():
    table = random_tree(1)
    tree = TreeSearch(table.game(), SearchConfig(method="uct", simulations=2000))
    first = tree.run(start(table.game()), flat_network, torch.Generator(), reuse=True)
    assert first.outcome[0] > 0
    again = tree.run(start(table.game()), flat_network, torch.Generator(), reuse=True)
    assert again.calls == 0
    assert (again.outcome, again.action, again.value) == (first.outcome, first.action, first.value)
    after = start(table.game(), node=int(table.child[0, first.action[0]]), elapsed=1)
    assert tree.run(after, flat_network, torch.Generator(), reuse=True).calls == 0


def test_random_games_go_on_in_the_kept_tree():
    game = mlbits.make_game("mlbits/ConnectFour-v0")
    state = mlbits.make_batch("mlbits/ConnectFour-v0", 3).state()
    tree = TreeSearch(game, SearchConfig(method="uct", simulations=50))
    generator = torch.Generator().manual_seed(0)
    assert tree.run(state, None, generator, reuse=True).visits.sum(1).tolist() == [50] * 3
    assert tree.run(state, None, generator, reuse=True).visits.sum(1).tolist() == [100] * 3


def test_alphazero_goes_on_in_its_trees_until_it_learns():
    batch = mlbits.make_batch("mlbits/ConnectFour-v0", 3, seed=1)
    config = AlphaZeroConfig(method="puct", simulations=30, width=8, blocks=0, random_opening=0)
    agent, generator = AlphaZero(config, batch.game), torch.Generator().manual_seed(0)

    def plan(generator=generator, greedy=True):
        copy, seat = torch.arange(6) // 2, torch.arange(6) % 2
        network.rows.clear()
        positions = Positions(
            batch.game, batch.game.params, batch.state()[copy], copy, seat, batch.active.flatten(),
            batch.obs.flatten(0, 1), batch.legal_mask.flatten(0, 1),
        )  # fmt: skip
        agent.plan(positions, generator, greedy=greedy)
        return network.rows

    network = agent.policy_and_value = Counted(agent.policy_and_value)
    assert len(plan()) == 31
    assert len(plan()) == 30
    assert len(plan(greedy=False)) == 31
    assert len(plan(torch.Generator())) == 31
    assert len(plan(greedy=False)) == 31
    agent.learn(SimpleNamespace(added=0), 0.0, generator)
    assert len(plan(greedy=False)) == 31
    assert len(plan(greedy=False)) == 30
    agent.load_state_dict(agent.state_dict())
    assert len(plan(greedy=False)) == 31
