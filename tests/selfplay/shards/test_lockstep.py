"""Shards of a process take turns, and sums are in their order."""

import pytest
import torch

from mlbits.agents.kernels import shards
from mlbits.selfplay.shards.lockstep import Lockstep, OutOfStepError


def in_step(works, exchange=lambda value: value):
    lockstep = Lockstep(len(works), len(works), exchange)
    try:
        return lockstep.run(works)
    finally:
        lockstep.close()


def test_each_gets_what_all_have_laid_down():
    def work(k):
        first = shards.gather(torch.tensor([float(k)]))
        second = shards.gather(first.sum() * k)
        return first[:, 0].tolist(), second.tolist(), shards.number()

    wanted = ([0.0, 1.0, 2.0], [0.0, 3.0, 6.0], 3)
    assert in_step([lambda k=k: work(k) for k in range(3)]) == [wanted] * 3


def test_sums_are_in_the_order_of_the_shards():
    values = [1e8, 1.0, -1e8, 1.0]  # in float32 the sum depends on the order
    found = in_step([lambda v=value: shards.total(torch.tensor(v)) for value in values])
    by_hand = ((torch.tensor(1e8) + 1.0) - 1e8) + 1.0
    assert [float(one) for one in found] == [float(by_hand)] * 4 == [1.0] * 4


def test_again_and_again_with_the_same_threads():
    lockstep = Lockstep(3, 3, lambda value: value)
    for turn in range(20):
        works = [lambda part=k + turn: int(shards.total(torch.tensor(part))) for k in range(3)]
        assert lockstep.run(works) == [3 + 3 * turn] * 3
    lockstep.close()


def test_moments_are_those_of_all_values():
    parts = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0]), torch.tensor([])]
    found = in_step([lambda p=part: shards.mean_and_deviation(p) for part in parts])
    everything = torch.cat(parts)
    for mean, deviation in found:
        assert float(mean) == pytest.approx(float(everything.mean()))
        assert float(deviation) == pytest.approx(float(everything.std()))


def test_rows_weigh_the_same():
    parts = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0])]
    found = in_step([lambda p=part: float(shards.mean(p.mean(), shards.weight(len(p)))) for part in parts])
    assert found == [pytest.approx(4.0)] * 2
    assert in_step([lambda n=n: (shards.least(n), shards.total_count(n)) for n in (3, 1)]) == [(1, 4)] * 2


def test_alone_nothing_changes():
    value = torch.rand(5)
    assert shards.number() == 1
    assert shards.total(value) is value
    assert shards.mean(value, 3.0) is value
    assert shards.weight(7) == 1.0
    assert [float(one) for one in shards.mean_and_deviation(value)] == [float(value.mean()), float(value.std())]


def test_the_first_error_is_raised_and_ends_all():
    def fails():
        shards.gather(torch.tensor(0.0))
        raise ValueError("broken")

    def goes_on():
        shards.gather(torch.tensor(0.0))
        shards.gather(torch.tensor(0.0))

    for works in ([fails, goes_on, goes_on], [goes_on, fails, goes_on], [goes_on, goes_on, fails]):
        lockstep = Lockstep(3, 3, lambda value: value)
        with pytest.raises(ValueError, match="broken"):
            lockstep.run(works)
        assert lockstep.run([lambda: shards.number()] * 3) == [3, 3, 3]  # and can be used again
        lockstep.close()


def test_an_error_of_the_exchange_is_raised():
    def exchange(value):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        in_step([lambda: shards.gather(torch.tensor(0.0))] * 2, exchange)


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_shards_that_exchange_different_things_are_refused(odd):
    works = [lambda: shards.gather(torch.zeros(2))] * 3
    works[odd] = lambda: shards.gather(torch.zeros(3))
    with pytest.raises(OutOfStepError, match="wanted the same of each"):
        in_step(works)


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_shards_that_exchange_more_than_others_are_refused(odd):
    works = [lambda: shards.gather(torch.zeros(2))] * 3
    works[odd] = lambda: None
    with pytest.raises(OutOfStepError, match="equal steps"):
        in_step(works)


def test_checksums_tell_weights_that_moved_apart():
    weights = [torch.zeros(3), torch.zeros(3)]
    lockstep = Lockstep(2, 2, lambda value: value)
    lockstep.run([lambda w=w: shards.moved(w) for w in weights])
    one, other = lockstep.checksums()
    assert one == other
    lockstep.run([lambda w=w: shards.moved(w) for w in weights])
    weights[1][0] = 1e-30
    one, other = lockstep.checksums()
    assert one != other
    lockstep.close()
