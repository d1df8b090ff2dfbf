"""Replay buffers of stacked frames against buffers that store every stack whole, and what they take."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

from mlbits.agents.agent import AgentError, ReplaySpec, Rollout
from mlbits.agents.memory import frame_stacks, observations
from mlbits.agents.memory.observations import Observations
from mlbits.agents.memory.replay import Replay, replay_bytes
from mlbits.envs.doors.gymnasium_ids import frame_stack_of
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session
from tests.agents.rollouts import draw

K, COPIES, GAMMA = 3, 3, 0.9


class Stacked:
    """Random play whose observations are stacks of the latest K frames, in dicts with a part that is no stack.

    Args:
        padding: what an episode's first stack holds before its first frame: "reset" for that frame again, or "zero".
        broken: probability of a stack that has nothing to do with the one before.
        ends: probability that an episode ends, at each step.
    """

    def __init__(self, padding="reset", broken=0.0, ends=0.2, masked=False, seed=0):
        self.padding, self.broken, self.ends, self.masked = padding, broken, ends, masked
        self.generator = draw(seed)
        self.now, self.mask = self.start(self.frame()), self.legal()

    def frame(self):
        return torch.randint(1, 200, (COPIES, 1, 2, 2), generator=self.generator).to(torch.uint8)

    def start(self, frame):
        older = frame if self.padding == "reset" else torch.zeros_like(frame)
        return torch.stack([older] * (K - 1) + [frame], 2)

    def shown(self, stack):
        return {"stack": stack, "sum": stack.flatten(2).sum(-1, keepdim=True).float()}

    def chance(self, probability):
        return torch.rand(COPIES, generator=self.generator) < probability

    def rollout(self, steps):
        block = {name: [] for name in ("obs", "final", "terminated", "truncated", "mask")}
        for _ in range(steps):
            terminated, truncated = self.chance(self.ends), self.chance(self.ends / 2)
            frame = self.frame()
            following = torch.cat([self.now[:, :, 1:], frame.unsqueeze(2)], 2)
            other = torch.randint(1, 200, following.shape, generator=self.generator).to(torch.uint8)
            following = torch.where(self.chance(self.broken).view(-1, 1, 1, 1, 1), other, following)
            ended = (terminated | truncated).view(-1, 1, 1, 1, 1)
            for name, value in zip(block, (self.now, following, terminated, truncated, self.mask), strict=True):
                block[name].append(value)
            self.now, self.mask = torch.where(ended, self.start(self.frame()), following), self.legal()
        obs, final, terminated, truncated, mask = (torch.stack(values) for values in block.values())
        final[~(terminated | truncated)] = 99  # stale
        number = torch.arange(steps * COPIES).view(steps, COPIES, 1)
        return Rollout(
            obs=self.of_steps(obs), last_obs=self.shown(self.now), final_obs=self.of_steps(final), sample=number,
            log_prob=number.float(), reward=number.float(), terminated=terminated, truncated=truncated,
            legal_mask=mask if self.masked else None, active=None, last_mask=self.mask if self.masked else None,
        )  # fmt: skip

    def of_steps(self, stacks):
        return {"stack": stacks, "sum": stacks.flatten(3).sum(-1, keepdim=True).float()}

    def legal(self):
        return torch.randint(2, (COPIES, 1, 4), generator=self.generator).bool()

    def replay(self, steps, stack=K, exponent=0.0):
        zero = torch.zeros(COPIES, 1, dtype=torch.int64)
        obs, mask = self.shown(self.now), self.mask if self.masked else None
        return Replay(ReplaySpec(2, steps * COPIES, exponent), obs, zero, mask, stack)


def assert_equal(one, two):
    for name, value in one._asdict().items():
        same = getattr(two, name)
        pairs = [(value[key], same[key]) for key in value] if isinstance(value, dict) else [(value, same)]
        for part, other in pairs:
            assert (part is None) == (other is None)
            assert part is None or (part.dtype == other.dtype and torch.equal(part, other)), name


@pytest.mark.parametrize(
    "how",
    [
        {}, {"padding": "zero"}, {"broken": 0.3}, {"broken": 1.0}, {"ends": 0.0}, {"ends": 1.0}, {"masked": True},
        {"masked": True, "broken": 0.3, "padding": "zero"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("steps", [7, 40])
def test_what_is_sampled_is_what_a_buffer_of_whole_stacks_gives(how, steps):
    play, lengths = Stacked(**how, seed=4), (1, 4, 2, 11, 3, 1, 5, 2, 9, 3, 3, 4)
    frames, whole = play.replay(steps), play.replay(steps, stack=1)
    for k, length in enumerate(lengths):
        rollout = play.rollout(length)
        frames.add(rollout)
        whole.add(rollout)
        if k == 6:  # the copies were started again: what comes next does not follow
            frames.cut()
            whole.cut()
            play.now, play.mask = play.start(play.frame()), play.legal()
        if frames.added:
            drawn = (replay.sample(80, draw(k), n_step=3, discount=GAMMA) for replay in (frames, whole))
            assert_equal(*drawn)


@pytest.mark.parametrize("stack", [1, K])
def test_on_a_gpu_the_same_is_done_by_torch(stack, monkeypatch):
    """The operations for other devices than the CPU, on the CPU."""
    play, found = Stacked(broken=0.2, masked=True, seed=4), []
    rollouts = [play.rollout(length) for length in (3, 1, 4, 2, 5, 3, 7, 2)]
    for elsewhere in (False, True):
        with monkeypatch.context() as patch:
            if elsewhere:
                patch.setattr(Observations, "_zeros", zeros_of_torch)
                patch.setattr(frame_stacks, "equal_rows", on_device)
            replay = play.replay(9, stack)
            for rollout in rollouts[:2] + rollouts[3:]:  # one is missing: what follows it is another start
                replay.add(rollout)
            assert bool(replay._seen._blocks) != elsewhere
        found.append(replay.sample(60, draw(), n_step=2))
    assert_equal(*found)


def zeros_of_torch(self, name, like):
    return torch.zeros((self.ring + self._spare, *self.shape_of(like)), dtype=like.dtype)


def on_device(one, other, shifted=False):
    return observations.equal_on_device(*((one[:, :-1], other[:, 1:]) if shifted else (one, other)))


def test_a_stack_of_bytes_that_only_looks_equal_is_stored_as_it_is():
    """-0.0 equals 0.0, but is another number."""
    obs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-0.0, 2.0]]).view(3, 1, 1, 2)  # step 2 does not show step 1's 0.0
    flat, ends = torch.zeros(3, 1, 1), torch.zeros(3, 1, dtype=torch.bool)
    replay = Replay(ReplaySpec(3, 6), obs[0], torch.zeros(1, 1, dtype=torch.int64), None, 2)
    replay.add(Rollout(obs, obs[0], obs, flat.long(), flat, flat, ends, ends, None, None))
    drawn = replay.sample(50, draw())
    assert torch.equal(drawn.obs.view(torch.int32), obs[drawn.slot].view(-1, 2).view(torch.int32))


def test_what_came_last_is_kept_when_another_start_overwrites_it():
    """Stacks of one frame three times: all their pointers are to the row that is overwritten."""
    replay = Replay(ReplaySpec(3, 6), torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, dtype=torch.int64), None, 3)
    flat, ends = torch.zeros(3, 1, 1), torch.zeros(3, 1, dtype=torch.bool)
    for first in (1.0, 50.0):
        obs = (first + torch.arange(4.0)).view(4, 1, 1, 1, 1).expand(4, 1, 1, 3, 2).contiguous()
        replay.add(Rollout(obs[:3], obs[3], obs[:3], flat.long(), flat, flat, ends, ends, None, None))
    drawn = replay.sample(100, draw())
    assert torch.equal(drawn.next_obs, drawn.obs + 1)
    assert set(drawn.obs[:, 0, 0].tolist()) == {1, 2, 3, 50, 51, 52}


def test_each_frame_is_stored_once():
    """Steps take one frame each, an episode's end one more, and its zero padding another."""
    for padding, at_a_start in (("reset", 0), ("zero", 1)):
        play = Stacked(padding, seed=1)
        replay, episodes = play.replay(60), 0
        for _ in range(10):
            rollout = play.rollout(4)
            replay.add(rollout)
            episodes += int((rollout.terminated | rollout.truncated).sum())
        assert replay._seen.rows["obs.stack"].shape[1:] == (2, 2)
        assert replay._seen._used == episodes + at_a_start * (episodes + COPIES)


