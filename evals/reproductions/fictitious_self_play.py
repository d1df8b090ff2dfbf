"""``mlbits reproduce fictitious-play``: training against a pool of past selves is less exploitable than self-play.

First exact play: fictitious play with exact best responses, and iterated best response as the negative control, which
responds to the latest play alone and cycles for ever (in Blotto each of its pure actions is fully exploitable).

Then PPO on games whose only equilibrium is mixed, once against frozen copies of its whole history (``--pool uniform``)
and once against itself, with the same settings and steps. In fictitious play the average of the history converges to an
equilibrium, not its last member; so the first is judged by the mixture that draws one of its copies for each game, and
plain self-play by its final policy. The other two numbers (the final policy of the first, the average over past copies
of the second) are shown beside them. All exploitabilities are exact.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.exact.normal_form import payoff_tensor
from mlbits.envs.registry import make_game
from mlbits.evals.game_theory.fictitious_play import fictitious_play, iterated_best_response
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.evals.training_probes import during_training
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.statistics import mean_interval
from mlbits.selfplay.training import train

_BLOTTO, _MATRIX = "mlbits/Blotto-v0", "mlbits/MatrixGame-v0"


@dataclass(frozen=True, slots=True)
class Row:
    """A game to learn.

    Attributes:
        name: its name in tables.
        env: environment id.
        settings: settings of the environment.
        target: the mixture's exploitability should be below it, self-play's above; None wants the mixture's to be at
            most half of self-play's.
    """

    name: str
    env: str
    settings: dict[str, Any]
    target: float | None


ROWS = (
    Row("rock-paper-scissors", _MATRIX, {"payoffs": "rock_paper_scissors"}, 0.05),
    Row("Shapley's game", _MATRIX, {"payoffs": "shapley"}, 0.1),
    Row("Blotto(5,3)", _BLOTTO, {"coins": 5, "fields": 3}, None),
)
# Exploitability after rounds of fictitious play with exact best responses.
EXACT = {("Blotto(10,3)", 10, 100): 0.130, ("Blotto(10,3)", 10, 1000): 0.042}
# Plain self-play also freezes copies, which are never played against, so that their average can be measured.
_WAYS = {"history": {"pool": "uniform", "pool_fraction": 1.0}, "self-play": {"pool": "uniform", "pool_fraction": 0.0}}


def reproduce(quick: bool = False, *, seeds: int = 5, plot: Path | None = None) -> dict[str, Any]:
    """Play exactly, then train.

    Args:
        quick: one seed of rock-paper-scissors with half of the steps, besides the exact part.
        seeds: number of runs of each game and method.
        plot: write a plot of the curves to this file (needs matplotlib).

    Returns:
        "exact" (game, rounds, exploitability, wanted), "cycles" (game, length of the cycle, least exploitability),
        "rows" (game, way, mean and 95% interval of the exploitability of the mixture and of the final policy),
        "curves" by game and way: env_steps [X], pool and agent [seeds, X]; and "met".
    """
    exact, cycles = _exact(), _cycles()
    curves: dict[str, dict[str, Any]] = {}
    rows, met = [], all(row["met"] for row in exact) and all(row["least"] >= 0.5 for row in cycles)
    for row in ROWS[:1] if quick else ROWS:
        found = {way: _learn(row, way, 1 if quick else seeds, quick) for way in _WAYS}
        curves[row.name] = found
        late = {way: {which: curve[which][:, -1] for which in ("pool", "agent")} for way, curve in found.items()}
        rows += [_row(row, way, late[way]) for way in _WAYS]
        mixture, alone = late["history"]["pool"].mean(), late["self-play"]["agent"].mean()
        met &= bool(mixture <= alone / 2 if row.target is None else mixture < row.target < alone)
    _print(exact, cycles, rows)
    if plot is not None:
        draw(curves, plot)
    return {"exact": exact, "cycles": cycles, "rows": rows, "curves": _plain(curves), "met": met}


def _exact() -> list[dict[str, Any]]:
    rows = []
    for (name, coins, rounds), wanted in EXACT.items():
        found = fictitious_play(payoff_tensor(make_game(_BLOTTO, coins=coins)), rounds).exploitability[-1]
        rows.append({"game": name, "rounds": rounds, "exploitability": float(found), "wanted": wanted,
                     "met": round(float(found), 3) == wanted})  # fmt: skip
    return rows


def _cycles() -> list[dict[str, Any]]:
    rows = []
    for row in (ROWS[0], ROWS[2]):
        found = iterated_best_response(payoff_tensor(make_game(row.env, **row.settings)), [0, 0])
        least = float(found.exploitability[found.start :].min())
        rows.append({"game": row.name, "length": len(found.cycle), "least": least})
    return rows


def _learn(row: Row, way: str, seeds: int, quick: bool) -> dict[str, NDArray[np.float64]]:
    """Exploitability over the runs: env_steps [X], pool and agent [seeds, X]."""
    runs = []
    for seed in range(seeds):
        run = {"seed": seed, "device": "cpu", "video": False, **_WAYS[way]} | (
            {"total_steps": 150_000} if quick else {}
        )
        settings = resolve("ppo", row.env, run=run, env_settings=row.settings)
        with tempfile.TemporaryDirectory() as folder:
            out, _ = train(settings, Path(folder) / "run", console=False, measure=during_training)
            records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        runs.append([record for record in records if "exploitability/pool" in record])
    values = {
        which: np.array([[record[f"exploitability/{which}"] for record in run] for run in runs])
        for which in ("pool", "agent")
    }
    return {"env_steps": np.array([float(record["env_steps"]) for record in runs[0]]), **values}


def _row(row: Row, way: str, late: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    result: dict[str, Any] = {"game": row.name, "way": way, "seeds": len(late["pool"]), "target": row.target}
    for which in ("pool", "agent"):
        mean, (low, high) = mean_interval(late[which])
        result |= {which: mean, f"{which}_low": low, f"{which}_high": high}
    return result


def _print(exact: list[dict[str, Any]], cycles: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    print_table(
        "fictitious play, exact best responses", ["game", "rounds", "exploitability", "wanted"],
        [[row["game"], row["rounds"], f"{row['exploitability']:.3f}", f"{row['wanted']:.3f}"] for row in exact],
    )  # fmt: skip
    print_table(
        "iterated best response: it cycles for ever", ["game", "plays in the cycle", "least exploitability of them"],
        [[row["game"], row["length"], row["least"]] for row in cycles],
    )  # fmt: skip
    shown = []
    for row in rows:
        cells = [f"{row[w]:.3f} [{row[f'{w}_low']:.3f}, {row[f'{w}_high']:.3f}]" for w in ("pool", "agent")]
        judged = row["way"] == "history"
        aim = "half of self-play" if row["target"] is None else f"{row['target']:g}"
        wanted = (f"mixture {'at most ' if row['target'] is None else 'below '}" if judged else "last above ") + aim
        shown.append([row["game"], row["way"], *cells, "" if not judged and row["target"] is None else wanted])
    print_table(
        f"PPO: exact exploitability in the end, mean [95%] over {rows[0]['seeds']} seeds",
        ["game", "against", "mixture of its copies", "last policy", "wanted"], shown, width=110,
    )  # fmt: skip


def draw(curves: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot exploitability over environment steps, means with 95% bands.

    Args:
        curves: of :func:`reproduce`.
        path: the plot's file.

    Raises:
        ReproductionError: if matplotlib is not installed.
    """
    from mlbits.evals.reproductions.plots import figure, mean_band, save

    canvas, panels = figure(len(curves))
    lines = (
        ("history", "pool", "history: mixture of copies", "C0"), ("history", "agent", "history: last policy", "C9"),
        ("self-play", "agent", "self-play: last policy", "C3"), ("self-play", "pool", "self-play: mixture", "C1"),
    )  # fmt: skip
    for panel, (name, found) in zip(panels, curves.items(), strict=True):
        for way, which, label, colour in lines:
            runs = np.array(found[way][which])
            mean_band(panel, np.array(found[way]["env_steps"]) / 1000, runs, label, colour)
        panel.set_title(name)
        panel.set_xlabel("environment steps, thousands")
        panel.set_ylabel("exploitability")
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=8)
    save(canvas, path)


def _plain(curves: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {way: {key: value.tolist() for key, value in curve.items()} for way, curve in found.items()}
        for name, found in curves.items()
    }
