"""The stand-in GPU: what it counts, what it refuses as a card does, and that it leaves nothing behind."""

import pytest
import torch

import mlbits
from mlbits.evals.benchmarks.stand_in_gpu import Counts, stand_in_gpu


def counted(counts, call):
    before = counts.snapshot()
    call()
    return counts.since(before)


def test_operations_are_counted_and_computed():
    with stand_in_gpu() as counts:
        one = torch.ones(3, 4, device="cuda")
        assert (one.device.type, one.is_cuda, one.is_cpu) == ("cuda", True, False)
        assert counted(counts, lambda: one + 1) == Counts(0, 0, 1)
        assert counted(counts, lambda: one[1:].view(-1)) == Counts()  # views start nothing
        assert counted(counts, lambda: torch.empty(5, device="cuda")) == Counts()
        one[0].add_(2)
        assert one.cpu().tolist() == [[3.0] * 4, [1.0] * 4, [1.0] * 4]


@pytest.mark.parametrize(
    ("read", "wanted"),
    [
        (lambda x: float(x.sum()), Counts(1, 1, 1)),
        (lambda x: x.tolist(), Counts(1, 1, 0)),
        (lambda x: x.cpu(), Counts(1, 1, 0)),
        (lambda x: bool((x > 0).any()), Counts(1, 1, 2)),
        (lambda x: x.nonzero(), Counts(1, 0, 1)),
        (lambda x: x[x > 0], Counts(1, 0, 2)),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), Counts(1, 1, 0)),
        (lambda x: torch.ones(2).to(x.device), Counts(1, 1, 0)),
        (lambda x: torch.ones(2).pin_memory().to(x.device, non_blocking=True), Counts(0, 1, 0)),
        (lambda x: x.__setitem__(x > 1, 0.0), Counts(0, 0, 2)),  # one number is put there by a mask
        (lambda x: x.__setitem__(x > 1, x[:1]), Counts(1, 0, 2)),
        (lambda x: x.to("cuda"), Counts()),
    ],
)
def test_waits_and_copies_are_counted(read, wanted):
    with stand_in_gpu() as counts:
        values = torch.arange(2.0, device="cuda")
        assert counted(counts, lambda: read(values)) == wanted


def test_what_a_card_refuses_is_refused():
    with stand_in_gpu():
        one = torch.ones(2, device="cuda")
        with pytest.raises(TypeError, match="can't convert cuda"):
            one.numpy()
        with pytest.raises(RuntimeError, match="same device"):
            one + torch.ones(2)
        assert (one + torch.ones(())).tolist() == [2.0, 2.0]  # a number is not a tensor of the host
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device="cuda", generator=torch.Generator())


def test_gradients_pass_through():
    with stand_in_gpu():
        weight = torch.nn.Parameter(torch.full((4, 2), 2.0, device="cuda"))
        (torch.ones(3, 4, device="cuda") @ weight).square().sum().backward()
        assert weight.grad.cpu().tolist() == [[48.0, 48.0]] * 4


def test_modules_keep_their_parameters_when_they_move():
    with stand_in_gpu():
        layer = torch.nn.Linear(2, 2)
        weight = layer.weight
        layer.to("cuda")
        assert layer.weight is weight
        assert weight.device.type == "cuda"


def test_a_game_plays_as_on_the_cpu():
    wanted, action = mlbits.make_batch("mlbits/CartPole-v0", 3, seed=2), torch.tensor([[0], [1], [0]])
    with stand_in_gpu() as counts:
        batch = mlbits.make_batch("mlbits/CartPole-v0", 3, seed=2, device="cuda", illegal="replace")
        moved = action.to("cuda")
        for _ in range(20):
            wanted.step(action)
            assert counted(counts, lambda: batch.step(moved)) == Counts(0, 0, 1)
        assert torch.equal(batch.obs.cpu(), wanted.obs)
        checked = mlbits.make_batch("mlbits/CartPole-v0", 3, device="cuda")
        assert counted(counts, lambda: checked.step(moved)).waits == 1  # illegal="error" asks the device


def test_nothing_stays_behind():
    generator, available = torch.Generator, torch.cuda.is_available
    with stand_in_gpu():
        assert torch.cuda.is_available()
        kept = torch.ones(2, device="cuda")
    assert torch.Generator is generator
    assert torch.cuda.is_available is available
    with pytest.raises(RuntimeError, match="after its end"):
        kept + 1
