"""Searches worked out by DeepMind's mctx 0.0.71, number for number: a tree of depth 3, one node, a schedule."""

import pytest
import torch

from mlbits.agents.search.gumbel import schedule
from mlbits.agents.search.search import SearchConfig, TreeSearch
from tests.agents.search.tables import (
    Counted,
    flat_network,
    node_game,
    node_network,
    search,
    start,
    worked_network,
    worked_tree,
)

TREE = worked_tree().game()


@pytest.mark.parametrize(
    ("rescale", "simulations", "visits", "q", "root"),
    [
        (True, 8, [0, 8, 0], [None, -0.075, None], -0.122222),
        (True, 32, [0, 30, 2], [None, 0.38, -0.2], 0.318182),
        (False, 32, [3, 26, 3], [-0.233333, 0.269231, -0.466667], 0.133333),
        (False, 64, [3, 56, 5], [-0.233333, 0.410714, -0.28], 0.313846),
    ],
)
def test_puct(rescale, simulations, visits, q, root):
    found = search(TREE, worked_network, method="puct", simulations=simulations, rescale=rescale, solver=False)
    assert found.visits[0].tolist() == visits
    assert found.q[0].tolist() == pytest.approx([value or 0 for value in q], abs=1e-6)
    assert found.value[0].item() == pytest.approx(root, abs=1e-6)
    assert found.action[0] == 1
    assert found.policy[0].tolist() == pytest.approx([n / simulations for n in visits])


@pytest.mark.parametrize(
    ("considered", "simulations", "visits", "q", "plays", "policy"),
    [
        (2, 8, [0, 4, 4], [None, -0.15, -0.35], 1, [0.020988, 0.977388, 0.001624]),
        (3, 8, [4, 1, 3], [0.125, -0.5, -0.466667], 0, [0.970710, 0.019649, 0.009641]),
        (3, 32, [14, 13, 5], [0.035714, -0.046154, -0.28], 0, [0.539016, 0.459508, 0.001477]),
    ],
)
def test_gumbel(considered, simulations, visits, q, plays, policy):
    found = search(TREE, worked_network, considered=considered, simulations=simulations, solver=False)
    assert found.visits[0].tolist() == visits
    assert found.q[0].tolist() == pytest.approx([value or 0 for value in q], abs=1e-6)
    assert found.action[0] == plays
    assert found.policy[0].tolist() == pytest.approx(policy, abs=1e-6)


def test_without_rescaling_a_sigma_of_one_is_very_sharp():
    found = search(TREE, worked_network, simulations=8, rescale=False, c_scale=1.0, solver=False)
    assert found.policy[0].max() > 0.9995


@pytest.mark.slow
def test_one_node():
    settings = {"simulations": 17, "c_scale": 0.05, "c_visit": 60, "discount": 1e-6}
    game = node_game()
    found = search(game, node_network, **settings)
    assert found.visits[0].tolist() == [0, 9, 8, 0]
    assert found.policy[0].tolist() == pytest.approx([0, 0.601869, 0.398131, 0], abs=1e-6)
    # The mixed value, from the rewards 3 and -1 and the masked priors .047426 and .952574, stands where there are no
    # visits: with one simulation, for action 1, next to Q = -1 of action 2.
    found = search(game, node_network, **settings | {"simulations": 1, "rescale": False})
    mixed = (-5 + 1 * -1) / 2
    weights = torch.tensor([-1 + 61 * 0.05 * mixed, 2 + 61 * 0.05 * -1])
    assert found.visits[0].tolist() == [0, 0, 1, 0]
    assert found.policy[0, 1:3].tolist() == pytest.approx(torch.softmax(weights, 0).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("actions", "simulations", "counts"),
    [
        (4, 8, "0000 11 22"),
        (4, 16, "0000 1111 22 33 44 55"),
        (16, 16, "0" * 16),
        (16, 32, "0" * 16 + "1" * 8 + "2222 3333"),
        (8, 24, "0" * 8 + "1111 2222 33 44 55 66"),
        (7, 24, "0" * 7 + "111 222 33 44 55 66 77 8"),
        (5, 16, "00000 11 22 33 44 55 6"),
        (3, 7, "000 11 22"),
        (16, 8, "0" * 8),
        (1, 4, "0123"),
        (40, 16, "0" * 16),
    ],
)
def test_schedule(actions, simulations, counts):
    assert "".join(map(str, schedule(actions, simulations))) == counts.replace(" ", "")


@pytest.mark.parametrize(("settings", "new"), [({"method": "puct", "rescale": False}, 17), ({"considered": 3}, 15)])
def test_finished_games_cost_no_call_and_are_not_searched_on(settings, new):
    network = Counted(worked_network)
    found = search(TREE, network, simulations=64, solver=False, **settings)
    assert found.nodes[0] == 1 + new
    open_nodes = [n for n in range(13) if n < 4]  # the root and its children, besides those of depth 2 that were seen
    assert len(network.rows) == found.calls == found.rows == sum(network.rows)
    assert len(open_nodes) < found.calls < found.nodes[0]


@pytest.mark.slow
def test_a_tree_whose_every_node_is_visited_calls_the_network_once_a_node_that_is_open():
    network = Counted(flat_network)
    found = search(TREE, network, method="uct", simulations=2000, solver=False)
    assert found.nodes[0] == 1 + 3 + 9 + 27
    assert network.rows == [1] * (1 + 3 + 9)


def test_a_finished_root_has_no_tree():
    states = start(TREE, 2)
    states[1] = start(TREE, over=1)[0]
    network = Counted(worked_network)
    found = search(TREE, network, states, simulations=8)
    assert found.nodes.tolist()[1] == 1
    assert max(network.rows) == 1
    assert found.visits[1].tolist() == [0, 0, 0]
    assert found.value[1] == 0


def test_gumbel_noise_chooses_moves_and_is_not_in_the_policy():
    tree, results = TreeSearch(TREE, SearchConfig(simulations=4, considered=1, solver=False)), []
    for size in (3.0, 5.0):
        noise = torch.tensor([[0.0, 0.0, size]])
        results.append(tree.run(start(TREE), worked_network, torch.Generator(), noise=noise))
        assert results[-1].visits[0].tolist() == [0, 0, 4]
        assert results[-1].action[0] == 2
    assert torch.equal(results[0].policy, results[1].policy)
    quiet = tree.run(start(TREE), worked_network, torch.Generator())
    assert quiet.visits[0].tolist() == [0, 4, 0]


def test_dirichlet_noise_is_mixed_into_the_root_s_prior_only():
    """Gamma variates (1, 0, 0) are a Dirichlet draw of action 0."""
    settings = {"method": "puct", "simulations": 8, "solver": False, "c_init": 100.0}
    noise = torch.tensor([[1.0, 0.0, 0.0]])
    for fraction, visits in ((1.0, [8, 0, 0]), (0.0, None)):
        tree = TreeSearch(TREE, SearchConfig(**settings, noise=fraction))
        found = tree.run(start(TREE), worked_network, torch.Generator(), noise=noise)
        want = visits or search(TREE, worked_network, **settings).visits[0].tolist()
        assert found.visits[0].tolist() == want
    drawn = TreeSearch(TREE, SearchConfig(**settings, noise=0.25))
    explored = [drawn.run(start(TREE), worked_network, torch.Generator().manual_seed(k), explore=True) for k in (0, 1)]
    assert not torch.equal(explored[0].visits, explored[1].visits)
