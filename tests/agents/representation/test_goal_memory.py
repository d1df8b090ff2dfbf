"""The buffer of latents: which goals a sampled step may get, rewards, the circle, and saved states."""

import pytest
import torch

from mlbits.agents.agent import AgentError
from mlbits.agents.representation.goal_memory import GoalMemory


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def made(capacity=60, **settings):
    settings = {"future": 1.0, "fresh": 0.0, "reach": 0.0, **settings}
    new = settings.pop("new_goals", lambda count, generator: torch.full((count, 1), 99.0))
    return GoalMemory(capacity, 2, 1, torch.tensor([1]), new_goals=new, **settings)


def add(memory, steps, lengths, first=0):
    """Steps of len(lengths) copies with episodes of these lengths; latents are (copy, the step's number in all)."""
    copies = len(lengths)
    number = torch.arange(first, first + steps)[:, None].expand(steps, copies).float()
    copy = torch.arange(copies).expand(steps, copies).float()
    z, next_z = torch.stack([copy, number], 2), torch.stack([copy, number + 0.5], 2)
    ended = (number.long() + 1) % torch.tensor(lengths) == 0
    memory.add(z, next_z, number[..., None], -number[..., None], torch.zeros_like(ended), ended)


def test_a_goal_of_the_future_is_one_that_the_same_episode_reached_at_that_step_or_later():
    memory, lengths = made(), [4, 7]
    for first in range(0, 21, 3):
        add(memory, 3, lengths, first)
    seen = set()
    drawn = memory.sample(4000, draw())
    for (copy, number, goal), (_, after, _) in zip(drawn.obs.tolist(), drawn.next_obs.tolist(), strict=True):
        length = lengths[int(copy)]
        end = min((number // length + 1) * length, 21)  # of the episode, or of what has been played of it
        assert after == number + 0.5
        assert number + 0.5 <= goal <= end - 0.5
        seen.add((copy, number, goal))
    first = [
        goal - number for copy, number, goal in drawn.obs.tolist() if copy == 0 and number % 4 == 0 and number < 20
    ]
    for later in (0.5, 1.5, 2.5, 3.5):  # all equally likely
        assert first.count(later) / len(first) == pytest.approx(0.25, abs=0.07)
    every = sum(min((t // length + 1) * length, 21) - t for length in lengths for t in range(21))
    assert len(seen) == every


def test_steps_keep_their_goals_or_get_new_ones_in_the_shares_that_are_set():
    memory = made(future=0.5, fresh=0.3)
    add(memory, 20, [50])
    goal = memory.draw_goals(6000, draw())[1]
    assert float((goal == 99).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(((goal < 0) | (goal == 0)).float().mean()) == pytest.approx(0.2, abs=0.03)


def test_rewards_are_those_of_the_goal_that_a_step_gets():
    dense, sparse = (
        made(new_goals=lambda n, _: torch.full((n, 1), 3.0), future=0.0, fresh=1.0),
        made(new_goals=lambda n, _: torch.full((n, 1), 3.0), future=0.0, fresh=1.0, reach=1.0),
    )
    for memory in (dense, sparse):
        add(memory, 6, [50])
    drawn = dense.sample(50, draw(), discount=0.9)
    assert torch.equal(drawn.reward, -(drawn.next_obs[:, 1] - 3).abs())
    assert torch.equal(drawn.discount, torch.full((50,), 0.9))
    drawn = sparse.sample(50, draw())
    assert torch.equal(drawn.reward == 0, (drawn.next_obs[:, 1] - 3).abs() < 1)
    assert set(drawn.reward.tolist()) == {0.0, -1.0}


def test_only_the_latest_steps_are_kept():
    memory = made(capacity=20)  # ten steps of two copies
    for first in range(0, 36, 3):
        add(memory, 3, [5, 8], first)
    drawn = memory.sample(2000, draw())
    assert set(drawn.obs[:, 1].tolist()) == set(range(26, 36))
    assert drawn.obs[:, 2].max() <= 35.5
    assert torch.equal(drawn.action[:, 0], drawn.obs[:, 1])


def test_terminated_steps_have_no_future_value():
    memory = made()
    shape = (2, 1)
    z = torch.zeros(*shape, 2)
    ends = torch.tensor([[True], [False]])
    memory.add(z, z, torch.arange(2.0).view(2, 1, 1), torch.zeros(2, 1, 1), ends, ends)
    drawn = memory.sample(50, draw())
    assert torch.equal(drawn.discount == 0, drawn.action[:, 0] == 0)


def test_a_restored_buffer_goes_on_as_the_saved_one():
    one, two = made(), made()
    for first in range(0, 24, 3):
        add(one, 3, [4, 7], first)
    two.load_state_dict({name: part.clone() for name, part in one.state_dict().items()})
    for memory in (one, two):
        add(memory, 3, [4, 7], 24)
    for got, wanted in zip(one.sample(100, draw()), two.sample(100, draw()), strict=True):
        assert (got is wanted is None) or torch.equal(got, wanted)


def test_what_cannot_be_is_refused():
    with pytest.raises(AgentError, match="buffer_size: got 8; wanted at least 12, two rounds of steps"):
        add(made(capacity=8), 3, [4, 7])
    memory = made()
    add(memory, 3, [4, 7])
    state = {name: part.clone() for name, part in memory.state_dict().items()}
    for name, value in (("last", 10**6), ("episode", -1)):
        wrong = {**state, name: torch.full_like(state[name], value)}
        with pytest.raises(ValueError, match=name):
            made().load_state_dict(wrong)
    with pytest.raises(ValueError, match="added: got 7 steps of 2 copies"):
        made().load_state_dict({**state, "added": torch.tensor([7])})
    with pytest.raises(ValueError, match=r"z: got \[60, 2\]; wanted \[40, 2\]"):
        made(capacity=40).load_state_dict(state)
