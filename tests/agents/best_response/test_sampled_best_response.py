"""Sampled best response: Blotto's reference values, exact values by the payoff table, no leak between copies."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mlbits import make_batch, make_game
from mlbits.agents.agent import AgentError
from mlbits.agents.best_response.leaves import Critic, Rollout, leaf_of
from mlbits.agents.best_response.policies import AgentPolicy, OneOfThePast, SamePolicy, Uniform, draw_all
from mlbits.agents.best_response.sampled_best_response import (
    BestResponseConfig,
    BestResponsePlayer,
    SampledBestResponse,
    choose,
    first_equal,
)
from mlbits.agents.best_response.transitions import Transitions
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.envs.exact.normal_form import payoff_tensor
from mlbits.selfplay.lineup import decide, positions_of

BLOTTO, MINI, ITERATED = "mlbits/Blotto-v0", "mlbits/DiplomacyMini-v0", "mlbits/IteratedMatrixGame-v0"


def draw(seed):
    return torch.Generator().manual_seed(seed)


def uniform_search(game, profiles, candidates, **more):
    return SampledBestResponse(
        game, SamePolicy(Uniform(game)), [(Uniform(game), candidates)], profiles=profiles, **more
    )


def table_of(search, env, count, seed=0, steps=0, **settings):
    batch = make_batch(env, count, seed=seed, **settings)
    for _ in range(steps):
        batch.step(batch.sample_actions())
    return search.transitions.look(batch.copies.states.copy(), batch.copies.params)


class Always:
    """A policy of one action."""

    def __init__(self, action):
        self.action = torch.as_tensor(action)

    def draw(self, obs, mask, count, generator):
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        return self.action.expand(len(some), count, *self.action.shape).clone()


def test_only_seats_that_ask_are_valued():
    game = make_game(BLOTTO)
    search = uniform_search(game, 8, 6)
    table = table_of(search, BLOTTO, 5)
    asks = torch.tensor([[True, False]] * 3 + [[False, True]] * 2)
    whole, part = search(table, draw(0)), search(table._replace(asks=asks), draw(0))
    assert torch.equal(part.q, whole.q * asks.unsqueeze(2))
    assert bool((whole.q != 0).any(2).all())
    assert torch.equal(part.action[asks], whole.action[asks])


@pytest.mark.parametrize("seats", [[0, 1], [1]])
def test_a_player_asks_for_its_own_seats(seats):
    batch = make_batch(BLOTTO, 3)
    rows = torch.tensor([2 * copy + seat for copy in range(3) for seat in seats])
    positions = positions_of(batch, rows, batch.obs.flatten(0, 1)[rows], None)
    table, found = Transitions(batch.game).table(positions)
    assert table.asks.tolist() == [[seat in seats for seat in (0, 1)]] * 3
    assert bool(table.acts.all())
    assert found.tolist() == rows.tolist()


@pytest.mark.parametrize(("b", "c", "wanted"), [(1, 16, 0.0903), (4, 16, 0.1539), (16, 16, 0.2093), (64, 66, 0.2716)])
def test_blotto_against_uniform_has_the_reference_values(b, c, wanted):
    game = make_game(BLOTTO)
    worth = torch.from_numpy(payoff_tensor(game)[0].mean(1))
    search = uniform_search(game, b, c)
    table = table_of(search, BLOTTO, 1500)
    found = worth[torch.cat([search(table, draw(seed)).action.flatten() for seed in range(2)])]
    assert abs(float(found.mean()) - wanted) < 3 * float(found.std()) / len(found) ** 0.5 + 0.0002


def test_values_are_the_means_of_each_seats_own_payoffs_over_the_same_profiles():
    payoffs = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).round(2)
    settings = {"payoffs": payoffs.tolist()}
    game = make_game("mlbits/MatrixGame-v0", **settings)
    search = uniform_search(game, 5, 6)
    table = table_of(search, "mlbits/MatrixGame-v0", 3, **settings)
    profiles = search.base.profiles(table, 5, draw(1))
    candidates = draw_all(Uniform(game), table, 6, draw(2))
    q = search.values(table, profiles, candidates, draw(3))
    for m, seat, c in np.ndindex(3, 3, 6):
        total = 0.0
        for joint in profiles[m].tolist():
            joint[seat] = int(candidates[m, seat, c])
            total += payoffs[(seat, *joint)]
        assert q[m, seat, c] == pytest.approx(total / 5, abs=1e-5)


def test_it_does_not_foresee_the_real_draws_of_chance():
    settings = {"kind": "bernoulli", "means": (0.5, 0.5)}
    game = make_game("mlbits/Bandit-v0", **settings)
    search = uniform_search(game, 1, 2)
    table = table_of(search, "mlbits/Bandit-v0", 200, **settings)
    candidates = torch.tensor([0, 1]).expand(200, 1, 2).contiguous()
    profiles = torch.zeros(200, 1, 1, dtype=torch.int64)
    one, two = (search.values(table, profiles, candidates, draw(seed)) for seed in (1, 2))
    assert 0.3 < float((one != two).double().mean()) < 0.7
    assert 0.4 < float(one.mean()) < 0.6


@pytest.mark.slow
def test_transitions_equal_the_steps_of_a_batch():
    batch = make_batch(MINI, 64, seed=3, autoreset="disabled", last_year=1902)
    moves = Transitions(batch.game)
    every, seats, going = torch.arange(64), torch.arange(64) % 3, torch.ones(64, dtype=torch.bool)
    while bool(going.all()):
        states, actions = batch.copies.states.copy(), batch.sample_actions()
        table = moves.look(states, batch.copies.params)
        assert torch.equal(table.mask, batch.legal_mask)
        assert torch.equal(table.acts, batch.active)
        found = moves(table, every, actions, seats, np.ones(64, np.uint64), look=True, keep=True)
        step = batch.step(actions)
        assert torch.equal(found.reward, step.reward)
        assert torch.equal(found.terminated, step.terminated)
        going = ~found.terminated
        for name in batch.obs:
            assert torch.equal(found.obs[name][going], step.obs[name][every, seats][going])
        after = moves.look(found.states, batch.copies.params)
        assert torch.equal(after.mask, batch.legal_mask)
        assert torch.equal(after.acts, batch.active)
    assert int(batch.copies.states["elapsed"][0]) > 3


@pytest.mark.slow
def test_no_copy_changes_anothers_values():
    game = make_game(MINI)
    agent = PPO(PPOConfig(hidden=(16,)), game.observation_space, game.action_space)
    search = uniform_search(game, 3, 4, leaf=Critic(agent), discount=0.9)
    table = table_of(search, MINI, 6, steps=5)
    profiles, candidates = search.base.profiles(table, 3, draw(1)), draw_all(Uniform(game), table, 4, draw(2))
    together = search.values(table, profiles, candidates, draw(3))
    assert float(together.std()) > 0.01
    for m in range(6):
        alone = search.transitions.look(table.states[m : m + 1].copy(), table.params)
        found = search.values(alone, profiles[m : m + 1], candidates[m : m + 1], draw(3))
        assert torch.allclose(found[0], together[m], atol=1e-6)


@pytest.mark.slow
def test_the_work_is_cut_into_parts_that_fit_the_memory():
    game = make_game(MINI)
    agent = PPO(PPOConfig(hidden=(16,)), game.observation_space, game.action_space)
    whole, parts = (uniform_search(game, 3, 4, leaf=Critic(agent), memory=size) for size in (2**30, 20_000))
    table = table_of(whole, MINI, 6)
    one, two = whole(table, draw(1)), parts(table, draw(1))
    assert torch.equal(one.action, two.action)
    assert torch.allclose(one.q, two.q, atol=1e-6)
    with pytest.raises(AgentError, match=r"B = 3 and C = 4 for 6 copies of DiplomacyMini, which take .* wanted"):
        uniform_search(game, 3, 4, memory=1000)(table, draw(1))


@pytest.mark.slow
def test_the_whole_search_makes_one_call_of_the_network():
    game = make_game(MINI)

    class Counting:
        calls = 0

        def state_values(self, obs):
            self.calls += 1
            return torch.zeros(len(obs["slots"]))

    critic = Counting()
    search = uniform_search(game, 3, 4, leaf=Critic(critic))
    search(table_of(search, MINI, 6), draw(0))
    assert critic.calls == 1


def test_equal_candidates_are_evaluated_once_and_ties_are_random():
    candidates = torch.tensor([[[[1, 2], [1, 3], [1, 2], [1, 3]]]])
    assert first_equal(candidates).tolist() == [[[0, 1, 0, 1]]]
    q = torch.tensor([0.5, 0.5 - 1e-10, 0.2, 0.5], dtype=torch.float64).expand(3000, 4)
    counts = torch.bincount(choose(q, draw(0)), minlength=4)
    assert counts[2] == 0
    assert all(900 < counts[k] < 1100 for k in (0, 1, 3))


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        parts = found if isinstance(found, (tuple, list)) else (found,)
        self.most = max([self.most, *(part.numel() for part in parts if isinstance(part, torch.Tensor))])
        return found


def test_equal_candidates_are_found_in_memory_in_proportion_to_their_number():
    candidates = torch.randint(0, 3, (4, 2, 500, 3), generator=draw(0))
    with Largest() as largest:
        found = first_equal(candidates)
    assert largest.most <= candidates.numel()
    same = (candidates.unsqueeze(3) == candidates.unsqueeze(2)).all(-1)
    assert torch.equal(found, same.to(torch.uint8).argmax(3))
    one = torch.randint(0, 9, (3, 2, 40), generator=draw(0))
    assert torch.equal(first_equal(one), (one.unsqueeze(3) == one.unsqueeze(2)).to(torch.uint8).argmax(3))


class Stones:
    """A critic that counts the stones on a board of tic-tac-toe; its policy is uniform."""

    def __init__(self, game, discount):
        self.uniform, self.config = Uniform(game), SimpleNamespace(discount=discount)

    def act(self, obs, mask, generator, greedy=False):
        return SimpleNamespace(action=self.uniform.draw(obs, mask, 1, generator)[:, 0])

    def state_values(self, obs):
        return obs.flatten(1)[:, :].abs().sum(1).float()


def test_a_leaf_is_valued_where_the_seat_decides_again():
    game = make_game("mlbits/TicTacToe-v0")
    settings = SimpleNamespace(rollout_steps=0, rollout_temperature=1.0, rollout_top_p=1.0)
    critic = Stones(game, 0.5)
    leaf = leaf_of(critic, critic, settings, game, "cpu")
    search = uniform_search(game, 1, 9, leaf=leaf, discount=0.5)
    table = table_of(search, "mlbits/TicTacToe-v0", 4)
    assert table.acts.tolist() == [[True, False]] * 4
    first = critic.state_values(table.obs[:, 0])
    q = search(table, draw(0)).q[:, 0]
    after = table_of(search, "mlbits/TicTacToe-v0", 4, steps=2)
    wanted = 0.25 * critic.state_values(after.obs[:, 0])  # two moves later, and not after one
    assert not torch.equal(first, 4 * wanted)
    assert torch.allclose(q, wanted.double()[:, None].expand(4, 9))


def test_past_rounds_are_coherent_over_seats():
    game = make_game("mlbits/MatrixGame-v0")
    past = OneOfThePast([Always(0), Always(1), Always(2)])
    table = table_of(uniform_search(game, 1, 1), "mlbits/MatrixGame-v0", 200)
    drawn = past.profiles(table, 4, draw(0))
    assert drawn.shape == (200, 4, 2)
    assert torch.equal(drawn[..., 0], drawn[..., 1])
    assert all(200 < int((drawn[..., 0] == k).sum()) < 333 for k in range(3))
    assert any(len(set(row)) > 1 for row in drawn[..., 0].tolist())  # anew for every profile


def test_rollouts_add_discounted_rewards_and_the_last_value():
    settings = {"payoffs": "prisoners_dilemma", "rounds": 6}
    game = make_game(ITERATED, **settings)

    leaf = Rollout(game, Always(0), 2, Ten(), discount=0.5)
    search = uniform_search(game, 1, 2, leaf=leaf, discount=0.5)
    table = table_of(search, ITERATED, 3, **settings)
    profiles, candidates = torch.zeros(3, 1, 2, dtype=torch.int64), torch.tensor([0, 1]).expand(3, 2, 2).contiguous()
    q = search.values(table, profiles, candidates, draw(0))
    after = 0.5 * (3 + 0.5 * 3 + 0.25 * 10)
    assert torch.allclose(q[..., 0], torch.tensor(3 + after, dtype=torch.float64))
    assert torch.allclose(q[..., 1], torch.tensor(5 + after, dtype=torch.float64))
    whole = uniform_search(game, 1, 2, leaf=Rollout(game, Always(0), 100))
    assert torch.allclose(whole.values(table, profiles, candidates, draw(0))[..., 0], torch.tensor(18.0).double())


@pytest.mark.slow
def test_a_trained_agent_plays_legal_best_responses_in_any_seats():
    batch = make_batch(MINI, 4, seed=1, illegal="error")
    agent = PPO(PPOConfig(hidden=(8,)), batch.game.observation_space, batch.game.action_space)
    player = BestResponsePlayer(agent, batch.game, BestResponseConfig(profiles=2, candidates=3))
    assert copy.deepcopy(player).config == player.config
    some = torch.tensor([1, 3, 5, 10])
    for _ in range(8):
        obs = {name: value.flatten(0, 1) for name, value in batch.obs.items()}
        actions = batch.sample_actions().flatten(0, 1)
        actions[some] = decide(player, batch, some, obs, batch.legal_mask.flatten(0, 1), draw(0)).action
        batch.step(actions.view(4, 3, -1))


def test_bad_input_is_refused():
    game = make_game(BLOTTO)
    with pytest.raises(AgentError, match="profiles and candidates: got 0"):
        uniform_search(game, 0, 3)
    with pytest.raises(AgentError, match="Pendulum: got continuous actions"):
        Transitions(make_game("mlbits/Pendulum-v0"))
    with pytest.raises(AgentError, match="has no values"):
        Critic(Uniform(game))


class Ten:
    """A critic to which everything is worth 10."""

    def state_values(self, obs):
        return torch.full((len(next(iter(obs.values())) if isinstance(obs, dict) else obs),), 10.0)


def test_nothing_comes_after_the_end_and_something_after_a_time_limit():
    game = make_game("mlbits/MatrixGame-v0")
    search = uniform_search(game, 2, 3, leaf=Critic(Ten()))
    assert float(search(table_of(search, "mlbits/MatrixGame-v0", 50), draw(0)).q.abs().max()) == 1
    game = make_game(ITERATED).limited_to(1)
    search = uniform_search(game, 2, 2, leaf=Critic(Ten()))
    table = table_of(search, ITERATED, 4)._replace(params=game.params)
    found = search.transitions(
        table, torch.arange(4), torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, dtype=torch.int64),
        np.ones(4, np.uint64), look=True, keep=False,
    )  # fmt: skip
    assert found.truncated.all()
    assert not found.terminated.any()
    assert float(search(table, draw(0)).q.min()) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("trained", [False, True])
def test_profiles_of_the_past_are_legal_in_each_position(trained):
    game = make_game(MINI)
    agent = PPO(PPOConfig(hidden=(8,)), game.observation_space, game.action_space)
    policy = AgentPolicy(agent) if trained else Uniform(game)
    search = SampledBestResponse(game, OneOfThePast([policy] * 3), [(Uniform(game), 2)], profiles=3)
    table = table_of(search, MINI, 5, steps=7)
    profiles = search.base.profiles(table, 3, draw(0))
    width = game.action.nvec[0]
    places = (profiles + width * torch.arange(len(game.action.nvec))).movedim(1, 2).flatten(2)  # [M, P, B * K]
    assert table.mask.gather(2, places).all()