def test_spare_rows_are_used_again():
    play = Stacked(broken=0.4, seed=2)
    replay = play.replay(8)
    for _ in range(30):
        replay.add(play.rollout(3))
    seen = replay._seen
    used = seen._uses[: seen._used]
    pointers = np.concatenate([table.flatten() for table in (seen._at, seen._next, seen._ahead)])
    assert used.tolist() == np.bincount(pointers[pointers >= seen.ring] - seen.ring, minlength=len(used)).tolist()
    assert sorted(seen._free) == (np.flatnonzero(used == 0) + seen.ring).tolist()
    assert seen._used < 8 * COPIES * K * 2


@pytest.mark.parametrize("rounds", [1, 9])
@pytest.mark.parametrize("how", [{"masked": True}, {"broken": 0.5, "padding": "zero"}], ids=str)
def test_a_restored_buffer_continues_bit_for_bit(how, rounds):
    play = Stacked(**how)
    one, two = play.replay(17, exponent=0.5), play.replay(17, exponent=0.5)
    for _ in range(rounds):
        one.add(play.rollout(4))
    two.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for k in range(6):
        assert_equal(*(replay.sample(30, draw(k), n_step=3) for replay in (one, two)))
        rollout = play.rollout(4)
        one.add(rollout)
        two.add(rollout)
    state, same = one.state_dict(), two.state_dict()
    assert all(torch.equal(state[name], same[name]) for name in state)


