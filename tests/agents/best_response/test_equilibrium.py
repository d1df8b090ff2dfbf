"""Equilibrium search: candidates of the latest policy, values of what is played, no noise in evaluation; memory."""

import numpy as np
import pytest
import torch

from mlbits import make_batch, make_game
from mlbits.agents.agent import AgentError
from mlbits.agents.best_response.equilibrium import EquilibriumSearch, EquilibriumSearchConfig
from mlbits.agents.best_response.players import WithoutNoise
from mlbits.agents.best_response.policies import Uniform
from mlbits.agents.best_response.regret import match, step
from mlbits.selfplay.lineup import decide
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session

MATRIX = "mlbits/MatrixGame-v0"
DILEMMA = [[[3, 0], [5, 1]], [[3, 5], [0, 1]]]


class Counts:
    """A policy whose k-th draw is ``first + k``, or always ``first``."""

    def __init__(self, first, step=1):
        self.first, self.step = first, step

    def draw(self, obs, mask, count, generator):
        return (self.first + self.step * torch.arange(count)).expand(len(obs), count).clone()


class Asked:
    """A policy that notes that it was asked for draws, and has none."""

    def __init__(self, asked):
        self.asked = asked

    def draw(self, obs, mask, count, generator):
        self.asked.append(count)


def draw(seed):
    return torch.Generator().manual_seed(seed)


def searched(payoffs, policy=None, copies=1, seed=0, initial=None, **settings):
    """A search of a matrix game's position, its mixtures, and the mixtures over actions [M][P][A]."""
    game = make_game(MATRIX, payoffs=np.asarray(payoffs).tolist())
    policy = Uniform(game) if policy is None else policy
    search = EquilibriumSearch(game, policy, None, EquilibriumSearchConfig(**settings), initial=initial)
    batch = make_batch(MATRIX, copies, payoffs=np.asarray(payoffs).tolist())
    table = search.sampled.transitions.look(batch.copies.states.copy(), game.params)
    found = search(table, draw(seed))
    mixtures = [[np.zeros(count) for count in np.shape(payoffs)[1:]] for _ in range(copies)]
    for m, seat in np.ndindex(copies, game.seats):
        np.add.at(mixtures[m][seat], found.candidates[m, seat].numpy(), found.mixture[m, seat].numpy())
    return search, table, found, mixtures


def expected(payoffs, mixtures):
    """Payoff of each seat where all play independently."""
    found = np.asarray(payoffs, float)
    for mixture in reversed(mixtures):
        found = found @ mixture
    return found


def test_candidates_are_the_latest_policys_and_few_of_the_initial_one():
    payoffs = np.zeros((2, 30, 30))
    search, table, *_ = searched(payoffs, Counts(0), initial=(Counts(29, 0), 2), samples=24, candidates=8)
    candidates, valid = search.candidates(table, draw(0))
    for seat in range(2):
        assert candidates[0, seat][valid[0, seat]].tolist() == [0, 1, 2, 3, 4, 5, 29]  # 29 once, of two equal draws
    search, table, *_ = searched(payoffs, Counts(5, 0), initial=(Counts(5), 2), samples=24, candidates=8)
    candidates, valid = search.candidates(table, draw(0))
    assert candidates[0, 0][valid[0, 0]].tolist() == [5, 6]  # the initial policy's 5 is there already
    search, table, *_ = searched(payoffs, Counts(0), initial=(Counts(29, 0), 2), samples=24, candidates=1)
    assert search.candidates(table, draw(0))[1].sum(2).tolist() == [[1, 1]]


@pytest.mark.parametrize("plays", ["average", "last"])
@pytest.mark.parametrize("seats", [2, 3])
def test_the_values_are_those_of_what_is_played(plays, seats):
    payoffs = np.random.default_rng(0).normal(size=(seats, *(3,) * seats)).round(2)
    settings = {"iterations": 3, "samples": 30, "candidates": 3, "joint": 1, "valued": 4000, "plays": plays}
    _, _, found, mixtures = searched(payoffs, **settings)
    assert found.value[0].tolist() == pytest.approx(expected(payoffs, mixtures[0]).tolist(), abs=0.06)
    for c in range(3):
        deviates = [np.eye(3)[int(found.candidates[0, 0, c])], *mixtures[0][1:]]
        assert float(found.q[0, 0, c]) == pytest.approx(expected(payoffs, deviates)[0], abs=0.1)


def test_several_draws_of_an_iteration_keep_noise_out():
    """Seat 0's action 0 pays 1; the others 4 for one of seat 1's eight actions each, .5 in the mean."""
    payoffs = np.zeros((3, 5, 8, 2))
    payoffs[0, 0] = 1
    for k in range(1, 5):
        payoffs[0, k, k - 1] = 4

    def gain(joint):
        settings = {"iterations": 8, "samples": 60, "candidates": 8, "valued": 1, "joint": joint}
        return np.mean([expected(payoffs, mixture)[0] for mixture in searched(payoffs, copies=200, **settings)[3]])

    assert gain(joint=4) > gain(joint=1) + 0.06


