"""Each bonus: numbers by hand, what becomes familiar and what stays new, memory, saved state, and refused spaces."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError, network_generator
from mlbits.agents.exploration.count import ROOM
from mlbits.agents.exploration.explorer import BONUSES
from mlbits.agents.exploration.settings import BonusSettings
from mlbits.agents.exploration.steps import ActionCode, Steps, steps_of
from mlbits.agents.exploration.whitening import w_mse, whitened
from tests.agents.rollouts import draw, made_up_rollout, make_agent

VECTOR, THREE = spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(3)
PICTURE = spaces.Box(0, 255, (12, 12), np.uint8)


def make(name, observations=VECTOR, actions=THREE, **settings):
    return BONUSES[name](BonusSettings(**settings), observations, actions, network_generator(0), "cpu")


def steps(obs, action, next_obs, ended=None):
    """Steps of one stream, from lists."""
    obs, next_obs, action = (torch.as_tensor(part).unsqueeze(1) for part in (obs, next_obs, action))
    ended = torch.zeros(len(action), 1, dtype=torch.bool) if ended is None else torch.tensor(ended).unsqueeze(1)
    return Steps(obs, action, next_obs, ended)


def some_steps(length=80, streams=8, seed=0, space=VECTOR):
    """Random steps, the observation after each being the next one's."""
    generator = draw(seed)
    if space is PICTURE:
        obs = torch.randint(256, (length + 1, streams, 12, 12), generator=generator).to(torch.uint8)
    else:
        obs = torch.rand(length + 1, streams, 4, generator=generator)
    action = torch.randint(3, (length, streams), generator=generator)
    return Steps(obs[:-1], action, obs[1:], torch.rand(length, streams, generator=generator) < 0.1)


def test_counts_are_of_pairs_and_the_bonus_falls_as_their_root():
    bonus = make("count", spaces.Discrete(5))
    walk = steps([0, 0, 0, 0, 1], [2, 2, 2, 2, 2], [1, 1, 1, 1, 1])
    assert bonus.of_steps(walk).flatten().tolist() == [1] * 5
    assert float(bonus.learn(walk, draw())["bonus_counted"]) == 2
    again = steps([0, 1, 0], [2, 2, 1], [1, 1, 1])
    assert bonus.of_steps(again).flatten().tolist() == [0.5, 1, 1]


def test_indices_and_bits_have_entries_of_their_own_and_many_share():
    bonus = make("count", spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([2, 2]))
    pairs = torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(2), torch.arange(2))
    entries = bonus.entries(Steps(pairs[:, :2], pairs[:, 2:], pairs[:, :2]))
    assert sorted(entries.tolist()) == list(range(24))
    bits = make("count", spaces.MultiBinary(3), spaces.Box(-1, 1, (2,), np.float32))
    assert len(bits.counts) == 8
    obs = torch.tensor([[1, 0, 1]], dtype=torch.int8)
    assert bits.entries(Steps(obs, torch.zeros(1, 2), obs)).tolist() == [5]
    many = make("count", spaces.MultiDiscrete([2**31 - 1] * 3))
    obs = torch.tensor([[2**31 - 2] * 3, [1, 2, 3]])
    entries = many.entries(Steps(obs, torch.tensor([0, 1]), obs))
    assert len(many.counts) == ROOM
    assert (entries >= 0).all()
    assert (entries < ROOM).all()


def test_vectors_are_counted_by_the_signs_of_random_projections():
    bonus = make("count", spaces.Box(np.float32([0, -np.inf]), np.float32([10, np.inf])))
    obs = torch.tensor([[9.0, 1.0], [9.01, 1.0], [1.0, -1.0]])
    entries = bonus.entries(Steps(obs, torch.zeros(3, dtype=torch.int64), obs))
    assert entries[0] == entries[1] != entries[2]
    centre, scale, _ = bonus._hash
    assert centre.tolist() == [5, 0]
    assert scale.tolist() == pytest.approx([0.2, 1])


