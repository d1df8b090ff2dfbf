"""Restoring wrapped copies by replaying their actions, and messages about copies that cannot be restored."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.cli import main
from mlbits.envs.doors import gymnasium_batch
from mlbits.envs.doors.action_log import ActionLog
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session

BREAKOUT = "ALE/Breakout-v5"


class Slow(gym.Env):
    """Episodes of ``steps`` steps; the observation is a random walk that only the seed and the actions decide."""

    def __init__(self, steps=30, noise="own", actions=None):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = actions or spaces.Discrete(3)
        self.steps, self.noise = steps, noise

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.at = 0, np.zeros(2)
        return self.at, {}

    def step(self, action):
        self.count += 1
        draw = np.random.default_rng() if self.noise == "alien" else self.np_random
        self.at = self.at + draw.normal(size=2) + np.sum(action)
        if self.noise == "hidden":  # it shows in the rewards, not in the observations
            self.at = np.zeros(2)
            return self.at, float(np.random.default_rng().normal()), self.count == self.steps, False, {}
        return self.at, float(self.at[0]), self.count == self.steps, False, {}


@pytest.fixture(scope="module", autouse=True)
def registered():
    gym.register("tests/Slow-v0", Slow)
    yield
    gym.registry.pop("tests/Slow-v0")


def parts(step):
    for value in (*step[:4],):
        yield from value.values() if isinstance(value, dict) else [value]


@pytest.mark.parametrize(
    ("env", "settings", "autoreset", "before", "after"),
    [
        ("CartPole-v1", {}, "same_step", 100, 100),
        ("CartPole-v1", {}, "next_step", 100, 60),
        ("CartPole-v1", {}, "disabled", 70, 60),
        ("Pendulum-v1", {}, "same_step", 150, 100),  # an episode is longer than the steps before saving
        ("LunarLander-v3", {"continuous": True}, "same_step", 120, 60),
        ("HalfCheetah-v5", {"max_episode_steps": 90}, "same_step", 70, 40),
        ("FrozenLake-v1", {}, "same_step", 100, 60),
        ("Taxi-v4", {"max_episode_steps": 40}, "same_step", 100, 60),
        (BREAKOUT, {"frame_skip": 8}, "same_step", 70, 20),
        ("tests/Slow-v0", {"actions": spaces.MultiDiscrete([3, 400])}, "same_step", 100, 50),
    ],
)
@pytest.mark.parametrize("seed_every", [40, 4096])
def test_a_restored_batch_continues_bit_for_bit(env, settings, autoreset, before, after, seed_every, monkeypatch):
    monkeypatch.setattr(gymnasium_batch, "SEED_EVERY", seed_every)
    if env == BREAKOUT and seed_every == 4096:
        env, settings = "Acrobot-v1", {}  # loading its ROM takes long
    count = 1 if env == BREAKOUT else 3
    common = {"settings": settings, "autoreset": autoreset, "training": True, "recorded": True}
    batch, twin = open_batch(env, count, seed=3, **common), open_batch(env, count, seed=8, **common)
    actions = [batch.sample_actions() for _ in range(before + after)]
    for t in range(before):
        batch.step(actions[t])
        if t % 33 == 32:
            batch.reset(which=torch.tensor([True, False, t % 2 == 0])[:count])
    assert twin.load_state_dict(batch.state_dict()) == []
    if seed_every == 40:
        assert sum(batch._seedings) > 0
    assert not twin.reward.any()  # as in a saved batch of ours
    if autoreset == "same_step":
        assert not (twin.terminated | twin.truncated).any()
    rows = [(value, other) for value, other in zip(parts([batch.obs]), parts([twin.obs]), strict=True)]
    assert all(torch.equal(*row) for row in rows)
    for t in range(before, before + after):
        for one, other in zip(parts(batch.step(actions[t])), parts(twin.step(actions[t])), strict=True):
            assert torch.equal(one, other)
        if t % 25 == 0:
            assert batch.state_dict().keys() == twin.state_dict().keys()
            for name, tensor in batch.state_dict().items():
                assert torch.equal(tensor, twin.state_dict()[name]), name
    batch.close()
    twin.close()


def test_a_game_that_continues_after_a_lost_life_is_not_reseeded(monkeypatch):
    """In Breakout a lost life ends an episode of training, and the next one continues with the same bricks."""
    monkeypatch.setattr(gymnasium_batch, "SEED_EVERY", 1)
    batch = open_batch(BREAKOUT, 1, seed=3, training=True, recorded=True)
    plain = open_batch(BREAKOUT, 1, seed=3, training=True)
    ends = 0
    while ends < 4:
        action = batch.sample_actions()
        one, other = batch.step(action), plain.step(action)
        ends += int(one.terminated)
        assert torch.equal(one.obs, other.obs)
        assert batch._seedings == [0]
    while not sum(batch._seedings):  # the last life
        ends += int(batch.step(batch.sample_actions()).terminated)
    assert ends == 5


def test_seeds_are_a_function_of_the_first_seed_the_copy_and_the_count(monkeypatch):
    monkeypatch.setattr(gymnasium_batch, "SEED_EVERY", 30)
    seeds = []
    original = Slow.reset

    def reset(self, *, seed=None, options=None):
        seeds.append(seed)
        return original(self, seed=seed)

    monkeypatch.setattr(Slow, "reset", reset)
    batch = open_batch("tests/Slow-v0", 2, seed=5, recorded=True, settings={"steps": 20})
    for _ in range(80):
        batch.step(batch.sample_actions())
    # Episodes end after 20, 40, 60 and 80 steps; a seed is due 30 steps after the last.
    second, third = (
        [np.random.SeedSequence([5 + b, b, n]).generate_state(1)[0] % 2**31 for b in (0, 1)] for n in (1, 2)
    )
    assert seeds == [5, 6, None, None, *second, None, None, *third]


def test_a_batch_that_is_not_recorded_is_seeded_once(monkeypatch):
    monkeypatch.setattr(gymnasium_batch, "SEED_EVERY", 1)
    batch = open_batch("tests/Slow-v0", 1, seed=5)
    assert batch._recording is None
    for _ in range(70):
        batch.step(batch.sample_actions())
    assert batch._seedings == [0]


@pytest.mark.parametrize("noise", ["alien", "hidden"])
def test_copies_whose_replay_differs_are_named_and_restarted(noise):
    common = {"settings": {"noise": noise}, "recorded": True}
    batch, twin = open_batch("tests/Slow-v0", 2, seed=3, **common), open_batch("tests/Slow-v0", 2, seed=3, **common)
    batch.step(batch.sample_actions())
    said = []
    assert twin.load_state_dict(batch.state_dict(), said.append) == [0, 1]
    assert twin.obs.tolist() == [[[0.0, 0.0]]] * 2
    assert twin._seedings == [1, 1]
    assert said[1].startswith(
        "tests/Slow-v0: copy 1 could not be restored (its observation or rewards differ from the saved ones)"
    )
    assert len(said) == 2
    assert twin.state_dict()["actions"].tolist() == [0, 0]


@pytest.mark.parametrize(("autoreset", "over"), [("same_step", False), ("disabled", True)])
def test_rewards_and_flags_after_a_last_step_that_ended_episodes(autoreset, over):
    common = {"settings": {"steps": 5}, "autoreset": autoreset, "recorded": True}
    batch, twin = (open_batch("tests/Slow-v0", 2, seed=3, **common) for _ in range(2))
    for _ in range(5):
        batch.step(batch.sample_actions())
    assert batch.terminated.all() and batch.reward.all()
    assert twin.load_state_dict(batch.state_dict()) == []
    assert twin.terminated.tolist() == [over, over]
    assert not twin.reward.any()


def test_an_environment_that_fails_during_the_replay_is_restarted(monkeypatch):
    batch, twin = (open_batch("tests/Slow-v0", 2, seed=3, recorded=True) for _ in range(2))
    for _ in range(7):
        batch.step(batch.sample_actions())
    original = Slow.step
    monkeypatch.setattr(Slow, "step", lambda self, action: 1 / 0 if self.count == 5 else original(self, action))
    said = []
    assert twin.load_state_dict(batch.state_dict(), said.append) == [0, 1]
    assert "copy 0 could not be restored (division by zero)" in said[0]


def test_the_state_of_another_batch_is_refused():
    batch = open_batch("tests/Slow-v0", 2, seed=3, recorded=True)
    batch.step(batch.sample_actions())
    with pytest.raises(ValueError, match="of 2 copies; wanted"):
        open_batch("tests/Slow-v0", 3, recorded=True).load_state_dict(batch.state_dict())
    state = batch.state_dict()
    del state["seedings"]
    with pytest.raises(KeyError, match="seedings"):
        batch.load_state_dict(state)


def test_what_a_resumed_run_resets_when_a_copy_is_restarted():
    """The counts of the episode, and the link between the next transition and the replay buffer."""
    run = {"total_steps": 64, "num_envs": 2, "eval_every": 0, "video": False, "device": "cpu"}
    agent = {"hidden": [8], "learning_starts": 16, "buffer_size": 64, "batch_size": 8}
    settings = resolve(
        "dqn", "tests/Slow-v0", preset="none", run=run, agent_settings=agent, env_settings={"noise": "alien"}
    )
    session, other = open_session(settings), open_session(settings)
    while session.counters.env_steps < 20:
        rollout, _, steps = session.collect()
        session.learn(rollout)
        session.counters.env_steps += steps
    assert session.collector.episode_length.tolist() == [12, 12]
    said = []
    other.from_checkpoint(session.to_checkpoint(), None, said.append)
    assert len(said) == 2
    assert other.collector.episode_length.tolist() == [0, 0]
    assert other.collector.episode_return.tolist() == [[0.0], [0.0]]
    newest = (other.replay._head - 1) * other.replay.streams
    assert other.replay._last[newest : newest + 2].tolist() == [True, True]
    assert session.replay._last[newest : newest + 2].tolist() == [False, False]


# The log


def test_a_log_by_hand():
    log = ActionLog(2, (), np.dtype(np.uint8))
    for t in range(5):
        log.add(np.array([t, 10 + t]))
        if t == 2:
            log.restart(1)
    log.note_reset(0)
    log.note_reset(1)
    assert log.actions(0).tolist() == [0, 1, 2, 3, 4]
    assert log.actions(1).tolist() == [13, 14]
    assert log.resets == [[5], [2]]
    log.restart(0)
    assert (log.actions(0).tolist(), log.length(0), log.resets[0]) == ([], 0, [])


@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_log_keeps_what_fits_and_marks_lost_copies(shape):
    """Room for 40 steps, ten per chunk. Copy 0 is seeded often, copy 1 once after 25 steps, copy 2 never."""
    size = 3 * int(np.prod(shape, initial=1))
    log, draw = ActionLog(3, shape, np.dtype(np.uint8), most_bytes=40 * size), np.random.default_rng(0)
    wanted = [[], [], []]
    for t in range(63):
        row = draw.integers(0, 256, (3, *shape)).astype(np.uint8)
        log.add(row)
        for b in range(3):
            wanted[b].append(row[b].tolist())
        for b in range(3):
            if (b == 0 and t % 7 == 6) or (b == 1 and t == 24):
                log.restart(b)
                wanted[b].clear()
        assert len(log._chunks) <= 4
        for b in range(3):
            assert log.lost[b] == ((b == 2 and t >= 40) or (b == 1 and t >= 60))
            assert log.actions(b).tolist() == ([] if log.lost[b] else wanted[b])
    other = ActionLog(3, shape, np.dtype(np.uint8), most_bytes=40 * size)
    other.load([log.actions(b) for b in range(3)], log.resets, log.lost)
    assert other.actions(0).tolist() == wanted[0]
    assert other.lost.tolist() == [False, True, True]
    log.restart(2)
    assert not log.lost[2]


def test_a_log_drops_what_no_copy_needs():
    log = ActionLog(1, (), np.dtype(np.uint8), most_bytes=4000)
    for _ in range(10_000):
        log.add(np.zeros(1, np.uint8))
        log.restart(0)
    assert len(log._chunks) == 1


# Runs

LONG = (
    "ppo tests/Slow-v0 --preset none --num-envs 2 --total-steps 640 --checkpoint-every 64 --eval-every 0 "
    "--eval-episodes 1 --no-video --agent.num-steps 16 --agent.hidden 8 --agent.minibatches 1 --quiet --env-json"
)


def test_episodes_longer_than_the_interval_between_checkpoints_end(tmp_path):
    """Checkpoints come after every 32 steps of a copy, episodes last 100."""
    folder = tmp_path / "run"
    assert main(["train", *LONG.split(), '{"steps": 100}', "--out", str(folder)]) == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["return/train_length"] for row in rows if "return/train_length" in row} == {100.0}
