"""``reproduce dvd``: which ways round a wall a population finds, with and without a reward for diversity.

PointMass with a wall twice as wide (``half_width`` 4): the way round it is so far that most policies that evolution
strategies train end in the U, with a return of -731. All arms have the same number of steps: one policy with three
times the perturbations; three independent policies; three that are rewarded for diversity, with a weight chosen by a
bandit (DvD) or fixed. A member is round if it ends beyond the wall, on the mean of 20 episodes, with a return above
-700; it went above or below by where its path was furthest from the middle before the wall. A population that holds
both ways knows more than one solution, which is what the reward is for. A weight on diversity that is never taken away
has a price: members that are round do not earn what independent ones that are round earn.

On the wall of the default width plain evolution strategies walk round it as well without diversity
([docs/diversity.md](../../../docs/diversity.md)): nothing is claimed there.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.evaluate import load_agent
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import train

ENV, WALL = "mlbits/PointMass-v0", {"half_width": 4.0}
BEYOND, ROUND = 15.0, -700.0  # m: behind the wall; a return that cannot be had in the U
MEMBERS, PAIRS, ITERATIONS = 3, 20, 150
EPISODES = 20  # of each member, in the end
_SHOWN = 4  # seeds whose paths are kept, for the picture
ARMS: dict[str, dict[str, Any]] = {
    "one policy": {"population": 1, "pairs": MEMBERS * PAIRS},
    "independent": {"population": MEMBERS},
    "diverse, bandit": {"population": MEMBERS, "diversity": "bandit"},
    "diverse, fixed": {"population": MEMBERS, "diversity": "fixed"},
}


def reproduce(quick: bool = False, *, seeds: int = 0) -> dict[str, Any]:
    """Train all arms on equal seeds and count which members are round, and by which side.

    Args:
        quick: four seeds instead of ten.
        seeds: how many seeds, from 0; 0 takes these.

    Returns:
        "rows" (arm, seeds, members, members_round, populations_round, both_ways, best_returns, sides, places of the
        first seeds' members [51, M, 2] in m, cpu_seconds), "p_value" (Fisher's exact test, two-sided, of members round:
        diverse by the fixed weight against independent) and "met": whether more diverse members by the fixed weight are
        round than independent ones, in no fewer populations. The bandit's arm is shown, and not part of the target.
    """
    numbers = range(seeds or (4 if quick else 10))
    rows = [_row(arm, [run(arm, seed) for seed in numbers]) for arm in ARMS]
    print_table(
        f"{ENV}, half_width {WALL['half_width']:g}: ways round the wall, {len(numbers)} seeds, {_steps():,} steps each",
        ["", "members round", "populations", "both ways", "best return", "CPU-s a run"],
        [
            [r["arm"], f"{r['members_round']} of {r['members']}", f"{r['populations_round']} of {len(numbers)}",
             f"{r['both_ways']} of {len(numbers)}", float(np.median(r["best_returns"])), r["cpu_seconds"]]
            for r in rows
        ],
        width=100,
    )  # fmt: skip
    p_value = _p_value(rows)
    print(f"members round, diverse by a fixed weight against independent: p = {p_value:.3g} (Fisher's exact test)")
    return {"rows": rows, "p_value": p_value, "met": met(rows)}


def met(rows: list[dict[str, Any]]) -> bool:
    """Whether a fixed weight on diversity brings more members round, in no fewer populations."""
    of = {row["arm"]: row for row in rows}
    diverse, alone = of["diverse, fixed"], of["independent"]
    return bool(
        diverse["members_round"] > alone["members_round"] and diverse["populations_round"] >= alone["populations_round"]
    )


def _p_value(rows: list[dict[str, Any]]) -> float:
    from scipy.stats import fisher_exact

    of = {row["arm"]: row for row in rows}
    table = [
        [of[arm]["members_round"], of[arm]["members"] - of[arm]["members_round"]]
        for arm in ("diverse, fixed", "independent")
    ]
    return float(fisher_exact(table).pvalue)


def _steps() -> int:
    return MEMBERS * (2 * PAIRS + 1) * 50 * ITERATIONS


def _row(arm: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of an arm, from its runs."""
    sides = [run["sides"] for run in runs]
    return {
        "arm": arm,
        "seeds": len(runs),
        "members": sum(map(len, sides)),
        "members_round": sum(int(np.count_nonzero(side)) for side in sides),
        "populations_round": sum(bool(np.any(side)) for side in sides),
        "both_ways": sum(1 in side and -1 in side for side in sides),
        "best_returns": [max(run["returns"]) for run in runs],
        "sides": sides,
        "places": [run["places"] for run in runs[:_SHOWN]],
        "cpu_seconds": float(np.mean([run["cpu_seconds"] for run in runs])),
    }


