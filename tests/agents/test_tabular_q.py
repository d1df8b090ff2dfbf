"""Tabular Q-learning: single updates by hand, convergence to the exact Q*, turns, masks, and double Q-learning."""

import dataclasses
import math
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

import mlbits
from mlbits.agents import agent_entry
from mlbits.agents.agent import AgentError, Rollout
from mlbits.agents.planning.dynamic_programming import value_iteration
from mlbits.agents.tabular_q import TabularQ, TabularQConfig
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import normal
from mlbits.envs.core.rules import rule
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.exact.transition_table import read_table
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import resume, train
from tests.agents.rollouts import draw, equal, learn
from tests.games import _draw, _text, register_test_games

register_test_games()
THREE, FOUR = spaces.Discrete(3), spaces.Discrete(4)


def q_agent(actions=THREE, observations=FOUR, **settings):
    return TabularQ(TabularQConfig(**settings), observations, actions)


def steps(obs, actions, rewards, *, final=None, terminated=(), truncated=(), mask=None, active=None, last_mask=None):
    """A rollout of one copy: ``obs`` has one entry more than ``actions``; ends are given by their steps."""
    count = len(actions)
    flags = torch.zeros(2, count, 1, dtype=torch.bool)
    for row, ends in enumerate((terminated, truncated)):
        flags[row, list(ends)] = True
    seen = torch.tensor(obs, dtype=torch.int32).view(count + 1, 1, -1)
    return Rollout(
        obs=seen[:-1], last_obs=seen[-1],
        final_obs=torch.zeros_like(seen[:-1]) if final is None else torch.tensor(final).int().view(count, 1, -1),
        sample=torch.tensor(actions).view(count, 1, -1), log_prob=torch.zeros(count, 1, seen.shape[-1]),
        reward=torch.tensor(rewards).float().view(count, 1, -1), terminated=flags[0], truncated=flags[1],
        legal_mask=None if mask is None else torch.tensor(mask).bool().view(count, 1, seen.shape[-1], -1),
        active=None if active is None else torch.tensor(active).bool().view(count, 1, -1),
        last_mask=None if last_mask is None else torch.tensor(last_mask).bool().view(1, seen.shape[-1], -1),
    )  # fmt: skip


def trained(agent, batch, iterations, seed=0):
    """Let an agent learn from a batch."""
    collector = Collector(batch, agent.experience, draw(seed + 1))
    lineup, coins = self_play(agent, batch.num_envs, batch.num_seats, batch.device), draw(seed + 2)
    for iteration in range(iterations):
        rollout, _, _ = collector.collect(lineup)
        agent.learn(rollout, iteration / iterations, coins)
    return agent


# Updates by hand


def test_steps_one_after_another():
    """0 -> 1 -> 2 -> 1, reward 1 each: the third step's target has what the second has just learned."""
    agent = q_agent(step_size=0.5, discount=0.5)
    learn(agent, steps([0, 1, 2, 1], [0, 1, 2], [1, 1, 1]))
    wanted = torch.zeros(4, 3, dtype=torch.float64)
    wanted[0, 0], wanted[1, 1], wanted[2, 2] = 0.5, 0.5, 0.5 * (1 + 0.5 * 0.5)
    assert torch.equal(agent.tables[0], wanted)
    assert agent.updates.sum() == 3


def test_terminated_has_no_bootstrap_and_truncated_the_last_observations():
    for kind, wanted in (("terminated", 3.0), ("truncated", 3.0 + 0.5 * 7.0)):
        agent = q_agent(step_size=1.0, discount=0.5)
        agent.tables[0, 1, 2] = 100.0  # the next episode's first observation, which must not be used
        agent.tables[0, 3, 0] = 7.0
        learn(agent, steps([0, 1], [1], [3.0], final=[3], **{kind: [0]}))
        assert agent.tables[0, 0, 1] == wanted


