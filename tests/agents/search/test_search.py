"""Tree search: trees of a batch do not touch, masks and signs at every node, truncation, early rewards, errors."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents.agent import AgentError
from mlbits.agents.search import search as search_module
from mlbits.agents.search.search import SearchConfig, TreeSearch
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule
from tests.agents.search.tables import (
    Counted,
    Table,
    flat_network,
    hashed_network,
    random_tree,
    search,
    start,
    worked_network,
    worked_tree,
)


def positions(game_id, count, plies, seed=0):
    """Positions after 0 to ``plies`` random moves, some of finished games."""
    batch = mlbits.make_batch(game_id, count, seed=seed, autoreset="disabled")
    kept = batch.state()
    for ply in range(1, plies + 1):
        batch.step(batch.sample_actions())
        now = batch.state()
        kept[ply :: plies + 1] = now[ply :: plies + 1]
    return kept


@pytest.mark.parametrize("method", ["gumbel", pytest.param("puct", marks=pytest.mark.slow)])
def test_trees_together_equal_each_tree_alone_bit_for_bit(method):
    """Also where some trees are decided early and some games are over from the start."""
    game = mlbits.make_game("mlbits/ConnectFour-v0")
    states = positions("mlbits/ConnectFour-v0", 48, 23)
    config = SearchConfig(method=method, simulations=24, noise=1.0 if method == "gumbel" else 0.25)
    noise = torch.rand(48, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    generator, tree = torch.Generator().manual_seed(0), TreeSearch(game, config)
    together = tree.run(states, hashed_network, generator, noise=noise)
    assert (together.nodes == 1).any(), "no game is over"
    assert ((together.outcome > 0) & (together.nodes > 1)).any(), "no tree is decided early"
    assert (together.outcome == 0).any()
    one = TreeSearch(game, config)
    rows = 0
    for b in range(48):
        alone = one.run(states[b : b + 1], hashed_network, generator, noise=noise[b : b + 1])
        for name in ("action", "policy", "visits", "q", "value", "outcome", "nodes"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[b]), (b, name)
        rows += alone.rows
    assert rows == together.rows


@pytest.mark.slow
def test_rollouts_of_a_batch_repeat_with_the_seed():
    game = mlbits.make_game("mlbits/ConnectFour-v0")
    states = positions("mlbits/ConnectFour-v0", 8, 3)
    first, again, other = (search(game, None, states, seed, method="uct", simulations=50) for seed in (1, 1, 2))
    assert torch.equal(first.visits, again.visits)
    assert not torch.equal(first.visits, other.visits)


@pytest.mark.parametrize(
    "method", ["gumbel", *(pytest.param(name, marks=pytest.mark.slow) for name in ("puct", "uct"))]
)
def test_no_illegal_action_is_played_anywhere_in_the_tree(method):
    """An illegal action would pay the mover 5, and the network likes nothing else."""
    table = worked_tree()
    for n in range(13):
        table.legal[n, n % 3] = False
        table.ended[n, n % 3] = True
        table.pay(n, n % 3, 5.0)

    def network(obs, mask):
        return torch.where(mask, 0.0, 50.0), torch.zeros(len(mask))

    found = search(table.game(), network, method=method, simulations=300, solver=False)
    assert found.visits[0, 0] == 0
    assert found.policy[0, 0] == 0
    assert found.visits[0].sum() == 300
    assert 1 + 2 + 4 < found.nodes[0] <= 1 + 2 + 4 + 8
    assert found.q.abs().max() <= 1
    assert found.value.abs().max() <= 1


@pytest.mark.parametrize("method", ["gumbel", "puct", "uct"])
def test_a_value_is_that_of_the_seat_that_moves(method):
    """The root's seat moves again after action 0, the other one after 1 and 2."""
    table = Table()
    table.mover[:4] = 0, 0, 1, 1
    found = search(table.game(horizon=1), worked_network, method=method, simulations=12, c_init=30, solver=False)
    _, values = worked_network(torch.arange(4), torch.ones(4, 3, dtype=torch.bool))
    assert found.visits.min() > 0
    torch.testing.assert_close(found.q[0], (torch.tensor([1, -1, -1]) * values[1:]).float())
    table.mover[:4] = 1, 1, 0, 0
    again = search(table.game(horizon=1), worked_network, method=method, simulations=12, c_init=30, solver=False)
    assert torch.equal(again.q, found.q)