@pytest.mark.parametrize("name", ["rnd", "icm"])
def test_what_was_seen_often_is_familiar_and_the_rest_is_not(name):
    bonus = make(name, bonus_epochs=60, bonus_batch_size=64)
    obs = torch.eye(4)
    there = [0, 1, 0, 1, 0, 1]
    known = steps(obs[there], [1] * 6, obs[[1, 0, 1, 0, 1, 0]])
    new = steps(obs[[2, 3]], [1, 1], obs[[3, 2]])
    before = bonus.of_steps(known).mean(), bonus.of_steps(new).mean()
    bonus.learn(known, draw())
    after = bonus.of_steps(known).mean(), bonus.of_steps(new).mean()
    assert after[0] < 0.1 * before[0]
    assert after[1] > 5 * after[0]


def test_the_random_network_stays_as_it_was():
    bonus = make("rnd")
    before = [parameter.clone() for parameter in bonus.target.parameters()]
    bonus.learn(some_steps(), draw())
    assert all(torch.equal(one, other) for one, other in zip(before, bonus.target.parameters(), strict=True))


def test_the_inverse_model_shapes_the_features_of_icm():
    """The action is the change of the first number; the other three are noise."""
    bonus, generator = make("icm", bonus_epochs=30), draw(1)
    action = torch.randint(3, (60, 8), generator=generator)
    obs = torch.rand(60, 8, 4, generator=generator)
    following = torch.rand(60, 8, 4, generator=generator)
    following[..., 0] = obs[..., 0] + action - 1
    played = Steps(obs, action, following, torch.zeros(60, 8, dtype=torch.bool))
    first = bonus._losses(played.flat())["bonus_inverse_loss"]
    bonus.learn(played, draw())
    assert bonus._losses(played.flat())["bonus_inverse_loss"] < 0.5 * first


def test_whitened_codes_are_uncorrelated_and_pairs_are_compared_there():
    codes = torch.randn(4000, 3, generator=draw()) @ torch.tensor([[3.0, 1, 0], [0, 2, 1], [0, 0, 0.5]]) + 7
    white = whitened(codes)
    assert torch.allclose(white.T @ white / 3999, torch.eye(3), atol=0.01)
    assert white.mean(0).abs().max() < 1e-4
    assert w_mse(codes, codes) == 0
    assert float(w_mse(codes[:2000], codes[2000:])) == pytest.approx(2, abs=0.1)


def test_a_dead_feature_does_not_break_whitening():
    codes = torch.randn(50, 3, generator=draw())
    codes[:, 1] = 4.0
    assert whitened(codes).isfinite().all()


@pytest.mark.parametrize("forgets", [True, False])
def test_the_world_model_remembers_from_rollout_to_rollout(forgets):
    """Steps seen in two parts have the bonuses of steps seen at once."""
    played = some_steps(20)
    whole, parts = (make("lwm", bonus_reset=forgets) for _ in range(2))
    expected = whole.of_steps(played)
    found = torch.cat([parts.of_steps(played.of(slice(0, 7))), parts.of_steps(played.of(slice(7, None)))])
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(whole.hidden, parts.hidden, atol=1e-6)


def test_the_world_model_forgets_at_the_end_of_an_episode_only_if_it_is_to():
    played = some_steps(3)
    ends = torch.zeros(3, 8, dtype=torch.bool)
    ends[1, 2] = True
    for forgets in (True, False):
        one, other = make("lwm", bonus_reset=forgets), make("lwm", bonus_reset=forgets)
        same = one.of_steps(played._replace(ended=ends)) == other.of_steps(played._replace(ended=ends & False))
        assert same[:2].all()  # what ends an episode is still predicted from it
        assert same[2].tolist() == [k != 2 or not forgets for k in range(8)]


def test_the_world_model_learns_from_each_step_once_and_keeps_the_rest():
    bonus = make("lwm")
    length = 32  # 256 pairs of 8 streams
    for first, last, waiting in ((0, 20, 20), (20, 40, 8), (40, 60, 28), (60, 80, 16)):
        part = some_steps(80).of(slice(first, last))
        bonus.of_steps(part)
        losses = bonus.learn(part, draw())
        assert bool(losses) == (first in (20, 60))
        assert sum(len(kept.action) for kept, _ in bonus._waiting) == waiting == last % length
    kept, remembered = bonus._waiting[0]
    assert torch.equal(kept.obs, some_steps(80).obs[64:])
    assert remembered.shape == (16, 8, 32)


