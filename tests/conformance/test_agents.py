"""Every registered agent on every kind of space that it supports.

It acts within its space, learns without NaN, continues from a saved state as if uninterrupted, is
the same for the same seed, and its deep copies are independent. Users' agents, registered by a plugin
(``pytest -p MODULE``), are tested too.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits import make_game
from mlbits.agents import AGENTS, action_kinds, agent_entry
from mlbits.agents.agent import AgentError, DatasetSpec, ReplaySpec, Rollout, RolloutSpec, rows
from mlbits.agents.memory.dataset import Dataset, Episode
from mlbits.agents.memory.replay import Replay
from mlbits.agents.networks.features import observation_kind
from mlbits.agents.population.spec import Outcomes, PopulationSpec
from mlbits.envs.core.spaces import action_layout
from tests.agents.disco.made_up import made_up_rule
from tests.agents.rollouts import draw

OBSERVATIONS = {
    "index": [spaces.Discrete(6)],
    "indices": [spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3)],
    "vector": [spaces.Box(-5, 5, (4,), np.float32), spaces.Box(0, 1, (2, 3), np.uint8)],
    "image": [spaces.Box(0, 255, (3, 10, 10), np.uint8)],
    "dict": [
        spaces.Dict(
            {
                "vector": spaces.Box(-5, 5, (2,), np.float32),
                "index": spaces.Discrete(3),
                "bits": spaces.MultiBinary(2),
            }
        )
    ],
}
LARGE_IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)  # Stable-Baselines3's convolutions need 36 pixels
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "orders": None,  # BOARD's
    "continuous": spaces.Box(np.array([-1, 0], np.float32), np.array([1, 3], np.float32)),
}
# Orders on a graph need their own observations.
BOARD = make_game("mlbits/DiplomacyMini-v0")
# Small values for speed, of the settings that an agent has.
SETTINGS = {
    "num_steps": 6, "hidden": (8,), "learning_starts": 0, "buffer_size": 400, "batch_size": 8, "minibatches": 2,
    "epochs": 2, "n_steps": 8, "epsilon_start": 0.5, "updates_per_iteration": 3, "replay_ratio": 2.0,
}  # fmt: skip
RULES = {}
T, B = 6, 4


def cases():
    """Every agent with all its action spaces on its first observation space, and with one of them on all others.

    A kind's second space is for slow runs: what reads it is the same network's input for all agents.
    """
    for name, entry in AGENTS.items():
        # These need a game (tests/agents/best_response), or pictures and goals (tests/agents/representation).
        if entry.plans or name == "wsc":
            continue
        for number, kind in enumerate(entry.observations):
            for k, space in enumerate(OBSERVATIONS[kind]):
                plain = [actions for actions in entry.actions if actions != "orders"]
                for actions in plain if number + k == 0 else plain[-1:]:
                    used = LARGE_IMAGE if kind == "image" and not uses_masks(name) else space
                    marks = [pytest.mark.slow] if k else []
                    yield pytest.param(name, used, ACTIONS[actions], id=f"{name}-{kind}{k}-{actions}", marks=marks)
        if "dict" in entry.observations and {"orders", "multi_discrete"} & set(entry.actions) and uses_masks(name):
            yield pytest.param(name, BOARD.observation_space, BOARD.action_space, id=f"{name}-board")


def uses_masks(name):
    """Stable-Baselines3 ignores masks (batches replace illegal actions), learned rules refuse them."""
    return agent_entry(name).masks and not name.startswith("sb3-")


@pytest.fixture(autouse=True, scope="module")
def discovered_rule(tmp_path_factory):
    """The file that disco learns by."""
    with made_up_rule(tmp_path_factory.mktemp("rule")) as path:
        RULES["disco"] = str(path)
        yield


every_case = pytest.mark.parametrize(("name", "observations", "actions"), list(cases()))


def make(name, observations, actions, seed=0):
    config = agent_entry(name).config_class()
    settings = {field.name: SETTINGS[field.name] for field in dataclasses.fields(config) if field.name in SETTINGS}
    settings = {} if agent_entry(name).plans else settings
    settings |= {"rule": RULES[name]} if name in RULES else {}
    settings |= {"low": (-1.0, -1.0), "high": (1.0, 1.0)} if name == "map-elites" else {}  # numbers have no range
    return agent_entry(name).make(config(**settings), observations, actions, seed=seed, device="cpu")


def seen(space, lead, generator):
    """Random observations [*lead, ...] of a space, as in batches."""
    if isinstance(space, spaces.Dict):
        return {key: seen(part, lead, generator) for key, part in space.items()}
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), lead, generator=generator, dtype=torch.int32)
    if isinstance(space, spaces.MultiDiscrete):
        parts = [torch.randint(int(n), lead, generator=generator, dtype=torch.int32) for n in space.nvec]
        return torch.stack(parts, -1)
    if isinstance(space, spaces.MultiBinary):
        return torch.randint(2, (*lead, *space.shape), generator=generator, dtype=torch.int8)
    low, high = (torch.from_numpy(bound.astype(np.float32)) for bound in (space.low, space.high))
    values = low + (high - low) * torch.rand(*lead, *space.shape, generator=generator)
    return values if np.issubdtype(space.dtype, np.floating) else values.to(getattr(torch, space.dtype.name))


def legal(space, lead, generator):
    """A mask [*lead, A] with a legal choice in every part; None for continuous actions."""
    layout = action_layout(space)
    if layout.kind == "continuous":
        return None
    parts = []
    for n in layout.nvec:
        one = torch.randint(n, (*lead, 1), generator=generator)
        parts.append((torch.rand(*lead, n, generator=generator) < 0.5) | (torch.arange(n) == one))
    return torch.cat(parts, -1)


def is_legal(space, mask, action):
    if mask is None:
        return True
    start, fine = 0, True
    for k, n in enumerate(action_layout(space).nvec):
        part = action if action.dim() == 1 else action[:, k]
        fine &= bool(mask[:, start : start + n].gather(1, part.unsqueeze(1)).all())
        start += n
    return fine


def rollout(agent, observations, actions, seed, masked, seats):
    """A rollout of T steps of B copies with the agent's own actions and everything else random."""
    generator, spec = draw(seed), agent.experience
    lead = (T, B, seats)
    obs = seen(observations, lead, generator)
    mask = legal(actions, (T + 1, B, seats), generator) if masked else None
    decision = agent.act(rows(obs, 3), None if mask is None else mask[:-1].flatten(0, 2), generator)
    shape = (*lead, *decision.sample.shape[1:])
    log_prob = torch.zeros(lead) if decision.log_prob is None else decision.log_prob.view(lead)
    ended = torch.rand(2, T, B, generator=generator) < 0.2
    owned = torch.rand(B, seats, generator=generator) < 0.7 if seats > 1 else None
    if isinstance(spec, RolloutSpec) and spec.whole_episodes:
        ended[:] = False
        ended[0, -1] = True
        owned = torch.ones(B, seats, dtype=torch.bool) if owned is None else owned
    return Rollout(
        obs=obs,
        last_obs=seen(observations, lead[1:], generator),
        final_obs=seen(observations, lead, generator),
        sample=decision.sample.view(shape),
        log_prob=log_prob,
        reward=torch.randn(lead, generator=generator),
        terminated=ended[0],
        truncated=ended[1],
        legal_mask=None if mask is None else mask[:-1],
        active=None if owned is None else owned.expand(lead).clone(),
        last_mask=None if mask is None else mask[-1],
        notes=decision.notes and {note: value.view(*lead, *value.shape[1:]) for note, value in decision.notes.items()},
    )


