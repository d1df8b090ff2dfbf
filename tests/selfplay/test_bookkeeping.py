"""Bookkeeping after each iteration, with scripted iterations, evaluations and clocks."""

import json
import math
import os
import time
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mlbits.selfplay import bookkeeping
from mlbits.selfplay.bookkeeping import Bookkeeping, _note_episodes
from mlbits.selfplay.collector import Episodes, Timing
from mlbits.selfplay.episodes import Played
from mlbits.selfplay.finite import Guard, NotFiniteError
from mlbits.selfplay.machine import process_wall_seconds
from mlbits.selfplay.runs.config import RunConfig, Settings
from mlbits.selfplay.session import Counters, Session


class Scripted(Session):
    """A session without an agent or an environment."""

    def __init__(self, threshold=None, record_every=0, **run):
        config = RunConfig(**{"total_steps": 450, "num_envs": 1, "eval_every": 0, "checkpoint_every": 0, **run})
        self.settings = Settings(agent="ppo", env="Scripted-v0", preset="none", run=config, agent_config=None,
                                 env_settings={})  # fmt: skip
        self.limit, self.every = threshold, record_every
        self.device, self.opponents, self.measure, self.replay = torch.device("cpu"), None, None, None
        self.learner = SimpleNamespace(state_dict=dict)
        self.recent: deque[float] = deque(maxlen=config.solved_episodes)
        self.counters = Counters(next_eval=config.eval_every, next_checkpoint=config.checkpoint_every)
        self.collector = SimpleNamespace(timing=Timing())
        self.guard, self.batch = Guard({}), SimpleNamespace(num_seats=1)

    @property
    def threshold(self):
        return self.limit

    @property
    def record_every(self):
        return self.every