def run(arm: str, seed: int, iterations: int = ITERATIONS) -> dict[str, Any]:
    """Train an arm; returns each member's return and side: 1 round above, -1 round below, 0 not round."""
    settings = ARMS[arm] | {"hidden": (16, 16)}
    steps = _steps() * iterations // ITERATIONS
    # Member m draws from seed + m: seeds far apart, so that no two runs share a member.
    how = {"total_steps": steps, "seed": 1000 * seed, "device": "cpu"}
    how |= {"eval_every": 0, "eval_episodes": 1, "checkpoint_every": 0, "video": False, "record_every": steps}
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        train(
            resolve("es", ENV, preset="none", run=how, agent_settings=settings, env_settings=WALL),
            Path(folder) / "run",
            console=False,
        )
        agent, _, _ = load_agent(Path(folder) / "run")
    returns, sides, places = paths(agent.policies, agent.member_weights(), WALL)
    return {
        "returns": returns.tolist(), "sides": sides.tolist(), "cpu_seconds": time.process_time() - began,
        "places": places.round(2).tolist(),
    }  # fmt: skip


def paths(policies: Any, weights: torch.Tensor, settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Play members of a population.

    Args:
        policies: their form.
        weights: of M members, [M, D].
        settings: of PointMass.

    Returns:
        Mean returns [M]; sides [M]: 1 round above, -1 round below, 0 not round; and places [51, M, 2] of the first
        episode of each, in m.
    """
    members = len(weights)
    batch = open_batch(ENV, members * EPISODES, seed=1, settings=settings, illegal="replace", autoreset="disabled")
    decide, total = policies.deciding(weights, EPISODES), torch.zeros(members * EPISODES, dtype=torch.float64)
    places = [batch.obs[:, 0, :2].clone()]
    for _ in range(batch.horizon or 50):
        total += batch.step(decide(batch.obs[:, 0], None)[:, None]).reward[:, 0]
        places.append(batch.obs[:, 0, :2].clone())
    way = torch.stack(places).view(-1, members, EPISODES, 2)
    mean = way.mean(2).numpy()  # [51, M, 2]
    returns = total.view(members, EPISODES).mean(1).numpy()
    is_round = (mean[-1, :, 0] > BEYOND) & (returns > ROUND)
    before = np.where(mean[..., 0] < BEYOND, mean[..., 1], 0.0)
    furthest = np.take_along_axis(before, np.abs(before).argmax(0)[None], 0)[0]
    sides = (np.sign(furthest) * is_round).astype(int)
    return returns, sides, way[:, :, 0].numpy()


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the members' paths in the first seeds, independent ones beside diverse ones, a colour for each seed.

    Args:
        result: of :func:`reproduce`.
        path: a picture file.

    Raises:
        ReproductionError: if matplotlib is not installed, or the file cannot be written.
    """
    from mlbits.evals.reproductions.plots import figure, save

    canvas, panels = figure(2, width=5.0, height=3.4)
    rows = {row["arm"]: row for row in result["rows"]}
    half, back, arm = WALL["half_width"], 14.0, 2.0
    for panel, name in zip(panels, ("independent", "diverse, fixed"), strict=True):
        for low_x, low_y, width, height in (
            (back - 0.5, -half - 0.5, 1.0, 2 * half + 1.0),
            (back - arm - 0.5, half - 0.5, arm + 1.0, 1.0),
            (back - arm - 0.5, -half - 0.5, arm + 1.0, 1.0),
        ):
            panel.fill_between([low_x, low_x + width], low_y, low_y + height, color="0.7", linewidth=0)
        panel.plot([25.0], [0.0], "*", color="tab:green", markersize=12)
        for seed, places in enumerate(rows[name]["places"]):
            for member in np.array(places).transpose(1, 0, 2):
                panel.plot(*member.T, color=f"C{seed}", linewidth=1.2, alpha=0.8)
        panel.set(title=name, xlabel="x, m", ylabel="y, m", xlim=(-3, 32), ylim=(-14, 14))
    save(canvas, path)
