"""Benchmarks of off-policy agents: both sides are measured after their warm-up, with the same gradient steps."""

import pytest

from mlbits.evals.benchmarks import groups, peers
from mlbits.evals.benchmarks.stopwatch import Row
from mlbits.selfplay import session


class Once:
    """A stopwatch that calls each function once."""

    device = "cpu"

    def __init__(self, before=lambda: None):
        self.before, self.steps = before, 0

    def warm_up(self, call, warm):
        while not warm():
            call()

    def row(self, name, call, steps, peer=None):
        self.before()
        call()
        self.steps = steps
        return Row(name, 1.0, 1.0, peer)


@pytest.fixture
def sessions(monkeypatch):
    opened, original = [], session.open_session
    monkeypatch.setattr(session, "open_session", lambda settings: opened.append(original(settings)) or opened[-1])
    return opened


@pytest.mark.parametrize(
    ("agent", "env", "num_envs", "settings"),
    [
        ("dqn", "CartPole-v1", 1, {"num_steps": 4, "replay_ratio": 0.25, "epsilon_end": 0.04}),
        ("dqn", "mlbits/CartPole-v0", 8, {"num_steps": 32, "replay_ratio": 0.5, "epsilon_end": 0.04}),
        ("ddpg", "mlbits/Pendulum-v0", 8, {"num_steps": 1, "replay_ratio": 1.0}),
    ],
)
def test_ours_is_measured_after_its_warm_up_at_its_ratio_of_updates(sessions, agent, env, num_envs, settings):
    counts = []
    small = {"hidden": [8], "batch_size": 8, "learning_starts": 100}
    watch = Once(lambda: counts.append((sessions[0].replay.added, sessions[0].learner.updates)))
    groups._replay_row(watch, "x", agent, env, num_envs, **small, **settings)
    added, updates = counts[0]
    learner, replay = sessions[0].learner, sessions[0].replay
    assert added >= 1024
    assert replay.added - added == watch.steps == num_envs * settings["num_steps"]
    assert learner.updates - updates == watch.steps * settings["replay_ratio"]
    if agent == "dqn":
        assert learner.epsilon == pytest.approx(0.04)


@pytest.mark.parametrize(("zoo", "ratio", "epsilon"), [(False, 1 / 4, 0.05), (True, 1 / 2, 0.04)])
def test_sb3s_dqn_makes_the_same_updates_per_step_with_one_and_eight_copies(monkeypatch, zoo, ratio, epsilon):
    models = []
    original = peers._replayed

    def replayed(watch, model, name, steps):
        models.append(model)
        watch.before = lambda: models.append((model.num_timesteps, model._n_updates))
        return original(watch, model, name, steps // 2)

    monkeypatch.setattr(peers, "_replayed", replayed)
    monkeypatch.setitem(peers._DQN_ZOO, "policy_kwargs", {"net_arch": [8]})
    watch = Once()
    rows = list(peers.dqn(watch, zoo=zoo))
    assert [row.name[:23] for row in rows] == ["DQN on CartPole-v1 x 1,", "DQN on CartPole-v1 x 8,"]
    assert all(row.peer.startswith("stable-baselines3 ") for row in rows)
    for model, (steps, updates) in zip(models[::2], models[1::2], strict=True):
        assert steps >= 512
        assert model.num_timesteps - steps == watch.steps
        assert model._n_updates - updates == watch.steps * ratio
        assert model.exploration_rate == pytest.approx(epsilon)


def test_benchmark_groups_have_rows_of_ours_and_sb3s(monkeypatch):
    """Each group's rows, with nothing measured."""
    monkeypatch.setattr(groups, "_replay_row", lambda watch, name, *words, **settings: Row(name, 1.0, 1.0))
    monkeypatch.setattr(peers, "_replayed", lambda watch, model, name, steps: Row(name, 1.0, 1.0, "sb3"))
    for group, ours, theirs in (("dqn", 6, 4), ("ddpg", 6, 1), ("sac", 4, 1)):
        rows = list(groups.GROUPS[group](Once()))
        assert len([row for row in rows if row.peer is None]) == ours
        assert len([row for row in rows if row.peer]) == theirs
        assert len({(row.name, row.peer) for row in rows}) == ours + theirs
        assert all(len(row.name) <= 52 for row in rows), "the column of names is 52 wide"
