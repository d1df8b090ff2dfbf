"""WSC on pictures made up here: what it sees and wants, whose goals it plays for, and spaces that it refuses."""

import dataclasses
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError, Rollout
from mlbits.agents.representation.wsc import WSC, WSCConfig
from mlbits.selfplay.bookkeeping import evaluate
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session

PICTURE = spaces.Box(0, 255, (1, 16, 16), np.uint8)
UNIT = spaces.Box(0, 1, (3,), np.float32)
GOAL = spaces.Box(0, 1, (2,), np.float32)
SPACE = spaces.Dict({"observation": PICTURE, "goal_picture": PICTURE, "factors": UNIT, "desired_goal": GOAL})
ACTION = spaces.Box(-1, 1, (2,), np.float32)
SMALL = {
    "goal_factors": (0, 1), "pictures": 40, "pairs": 60, "look_iterations": 3, "latents": 4, "num_steps": 3,
    "buffer_size": 200, "learning_starts": 10, "batch_size": 8, "hidden": (8,),
}  # fmt: skip
T, B = 3, 4
KINDS = ("rank", "gan", "vae", "factors")


def draw(seed):
    return torch.Generator().manual_seed(seed)


def made(seed=0, **settings):
    return WSC(WSCConfig(**{**SMALL, **settings}), SPACE, ACTION, seed=seed)


def seen(lead, seed):
    generator = draw(seed)
    shapes = {name: (*lead, *space.shape) for name, space in SPACE.items()}
    pictures = {
        n: torch.randint(256, s, generator=generator, dtype=torch.uint8) for n, s in shapes.items() if "ure" in n
    }
    pictures["observation"] = torch.randint(256, shapes["observation"], generator=generator, dtype=torch.uint8)
    return {n: pictures[n] if n in pictures else torch.rand(s, generator=generator) for n, s in shapes.items()}


def looked(**settings):
    agent = made(**settings)
    assert not agent.sees
    shown = seen((40,), 7)
    agent.look(shown["observation"], shown["factors"].numpy(), draw(3))
    return agent


