"""MLPs side by side: each gives what it gives alone, in plain torch and in the kernel; policies for all spaces."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError
from mlbits.agents.kernels.stacked_mlp_kernel import PackedMLPs
from mlbits.agents.population.policies import Policies
from mlbits.agents.population.stacked_mlp import StackedMLP
from tests.agents.rollouts import draw

BOX = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))


def stacked(form, count):
    return torch.stack([form.initial(draw(k)) + 0.3 * torch.randn(form.size, generator=draw(k)) for k in range(count)])


def alone(form, row, inputs):
    """One MLP by ordinary layers, from its row."""
    at = 0
    for layer, (before, after) in enumerate(form.shapes):
        matrix, bias = row[at : at + before * after].view(before, after), row[at + before * after :][:after]
        at += (before + 1) * after
        inputs = inputs @ matrix + bias
        if layer < len(form.shapes) - 1:
            inputs = torch.tanh(inputs) if form.activation == "tanh" else torch.relu(inputs)
    return inputs


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_each_is_what_it_is_alone(activation):
    form = StackedMLP((3, 5, 4, 2), activation)
    weights, inputs = stacked(form, 6), torch.randn(6, 7, 3, generator=draw())
    out = form.outputs(weights, inputs)
    for k in range(6):
        assert torch.allclose(out[k], alone(form, weights[k], inputs[k]), atol=1e-6)
    shared = form.outputs(weights, inputs[0])
    assert torch.allclose(shared[4], alone(form, weights[4], inputs[0]), atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("squash", [True, False])
def test_the_kernel_gives_what_torch_gives(activation, squash):
    form = StackedMLP((3, 5, 4, 2), activation)
    for count in (1, 64, 131):  # part of a block, a whole one, several
        weights, inputs = stacked(form, count), 4 * torch.randn(count, 3, generator=draw(1))
        plain = form.outputs(weights, inputs[:, None])[:, 0]
        fast = PackedMLPs(form.widths, activation == "relu", squash, weights)(inputs)
        assert torch.allclose(fast, torch.tanh(plain) if squash else plain, atol=2e-6, rtol=1e-5)


def test_the_kernels_tanh_is_right_far_out():
    weights = torch.tensor([[1.0, 0.0]]).expand(81, 2)
    x = torch.linspace(-40, 40, 81)[:, None]
    assert torch.allclose(PackedMLPs((1, 1), False, True, weights)(x), torch.tanh(x), atol=4e-7)


def test_weights_of_another_form_are_named():
    form = StackedMLP((3, 5, 2), "tanh")
    with pytest.raises(AgentError, match=r"weights: got \(2, 9\) for inputs \(2, 1, 3\); wanted \[N, 32\]"):
        form.outputs(torch.zeros(2, 9), torch.zeros(2, 1, 3))


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (spaces.Box(-1, 1, (4,), np.float32), BOX),
        (spaces.Box(-1, 1, (2, 2), np.float32), spaces.Discrete(3)),
        (spaces.Discrete(5), spaces.MultiDiscrete([2, 3])),
        (spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(-1, 1, (2,), np.float32)), BOX),
    ],
)
def test_policies_side_by_side_decide_as_one_by_one(observations, actions, each):
    form = Policies(observations, actions, (8,), "tanh")
    weights = stacked(form.mlp, 4)
    observations.seed(0)
    seen = [observations.sample() for _ in range(4 * each)]
    if isinstance(observations, spaces.Dict):
        obs = {key: torch.as_tensor(np.array([s[key] for s in seen])) for key in observations}
    else:
        obs = torch.as_tensor(np.array(seen))
    masks = torch.tensor([False, True, True]).expand(4 * each, 3) if isinstance(actions, spaces.Discrete) else None
    found = form.deciding(weights, each)(obs, masks).clone()
    for k in range(4):
        part = slice(k * each, (k + 1) * each)
        own = {key: value[part] for key, value in obs.items()} if isinstance(obs, dict) else obs[part]
        single = form.decide(weights[k : k + 1], own, None if masks is None else masks[part])
        assert torch.allclose(found[part].double(), single.double(), atol=1e-5)
    assert all(actions.contains(action) for action in found.numpy().astype(actions.dtype))
    if masks is not None:
        assert 0 not in found


def test_what_a_policy_does_is_compared_in_units_of_its_actions():
    form = Policies(spaces.Box(-1, 1, (1,), np.float32), BOX, (4,), "tanh")
    weights, states = stacked(form.mlp, 2), torch.randn(6, 1, generator=draw())
    acts = form.behaviour(weights, states)
    played = form.decide(weights[:1], states, None)
    assert torch.allclose(acts[0] * torch.tensor([2.0, 0.5]) + torch.tensor([0.0, 0.5]), played, atol=1e-6)
    form = Policies(spaces.Box(-1, 1, (1,), np.float32), spaces.MultiDiscrete([2, 3]), (4,), "tanh")
    acts = form.behaviour(stacked(form.mlp, 2), states)
    assert torch.allclose(acts[..., :2].sum(-1), torch.ones(2, 6))
    assert torch.allclose(acts[..., 2:].sum(-1), torch.ones(2, 6))


def test_spaces_without_bounds_and_images_are_named():
    with pytest.raises(AgentError, match=r"action space: got .*; wanted one with bounds"):
        Policies(spaces.Box(-1, 1, (1,), np.float32), spaces.Box(-np.inf, np.inf, (1,), np.float32), (4,), "tanh")
    with pytest.raises(AgentError, match=r"observation space: got .*, images; wanted vectors or indices"):
        Policies(spaces.Box(0, 255, (48, 48, 3), np.uint8), BOX, (4,), "tanh")