def test_terminated_and_truncated_counts_as_terminated():
    agent = q_agent(step_size=1.0, initial_value=9.0)
    learn(agent, steps([0, 1], [1], [3.0], final=[3], terminated=[0], truncated=[0]))
    assert agent.tables[0, 0, 1] == 3.0


@pytest.mark.parametrize(("size", "power"), [(0.5, 0.0), (0.5, 0.7), (1.0, 1.0)])
def test_equal_updates_of_copies_count_as_consecutive_updates(size, power):
    """With one common target the order does not matter."""
    agent, copies = q_agent(step_size=size, step_power=power), 5
    one = steps([0, 0], [1], [2.0], terminated=[0])
    several = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    for name, value in several.items():
        if value is not None:
            several[name] = value.expand(1, copies, *value.shape[2:]) if name != "last_obs" else value.expand(copies, 1)
    learn(agent, Rollout(**several))
    wanted = 0.0
    for n in range(1, copies + 1):
        wanted += size / n**power * (2.0 - wanted)
    assert agent.tables[0, 0, 1].item() == pytest.approx(wanted)
    assert agent.updates[0, 0, 1] == copies
    learn(agent, one)
    assert agent.tables[0, 0, 1].item() == pytest.approx(wanted + size / (copies + 1) ** power * (2.0 - wanted))


def test_a_step_size_of_one_over_n_is_the_mean_of_all_targets():
    agent, targets = q_agent(step_size=1.0, step_power=1.0), [4.0, -1.0, 3.0, 8.0, 2.0, 0.5]
    learn(agent, steps([0] * 7, [2] * 6, targets, terminated=range(6)))
    assert agent.tables[0, 0, 2].item() == pytest.approx(np.mean(targets))


def test_double_selects_by_one_table_and_evaluates_by_the_other():
    """For either result of the coin flip; over many flips both tables are updated."""
    named = set()
    for seed in range(20):
        agent = q_agent(step_size=1.0, discount=0.5, double=True)
        agent.tables[0, 1] = torch.tensor([5.0, 1.0, 2.0])
        agent.tables[1, 1] = torch.tensor([-4.0, 3.0, -8.0])
        agent.learn(steps([0, 1], [2], [1.0]), 0.0, draw(seed))
        table = int(agent.tables[1, 0, 2] != 0)
        named.add(table)
        assert agent.tables[:, 0, 2].tolist() == ([1 + 0.5 * -4.0, 0.0] if table == 0 else [0.0, 1 + 0.5 * 1.0])
        assert torch.equal(agent.values(torch.tensor([1]))[0], torch.tensor([0.5, 2.0, -3.0], dtype=torch.float64))
    assert named == {0, 1}


# Acting


def test_epsilon_decays_and_is_the_frequency_of_random_actions():
    agent = q_agent(epsilon_start=0.8, epsilon_end=0.2, epsilon_fraction=0.5)
    for progress, wanted in ((0.0, 0.8), (0.25, 0.5), (0.5, 0.2), (1.0, 0.2)):
        metrics = learn(agent, steps([0, 0], [0], [0.0]), progress)
        assert agent.epsilon == metrics["epsilon"] == pytest.approx(wanted)
    agent.tables[0, :, 1] = 1.0
    count = 40_000
    action = agent.act(torch.zeros(count, dtype=torch.int32), None, draw(0)).action
    share = torch.bincount(action, minlength=3) / count
    wanted = torch.tensor([0.2 / 3, 0.8 + 0.2 / 3, 0.2 / 3])
    assert (share - wanted).abs().max() < 5 * math.sqrt(0.25 / count)
    assert (agent.act(torch.zeros(9, dtype=torch.int32), None, draw(0), greedy=True).action == 1).all()


