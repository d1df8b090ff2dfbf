"""The replay of outcomes: who gets which return, truncation, moves that were not the agent's, the ring, saving."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from mlbits.agents.agent import AgentError, OutcomeSpec, Rollout
from mlbits.agents.memory.outcomes import OutcomeReplay

SEATS = 2


def replay(num_envs=1, num_steps=4, capacity=64, discount=1.0, trace=1.0):
    batch = SimpleNamespace(device=torch.device("cpu"), num_envs=num_envs, num_seats=SEATS)
    return OutcomeReplay(OutcomeSpec(num_steps, capacity, discount, trace), batch)


def rollout(turns, rewards, ends="", first=0, q=None, off_policy=None, value=None):
    """One copy: ``turns`` is the seat that moves at each step, ``rewards`` seat 0's (seat 1 gets the opposite);
    ``ends`` has t for terminated, c for truncated; observations count from ``first``."""
    steps = len(turns)
    active = torch.zeros(steps, 1, SEATS, dtype=torch.bool)
    active[torch.arange(steps), 0, torch.tensor(turns)] = True
    reward = torch.tensor(rewards, dtype=torch.float32)[:, None, None] * torch.tensor([1.0, -1.0])
    number = (torch.arange(steps) + first).view(steps, 1, 1).expand(steps, 1, SEATS)
    ends = ends.ljust(steps, ".")
    nothing = torch.zeros(steps, 1, SEATS)
    notes = {"q": (torch.tensor(q) if q else torch.zeros(steps)).view(steps, 1, 1).expand(steps, 1, SEATS)}
    if value is not None:
        notes["value"] = torch.tensor(value).view(steps, 1, 1).expand(steps, 1, SEATS)
    if off_policy is not None:
        notes["off_policy"] = torch.tensor(off_policy).view(steps, 1, 1).expand(steps, 1, SEATS)
    return Rollout(
        obs=number, last_obs=number[0], final_obs=number, sample=number, log_prob=nothing, reward=reward,
        terminated=torch.tensor([[c == "t"] for c in ends]), truncated=torch.tensor([[c == "c"] for c in ends]),
        legal_mask=torch.ones(steps, 1, SEATS, 3, dtype=torch.bool), active=active, notes=notes,
    )  # fmt: skip


def outcomes(memory):
    """The outcome of each position that can be sampled, by observation."""
    drawn = memory.sample(400, torch.Generator().manual_seed(0))
    return dict(zip(drawn.obs.tolist(), drawn.outcome.tolist(), strict=True))


def test_each_seat_gets_its_own_return_even_if_it_moves_twice():
    memory = replay()
    memory.add(rollout([0, 1, 1, 0], [0, 0, 0, -1], "...t"))
    assert outcomes(memory) == {0: -1, 1: 1, 2: 1, 3: -1}
    assert memory.added == len(memory) == 4


def test_rewards_on_the_way_count_from_the_position_on_and_are_discounted():
    memory = replay(discount=0.5)
    memory.add(rollout([0, 1, 0, 1], [1, 0, 0, 4], "...t"))
    assert outcomes(memory) == {0: 1 + 4 / 8, 1: -1, 2: 2, 3: -4}


def by_hand(turns, rewards, values, discount, trace):
    """Lambda-returns by their definition: the mean of all n-step returns, n = 0 ..., by weights that fall by lambda."""
    found = {}
    for t, seat in enumerate(turns):
        earned, factor, weight, total = 0.0, 1.0, 1.0, 0.0
        for mover, reward, value in zip(turns[t:], rewards[t:], values[t:], strict=True):
            total += weight * (1 - trace) * (earned + factor * (value if mover == seat else -value))
            weight *= trace
            earned += factor * (reward if seat == 0 else -reward)
            factor *= discount
        found[t] = pytest.approx(total + weight * earned, abs=1e-6)
    return found


@pytest.mark.parametrize("trace", [0.0, 0.3, 1.0])
def test_a_trace_mixes_the_values_of_later_positions_as_each_seat_sees_them(trace):
    turns, rewards, values = [0, 1, 1, 0, 1], [0, 0.5, 0, 0, -1], [0.1, -0.2, 0.3, 0.8, -0.6]
    memory = replay(discount=0.9, trace=trace)
    memory.add(rollout(turns[:2], rewards[:2], value=values[:2]))  # the episode goes on in another rollout
    memory.add(rollout(turns[2:], rewards[2:], "..t", first=2, value=values[2:]))
    assert outcomes(memory) == by_hand(turns, rewards, values, 0.9, trace)


def test_a_trace_without_values_is_refused():
    with pytest.raises(AgentError, match="no note 'value'"):
        replay(trace=0.5).add(rollout([0], [0]))


def test_an_episode_is_not_sampled_before_its_end_and_ends_in_a_later_rollout():
    memory = replay()
    memory.add(rollout([0, 1], [0, 0]))
    assert len(memory) == memory.added == 0
    with pytest.raises(AgentError, match="no episode is over yet"):
        memory.sample(1, torch.Generator())
    memory.add(rollout([0, 1, 0, 1], [0, 1, 0, 0], ".t..", first=2))
    assert outcomes(memory) == {0: 1, 1: -1, 2: 1, 3: -1}


def test_a_truncated_episode_goes_on_from_the_last_decisions_own_value():
    memory = replay(discount=0.5)
    memory.add(rollout([0, 1, 0], [0, 2, 7], "..c", q=[0.1, 0.2, 0.5]))
    # The last step's reward is part of its q; before it, q counts from the seat that has it.
    assert outcomes(memory) == {0: 0.5 * 2 + 0.25 * 0.5, 1: -2 - 0.5 * 0.5, 2: 0.5}


def test_a_termination_at_the_time_limit_is_a_termination():
    memory = replay()
    part = rollout([0, 1], [0, 1], ".t", q=[0.0, 0.9])
    memory.add(dataclasses.replace(part, truncated=part.terminated))
    assert outcomes(memory) == {0: 1, 1: -1}


def test_random_moves_and_what_came_before_them_are_left_out():
    memory = replay()
    memory.add(rollout([0, 1, 0, 1], [0, 0, 0, 1], "...t", off_policy=[False, True, False, False]))
    assert outcomes(memory) == {2: 1, 3: -1}
    assert memory.added == 2
    memory.add(rollout([0, 1], [0, -1], ".t", first=10, off_policy=[False, False]))
    assert set(outcomes(memory)) == {2, 3, 10, 11}


def test_copies_are_apart():
    one, two = rollout([0, 1, 0, 1], [0, 1, 0, 0], ".t.."), rollout([1, 0, 1, 0], [0, 0, 0, -1], "...t", first=20)

    def joined(name):
        first, second = getattr(one, name), getattr(two, name)
        if name == "notes":
            return {key: torch.cat([first[key], second[key]], 1) for key in first}
        return torch.cat([first, second], 0 if name == "last_obs" else 1)

    names = ("obs", "last_obs", "final_obs", "sample", "log_prob", "reward", "terminated", "truncated", "legal_mask",
             "active", "notes")  # fmt: skip
    memory = replay(num_envs=2)
    memory.add(Rollout(**{name: joined(name) for name in names}))
    assert outcomes(memory) == {0: 1, 1: -1, 20: 1, 21: -1, 22: 1, 23: -1}


def test_the_oldest_positions_are_overwritten_open_ones_too():
    memory = replay(num_steps=2, capacity=4)
    memory.add(rollout([0, 1], [0, 0]))
    for start in (2, 4):
        memory.add(rollout([0, 1], [0, 0], first=start))
    memory.add(rollout([0, 1], [0, 1], ".t", first=6))
    assert outcomes(memory) == {4: 1, 5: -1, 6: 1, 7: -1}


def test_saving_in_the_middle_of_an_episode_changes_nothing():
    memory, again = replay(), replay()
    memory.add(rollout([0, 1, 0], [0, 1, 0], ".t."))
    again.load_state_dict(memory.state_dict())
    for one in (memory, again):
        one.add(rollout([1, 0], [0, -1], ".t", first=3))
    assert outcomes(memory) == outcomes(again) == {0: 1, 1: -1, 2: -1, 3: 1, 4: -1}
    with pytest.raises(ValueError, match="capacity of 64; wanted 32"):
        replay(capacity=32).load_state_dict(memory.state_dict())


def test_masks_and_notes_come_with_their_positions():
    memory = replay()
    part = rollout([0, 1], [0, 1], ".t", q=[0.25, 0.5])
    part.legal_mask[1, 0, 1, 2] = False
    memory.add(part)
    drawn = memory.sample(50, torch.Generator().manual_seed(0))
    assert (drawn.notes["q"] == torch.where(drawn.obs == 0, 0.25, 0.5)).all()
    assert (drawn.mask[:, 2] == (drawn.obs == 0)).all()


def test_a_capacity_below_two_rollouts_is_refused():
    with pytest.raises(AgentError, match="buffer_size: got 7; wanted at least two rollouts, 8"):
        replay(num_envs=2, num_steps=2, capacity=7)


def test_a_buffer_beyond_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr("mlbits.agents.memory.outcomes.memory_bytes", lambda device: 320.0)
    memory = replay(capacity=16)  # a row has an observation of 8 bytes, a mask of 3 and a note of 4
    memory.add(rollout([0, 1], [0, 1], ".t"))
    with pytest.raises(AgentError, match=r"buffer_size: 32 positions of this game take .*; wanted at most 21,"):
        replay(capacity=32).add(rollout([0, 1], [0, 1], ".t"))


def test_a_truncated_game_whose_rewards_are_not_opposite_goes_on_from_each_seats_own_value():
    memory = replay(discount=0.5)
    part = rollout([0, 1, 0], [0, 0, 0], "..c", q=[0.1, 0.25, 0.5])
    memory.add(dataclasses.replace(part, reward=torch.tensor([[[1.0, 1.0]], [[2.0, 2.0]], [[4.0, 4.0]]])))
    # Seat 1 decided at step 1, and its q has all that came after.
    assert outcomes(memory) == {0: 1 + 0.5 * 2 + 0.25 * 0.5, 1: 0.25, 2: 0.5}


def test_rewards_after_the_last_decision_are_in_its_value():
    """The last decision is two steps before the end: the last step is another player's."""
    memory = replay(discount=0.5)
    part = rollout([0, 1, 0], [3, 5, 7], "..c", q=[0.1, 0.25, 0.5])
    part.active[2] = False
    memory.add(part)
    assert outcomes(memory) == {0: 3 - 0.5 * 0.25, 1: 0.25}