def test_bits_are_predicted_as_they_are():
    bits = spaces.MultiBinary(4)
    bonus = make("lwm", bits, bonus_epochs=40)
    obs = torch.zeros(65, 4, 4, dtype=torch.int8)
    obs[::2, :, 0] = 1
    played = Steps(obs[:-1], torch.zeros(64, 4, dtype=torch.int64), obs[1:], torch.zeros(64, 4, dtype=torch.bool))
    assert bonus.encoder is None
    before = bonus.of_steps(played).mean()
    bonus.learn(played, draw())
    bonus.hidden = None
    assert bonus.of_steps(played).mean() < 0.3 * before


def test_pairs_are_of_one_episode():
    """An encoder whose pairs crossed the ends of episodes would pair what has nothing in common."""
    bonus, length = make("lwm", bonus_features=2), 64
    place = torch.arange(length + 1).float()
    obs = torch.stack([place, 100 * (place // 2), 0 * place, 0 * place], 1).unsqueeze(1).repeat(1, 6, 1)
    ended = (torch.arange(length) % 2 == 1).unsqueeze(1).repeat(1, 6)
    following = obs[1:].clone()
    following[1::2, :, 1] = obs[:-1][1::2, :, 1]  # the last observation of an episode is still its own
    seen = []
    bonus.encoder.forward = lambda part: seen.append(part) or part[:, :2] + torch.randn(len(part), 2)
    bonus._encoder_loss(Steps(obs[:-1], torch.zeros(length, 6), following, ended), draw())
    first, second = seen
    assert torch.equal(first[:, 1], second[:, 1])
    assert sorted(set((second - first)[:, 0].tolist())) == [1.0, 2.0]


@pytest.mark.parametrize("name", BONUSES)
@pytest.mark.parametrize("space", [VECTOR, PICTURE], ids=["vector", "image"])
def test_a_restored_bonus_goes_on_bit_for_bit(name, space):
    one, other = make(name, space), make(name, space)
    played, more = some_steps(40, space=space), some_steps(40, seed=1, space=space)
    one.of_steps(played)
    one.learn(played, draw(1))
    other.load_state_dict({key: value.clone() for key, value in one.state_dict().items()})
    found = []
    for bonus in (one, other):
        new = bonus.of_steps(more)
        found.append((new, bonus.learn(more, draw(2)), bonus.state_dict()))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][0].isfinite().all()
    assert found[0][2].keys() == found[1][2].keys()
    assert all(torch.equal(value, found[1][2][key]) for key, value in found[0][2].items())


def test_what_follows_is_the_last_observation_where_an_episode_ends():
    agent = make_agent("ppo", THREE)
    rollout = made_up_rollout(agent, (6, 5, 2), ends=0.3)
    found = steps_of(rollout)
    for t in range(6):
        for copy in range(5):
            ends = bool(rollout.terminated[t, copy] | rollout.truncated[t, copy])
            after = rollout.obs[t + 1, copy] if t < 5 else rollout.last_obs[copy]
            expected = rollout.final_obs[t, copy] if ends else after
            assert torch.equal(found.next_obs[t, 2 * copy : 2 * copy + 2], expected)
            assert found.ended[t, 2 * copy : 2 * copy + 2].tolist() == [ends, ends]


def test_codes_and_guesses_of_continuous_and_composed_actions():
    box = ActionCode(spaces.Box(-2, 2, (2,), np.float32))
    assert box.width == 2
    assert float(box.guess_loss(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))) == 5
    several = ActionCode(spaces.MultiDiscrete([2, 3]))
    guess = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0]])
    loss = float(several.guess_loss(guess, torch.tensor([[0, 2]])))
    assert loss == pytest.approx((math.log(2) + math.log(3)) / 2)


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("count", spaces.Dict({"a": THREE, "b": VECTOR})),
        ("lwm", spaces.Dict({"a": THREE})),
        ("lwm", spaces.Discrete(5000)),
    ],
)
def test_observations_that_do_not_fit_are_refused_by_name(name, space):
    with pytest.raises(AgentError, match=f"^bonus: got '{name}' with "):
        make(name, space)
