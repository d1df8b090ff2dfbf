"""``reproduce map-elites``: an archive of 100 x 100 cells on PointMass, beside pyribs' own loop.

A policy's behaviour is where it ends, x and y within 25 m. Three loops have the same archive (pyribs'), the same
variation (iso+line) and the same policies (4-16-16-2):

- ours: ``mlbits train map-elites``, the whole run with its folder, curves and checkpoint;
- pyribs, one by one: its scheduler and ``IsoLineEmitter``, each policy played in an environment of ``gym.make``, by
  NumPy, as its tutorials play them;
- pyribs, vectorised: the same, with all policies played at once in ``gym.make_vec``, by ``numpy.einsum``.

All play 2,000 policies in an iteration. The peers' loops go on until they have our QD-score, have tried half as many
policies again, or have taken four times our CPU-seconds. Compiling and a short first run of each come before.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from mlbits.evals.evaluate import load_agent
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import train

ENV, STEPS = "mlbits/PointMass-v0", 50
WIDTHS = (4, 16, 16, 2)
AT_ONCE, REACH, OFFSET = 2000, 25.0, -2500.0
_PATIENCE = 4  # times our CPU-seconds
ISO, LINE, FIRST = 0.05, 0.2, 0.5
Evaluate = Callable[[NDArray[np.float32]], tuple[NDArray[np.float64], NDArray[np.float64]]]


def reproduce(quick: bool = False, *, seeds: int = 0) -> dict[str, Any]:
    """Fill archives by all three loops and print QD-scores and times.

    Args:
        quick: one seed and 40,000 policies instead of three seeds and 100,000.
        seeds: how many seeds, from 0; 0 takes these.

    Returns:
        "rows" (seed, loop, policies, qd_score, coverage, best_return, cpu_seconds, reached), "archive" (the returns of
        our last run's elites by cell, None where there is none) and "met": whether ours has its QD-score in less CPU
        time than both of the others, for every seed.

    Raises:
        AgentError: if pyribs is not installed.
    """
    policies = 40_000 if quick else 100_000
    rows = []
    _ours(99, AT_ONCE)  # compiles
    for seed in range(seeds or (1 if quick else 3)):
        ours = _ours(seed, policies)
        archive = ours.pop("archive")
        rows.append(ours)
        for name, evaluate in (("pyribs, one by one", _one_by_one()), ("pyribs, vectorised", _vectorised())):
            found = ribs_loop(
                evaluate, seed, policies * 3 // 2, ours["qd_score"], most_seconds=_PATIENCE * ours["cpu_seconds"]
            )
            rows.append({"seed": seed, "loop": name, **found})
    print_table(
        f"MAP-Elites, 100 x 100 cells, {ENV}: CPU-seconds to the QD-score of our {policies:,} policies",
        ["loop", "seed", "policies", "QD-score", "coverage", "best return", "reached", "CPU-s"],
        [
            [r["loop"], r["seed"], f"{r['policies']:,}", f"{r['qd_score']:,.0f}", f"{r['coverage']:.1%}",
             r["best_return"], "yes" if r["reached"] else "no", r["cpu_seconds"]]
            for r in rows
        ],
        width=110,
    )  # fmt: skip
    known = [[None if np.isnan(value) else round(value) for value in line] for line in archive.tolist()]
    return {"rows": rows, "archive": known, "met": met(rows)}


def met(rows: list[dict[str, Any]]) -> bool:
    """Whether ours is the fastest for every seed; a loop that has not reached the score took longer still."""
    fastest = {row["seed"]: row["cpu_seconds"] for row in rows if row["loop"] == "ours"}
    return all(row["cpu_seconds"] > fastest[row["seed"]] for row in rows if row["loop"] != "ours")


def _ours(seed: int, policies: int) -> dict[str, Any]:
    how = {"total_steps": policies * STEPS, "seed": seed, "device": "cpu", "eval_every": 0, "eval_episodes": 1}
    how |= {"checkpoint_every": 0, "video": False}
    settings = {
        "policies": AT_ONCE, "low": (-REACH, -REACH), "high": (REACH, REACH), "qd_offset": OFFSET, "iso_sigma": ISO,
        "line_sigma": LINE, "initial_sigma": FIRST, "hidden": WIDTHS[1:-1],
    }  # fmt: skip
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train(resolve("map-elites", ENV, preset="none", run=how, agent_settings=settings), out, console=False)
        spent = time.process_time() - began
        agent = load_agent(out)[0]
    found = {"seed": seed, "loop": "ours", "policies": policies, **_scores(agent.archive.stats)}
    return found | {"cpu_seconds": spent, "reached": True, "archive": agent.heat_map()}


def _scores(stats: Any) -> dict[str, float]:
    names = {"qd_score": "qd_score", "coverage": "coverage", "best_return": "obj_max"}
    return {name: float(getattr(stats, of_ribs)) for name, of_ribs in names.items()}


def ribs_loop(
    evaluate: Evaluate, seed: int, most: int, goal: float, *, most_seconds: float = np.inf, at_once: int = AT_ONCE
) -> dict[str, Any]:
    """The loop of pyribs itself, until its archive has a QD-score.

    Args:
        evaluate: returns [N] and last places [N, 2] of the policies with weights [N, D].
        seed: of the first policies and of pyribs' draws.
        most: policies after which it ends anyway.
        goal: the QD-score.
        most_seconds: CPU-seconds after which no iteration is begun.
        at_once: policies of an iteration.
    """
    from ribs.archives import GridArchive
    from ribs.emitters import IsoLineEmitter
    from ribs.schedulers import Scheduler

    size = sum(a * b + b for a, b in itertools.pairwise(WIDTHS))
    first = (FIRST * np.random.default_rng(seed).standard_normal((at_once, size))).astype(np.float32)
    evaluate(first[:2])  # what is made at the first call
    began, tried = time.process_time(), 0
    archive = GridArchive(
        solution_dim=size, dims=(100, 100), ranges=[(-REACH, REACH)] * 2, qd_score_offset=OFFSET, seed=seed,
        solution_dtype=np.float32, objective_dtype=np.float64, measures_dtype=np.float64,
    )  # fmt: skip
    emitter = IsoLineEmitter(
        archive, iso_sigma=ISO, line_sigma=LINE, initial_solutions=first, batch_size=at_once, seed=seed
    )
    scheduler = Scheduler(archive, [emitter])
    while (
        tried < most
        and float(archive.stats.qd_score) < goal
        and not (tried and time.process_time() - began > most_seconds)
    ):
        solutions = scheduler.ask()
        scheduler.tell(*evaluate(solutions))
        tried += len(solutions)
    spent, scores = time.process_time() - began, _scores(archive.stats)
    return {"policies": tried, **scores, "cpu_seconds": spent, "reached": scores["qd_score"] >= goal}


def _layers(weights: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Matrices [..., in, out] and biases [..., out] of the weights [..., D]."""
    found, at = [], 0
    for before, after in itertools.pairwise(WIDTHS):
        matrix = weights[..., at : at + before * after].reshape(*weights.shape[:-1], before, after)
        found.append((matrix, weights[..., at + before * after : at + (before + 1) * after]))
        at += (before + 1) * after
    return found


def _one_by_one() -> Evaluate:
    """Plays each policy for itself."""
    env: Any = gym.make(ENV)
    env.reset(seed=0)

    def evaluate(weights: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        returns, places = np.zeros(len(weights)), np.zeros((len(weights), 2))
        for k, row in enumerate(weights):
            layers, (obs, _) = _layers(row), env.reset()
            over = False
            while not over:
                out = obs
                for matrix, bias in layers:
                    out = np.tanh(out @ matrix + bias)
                obs, reward, terminated, truncated, _ = env.step(out)
                returns[k] += reward
                over = terminated or truncated
            places[k] = obs[:2]
        return returns, places

    return evaluate


def _vectorised() -> Evaluate:
    """Plays all policies at once."""
    made: dict[int, Any] = {}

    def evaluate(weights: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        count = len(weights)
        if count not in made:
            made[count] = gym.make_vec(ENV, num_envs=count)
            made[count].reset(seed=0)
        envs, layers = made[count], _layers(weights)
        obs, returns = envs.reset()[0], np.zeros(count)
        for _ in range(STEPS):
            out = obs
            for matrix, bias in layers:
                out = np.tanh(np.einsum("ni,nij->nj", out, matrix) + bias)
            obs, reward, *_ = envs.step(out)
            returns += reward
        return returns, obs[:, :2].astype(np.float64)

    return evaluate


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the archive: the elites' returns by the place where they end.

    Args:
        result: of :func:`reproduce`.
        path: a picture file.

    Raises:
        ReproductionError: if matplotlib is not installed, or the file cannot be written.
    """
    from mlbits.evals.reproductions.plots import figure, save

    canvas, (panel,) = figure(1, width=5.0, height=4.0)
    values = np.array([[np.nan if value is None else value for value in line] for line in result["archive"]], float)
    shown = panel.imshow(values.T, origin="lower", extent=(-REACH, REACH, -REACH, REACH))
    canvas.colorbar(shown, ax=panel, label="return of the elite")
    panel.set(xlabel="x at the end, m", ylabel="y at the end, m")
    save(canvas, path)
