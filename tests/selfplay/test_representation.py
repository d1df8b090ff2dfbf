"""Runs of agents that look before they act: once, the same for the same seed, and not again on resuming."""

import dataclasses

import pytest
import torch

from mlbits.agents.agent import AgentError
from mlbits.selfplay.representation import LookingSession, open_looking
from mlbits.selfplay.runs.config import resolve

AGENT = {
    "pictures": 40, "pairs": 60, "look_iterations": 3, "learning_starts": 8, "batch_size": 8, "hidden": (8,),
    "buffer_size": 400, "num_steps": 3,
}  # fmt: skip


def session(seed=1, env="mlbits/PushBlocks-v0", **agent):
    run = {"total_steps": 400, "num_envs": 4, "seed": seed, "device": "cpu"}
    game = {"observation": "both", "blocks": 2}
    return open_looking(resolve("wsc", env, run=run, agent_settings={**AGENT, **agent}, env_settings=game))


def step(opened):
    rollout, _, _ = opened.collect()
    return opened.learn(rollout)


def test_a_run_looks_before_its_first_step_and_only_then(monkeypatch, tmp_path):
    first, looks = session(), []
    look = LookingSession.look
    monkeypatch.setattr(LookingSession, "look", lambda self: looks.append(1) or look(self))
    metrics = step(first)
    step(first)
    assert looks == [1]
    assert first.learner.sees
    assert -1 <= metrics["encoder_agreement"] <= 1
    second = session()
    second.from_checkpoint(first.to_checkpoint(), tmp_path)
    for each in (first, second):
        step(each)
    assert looks == [1]
    one, two = first.learner.state_dict(), second.learner.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_seen_depends_on_the_seed_alone():
    one, same, other = session(), session(), session(seed=2)
    for each in (one, same, other):
        each.look()
    weights = [each.learner.network.state_dict() for each in (one, same, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_environments_without_pictures_are_refused():
    settings = session().settings
    with pytest.raises(AgentError, match="wsc: the observations have no goal_picture"):
        open_looking(dataclasses.replace(settings, env_settings={"observation": "pixels"}), start=False)
