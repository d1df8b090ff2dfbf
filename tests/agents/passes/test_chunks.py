"""Gradients of chunks, computed side by side or one by one: the same numbers, and the same errors."""

import os
import threading

import pytest
import torch
from gymnasium import spaces

from mlbits.agents.passes import chunks as module
from mlbits.agents.passes.chunks import Chunks
from mlbits.agents.ppo import PPO, PPOConfig
from tests.agents.rollouts import draw


class Choice:
    """Chooses as it is told, and keeps the times that it is given."""

    def __init__(self, answer):
        self.answer, self.times = answer, []

    def several(self):
        return self.answer

    def note(self, seconds):
        self.times.append(seconds)


def network_and_losses(count=5):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(7, 33), torch.nn.Tanh(), torch.nn.Linear(33, 3))
    rows = torch.randn(count, 101, 7, generator=draw(1))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return list(network.parameters()), [lambda k=k: (network(rows[k]).square().mean(), k) for k in range(count)]


def gradients(cores, count=5):
    parameters, losses = network_and_losses(count)
    assert Chunks(cores).backward(parameters, losses) == list(range(count))
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


@pytest.mark.parametrize("cores", [2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_sum_is_that_of_one_core_bit_for_bit(cores, count):
    parameters, losses = network_and_losses(count)
    for loss_of in losses:
        loss_of()[0].backward()
    wanted = torch.cat([parameter.grad.flatten() for parameter in parameters])
    for _ in range(5):
        assert torch.equal(gradients(cores, count), wanted)


@pytest.mark.parametrize("chunk", [1, 2, 5, 8])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_mean_over_chunks_is_that_of_all_rows(chunk, weight):
    """Five rows, whose chunks differ in size: of w x the gradient is the mean of x, and x itself is measured."""
    x, parameter = torch.tensor([1.0, 2, 4, 8, 16]), torch.nn.Parameter(torch.ones(1))
    parameter.grad = torch.zeros(1)

    def loss_of(rows):
        return (parameter * x[rows]).mean(), {"x": x[rows].mean()}

    found = Chunks().mean_loss([parameter], loss_of, len(x), chunk, weight)
    assert float(found["x"]) == pytest.approx(weight * 6.2)
    assert parameter.grad.item() == pytest.approx(weight * 6.2)


def test_chunks_really_run_side_by_side_on_one_torch_thread_each():
    """Each of two chunks waits until the other has begun."""
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.zeros(1)
    both, seen = threading.Barrier(2), []

    def loss_of():
        both.wait(30)
        seen.append((threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))
        return weight.sum(), None

    Chunks(2).backward([weight], [loss_of, loss_of])
    assert len({thread for thread, _, _ in seen}) == 2
    assert {(threads, enabled) for _, threads, enabled in seen} == {(torch.get_num_threads(), True)}
    assert weight.grad.item() == 2


def test_an_unused_parameter_keeps_its_gradient():
    used, unused = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    used.grad, unused.grad = torch.zeros(1), torch.full((1,), 3.0)
    Chunks(2).backward([used, unused], [lambda: ((2 * used).sum(), None)] * 2)
    assert (used.grad.item(), unused.grad.item()) == (4.0, 3.0)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_an_error_of_any_chunk_is_raised_when_all_have_stopped(wrong):
    weight, done = torch.nn.Parameter(torch.ones(1)), []
    weight.grad = torch.zeros(1)

    def loss_of(k):
        if k == wrong:
            raise ValueError(f"chunk {k}")
        done.append(k)
        return weight.sum(), k

    with pytest.raises(ValueError, match=f"chunk {wrong}"):
        Chunks(2).backward([weight], [lambda k=k: loss_of(k) for k in range(3)])
    assert weight.grad.item() == 0


@pytest.mark.parametrize("several", [True, False])
def test_the_choice_decides_and_is_told_the_time(several, monkeypatch):
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    used = []
    original = module._side_by_side
    monkeypatch.setattr(module, "_side_by_side", lambda *given: used.append(given[2]) or original(*given))
    parameters, losses = network_and_losses()
    found = Chunks()
    found._choice = Choice(several)
    found.backward(parameters, losses)
    assert used == ([2] if several else [])
    assert len(found._choice.times) == 1
    found.backward(parameters, losses[:1])  # nothing to choose
    monkeypatch.setattr(module, "usable_cores", lambda: 1)
    found.backward(parameters, losses)
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    found.backward(parameters, losses)
    assert len(found._choice.times) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_has_threads_of_its_own():
    gradients(2)
    pid = os.fork()
    if pid == 0:
        module._threads.run(lambda: None, 2)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_ppo_learns_the_same_on_any_number_of_cores():
    found = []
    for cores in (1, 2, 3):
        agent = PPO(PPOConfig(hidden=(64, 64)), spaces.Box(-1, 1, (4,)), spaces.Discrete(3), seed=2)
        agent.chunks, agent.core.chunk = Chunks(cores), 100
        rows, generator = 730, draw(4)
        data = {
            "obs": torch.randn(rows, 4, generator=generator),
            "sample": torch.randint(3, (rows,), generator=generator),
            "log_prob": torch.full((rows,), -1.1),
            "advantage": torch.randn(rows, generator=generator),
            "target": torch.randn(rows, generator=generator),
        }
        for _ in range(3):
            metrics = agent._step(data, torch.randperm(rows, generator=generator), 0.2)
        found.append(({name: float(value) for name, value in metrics.items()}, agent.state_dict()))
    for metrics, state in found[1:]:
        assert metrics == found[0][0]
        assert all(torch.equal(state[name], value) for name, value in found[0][1].items())
