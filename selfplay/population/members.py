"""Each member of a population as an agent of its own: a file that evaluations, tournaments and ``load_policy`` read.

The files are ``members/member-00.safetensors`` and so on in the run's folder, written at every evaluation and at the
run's end, in the form of a pool's frozen copies. A member is an agent ``es`` of one policy, whatever it learned by.

Example:
    mlbits eval runs/walkers/members/member-02.safetensors
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
from torch import Tensor

from mlbits.agents.population.es import ES, ESConfig
from mlbits.agents.population.policies import Policies
from mlbits.selfplay.runs.checkpoints import write_file
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.saved_agents import SUFFIX, copy_bytes

MEMBERS = "members"


def policy_agent(
    policies: Policies, weights: Tensor, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> ES:
    """An agent that acts by one policy's weights [D]."""
    mlp = policies.mlp
    agent = ES(ESConfig(hidden=mlp.widths[1:-1], activation=mlp.activation), observation_space, action_space)
    agent.load_state_dict(agent.state_dict() | {"weights": weights[None]})
    return agent


def write_members(folder: Path, settings: Settings, agents: Sequence[ES], returns: list[float]) -> list[Path]:
    """Write a file for each member; returns their paths.

    Args:
        folder: the run's folder.
        settings: of the run.
        agents: the members.
        returns: of the members when last played.
    """
    (folder / MEMBERS).mkdir(exist_ok=True)
    paths = []
    agent: Any
    for number, (agent, value) in enumerate(zip(agents, returns, strict=True)):
        of_one = dataclasses.replace(settings, agent="es", agent_config=agent.config)
        path = folder / MEMBERS / f"member-{number:02d}{SUFFIX}"
        write_file(path, copy_bytes(agent, of_one, {"member": number, "last_return": value}))
        paths.append(path)
    return paths
