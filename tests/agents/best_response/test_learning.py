"""Agents that learn from their own search: ibr, fppi1, fppi2 and equilibrium on small games, resumed exactly."""

import copy

import numpy as np
import pytest
import torch

from mlbits import make_batch, make_game
from mlbits.agents import AGENTS, agent_entry
from mlbits.agents.agent import AgentError, Decision
from mlbits.agents.best_response import policy_iteration
from mlbits.agents.best_response.equilibrium import (
    EquilibriumPlayer,
    EquilibriumSearch,
    EquilibriumSearchConfig,
)
from mlbits.agents.best_response.leaves import Critic
from mlbits.agents.best_response.players import WithoutNoise
from mlbits.agents.best_response.policies import AgentPolicy, Uniform
from mlbits.agents.best_response.regret import against, match, solve
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.evals.game_theory.nash_conv import exploitability
from mlbits.selfplay.lineup import decide
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.saved_agents import load_agent
from mlbits.selfplay.session import open_session

MATRIX, MINI = "mlbits/MatrixGame-v0", "mlbits/DiplomacyMini-v0"
NAMES = ("ibr", "fppi1", "fppi2", "equilibrium")
SMALL = {"hidden": (16,), "num_steps": 2, "round_steps": 4, "buffer_size": 2000, "batch_size": 32}
BIASED = [[0, -0.5, 1], [0.5, 0, -0.1], [-1, 0.1, 0]]  # biased rock-paper-scissors


def session(name, env, payoffs=None, num_envs=32, seed=0, **settings):
    run = {"num_envs": num_envs, "total_steps": 100_000, "device": "cpu", "seed": seed}
    env_settings = {} if payoffs is None else {"payoffs": payoffs}
    made = resolve(name, env, preset="none", run=run, agent_settings=SMALL | settings, env_settings=env_settings)
    return open_session(made)


def advance(play, times):
    metrics = {}
    for _ in range(times):
        rollout, _, steps = play.collect()
        metrics = play.learn(rollout)
        play.counters.env_steps += steps
    return metrics


def probabilities(agent):
    return agent.action_probabilities(torch.tensor([0, 1]), None)


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_learns_what_dominates_and_the_value_what_it_earns(name):
    play = session(name, MATRIX, "prisoners_dilemma", learning_rate=0.01)
    metrics = advance(play, 25)
    assert metrics["imitated"] > 0.9
    assert float(probabilities(play.learner)[:, 1].min()) > 0.9  # both defect
    assert play.learner.state_values(torch.tensor([0, 1])).tolist() == pytest.approx([1, 1], abs=0.35)
    assert play.learner.rounds == 12


@pytest.mark.parametrize("explore", [True, False])
def test_best_responses_outside_training_have_their_own_numbers_and_no_initial_candidates(explore, monkeypatch):
    made = []

    class Recorded(policy_iteration.SampledBestResponse):
        def __call__(self, table, generator):
            found = super().__call__(table, generator)
            made.append((self.profiles, [count for _, count in self.candidates], found.q.shape[2]))
            return found

    monkeypatch.setattr(policy_iteration, "SampledBestResponse", Recorded)
    numbers = {"profiles": 2, "num_candidates": 5, "play_profiles": 3, "play_candidates": 7}
    play = session("fppi2", MATRIX, "prisoners_dilemma", warm_rounds=0, **numbers)
    player = play.learner if explore else WithoutNoise(play.learner)
    decide(player, play.batch, None, play.batch.obs.flatten(), None, draw(0))
    assert made == [(2, [2, 3], 5) if explore else (3, [7], 7)]


def test_only_values_are_learned_in_the_first_round():
    play = session("fppi2", MATRIX, "prisoners_dilemma", round_steps=40, learning_rate=0.01)
    before = probabilities(play.learner)
    metrics = advance(play, 10)
    assert metrics["policy_loss"] == 0
    assert metrics["imitated"] == 0
    assert torch.allclose(before, probabilities(play.learner))
    assert float(play.learner.state_values(torch.tensor([0]))) == pytest.approx(2.25, abs=0.5)


