"""Any actor and critic can guide a search; the player keeps the agent, and its play is the search's."""

import copy

import pytest
import torch
from gymnasium import spaces

import mlbits
from mlbits.agents import agent_entry, make_bot
from mlbits.agents.agent import AgentError, content_hash
from mlbits.agents.search.player import NetworkPlayer, SearchPlayer, searched
from mlbits.agents.search.search import SearchConfig
from mlbits.selfplay.lineup import decide, positions_of

TTT, C4 = "mlbits/TicTacToe-v0", "mlbits/ConnectFour-v0"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def made(name, env=TTT, **settings):
    game, entry = mlbits.make_game(env), agent_entry(name)
    config = entry.config_class()(**settings)
    return entry.make(config, game.observation_space, game.action_space, seed=1, device="cpu", game=game), game


def position(env, *moves, copies=1):
    """A batch after some moves, its rows and masks."""
    batch = mlbits.make_batch(env, copies)
    for number, move in enumerate(moves):
        actions = torch.zeros(copies, 2, dtype=torch.int64)
        actions[:, number % 2] = move
        batch.step(actions)
    return batch, batch.obs.flatten(0, 1), batch.legal_mask.flatten(0, 1)


@pytest.mark.parametrize("name", ["ppo", "trpo", "reinforce"])
def test_an_actor_critics_logits_and_values_are_those_of_its_play(name):
    agent, _ = made(name)
    _, obs, mask = position(TTT, 0, 4, copies=3)
    logits, values = agent.policy_and_value(obs, mask)
    assert logits.shape == (6, 9) and values.shape == (6,)
    assert torch.equal(values, agent.state_values(obs))
    policy = torch.softmax(logits.double().masked_fill(~mask, -torch.inf), -1)
    assert torch.allclose(policy, agent.action_probabilities(obs, mask), atol=1e-6)
    assert not logits.requires_grad


def test_values_are_in_the_rewards_own_unit():
    """Rewards divided by their standard deviation of 4 in training: all values are four times the network's."""
    for name in ("ppo", "trpo"):
        agent, _ = made(name, normalize_reward=True)
        agent.reward_scale.count, agent.reward_scale.m2 = 10.0, 160.0
        _, obs, mask = position(TTT)
        inner = agent.core.network.value(agent.core.prepare(obs)).detach()
        assert torch.allclose(agent.policy_and_value(obs, mask)[1], 4 * inner, atol=1e-6)
        assert torch.allclose(agent.state_values(obs), 4 * inner, atol=1e-6)


def test_q_learnings_best_action_is_its_policy_and_its_q_the_value():
    agent, _ = made("dqn")
    _, obs, mask = position(TTT, 0, 4)
    logits, values = agent.policy_and_value(obs, mask)
    q = agent.values(obs)
    assert torch.allclose(logits, 4 * q)
    assert torch.equal(values, q.masked_fill(~mask, -torch.inf).amax(-1))
    assert values[0] < q[0].max() or mask[0, q[0].argmax()]


def test_agents_without_a_critic_or_discrete_actions_are_refused():
    with pytest.raises(AgentError, match="baseline='none', without a critic; wanted 'value'"):
        made("reinforce", baseline="none")[0].policy_and_value(None, None)
    entry = agent_entry("ppo")
    agent = entry.make(
        entry.config_class()(), spaces.Discrete(3), spaces.MultiDiscrete([2, 2]), seed=0, device="cpu"
    )  # fmt: skip
    with pytest.raises(AgentError, match=r"policy_and_value: got .*; wanted Discrete"):
        agent.policy_and_value(torch.zeros(1, dtype=torch.int64), None)
    game = mlbits.make_game(TTT)
    random = make_bot("random", game.observation_space, game.action_space, device="cpu")
    with pytest.raises(AgentError, match="RandomAgent has no policy_and_value"):
        SearchPlayer(random, game, SearchConfig())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "dqn", "alphazero"])
def test_an_untrained_agent_sees_wins_when_it_searches(name):
    """X has a1 and b1, O a2 and b2: X wins by c1."""
    agent, game = made(name)
    player = searched(agent, game, {"simulations": 60, "method": "puct"})
    assert isinstance(player, SearchPlayer) and player.config.simulations == 60
    batch, obs, mask = position(TTT, 0, 3, 1, 4)
    for greedy in (True, False):
        action = decide(player, batch, None, obs, mask, generator(), greedy=greedy).action
        assert action.tolist() == [2, 0]  # the other seat passes
    assert torch.equal(*(one.act(obs, mask, generator(), greedy=True).action for one in (player, agent)))


@pytest.mark.slow
def test_other_play_draws_from_the_searchs_policy_and_greedy_play_takes_its_best_move():
    agent, game = made("ppo")
    player = searched(agent, game, {"simulations": 16, "rescale": False})
    batch, obs, mask = position(TTT, copies=400)
    found = [decide(player, batch, None, obs, mask, generator(3), greedy=bool(k)).action[::2] for k in (0, 1)]
    assert len(found[1].unique()) == 1
    frequency = torch.bincount(found[0], minlength=9) / 400
    batch, obs, mask = position(TTT)
    policy = player.planned_probabilities(positions_of(batch, None, obs, mask), generator())
    assert policy.shape == (2, 9)
    assert torch.allclose(policy.sum(-1), torch.ones(2, dtype=torch.float64))
    assert policy[1, 0] == 1  # no decision
    assert (policy[0] > 0).sum() > 3
    assert float((frequency - policy[0]).abs().max()) < 0.11  # more than four standard deviations
    best = player.planned_probabilities(positions_of(batch, None, obs, mask), generator(), greedy=True)
    assert best[0].argmax() == found[1][0] and best[0].max() == 1


