"""The sum tree against plain sums, in both implementations: compiled searches, and torch operations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbits.agents.agent import DivergedError
from mlbits.agents.memory.sum_tree import SumTree, find_by_level, set_by_level
from mlbits.evals.benchmarks.stand_in_gpu import stand_in_gpu

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 64, 100, 1000)


def by_levels(tree):
    """A copy of a tree's nodes, for the operations that are used on a GPU."""
    return tree.nodes.clone()


def filled(values):
    tree = SumTree(len(values))
    tree.set(torch.arange(len(values)), torch.tensor(values, dtype=torch.float64))
    return tree


def plain_find(values, target):
    """The first leaf at which the cumulative sum exceeds the target, by a loop."""
    running = 0.0
    for index, value in enumerate(values):
        running += value
        if target < running:
            return index
    raise AssertionError("the target is beyond the total")


@pytest.mark.parametrize("capacity", SIZES)
def test_a_tree_has_at_least_as_many_leaves_as_its_capacity_and_less_than_twice_as_many(capacity):
    tree = SumTree(capacity)
    assert tree.capacity <= tree.size < 2 * tree.capacity
    assert len(tree.nodes) == 2 * tree.size
    assert tree.nodes.dtype == torch.float64
    assert tree.total == 0
    assert tree.get(torch.arange(capacity)).tolist() == [0.0] * capacity


@given(
    capacity=st.integers(1, 20),
    rounds=st.lists(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 1000)), max_size=8), max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_every_node_is_the_sum_of_its_leaves_after_any_changes(capacity, rounds):
    """Integers, so that sums are exact; if one change sets a leaf several times, the last value counts."""
    tree, values = SumTree(capacity), np.zeros(capacity)
    for changes in rounds:
        index = [place % capacity for place, _ in changes]
        tree.set(torch.tensor(index, dtype=torch.int64), torch.tensor([float(value) for _, value in changes]))
        for place, (_, value) in zip(index, changes, strict=True):
            values[place] = value
    assert tree.total == values.sum()
    assert tree.get(torch.arange(capacity)).tolist() == values.tolist()
    leaves = np.zeros(tree.size)
    leaves[:capacity] = values
    level = leaves
    for depth in range(tree.size.bit_length() - 1, -1, -1):
        assert tree.nodes[1 << depth : 2 << depth].tolist() == level.tolist()
        level = level.reshape(-1, 2).sum(1) if len(level) > 1 else level


@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=33).filter(any), data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_target_is_found_at_the_first_leaf_where_the_cumulative_sum_exceeds_it(values, data):
    tree = filled(values)
    quarters = data.draw(st.lists(st.integers(0, 4 * sum(values) - 1), min_size=1, max_size=10))
    target = torch.tensor([quarter / 4 for quarter in quarters], dtype=torch.float64)
    wanted = [plain_find(values, float(value)) for value in target]
    assert tree.find(target).tolist() == wanted
    assert find_by_level(by_levels(tree), target).tolist() == wanted