def test_illegal_actions_are_never_played_nor_bootstrapped_from():
    agent = q_agent(step_size=1.0, discount=1.0, epsilon_end=0.5, epsilon_start=0.5)
    agent.tables[0, :, 0] = 50.0
    mask = torch.tensor([False, True, True]).expand(3000, 3)
    for greedy in (True, False):
        action = agent.act(torch.zeros(3000, dtype=torch.int32), mask, draw(1), greedy=greedy).action
        assert action.min() == 1
        assert greedy or 0.3 < (action == 1).float().mean() < 0.7  # ties are drawn uniformly
    agent.tables[0, 1, 1] = 4.0
    both = [[False, True, True]] * 2
    learn(agent, steps([0, 0, 1], [1, 2], [1.0, 1.0], mask=both, last_mask=[False, True, False]))
    assert agent.tables[0, 0].tolist() == [50.0, 1.0, 5.0]
    # Cut in observation 1, whose legal actions are known from before.
    learn(agent, steps([0, 0], [1], [1.0], final=[1], truncated=[0], mask=both[:1], last_mask=both[0]))
    assert agent.tables[0, 0].tolist() == [50.0, 5.0, 5.0]


def test_multi_discrete_parts_are_combined_into_one_index():
    observations, actions = spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([2, 2])
    agent = TabularQ(TabularQConfig(step_size=1.0), observations, actions)
    assert agent.tables.shape == (1, 6, 4)
    obs = torch.tensor([[1, 2], [0, 1]], dtype=torch.int32)
    agent.tables[0, np.ravel_multi_index((1, 2), (2, 3)), np.ravel_multi_index((1, 0), (2, 2))] = 1.0
    agent.tables[0, np.ravel_multi_index((0, 1), (2, 3)), np.ravel_multi_index((0, 1), (2, 2))] = 1.0
    assert agent.act(obs, None, draw(), greedy=True).action.tolist() == [[1, 0], [0, 1]]
    mask = torch.tensor([[True, False, True, True], [True, True, False, True]])  # per part: first 2, second 2
    assert agent.act(obs, mask, draw(), greedy=True).action.tolist() == [[0, 0], [0, 1]]
    assert agent.state_values(obs, mask).tolist() == [0.0, 1.0]
    assert TabularQ(TabularQConfig(), spaces.MultiBinary(5), THREE).num_states == 32


# Turns


def test_a_decision_waits_for_the_seats_next_turn():
    """Two seats in turn: seat 0 decides in 0, its reward comes in 1 and 2, and its next turn is 2, in another call."""
    agent = q_agent(step_size=1.0, discount=0.5)
    agent.tables[0, 3] = torch.tensor([0.0, 8.0, 0.0])
    first = steps([[0, 0], [1, 1], [3, 3]], [[2, 0], [0, 1]], [[1.0, 0.0], [0.5, 0.0]], active=[[1, 0], [0, 1]])
    learn(agent, first)
    assert agent.updates.sum() == 0
    saved = agent.state_dict()
    agent = q_agent(step_size=1.0, discount=0.5)
    agent.load_state_dict(saved)
    learn(agent, steps([[3, 3], [2, 2]], [[0, 0]], [[1.0, -1.0]], final=[[2, 2]], active=[[1, 0]], terminated=[0]))
    assert agent.tables[0, 0, 2] == 1.0 + 0.5 + 0.5 * 8.0  # two rewards, discounted once: for one decision
    assert agent.tables[0, 3, 0] == 1.0  # seat 0's last, and the game is over
    assert agent.tables[0, 1, 1] == -1.0  # seat 1's: what came when it was not its turn
    assert agent.updates.sum() == 3


