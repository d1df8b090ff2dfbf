"""Actors play one policy behind, whatever their number; runs with them resume exactly."""

import copy
import dataclasses
import os
import signal
import threading

import numpy as np
import pytest
import torch

import mlbits
from mlbits.cli import main
from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.registry import registered
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.runs.checkpoints import CheckpointError
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session
from mlbits.selfplay.session import opening as sessions
from tests.selfplay.shards import joined
from tests.selfplay.test_resume import compare, killed

WALK = "tests.selfplay.actors.walk:tests/Walk-v0"
SMALL = {"hidden": (8,), "num_steps": 8}
REPLAY = {"hidden": (8,), "learning_starts": 24, "batch_size": 8, "buffer_size": 200, "num_steps": 4}
RUNS = {
    "ppo": ("ppo", WALK, {**SMALL, "normalize_obs": True, "normalize_reward": True, "target_kl": 0.05}),
    "memory": ("ppo", "CartPole-v1", {**SMALL, "memory": "gru", "memory_width": 8}),
    "trpo": ("trpo", WALK, SMALL),
    "dqn": ("dqn", WALK, {**REPLAY, "n_step": 2, "epsilon": "linear:1:0.1"}),
    "ddpg": ("ddpg", "Pendulum-v1", REPLAY),
    "sac": ("sac", "Pendulum-v1", REPLAY),
}
EACH = [pytest.param(name, marks=() if name in ("ppo", "dqn") else pytest.mark.slow) for name in RUNS]


@pytest.fixture
def here(monkeypatch):
    """Actors' copies are stepped in this process, which is the same and starts nothing."""
    asked = []

    def opened(*words, apart=False, workers=1, **more):
        asked.append((apart, workers))
        if words[0] in registered():
            return open_batch(*words, apart=apart, workers=workers, **more)
        return open_batch(*words, **more)

    monkeypatch.setattr(sessions, "open_batch", opened)
    return asked


def settings_of(name, actors=2, iterations=6, more=None, **run):
    agent, env, agent_settings = RUNS[name]
    agent_settings = {**agent_settings, **(more or {})}
    steps = iterations * agent_settings["num_steps"] * 4
    run = {"num_envs": 4, "actors": actors, "total_steps": steps, "device": "cpu", **run}
    return resolve(agent, env, preset="none", run=run, agent_settings=agent_settings)


def advance(session, iterations=1000):
    """Play and learn, as the loop does; returns the log probabilities or samples of each rollout."""
    found = []
    while not session.finished and iterations:
        rollout, episodes, steps = session.collect()
        found.append((rollout.log_prob.clone(), rollout.sample.clone(), rollout.reward.clone(), episodes.returns))
        session.learn(rollout)
        session.counters.env_steps += steps
        session.recent.extend(episodes.returns.tolist())
        iterations -= 1
    return found


def same(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])] == []


def finished(settings):
    session = open_session(settings)
    played = advance(session)
    session.close()
    return session, played


def one_behind(settings):
    """What actors should do, in turn and in one thread: rollout k is played by the policy that learned from k - 2."""
    session, other = open_session(settings), open_session(settings)
    acting, collector = other.learner, session.collector
    lineup = self_play(acting, 4, 1, session.device)
    before, played = copy.deepcopy(session.learner.state_dict()), []
    while not session.finished:
        now = copy.deepcopy(session.learner.state_dict())
        acting.load_state_dict(before)
        rollout, episodes, steps = collector.collect(lineup)
        played.append((rollout.log_prob.clone(), rollout.sample.clone(), rollout.reward.clone(), episodes.returns))
        session.learn(rollout)
        session.counters.env_steps += steps
        before = now
    return session, played


@pytest.mark.parametrize("name", EACH)
def test_rollouts_are_played_with_the_policy_of_one_update_before(name, here):
    session, played = finished(settings_of(name))
    wanted, by_hand = one_behind(settings_of(name, actors=0))
    assert here == [(True, 2), (False, 0), (False, 0)]
    for own, other in zip(played, by_hand, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(own, other, strict=True))
    assert same(session.learner.state_dict(), wanted.learner.state_dict())
    in_turn, _ = finished(settings_of(name, actors=0))
    assert not same(session.learner.state_dict(), in_turn.learner.state_dict())


