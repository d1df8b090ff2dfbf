"""How often each learner would wait for a GPU, and how much it would launch there; counted on any machine.

Every learner plays and learns for a few iterations on a stand-in (:mod:`~mlbits.evals.benchmarks.stand_in_gpu`), and
the next one is counted, collecting and learning each by itself. Batches are small: the counts do not depend on them.

Example:
    mlbits bench --count
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from rich.console import Console

from mlbits.agents.memory.dataset import Dataset, Episode
from mlbits.agents.registry import agent_entry
from mlbits.evals.benchmarks.stand_in_gpu import Counts, DeviceCounts, stand_in_gpu
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import Session, open_session

_STEPS = 8  # of a rollout


class Case(NamedTuple):
    """What is counted.

    Attributes:
        name: of the row.
        agent: the learner.
        env: the environment; "" for an agent that learns from a dataset.
        settings: of the agent.
        run: of the run.
        before: iterations before the one that is counted.
    """

    name: str
    agent: str
    env: str
    settings: Mapping[str, Any]
    run: Mapping[str, Any] = MappingProxyType({})
    before: int = 3


class Counted(NamedTuple):
    """What was counted in one iteration.

    Attributes:
        case: of what.
        steps: steps of each copy.
        collecting: counts of playing these steps.
        learning: counts of learning from them.
        waits: where the host waited.
    """

    case: Case
    steps: int
    collecting: Counts
    learning: Counts
    waits: dict[str, int]


_ROLLOUT = {"num_steps": _STEPS, "epochs": 2, "minibatches": 2}
_REPLAY: dict[str, Any] = {
    "num_steps": 4,
    "buffer_size": 512,
    "learning_starts": 16,
    "batch_size": 8,
    "replay_ratio": 0.25,
}
_REPLAY |= {"hidden": (8, 8)}
_OFFLINE = {"hidden": (8, 8), "batch_size": 8, "updates_per_iteration": 4}
_CARTPOLE, _PENDULUM, _TURNS = "mlbits/CartPole-v0", "mlbits/Pendulum-v0", "mlbits/TicTacToe-v0"
CASES = (
    Case("PPO", "ppo", _CARTPOLE, _ROLLOUT),
    Case("PPO, continuous actions", "ppo", _PENDULUM, _ROLLOUT),
    Case("PPO, CUDA graphs", "ppo", _CARTPOLE, _ROLLOUT | {"graphs": True}),
    Case("PPO, CUDA graphs, seats in turn", "ppo", _TURNS, _ROLLOUT | {"graphs": True}),
    Case("PPO, seats in turn", "ppo", _TURNS, _ROLLOUT),
    Case("PPO, normalised", "ppo", _CARTPOLE, _ROLLOUT | {"normalize_obs": True, "normalize_reward": True}),
    Case("PPO, a GRU, 4 updates", "ppo", _CARTPOLE, _ROLLOUT | {"memory": "gru", "memory_width": 8}),
    Case("PPO, wrapped CartPole", "ppo", "CartPole-v1", _ROLLOUT),
    Case("PPO, orders, 2 updates", "ppo", "mlbits/DiplomacyMini-v0",
         {"num_steps": _STEPS, "epochs": 1, "minibatches": 2, "hidden": (8, 8)}, before=1),
    Case("PPO, a pool of opponents", "ppo", _TURNS, _ROLLOUT, {"pool": "uniform"}),
    Case("TRPO", "trpo", _CARTPOLE, {"num_steps": _STEPS, "critic_updates": 1}),
    Case("REINFORCE", "reinforce", _CARTPOLE, {"num_steps": _STEPS}),
    Case("DQN", "dqn", _CARTPOLE, _REPLAY, before=4),
    Case("DQN, prioritised, categorical", "dqn", _CARTPOLE,
         _REPLAY | {"priority_exponent": 0.6, "head": "categorical", "v_min": 0.0, "v_max": 200.0}, before=4),
    Case("DQN, seats in turn", "dqn", _TURNS, _REPLAY, before=4),
    Case("DDPG", "ddpg", _PENDULUM, _REPLAY, before=4),
    Case("SAC", "sac", _PENDULUM, _REPLAY, before=4),
    Case("SAC, discrete", "sac", _CARTPOLE, _REPLAY, before=4),
    Case("Q-learning", "q-learning", "mlbits/GridWorld-v0", {}),
    Case("LPG, a table", "lpg", "mlbits/GridWorld-v0", {"num_steps": _STEPS}),
    Case("LPG, a network", "lpg", _CARTPOLE, {"num_steps": _STEPS}),
    Case("BC, 4 updates", "bc", "", _OFFLINE),
    Case("CRR, 4 updates", "crr", "", _OFFLINE),
    Case("TD3+BC, 4 updates", "td3-bc", "", _OFFLINE),
    Case("IQL, 4 updates", "iql", "", _OFFLINE),
)  # fmt: skip


def count(case: Case, num_envs: int = 4) -> Counted:
    """The counts of one iteration of a learner."""
    if not case.env:
        return _count_offline(case)
    with stand_in_gpu() as counts:
        session = play(case, "cuda", num_envs)
        counts.waits.clear()
        counts.launches.clear()
        rollout, _, steps, collecting = _counted(counts, session.collect)
        learning = _counted(counts, lambda: (session.learn(rollout),))[-1]
    return Counted(case, steps // num_envs, collecting, learning, dict(counts.waits))


def _count_offline(case: Case) -> Counted:
    """The counts of one iteration on a small dataset, which is on the device."""
    box, source = spaces.Box(-1, 1, (3,), np.float32), np.random.default_rng(0)
    episodes = []
    for _ in range(4):
        seen = source.uniform(-1, 1, (9, 3)).astype(np.float32)
        episodes.append(Episode(seen, seen[:8], source.standard_normal(8)))
    entry: Any = agent_entry(case.agent)
    with stand_in_gpu() as counts:
        learner: Any = entry.make(entry.config_class()(**case.settings), box, box, seed=0, device="cuda")
        data, generator = Dataset.from_episodes(episodes, box, box).to("cuda"), torch.Generator("cuda").manual_seed(0)
        for _ in range(case.before):
            learner.learn(data, 0.0, generator)
        counts.waits.clear()
        counts.launches.clear()
        learning = _counted(counts, lambda: (learner.learn(data, 0.0, generator),))[-1]
    return Counted(case, 0, Counts(), learning, dict(counts.waits))


def play(case: Case, device: str, num_envs: int = 4) -> Session:
    """A run of a case after ``case.before`` iterations, on "cpu" or, inside a stand-in, on "cuda"."""
    run = {"device": device, "num_envs": num_envs, "seed": 1, "total_steps": 10**6} | dict(case.run)
    session = open_session(resolve(case.agent, case.env, preset="none", run=run, agent_settings=case.settings))
    for _ in range(case.before):
        rollout, _, steps = session.collect()
        session.learn(rollout)
        session.counters.env_steps += steps
    return session


def _counted(counts: DeviceCounts, call: Any) -> tuple[Any, ...]:
    before = counts.snapshot()
    return (*call(), counts.since(before))


def table(rows: Sequence[Counted]) -> list[str]:
    """Lines of a table in Markdown."""
    lines = [
        "| learner | steps | waits | copies | operations a step | waits in learning | copies | operations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        played, learned = row.collecting, row.learning
        cells = (row.case.name, row.steps, played.waits, played.copies, round(played.launches / max(row.steps, 1)),
                 learned.waits, learned.copies, learned.launches)  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def run_counts() -> list[dict[str, Any]]:
    """Count every learner and print the table; the rows as plain data."""
    rows = [count(case) for case in CASES]
    console = Console(width=140, highlight=False)
    for line in table(rows):
        console.print(line)
    return [
        {
            "name": row.case.name, "agent": row.case.agent, "env": row.case.env, "steps": row.steps,
            "collecting": row.collecting._asdict(), "learning": row.learning._asdict(), "waits": row.waits,
        }
        for row in rows
    ]  # fmt: skip
