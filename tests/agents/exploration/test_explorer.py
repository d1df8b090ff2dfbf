"""Bonuses in the learning of agents: scale and normalisation by hand, whose steps count, resuming, and refusals."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents import agent_entry
from mlbits.agents.agent import AgentError, ReplaySpec
from mlbits.agents.exploration.explorer import BONUSES, Explorer, refuse_turns
from mlbits.agents.exploration.own_value import OwnValue
from mlbits.agents.exploration.settings import BonusSettings, OwnValueSettings
from mlbits.agents.exploration.steps import Steps
from mlbits.agents.memory.replay import Replay
from mlbits.selfplay.runs.flags import parse_train
from mlbits.selfplay.session import open_session
from mlbits.selfplay.training import train
from tests.agents.rollouts import VECTOR, draw, equal, made_up_rollout, make_agent

THREE, BOX = spaces.Discrete(3), spaces.Box(-2, 1, (2,), np.float32)
ON_POLICY = {"ppo": {}, "trpo": {}, "reinforce": {"returns": "gae"}}


class Fixed:
    """A bonus that is the first number of the observation, and remembers what it was shown."""

    normalize = "none"

    def __init__(self, in_order=False):
        self.in_order, self.learned = in_order, []

    def of_steps(self, steps):
        return steps.obs[..., 0].clone()

    def learn(self, steps, generator):
        self.learned.append(steps)
        return {}

    def state_dict(self):
        return {}


def explorer(in_order=False, **settings):
    made = Explorer(OwnValueSettings(bonus="rnd", **settings), VECTOR, THREE, seed=0, device="cpu")
    made.bonus = Fixed(in_order)
    made._normalize = settings.get("bonus_normalize", "none")
    return made


def rollout_of(shape=(6, 5, 1), **settings):
    return made_up_rollout(make_agent("ppo", THREE), shape, **settings)


def test_the_bonus_is_added_to_the_reward_of_the_learners_steps():
    rollout = rollout_of(active=torch.rand(6, 5, 1, generator=draw(4)) < 0.6)
    made = explorer(bonus_scale="linear:2:0")
    found, own = made.rewarded(rollout, 0.25, draw())
    assert own is None
    expected = rollout.reward + 1.5 * rollout.obs[..., 0] * rollout.active
    assert torch.allclose(found.reward, expected)
    assert found.terminated is rollout.terminated
    assert float(made.metrics["bonus"]) == pytest.approx(float(rollout.obs[..., 0][rollout.active].mean()))


def test_bonuses_are_divided_by_their_root_mean_square_so_far():
    made = explorer(bonus_normalize="rms")
    one, two = rollout_of(seed=1), rollout_of(seed=2)
    made.rewarded(one, 0.0, draw())
    found, _ = made.rewarded(two, 0.0, draw())
    square = torch.cat([one.obs[..., 0], two.obs[..., 0]]).square().mean()
    assert torch.allclose(found.reward, two.reward + two.obs[..., 0] / square.sqrt(), atol=1e-5)


def test_bonuses_are_standardised_by_recent_moments_and_clipped():
    made = explorer(bonus_normalize="standard", bonus_decay=0.75)
    one, two = rollout_of(seed=1), rollout_of(seed=2)
    two.obs[3, 2, 0, 0] = 1e4
    made.rewarded(one, 0.0, draw())
    found, _ = made.rewarded(two, 0.0, draw())
    moments = [
        0.75 * f(one.obs[..., 0].double()) + 0.25 * f(two.obs[..., 0].double())
        for f in (torch.mean, lambda x: x.square().mean())
    ]
    deviation = (moments[1] - moments[0] ** 2).sqrt()
    expected = ((two.obs[..., 0] - moments[0]) / deviation).clamp(-10, 10)
    assert torch.allclose(found.reward, two.reward + expected.float(), atol=1e-4)


def test_intrinsic_returns_are_sums_over_episodes_through_rollouts():
    rollout = rollout_of((3, 2, 1), ends=0.0)
    ends = torch.tensor([[0, 0], [1, 0], [0, 0]], dtype=torch.bool)
    first, second = (dataclasses.replace(rollout, terminated=ends & which, truncated=ends & ~which)
                     for which in (torch.tensor(True), torch.tensor(False)))  # fmt: skip
    made, bonus = explorer(), rollout.obs[..., 0]
    made.rewarded(first, 0.0, draw())
    assert float(made.metrics["intrinsic_return"]) == pytest.approx(float(bonus[:2, 0].sum()), abs=1e-6)
    made.rewarded(second, 0.0, draw())
    carried = float(bonus[2, 0].sum() + bonus[:2, 0].sum())
    assert float(made.metrics["intrinsic_return"]) == pytest.approx(carried, abs=1e-6)


def test_the_bonus_has_a_value_of_its_own_that_goes_on_over_ends():
    """With a value of 0 the advantage is the discounted sum of bonuses, whether or not episodes end."""
    settings = OwnValueSettings(bonus_discount=0.5, bonus_learning_rate=0.01)
    own = OwnValue(settings, VECTOR, 0.5, 1.0, torch.Generator().manual_seed(0), "cpu")
    for parameter in own.network.parameters():
        parameter.data.zero_()
    rollout = rollout_of((3, 2, 1), ends=1.0)
    steps = Steps(rollout.obs.flatten(1, 2), rollout.sample.flatten(1, 2), rollout.obs.flatten(1, 2),
                  torch.ones(3, 2, dtype=torch.bool))  # fmt: skip
    reward = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 8.0]])
    found = own.advantages(steps, rollout.last_obs, reward, draw())
    assert found.tolist() == [[3.0, 2.0], [4.0, 4.0], [4.0, 8.0]]
    assert any(parameter.abs().max() > 0 for parameter in own.network.parameters())


@pytest.mark.parametrize("name", ["ppo", "trpo"])
def test_advantages_of_the_bonus_move_the_policy_and_leave_the_value_alone(name):
    rollout, more = rollout_of(), 5 + torch.arange(30.0)
    plain, curious = (
        make_agent(name, THREE, normalize_advantage=False)._prepare(rollout, bonus_advantage=own)
        for own in (None, more.view(6, 5, 1))
    )
    assert torch.equal(curious["target"], plain["target"])
    assert torch.allclose(curious["advantage"], plain["advantage"] + more)


def test_advantages_of_the_bonus_are_added_in_reinforce():
    """The same step as one whose own advantages are larger by the bonus's."""
    rollout, more = rollout_of(), 5 + torch.arange(30.0).view(6, 5, 1)
    curious = make_agent("reinforce", THREE, returns="gae", bonus="rnd", bonus_discount=0.9)
    curious.explorer.rewarded = lambda *_: (rollout, more)
    plain, other = (make_agent("reinforce", THREE, returns="gae") for _ in range(2))
    psi, target, value = other.weights(rollout)
    other.weights = lambda _: (psi + more, target, value)
    for agent in (curious, plain, other):
        agent.learn(rollout, 0.0, draw())
    weights = [agent.core.state_dict() for agent in (curious, plain, other)]
    assert equal(weights[0], weights[2])
    assert not equal(weights[0], weights[1])