@pytest.mark.parametrize("name", ["fppi2", "equilibrium"])
def test_an_interrupted_run_continues_with_the_same_weights(name):
    whole, first, second = (session(name, MATRIX, BIASED, max_past=3) for _ in range(3))
    advance(whole, 14)
    advance(first, 9)
    second.from_checkpoint(first.to_checkpoint(), None)
    advance(second, 5)
    one, two = whole.learner.state_dict(), second.learner.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert 1 < len(whole.learner.past) <= 3


def test_copies_of_an_agent_are_independent():
    play = session("fppi2", MATRIX, BIASED)
    advance(play, 6)
    twin = copy.deepcopy(play.learner)
    before = {key: value.clone() for key, value in twin.state_dict().items()}
    advance(play, 4)
    assert all(torch.equal(before[key], value) for key, value in twin.state_dict().items())
    after, weights = play.learner.state_dict(), [key for key in before if key.startswith("core.network.actor")]
    assert any(not torch.equal(before[key], after[key]) for key in weights)


def test_frozen_policies_do_not_change():
    play = session("fppi1", MATRIX, "prisoners_dilemma", learning_rate=0.01)
    advance(play, 4)
    initial = play.learner.past[0]
    before = {key: value.clone() for key, value in initial.core.network.state_dict().items()}
    advance(play, 10)
    assert play.learner.past[0] is initial
    assert all(torch.equal(before[key], value) for key, value in initial.core.network.state_dict().items())


def test_it_starts_from_a_trained_agent(tmp_path):
    from mlbits.selfplay.training import train

    run = {"num_envs": 8, "total_steps": 64, "device": "cpu", "eval_every": 0, "video": False}
    settings = {"num_steps": 4, "hidden": (16,), "discount": 1.0}
    trained = resolve("ppo", MATRIX, preset="none", run=run, agent_settings=settings)
    folder, _ = train(trained, tmp_path / "run", console=False)
    play = session("ibr", MATRIX, start=str(folder))
    play.learner.begin()
    theirs = play.learner.latest.core.network.state_dict()
    fresh = session("ibr", MATRIX).learner.core.network.state_dict()
    assert any(not torch.equal(theirs[key], fresh[key]) for key in fresh)
    assert play.learner.searching
    scaled = session("ibr", MATRIX, start=str(folder), discount=0.9)
    with pytest.raises(AgentError, match=r"start: .* discount = 1 .* wanted discount = 0\.9"):
        scaled.learner.begin()
    wide = session("ibr", MATRIX, start=str(folder), hidden=(8,))
    with pytest.raises(AgentError, match=r"start: .* has another network than hidden"):
        wide.learner.begin()


@pytest.mark.parametrize("name", ["ppo", "trpo"])
def test_values_of_scaled_rewards_are_in_the_rewards_own_unit_and_no_start(name, tmp_path):
    from mlbits.selfplay.training import train

    run = {"num_envs": 8, "total_steps": 64, "device": "cpu", "eval_every": 0, "video": False}
    settings = {"num_steps": 4, "hidden": (16,), "discount": 1.0, "normalize_reward": True}
    made = resolve(name, MATRIX, preset="none", run=run, agent_settings=settings)
    folder, _ = train(made, tmp_path / "run", console=False)
    agent = load_agent(folder, "cpu")[0]
    assert abs(agent.reward_scale.unit - 1) > 0.01
    obs = torch.tensor([0, 1])
    assert torch.allclose(agent.state_values(obs), agent.policy_and_value(obs, None)[1])
    with pytest.raises(AgentError, match=r"start: .* normalize_reward = True; wanted .* not normalized"):
        session("ibr", MATRIX, start=str(folder)).learner.begin()


