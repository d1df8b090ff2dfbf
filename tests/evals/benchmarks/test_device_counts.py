"""What each learner would wait for on a GPU, held to numbers; and that it computes there what it does on a CPU."""

import re
from pathlib import Path

import pytest
import torch

from mlbits.evals.benchmarks.device_counts import CASES, count, play, table
from mlbits.evals.benchmarks.stand_in_gpu import stand_in_gpu

# Waits of one iteration: when its steps are played, and when it learns. One wait of the first is the look at a whole
# rollout's rewards and ends; what is above that is waited for in its steps.
WAITS = {
    "PPO": (1, 1),
    "PPO, continuous actions": (1, 1),
    "PPO, CUDA graphs": (1, 1),
    "PPO, CUDA graphs, seats in turn": (1, 1),
    "PPO, seats in turn": (1, 1),
    "PPO, normalised": (1, 2),
    "PPO, a GRU, 4 updates": (1, 1 + 4),  # which sequences are the longest of a minibatch
    "PPO, orders, 2 updates": (1 + 2 * 8, 1 + 2),  # how many orders are legal
    "PPO, wrapped CartPole": (1 + 8, 1),  # its actions go to the CPU
    "PPO, a pool of opponents": (1 + 8, 1),  # who plays the next episode is decided by the host, at every step
    "TRPO": (1, 2),
    "REINFORCE": (1, 1),
    "DQN": (1, 1),
    "DQN, prioritised, categorical": (1, 1),
    "DQN, seats in turn": (1, 2),  # and once to see which decisions are settled
    "DDPG": (1, 1),
    "SAC": (1, 1),
    "SAC, discrete": (1, 1),
    "Q-learning": (1, 1),
    "LPG, a table": (1, 1),
    "LPG, a network": (1, 1),
    "BC, 4 updates": (0, 0),
    "CRR, 4 updates": (0, 0),
    "TD3+BC, 4 updates": (0, 0),
    "IQL, 4 updates": (0, 0),
}
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def counted():
    """Counts by name, each taken once."""
    found = {}

    def of(name):
        if name not in found:
            found[name] = count(BY_NAME[name])
        return found[name]

    return of


@pytest.mark.parametrize("name", WAITS)
def test_a_learner_waits_no_more_than_this_for_a_gpu(counted, name):
    row = counted(name)
    assert (row.collecting.waits, row.learning.waits) == WAITS[name], row.waits


def test_no_step_of_a_rollout_waits_or_copies(counted):
    """A single transfer, after the steps, is all that collecting needs; and learning waits at most twice."""
    several = {"PPO, orders, 2 updates", "PPO, a GRU, 4 updates", "PPO, wrapped CartPole", "PPO, a pool of opponents"}
    for name in (case.name for case in CASES if case.env and case.name not in several):
        row = counted(name)
        assert row.collecting.copies == row.collecting.waits == 1
        assert row.learning.waits <= 2


def test_every_case_has_its_numbers():
    assert WAITS.keys() == BY_NAME.keys()


@pytest.mark.parametrize("name", [case.name for case in CASES if case.env and case.name != "DQN, seats in turn"])
def test_a_run_on_the_stand_in_is_that_of_the_cpu(name):
    """The same draws and steps; weights equal up to rounding, because a CPU has kernels of its own."""
    case = BY_NAME[name]
    wanted = play(case, "cpu").learner.state_dict()
    with stand_in_gpu():
        found = {key: value.cpu() for key, value in play(case, "cuda").learner.state_dict().items()}
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def test_a_graph_is_one_launch(counted):
    """Of a rollout's steps, and of an iteration's updates; a few operations prepare and sum up."""
    plain, graphs = counted("PPO"), counted("PPO, CUDA graphs")
    assert graphs.collecting.launches <= plain.collecting.launches / 10
    assert graphs.learning.launches <= plain.learning.launches / 8


def test_a_graph_of_steps_counts_as_changes_of_the_batch():
    with stand_in_gpu():
        session = play(BY_NAME["PPO, CUDA graphs"], "cuda")
        before = session.batch.changes
        session.collect()
        assert session.batch.changes == before + 8


def after_schedules(device, **settings):
    """Weights after a short run in which learning rate, clip and entropy coefficients all fall to a third."""
    case = BY_NAME["PPO"]
    schedules = {"anneal_lr": True, "learning_rate": 0.02, "anneal_clip": True, "anneal_entropy": True}
    case = case._replace(settings={**case.settings, **schedules, **settings}, before=6, run={"total_steps": 8 * 4 * 9})
    session = play(case, device)
    return {name: value.cpu() for name, value in session.learner.state_dict().items()}


def test_graphs_follow_schedules():
    """What changes from one iteration to the next is not that of the capture."""
    with stand_in_gpu():
        wanted = after_schedules("cuda")
    with stand_in_gpu():
        found = after_schedules("cuda", graphs=True)
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_docs_show_the_counts(counted):
    """Waits and copies as they are; numbers of operations within a fifth, as they differ between versions of torch."""
    page = (Path(__file__).parents[3] / "docs" / "gpu.md").read_text()
    for line in table([counted(name) for name in WAITS])[2:]:
        name, *numbers = [cell.strip() for cell in line.strip("|").split("|")]
        shown = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", page, re.MULTILINE)
        assert shown is not None, f"docs/gpu.md has no row {name!r}"
        cells = [int(cell) for cell in shown[1].split("|")]
        for place, (cell, number) in enumerate(zip(cells, map(int, numbers), strict=True)):
            assert cell == pytest.approx(number, rel=0.2 if place in (3, 6) else 0), (name, line)