def test_the_next_rollout_is_played_while_the_learner_learns(here):
    """The learner waits for it in the middle of learning, which would never end if they took turns."""
    session = open_session(settings_of("ppo"))
    learn, threads = session.learner.learn, []

    def waiting(*words):
        playing = session.collector._playing
        if session.counters.env_steps < 5 * 32:  # no other rollout is needed beside the last
            assert playing.result(timeout=60).steps == 32
        else:
            assert playing is None
        threads.append(threading.get_ident())
        return learn(*words)

    session.learner.learn = waiting
    advance(session)
    session.close()
    assert len(threads) == 6


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("at", [1, 4])
def test_a_checkpoint_goes_on_with_another_number_of_actors(name, at, here, tmp_path):
    whole, _ = finished(settings_of(name))
    begun = open_session(settings_of(name, actors=1))
    advance(begun, at)
    saved = begun.to_checkpoint()
    assert any(key.startswith("ahead.") for key in saved.arrays)
    advance(begun, 1)  # saving has not disturbed it, and what was saved does not change with it
    advance(begun)
    begun.close()
    resumed = open_session(settings_of(name, actors=3))
    resumed.from_checkpoint(saved, tmp_path)
    advance(resumed)
    resumed.close()
    for session in (begun, resumed):
        one, other = session.to_checkpoint(), whole.to_checkpoint()
        assert same(one.weights, other.weights)
        assert same(one.arrays, other.arrays)


def test_a_run_that_is_over_goes_on_with_more_steps(here, tmp_path):
    """The last rollout of a run has none ahead; the policy that would play it is saved instead."""
    constant = {"anneal_lr": False}  # else a longer run would learn differently from the start
    short, _ = finished(settings_of("ppo", iterations=3, more=constant))
    saved = short.to_checkpoint()
    assert any(key.startswith("behind.") for key in saved.arrays)
    assert not any(key.startswith("ahead.") for key in saved.arrays)
    longer = open_session(settings_of("ppo", more=constant))
    longer.from_checkpoint(saved, tmp_path)
    advance(longer)
    longer.close()
    whole, _ = finished(settings_of("ppo", more=constant))
    assert same(longer.to_checkpoint().weights, whole.to_checkpoint().weights)
    assert same(longer.to_checkpoint().arrays, whole.to_checkpoint().arrays)


def test_checkpoints_that_do_not_fit_are_refused(here, tmp_path):
    session = open_session(settings_of("ppo"))
    advance(session, 2)
    saved = session.to_checkpoint()
    session.close()
    for change, said in (
        ({"ahead.obs.at": saved.arrays["ahead.obs.at"].double()}, r"ahead.obs.at: got \(torch.float64"),
        ({"ahead.sample": saved.arrays["ahead.sample"][:, :3].clone()}, r"ahead.sample: got .*wanted"),
        (None, "ahead"),
    ):
        kept = {name: value for name, value in saved.arrays.items() if change or not name.startswith("ahead.")}
        other = open_session(settings_of("ppo"))
        with pytest.raises(CheckpointError, match=said):
            other.from_checkpoint(dataclasses.replace(saved, arrays=kept | (change or {})), tmp_path)
        other.close()


def test_a_copy_that_cannot_be_restored_is_cut_after_the_rollout_ahead(here, tmp_path):
    session = open_session(settings_of("dqn"))
    advance(session, 2)
    saved = session.to_checkpoint()
    session.close()
    saved.arrays["copies.paid"][2] += 1
    resumed, said, done = open_session(settings_of("dqn")), [], []
    add, cut = resumed.replay.add, resumed.replay.cut
    resumed.replay.add = lambda rollout: (done.append("add"), add(rollout))
    resumed.replay.cut = lambda: (done.append("cut"), cut())
    resumed.from_checkpoint(saved, tmp_path, said.append)
    assert "copy 2 could not be restored" in said[0]
    advance(resumed, 3)
    resumed.close()
    assert done == ["add", "cut", "add", "add"]


def test_an_error_in_a_copy_ends_the_run_in_its_words(here):
    settings = settings_of("ppo", num_envs=4)
    settings.env_settings["fails"] = True
    session = open_session(settings)
    with pytest.raises((GameError, RuntimeError), match="a stumble"):
        advance(session)
    session.close()