def dataset(observations, actions, seed, masked):
    """Two episodes of T steps in which everything is random, but actions are legal."""
    generator, episodes = draw(seed), []
    for number in range(2):
        mask = legal(actions, (T + 1,), generator) if masked else None
        if action_layout(actions).kind == "continuous":
            action = seen(actions, (T,), generator)
        else:
            action = (
                torch.randint(int(actions.n), (T,), generator=generator) if mask is None else mask[:-1].int().argmax(-1)
            )
        ended = torch.arange(T) == T - 1
        episodes.append(
            Episode(
                obs=seen(observations, (T + 1,), generator),
                action=action,
                reward=torch.randn(T, generator=generator),
                terminated=ended if number else ~ended & False,
                truncated=~ended & False if number else ended,
                mask=mask,
            )
        )
    return Dataset.from_episodes(episodes, observations, actions)


def outcomes(agent, seed):
    """What the policies that a population asks for did: anything."""
    generator, spec = draw(seed), agent.experience
    count, width = len(agent.ask(draw(50 + seed))), agent.policies.mlp.widths[0]
    each = torch.randn(count, spec.episodes, generator=generator, dtype=torch.float64)
    return Outcomes(
        returns=each.mean(1),
        final=torch.rand(count, width, generator=generator),
        states=torch.randn(max(spec.states, 1), width, generator=generator),
        lengths=torch.full((count, spec.episodes), T),
        each=each,
    )


