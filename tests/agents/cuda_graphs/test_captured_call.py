"""A captured call gives what its function gives, on a CPU and on the stand-in for a card."""

import pytest
import torch

from mlbits.agents.agent import AgentError
from mlbits.agents.cuda_graphs.captured_call import CapturedCall
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.evals.benchmarks.stand_in_gpu import stand_in_gpu


def trained(device, graphs, steps=6):
    """A small network after some steps of Adam on random inputs, and the losses."""
    generator = torch.Generator(device).manual_seed(3)
    start = torch.Generator().manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    for part in network.parameters():
        part.data.normal_(generator=start)
    network.to(device)
    optimizer = FlatAdam(network.parameters(), 0.05, 0.5)
    weight = torch.zeros((), device=device)

    def step():
        rows = torch.randn(16, 3, generator=generator, device=device)
        optimizer.zero_grad()
        loss = weight * (network(rows) - rows.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    call = CapturedCall(step, torch.device(device), [generator]) if graphs else step
    losses = []
    for k in range(steps):
        weight.fill_(1 + k)  # what changes is read from a tensor
        losses.append(call().cpu().item())
    return losses, optimizer.flat.detach().cpu().tolist(), generator.get_state().tolist()


def test_on_a_cpu_it_is_the_function():
    assert trained("cpu", True) == trained("cpu", False)


def test_a_graph_repeats_the_function_bit_for_bit():
    with stand_in_gpu():
        wanted = trained("cuda", False)
    with stand_in_gpu() as counts:
        found = trained("cuda", True)
    assert found == wanted
    assert counts.launches["graph"] == 5  # the first call ran the function itself


def test_numbers_of_python_are_those_of_the_capture():
    """What a graph cannot do: it is why callers put what changes into tensors."""
    with stand_in_gpu():
        total, number = torch.zeros((), device="cuda"), {"is": 1.0}
        add = CapturedCall(lambda: total.add_(number["is"]), total.device)
        for value in (1.0, 10.0, 100.0):
            number["is"] = value
            add()
        assert total.cpu().item() == 1 + 10 + 10


@pytest.mark.parametrize(
    "function",
    [lambda total: total.item(), lambda total: total.cpu(), lambda total: total.nonzero()],
    ids=["item", "cpu", "nonzero"],
)
def test_what_waits_cannot_be_captured(function):
    with stand_in_gpu():
        total = torch.zeros(3, device="cuda")[0]
        call = CapturedCall(lambda: function(total), total.device)
        call()
        with pytest.raises(AgentError, match=r"this run cannot be captured as a CUDA graph \(operation not perm"):
            call()


def test_a_generator_that_was_not_named_is_refused():
    with stand_in_gpu():
        generator = torch.Generator("cuda")
        call = CapturedCall(lambda: torch.randn(2, generator=generator, device="cuda"), torch.device("cuda"))
        call()
        with pytest.raises(AgentError, match="generator"):
            call()
