"""Without kernels agents run the plain code that their files show, and learn the same."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests.agents.rollouts import VECTOR, draw, make_agent
from tests.agents.test_ddpg import make as make_ddpg
from tests.agents.test_ddpg import once as once_ddpg
from tests.agents.test_ddpg import some_transitions as continuous_transitions
from tests.agents.test_dqn import once, some_transitions

THREE = spaces.Discrete(3)


def learnt(monkeypatch, setting, agent):
    """The weights after three updates, and how many of them were the plain code's."""
    monkeypatch.setenv("MLBITS_KERNELS", setting)
    made = make_agent("dqn", THREE, hidden=(16, 8)) if agent == "dqn" else make_ddpg(hidden=(16, 12))
    plain, inner = [], type(made)._loss
    monkeypatch.setattr(type(made), "_loss", lambda *given: plain.append(1) or inner(*given))
    for step in range(3):
        if agent == "dqn":
            once(made, some_transitions(seed=step))
        else:
            once_ddpg(made, continuous_transitions(seed=step))
    optimizer = made.optimizer if agent == "dqn" else made.critic_optimizer
    return optimizer.vectors, len(plain)


@pytest.mark.parametrize(("agent", "with_kernels"), [("dqn", 0), ("ddpg", 3)])
def test_the_plain_code_gives_the_same_weights(monkeypatch, agent, with_kernels):
    fast, fast_plain = learnt(monkeypatch, "1", agent)
    slow, slow_plain = learnt(monkeypatch, "0", agent)
    assert (fast_plain, slow_plain) == (with_kernels, 3)
    assert torch.allclose(fast.flat, slow.flat, atol=1e-5)
    assert torch.allclose(fast.target, slow.target, atol=1e-5)


@pytest.mark.parametrize("setting", ["1", "0"])
def test_networks_fold_and_round_with_kernels_alone(monkeypatch, setting):
    monkeypatch.setenv("MLBITS_KERNELS", setting)
    ppo, ddpg = make_agent("ppo", THREE), make_ddpg(precision="bfloat16")
    assert ppo.core.network.actor._folds == (setting == "1")
    assert ddpg.actor.mlp.rounds == (setting == "1")
    obs = torch.randn(100, *VECTOR.shape, generator=draw(1))
    wanted = torch.cat([ppo.core.network.policy(row[None]) for row in obs])
    assert np.allclose(ppo.core.network.policy(obs).detach(), wanted.detach(), atol=1e-5)