@pytest.mark.parametrize("shards", [2])
def test_shards_have_actors_of_their_own(shards, here, tmp_path):
    agent, env, agent_settings = RUNS["ppo"]
    settings = [
        joined.settings_of(agent, env, shards=shards, agent_settings=agent_settings, actors=actors) for actors in (1, 2)
    ]
    whole, _, _ = joined.run(settings[0], 1, 4)
    begun, steps, _ = joined.run(settings[1], 2, 2)
    assert any(name.startswith("shard1.ahead.") for name in begun.arrays)
    found, _, _ = joined.run(settings[1], 1, 2, begun, steps, tmp_path)
    assert joined.digest(found) == joined.digest(whole)
    assert {workers for apart, workers in here if apart} == {1, 2}


def test_processes_play_as_this_one_does_and_end_though_they_hang(here, monkeypatch):
    wanted, _ = finished(settings_of("ppo", iterations=3))
    monkeypatch.undo()
    session = open_session(settings_of("ppo", actors=1, iterations=3))
    assert len(session.batch.envs) == 1  # for its spaces
    advance(session)
    assert same(session.learner.state_dict(), wanted.learner.state_dict())
    (actor,) = session.batch._workers._processes
    os.kill(actor.pid, signal.SIGSTOP)
    session.collector._play()
    session.close()
    assert actor.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_an_actor_that_is_killed_ends_the_run_in_one_line():
    session = open_session(settings_of("ppo", actors=2))
    advance(session, 2)
    session.collector.wait()
    os.kill(session.batch._workers._processes[1].pid, signal.SIGKILL)
    with pytest.raises(GameError, match="the process that steps copies 2 to 3 was ended by signal 9"):
        advance(session)
    session.close()


@pytest.mark.parametrize(
    ("agent", "env", "run", "said"),
    [
        ("ppo", "mlbits/CartPole-v0", {}, "actors: got 2; mlbits/CartPole-v0 is compiled"),
        ("reinforce", "CartPole-v1", {}, "actors: got 2 with reinforce, which learns from the play of its present"),
        ("es", "CartPole-v1", {}, "actors: got 2 with es, whose training has a loop of its own; wanted 0"),
        ("bc", "CartPole-v1", {"data": "nowhere"}, r"actors: got 2 with a dataset \(data\)"),
        ("ppo", "CartPole-v1", {"device": "cuda"}, "actors: got 2 with device cuda; wanted 0, or device cpu"),
        ("ppo", "CartPole-v1", {"env_workers": 2}, "env_workers: got 2 with 2 actors, which step all copies; wanted 0"),
    ],
)
def test_what_actors_cannot_play_is_refused_in_one_line(agent, env, run, said, here, tmp_path):
    run = {"num_envs": 4, "actors": 2, "total_steps": 1000, **run}
    with pytest.raises(MlbitsError, match=f"^{said}") as caught:
        mlbits.train(agent, env, out=tmp_path / "run", preset="none", console=False, **run)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


COMMAND = "ppo CartPole-v1 --preset none --num-envs 8 --total-steps 1000 --eval-every 300 --checkpoint-every 300"
COMMAND += " --eval-episodes 2 --no-video --quiet --agent.num-steps 16 --agent.hidden 8 --actors 1"


def test_a_run_keeps_whether_it_has_actors(here, tmp_path, capsys):
    words = [*COMMAND.split(), "--total-steps", "128", "--eval-every", "0"]
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["resume", str(tmp_path / "run"), "--total-steps", "256", "--actors", "0"]) == 2
    said = capsys.readouterr().err
    assert "--actors" in said
    assert "was begun with 1" in said
    assert len(said.strip().splitlines()) == 1
    assert main(["resume", str(tmp_path / "run"), "--total-steps", "256", "--actors", "3"]) == 0
    assert here[-1] == (True, 3)
    assert main(["resume", str(tmp_path / "run"), "--total-steps", "384"]) == 0
    assert here[-1] == (True, 3)  # it is kept


@pytest.mark.slow
def test_a_killed_run_resumes_exactly_with_other_actors(tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "run"
    assert main(["train", *COMMAND.split(), "--out", str(alone)]) == 0
    killed("learning", 7, "train", *COMMAND.split(), "--out", str(folder))
    assert main(["resume", str(folder), "--actors", "2"]) == 0
    compare(folder, alone)


@pytest.mark.slow
def test_workers_of_a_run_in_shards_have_actors_of_their_own(tmp_path):
    for name, words in (("alone", "--workers 1 --actors 1"), ("two", "--workers 2 --actors 2")):
        assert main(["train", *COMMAND.split(), "--shards", "2", *words.split(), "--out", str(tmp_path / name)]) == 0
    compare(tmp_path / "two", tmp_path / "alone")
