"""Messages between processes, and how a lost one is said; the group here has one member."""

import importlib
from datetime import timedelta

import pytest
import torch

from mlbits.selfplay.shards.links import Group, GroupLostError, Order, Orders, packed, unpacked


@pytest.fixture
def group():
    store = importlib.import_module("torch.distributed").HashStore()
    store.set_timeout(timedelta(seconds=5))
    made = Group(store, 0, [range(2)], 5.0)
    yield made
    made._alive = lambda: True  # so that a lost group is ended too
    made.close()


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 20_000])
def test_messages_of_any_length_arrive_whole(group, size):
    message = bytes(k % 251 for k in range(size))
    assert group.exchange(message) == [message]
    assert group.bring(message) == [message]
    assert group.hand_out([message]) == message


def test_tensors_and_orders_arrive_as_they_were(group):
    value = torch.randn(2, 3, dtype=torch.float64)
    assert torch.equal(group.gather(value), value)
    orders = Orders(Order.ITERATE, 2**40, 1 / 3)
    assert group.order(orders) == orders
    assert group.communicating > 0


def test_plain_data_and_tensors_are_one_message():
    tensors = {"a.b": torch.arange(3), "empty": torch.zeros(0, 2), "flag": torch.tensor(True)}
    plain, found = unpacked(packed({"x": [1, None, float("nan")]}, tensors))
    assert plain["x"][:2] == [1, None]
    assert plain["x"][2] != plain["x"][2]
    assert sorted(found) == sorted(tensors)
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in found)


def test_one_that_does_not_begin_is_said(group):
    group.wait_for_all("begun", 1.0)
    group.places = [range(1), range(1, 2)]
    with pytest.raises(GroupLostError, match=r"^workers: one of 2 has not restored after 0.05 seconds$"):
        group.wait_for_all("restored-1", 0.05)
    with pytest.raises(GroupLostError, match=r"^workers: the group of 2 is lost$"):  # and stays so
        group.exchange(b"")


def test_one_that_is_gone_is_not_waited_for(group):
    group.places, group._alive = [range(1), range(1, 2)], lambda: False
    with pytest.raises(GroupLostError, match=r"^workers: one of 2 is gone$"):
        group.wait_for_all("begun", 60.0)