def session(**settings):
    small = {"hidden": (16,), "num_steps": 2, "round_steps": 4, "buffer_size": 2000, "batch_size": 32}
    run = {"num_envs": 64, "total_steps": 100_000, "device": "cpu", "seed": 3}
    env = {"payoffs": "prisoners_dilemma"}
    return open_session(resolve("equilibrium", MATRIX, preset="none", run=run, agent_settings=small | settings,
                                env_settings=env))  # fmt: skip


def played(agent, greedy):
    batch = make_batch(MATRIX, 200, payoffs="prisoners_dilemma")
    return decide(agent, batch, None, batch.obs.flatten(0, 1), None, draw(0), greedy=greedy)


def test_evaluation_is_without_exploration_and_initial_candidates():
    agent = session(warm_rounds=0, explore=1.0, iterations=50).learner
    noisy = played(agent, greedy=False)
    assert 0.3 < float(noisy.action.double().mean()) < 0.7
    assert bool((played(agent, greedy=True).action == 1).all())
    assert float(played(WithoutNoise(agent), greedy=False).action.double().mean()) > 0.95
    asked, latest = [], agent.latest
    agent.past[0] = None  # the initial policy is not asked for a draw
    agent.policy = lambda frozen: Uniform(agent.game) if frozen is latest else Asked(asked)
    assert bool((played(agent, greedy=True).action == 1).all())
    assert not asked
    with pytest.raises(AttributeError):
        played(agent, greedy=False)
    assert asked


def test_the_notes_are_the_values_of_the_position_and_of_the_played_action():
    agent = session(warm_rounds=0, explore=1.0, iterations=400).learner
    found = played(agent, greedy=False)
    defects = found.action == 1
    assert found.notes["q"][defects].tolist() == pytest.approx([1.0] * int(defects.sum()), abs=0.05)
    assert found.notes["q"][~defects].tolist() == pytest.approx([0.0] * int((~defects).sum()), abs=0.05)
    assert found.notes["value"].tolist() == pytest.approx([1.0] * 400, abs=0.05)


def test_the_value_learns_outcomes_first_and_the_searchs_values_later():
    agent = session(outcome_weight=1.0, outcome_weight_end=0.2).learner
    assert [agent.outcome_weight(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.6, 0.2])
    play = session(warm_rounds=0, outcome_weight_end=0.0, batch_size=1000)
    replay = play.replay
    replay.add(play.collect()[0])
    agent, data = play.learner, replay.sample(50, draw(0))
    data.notes["value"].copy_(agent.core.network.value(agent.core.prepare(data.obs)).detach())
    agent.learn(replay, 0.0, draw(0))
    assert float(agent._losses(data, slice(0, 50))[1].detach()) > 1
    agent.learn(replay, 1.0, draw(0))
    assert float(agent._losses(data, slice(0, 50))[1].detach()) < 0.1


def test_a_search_that_does_not_fit_the_memory_is_refused():
    search, table, *_ = searched(DILEMMA, samples=4)
    search.sampled.memory = 1000
    with pytest.raises(AgentError, match=r"B = 1 and C = 4 for 1 copies of MatrixGame, which take"):
        search(table, draw(0))
    wide = EquilibriumSearchConfig(samples=9000, candidates=9000)
    game = make_game(MATRIX, payoffs=DILEMMA)
    with pytest.raises(AgentError, match="C = 9000 for 1 copies of MatrixGame"):
        EquilibriumSearch(game, Uniform(game), None, wide)(table, draw(0))  # 9000 x 9000 payoffs for each seat


def test_a_step_of_regret_matching_is_its_equations():
    random = np.random.default_rng(1)
    regret, q = random.random((2, 3, 5)), random.normal(size=(2, 3, 5))
    valid = torch.from_numpy(random.random((2, 3, 5)) < 0.7)
    valid[..., 0] = True
    regret = torch.where(valid, torch.from_numpy(regret), 0.0)
    mixture = match(regret, valid)
    new, following = step(regret, mixture, torch.from_numpy(q), valid)
    for row in np.ndindex(2, 3):
        index = valid[row].numpy()
        mean = (mixture[row].numpy() * q[row])[index].sum()
        wanted = np.where(index, np.maximum(0, regret[row].numpy() + q[row] - mean), 0)
        assert new[row].tolist() == pytest.approx(wanted)
        even = index / index.sum() if wanted.sum() == 0 else wanted / wanted.sum()
        assert following[row].tolist() == pytest.approx(even)