def rollout(agent, seed):
    generator = draw(seed)
    obs = seen((T, B, 1), seed)
    memory = torch.zeros(T * B, agent.memory_size)
    decision = agent.act({k: part.flatten(0, 2) for k, part in obs.items()}, None, generator, memory=memory)
    ended = torch.rand(T, B, generator=generator) < 0.3
    lead = (T, B, 1)
    return Rollout(
        obs=obs, last_obs=seen((B, 1), seed + 100), final_obs=seen(lead, seed + 200),
        sample=decision.sample.view(*lead, -1), log_prob=torch.zeros(lead), reward=torch.zeros(lead),
        terminated=torch.zeros(T, B, dtype=torch.bool), truncated=ended, legal_mask=None, active=None,
        notes={"goal": decision.notes["goal"].view(*lead, -1)},
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_it_looks_acts_learns_and_goes_on_from_a_saved_state(kind):
    goals = "skewed" if kind == "vae" else "auto"
    agent = looked(representation=kind, goals=goals)
    agent.prepare_to_learn()
    for seed in range(4):
        metrics = agent.learn(rollout(agent, seed), 0.1, draw(seed))
    assert metrics["updates"] > 10
    assert float(metrics["goal_distance"]) > 0
    other = made(seed=5, representation=kind, goals=goals)
    other.load_state_dict(agent.state_dict())
    other.prepare_to_learn()
    for each in (agent, other):
        each.learn(rollout(each, 9), 0.2, draw(9))
    one, two = agent.state_dict(), other.state_dict()
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def test_latents_are_scaled_by_the_pictures_of_phase_one():
    agent, shown = looked(), seen((40,), 7)
    latents = agent.encode(shown)
    assert latents.shape == (40, 3)
    assert torch.allclose(latents.min(0).values, torch.zeros(3), atol=1e-6)
    assert torch.allclose(latents.max(0).values, torch.ones(3), atol=1e-6)
    exact = looked(representation="factors")
    low, high = shown["factors"].min(0).values, shown["factors"].max(0).values
    assert torch.allclose(exact.encode(shown), (shown["factors"] - low) / (high - low))
    assert torch.allclose(exact.shown_goal(shown), ((shown["desired_goal"] - low[:2]) / (high - low)[:2]))


def test_goals_are_latents_of_the_chosen_factors_of_the_goal_picture():
    agent, shown = looked(labelled=(2, 0, 1), goal_factors=(1, 2)), seen((5,), 1)
    as_seen = {**shown, "observation": shown["goal_picture"]}
    assert torch.equal(agent.shown_goal(shown), agent.encode(as_seen)[:, [2, 0]])


def test_in_training_it_plays_for_its_own_goals_an_episode_long_and_otherwise_for_those_it_is_shown():
    agent, shown = looked(), seen((6,), 2)
    nothing = torch.zeros(6, agent.memory_size)
    assert torch.equal(agent.act(shown, None, draw(0), memory=nothing).notes["goal"], agent.shown_goal(shown))
    agent.prepare_to_learn()
    first = agent.act(shown, None, draw(0), memory=nothing)
    own = first.notes["goal"]
    assert not torch.allclose(own, agent.shown_goal(shown))
    assert 0 <= float(own.min()) <= float(own.max()) <= 1
    half = torch.cat([first.memory[:3], nothing[3:]])  # three episodes go on, three begin
    then = agent.act(shown, None, draw(1), memory=half).notes["goal"]
    assert torch.equal(then[:3], own[:3])
    assert not torch.equal(then[3:], own[3:])
    greedy = agent.act(shown, None, draw(0), greedy=True, memory=first.memory).notes["goal"]
    outside = agent.outside_training().act(shown, None, draw(0), memory=first.memory).notes["goal"]
    for goal in (greedy, outside):
        assert torch.equal(goal, agent.shown_goal(shown))


def test_evaluations_of_a_run_with_chance_are_for_the_goals_that_are_shown(monkeypatch):
    """Episodes of the goal's own, whoever draws the actions."""
    env = {"observation": "both"}
    session = open_session(
        resolve("wsc", "mlbits/PushBlocks-v0", preset="none", env_settings=env, agent_settings=SMALL,
                run={"total_steps": 100, "eval_greedy": False, "eval_episodes": 3, "video": False})
    )  # fmt: skip
    goals = []
    monkeypatch.setattr(WSC, "new_goals", lambda *given: goals.append(given) or torch.zeros(given[1], 2))
    evaluate(session, Mock())
    assert not goals
    session.collect()
    assert goals


def test_next_latents_are_those_of_the_next_step_or_of_the_last_observation_of_an_episode():
    agent = looked(representation="factors")
    agent._low, agent._high = torch.zeros(3), torch.ones(3)
    played = rollout(agent, 4)
    agent.learn(played, 0.0, draw(0))
    obs, last, final = (
        played.obs["factors"][:, :, 0],
        played.last_obs["factors"][:, 0],
        played.final_obs["factors"][:, :, 0],
    )
    for t in range(T):
        for b in range(B):
            following = obs[t + 1, b] if t + 1 < T else last[b]
            wanted = final[t, b] if played.truncated[t, b] else following
            assert torch.equal(agent.memory._rows["next_z"][t * B + b], wanted)
            assert torch.equal(agent.memory._rows["z"][t * B + b], obs[t, b])


def test_skewed_goals_are_rare_ones_among_those_reached():
    def spread(power):
        agent = looked(representation="vae", goals="skewed", skew_power=power, buffer_size=4000)
        generator = draw(5)
        z = torch.randn(100, 10, 4, generator=generator) * torch.tensor([1.0, 1, 1, 1])
        ends = torch.zeros(100, 10, dtype=torch.bool)
        agent.memory.add(z, z, torch.zeros(100, 10, 2), z, ends, ends)
        agent._skew(generator)
        assert all((agent.memory._rows["next_z"] == goal).all(1).any() for goal in agent._pool[:5])
        return float(agent.new_goals(500, generator).norm(dim=1).mean())

    assert spread(-1.0) > spread(0.0) + 0.3


def test_a_factor_that_never_varies_is_0_and_no_goal():
    shown = seen((40,), 7)
    shown["factors"][:, 2] = 0.5
    agent = made(representation="factors")
    agent.look(shown["observation"], shown["factors"].numpy(), draw(0))
    assert (agent.encode(shown)[:, 2] == 0).all()
    shown["factors"][:, 1] = 0.5
    with pytest.raises(AgentError, match=r"goal_factors: factor 1 is 0\.5 in all 40 pictures; wanted one that varies"):
        agent.look(shown["observation"], shown["factors"].numpy(), draw(0))


@pytest.mark.parametrize("kind", ["rank", "factors"])
def test_it_does_not_learn_before_it_sees(kind):
    agent = made(representation=kind)
    with pytest.raises(AgentError, match="wsc: has no encoder yet"):
        agent.learn(rollout(agent, 0), 0.0, draw(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"future": 0.8, "fresh": 0.3}, "future, fresh: got 0.8 and 0.3; wanted at most 1 together"),
        ({"goal_factors": ()}, r"goal_factors: got \(\); wanted one or more"),
        ({"goal_factors": (0, 3)}, "goal_factors: got factor 3; wanted 0 to 2"),
        ({"labelled": (0, 2)}, r"goal_factors: factor 1 has no labels; wanted some of \(0, 2\)"),
        ({"labelled": (0, 1, 7)}, "labelled: got factor 7; wanted 0 to 2"),
        ({"goals": "prior"}, "goals: got 'prior' for the representation 'rank', which has none"),
        ({"representation": "factors", "goal_factors": (1,)}, "and the environment's goals have 2 numbers"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(AgentError, match=message):
        made(**settings)


def test_spaces_without_pictures_or_with_small_ones_are_refused():
    without = spaces.Dict({name: part for name, part in SPACE.items() if name != "goal_picture"})
    tiny = spaces.Dict(
        {**SPACE.spaces, **dict.fromkeys(("observation", "goal_picture"), spaces.Box(0, 255, (1, 8, 8), np.uint8))}
    )
    vector = spaces.Dict({**SPACE.spaces, "observation": UNIT})
    for space, message in (
        (without, "wsc: the observations have no goal_picture; wanted a Dict with"),
        (UNIT, "wsc: the observations have no observation"),
        (tiny, "got pictures of 8 x 8, too small"),
        (vector, "wsc: got pictures Box"),
    ):
        with pytest.raises(AgentError, match=message):
            WSC(WSCConfig(**SMALL), space, ACTION)
    with pytest.raises(AgentError, match=r"factor 1: is 0\.5 in all 40 pictures; wanted one that varies, or labels"):
        shown = seen((40,), 7)
        shown["factors"][:, 1] = 0.5
        made().look(shown["observation"], shown["factors"].numpy(), draw(0))


def test_pairs_are_asked_about_the_labelled_factors_alone():
    shown = seen((40,), 7)
    shown["factors"][:, 2] = 0.5  # which nobody is asked about
    agent = made(labelled=(0, 1))
    agent.look(shown["observation"], shown["factors"].numpy(), draw(0))
    assert agent.encode(shown).shape == (40, 2)
    assert dataclasses.replace(agent.config, labelled=()) != agent.config
