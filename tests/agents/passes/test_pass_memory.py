"""Rows a pass on a GPU: what a pass keeps, and a rollout that does not fit in one go."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import pick
from mlbits.agents.passes.pass_memory import bytes_a_row
from mlbits.agents.registry import agent_entry
from mlbits.evals.benchmarks.stand_in_gpu import stand_in_gpu


def test_bytes_of_a_linear_layer():
    """It keeps its input (12 bytes), and the square keeps its output (20); the observation itself is another 12."""
    layer = torch.nn.Linear(3, 5)
    assert bytes_a_row(lambda obs: layer(obs).square(), torch.zeros(100, 3)) == 12 + 20 + 12


def test_weights_do_not_count():
    layer = torch.nn.Linear(1000, 1000)
    assert bytes_a_row(layer, torch.zeros(1, 1000)) == 4000 + 4000


def agent_on_images(device):
    entry = agent_entry("ppo")
    config = entry.config_class()(epochs=1, minibatches=1, num_steps=4)
    return entry.make(config, spaces.Box(0, 255, (4, 36, 36), np.uint8), spaces.Discrete(3), seed=0, device=device)


def gradient_of(device, monkeypatch, free):
    """The gradient of one minibatch of 64 images, and how many rows each pass had."""
    monkeypatch.setattr("mlbits.agents.passes.pass_memory.memory_bytes", lambda device: free)
    agent, source = agent_on_images(device), torch.Generator().manual_seed(2)
    data = {
        "obs": torch.randint(256, (64, 4, 36, 36), generator=source).to(torch.uint8),
        "sample": torch.randint(3, (64,), generator=source),
        "log_prob": torch.full((64,), -1.1),
        "advantage": torch.randn(64, generator=source),
        "target": torch.randn(64, generator=source),
    }
    data = {name: part.to(device) for name, part in data.items()}
    passes, loss = [], agent._loss
    agent._loss = lambda data, index, *rest: passes.append(len(index)) or loss(data, index, *rest)
    agent._gradient(data, torch.arange(64, device=device), 0.2, None)
    return agent.core.optimizer.vectors.grad.cpu(), passes


def test_what_does_not_fit_is_learned_from_in_parts(monkeypatch):
    with stand_in_gpu():
        whole, one = gradient_of("cuda", monkeypatch, free=64 << 30)
        agent = agent_on_images("cuda")
        row = bytes_a_row(agent.core.network, torch.zeros(8, 4, 36, 36, dtype=torch.uint8, device="cuda"))
        parts, several = gradient_of("cuda", monkeypatch, free=2 * 20 * row)
    assert (one, several) == ([64], [20, 20, 20, 4])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_values_are_computed_in_parts(monkeypatch):
    obs = torch.randint(256, (50, 4, 36, 36), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    with stand_in_gpu():
        agent = agent_on_images("cuda")
        wanted = agent.core.values(obs.to("cuda"), 1).cpu()
        seen, value = [], agent.core.network.value
        monkeypatch.setattr("mlbits.agents.passes.pass_memory.memory_bytes", lambda device: 1.0)
        small = agent_on_images("cuda")
        small.core.network.value = lambda rows: seen.append(len(rows)) or value(rows)
        found = small.core.values(obs.to("cuda"), 1).cpu()
    assert seen == [1] * 50  # not even one row fits: one at a time
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("count", [1, 3])
def test_few_rows_are_enough_to_measure(count):
    layer = torch.nn.Linear(4, 4)
    obs = {"a": torch.zeros(count, 4), "b": torch.zeros(count, 2)}
    assert bytes_a_row(lambda rows: layer(pick(rows, slice(None))["a"]), obs) == 16 + 16 + 8
