"""Replayed windows: what follows each step in a recorded rollout, which windows are kept, saving."""

import dataclasses

import pytest
import torch

import mlbits
from mlbits.agents.agent import AgentError
from mlbits.agents.disco.windows import Windows
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.lineup import self_play
from tests.agents.disco.made_up import draw, made_up_rollout, make


def recorded(rule, env, steps=20, copies=3, **settings):
    """A rollout of an environment as the loop records it, and the agent that played."""
    batch = mlbits.make_batch(env, copies, seed=1, **settings)
    agent = make(rule, batch.observation_space, batch.action_space, num_steps=steps)
    lineup = self_play(agent, copies, batch.num_seats, batch.device)
    return agent, Collector(batch, agent.experience, draw()).collect(lineup)[0]


def filled(rollout, capacity=8):
    windows = Windows(capacity)
    assert windows.add(rollout) == rollout.reward.shape[1] * rollout.reward.shape[2]
    return windows


def test_episodes_of_catch_follow_one_another_without_a_row_between(rule):
    """Episodes take nine steps. A row is a step that was played: the one after an end is the next ball's first."""
    _, rollout = recorded(rule, "mlbits/Catch-v0")
    drawn = filled(rollout).batch(torch.arange(3))
    assert drawn.terminated.sum(0).tolist() == [2, 2, 2]
    assert drawn.terminated[8].all()
    assert not drawn.truncated.any()
    assert len(drawn.obs) == 21 * 3  # no rows but the steps' own and the last
    assert torch.equal(drawn.following, torch.arange(3, 63).view(20, 3))
    boards = drawn.obs.view(21, 3, 10, 5)
    for first in (0, 9, 18):
        assert boards[first].sum((1, 2)).tolist() == [2, 2, 2]
        assert boards[first, :, 0].sum(1).tolist() == [1, 1, 1]  # the ball is in the top row
        assert boards[first, :, 9, 2].tolist() == [1, 1, 1]  # the paddle is in the middle
    rewards = drawn.reward
    assert rewards[8].abs().tolist() == [1, 1, 1]
    assert rewards[9:17].abs().sum() == 0
    assert torch.equal(drawn.action, rollout.sample[..., 0])


def test_every_row_of_a_window_is_learned_from_in_full(rule):
    """Nothing is masked: a step after an end weighs as much as any other."""
    agent, rollout = recorded(rule, "mlbits/Catch-v0")
    said = []

    def keep(module, inputs, out):
        out.retain_grad()
        said.append(out)

    for head in (agent.network.policy_head, agent.network.y):
        head.register_forward_hook(keep)
    agent._update(filled(rollout).batch(torch.arange(3)))
    for out in said:
        moved = out.grad.abs().amax(1) > 0
        assert moved.tolist() == [True] * 60 + [False] * 3  # the observations after the last steps are only looked at


def spaces_of(env):
    game = mlbits.make_game(env)
    return game.observation_space, game.action_space


def test_an_episode_cut_by_a_limit_leads_to_its_own_last_observation(rule):
    _, rollout = recorded(rule, "mlbits/CartPole-v0", steps=10, horizon=4)
    drawn = filled(rollout).batch(torch.arange(3))
    assert drawn.truncated[3].all()
    assert drawn.truncated[7].all()
    after = drawn.obs[drawn.following]
    for t in range(10):
        wanted = rollout.final_obs[t] if t in (3, 7) else rollout.obs[t + 1] if t < 9 else rollout.last_obs
        assert torch.equal(after[t], wanted[:, 0])
    assert len(drawn.obs) == 11 * 3 + 6


def test_a_step_that_terminates_at_its_limit_is_not_cut(rule):
    agent = make(rule, *spaces_of("mlbits/CartPole-v0"))
    rollout = made_up_rollout(agent)
    both = torch.ones_like(rollout.terminated)
    drawn = filled(dataclasses.replace(rollout, terminated=both, truncated=both)).batch(torch.arange(4))
    assert len(drawn.obs) == 6 * 4


def test_the_oldest_windows_make_room(rule):
    agent, windows = make(rule, *spaces_of("mlbits/CartPole-v0")), Windows(6)
    rollouts = [made_up_rollout(agent, seed=seed) for seed in range(3)]  # four windows each
    counts = []
    for rollout in rollouts:
        windows.add(rollout)
        counts.append(windows.count)
    assert counts == [4, 6, 6]
    kept = windows.batch(torch.arange(6)).reward
    newest = torch.cat([rollouts[1].reward[:, 2:, 0], rollouts[2].reward[..., 0]], 1)
    assert sorted(kept[0].tolist()) == sorted(newest[0].tolist())
    few = Windows(3)
    few.add(rollouts[0])
    assert few.count == 3
    assert few.batch(torch.arange(3)).reward[0].sort()[0].tolist() == rollouts[0].reward[0, 1:, 0].sort()[0].tolist()


def test_windows_in_which_another_plays_are_left_out(rule):
    agent = make(rule, *spaces_of("mlbits/CartPole-v0"))
    rollout = made_up_rollout(agent, copies=2, seats=2)
    active = torch.ones(5, 2, 2, dtype=torch.bool)
    active[3, 0, 1] = False
    active[:, 1, 0] = False
    windows = Windows(8)
    assert windows.add(dataclasses.replace(rollout, active=active)) == 2
    assert torch.equal(windows.batch(torch.arange(2)).reward, rollout.reward[:, [0, 1], [0, 1]])


def test_saving_restores_what_is_drawn_next(rule):
    agent = make(rule, *spaces_of("mlbits/CartPole-v0"))
    windows, other = filled(made_up_rollout(agent)), Windows(8)
    other.load_state_dict(windows.state_dict(), "cpu")
    for part in (windows, other):
        part.add(made_up_rollout(agent, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(windows.sample(5, draw()), other.sample(5, draw()), strict=True))
    state = windows.state_dict()
    with pytest.raises(AgentError, match=r"^windows: got 8 places; wanted 4"):
        Windows(4).load_state_dict(state, "cpu")
    with pytest.raises(AgentError, match=r"^windows: got count 9 and place 0"):
        other.load_state_dict({**state, "place": torch.tensor([9, 0])}, "cpu")
