"""``reproduce scaling``: what is exchanged, the model's arithmetic, and one small measurement of all parts."""

import pytest

from mlbits.evals.reproductions import scaling
from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.selfplay.runs.flags import parse_train


def test_what_a_process_sends_is_a_gradient_a_minibatch_and_its_reports():
    sent = scaling.exchanges(64)
    config = parse_train("ppo mlbits/CartPole-v0".split())[0].agent_config
    largest = max(size for _, size in sent)
    gradients = [size for kind, size in sent if kind == "tensor" and size == largest]
    assert len(gradients) == config.epochs * config.minibatches
    assert largest % 4 == 0 and largest > 4 * 64 * 64  # float32 of a network with two layers of 64
    assert [kind for kind, _ in sent].count("message") == 2  # what was played, and what was learned


def test_the_median_leaves_the_first_iterations_out():
    assert scaling._median([0.0, 9.0, 10.0, 12.0, 13.0]) == 1.0
    assert scaling._median([0.0, 50.0, 51.0, 54.0, 56.0]) == 2.0


def test_a_ring_takes_a_step_for_each_other_process():
    found = scaling._farther(1.0, [("tensor", 1000), ("message", 3000)], processes=5, latency=0.01, bandwidth=1e5)
    assert found["seconds"] == pytest.approx(1 + 4 * (0.01 + 0.01) + 4 * (0.01 + 0.03))
    assert found["efficiency"] == pytest.approx(1 / found["seconds"])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"iterations": 2}, "iterations, num_envs: got 2, 2048"),
        ({"num_envs": 6}, "got 12, 6; wanted more than 2, and a multiple of 4"),
        ({"bandwidth": 0.0}, "latency, bandwidth: got 20, 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings, named):
    with pytest.raises(ReproductionError, match=named):
        scaling.reproduce(**settings)


@pytest.mark.slow
def test_all_parts_are_measured(capsys):
    found = scaling.reproduce(iterations=3, num_envs=8)
    assert [row["workers"] for row in found["rows"]] == [1, 2, 4]
    assert all(row["model"] == row["computing"] + row["exchanging"] > 0 < row["measured"] for row in found["rows"])
    assert [row["exchanging"] > 0 for row in found["rows"]] == [False, True, True]
    assert found["rows"][0]["speed_up"] == 1
    assert 0 < found["farther"][1]["efficiency"] < found["farther"][0]["efficiency"] < 1
    assert "times as fast" in capsys.readouterr().out
