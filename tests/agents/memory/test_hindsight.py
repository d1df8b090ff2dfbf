"""Hindsight replay: goals from the same episode alone, rewards and ends recomputed, saving; and that it teaches."""

import pytest
import torch

from mlbits.agents.agent import AgentError, ReplaySpec, Rollout
from mlbits.agents.ddpg import DDPGConfig
from mlbits.agents.dqn import DQNConfig
from mlbits.agents.memory.hindsight import HindsightReplay
from mlbits.agents.sac import SACConfig
from mlbits.envs.core.errors import GameError
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session
from tests.agents.rollouts import draw

STREAMS = 3
LENGTHS = (5, 7, 4)  # steps of each stream's episodes
STEPS = 12  # that the buffer holds


def equal(achieved, desired):
    """A goal is reached where both are equal, and ends the episode."""
    same = (achieved == desired).all(-1)
    return same.float() - 1, same


def steps_of(first, count, ends="truncated"):
    """Steps ``first`` to ``first + count`` of all streams; what is achieved says which step and stream it is."""
    t = torch.arange(first, first + count + 1)[:, None, None].float()
    stream = torch.arange(STREAMS)[None, :, None].float()
    achieved = torch.cat([t.expand(-1, STREAMS, 1), stream.expand(count + 1, STREAMS, 1)], -1).unsqueeze(2)  # before
    after = achieved[:-1] + torch.tensor([1.0, 0.0])  # what followed within the episode
    desired = torch.full_like(achieved, -1.0)
    ended = torch.stack([(torch.arange(first, first + count) + 1) % length == 0 for length in LENGTHS], 1)
    nothing = torch.zeros_like(ended)

    def seen(achieved, desired):
        return {"observation": achieved[..., :1], "achieved_goal": achieved, "desired_goal": desired}

    return Rollout(
        obs=seen(achieved[:-1], desired[:-1]), last_obs=seen(achieved[-1], desired[-1]),
        final_obs=seen(after, desired[:-1]), sample=torch.zeros(count, STREAMS, 1, dtype=torch.int64),
        log_prob=torch.zeros(count, STREAMS, 1), reward=torch.full((count, STREAMS, 1), -1.0),
        terminated=ended if ends == "terminated" else nothing, truncated=nothing if ends == "terminated" else ended,
        legal_mask=None, active=None,
    )  # fmt: skip


def replay_of(strategy="future", goals=4.0, steps=STEPS, pieces=(5, 1, 3, 8, 2), ends="truncated", exponent=0.0):
    rollout = steps_of(0, 1)
    obs = {key: part[0] for key, part in rollout.obs.items()}
    spec = ReplaySpec(1, steps * STREAMS, exponent, strategy, goals)
    replay, first = HindsightReplay(spec, obs, rollout.sample[0], None, goals=equal), 0
    for count in pieces:
        replay.add(steps_of(first, count, ends))
        first += count
    return replay, first


def told(drawn, count):
    """Of relabelled transitions: the step and stream of the transition, and of the goal."""
    own, goal = drawn.obs["achieved_goal"][:count].long(), drawn.obs["desired_goal"][:count].long()
    return own[:, 0], own[:, 1], goal[:, 0] - 1, goal[:, 1]  # what was achieved by a step says the number of the next


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
@pytest.mark.parametrize(("steps", "pieces"), [(STEPS, (5, 1, 3, 8, 2)), (STEPS, (1,) * 40), (3, (1,) * 31)])
def test_goals_are_from_the_same_episode(strategy, steps, pieces):
    replay, newest = replay_of(strategy, steps=steps, pieces=pieces)
    drawn = replay.sample(1000, draw())
    step, stream, goal, goal_stream = told(drawn, 800)
    assert torch.equal(stream, goal_stream)
    length = torch.tensor(LENGTHS)[stream]
    first, last = step // length * length, step // length * length + length - 1
    first, last = first.clamp(min=newest - steps), last.clamp(max=newest - 1)
    if strategy == "final":
        assert torch.equal(goal, last)
    else:
        low = step if strategy == "future" else first
        assert (goal >= low).all()
        assert (goal <= last).all()
        share = ((goal - low).float() / (last - low).clamp(min=1))[last > low]
        assert 0.4 < float(share.mean()) < 0.6  # uniform
        assert (goal == low).any()
        assert (goal == last).any()
    assert (drawn.obs["desired_goal"][800:] == -1).all()  # 4 of 5 are relabelled
    assert torch.equal(drawn.obs["desired_goal"], drawn.next_obs["desired_goal"])


