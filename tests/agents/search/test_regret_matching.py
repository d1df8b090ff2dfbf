"""Search at one node: biased rock-paper-scissors, other games, and play."""

import numpy as np
import pytest
import torch

from mlbits import make_batch, make_game
from mlbits.agents.agent import AgentError
from mlbits.agents.best_response.leaves import Rollout
from mlbits.agents.best_response.policies import Uniform
from mlbits.agents.search.regret_matching import NodeConfig, NodeSearch, search_node
from mlbits.envs.exact.normal_form import payoff_tensor
from mlbits.evals.game_theory.nash_conv import exploitability
from mlbits.selfplay.lineup import decide

BIASED = np.array([[0, -25, 50], [25, 0, -5], [-50, 5, 0]]) / 50
TABLE = np.stack([BIASED, -BIASED])


def found(plays, seeds=8, **how):
    return np.mean([exploitability(TABLE, search_node(TABLE, plays, seed=seed, **how)) for seed in range(seeds)])


@pytest.mark.parametrize(("plays", "wanted"), [(100, 0.061), (1000, 0.018), (10_000, 0.006), (100_000, 0.002)])
def test_regret_matching_plus_reaches_the_reference_exploitability(plays, wanted):
    assert 0.4 * wanted < found(plays) < 1.6 * wanted


def test_regret_matching_finds_the_equilibrium():
    for mixture in search_node(TABLE, 200_000):
        assert mixture == pytest.approx([0.0625, 0.625, 0.3125], abs=0.01)


def test_decoupled_uct_stays_exploitable():
    assert exploitability(TABLE, [np.full(3, 1 / 3)] * 2) == pytest.approx(1 / 6)
    for plays in (1000, 10_000, 100_000):
        assert 0.12 < found(plays, 3, method="uct") < 0.4


def test_uct_finds_what_dominates():
    payoffs = np.zeros((2, 2, 3))
    payoffs[0, 1], payoffs[1, :, 2] = 1, 1
    assert all(mixture[-1] > 0.9 for mixture in search_node(payoffs, 2000, method="uct"))


def test_seats_with_different_numbers_of_actions():
    payoffs = np.zeros((3, 2, 3, 4))
    payoffs[0, 1], payoffs[1, :, 2], payoffs[2, :, :, 3] = 1, 1, 1
    mixtures = search_node(payoffs, 500)
    assert [len(mixture) for mixture in mixtures] == [2, 3, 4]
    assert all(mixture[-1] > 0.99 for mixture in mixtures)


@pytest.mark.slow
def test_payoffs_of_a_node_are_those_of_the_game():
    settings = {"payoffs": np.random.default_rng(0).normal(size=(3, 2, 3, 2)).tolist()}
    game = make_game("mlbits/MatrixGame-v0", **settings)
    search, batch = NodeSearch(game), make_batch("mlbits/MatrixGame-v0", 2, **settings)
    table = search.transitions.look(batch.copies.states.copy(), game.params)
    payoffs, legal = search.payoffs(table, 1, torch.Generator().manual_seed(0))
    assert payoffs == pytest.approx(payoff_tensor(game))
    assert [len(actions) for actions in legal] == [2, 3, 2]


def test_it_looks_beyond_the_move_by_a_leaf():
    settings = {"payoffs": "prisoners_dilemma", "rounds": 3}
    game = make_game("mlbits/IteratedMatrixGame-v0", **settings)
    search = NodeSearch(game, Rollout(game, Uniform(game), 10), discount=1.0)
    batch = make_batch("mlbits/IteratedMatrixGame-v0", 1, **settings)
    table = search.transitions.look(batch.copies.states.copy(), game.params)
    payoffs = np.mean([search.payoffs(table, 0, torch.Generator().manual_seed(s))[0] for s in range(200)], 0)
    assert payoffs[0] == pytest.approx(np.array([[3, 0], [5, 1]]) + 2 * 2.25, abs=0.5)


def test_payoffs_are_means_over_draws_of_chance():
    settings = {"kind": "bernoulli", "means": (0.5, 0.5)}
    game, batch = make_game("mlbits/Bandit-v0", **settings), make_batch("mlbits/Bandit-v0", 1, **settings)
    search = NodeSearch(game, config=NodeConfig(draws=400))
    payoffs, _ = search.payoffs(search.transitions.look(batch.copies.states.copy(), game.params), 0, drawn(0))
    assert payoffs[0] == pytest.approx([0.5, 0.5], abs=0.1)


@pytest.mark.parametrize("masked", [True, False])
def test_a_seat_that_passes_has_one_action(masked):
    game, batch = make_game("mlbits/TicTacToe-v0"), make_batch("mlbits/TicTacToe-v0", 1)
    search = NodeSearch(game, Rollout(game, Uniform(game), 10))
    table = search.transitions.look(batch.copies.states.copy(), game.params)
    payoffs, legal = search.payoffs(table if masked else table._replace(mask=None), 0, drawn(0))
    assert payoffs.shape == (2, 9, 1)
    assert [len(actions) for actions in legal] == [9, 1]


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def test_it_plays_goofspiel_legally():
    batch = make_batch("mlbits/Goofspiel-v0", 3, seed=1, illegal="error", cards=4)
    search = NodeSearch(batch.game, Rollout(batch.game, Uniform(batch.game), 10), NodeConfig(plays=50))
    for greedy in (False, True, False):
        obs = (
            batch.obs.flatten(0, 1)
            if isinstance(batch.obs, torch.Tensor)
            else {name: value.flatten(0, 1) for name, value in batch.obs.items()}
        )
        mask = batch.legal_mask.flatten(0, 1)
        action = decide(search, batch, None, obs, mask, torch.Generator().manual_seed(0), greedy=greedy).action
        batch.step(action.view(3, -1))


def test_bad_input_is_refused():
    with pytest.raises(AgentError, match=r"payoffs: got shape \(3, 3\)"):
        search_node(BIASED, 10)
    with pytest.raises(AgentError, match="plays: got 0"):
        search_node(TABLE, 0)
    with pytest.raises(AgentError, match="wanted Discrete actions"):
        NodeSearch(make_game("mlbits/DiplomacyMini-v0"))
    game = make_game("mlbits/Blotto-v0", coins=100)
    batch = make_batch("mlbits/Blotto-v0", 1, coins=100)
    search = NodeSearch(game)
    with pytest.raises(AgentError, match=r"joint actions; wanted at most 1048576"):
        search.payoffs(search.transitions.look(batch.copies.states.copy(), game.params), 0, torch.Generator())