@pytest.mark.parametrize("bonus", BONUSES)
@pytest.mark.parametrize("name", ON_POLICY)
def test_an_agent_with_a_bonus_resumes_bit_for_bit(name, bonus):
    actions = BOX if bonus == "icm" else THREE
    settings = {"bonus": bonus, "bonus_discount": 0.9 if bonus == "rnd" else 0.0, **ON_POLICY[name]}
    one = make_agent(name, actions, **settings)
    rollout = made_up_rollout(one, (40, 8, 1))
    one.learn(rollout, 0.0, draw(1))
    other = make_agent(name, actions, seed=5, **settings)
    other.load_state_dict(one.state_dict())
    found = [agent.learn(rollout, 0.5, draw(2)) for agent in (one, other)]
    assert found[0] == found[1]
    assert {"bonus", "bonus_reward", "intrinsic_return"} <= found[0].keys()
    assert equal(one.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("name", "bonus"), [("dqn", "count"), ("dqn", "lwm"), ("ddpg", "rnd"), ("ddpg", "icm"), ("sac", "rnd")]
)
def test_an_agent_with_a_replay_buffer_resumes_bit_for_bit(name, bonus):
    actions = THREE if name == "dqn" else BOX
    settings = {"bonus": bonus, "num_steps": 10, "learning_starts": 0, "buffer_size": 400, "batch_size": 8,
                "replay_ratio": 0.1, "n_step": 3}  # fmt: skip
    one, other = (make_agent(name, actions, seed=seed, **settings) for seed in (0, 5))
    acting = make_agent("ppo", actions)
    rollouts = [made_up_rollout(acting, (10, 8, 1), seed=seed) for seed in range(5)]
    replays = [Replay(one.experience, rollouts[0].obs[0], rollouts[0].sample[0], None) for _ in range(2)]
    for rollout in rollouts[:4]:
        replays[0].add(rollout)
        one.learn(replays[0], 0.0, draw(1))
    replays[1].load_state_dict(replays[0].state_dict())
    other.load_state_dict(one.state_dict())
    metrics = []
    for agent, replay in zip((one, other), replays, strict=True):
        replay.add(rollouts[4])
        metrics.append({key: float(value) for key, value in agent.learn(replay, 0.5, draw(2)).items()})
    assert metrics[0] == metrics[1]
    assert {"bonus", "bonus_reward", "loss" if name == "dqn" else "critic_loss"} <= metrics[0].keys()
    assert equal(one.state_dict(), other.state_dict())


