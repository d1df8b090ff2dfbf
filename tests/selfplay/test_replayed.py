"""Runs of off-policy agents: memory of the replay buffer, sampling, records and warnings."""

import itertools
import json
import warnings

import numpy as np
import pytest
import torch

from mlbits.agents.agent import AgentError, Decision
from mlbits.agents.dqn import DQN, DQNConfig
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.lineup import against, self_play
from mlbits.selfplay.runs.config import ConfigError, resolve
from mlbits.selfplay.session import make_replay, open_session, opening
from mlbits.selfplay.training import train
from tests.agents.rollouts import VECTOR, draw, make_agent
from tests.games import register_test_games

register_test_games()

SMALL = {"num_steps": 4, "learning_starts": 96, "replay_ratio": 0.5, "batch_size": 4, "hidden": [4], "buffer_size": 500}


def opened(env="mlbits/CartPole-v0", run=None, **settings):
    run = {"num_envs": 16, "device": "cpu", **(run or {})}
    return open_session(resolve("dqn", env, preset="none", run=run, agent_settings=settings))


# Memory


def test_a_replay_larger_than_memory_is_refused_with_its_size_before_it_starts():
    """CartPole's 4 floats once and a sixteenth, the rows of two observations, action, reward and end: 51 bytes."""
    with pytest.raises(
        ConfigError, match=r"agent.buffer_size: a replay buffer of 1,000,000,000,000 transitions.* 47,497\.5 GiB"
    ):
        opened(buffer_size=10**12)


def test_the_message_names_a_capacity_that_fits(monkeypatch):
    monkeypatch.setattr(opening, "memory_bytes", lambda device: 3 * 2**20)
    with pytest.raises(ConfigError, match=r"takes 0\.0 GiB, and there are 0\.0 GiB; wanted at most 73,145, with"):
        opened(buffer_size=100_000)
    replay = opened(buffer_size=73_145).replay
    assert replay.steps == 73_145 // 16
    with pytest.raises(ConfigError, match="wanted at most 41,946,"):  # 75 bytes, with the tree of priorities
        opened(buffer_size=73_145, priority_exponent=0.5)


def test_a_failed_allocation_is_reported(monkeypatch):
    def refused(*arguments):
        raise RuntimeError("not enough memory: you tried to allocate 7 bytes\nand a long trace")

    monkeypatch.setattr(opening, "Replay", refused)
    with pytest.raises(
        ConfigError, match=r"agent.buffer_size: .*does not grant \(not enough memory.* 7 bytes\); wanted f"
    ):
        opened()


def test_a_replay_too_small_for_the_copies_is_refused():
    with pytest.raises(
        AgentError, match=r"buffer_size: got 100, which is 6 steps of 16 copies.*at least two rollouts: 128"
    ):
        opened(buffer_size=100)


def test_an_agent_that_cannot_play_here_is_refused_naming_those_that_can():
    with pytest.raises(AgentError, match=r"dqn: got the action space Box.*wanted one that is discrete.*: ppo"):
        opened("test/Point-v0")


# What it learns from


@pytest.mark.parametrize("num_envs", [1, 3, 16])
def test_any_number_of_copies_has_the_same_updates(num_envs):
    session = opened(run={"num_envs": num_envs}, **SMALL)
    steps = 0
    while steps < 384:
        rollout, _, played = session.collector.collect(session.lineup)
        session.learn(rollout)
        steps += played
    assert steps == session.replay.added == 384
    assert session.learner.updates == (384 - 96) // 2


def test_passes_are_not_replayed():
    """In a turn-based game one of two seats decides in a step: only that is stored, once settled, and sampled."""
    session = opened("test/Nim-v0", **{**SMALL, "learning_starts": 10**6})
    for _ in range(10):
        rollout, _, steps = session.collector.collect(session.lineup)
        session.learn(rollout)
    assert session.replay.added == 10 * steps - int(session.replay.state_dict()["turns"][2].sum())
    assert session.replay.added >= 10 * steps - 16
    drawn = session.replay.sample(500, draw())
    assert (drawn.obs[:, -1] == 0).all()  # whose turn it is, counted from one's own seat
    assert drawn.mask.gather(1, drawn.action.unsqueeze(1)).all()
    assert (drawn.next_obs[drawn.discount > 0][:, -1] == 0).all()
    assert set(drawn.reward.tolist()) == {-1.0, 0.0, 1.0}  # who loses learns of it as well
    assert (drawn.reward[drawn.discount > 0] == 0).all()


class Ones:
    """A player that always plays action 1."""

    experience = None

    def act(self, obs, legal_mask, generator, *, greedy=False):
        ones = torch.ones(len(obs), dtype=torch.int64)
        return Decision(ones, ones, None)


def test_seats_of_others_are_not_learned_from():
    batch = open_batch("test/Throws-v0", 6, seed=0)
    agent = DQN(
        DQNConfig(learning_starts=0, hidden=(4,), epsilon_start=0.0), batch.observation_space, batch.action_space
    )
    with torch.no_grad():
        agent.network.mlp.head_bias.copy_(torch.tensor([0.0, 0.0, 99.0]))  # it plays 2
    lineup = against(agent, [(Ones(), 1.0)], 6, 3, batch.device)
    replay, collector = make_replay(agent.experience, batch), Collector(batch, agent.experience, draw())
    for _ in range(10):
        rollout, _, _ = collector.collect(lineup)
        assert torch.equal(rollout.active, lineup.learner_seats().expand(4, 6, 3))
        replay.add(rollout)
    assert replay.added == 10 * 4 * 6
    drawn = replay.sample(2000, draw(), n_step=3)
    assert drawn.action.tolist() == [2] * 2000
    own = lineup.learner_seats().flatten().nonzero().flatten()
    assert torch.equal(torch.unique(drawn.slot % 18), own)


