"""The example networks train, and their weights move."""

import own_networks
import pytest
import torch

from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session


@pytest.mark.parametrize("settings", [{"encoder": own_networks.make_encoder}, {"model": own_networks.PolicyAndValue}])
def test_they_are_trained(settings):
    """One rollout of PPO."""
    run = {"num_envs": 4, "device": "cpu"}
    own = {"num_steps": 8, "minibatches": 2, **settings}
    session = open_session(resolve("ppo", "mlbits/CartPole-v0", preset="none", run=run, agent_settings=own))
    before = session.learner.state_dict()
    session.learn(session.collect()[0])
    moved = [name for name, value in session.learner.state_dict().items() if not torch.equal(value, before[name])]
    assert any(".encoder." in name or ".own." in name for name in moved)