@pytest.mark.parametrize("method", ["puct", "uct"])
@pytest.mark.parametrize("seed", range(5))
def test_signs_follow_the_seats_where_seats_move_twice(method, seed):
    table = random_tree(seed)
    best = table.value() * (1 if table.mover[0] == 0 else -1)
    found = search(table.game(), flat_network, method=method, simulations=3000, rescale=False, solver=False)
    assert found.value[0].item() == pytest.approx(best, abs=0.35)
    found = search(table.game(), flat_network, method=method, simulations=3000)
    assert found.outcome[0] > 0
    assert found.value[0].item() == best


def test_truncated_leaves_have_the_networks_value():
    """With a horizon of one step: discounted, seen from the other seat, and evaluated once."""
    table = worked_tree()
    table.pay(0, 2, 0.25)
    network = Counted(worked_network)
    settings = {"method": "puct", "simulations": 40, "discount": 0.5, "solver": False, "c_init": 30}
    found = search(table.game(horizon=1), network, **settings)
    _, values = worked_network(torch.arange(4), torch.ones(4, 3, dtype=torch.bool))
    want = torch.tensor([0, 0, 0.25]) - 0.5 * values[1:]
    assert (found.visits[0] > 2).all()
    torch.testing.assert_close(found.q[0], want.float())
    assert network.rows == [1, 1, 1, 1]


def test_terminated_games_have_no_value_but_their_rewards():
    table = worked_tree()
    for a in range(3):
        table.ended[0, a] = True
        table.pay(0, a, a - 1)
    network = Counted(lambda obs, mask: (torch.zeros(mask.shape), torch.full((len(mask),), 0.9)))
    found = search(table.game(), network, method="puct", simulations=40, solver=False, c_init=30)
    assert found.q[0].tolist() == [-1, 0, 1]
    assert network.rows == [1]


