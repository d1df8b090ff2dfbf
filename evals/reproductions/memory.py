"""``reproduce memory``: tasks that cannot be solved by what is seen now, with and without memory.

TMaze: a cue at the start tells which way to turn after ten steps. CartPole without velocities: how the pole moves shows
only over time. PPO with a GRU, with the last four observations stacked (which CartPole needs and TMaze's corridor
outlasts), and with neither, on equal seeds, beside sb3-contrib's RecurrentPPO with as many steps. The score of a run is
the mean return of 100 greedy episodes; steps per CPU-second count the whole process, imports and evaluation included.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlbits.evals.reproductions.memory_peer import WIDTH
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table, train_in_process

EVAL = "--eval-every 0 --eval-episodes 100 --no-video --quiet --device cpu --preset none".split()
PEER, TIMES = "RecurrentPPO", 3.0  # how many times its steps per CPU-second ours are to take
_PEER_QUICK = 10_000  # steps of the peer in the quick form, enough for its speed


@dataclass(frozen=True, slots=True)
class Task:
    """A task and PPO's settings for it.

    Attributes:
        env: environment id.
        settings: of the environment.
        flags: of ``mlbits train ppo``, without memory.
        steps: environment steps of a run.
        solved: the mean return that counts as solved.
        normalize: whether observations are standardised.
    """

    env: str
    settings: dict[str, Any]
    flags: str
    steps: int
    solved: float
    normalize: bool


TASKS = {
    "TMaze": Task(
        "mlbits/TMaze-v0", {}, "--num-envs 64 --agent.num-steps 64 --agent.learning-rate 0.003", 150_000, 3.9, False
    ),
    "CartPole without velocities": Task(
        "mlbits/CartPole-v0",
        {"velocities": False},
        "--num-envs 32 --agent.num-steps 64 --agent.learning-rate 0.002 --agent.discount 0.98 --agent.gae-lambda 0.9 "
        "--agent.normalize-obs --agent.sequence-length 16",
        300_000,
        475.0,
        True,
    ),
}
ARMS = {
    "gru": f"--agent.memory gru --agent.memory-width {WIDTH}",
    "4 frames": "--env.frame-stack 4",
    "none": "",
}


def reproduce(quick: bool = False, *, seeds: int = 0, peers: bool = True) -> dict[str, Any]:
    """Train all of them and print a table for each task.

    Args:
        quick: one seed, and only the peer's speed.
        seeds: how many seeds, from 0; 0 takes five, or one for the quick form.
        peers: whether sb3-contrib's RecurrentPPO is trained too, where it is installed.

    Returns:
        "rows" (task, arm, scores, solved, steps_per_cpu_second) and "met": whether the GRU solves both tasks with every
        seed, play without memory neither with any, and the GRU takes three times the peer's steps per CPU-second.
    """
    numbers = range(seeds or (1 if quick else 5))
    installed = peers and importlib.util.find_spec("sb3_contrib") is not None
    rows = []
    for name, task in TASKS.items():
        arms = dict[str, Callable[[int], dict[str, Any]]]()
        for arm, flags in ARMS.items():
            arms[arm] = lambda seed, task=task, flags=flags: _train(task, flags, seed)  # type: ignore[misc]
        if installed:
            steps = _PEER_QUICK if quick else task.steps
            arms[PEER] = lambda seed, task=task, steps=steps: _peer(task, steps, seed)  # type: ignore[misc]
        of_task = [row(name, arm, task, [train(seed) for seed in numbers]) for arm, train in arms.items()]
        print_table(
            f"{name}: mean return of {len(numbers)} seeds, solved at {task.solved:g} after {task.steps:,} steps"
            + (f" ({PEER}: {_PEER_QUICK:,})" if quick and installed else ""),
            ["", "returns", "solved", "steps/CPU-s"],
            [
                [r["arm"], " ".join(f"{score:.4g}" for score in r["scores"]), f"{r['solved']} of {len(numbers)}",
                 r["steps_per_cpu_second"]]
                for r in of_task
            ],
            width=100,
        )  # fmt: skip
        rows += of_task
    return {"rows": rows, "met": met(rows)}


def row(name: str, arm: str, task: Task, summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of a table, from the summaries of its runs."""
    scores = [float(summary["return_mean"]) for summary in summaries]
    speed = sum(s["env_steps"] for s in summaries) / sum(s["cpu_seconds"] for s in summaries)
    solved = sum(score >= task.solved for score in scores)
    return {"task": name, "arm": arm, "scores": scores, "solved": solved, "steps_per_cpu_second": speed}


def met(rows: list[dict[str, Any]]) -> bool:
    """Whether memory solves every task with every seed, no task is solved without, and it is fast enough."""
    found = {(row["task"], row["arm"]): row for row in rows}
    good = True
    for task in TASKS:
        ours, none, peer = (found.get((task, arm)) for arm in ("gru", "none", PEER))
        assert ours is not None
        assert none is not None
        good &= ours["solved"] == len(ours["scores"]) and none["solved"] == 0
        good &= peer is None or ours["steps_per_cpu_second"] >= TIMES * peer["steps_per_cpu_second"]
    return good


def words(task: Task, flags: str) -> list[str]:
    """The flags of ``mlbits train ppo ENV`` for an arm, except the seed."""
    own = [f"--env-json={json.dumps(task.settings)}"] if task.settings else []
    return [*task.flags.split(), *flags.split(), *own, "--total-steps", str(task.steps), *EVAL]


def _train(task: Task, flags: str, seed: int) -> dict[str, Any]:
    return train_in_process("ppo", task.env, seed, *words(task, flags))


def _peer(task: Task, steps: int, seed: int) -> dict[str, Any]:
    about = {
        "env": task.env, "settings": task.settings, "steps": steps, "seed": seed, "normalize": task.normalize,
    }  # fmt: skip
    command = [sys.executable, "-m", "mlbits.evals.reproductions.memory_peer", json.dumps(about)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise ReproductionError(f"{PEER} failed: {lines[-1] if lines else done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
