"""``mlbits reproduce crr-locomotion``: CRR on the data of a good and of a middling policy, where cloning is deceived.

HalfCheetah-v5, as many episodes of an expert as of an earlier stage of the same run. Cloning imitates both, and the
most used implementation of CRR collapses (d3rlpy-benchmarks 1771c9b, 10 seeds: 8 of 100 on the medium-expert data of
HalfCheetah, 0.8 on those of Hopper).

1. DDPG with TD3's settings learns the task. Every 5,000 steps the mean return of 5 episodes without noise, always of
   the same seeds, grades it: the first stage that reaches 1,000 is "medium", the first that reaches 3,000 "expert".
2. Each of the two plays 50 episodes with the noise of its training.
3. Each agent learns from the 100 episodes, and is played once, at its last step.

The run, the grades, the data and the results are kept in ``out``, from which the same command goes on.

A score is 0 for random play and 100 for the expert without noise, in the same evaluation episodes. Checked: CRR and
CRR+ score above cloning and above cloning of the best tenth of the episodes, and no seed of theirs below the medium
policy. ``--quick`` does the same on Pendulum, in seconds, with one seed of BC and CRR.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlbits.agents.agent import Agent
from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.memory.minari import read_dataset
from mlbits.agents.registry import agent_entry
from mlbits.envs.core.plain_json import read_json_file
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.reproductions.offline.behaviours import PENDULUM, random_player
from mlbits.evals.reproductions.offline.crr import PLUS, learned, return_of
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay import training
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.offline.data import data_hash
from mlbits.selfplay.recording import record
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.folder import CHECKPOINTS, CONFIG, read_settings
from mlbits.selfplay.statistics import mean_interval

TRIALS, TRIAL_SEED = 5, 5  # episodes that grade a stage
_TD3 = {"twin": True, "target_noise": 0.2, "policy_delay": 2, "precision": "auto"}
# What tells the two gaits apart is where they end, and values move back one step for each copy of the target networks:
# copied every 100 steps, as published for runs of 500,000, they have not arrived at the starts after 20,000.
_CRITICS = {"layer_norm": True, "critic_learning_rate": 1e-3, "target_every": 20}
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bc": ("bc", {"precision": "auto"}),
    "bc, best 10%": ("bc", {"precision": "auto", "top": 0.1}),
    "crr exp": ("crr", {"precision": "auto", **_CRITICS}),
    "crr+": ("crr", {"precision": "auto", **_CRITICS, **PLUS}),
}


@dataclass(frozen=True)
class Case:
    """A task and its data.

    Attributes:
        env: id of the environment.
        medium: grade that the medium policy has to reach.
        expert: grade that the expert has to reach.
        stage: steps of training between two grades.
        longest: steps of training without an expert after which it is given up.
        ddpg: settings of the DDPG that is trained.
        episodes: that each of the two policies plays.
        trials: episodes in which agents are evaluated.
        agents: by name, an agent and its settings.
    """

    env: str
    medium: float
    expert: float
    stage: int
    longest: int
    ddpg: Mapping[str, Any]
    episodes: int = 50
    trials: int = 20
    agents: Mapping[str, tuple[str, dict[str, Any]]] = field(default_factory=lambda: AGENTS)


CHEETAH = Case(
    "HalfCheetah-v5", 1000, 3000, 5000, 500_000,
    {**_TD3, "hidden": (256, 256), "learning_starts": 10_000, "buffer_size": 150_000},
)  # fmt: skip
_SMALL: dict[str, Any] = {"hidden": (64, 64), "learning_rate": 1e-3}
SWING_UP = Case(
    PENDULUM, -1000, -300, 500, 20_000, {"hidden": (64, 64), "batch_size": 64}, episodes=20,
    agents={"bc": ("bc", _SMALL), "crr exp": ("crr", {**_SMALL, "critic_learning_rate": 1e-3})},
)  # fmt: skip


def reproduce(quick: bool = False, seeds: int = 3, steps: int = 20_000, out: Path | None = None) -> dict[str, Any]:
    """Make the data, train, and compare.

    Args:
        quick: Pendulum with one seed and 2,000 gradient steps.
        seeds: number of seeds.
        steps: gradient steps of each agent.
        out: folder in which everything is kept; the same command goes on from there. Without it all is deleted.

    Returns:
        "behaviours" (of "random", "medium" and "expert": steps of training, grade, return), "returns" and "scores" by
        agent and seed, "speeds", "checks" by what they say, and "met".

    Raises:
        ReproductionError: if there are no seeds or steps, or no stage of the training is good enough.
    """
    for name, value in (("seeds", seeds), ("steps", steps)):
        if value < 1:
            raise ReproductionError(f"{name}: got {value}; wanted at least 1")
    set_up(1)
    case, seeds, steps = (SWING_UP, 1, 2_000) if quick else (CHEETAH, seeds, steps)
    if out is not None:
        return compare(case, out.resolve(), seeds, steps)  # a relative name would be one of Minari's datasets
    with tempfile.TemporaryDirectory() as folder:
        return compare(case, Path(folder), seeds, steps)


def compare(case: Case, out: Path, seeds: int, steps: int) -> dict[str, Any]:
    """Data, training and comparison of a case, kept in a folder."""
    behaviours, data = behaviours_and_data(case, out)
    returns, speeds = results(case, data, out / "results.json", seeds, steps)
    low, span = behaviours["random"]["return"], behaviours["expert"]["return"] - behaviours["random"]["return"]
    scores = {name: [100 * (value - low) / span for value in values] for name, values in returns.items()}
    print_table(
        f"{case.env}: {data.num_episodes} episodes of a medium (return {behaviours['medium']['return']:.0f}) and of an "
        f"expert policy ({behaviours['expert']['return']:.0f}), their mean {float(data.returns.mean()):.0f}; "
        f"{steps:,} gradient steps, {seeds} seeds",
        ["agent", "return", "95% from", "to", "score", "lowest", "steps/CPU-s"],
        [
            [name, mean, *interval, float(np.mean(scores[name])), min(scores[name]), float(np.mean(speeds[name]))]
            for name, values in returns.items()
            for mean, interval in [mean_interval(values)]
        ],
        width=120,
    )  # fmt: skip
    checks = _checks(scores, 100 * (behaviours["medium"]["return"] - low) / span)
    for text, holds in checks.items():
        print(f"{'yes' if holds else 'NO '}  {text}")
    return {"behaviours": behaviours, "returns": returns, "scores": scores, "speeds": speeds, "checks": checks,
            "met": all(checks.values())}  # fmt: skip


def _checks(scores: Mapping[str, list[float]], medium: float) -> dict[str, bool]:
    """The statements, by what they say."""
    mean = {name: float(np.mean(values)) for name, values in scores.items()}
    clones = [name for name in scores if name.startswith("bc")]
    found: dict[str, bool] = {}
    for name in scores:
        if not name.startswith("crr"):
            continue
        found |= {f"{name} scores above {clone}": mean[name] > mean[clone] for clone in clones}
        found[f"no seed of {name} scores below the medium policy"] = min(scores[name]) >= medium
    return found


def behaviours_and_data(case: Case, out: Path) -> tuple[dict[str, dict[str, float]], Dataset]:
    """Returns of random play and of the two policies in the evaluation episodes, and the episodes of the two.

    Raises:
        ReproductionError: if no stage of the training is good enough.
    """
    about, folders = out / "behaviours.json", {name: out / f"{name}-v0" for name in ("medium", "expert")}
    if not (about.exists() and all(folder.exists() for folder in folders.values())):
        found: dict[str, dict[str, float]] = {
            "random": {"return": return_of(random_player(case.env), case.env, case.trials)}
        }
        for seed, (name, (steps, grade, agent)) in enumerate(graded(case, out).items()):
            found[name] = {"steps": steps, "grade": grade, "return": return_of(agent, case.env, case.trials)}
            if not folders[name].exists():
                record(agent, case.env, folders[name], episodes=case.episodes, seed=1_000_000 * (seed + 1),
                       about=found[name])  # fmt: skip
        checkpoints.write_file(about, json.dumps(found, indent=1).encode())
    return read_json_file(about), Dataset.mix([read_dataset(folder) for folder in folders.values()], seed=0)


def graded(case: Case, out: Path) -> dict[str, tuple[int, float, Agent]]:
    """The medium policy and the expert: steps of training, grade, and the policy, which plays with noise.

    Raises:
        ReproductionError: if no stage of the training is good enough.
    """
    table = out / "grades.json"
    grades: dict[str, float] = read_json_file(table) if table.exists() else {}
    wanted, found = {"medium": case.medium, "expert": case.expert}, {}
    for steps, agent in stages(case, out / "behaviour"):
        if str(steps) not in grades:
            grades[str(steps)] = return_of(agent, case.env, TRIALS, TRIAL_SEED)
            checkpoints.write_file(table, json.dumps(grades, indent=1).encode())
            print(f"{case.env}, {steps:,} steps of training: {grades[str(steps)]:.4g}", flush=True)
        grade = grades[str(steps)]
        for name, level in wanted.items():
            if name not in found and grade >= level:
                found[name] = steps, grade, agent
        if "expert" in found:
            return found
    raise ReproductionError(
        f"{out}: got returns up to {max(grades.values(), default=-np.inf):.4g} in {case.longest:,} steps of training; "
        f"wanted {case.expert:g}"
    )


def stages(case: Case, run: Path) -> Iterator[tuple[int, Any]]:
    """The learner after each ``case.stage`` steps; it is trained as far as it is asked for, and resumed."""
    space = open_batch(case.env, 1, start=False)
    settings = {
        "total_steps": case.stage, "num_envs": 1, "seed": 0, "device": "cpu", "eval_every": 0, "eval_episodes": 1,
        "video": False, "checkpoint_every": case.stage, "keep_checkpoints": 1000,
    }  # fmt: skip
    for steps in range(case.stage, case.longest + 1, case.stage):
        checkpoint = run / CHECKPOINTS / f"step-{steps:012d}"
        if not checkpoint.exists():
            if (run / CONFIG).exists():
                training.resume(run, total_steps=steps, console=False)
            else:
                training.train(
                    resolve("ddpg", case.env, preset="none", run=settings, agent_settings=case.ddpg), run, console=False
                )
        agent = agent_entry("ddpg").make(
            read_settings(run).agent_config, space.observation_space, space.action_space, seed=0, device="cpu"
        )
        agent.load_state_dict(checkpoints.load(checkpoint, {}).weights)
        yield steps, agent


def results(
    case: Case, data: Dataset, file: Path, seeds: int, steps: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns and speeds by agent and seed; those that a file holds for these data are read, others are added to it."""
    stored: dict[str, Any] = read_json_file(file) if file.exists() else {}
    if stored.get("data") != data_hash(data):
        stored = {"data": data_hash(data)}
    returns: dict[str, list[float]] = {name: [] for name in case.agents}
    speeds: dict[str, list[float]] = {name: [] for name in case.agents}
    for seed in range(seeds):
        for name, (agent, settings) in case.agents.items():
            key = f"{name}: {steps} steps, seed {seed}"
            if key not in stored:
                learner, speed = learned(agent, settings, data, steps, seed)
                stored[key] = {"return": return_of(learner, case.env, case.trials), "speed": speed}
                checkpoints.write_file(file, json.dumps(stored, indent=1).encode())
                print(f"{key}: {stored[key]['return']:.4g} ({speed:.0f} steps/CPU-s)", flush=True)
            returns[name].append(stored[key]["return"])
            speeds[name].append(stored[key]["speed"])
    return returns, speeds