@pytest.mark.parametrize("capacity", SIZES)
def test_compiled_and_level_by_level_operations_agree(capacity):
    generator = torch.Generator().manual_seed(capacity)
    tree, nodes = SumTree(capacity), SumTree(capacity).nodes
    for _ in range(5):
        index = torch.randperm(capacity, generator=generator)[: max(1, capacity // 2)]
        value = torch.rand(len(index), generator=generator)
        value[value < 0.2] = 0.0
        tree.set(index, value)
        set_by_level(nodes, index, value.double())
        assert torch.equal(tree.nodes[tree.size :], nodes[tree.size :])
        torch.testing.assert_close(tree.total, nodes[1], rtol=1e-14, atol=0)  # added in another order
        if tree.total > 0:
            target = torch.rand(50, generator=generator, dtype=torch.float64) * tree.total
            assert torch.equal(tree.find(target), find_by_level(nodes, target))


def test_level_by_level_repeated_indices_leave_consistent_sums():
    """On a GPU it is not determined which of the values counts, but the sums must match the leaves."""
    nodes = SumTree(8).nodes
    set_by_level(nodes, torch.tensor([3, 3, 5, 3]), torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64))
    assert nodes[8 + 3] in (1.0, 2.0, 8.0)
    assert nodes[1] == nodes[8:].sum()


@pytest.mark.parametrize("find", [lambda tree, target: tree.find(target), lambda t, u: find_by_level(t.nodes, u)])
def test_leaves_are_sampled_in_proportion_and_zero_leaves_never(find):
    values = [0, 3, 0, 1, 0, 0, 4, 0, 0, 0.5, 1.5]
    tree, draws = filled(values), 100_000
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frequency = torch.bincount(find(tree, uniform * tree.total), minlength=len(values)).numpy() / draws
    wanted = np.array(values) / sum(values)
    assert (frequency[wanted == 0] == 0).all()
    assert (np.abs(frequency - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / draws)).all()


@pytest.mark.parametrize("values", [[1, 0], [0, 1], [0, 0, 2, 0, 0], [1, 1, 1, 0, 0, 0], [0.1] * 7 + [0]])
def test_targets_at_and_beyond_the_ends_find_leaves_that_are_not_zero(values):
    """Rounding may make a target equal to the total, or slightly greater."""
    tree = filled(values)
    total = float(tree.total)
    target = torch.tensor([0.0, np.nextafter(total, 0), total, np.nextafter(total, 9)], dtype=torch.float64)
    for found in (tree.find(target), find_by_level(tree.nodes, target)):
        assert all(values[index] > 0 for index in found.tolist())
        first, last = np.flatnonzero(values)[[0, -1]]
        assert found.tolist()[0] == first
        assert set(found.tolist()[2:]) == {last}


def test_searches_in_a_tree_of_zeros_find_existing_leaves():
    for capacity in SIZES:
        tree = SumTree(capacity)
        for found in (tree.find(torch.zeros(3)), find_by_level(tree.nodes, torch.zeros(3))):
            assert ((found >= 0) & (found < capacity)).all()


def test_a_small_leaf_among_a_million_large_ones_is_not_lost_to_rounding():
    """In float32 a million plus a millionth is rounded to a million."""
    tree = SumTree(1_000_000)
    tree.set(torch.arange(1_000_000), torch.ones(1_000_000))
    tree.set(torch.tensor([999_999]), torch.tensor([1e-6]))
    assert float(tree.total) == pytest.approx(999_999 + 1e-6, abs=1e-9)
    target = torch.tensor([999_999.0, 999_999 + 5e-7], dtype=torch.float64)
    assert tree.find(target).tolist() == [999_999, 999_999]


def test_values_of_any_type_are_accepted():
    tree = SumTree(3)
    for value in (torch.tensor([2, 1]), torch.tensor([2.0, 1.0]), torch.tensor([2.0, 1.0], dtype=torch.float64)):
        tree.set(torch.tensor([2, 0]), value)
        assert tree.get(torch.tensor([0, 1, 2])).tolist() == [1.0, 0.0, 2.0]
        assert tree.find(torch.tensor([0.5, 1.5])).tolist() == [0, 2]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -1.0])
def test_an_invalid_priority_is_rejected_and_nothing_is_set(wrong):
    tree = SumTree(5)
    tree.set(torch.arange(5), torch.arange(5.0))
    before = tree.nodes.clone()
    with pytest.raises(DivergedError, match=rf"priority: got {wrong:g} for leaf 3; wanted a finite number"):
        tree.set(torch.tensor([1, 3, 2]), torch.tensor([9.0, wrong, 9.0]))
    assert torch.equal(tree.nodes, before)
    tree.set(torch.tensor([3]), torch.tensor([0.0]))  # zero is valid
    assert float(tree.total) == 7


def test_a_gpu_takes_few_operations_for_a_million_leaves():
    """A find and a set; a level at a time they were 367."""
    with stand_in_gpu() as counts:
        tree = SumTree(1 << 20, "cuda")
        index, value = torch.arange(8, device="cuda"), torch.ones(8, device="cuda")
        before = counts.snapshot()
        tree.set(index, value)
        found = tree.find(torch.arange(8, device="cuda") + 0.5)
        now = counts.since(before)
        assert found.tolist() == list(range(8))
    assert now.waits == 0
    assert now.launches <= 80


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_a_priority_that_does_not_fit_counts_as_0_on_a_gpu(wrong):
    with stand_in_gpu():
        tree = SumTree(4, "cuda")
        tree.set(torch.arange(2, device="cuda"), torch.tensor([1.0, wrong], device="cuda"))
        assert tree.get(torch.arange(2, device="cuda")).tolist() == [1.0, 0.0]
        assert tree.total.item() == 1.0