def test_rewards_before_the_end_are_added_up():
    table = random_tree(5)
    for n in range(4):
        for a in range(3):
            table.pay(n, a, (n + 2 * a) % 3 / 2)
    best = table.value() * (1 if table.mover[0] == 0 else -1)
    found = search(table.game(), flat_network, method="uct", simulations=20_000, solver=False)
    assert found.value[0].item() == pytest.approx(best, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("network", [False, True])
def test_one_seat_finds_a_goal(network):
    """By random games, or by a network that knows the distance, discounted: the shortest way has 8 steps."""
    batch = mlbits.make_batch("mlbits/GridWorld-v0", 4, autoreset="disabled", map="S..../...../...../...../....G")
    tree = TreeSearch(batch.game, SearchConfig(method="uct", simulations=2000, discount=0.95, c_uct=0.5))

    def knows(obs, mask):
        left = 8 - obs // 5 - obs % 5
        return torch.zeros(mask.shape), 0.95 ** (left - 1.0)

    generator = torch.Generator().manual_seed(0)
    for _ in range(8 if network else 12):
        found = tree.run(batch.state(), knows if network else None, generator)
        batch.step(found.action[:, None])
    assert batch.terminated.all()


def test_errors():
    tree = worked_tree().game()
    with pytest.raises(AgentError, match="simulations: got 0"):
        SearchConfig(simulations=0)
    with pytest.raises(AgentError, match="wanted Discrete"):
        TreeSearch(mlbits.make_game("mlbits/PointMass-v0"), SearchConfig())
    with pytest.raises(AgentError, match="2 seats that act at once"):
        TreeSearch(mlbits.make_game("mlbits/Blotto-v0"), SearchConfig())
    with pytest.raises(AgentError, match="reuse: got method='gumbel'"):
        TreeSearch(tree, SearchConfig()).run(start(tree), flat_network, torch.Generator(), reuse=True)
    with pytest.raises(AgentError, match=r"100,000 trees of 1,000,000 simulations take .* GiB.*wanted fewer"):
        search(tree, flat_network, start(tree, 100_000), simulations=1_000_000)
    with pytest.raises(AgentError, match=r"evaluate: got logits \(1, 4\).*wanted \(1, 3\) and \(1,\)"):
        search(tree, lambda obs, mask: (torch.zeros(1, 4), torch.zeros(1)))
    with pytest.raises(AgentError, match=r"evaluate: .* values \(1, 1\)"):
        search(tree, lambda obs, mask: (torch.zeros(1, 3), torch.zeros(1, 1)))


def test_games_that_cannot_be_searched():
    early = worked_tree()
    early.pay(0, 1, 0.5)
    with pytest.raises(AgentError, match="pays rewards before its end; wanted solver=False"):
        search(early.game(), flat_network, method="puct")
    assert search(early.game(), flat_network, method="puct", solver=False).visits.sum() == 32
    unfair = worked_tree()
    unfair.pays[5, 1] = 1, 1
    with pytest.raises(AgentError, match="not opposite; wanted a zero-sum game"):
        search(unfair.game(), flat_network, method="puct", simulations=200)
    both = worked_tree()
    both.mover[2] = 2
    with pytest.raises(AgentError, match="several seats act at once, or none"):
        search(both.game(), flat_network, method="puct")
    stuck = worked_tree()
    stuck.legal[3] = False
    with pytest.raises(AgentError, match="several seats act at once, or none"):
        search(stuck.game(), flat_network, method="puct")


# A game as wide as chess: any of the first ``width`` actions of 4,672 goes on.

WIDE = 4672


@rule
def wide_reset(state, params):
    state.heap = 0
    state.turn = 0


@rule
def wide_step(state, params, actions, rewards):
    state.heap = (state.heap * 7 + actions[state.turn]) % 1009
    state.turn = 1 - state.turn
    if state.heap % 10 == 3:
        rewards[state.turn] = -1
        rewards[1 - state.turn] = 1
        return True, False
    return False, False


@rule
def wide_observe(state, params, seat, out):
    out[0] = state.heap


@rule
def wide_legal(state, params, seat, out):
    for a in range(params.width):
        out[a * 11] = True


@rule
def wide_acts(state, params, seat):
    return state.turn == seat


def wide(width):
    from gymnasium import spaces

    return Game(
        name="Wide", seats=2, state_fields=[("heap", "i4"), ("turn", "i4")],
        params=make_params([("width", "i4")], {"width": width}), observation_space=spaces.Discrete(1009),
        action_space=spaces.Discrete(WIDE), reset=wide_reset, step=wide_step, observe=wide_observe, legal=wide_legal,
        acts=wide_acts, text=str, draw=lambda state, params: np.zeros((8, 8, 3), np.uint8),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("network", [None, flat_network])
def test_room_for_edges_grows_when_it_is_needed_and_changes_nothing(network, monkeypatch):
    game = wide(400)
    states = start(game, 3, heap=[1, 2, 4])
    settings = {"method": "uct", "simulations": 150, "solver": False}
    monkeypatch.setattr(search_module, "_EDGES_A_NODE", WIDE)
    roomy = search(game, network, states, **settings)
    assert (roomy.nodes > 100).all()
    monkeypatch.setattr(search_module, "_EDGES_A_NODE", 2)
    tree = TreeSearch(game, SearchConfig(**settings))
    grown = tree.run(states, network, torch.Generator().manual_seed(0))
    assert tree._memory.tensor("used", 3).max() > 151 * 2 + WIDE, "it grew"
    for name in ("visits", "policy", "q", "value", "nodes"):
        assert torch.equal(getattr(grown, name), getattr(roomy, name)), name
    assert (grown.rows, grown.calls) == (roomy.rows, roomy.calls)
    again = tree.run(states, network, torch.Generator().manual_seed(0))
    assert torch.equal(again.visits, roomy.visits)


@pytest.mark.slow
def test_trees_are_no_larger_than_what_they_hold():
    """32 simulations of 64 games as wide as chess fit in a few MiB."""
    game = wide(30)
    tree = TreeSearch(game, SearchConfig(method="uct", simulations=32))
    found = tree.run(start(game, 64, heap=1), flat_network, torch.Generator().manual_seed(0))
    assert found.visits.shape == (64, WIDE)
    assert tree._memory.view["edges"].nbytes < 64 * 33 * 64 * 32 + 64 * WIDE * 32 + 1


def test_a_search_after_one_that_failed_is_as_if_it_were_the_first():
    game = worked_tree().game()
    tree = TreeSearch(game, SearchConfig(method="puct", simulations=16))
    with pytest.raises(AgentError):
        tree.run(start(game), lambda obs, mask: (torch.zeros(1, 2), torch.zeros(1)), torch.Generator(), reuse=True)
    found = tree.run(start(game), worked_network, torch.Generator(), reuse=True)
    assert torch.equal(found.visits, search(game, worked_network, method="puct", simulations=16).visits)


def test_parameters_of_each_copy():
    """Tree b is searched in game b."""
    tables = [random_tree(seed) for seed in range(6)]
    params = np.concatenate([table.game().params for table in tables])
    game = Table().game()
    config = SearchConfig(method="puct", simulations=2000)
    found = TreeSearch(game, config).run(start(game, 6), flat_network, torch.Generator(), params=params)
    want = [table.value() * (1 if table.mover[0] == 0 else -1) for table in tables]
    assert found.value.tolist() == want
    assert len(set(want)) > 1