def test_an_episode_longer_than_the_buffer_keeps_its_own_steps(monkeypatch):
    monkeypatch.setattr("tests.agents.memory.test_hindsight.LENGTHS", (1000, 11, 3))
    for pieces in range(20, 40):
        replay, newest = replay_of("episode", steps=5, pieces=(1,) * pieces)
        step, stream, goal, _ = told(replay.sample(400, draw()), 320)
        length = torch.tensor((1000, 11, 3))[stream]
        assert torch.equal(step // length, goal // length)
        assert (goal >= newest - 5).all()


def test_as_many_episodes_as_steps_have_rows_of_their_own(monkeypatch):
    monkeypatch.setattr("tests.agents.memory.test_hindsight.LENGTHS", (1, 1, 2))
    for pieces in range(8, 16):
        replay, _ = replay_of("final", steps=4, pieces=(1,) * pieces)
        step, stream, goal, _ = told(replay.sample(100, draw()), 80)
        assert torch.equal(step[stream < 2], goal[stream < 2])


def test_rewards_and_ends_are_those_of_the_new_goal():
    replay, _ = replay_of()
    drawn = replay.sample(1000, draw(), discount=0.9)
    step, _, goal, _ = told(drawn, 800)
    reached = step == goal
    assert reached.any()
    assert (~reached).any()
    assert torch.equal(drawn.reward[:800], reached.float() - 1)
    assert torch.allclose(drawn.discount[:800], 0.9 * (~reached).float())
    assert (drawn.reward[800:] == -1).all()
    assert torch.allclose(drawn.discount[800:], torch.tensor(0.9))


def test_ends_for_another_reason_than_the_goal_stay():
    """Nothing is equal to the goals that were desired, so what terminated did so for another reason."""
    replay, _ = replay_of(ends="terminated")
    drawn = replay.sample(1000, draw(), discount=0.9)
    step, stream, goal, _ = told(drawn, 800)
    ended = (step + 1) % torch.tensor(LENGTHS)[stream] == 0
    assert (ended & (step != goal)).sum() == 0  # the last step's only later goal is its own
    assert torch.allclose(drawn.discount[:800], 0.9 * (~(ended | (step == goal))).float())
    other, _ = replay_of("episode", ends="terminated")
    drawn = other.sample(1000, draw(), discount=0.9)
    step, stream, goal, _ = told(drawn, 800)
    ended = (step + 1) % torch.tensor(LENGTHS)[stream] == 0
    assert (ended & (step != goal)).any()
    assert (drawn.discount[:800][ended] == 0).all()


def test_ends_by_the_desired_goal_do_not_stay_under_another():
    replay, _ = replay_of("episode", ends="terminated")
    replay.goals = lambda achieved, desired: (torch.zeros(len(achieved)), desired[:, 0] == -1)
    drawn = replay.sample(1000, draw(), discount=0.9)
    assert (drawn.discount[:800] > 0).all()


def test_several_minibatches_each_have_their_share():
    replay, _ = replay_of(goals=1.0)
    drawn = replay.sample(10, draw(), minibatches=3)
    own = (drawn.obs["desired_goal"][:, 0] == -1).view(3, 10)
    assert own.tolist() == [[False] * 5 + [True] * 5] * 3


def test_by_priority_old_and_new_steps_alike_get_other_goals():
    """Draws by priority come in the order of the buffer, whose first and last fifth are each relabelled to 4 of 5."""
    replay, _ = replay_of(exponent=0.6)
    drawn = replay.sample(1000, draw(), minibatches=2)
    other = (drawn.obs["desired_goal"][:, 0] != -1).view(2, 1000)
    assert other.sum(1).tolist() == [800, 800]
    assert not torch.equal(other[0], other[1])
    slot = drawn.slot.view(2, 1000)
    for part in (slot < 0.2 * slot.max(), slot > 0.8 * slot.max()):
        assert 0.7 < float(other[part].float().mean()) < 0.9


def test_after_a_cut_a_new_episode_begins():
    replay, _ = replay_of(pieces=(3,))
    replay.cut()
    replay.add(steps_of(3, 3))  # which would have been the same episodes
    step, _, goal, _ = told(replay.sample(500, draw()), 400)
    assert torch.equal(step < 3, goal < 3)


def test_a_restored_buffer_samples_the_same():
    one, newest = replay_of(pieces=(5, 1, 9, 8))
    two, _ = replay_of(pieces=())
    two.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for replay in (one, two):
        replay.add(steps_of(newest, 4))
    first, second = (replay.sample(200, draw()) for replay in (one, two))
    assert torch.equal(first.obs["desired_goal"], second.obs["desired_goal"])
    assert torch.equal(first.discount, second.discount)


@pytest.mark.parametrize(
    ("name", "value"),
    [("episode", 10**6), ("episode", -1), ("newest", 10**6), ("first", -3), ("count", 3), ("number", -1)],
)
def test_damaged_tables_are_refused(name, value):
    replay, _ = replay_of()
    state = {key: part.clone() for key, part in replay.state_dict().items()}
    state[f"hindsight.{name}"].fill_(value)
    with pytest.raises(ValueError, match=rf"replay\.hindsight\.{name}: got"):
        replay.load_state_dict(state)


@pytest.mark.parametrize("config", [DQNConfig, DDPGConfig, SACConfig])
def test_windows_of_several_steps_are_refused(config):
    with pytest.raises(AgentError, match="hindsight, n_step: got 'future' with windows of 3 steps; wanted n_step 1"):
        config(hindsight="future", n_step=3)


def bits(agent="dqn", env="mlbits/BitFlipping-v0", number=13, **settings):
    settings = {"hidden": (64,), "learning_starts": 200, "batch_size": 64, "hindsight": "future", **settings}
    run = {"num_envs": 8, "device": "cpu", "total_steps": 10_000}
    env_settings = {"bits": number} if "Bit" in env else {}
    return open_session(resolve(agent, env, preset="none", run=run, agent_settings=settings, env_settings=env_settings))


def test_an_environment_without_goals_is_refused_by_name():
    with pytest.raises(GameError, match="CartPole: has no goals"):
        bits(env="mlbits/CartPole-v0")


@pytest.mark.parametrize("agent", ["dqn", "sac"])
def test_agents_learn_from_relabelled_bits(agent):
    """Six updates or so: that all fits together."""
    session = bits(agent, num_steps=4, replay_ratio=0.05)
    assert isinstance(session.replay, HindsightReplay)
    for _ in range(10):
        rollout, _, _ = session.collect()
        metrics = session.learn(rollout)
    assert dict(metrics)["updates"] == 6


@pytest.mark.slow
def test_hindsight_teaches_to_flip_eight_bits():
    reached = {}
    for hindsight in ("future", "none"):
        session = bits(
            number=8, hindsight=hindsight, learning_rate=1e-3, num_steps=1, tau=0.05, target_every=1, double=True,
            epsilon_start=0.2, epsilon_end=0.02,
        )  # fmt: skip
        ends = wins = 0
        for iteration in range(2500):
            rollout, _, steps = session.collect()
            session.counters.env_steps += steps
            session.learn(rollout)
            if iteration > 2000:
                ends += int((rollout.terminated | rollout.truncated).sum())
                wins += int(rollout.terminated.sum())
        reached[hindsight] = wins / ends
    assert reached["future"] > 0.8
    assert reached["none"] < 0.3