def test_no_simulations_are_the_network_alone():
    agent, game = made("alphazero")
    player = searched(agent, game, {"simulations": 0})
    assert isinstance(player, NetworkPlayer) and not hasattr(player, "plan")
    batch, obs, mask = position(TTT)
    action = decide(player, batch, None, obs, mask, generator(), greedy=True).action
    assert torch.equal(action, agent.act(obs, mask, generator(), greedy=True).action)
    assert torch.equal(player.action_probabilities(obs, mask), agent.action_probabilities(obs, mask))
    with pytest.raises(AgentError, match="does not learn; wanted the agent itself"):
        player.learn(None, 0, generator())


def test_an_agent_that_plans_keeps_its_own_settings_and_loses_only_the_noise_of_training():
    agent, game = made("alphazero", simulations=24, method="puct")
    player = searched(agent, game, None)
    assert (player.config.simulations, player.config.method) == (24, "puct")
    assert searched(agent, game, {"simulations": 7}).config.method == "puct"
    batch, obs, mask = position(TTT, copies=50)
    assert len(decide(player, batch, None, obs, mask, generator(), greedy=True).action[::2].unique()) == 1
    plain, _ = made("ppo")
    assert searched(plain, game, None) is plain
    bot = make_bot("mcts@simulations=9", game.observation_space, game.action_space, device="cpu", game=game)
    assert searched(bot, game, {"simulations": 99}) is bot


def test_the_search_discounts_as_the_critic_does_only_with_one_seat():
    agent, game = made("ppo", discount=0.9)
    assert searched(agent, game, {"simulations": 5}).config.discount == 1
    assert searched(agent, game, {"simulations": 5, "discount": 0.8}).config.discount == 0.8
    agent, game = made("ppo", "mlbits/GridWorld-v0", discount=0.9)
    assert searched(agent, game, {"simulations": 5}).config.discount == 0.9


def test_a_player_has_its_agents_state():
    agent, game = made("ppo")
    player = searched(agent, game, {"simulations": 5})
    state = {name: value + 1 for name, value in agent.state_dict().items()}
    player.load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in agent.state_dict().items())
    assert content_hash(player) != content_hash(searched(agent, game, {"simulations": 6}))
    batch, obs, mask = position(TTT)
    before = decide(player, batch, None, obs, mask, generator(), greedy=True).action
    assert torch.equal(decide(copy.deepcopy(player), batch, None, obs, mask, generator(), greedy=True).action, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"simulations": -1}, "simulations: got -1; wanted a number of at least 1"),
        ({"simulations": 1.5}, "simulations: got 1.5; wanted a whole number of at least 1"),
        ({"simulation": 5}, "search.simulation: unknown setting; wanted any of method, simulations"),
        ({"method": "minimax"}, "method: got 'minimax'; wanted 'gumbel', 'puct' or 'uct'"),
        (100, r"search: got 100; wanted settings by name, as in \{'simulations': 100\}"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    agent, game = made("ppo")
    with pytest.raises(AgentError, match=message):
        searched(agent, game, changes)


def test_games_and_networks_that_do_not_fit_are_refused():
    agent, _ = made("ppo")
    with pytest.raises(AgentError, match="search: the network is for another game than ConnectFour"):
        SearchPlayer(agent, mlbits.make_game(C4), SearchConfig())
    blotto = mlbits.make_game("mlbits/Blotto-v0")
    entry = agent_entry("ppo")
    agent = entry.make(entry.config_class()(), blotto.observation_space, blotto.action_space, seed=0, device="cpu")
    with pytest.raises(AgentError, match="got Blotto with 2 seats that act at once; wanted one seat, or two"):
        searched(agent, blotto, {"simulations": 5})
    with pytest.raises(AgentError, match="a search plays by a game's rules; wanted one of mlbits' own games"):
        searched(agent, None, {"simulations": 5})


def test_proven_moves_and_expected_lines():
    """X to move has a1 and b1, O a2 and b2: c1 wins at once, every other move loses to c2 in two."""
    game = mlbits.make_game(TTT)
    bot = make_bot("mcts@simulations=4000", game.observation_space, game.action_space, device="cpu", game=game)
    batch, obs, mask = position(TTT, 0, 3, 1, 4)
    found = bot.look(positions_of(batch, torch.tensor([0]), obs[:1], mask[:1]), generator())
    assert (found.action.item(), found.outcome.item()) == (2, 1)
    assert bot.search.proven(0)[2] == (1, 1)
    batch, obs, mask = position(TTT, 0, 3, 1)
    found = bot.look(positions_of(batch, torch.tensor([1]), obs[1:], mask[1:]), generator())
    assert found.action.item() == 2  # O has to block
    line = bot.search.line(0, 2, most=3)
    assert line[0] == 2 and len(line) == 3 and len(set(line)) == 3
    proven = bot.search.proven(0)
    assert proven[5] == (2, 2)  # any other move loses to c1 at once
    assert proven[2] == (2, 4)  # then X plays b2, and threatens two lines