class Lessons:
    """The same experience for every agent that learns from it."""

    def __init__(self, observations, actions, masked=False, seats=1):
        self.spaces, self.masked, self.seats = (observations, actions), masked, seats

    def __call__(self, agent, numbers, replay=None):
        """Let an agent learn; return its metrics and its replay buffer."""
        metrics = {}
        for number in numbers:
            if isinstance(agent.experience, PopulationSpec):
                experience = outcomes(agent, number)
            elif isinstance(agent.experience, DatasetSpec):
                masked = self.masked and action_layout(self.spaces[1]).kind == "discrete"
                experience = dataset(*self.spaces, number, masked)
            else:
                experience = rollout(agent, *self.spaces, number, self.masked, self.seats)
            if isinstance(agent.experience, ReplaySpec):
                if replay is None:
                    replay = Replay(agent.experience, experience.last_obs, experience.sample[0], experience.last_mask)
                replay.add(experience)
                experience = replay
            learnt = agent.learn(experience, number / 10, draw(100 + number))
            metrics |= {name: float(value) for name, value in learnt.items()}
        return metrics, replay


def state_of(agent):
    return {name: value.clone() for name, value in agent.state_dict().items()}


def equal(one, two):
    same = ((one[key].shape, two[key].shape) for key in one if key in two)
    return (
        one.keys() == two.keys()
        and all(a == b for a, b in same)
        and all(torch.allclose(one[key], two[key], rtol=0, atol=0, equal_nan=True) for key in one)
    )


def decisions(agent, observations, actions, masked=False):
    """Its actions for 20 observations, sampled and greedy."""
    obs = seen(observations, (20,), draw(7))
    mask = legal(actions, (20,), draw(8)) if masked else None
    return [agent.act(obs, mask, draw(9), greedy=greedy).action for greedy in (False, True)]


@every_case
def test_it_acts_within_its_space(name, observations, actions):
    agent = make(name, observations, actions)
    layout = action_layout(actions)
    count = 50
    obs = seen(observations, (count,), draw(1))
    some = legal(actions, (count,), draw(2)) if uses_masks(name) else None
    kept = copy.deepcopy(obs)
    for mask, greedy in ((None, False), (None, True), (some, False), (some, True)):
        decision = agent.act(obs, mask, draw(3), greedy=greedy)
        assert decision.action.shape == (count, *layout.shape)
        assert decision.action.dtype == (torch.float32 if layout.kind == "continuous" else torch.int64)
        assert all(actions.contains(action.numpy().astype(actions.dtype)) for action in decision.action)
        assert is_legal(actions, mask, decision.action)
        assert len(decision.sample) == count
        assert decision.log_prob is None or (decision.log_prob.shape == (count,) and decision.log_prob.isfinite().all())
        assert not decision.action.requires_grad
        again = agent.act(obs, mask, draw(3), greedy=greedy)
        assert torch.equal(again.action, decision.action)  # it draws only from the generator
    pairs = [(obs, kept)] if not isinstance(obs, dict) else [(obs[key], kept[key]) for key in obs]
    assert all(torch.equal(now, before) for now, before in pairs)