def test_a_damaged_state_is_refused():
    play = Stacked()
    replay = play.replay(17)
    replay.add(play.rollout(4))
    state = replay.state_dict()
    for name, wrong in (("at", 10**6), ("next", -5), ("ahead", 54 + 3 * 54)):
        damaged = {key: value.clone() for key, value in state.items()}
        damaged[f"seen.{name}"].view(-1)[0] = wrong
        with pytest.raises(ValueError, match=f"replay.{name}: got rows"):
            play.replay(17).load_state_dict(damaged)
    with pytest.raises(ValueError, match=r"replay.ring.obs.stack: got \(15, 2, 2\); wanted \(\d+, 3, 2, 2\)"):
        play.replay(17, stack=1).load_state_dict(state)


def test_states_of_versions_that_stored_observations_twice_are_refused_with_words():
    play = Stacked()
    replay = play.replay(17)
    replay.add(play.rollout(4))
    state = replay.state_dict() | {"next_obs.all": torch.zeros(12, 4)}
    with pytest.raises(ValueError, match="saved by an older version of mlbits, which stored each observation twice"):
        play.replay(17).load_state_dict(state)


@pytest.mark.parametrize("stack", [1, 4])
def test_a_million_atari_steps_take_eight_gigabytes(stack):
    obs = torch.zeros(1, dtype=torch.uint8).expand(8, 1, 4, 84, 84)
    size = replay_bytes(ReplaySpec(4, 1_000_000), obs, torch.zeros(8, 1, dtype=torch.int64), None, stack)
    assert size < 8e9 if stack == 4 else 28e9 < size < 32e9


@pytest.mark.parametrize("stack", [1, K])
@pytest.mark.parametrize("masked", [False, True])
def test_memory_is_as_computed_in_advance_and_larger_only_by_what_short_episodes_need(stack, masked):
    play = Stacked(ends=0.02, masked=masked, seed=3)
    replay, mask = play.replay(200, stack), play.mask if masked else None
    zero = torch.zeros(COPIES, 1, dtype=torch.int64)
    most = replay_bytes(ReplaySpec(2, 200 * COPIES), play.shown(play.now), zero, mask, stack)
    own = [replay._action, replay._reward, replay._alive, replay._last, replay._usable]
    rest = sum(value.numel() * value.element_size() for value in own)
    assert replay._seen.nbytes + rest == most
    spare = replay._seen._spare
    for _ in range(8):
        replay.add(play.rollout(20))
    assert replay._seen._spare == spare
    play.ends = 0.9
    for _ in range(8):
        replay.add(play.rollout(20))
    assert replay._seen._spare > spare
    drawn = replay.sample(50, draw())
    assert drawn.obs["stack"].shape == (50, K, 2, 2)


