"""``predict``: what environments give, single or in batches, is what the agent sees; its actions are what they take."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from torch import Tensor

import mlbits
from mlbits.agents import agent_entry
from mlbits.agents.agent import Decision
from mlbits.selfplay.policy import Policy, PolicyError
from tests.games import register_test_games

register_test_games()


class Watching:
    """An agent that keeps the rows it was shown, and plays what it was told."""

    experience = None

    def __init__(self, action: Any) -> None:
        self.action = torch.as_tensor(action)

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        self.obs, self.mask, self.greedy = obs, legal_mask, greedy
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        action = self.action.expand(len(some), *self.action.shape).clone()
        return Decision(action, action, None)


def watching(
    observation_space: gym.Space[Any], action_space: gym.Space[Any] | None = None, action: Any = 1
) -> tuple[Any, Any]:
    agent = Watching(action)
    action_space = action_space or spaces.Discrete(3)
    policy = Policy(agent, env="", env_settings={}, observation_space=observation_space, action_space=action_space)
    return policy, agent


PLAIN = {
    "vector": spaces.Box(-1, 1, (3,)),
    "float64": spaces.Box(-1, 1, (3,), np.float64),
    "image": spaces.Box(0, 255, (8, 9, 3), np.uint8),
    "index": spaces.Discrete(5),
    "indices": spaces.MultiDiscrete([4, 5]),
    "bits": spaces.MultiBinary(4),
}


@pytest.mark.parametrize("name", PLAIN)
def test_one_observation_or_a_batch_are_rows(name: str) -> None:
    space = PLAIN[name]
    policy, agent = watching(space)
    space.seed(1)
    seen = [space.sample() for _ in range(4)]
    action = policy.predict(seen[0])
    assert action == 1
    assert type(action) is np.int64
    assert np.array_equal(agent.obs.numpy(), np.stack([seen[0]]).astype(agent.obs.numpy().dtype))
    batch = np.stack(seen)
    many = policy.predict(batch)
    assert many.tolist() == [1, 1, 1, 1]
    assert many.dtype == np.int64
    assert np.allclose(agent.obs.numpy(), np.stack(seen))
    assert agent.obs.dtype in (torch.float32, torch.uint8, torch.int32, torch.int8)  # what networks are trained on
    kept = agent.obs.clone()
    batch[...] = 0
    assert torch.equal(agent.obs, kept)  # a copy: the environment may write over its own


def test_a_dict_is_read_by_its_parts() -> None:
    policy, agent = watching(spaces.Dict({"place": spaces.Discrete(4), "speed": spaces.Box(-1, 1, (2,))}))
    policy.predict({"speed": [0.5, 0.25], "place": 3})
    assert (agent.obs["place"].tolist(), agent.obs["speed"].tolist()) == ([3], [[0.5, 0.25]])
    policy.predict({"place": np.array([3, 1]), "speed": np.zeros((2, 2))})
    assert agent.obs["place"].tolist() == [3, 1]
    with pytest.raises(PolicyError, match=r"obs: got the keys 'place'; wanted a dict of 'place', 'speed'"):
        policy.predict({"place": 3})
    with pytest.raises(
        PolicyError, match=r"obs\['speed'\]: got a single observation, and in obs\['place'\] a batch of 2"
    ):
        policy.predict({"place": np.array([3, 1]), "speed": np.zeros(2)})


@pytest.mark.parametrize(
    "space",
    [
        spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]),
        spaces.Dict({"inner": spaces.Dict({"a": spaces.Discrete(2, start=1)}), "b": spaces.MultiBinary(2)}),
        spaces.Discrete(4, start=-2),
    ],
    ids=["tuple", "nested", "start"],
)
def test_spaces_that_agents_know_flattened(space: gym.Space[Any]) -> None:
    policy, agent = watching(space)
    space.seed(2)
    seen = [space.sample() for _ in range(3)]
    policy.predict(seen[0])
    assert np.allclose(agent.obs.numpy(), [spaces.flatten(space, seen[0])])
    many = batch_space(space, 3)
    many.seed(3)
    batch = many.sample()
    assert policy.predict(batch).shape == (3,)
    assert np.allclose(agent.obs.numpy(), [spaces.flatten(space, row) for row in iterate(many, batch)])
    with pytest.raises(PolicyError, match=r"obs: got the observation"):
        policy.predict("nothing of the kind")


def test_tuples_are_checked_as_plain_spaces_are() -> None:
    policy, _ = watching(spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]))
    with pytest.raises(PolicyError, match=r"obs: got \(0, array.*nan.*; wanted finite numbers"):
        policy.predict((0, np.array([np.nan, 0])))
    with pytest.raises(PolicyError, match=r"obs\[1\]: got a batch of 3, and in its first part a batch of 2; wanted"):
        policy.predict((np.array([0, 1]), np.zeros((3, 2))))
    with pytest.raises(PolicyError, match=r"obs: got the observation \(0,\); wanted Tuple"):
        policy.predict((0,))


WRONG = [
    ("vector", np.zeros(4), r"obs: got shape \(4,\); wanted \(3,\), or a batch \(N, 3\)"),
    ("vector", np.zeros((2, 2, 3)), r"obs: got shape \(2, 2, 3\); wanted \(3,\)"),
    ("vector", 3.0, r"obs: got shape \(\); wanted \(3,\)"),
    ("vector", [0.0, float("nan"), 0.0], r"obs: got .*nan.*; wanted finite numbers, smaller than 1.8e19"),
    ("vector", [[1.0], [1.0, 2.0]], r"obs: got \[\[1.0\], \[1.0, 2.0\]\]; wanted Box"),
    ("vector", ["a", "b", "c"], r"obs: got dtype <U1; wanted float32, as in Box"),
    ("image", np.zeros((8, 9, 3)), r"obs: got dtype float64; wanted uint8, as in Box\(0, 255"),
    ("image", np.full((8, 9, 3), 256), r"obs: got dtype int64; wanted uint8"),
    ("index", 5, r"obs: got 5; wanted Discrete\(5\)"),
    ("index", -1, r"obs: got -1; wanted Discrete\(5\)"),
    ("index", 1.5, r"obs: got dtype float64; wanted int32, as in Discrete\(5\)"),
    ("index", np.zeros((2, 1), int), r"obs: got shape \(2, 1\); wanted \(\), or a batch \(N,\)"),
    ("indices", [3, 5], r"obs: got \[3, 5\]; wanted MultiDiscrete\(\[4 5\]\)"),
]


@pytest.mark.parametrize(("name", "obs", "said"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_observation_is_named(name: str, obs: Any, said: str) -> None:
    policy, _ = watching(PLAIN[name])
    with pytest.raises(PolicyError, match=said):
        policy.predict(obs)


def test_bytes_may_come_as_other_whole_numbers() -> None:
    policy, agent = watching(PLAIN["image"])
    policy.predict(np.full((8, 9, 3), 255))
    assert agent.obs.dtype == torch.uint8
    assert agent.obs.min() == 255


FORMS: dict[str, tuple[gym.Space[Any], Any, Any]] = {
    "discrete": (spaces.Discrete(4), 2, np.int64(2)),
    "start": (spaces.Discrete(4, start=-1), 2, np.int64(1)),
    "multi": (spaces.MultiDiscrete([3, 4]), [2, 3], np.array([2, 3])),
    "two axes": (
        spaces.MultiDiscrete([[3, 4], [5, 6]], start=[[1, 0], [0, 0]]),
        [2, 3, 4, 5],
        np.array([[3, 3], [4, 5]]),
    ),
    "bits": (spaces.MultiBinary((2, 1)), [1, 0], np.array([[1], [0]], np.int8)),
    "box": (spaces.Box(-1, 1, (2,)), [0.5, -1.0], np.array([0.5, -1], np.float32)),
    "wide": (spaces.Box(-0.1, 0.1, (1, 2), np.float64), [0.05, 0.1], np.array([[np.float32(0.05), 0.1]])),
    "whole": (spaces.Box(-5, 5, (1,), np.int16), [2.6], np.array([3], np.int16)),
}


@pytest.mark.parametrize("name", FORMS)
def test_actions_have_the_form_of_the_space(name: str) -> None:
    space, own, wanted = FORMS[name]
    if name == "wide":  # what agents play on the bound 0.1 is the float32 below it
        own = [0.05, float(np.nextafter(np.float32(0.1), np.float32(0)))]
    kind = torch.float32 if isinstance(space, spaces.Box) else torch.int64
    policy, _ = watching(PLAIN["vector"], space, torch.tensor(own, dtype=kind))
    one, many = policy.predict(np.zeros(3)), policy.predict(np.zeros((2, 3)))
    assert space.contains(one)
    assert one.dtype == space.dtype
    assert np.array_equal(one, wanted)
    assert np.array_equal(many, [wanted, wanted])


def test_masks() -> None:
    policy, agent = watching(PLAIN["vector"], spaces.Discrete(3), 1)
    obs = np.zeros(3)
    assert policy.predict(obs, action_mask=np.array([1, 1, 0], np.int8)) == 1
    assert agent.mask.tolist() == [[True, True, False]]
    # An agent that knows no masks plays the lowest legal action in place of an illegal one, as in evaluation.
    assert policy.predict(obs, action_mask=[False, False, True]) == 2
    batch = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert policy.predict(np.zeros((3, 3)), action_mask=batch).tolist() == [0, 1, 2]
    for mask, said in (
        ([1, 1], r"action_mask: got shape \(2,\); wanted \(3,\)"),
        (batch, r"action_mask: got shape \(3, 3\); wanted \(3,\)"),
        ([0, 0, 0], r"action_mask: got no legal action; wanted at least one"),
        ([2, 0, 0], r"action_mask: got int64, \[2, 0, 0\]; wanted bool"),
        ([0.5, 1, 1], r"action_mask: got float64"),
    ):
        with pytest.raises(PolicyError, match=said):
            policy.predict(obs, action_mask=mask)
    batch[1] = 0
    with pytest.raises(PolicyError, match=r"no legal action in row 1"):
        policy.predict(np.zeros((3, 3)), action_mask=batch)
    with pytest.raises(PolicyError, match="wanted none, as actions are continuous"):
        watching(PLAIN["vector"], spaces.Box(-1, 1, (2,)))[0].predict(obs, action_mask=[1, 1])


def test_masks_of_several_sub_actions() -> None:
    policy, agent = watching(PLAIN["vector"], spaces.MultiDiscrete([2, 3]), [1, 0])
    mask = (np.array([1, 1], np.int8), np.array([0, 0, 1], np.int8))  # as in PettingZoo's door
    assert policy.predict(np.zeros(3), action_mask=mask).tolist() == [1, 2]
    assert agent.mask.tolist() == [[True, True, False, False, True]]
    assert policy.predict(np.zeros(3), action_mask=[1, 0, 1, 1, 1]).tolist() == [0, 0]
    with pytest.raises(PolicyError, match="no legal action of sub-action 1"):
        policy.predict(np.zeros(3), action_mask=[1, 0, 0, 0, 0])


class Counting:
    """An agent with memory: it counts the steps of each episode, and plays the count."""

    experience, memory_size = None, 1

    def act(self, obs: Any, legal_mask: Any, generator: Any, *, greedy: bool = False, memory: Tensor) -> Any:
        class Remembered:
            action, log_prob = memory[:, 0].long(), None

        Remembered.memory = memory + 1  # type: ignore[attr-defined]
        return Remembered


def counting(game: Any = None) -> Policy:
    spaces_ = PLAIN["vector"], spaces.Discrete(9)
    return Policy(
        Counting(), env="", env_settings={}, observation_space=spaces_[0], action_space=spaces_[1], game=game
    )  # fmt: skip


def test_what_is_remembered_is_kept_by_episode() -> None:
    policy, one, three = counting(), np.zeros(3), np.zeros((3, 3))
    assert [policy.predict(one) for _ in range(3)] == [0, 1, 2]
    assert policy.predict(one, episode_start=True) == 0
    assert policy.predict(one, episode_start=False) == 1
    assert policy.predict(one, episode_start=np.True_) == 0
    policy.reset()
    assert policy.predict(one) == 0
    with pytest.raises(PolicyError, match=r"obs: got 3 observations, and it remembers 1; wanted as many, or reset"):
        policy.predict(three)
    assert policy.predict(three, episode_start=np.ones(3, bool)).tolist() == [0, 0, 0]
    assert policy.predict(three).tolist() == [1, 1, 1]
    assert policy.predict(three, episode_start=np.array([False, True, False])).tolist() == [2, 0, 2]
    with pytest.raises(PolicyError, match=r"episode_start: got bool \(2,\); wanted True, False or bool \(3,\)"):
        policy.predict(three, episode_start=np.ones(2, bool))


def test_each_seat_remembers_for_itself() -> None:
    policy, obs = counting(mlbits.make_game("mlbits/Blotto-v0")), np.zeros(3)
    played = [policy.predict(obs, agent=agent) for agent in ("player_0", "player_1", "player_0", 1, "player_0")]
    assert played == [0, 0, 1, 1, 2]
    with pytest.raises(PolicyError, match=r"agent: got array\(\[0, 1\]\);"):
        policy.predict(obs, agent=np.array([0, 1]))  # type: ignore[arg-type]
    for seed in (-1, 2**63, "x"):
        with pytest.raises(PolicyError, match=r"seed: got .*; wanted a whole number from 0 to"):
            policy.seed(seed)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"agent: got 'player_2'; wanted one of player_0, player_1, or its number"):
        policy.predict(obs, agent="player_2")


def test_a_recurrent_agent_remembers_as_when_it_is_trained() -> None:
    entry = agent_entry("ppo")
    observation_space, action_space = PLAIN["vector"], spaces.Discrete(3)
    agent = entry.make(
        entry.config_class()(memory="gru", hidden=(8,)), observation_space, action_space, seed=0, device="cpu"
    )
    policy = Policy(
        agent, env="", env_settings={}, observation_space=observation_space, action_space=action_space
    )  # fmt: skip
    seen = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)  # 4 steps of 2 copies
    memory, wanted = torch.zeros(2, agent.memory_size), []
    for obs in seen:
        decision = agent.act(torch.from_numpy(obs), None, torch.Generator(), greedy=True, memory=memory)
        wanted.append(decision.log_prob.tolist())
        memory = decision.memory
    for _ in range(2):
        found = [policy.predict(obs, details=True).log_prob for obs in seen]
        assert np.allclose(found, wanted)
        policy.reset()