def test_imitation_draws_by_the_runs_seed(monkeypatch):
    from mlbits.agents.best_response import imitation

    seeds = []
    monkeypatch.setattr(imitation, "imitate", lambda core, game, config, generator: seeds.append(generator))
    for seed in (1, 2):
        session("ibr", MATRIX, games="some", seed=seed).learner.begin()
    assert seeds[0].initial_seed() != seeds[1].initial_seed()


class _First:
    """Always plays action 0."""

    def act(self, obs, legal_mask, generator, *, greedy=False):
        return Decision(torch.zeros_like(obs), torch.zeros_like(obs), None)


@pytest.mark.parametrize("name", ["fppi2", "equilibrium"])
def test_a_teacher_plays_the_first_rounds_and_is_imitated(name, monkeypatch):
    monkeypatch.setattr("mlbits.agents.registry.make_bot", lambda *args, **settings: _First())
    settings = {"learning_rate": 0.01, "warm_rounds": 20, "outcome_weight": 0.0}
    play = session(name, MATRIX, "prisoners_dilemma", teacher="diplomacy-greedy", **settings)
    metrics = advance(play, 39)
    agent = play.learner
    assert metrics["imitated"] == 1
    assert float(probabilities(agent)[:, 0].min()) > 0.8  # both cooperate, as the teacher does
    assert float(agent.state_values(torch.tensor([0]))) == pytest.approx(3, abs=0.3)  # of outcomes, without a search
    assert not agent.searching
    play.learn(play.collect()[0])
    assert agent.searching
    assert agent.past == [agent.latest]
    frozen = agent.latest.core.action_probabilities(torch.tensor([0, 1]), None, False)
    assert float(frozen[:, 0].min()) > 0.8  # the initial policy is the one that was imitated


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": "greedi"}, "teacher: .*greedi"),
        ({"teacher": "mcts"}, "teacher: search: got MatrixGame"),
        ({"teacher": "random", "warm_rounds": 0}, "teacher: got random .* warm_rounds = 0"),
        ({"teacher": "random", "start": "runs/one"}, "teacher: got random with start = 'runs/one'"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(settings, message):
    with pytest.raises(AgentError, match=message):
        session("fppi2", MATRIX, "prisoners_dilemma", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_plays_and_learns_a_board_of_orders(name):
    small = {"profiles": 2, "num_candidates": 2} if name != "equilibrium" else {"iterations": 2, "samples": 4}
    play = session(name, MINI, num_envs=4, warm_rounds=0, round_steps=16, num_steps=16, uses=0.5, **small)
    metrics = advance(play, 2)
    assert all(np.isfinite(value) for value in metrics.values())
    if "policy_loss" in metrics:
        assert metrics["policy_loss"] > 0


def test_regret_matching_finds_the_equilibrium_of_a_table():
    table = torch.tensor(BIASED, dtype=torch.float64)
    payoffs = torch.stack([table, -table]).expand(2, 2, 3, 3)
    valid = torch.ones(2, 2, 3, dtype=torch.bool)
    _, average = solve(payoffs, valid, 500)
    value = (average * against(payoffs, average)).sum(2)
    assert exploitability(payoffs[0].numpy(), list(average[0].numpy())) < 0.01
    assert average[0, 0].tolist() == pytest.approx([0.0625, 0.625, 0.3125], abs=0.03)
    assert value.abs().max() < 0.01
    assert match(torch.tensor([[1.0, 3.0, -2.0]]), torch.ones(1, 3, dtype=torch.bool)).tolist() == [[0.25, 0.75, 0]]
    some = torch.tensor([[True, True, False]])
    assert match(torch.tensor([[-1.0, -3.0, 9.0]]), some).tolist() == [[0.5, 0.5, 0]]


@pytest.mark.parametrize("seats", [2, 3])
def test_the_search_is_near_the_equilibrium_of_a_game(seats):
    """With three seats the third one is a bystander, whose payoff is 1 for its action 2."""
    two = np.array(BIASED)
    payoffs = np.stack([two, -two])
    if seats == 3:
        payoffs = np.zeros((3, 3, 3, 3))
        payoffs[0], payoffs[1], payoffs[2, :, :, 2] = two[:, :, None], -two[:, :, None], 1
    game = make_game(MATRIX, payoffs=payoffs.tolist())
    config = EquilibriumSearchConfig(iterations=400, samples=30, candidates=3, plays="average")
    search = EquilibriumSearch(game, Uniform(game), None, config)
    batch = make_batch(MATRIX, 4, payoffs=payoffs.tolist())
    found = search(search.sampled.transitions.look(batch.copies.states.copy(), game.params), draw(0))
    for m in range(4):
        mixtures = [np.zeros(3) for _ in range(seats)]
        for seat in range(seats):
            np.add.at(mixtures[seat], found.candidates[m, seat].numpy(), found.mixture[m, seat].numpy())
        assert exploitability(np.asarray(payoffs), mixtures) < (0.02 if seats == 2 else 0.06)
        assert abs(float(found.value[m, 0])) < 0.06
        if seats == 3:
            assert mixtures[2][2] > 0.9


@pytest.mark.slow
def test_candidates_are_the_most_frequent_and_as_many_as_the_units_allow():
    game = make_game(MINI)
    batch = make_batch(MINI, 3, seed=2)
    config = EquilibriumSearchConfig(samples=40, candidates=12, per_unit=2)
    search = EquilibriumSearch(game, Uniform(game), None, config)
    table = search.sampled.transitions.look(batch.copies.states.copy(), game.params)
    candidates, valid = search.candidates(table, draw(0))
    units = (table.obs["slots"] > 0).sum(2)
    assert torch.equal(valid.sum(2), (2 * units).clamp(max=12))
    assert len({tuple(one) for one in candidates[0, 0][valid[0, 0]].tolist()}) == int(valid[0, 0].sum())

    class Mostly:
        def draw(self, obs, mask, count, generator):
            return (torch.arange(count) % 5 == 0).long().expand(len(obs), count)

    matrix = make_game(MATRIX)
    search = EquilibriumSearch(matrix, Mostly(), None, EquilibriumSearchConfig(samples=10, candidates=1))
    batch = make_batch(MATRIX, 1)
    chosen, _ = search.candidates(search.sampled.transitions.look(batch.copies.states.copy(), matrix.params), draw(0))
    assert chosen.flatten().tolist() == [0, 0]


@pytest.mark.slow
def test_any_trained_agent_plays_by_equilibrium_search():
    batch = make_batch(MINI, 3, seed=1, illegal="error")
    agent = PPO(PPOConfig(hidden=(8,)), batch.game.observation_space, batch.game.action_space)
    config = EquilibriumSearchConfig(iterations=2, samples=4, candidates=3, rollout_steps=1)
    player = EquilibriumPlayer(agent, batch.game, config)
    obs = {name: value.flatten(0, 1) for name, value in batch.obs.items()}
    for greedy in (False, True):
        action = decide(player, batch, None, obs, batch.legal_mask.flatten(0, 1), draw(0), greedy=greedy).action
        batch.step(action.view(3, 3, -1))


def draw(seed):
    return torch.Generator().manual_seed(seed)


def test_planning_agents_need_a_game_of_ours():
    for name in NAMES:
        entry = agent_entry(name)
        assert AGENTS[name].plans
        spaces = make_game(MATRIX).observation_space, make_game(MATRIX).action_space
        with pytest.raises(AgentError, match="plans by a game's rules"):
            entry.make(entry.config_class()(), *spaces, seed=0, device="cpu")
    with pytest.raises(AgentError, match="Bandit: got one seat"):
        EquilibriumSearch(make_game("mlbits/Bandit-v0"), AgentPolicy(None), Critic(PPO), EquilibriumSearchConfig())