def replay_of(rollout, capacity=100):
    return Replay(ReplaySpec(len(rollout.reward), capacity), rollout.obs[0], rollout.sample[0], None)


def test_a_sampled_window_has_the_bonus_of_each_of_its_steps():
    rollout = rollout_of((6, 1, 1), ends=0.0)
    ends = rollout.terminated.clone()
    ends[3] = True
    rollout = dataclasses.replace(rollout, terminated=ends)
    replay = replay_of(rollout)
    replay.add(rollout)
    drawn = replay.sample(40, draw(), n_step=3, discount=0.5, bonus=lambda obs, action, after: obs[:, 0] + after[:, 1])
    following = torch.cat([rollout.obs[1:], rollout.last_obs[None]])
    following[3] = rollout.final_obs[3]
    each = (rollout.reward + rollout.obs[..., 0] + following[..., 1]).flatten().tolist()
    expected = [sum(0.5**k * each[t + k] for k in range(min(3, (4 if t < 4 else 6) - t))) for t in range(6)]
    assert set(drawn.slot.tolist()) == set(range(6))
    assert drawn.reward.tolist() == pytest.approx([expected[t] for t in drawn.slot.tolist()], abs=1e-5)


def test_a_bonus_in_order_is_added_to_the_rewards_that_were_stored_last():
    """The buffer holds 7 steps of 2 streams, and wraps around."""
    made, replay = explorer(in_order=True), replay_of(rollout_of((3, 2, 1)), 14)
    held = {}
    for k in range(3):
        rollout = rollout_of((3, 2, 1), seed=k)
        replay.add(rollout)
        made.arrived(replay, 0.0, draw())
        for t in range(3):
            held[(3 * k + t) % 7] = rollout.reward[t, :, 0] + rollout.obs[t, :, 0, 0]
    assert made.of_sampled is None
    assert torch.allclose(replay._reward.view(7, 2), torch.stack([held[k] for k in range(7)]))


def test_other_players_steps_teach_nothing():
    rollout = rollout_of(active=torch.zeros(6, 5, 1, dtype=torch.bool))
    agent = make_agent("ppo", THREE, bonus="rnd")
    before = agent.state_dict()
    assert agent.learn(rollout, 0.0, draw()) == {}
    after = agent.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_learning_with_a_bonus_draws_nothing_from_the_global_generator():
    torch.manual_seed(3)
    for bonus in BONUSES:
        agent = make_agent("ppo", THREE, bonus=bonus)
        agent.learn(made_up_rollout(agent, (40, 8, 1)), 0.0, draw())
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize(
    ("agent", "settings", "text"),
    [
        ("ppo", {"bonus_scale": -0.1}, "bonus_scale: got -0.1; wanted a number from 0 to "),
        ("dqn", {"bonus": "novelty"}, "bonus: got 'novelty'; wanted 'none', 'count', 'rnd', 'icm' or 'lwm'"),
        ("ppo", {"bonus_discount": 1.5}, "bonus_discount: got 1.5; wanted a number from 0 to 1"),
        ("reinforce", {"bonus_discount": 0.9}, "bonus_discount: got 0.9 with returns='to_go'"),
        ("sac", {"bonus": "lwm", "hindsight": "future"}, "bonus: got 'lwm' with hindsight 'future'"),
        ("ddpg", {"bonus_features": 0}, "bonus_features: got 0; wanted a number from 1 to 10,000"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(agent, settings, text):
    with pytest.raises(AgentError) as error:
        agent_entry(agent).config_class()(**settings)
    assert str(error.value).startswith(text)


def test_a_game_in_turns_is_refused_before_anything_is_written(tmp_path):
    settings = parse_train(["ppo", "mlbits/TicTacToe-v0", "--agent.bonus", "count", "--out", str(tmp_path / "run")])[0]
    with pytest.raises(AgentError, match=r"^bonus: got 'count' for mlbits/TicTacToe-v0, in which seats wait"):
        open_session(settings, start=False)
    refuse_turns(BonusSettings(bonus="count"), "x", None)
    refuse_turns(BonusSettings(), "x", torch.ones(1, 2, dtype=torch.bool))


def test_curves_keep_the_bonus_apart_from_the_environments_return(tmp_path):
    """DeepSea pays at most 0.99 an episode; the bonus of these steps is far more."""
    words = (
        "ppo mlbits/DeepSea-v0 --preset none --agent.bonus count --agent.bonus-scale 7 --agent.num-steps 20 "
        "--num-envs 4 --total-steps 160 --eval-every 0 --no-video --quiet --device cpu --seed 0"
    )
    folder, summary = train(parse_train(words.split())[0], tmp_path / "run", console=False)
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("learn/intrinsic_return", 0) for line in lines) > 5
    assert max(line["return/train"] for line in lines if "return/train" in line) < 1
    assert summary["return_mean"] < 1
