"""``mlbits reproduce classic``: the classic agents on Gymnasium tasks, beside Stable-Baselines3 and published results.

Ours are trained as a user would train them, with the presets of ``selfplay/runs/presets.toml``; the reference is
Stable-Baselines3 with the settings of its zoo, trained and evaluated by the same command for the same number of steps.
``docs/results.md`` describes the protocol and shows the results.

Example:
    mlbits reproduce classic --select pendulum cartpole/dqn --out runs/classic --jobs 2
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.evals.reproductions import results_page
from mlbits.evals.reproductions.comparison import EVAL_EPISODES, Entry, Result, Runs, Training, choose, normalized
from mlbits.evals.reproductions.reproduction import ReproductionError

# Mean return of random play (uniform over the actions), the zero of normalised scores: over 1,000 episodes (Acrobot and
# both LunarLanders 300, HalfCheetah 100), for continuous actions by play_episodes of RandomAgent from seed 0.
RANDOM = {
    "CartPole-v1": 22.6,
    "Acrobot-v1": -499.1,
    "Pendulum-v1": -1220.8,
    "LunarLander-v3": -179.9,
    "LunarLanderContinuous-v3": -214.7,
    "HalfCheetah-v5": -276.5,
}

# Published results: the zoo's benchmark of trained agents, mean and standard deviation over the episodes of one agent
# (github.com/DLR-RM/rl-baselines3-zoo, benchmark.md at 22e3ff2; its LunarLander is v2), and CleanRL's documentation,
# return of the last training episodes, mean and standard deviation over 3 seeds (github.com/vwxyzjn/cleanrl, docs at
# fe8d8a03; its HalfCheetah is v4, its C51 has 500k steps).
ZOO, CLEANRL = "zoo", "CleanRL"

QR_DQN = "--agent.head quantile --agent.learning-rate 2e-3 --agent.atoms 10"
C51 = "--agent.head categorical --agent.v-min 0 --agent.v-max 100"
TD3 = "--agent.twin --agent.target-noise 0.2 --agent.policy-delay 2"

# Targets: 475 is the usual threshold of CartPole. Acrobot and LunarLander: the published mean less its deviation.
# Pendulum: slightly below the published mean, as its deviation comes from the initial states. HalfCheetah: 90%.
_TABLE: tuple[tuple[str, str, str, str, int, float, float, float | None, str, str | None], ...] = (
    # task, label, agent, flags, steps, at least, published, deviation, source, reference
    ("CartPole-v1", "ppo", "ppo", "", 100_000, 475, 500, 0, ZOO, "sb3-ppo"),
    ("CartPole-v1", "trpo", "trpo", "", 100_000, 475, 500, 0, ZOO, None),
    ("CartPole-v1", "dqn", "dqn", "", 50_000, 475, 500, 0, ZOO, "sb3-dqn"),
    ("CartPole-v1", "qr-dqn", "dqn", QR_DQN, 50_000, 475, 500, 0, ZOO, "sb3-dqn"),
    ("CartPole-v1", "c51", "dqn", C51, 50_000, 475, 481, 21, CLEANRL, "sb3-dqn"),
    ("Acrobot-v1", "dqn", "dqn", "", 100_000, -88.6, -76.6, 12, ZOO, "sb3-dqn"),
    ("Acrobot-v1", "ppo", "ppo", "", 1_000_000, -91.5, -73.5, 18, ZOO, "sb3-ppo"),
    ("Acrobot-v1", "trpo", "trpo", "", 100_000, -102.1, -83.1, 19, ZOO, None),
    ("Pendulum-v1", "ddpg", "ddpg", "", 20_000, -170, -152, 94, ZOO, "sb3-ddpg"),
    ("Pendulum-v1", "td3", "ddpg", TD3, 20_000, -170, -152, 90, ZOO, "sb3-td3"),
    ("Pendulum-v1", "ppo", "ppo", "", 100_000, -180, -172, 104, ZOO, "sb3-ppo"),
    ("Pendulum-v1", "trpo", "trpo", "", 100_000, -180, -175, 128, ZOO, None),
    ("LunarLander-v3", "ppo", "ppo", "", 1_000_000, 210, 242, 32, ZOO, "sb3-ppo"),
    ("LunarLander-v3", "dqn", "dqn", "", 100_000, 75, 154, 79, ZOO, "sb3-dqn"),
    ("LunarLanderContinuous-v3", "ppo", "ppo", "", 1_000_000, 239, 271, 32, ZOO, "sb3-ppo"),
    ("LunarLanderContinuous-v3", "ddpg", "ddpg", "", 300_000, 138, 230, 92, ZOO, "sb3-ddpg"),
    ("HalfCheetah-v5", "ddpg", "ddpg", "", 1_000_000, 9336.6, 10_374, 157, CLEANRL, "sb3-ddpg"),
    ("HalfCheetah-v5", "ppo", "ppo", "", 1_000_000, 1298.7, 1443, 46, CLEANRL, "sb3-ppo"),
)
ENTRIES = tuple(Entry(*row, RANDOM[row[0]]) for row in _TABLE)

# The quick form checks whether the agents learn at all, with targets that do not depend on luck.
QUICK = ("cartpole/ppo", "cartpole/dqn")
QUICK_SEEDS, QUICK_SHARE = 1, 0.5


def reproduce(
    quick: bool = False,
    select: tuple[str, ...] = (),
    seeds: int = 5,
    out: Path | None = None,
    jobs: int | None = None,
    cluster: str = "",
    device: str = "cpu",
    reference: bool = True,
    page: Path | None = None,
) -> dict[str, Any]:
    """Train and compare.

    Args:
        quick: one seed of PPO and DQN on CartPole (or of the selected rows), no reference, targets half of the way
            from random play.
        select: rows, as in "pendulum", "pendulum/ddpg" or "*/dqn"; all without it.
        seeds: number of seeds, from 0 on.
        out: folder in which the runs are kept; the same command continues there. Without it they are deleted.
        jobs: training runs at a time, each a process of one thread; 1 by default, or as many as a cluster has CPUs.
        cluster: Ray cluster to train on: HOST:PORT of its head node, auto, or local; its nodes all see ``out``.
        device: "cpu" or "cuda".
        reference: whether Stable-Baselines3 is trained too; its finished runs are shown in any case.
        page: a Markdown page whose section "classic" is replaced, with every row that has results in ``out``.

    Returns:
        "rows" (see :meth:`mlbits.evals.reproductions.comparison.Entry.row`), "normalized" (ours and reference, or
        None), "failures" (error messages of failed runs) and "met": whether every row reaches its target and no run
        failed.

    Raises:
        MlbitsError: for a wrong argument, an agent or environment that is not installed, or a page without the section.
    """
    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ReproductionError(f"{name}: got {value}; wanted at least 1")
    if parse_device(device).type == "cuda":
        check_cuda(parse_device(device))
    if page is not None:
        results_page.read_page(page, "classic")
    entries = choose(ENTRIES, select or (QUICK if quick else ()))
    if quick:
        entries, seeds, reference = [_easier(entry) for entry in entries], QUICK_SEEDS, False
    if out is not None:
        return _compare(entries, range(seeds), Runs(out, device, cluster=cluster), jobs, reference, page)
    with tempfile.TemporaryDirectory() as folder:
        return _compare(entries, range(seeds), Runs(Path(folder), device, cluster=cluster), jobs, reference, page)


def _easier(entry: Entry) -> Entry:
    return dataclasses.replace(entry, target=entry.random + QUICK_SHARE * (entry.target - entry.random))


def _compare(
    entries: Sequence[Entry], seeds: range, runs: Runs, jobs: int | None, reference: bool, page: Path | None
) -> dict[str, Any]:
    trainings = [training for entry in entries for training in entry.trainings(seeds, reference=reference)]
    for task in dict.fromkeys(entry.task for entry in entries):
        open_batch(task, 1).close()  # fails now, not after hours of training, if something is not installed
    for training in trainings:
        runs.settings(training)
    unprinted = list(entries)

    def done(results: Mapping[Training, Result]) -> None:
        for entry in list(unprinted):
            if all(training in results for training in entry.trainings(seeds, reference=reference)):
                print(results_page.line(entry.row(results, seeds)), flush=True)
                unprinted.remove(entry)

    _, failures = runs.all(trainings, jobs=jobs, done=done)
    rows, overall = _rows(entries, seeds, runs)
    title = f"Interquartile mean [95% interval] of {EVAL_EPISODES} episodes' mean return, {len(seeds)} runs a row"
    results_page.show(title, rows)
    for side, score in (overall or {}).items():
        print(f"{side}, normalised: {results_page.interval(score, 2)} over {score['rows']} rows")
    if page is not None:
        results_page.write_page(page, "classic", _section(seeds, runs))
    return {
        "seeds": list(seeds),
        "rows": rows,
        "normalized": overall,
        "failures": {training.name: said for training, said in failures.items()},
        "met": all(row["met"] for row in rows) and not failures,
    }


def _rows(
    entries: Sequence[Entry], seeds: range, runs: Runs
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]] | None]:
    """Rows of the finished runs, including the reference's, and both sides' normalised scores where both exist."""
    stored = runs.read(training for entry in entries for training in entry.trainings(seeds, reference=True))
    rows = [entry.row(stored, seeds) for entry in entries]
    overall = {side: score for side in ("ours", "reference") if (score := normalized(rows, side)) is not None}
    return rows, overall or None


def _section(seeds: range, runs: Runs) -> str:
    """All rows that have results, in Markdown."""
    rows, overall = _rows(ENTRIES, seeds, runs)
    there = {entry.name for entry, row in zip(ENTRIES, rows, strict=True) if row["ours"] is not None}
    entries = [entry for entry in ENTRIES if entry.name in there]
    trainings = [training for entry in entries for training in entry.trainings(seeds, reference=True)]
    versions = results_page.made_with(runs.path(training) for training in runs.read(trainings))
    return results_page.markdown([row for row in rows if row["ours"] is not None], overall, versions)
