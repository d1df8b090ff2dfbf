"""``reproduce workers``: disturbed runs, and whether it would notice other bits."""

import random
import signal
from types import SimpleNamespace

import pytest

from mlbits.evals.reproductions import workers
from mlbits.evals.reproductions.workers import Disturb, digest, reproduce
from mlbits.selfplay import training
from mlbits.selfplay.runs.flags import parse_train

SMALL = "ppo mlbits/CartPole-v0 --preset none --shards 2 --num-envs 4 --total-steps 32 --eval-every 0 --eval-episodes 1"
SMALL += " --no-video --device cpu --agent.num-steps 8 --agent.hidden 4"


def test_other_bits_are_noticed(tmp_path):
    found = []
    for k, more in enumerate(([], [], ["--seed", "1"])):
        training.train(parse_train([*SMALL.split(), *more])[0], tmp_path / str(k), console=False)
        found.append(digest(tmp_path / str(k)))
    assert found[0] == found[1] != found[2]


def test_a_worker_is_disturbed_once(monkeypatch):
    sent = []
    monkeypatch.setattr(workers.os, "kill", lambda process, number: sent.append((process, number)))
    monkeypatch.setattr(
        workers.threading, "Timer", lambda delay, call, given: SimpleNamespace(start=lambda: call(*given))
    )
    disturb = Disturb(signal.SIGSTOP, 5, random.Random(0))
    for iteration in [*range(1, 6), *range(1, 6)]:
        disturb(SimpleNamespace(iterations=iteration, restarts=iteration, workers=[7, 8]))
    assert len(sent) == 1
    assert sent[0][0] in (7, 8)
    assert sent[0][1] == signal.SIGSTOP
    assert disturb.restarts == 5


@pytest.mark.slow
def test_the_quick_form_meets_its_target():
    found = reproduce(quick=True)
    assert found["met"]
    assert [row["fault"] for row in found["rows"]] == list(workers.FAULTS)