class Noted:
    """A tracker that keeps its records."""

    def __init__(self):
        self.rows, self.said = [], []

    def record(self, step, values):
        self.rows.append((step, dict(values)))

    def say(self, text, once=False):
        self.said.append(text)

    def picture(self, *_, **__):
        pass

    def of(self, name):
        return [(step, values[name]) for step, values in self.rows if name in values]


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Runs iterations of some steps; returns the summary, the steps of checkpoints, and the tracker."""

    def play(session, steps=30, returns=(), episodes=(), metrics=lambda turn: {"loss": float(turn)}):
        saved, left, tracker = [], list(returns), Noted()
        monkeypatch.setattr(
            bookkeeping, "save", lambda session, *_: saved.append(session.counters.env_steps) or tmp_path
        )

        def played(*_, **settings):
            assert settings["seed"] == bookkeeping.EVAL_SEED
            now = left.pop(0) if left else 0.0
            return Played(np.full((session.settings.run.eval_episodes, 1), now), np.array([3, 5]))

        monkeypatch.setattr(bookkeeping, "play_episodes", played)
        after, ended, turn = Bookkeeping(session, tracker, tmp_path), list(episodes), 0
        while not session.finished:
            now = np.array(ended.pop(0) if ended else [], float)
            after.after(steps, Episodes(now, np.full(len(now), 4 + turn)), metrics(turn))
            turn += 1
        return after.finish(), saved, tracker

    return play


def test_evaluations_keep_their_schedule_for_any_iteration_length(script):
    """Iterations of 30 steps: evaluated after the first one at or past each multiple of 100, and at the end."""
    _, _, tracker = script(Scripted(eval_every=100))
    assert [step for step, _ in tracker.of("return/eval")] == [120, 210, 300, 420, 450]
    _, _, tracker = script(Scripted(eval_every=50, total_steps=400), steps=130)  # two are passed at once: one is made
    assert [step for step, _ in tracker.of("return/eval")] == [130, 260, 390, 520]
    _, _, tracker = script(Scripted(eval_every=0))
    assert [step for step, _ in tracker.of("return/eval")] == [450]


def test_checkpoints_and_records_keep_their_schedule(script):
    _, saved, tracker = script(Scripted(checkpoint_every=100, record_every=70))
    assert saved == [120, 210, 300, 420, 450]
    # The first one records; then multiples of 70 are passed at 90, 150, ...; every checkpoint has a record before it.
    assert [step for step, _ in tracker.of("speed/steps_per_second")] == [30, 90, 120, 150, 210, 300, 360, 420, 450]
    _, saved, tracker = script(Scripted())
    assert saved == [450]
    assert [step for step, _ in tracker.of("speed/steps_per_second")] == list(range(30, 451, 30))


def test_records_have_the_seconds_so_far(script):
    """Those of earlier processes included, and never fewer than before."""
    session = Scripted()
    session.counters.wall_seconds, session.counters.cpu_seconds = 1000.0, 2000.0
    summary, _, tracker = script(session)
    for name, before in (("wall_seconds", 1000), ("cpu_seconds", 2000)):
        seconds = [value for _, value in tracker.of(f"speed/{name}")]
        assert len(seconds) == 15
        assert before < seconds[0]
        assert seconds == sorted(seconds)
        assert seconds[-1] <= summary[name]


def test_the_best_return_is_the_greatest_and_the_summary_has_the_last_too(script, tmp_path):
    summary, _, tracker = script(Scripted(eval_every=90, eval_episodes=2), returns=[-3, 1.5, 7, 2, 4])
    assert tracker.of("return/eval") == [(90, -3), (180, 1.5), (270, 7), (360, 2), (450, 4)]
    assert (summary["best_return_mean"], summary["return_mean"], summary["return_interval"]) == (
        7, 4, [-math.inf, math.inf],  # equal returns, and no other was ever seen
    )  # fmt: skip
    assert (summary["env_steps"], summary["episodes"]) == (450, 2)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert tracker.of("return/eval_length") == [(step, 4.0) for step, _ in tracker.of("return/eval")]


def test_the_best_of_evaluations_before_an_interruption_counts(script):
    session = Scripted(eval_every=90)
    session.counters.best_return_mean = 9.0
    assert script(session, returns=[1, 2, 3, 4, 5])[0]["best_return_mean"] == 9


@pytest.mark.parametrize(
    ("returns", "solved_at"),
    [
        ([[1, 2], [3]], 60),  # their mean is the threshold, which is enough
        ([[1, 2], [2.999]], None),
        ([[9], [9]], None),  # too few of them
        ([[0, 0, 0], [6], [], [0]], 60),  # the latest three alone count, and it stays solved
        ([[6, 0, 0]], 30),
    ],
)
def test_solved_is_when_the_mean_of_the_latest_episodes_is_at_the_threshold(script, returns, solved_at):
    session = Scripted(threshold=2.0, solved_episodes=3, total_steps=120)
    summary, _, _ = script(session, episodes=returns)
    solved = summary["solved_at"]
    assert (None if solved is None else solved["env_steps"]) == solved_at
    if solved is not None:
        assert 0 < solved["cpu_seconds"] <= summary["cpu_seconds"]
        assert 0 < solved["wall_seconds"] <= summary["wall_seconds"]


def test_a_run_ends_once_it_is_solved_where_that_is_asked_for(script):
    for stop, end in ((True, 60), (False, 450)):
        session = Scripted(threshold=2.0, solved_episodes=3, stop_when_solved=stop)
        assert script(session, episodes=[[1, 2], [3]])[0]["env_steps"] == end


def test_without_a_threshold_nothing_is_solved(script):
    assert "solved_at" not in script(Scripted())[0]


def test_in_a_league_only_the_main_agents_episodes_count():
    session = Scripted(threshold=2.0, solved_episodes=2)
    clock = SimpleNamespace(update=lambda: None)
    _note_episodes(session, Episodes(np.array([9.0, 1, 9]), np.ones(3), owner=np.array([1, 0, 2])), clock)
    assert list(session.recent) == [1]
    assert session.counters.solved_at is None


def test_training_records_have_the_latest_returns_and_the_lengths_since_the_last(script):
    session = Scripted(record_every=60, total_steps=120, solved_episodes=2)
    _, _, tracker = script(session, episodes=[[1], [2, 4], [], [6]])
    assert tracker.of("return/train") == [(30, 1), (60, 3), (120, 5)]
    assert tracker.of("return/train_length") == [(30, 4), (60, 5), (120, 7)]


def test_metrics_are_recorded_once_and_kept_if_none_are_reported(script):
    session = Scripted(record_every=60, total_steps=180)
    _, _, tracker = script(session, metrics=lambda turn: {"loss": float(turn)} if turn in (0, 2) else {})
    assert [(step, value) for step, value in tracker.of("learn/loss")] == [(30, 0.0), (120, 2.0)]


def test_a_nan_in_an_evaluation_ends_the_run_after_saving(script):
    session, saved = Scripted(eval_every=90, eval_episodes=2), None
    with pytest.raises(NotFiniteError, match="return of an evaluation episode: got nan at step 180, copy 0"):
        saved = script(session, returns=[1, float("nan")])
    assert saved is None
    assert session.counters.best_return_mean == 1


def test_wall_time_begins_where_the_command_took_over_the_process(monkeypatch):
    monkeypatch.delenv("MLBITS_STARTED", raising=False)
    since_start = process_wall_seconds()
    monkeypatch.setenv("MLBITS_STARTED", f"{os.getpid()}:{time.time() - 1000 - since_start}")
    assert process_wall_seconds() >= 1000 + since_start
    monkeypatch.setenv("MLBITS_STARTED", f"{os.getpid() + 1}:0")  # a parent's
    assert since_start <= process_wall_seconds() < since_start + 100
