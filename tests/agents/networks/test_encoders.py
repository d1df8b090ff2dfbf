"""Published encoders: shapes and sizes, what they refuse, and that agents learn through them by name."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError
from mlbits.agents.networks import encoders
from tests.agents.networks.test_augmentation import IMAGE, FixedReplay, transitions
from tests.agents.rollouts import draw, make_agent
from tests.agents.test_ddpg import TWO


def test_the_published_sizes():
    """DrQ: 39,200 numbers of pictures of 84 pixels, then 50; Mnih et al.: 3,136, then 512."""
    frames = spaces.Box(0, 255, (9, 84, 84), np.uint8)
    made = encoders.drq(frames, draw())
    assert made.linear.weight.shape == (50, 39_200)
    assert [layer.stride for layer in made.convolutions] == [(2, 2), (1, 1), (1, 1), (1, 1)]
    assert encoders.mnih(frames, draw()).linear.weight.shape == (512, 3136)
    assert encoders.small(spaces.Box(0, 255, (32, 32), np.uint8), draw()).linear.weight.shape == (50, 128)


@pytest.mark.parametrize("shape", [(2, 20, 24), (20, 24, 3), (20, 24)])
def test_every_layout_of_pictures(shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    made = encoders.drq(space, draw())
    seen = torch.randint(256, (5, *shape), generator=draw(), dtype=torch.uint8)
    features = made(seen).detach()
    assert features.shape == (5, 50)
    assert float(features.abs().max()) < 1
    assert float(features.std(0).min()) > 0
    same = encoders.drq(space, draw())
    assert torch.equal(same(seen), features)
    assert not torch.equal(encoders.drq(space, draw(1))(seen), features)


@pytest.mark.parametrize(
    ("name", "space", "said"),
    [
        ("drq", spaces.Box(-1, 1, (4,)), r"encoder: drq reads pictures; got the observation space Box"),
        ("mnih", IMAGE, "encoder: mnih has no output for pictures of 10x10; wanted larger ones"),
    ],
)
def test_what_an_encoder_cannot_read_is_named(name, space, said):
    with pytest.raises(AgentError, match=said):
        make_agent("sac", TWO, space, encoder=name)


def test_an_agent_learns_through_a_published_encoder():
    agent = make_agent("sac", TWO, IMAGE, encoder="small", learning_starts=0, hidden=(8,), shift=1)
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    agent.learn(FixedReplay(transitions(IMAGE), 1), 0.5, draw())
    after = agent.state_dict()
    moved = {name for name in before if "convolutions.0.weight" in name and not torch.equal(before[name], after[name])}
    networks = {name.partition(".")[0] for name in moved}
    assert networks == {"actor", "critics", "target_critics"}
