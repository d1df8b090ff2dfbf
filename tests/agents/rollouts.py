"""Experience for tests of agents: made-up rollouts, and small training runs without a folder."""

import dataclasses

import numpy as np
import torch
from gymnasium import spaces

from mlbits.agents import agent_entry
from mlbits.agents.agent import ReplaySpec, Rollout, rows
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.session import make_replay

VECTOR = spaces.Box(-5, 5, (4,), np.float32)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def make_agent(name, actions, observations=VECTOR, seed=0, **settings):
    entry = agent_entry(name)
    config = entry.config_class()(**{"hidden": (16,), **settings})
    return entry.make(config, observations, actions, seed=seed, device="cpu")


def made_up_rollout(agent, shape=(6, 5, 1), seed=0, mask=None, active=None, ends=0.2):
    """Steps [T, B, P]: observations of four numbers, random rewards and ends, and the agent's own actions."""
    steps, copies, seats = shape
    generator = draw(seed)

    def numbers(*size):
        return torch.randn(*size, generator=generator)

    obs, final = numbers(*shape, 4), numbers(*shape, 4)
    legal = None if mask is None else mask.expand(*shape, -1).clone()
    decision = agent.act(rows(obs, 3), None if legal is None else legal.flatten(0, 2), generator)
    return Rollout(
        obs=obs,
        last_obs=numbers(copies, seats, 4),
        final_obs=final,
        sample=decision.sample.view(*shape, *decision.sample.shape[1:]),
        log_prob=decision.log_prob.view(shape),
        reward=numbers(*shape),
        terminated=torch.rand(steps, copies, generator=generator) < ends,
        truncated=torch.rand(steps, copies, generator=generator) < ends,
        legal_mask=legal,
        active=active,
    )


def without_seat(rollout, seat, generator):
    """The same rollout with everything of one seat replaced by other numbers."""

    def other(tensor):
        changed = tensor.clone()
        if tensor.dtype == torch.bool:
            changed[:, :, seat] = True
        elif tensor.dtype == torch.int64:
            changed[:, :, seat] = 0
        else:
            changed[:, :, seat] = 1e3 * torch.randn(changed[:, :, seat].shape, generator=generator)
        return changed

    fields = ("obs", "final_obs", "sample", "log_prob", "reward")
    changes = {name: other(getattr(rollout, name)) for name in fields}
    last = rollout.last_obs.clone()
    last[:, seat] = 7.0
    return dataclasses.replace(rollout, **changes, last_obs=last)


def learn(agent, rollout, progress=0.0, seed=0):
    return dict(agent.learn(rollout, progress, draw(seed)))


def weights(agent, *prefixes):
    """A copy of the agent's state, or of the parts whose names begin with one of the prefixes."""
    state = agent.state_dict()
    return {name: value for name, value in state.items() if not prefixes or name.startswith(prefixes)}


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def trained_return(name, env, *, iterations, num_envs=32, seed=0, settings=None, episodes=50, **config):
    """Train on a small problem; returns the mean return of greedy episodes over seats."""
    entry = agent_entry(name)
    batch = open_batch(env, num_envs, seed=seed, settings=settings, illegal="error")
    agent = entry.make(
        entry.config_class()(**{"hidden": (32,), **config}),
        batch.observation_space,
        batch.action_space,
        seed=seed,
        device=batch.device,
    )
    lineup = self_play(agent, batch.num_envs, batch.num_seats, batch.device)
    collector, shuffles = Collector(batch, agent.experience, draw(seed + 1)), draw(seed + 2)
    replay = make_replay(agent.experience, batch) if isinstance(agent.experience, ReplaySpec) else None
    for iteration in range(iterations):
        experience, _, _ = collector.collect(lineup)
        if replay is not None:
            replay.add(experience)
            experience = replay
        agent.learn(experience, iteration / iterations, shuffles)
    played = play_episodes(agent, env, episodes, seed=99, settings=settings, greedy=True)
    return float(played.returns.mean())
