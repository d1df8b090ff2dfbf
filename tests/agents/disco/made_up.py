"""A made-up rule of the right shapes in a file, which passes for the published one; and windows of random steps."""

import contextlib
import hashlib
import io
from unittest import mock

import numpy as np
import torch

from mlbits.agents.agent import Rollout, rows
from mlbits.agents.disco import rule_file
from mlbits.agents.disco.agent import Disco, DiscoConfig

SMALL = {"num_steps": 5, "batch_size": 4, "buffer_size": 8, "replay_ratio": 4.0, "hidden": (16, 12)}


def arrays(seed=0, scale=0.1):
    generator = np.random.default_rng(seed)
    return {name: generator.normal(0, scale, shape).astype(np.float32) for name, shape in rule_file.SHAPES.items()}


def as_bytes(parts):
    file = io.BytesIO()
    np.savez(file, **parts)
    return file.getvalue()


@contextlib.contextmanager
def made_up_rule(folder):
    """The path of a file with a random rule, whose digest and size are taken for those of the published one."""
    data = as_bytes(arrays())
    path = folder / "rule.npz"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    with mock.patch.object(rule_file, "SHA256", digest), mock.patch.object(rule_file, "BYTES", len(data)):
        yield path


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def make(rule, observations, actions, seed=0, **settings):
    agent = Disco(DiscoConfig(rule=str(rule), **{**SMALL, **settings}), observations, actions, seed=seed)
    agent.prepare_to_learn()
    return agent


def made_up_rollout(agent, copies=4, seats=1, seed=0, ends=0.3, cuts=0.2):
    """Steps [T, B, P] of four numbers each, with the agent's own actions and random ends and cuts."""
    generator, steps = draw(seed), agent.config.num_steps
    obs, final = (torch.randn(steps, copies, seats, 4, generator=generator) for _ in range(2))
    decision = agent.act(rows(obs, 3), None, generator)
    return Rollout(
        obs=obs,
        last_obs=torch.randn(copies, seats, 4, generator=generator),
        final_obs=final,
        sample=decision.sample.view(steps, copies, seats),
        log_prob=decision.log_prob.view(steps, copies, seats),
        reward=torch.randn(steps, copies, seats, generator=generator),
        terminated=torch.rand(steps, copies, generator=generator) < ends,
        truncated=torch.rand(steps, copies, generator=generator) < cuts,
        legal_mask=None,
        active=None,
        notes={"behaviour": decision.notes["behaviour"].view(steps, copies, seats, -1)},
    )