def test_a_buffer_that_outgrows_the_memory_says_so(monkeypatch):
    play = Stacked(ends=1.0)
    replay = play.replay(40)
    monkeypatch.setattr(observations, "memory_bytes", lambda device: 1000.0)
    with pytest.raises(AgentError, match=r"^buffer_size: .* short episodes .*120 transitions .*wanted fewer$"):
        for _ in range(5):
            replay.add(play.rollout(8))


def test_whole_observations_share_rows_with_the_next_step():
    like = {"x": torch.zeros(2, 1)}
    seen = Observations(like, 4)
    obs = torch.arange(6.0).view(3, 2, 1)
    seen.add_steps(0, {"x": obs}, {"x": torch.tensor([[6.0], [7.0]])}, None, {})
    assert seen._used == 0
    assert seen.of(torch.arange(6))["x"].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert seen.after(torch.arange(6))["x"].flatten().tolist() == [2, 3, 4, 5, 6, 7]
    other = torch.tensor([[[50.0], [7.0]]])  # stream 0 was started again
    seen.add_steps(6, {"x": other}, {"x": torch.tensor([[51.0], [8.0]])}, None, {})
    assert seen._used == 1
    assert seen.of(torch.arange(8))["x"].flatten().tolist() == [0, 1, 2, 3, 4, 5, 50, 7]
    assert seen.after(torch.arange(8))["x"].flatten().tolist() == [2, 3, 4, 5, 6, 7, 51, 8]


def test_wrapped_environments_say_how_many_frames_their_observations_stack():
    def made(*wrappers):
        env = gym.make("CartPole-v1")
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    def stacked(env):
        return gym.wrappers.FrameStackObservation(env, 4)

    assert frame_stack_of(made()) == 1
    assert frame_stack_of(made(stacked)) == 4
    assert frame_stack_of(made(stacked, lambda env: gym.wrappers.DtypeObservation(env, "float64"))) == 4
    assert frame_stack_of(made(stacked, gym.wrappers.FlattenObservation)) == 1


def test_a_run_on_stacked_observations_stores_frames():
    gym.register("tests/Stacked-v0", lambda: gym.wrappers.FrameStackObservation(gym.make("CartPole-v1"), 4))
    try:
        run, own = {"num_envs": 2, "total_steps": 1000}, {"buffer_size": 200, "learning_starts": 10**6}
        session = open_session(resolve("dqn", "tests/Stacked-v0", preset="none", run=run, agent_settings=own))
        episodes = 0
        for _ in range(20):
            rollout, ended, _ = session.collect()
            session.learn(rollout)
            episodes += len(ended.lengths)
    finally:
        gym.registry.pop("tests/Stacked-v0")
    assert episodes > 0
    assert session.replay._seen.rows["obs"].shape[1:] == (4,)
    assert session.replay._seen._used == episodes
    assert session.replay.sample(5, draw()).obs.shape == (5, 4, 4)


@pytest.mark.parametrize("env", ["mlbits/CartPole-v0", "CartPole-v1"])
def test_the_setting_frame_stack_stores_frames_too(env):
    settings = {"num_envs": 2, "total_steps": 1000, "device": "cpu"}, {"frame_stack": 4}, {"buffer_size": 200}
    run, env_settings, own = settings
    session = open_session(resolve("dqn", env, preset="none", run=run, env_settings=env_settings, agent_settings=own))
    for _ in range(30):
        rollout, _, _ = session.collect()
        session.replay.add(rollout)
    assert session.replay._seen.rows["obs"].shape[1:] == (4,)
    drawn = session.replay.sample(20, draw())
    assert drawn.obs.shape == (20, 4, 4)
    going_on = drawn.discount > 0
    assert torch.equal(drawn.obs[going_on][:, 1:], drawn.next_obs[going_on][:, :-1])


def test_a_dataclass_is_not_changed_by_adding():
    """The rollout's memory belongs to the collector."""
    play = Stacked()
    rollout = play.rollout(4)
    before = {field.name: getattr(rollout, field.name) for field in dataclasses.fields(rollout)}
    copy = {name: value.clone() for name, value in rollout.obs.items()}
    play.replay(17).add(rollout)
    assert all(getattr(rollout, name) is value for name, value in before.items())
    assert all(torch.equal(rollout.obs[name], value) for name, value in copy.items())
