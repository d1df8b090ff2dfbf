"""``mlbits reproduce memory``: what counts as met, and both kinds of runs in short."""

import dataclasses

import pytest

from mlbits.evals.reproductions import memory, memory_peer
from mlbits.selfplay.runs.flags import parse_train


def rows(gru=(4.0, 4.0), none=(1.9, 2.0), speed=3000.0, peer=1000.0):
    found = []
    for name, task in memory.TASKS.items():
        scale = 1 if name == "TMaze" else 120
        for arm, scores, rate in (("gru", gru, speed), ("none", none, 9000.0), (memory.PEER, (4.0,), peer)):
            summaries = [{"return_mean": score * scale, "env_steps": rate, "cpu_seconds": 1.0} for score in scores]
            found.append(memory.row(name, arm, task, summaries))
    return found


@pytest.mark.parametrize(
    ("change", "met"),
    [({}, True), ({"gru": (4.0, 1.9)}, False), ({"none": (1.9, 4.0)}, False), ({"speed": 2999.0}, False)],
)
def test_met_is_memory_solving_what_the_others_do_not_and_three_times_the_speed(change, met):
    assert memory.met(rows(**change)) is met


def test_a_row_pools_the_speed_of_its_runs():
    task = memory.TASKS["TMaze"]
    summaries = [{"return_mean": r, "env_steps": 100, "cpu_seconds": s} for r, s in ((4.0, 1.0), (2.0, 3.0))]
    row = memory.row("TMaze", "gru", task, summaries)
    assert (row["solved"], row["scores"], row["steps_per_cpu_second"]) == (1, [4.0, 2.0], 50.0)


@pytest.mark.parametrize("name", sorted(memory.TASKS))
def test_arms_differ_in_memory_and_frames_alone(name):
    task, found = memory.TASKS[name], {}
    for arm, flags in memory.ARMS.items():
        found[arm] = parse_train(["ppo", task.env, *memory.words(task, flags)])[0]
    gru, frames, none = (found[arm] for arm in ("gru", "4 frames", "none"))
    assert gru.agent_config == dataclasses.replace(none.agent_config, memory="gru", memory_width=memory_peer.WIDTH)
    assert frames.agent_config == none.agent_config
    assert gru.env_settings == none.env_settings == task.settings
    assert frames.env_settings == {**task.settings, "frame_stack": 4}
    assert gru.run == frames.run == none.run


@pytest.mark.slow
def test_a_run_is_trained_and_played():
    task = dataclasses.replace(memory.TASKS["CartPole without velocities"], steps=2048)
    summary = memory._train(task, memory.ARMS["gru"], 0)
    assert summary["env_steps"] == 2048
    assert 5 < summary["return_mean"] < 500


@pytest.mark.slow
def test_the_peer_trains_and_plays():
    pytest.importorskip("sb3_contrib")
    found = memory_peer.main("mlbits/TMaze-v0", {"horizon": 20}, steps=1, seed=0, normalize=False)
    assert found["env_steps"] >= 1
    assert -0.1 * 20 <= found["return_mean"] <= 4
