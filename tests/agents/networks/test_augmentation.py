"""Random shifts: pixel by pixel, in every layout of pictures; targets and updates with several of them."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError
from mlbits.agents.memory.replay import Transitions
from mlbits.agents.networks.augmentation import Augmentation, random_shift
from tests.agents.rollouts import draw, make_agent
from tests.agents.test_ddpg import TWO, FixedReplay

SPACES = {
    "channels first": spaces.Box(0, 255, (3, 9, 8), np.uint8),
    "channels last": spaces.Box(0, 255, (9, 8, 3), np.uint8),
    "grey": spaces.Box(0, 255, (9, 8), np.uint8),
}
IMAGE = spaces.Box(0, 255, (2, 10, 10), np.uint8)


@dataclasses.dataclass
class Config:
    """Settings for tests."""

    shift: int = 2
    target_shifts: int = 1
    critic_shifts: int = 1


def pictures(space, count=40, seed=0):
    return torch.randint(256, (count, *space.shape), generator=draw(seed), dtype=torch.uint8)


def transitions(space, count=6, obs=None):
    one, two = (pictures(space, count, seed) if obs is None else obs for seed in (0, 1))
    return Transitions(
        one, torch.zeros(count, 2), torch.arange(count).float(), torch.full((count,), 0.5), two, None, None, None,
        torch.arange(count),
    )  # fmt: skip


@pytest.mark.parametrize("layout", SPACES)
def test_pictures_are_moved_with_their_edges_repeated(layout):
    """Each result is one of the 25 crops of the picture padded by its edge, in all channels; all 25 occur."""
    space, seen = SPACES[layout], set()
    before = pictures(space, 200)
    shifted = Augmentation(Config(), space).both(transitions(space, obs=before)._replace(slot=None), draw())[0].obs
    axis = 2 if layout == "channels first" else 1
    for row in range(200):
        pad = [(2, 2) if k in (axis - 1, axis) else (0, 0) for k in range(len(space.shape))]
        padded = np.pad(before[row].numpy(), pad, mode="edge")
        crops = {
            (y, x): padded[(slice(None),) * (axis - 1) + (slice(y, y + 9), slice(x, x + 8))]
            for y in range(5)
            for x in range(5)
        }
        (found,) = [place for place, crop in crops.items() if np.array_equal(crop, shifted[row].numpy())]
        seen.add(found)
    assert len(seen) == 25


def test_a_shift_of_zero_changes_nothing_and_draws_nothing():
    drawn, generator = transitions(IMAGE), draw()
    before = generator.get_state()
    views, following = Augmentation(Config(0), IMAGE).both(drawn, generator)
    assert views is drawn
    assert following is drawn
    assert torch.equal(generator.get_state(), before)


def test_views_targets_and_the_actors_one():
    augmentation = Augmentation(Config(1, target_shifts=3, critic_shifts=2), IMAGE)
    drawn = transitions(IMAGE)
    views, following = augmentation.both(drawn, draw())
    assert (len(views.obs), len(following.next_obs)) == (12, 18)
    assert torch.equal(views.reward, drawn.reward.repeat(2))
    assert not torch.equal(views.obs[:6], views.obs[6:])
    assert torch.equal(views.next_obs[:6], drawn.next_obs)
    target = augmentation.target(torch.arange(18.0))
    assert target.tolist() == [6, 7, 8, 9, 10, 11] * 2  # the mean of k, k + 6 and k + 12
    assert augmentation.target(torch.zeros(18, 5)).shape == (12, 5)
    assert augmentation.mean(torch.arange(12.0)).tolist() == [3, 4, 5, 6, 7, 8]
    assert torch.equal(augmentation.first(views).obs, views.obs[:6])


def test_vectors_of_a_dict_stay():
    space = spaces.Dict({"picture": IMAGE, "vector": spaces.Box(-1, 1, (3,))})
    obs = {"picture": pictures(IMAGE, 6), "vector": torch.randn(6, 3, generator=draw())}
    views, _ = Augmentation(Config(), space).both(transitions(IMAGE, obs=obs), draw())
    assert torch.equal(views.obs["vector"], obs["vector"])
    assert not torch.equal(views.obs["picture"], obs["picture"])


def test_all_frames_move_together():
    frames = pictures(IMAGE)
    frames[:, 1] = frames[:, 0]
    shifted = random_shift(frames, 3, draw(), 2)
    assert torch.equal(shifted[:, 0], shifted[:, 1])


@pytest.mark.parametrize(
    ("config", "space", "said"),
    [
        (Config(4), spaces.Box(-1, 1, (4,)), r"shift: got the observation space Box.*; wanted pictures"),
        (Config(10), IMAGE, r"shift: got 10 for pictures of \(10, 10\); wanted less than their sides"),
        (Config(0, 2), IMAGE, "target_shifts, critic_shifts: got 2 and 1 with shift 0; wanted a shift"),
    ],
)
def test_what_cannot_be_shifted_is_named(config, space, said):
    with pytest.raises(AgentError, match=said):
        Augmentation(config, space)


@pytest.mark.parametrize("setting", ["target_shifts", "critic_shifts"])
def test_no_shifts_at_all_are_refused(setting):
    with pytest.raises(AgentError, match=rf"{setting}: got 0; wanted"):
        make_agent("sac", TWO, IMAGE, shift=2, **{setting: 0})


def as_taught(name, drawn, shifts, most=1, priority=0.0):
    actions = spaces.Discrete(3) if name == "dqn" else TWO
    settings = {"shift": most, "target_shifts": shifts, "critic_shifts": shifts} if most else {}
    settings |= {"priority_exponent": priority} if priority else {}
    agent = make_agent(name, actions, IMAGE, learning_starts=0, hidden=(8,), replay_ratio=1.0, **settings)
    if name == "dqn":
        drawn = drawn._replace(action=torch.ones(6, dtype=torch.int64))
    replay = FixedReplay(drawn._replace(weight=torch.ones(6)) if priority else drawn, 1)
    return agent, dict(agent.learn(replay, 0.5, draw())), replay


@pytest.mark.parametrize("name", ["dqn", "ddpg", "sac"])
def test_of_even_pictures_shifts_change_no_target(name):
    """Pictures of one colour look the same however they are shifted: the same loss; others have another one."""
    even = torch.full((6, 2, 10, 10), 77, dtype=torch.uint8)
    loss = "loss" if name == "dqn" else "critic_loss"
    found = []
    for drawn in (transitions(IMAGE, obs=even), transitions(IMAGE)):
        for shifts, most in ((1, 0), (2, 1)):
            found.append(float(as_taught(name, drawn, shifts, most)[1][loss]))
    if name != "sac":  # whose draws are others
        assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[2] != pytest.approx(found[3], rel=1e-6)


@pytest.mark.parametrize("name", ["dqn", "ddpg"])
def test_each_transition_has_one_priority(name):
    _, _, replay = as_taught(name, transitions(IMAGE), 2, priority=0.6)
    ((slot, error),) = replay.priorities
    assert slot.tolist() == list(range(6))
    assert error.shape == (6,)