# Records


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def recorded(tmp_path, agent="dqn", settings=SMALL, **run):
    run = {"num_envs": 8, "device": "cpu", "total_steps": 2400, "eval_episodes": 1, "video": False, **run}
    run = {"eval_every": 0, "checkpoint_every": 0, **run}
    resolved = resolve(agent, "mlbits/CartPole-v0", preset="none", run=run, agent_settings=settings)
    folder, _ = train(resolved, tmp_path / "run", console=False)
    return [row for row in rows_of(folder) if "speed/steps_per_second" in row]


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        (0, [32, 1024, 2016, 2400]),  # of a replay every 1,000 steps, and always at the end
        (800, [32, 800, 1600, 2400]),
        (10**6, [32, 2400]),
    ],
)
def test_off_policy_runs_are_recorded_at_intervals(every, steps, tmp_path):
    rows = recorded(tmp_path, record_every=every)
    assert [row["env_steps"] for row in rows] == steps
    wanted = {f"learn/{name}" for name in ("loss", "q", "error", "grad_norm", "epsilon", "learning_rate", "updates")}
    assert {name for name in rows[-1] if name.startswith("learn/")} == wanted
    assert not [name for name in rows[0] if name.startswith("learn/")]  # warming up
    assert [row["learn/updates"] for row in rows[1:]] == [(step - 96) // 2 for step in steps[1:]]
    assert sum(row.get("return/train_length", 0) > 0 for row in rows[1:]) == len(rows) - 1


def test_on_policy_runs_are_recorded_at_every_update_by_default(tmp_path):
    settings = {"num_steps": 10, "hidden": [4]}
    rows = recorded(tmp_path / "one", "ppo", settings, total_steps=800)
    assert [row["env_steps"] for row in rows] == list(range(80, 801, 80))
    rows = recorded(tmp_path / "two", "ppo", settings, total_steps=800, record_every=300)
    assert [row["env_steps"] for row in rows] == [80, 320, 640, 800]


def test_a_report_is_recorded_once(tmp_path):
    """An update every 20 steps: records in between have no learning metrics, resumed or not."""
    rows = recorded(tmp_path, settings={**SMALL, "replay_ratio": 0.025}, record_every=1, total_steps=480)
    assert [row["env_steps"] for row in rows] == list(range(32, 481, 32))
    updates = [row.get("learn/updates") for row in rows]
    due = [0, *(int((step - 96) * 0.025) if step > 96 else 0 for step in range(32, 481, 32))]
    assert updates == [now if now > before else None for before, now in itertools.pairwise(due)]


@pytest.mark.parametrize("value", [-1, 1e16])
def test_records_out_of_range_are_refused(value):
    with pytest.raises(ConfigError, match="record_every: got"):
        opened(run={"record_every": int(value)})


# A support that does not contain the returns


def warming_up(support, steps=40, **settings):
    """CartPole played for a while: its returns, with gamma 0.99, come to about 20."""
    config = {"head": "categorical", "v_min": support[0], "v_max": support[1], "hidden": (4,), **settings}
    batch = open_batch("mlbits/CartPole-v0", 8, seed=0)
    agent = DQN(DQNConfig(**config, learning_starts=10**9), batch.observation_space, batch.action_space)
    replay, collector = make_replay(agent.experience, batch), Collector(batch, agent.experience, draw(1))
    for _ in range(steps):
        rollout, _, _ = collector.collect(self_play(agent, 8, 1, batch.device))
        replay.add(rollout)
        agent.learn(replay, 0.0, draw())
    return agent


def test_returns_beyond_the_support_are_warned_of_once():
    with pytest.warns(UserWarning, match=r"v_min, v_max: .* support is -10 to 10, whose ends .* a wider one") as seen:
        warming_up((-10.0, 10.0))
    assert len(seen) == 1
    with pytest.warns(UserWarning, match=r"from 1 to 3\.\d* were seen, and the support is 2 to 200"):
        warming_up((2.0, 200.0), steps=1)


@pytest.mark.parametrize(
    ("support", "settings"),
    [((0.0, 100.0), {}), ((0.5, 100.0), {}), ((-10.0, 10.0), {"head": "quantile"}), ((-1.0, 1.0), {"head": "value"})],
)
def test_no_warning_within_the_support_or_without_one(support, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warming_up(support, **settings)


def test_a_warning_is_not_repeated_after_resuming():
    with pytest.warns(UserWarning):
        agent = warming_up((-10.0, 10.0))
    batch = open_batch("mlbits/CartPole-v0", 8)
    other = make_agent("dqn", batch.action_space, VECTOR, head="categorical", hidden=(4,))
    other.load_state_dict(agent.state_dict())
    assert other.returns_seen.warned
    assert other.returns_seen.high == agent.returns_seen.high > 10
    assert np.isfinite(other.returns_seen.low)