@every_case
@pytest.mark.parametrize(("masked", "seats"), [(False, 1), (True, 3)])
def test_it_learns_without_nan(name, observations, actions, masked, seats):
    agent = make(name, observations, actions)
    if masked and not agent_entry(name).masks:
        with pytest.raises(AgentError, match="legal_mask: got action masks"):
            decisions(agent, observations, actions, masked)
        masked = False
    lessons = Lessons(observations, actions, masked, seats)
    if agent.experience is None:
        with pytest.raises(AgentError, match="wanted"):
            lessons(agent, [0])
        return
    before = state_of(agent)
    metrics, _ = lessons(agent, range(3))
    assert metrics
    assert not any(np.isinf(value) for value in metrics.values()), metrics  # NaN means no value
    after = state_of(agent)
    assert before.keys() <= after.keys()
    assert not equal(before, {key: after[key] for key in before})
    assert not any(value.isnan().any() for value in after.values())
    for action in decisions(agent, observations, actions, masked):
        assert is_legal(actions, legal(actions, (20,), draw(8)) if masked else None, action)


@every_case
def test_the_same_seed_makes_the_same_agent_and_global_generators_are_not_used(name, observations, actions):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = make(name, observations, actions, seed=3), make(name, observations, actions, seed=3)
    assert equal(state_of(one), state_of(two))
    for action, same in zip(*(decisions(agent, observations, actions) for agent in (one, two)), strict=True):
        assert torch.equal(action, same)
    assert torch.equal(torch.get_rng_state(), before)


@every_case
def test_it_continues_from_its_state_bit_for_bit(name, observations, actions):
    one, two = make(name, observations, actions, seed=1), make(name, observations, actions, seed=2)
    lessons, replay = Lessons(observations, actions, seats=2), None
    if one.experience is not None:
        _, replay = lessons(one, range(2))
    saved = one.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in saved.values())
    two.load_state_dict({key: value.clone() for key, value in saved.items()})
    assert equal(state_of(one), state_of(two))
    for action, same in zip(*(decisions(agent, observations, actions) for agent in (one, two)), strict=True):
        assert torch.equal(action, same)
    if one.experience is not None:
        for agent, held in ((one, copy.deepcopy(replay)), (two, copy.deepcopy(replay))):
            lessons(agent, range(2, 4), held)
        assert equal(state_of(one), state_of(two))
    kept = state_of(one)
    for value in saved.values():
        value.zero_()
    assert equal(state_of(one), kept)  # what was saved is a copy


@every_case
def test_deep_copies_are_independent(name, observations, actions):
    agent = make(name, observations, actions)
    if agent.experience is None:
        copied = copy.deepcopy(agent)
        assert equal(state_of(agent), state_of(copied))
        return
    lessons = Lessons(observations, actions)
    _, replay = lessons(agent, range(2))
    copied, kept = copy.deepcopy(agent), state_of(agent)
    lessons(copied, range(2, 4), copy.deepcopy(replay))
    assert equal(state_of(agent), kept)
    assert not equal(state_of(copied), kept)
    lessons(agent, range(2, 4), copy.deepcopy(replay))
    assert equal(state_of(agent), state_of(copied))


@pytest.mark.parametrize("name", list(AGENTS))
def test_unsupported_spaces_are_refused_naming_agents_that_support_them(name):
    entry = agent_entry(name)
    assert entry.summary
    assert entry.actions
    assert set(entry.actions) <= set(ACTIONS)
    assert entry.observations
    assert set(entry.observations) <= set(OBSERVATIONS)
    for space in (*filter(None, ACTIONS.values()), BOARD.action_space):
        if not set(action_kinds(space)) & set(entry.actions):
            with pytest.raises(AgentError, match=rf"^{name}: got the action space .*wanted one.*: .*\bppo\b"):
                make(name, OBSERVATIONS[entry.observations[0]][0], space)
    for kind, found in OBSERVATIONS.items():
        assert {observation_kind(space) for space in found} == {kind}
        if kind not in entry.observations:
            with pytest.raises(AgentError, match=rf"^{name}: got the observation space .*wanted one.*\bppo\b"):
                make(name, found[0], ACTIONS[entry.actions[0]] or BOARD.action_space)