@pytest.mark.slow
def test_self_play_finds_the_winning_moves_of_nim():
    """From heaps whose exclusive or is not 0 a move to 0 wins; the table finds all of these moves."""
    game = mlbits.make_game("test/Nim-v0", largest=3)
    batch = GameBatch(game, 64, seed=0, illegal="error")
    config = TabularQConfig(num_steps=2, discount=1.0, epsilon_end=0.2)
    agent = TabularQ(config, game.observation_space, game.action_space)
    trained(agent, batch, 1000)
    heaps = np.array([[a, b, c] for a in range(4) for b in range(4) for c in range(4)])
    winning = np.bitwise_xor.reduce(heaps, 1) != 0
    played = 0
    for heap in heaps[winning]:
        mask = torch.tensor([[k % 3 + 1 <= heap[k // 3] for k in range(9)]])
        action = int(agent.act(torch.tensor([[*heap, 0]]), mask, draw(), greedy=True).action)
        after = heap.copy()
        after[action // 3] -= action % 3 + 1
        played += int(np.bitwise_xor.reduce(after) == 0)
    assert played >= 0.95 * winning.sum()


# Convergence to the exact solution


@pytest.mark.parametrize("double", [False, True])
def test_the_table_converges_to_the_exact_q_values(double):
    """A slippery map with a pit, cut after 20 steps; every action keeps being tried at random.

    Ten other seeds end within 0.02 to 0.042.
    """
    settings = {"map": "...G/.#.X/....", "slip": 0.3, "horizon": 20}
    table = read_table(mlbits.make_game("mlbits/GridWorld-v0", **settings))
    exact = value_iteration(table, 0.9, tolerance=1e-10)
    batch = mlbits.make_batch("mlbits/GridWorld-v0", 512, seed=3, **settings)
    config = TabularQConfig(discount=0.9, step_power=0.75, step_size=1.0, epsilon_end=1.0, double=double)
    agent = trained(TabularQ(config, batch.observation_space, batch.action_space), batch, 1000)
    difference = agent.tables[:, table.states["cell"]].numpy() - exact.action_value
    assert np.abs(difference).max() < 0.1
    assert np.abs(exact.action_value).max() > 0.9


@pytest.mark.parametrize("env", ["mlbits/GridWorld-v0", "mlbits/CliffWalk-v0"])
def test_it_learns_the_best_path(env):
    batch = mlbits.make_batch(env, 64, seed=0)
    agent = trained(TabularQ(TabularQConfig(num_steps=4), batch.observation_space, batch.action_space), batch, 700)
    table = read_table(mlbits.make_game(env))
    best = value_iteration(table, 1.0).value @ table.start
    assert play_episodes(agent, env, 5, seed=1).returns.mean() == pytest.approx(best)


def test_optimism_finds_the_treasure_of_the_deep_sea():
    """The preset: 10 rights in a row within 500 steps of 16 copies, which random play has once in 1,024 episodes."""
    settings = resolve("q-learning", "mlbits/DeepSea-v0")
    batch = mlbits.make_batch("mlbits/DeepSea-v0", 16, seed=0)
    agent = trained(TabularQ(settings.agent_config, batch.observation_space, batch.action_space), batch, 500)
    assert play_episodes(agent, "mlbits/DeepSea-v0", 1, seed=1).returns.mean() == pytest.approx(0.99)


# Maximisation bias: Sutton and Barto (2018), example 6.7


@rule
def bias_reset(state, params):
    state.place = 0


@rule
def bias_step(state, params, actions, rewards):
    if state.place == 0:
        state.place = 1
        return actions[0] == 1, False  # right terminates at once, left continues
    rewards[0] = -0.1 + normal(state)
    return True, False


@rule
def bias_observe(state, params, seat, out):
    out[0] = 2 * params.learner + state.place


@rule
def bias_legal(state, params, seat, out):
    for action in range(10):
        out[action] = state.place == 1 or action < 2


def bias(learner, learners):
    """One of many independent learners' problems: each sees observations of its own, so that one table holds all."""
    return Game(
        name="Bias", state_fields=[("place", "i4")], params=make_params([("learner", "i4")], {"learner": learner}),
        observation_space=spaces.Discrete(2 * learners), action_space=spaces.Discrete(10), reset=bias_reset,
        step=bias_step, observe=bias_observe, legal=bias_legal, text=_text, draw=_draw,
    )  # fmt: skip


def share_of_left(double, learners=500, episodes=(100, 200)):
    """Share of episodes that begin with left after some episodes of each of many learners, epsilon being 0.1."""
    batch = GameBatch([bias(k, learners) for k in range(learners)], learners, seed=1)
    config = TabularQConfig(step_size=0.1, discount=1.0, epsilon_start=0.1, epsilon_end=0.1, double=double)
    agent = TabularQ(config, batch.observation_space, batch.action_space)
    collector, coins = Collector(batch, agent.experience, draw(2)), draw(3)
    lineup = self_play(agent, learners, 1, batch.device)
    begun, left, shares = np.zeros(learners, int), np.zeros((learners, max(episodes) + 1)), []
    while begun.min() < max(episodes):
        rollout, _, _ = collector.collect(lineup)
        first = (rollout.obs[0, :, 0] % 2 == 0).numpy()
        going = first & (begun < max(episodes))
        begun += going
        left[going, begun[going]] = (rollout.sample[0, :, 0] == 0).numpy()[going]
        agent.learn(rollout, 0.5, coins)
    for n in episodes:
        shares.append(left[:, n - 9 : n + 1].mean())
    return shares


def test_double_q_learning_does_not_prefer_the_noisy_side():
    """Left is worth -0.1 and right 0; at best left is taken in 5% of the episodes, by chance alone.

    As in the book's figure 6.5, plain Q-learning prefers left for long. 10 episodes of 500 learners: standard errors
    below 0.023.
    """
    single, double = share_of_left(double=False), share_of_left(double=True)
    assert single[0] > 0.35
    assert double[0] < 0.2
    assert 0.03 < double[1] < 0.12
    assert single[1] > double[1]


# As for any agent


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    settings = resolve(
        "q-learning", "mlbits/FourRooms-v0", preset="none", agent_settings={"double": True, "num_steps": 3},
        run={"total_steps": 480, "num_envs": 8, "checkpoint_every": 240, "video": False, "device": "cpu"},
    )  # fmt: skip
    whole, _ = train(settings, tmp_path / "whole", console=False)
    part = Path(shutil.copytree(whole, tmp_path / "part"))
    shutil.rmtree(part / "checkpoints" / "step-000000000480")
    resume(part, console=False)
    one, two = (load_file(run / "checkpoints" / "step-000000000480" / "weights.safetensors") for run in (whole, part))
    assert one["tables"].any()
    assert equal(one, two)


def test_state_dicts_round_trip():
    agent = q_agent(double=True, step_size=0.3)
    learn(agent, steps([0, 1, 2], [0, 1], [1.0, 2.0], mask=[[True, True, False]] * 2, last_mask=[True, True, True]))
    other = q_agent(double=True, step_size=0.3)
    other.load_state_dict(agent.state_dict())
    for each in (agent, other):
        learn(each, steps([1, 2, 0], [0, 1], [1.0, 2.0], mask=[[True, True, False]] * 2, last_mask=[True] * 3), seed=4)
    assert equal(agent.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (
            spaces.Box(0, 1, (3,), np.float32),
            THREE,
            "wanted Discrete, MultiDiscrete or MultiBinary.*dqn, ppo, reinforce",
        ),
        (spaces.Dict(a=FOUR), THREE, "got the observation space Dict"),
        (spaces.MultiDiscrete([10] * 9), THREE, "1,000,000,000 observations x 3 actions; wanted a table of at most"),
    ],
)
def test_spaces_without_a_table_are_refused_by_name(observations, actions, message):
    with pytest.raises(AgentError, match=message):
        TabularQ(TabularQConfig(), observations, actions)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("step_size", 1.5), ("step_power", -0.1), ("epsilon_start", 2), ("discount", 1.01), ("num_steps", 0)],
)
def test_bad_settings_are_refused(setting, value):
    with pytest.raises(AgentError, match=f"{setting}: got"):
        TabularQConfig(**{setting: value})


def test_continuous_actions_are_refused_by_name():
    entry = agent_entry("q-learning")
    box = gym.spaces.Box(-1, 1, (1,), np.float32)
    with pytest.raises(AgentError, match=r"q-learning: got the action space Box.*Agents for continuous actions"):
        entry.make(entry.config_class()(), FOUR, box, seed=0, device="cpu")
