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

from rich.console import Console

from mlbits.evals.benchmarks.stand_in_gpu import Counts, DeviceCounts, stand_in_gpu
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import Session, open_session

_STEPS = 8  # of a rollout


class Case(NamedTuple):
    """What is counted.

    Attributes:
        name: of the row.
        agent: the learner.
        env: the environment.
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
_REPLAY = {"num_steps": 4, "buffer_size": 512, "learning_starts": 16, "batch_size": 8, "replay_ratio": 0.25}
_REPLAY |= {"hidden": (8, 8)}
_CARTPOLE, _PENDULUM, _TURNS = "mlbits/CartPole-v0", "mlbits/Pendulum-v0", "mlbits/TicTacToe-v0"
CASES = (
    Case("PPO", "ppo", _CARTPOLE, _ROLLOUT),
    Case("PPO, continuous actions", "ppo", _PENDULUM, _ROLLOUT),
    Case("PPO, seats in turn", "ppo", _TURNS, _ROLLOUT),
    Case("PPO, a pool of opponents", "ppo", _TURNS, _ROLLOUT, {"pool": "uniform"}),
    Case("TRPO", "trpo", _CARTPOLE, {"num_steps": _STEPS, "critic_updates": 1}),
    Case("REINFORCE", "reinforce", _CARTPOLE, {"num_steps": _STEPS}),
    Case("DQN", "dqn", _CARTPOLE, _REPLAY, before=4),
    Case("DQN, prioritised, categorical", "dqn", _CARTPOLE,
         _REPLAY | {"priority_exponent": 0.6, "head": "categorical", "v_min": 0.0, "v_max": 200.0}, before=4),
    Case("DQN, seats in turn", "dqn", _TURNS, _REPLAY, before=4),
    Case("DDPG", "ddpg", _PENDULUM, _REPLAY, before=4),
    Case("Q-learning", "q-learning", "mlbits/GridWorld-v0", {}),
)  # fmt: skip


def count(case: Case, num_envs: int = 4) -> Counted:
    """The counts of one iteration of a learner."""
    with stand_in_gpu() as counts:
        session = play(case, "cuda", num_envs)
        counts.waits.clear()
        counts.launches.clear()
        rollout, _, steps, collecting = _counted(counts, session.collect)
        learning = _counted(counts, lambda: (session.learn(rollout),))[-1]
    return Counted(case, steps // num_envs, collecting, learning, dict(counts.waits))


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
        cells = (row.case.name, row.steps, played.waits, played.copies, round(played.launches / row.steps),
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
