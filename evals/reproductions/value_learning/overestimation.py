"""``mlbits reproduce overestimation``: the overestimation of max Q, and double Q-learning, against true values.

Q-learning bootstraps from the maximum of noisy estimates, which is above the maximum of the true values (Thrun and
Schwartz 1993). Double Q-learning selects by one estimate and evaluates by another (van Hasselt 2010); double DQN uses
the network and its target network for the two (van Hasselt, Guez and Silver 2016, whose figure 3 this repeats).

- Table: ten arms that all pay N(0, 1), discount 0.9. The true value is 0 for every arm.
- DQN: the slippery gridworld of Russell and Norvig, discount 0.99. The network's max Q of every cell is compared with
  the cell's exact value from value iteration. Half of its actions are random, so that it sees all cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.agents.planning.dynamic_programming import value_iteration
from mlbits.envs.exact.transition_table import table_of
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import Session, open_session
from mlbits.selfplay.statistics import mean_interval

ARMS: dict[str, Any] = {"means": (0.0,) * 10}
GRID, SLIPPERY = "mlbits/GridWorld-v0", {"map": "russell_norvig", "slip": 0.2}
POINTS = 10  # measurements per run


def reproduce(quick: bool = False, plot: Path | None = None) -> dict[str, Any]:
    """Train single and double learners and compare their estimates with the true values.

    Args:
        quick: fewer seeds and steps; only the table has to meet its target.
        plot: write a plot of the curves to this file (needs matplotlib).

    Returns:
        "table" and "dqn", each with "steps" [POINTS] and, for "single" and "double", the errors [seeds, POINTS];
        "met": whether double learning's mean error is smaller and single learning's is above 0, by 95% intervals.
    """
    set_up(1)
    seeds = 3 if quick else 8
    table = _compare("q-learning", "mlbits/Bandit-v0", ARMS, seeds, 20_000, _table_error, _TABLE)
    results = {"table": table}
    if not quick:
        results["dqn"] = _compare("dqn", GRID, SLIPPERY, seeds, 20_000, NetworkError(_DQN["discount"]), _DQN)
    shown = []
    met = True
    for name, result in results.items():
        late = {which: result[which][:, POINTS // 2 :].mean(1) for which in ("single", "double")}
        intervals = {which: mean_interval(error) for which, error in late.items()}
        gap, (gap_low, gap_high) = mean_interval(late["single"] - late["double"])
        met = met and gap_low > 0 and intervals["single"][1][0] > 0
        shown += [[name, which, mean, low, high] for which, (mean, (low, high)) in intervals.items()]
        shown.append([name, "single - double", gap, gap_low, gap_high])
    print_table(
        f"estimated less true value, second half of the run, {seeds} seeds; wanted: single above 0 and double",
        ["learner", "form", "mean error", "95% low", "high"],
        shown,
    )
    if plot is not None:
        draw(results, plot)
    return {
        **{name: {key: value.tolist() for key, value in result.items()} for name, result in results.items()},
        "met": met,
    }


_TABLE = {"step_size": 0.1, "discount": 0.9, "epsilon_start": 1.0, "epsilon_end": 1.0}  # arms are drawn uniformly
_DQN = {
    "num_steps": 8, "replay_ratio": 0.5, "learning_rate": 1e-3, "target_every": 100, "batch_size": 32,
    "discount": 0.99, "epsilon_start": 0.5, "epsilon_end": 0.5, "learning_starts": 500,
}  # fmt: skip


def _compare(
    agent: str, env: str, env_settings: dict[str, Any], seeds: int, steps: int, error: Any, config: dict[str, Any]
) -> dict[str, NDArray[np.float64]]:
    """Errors of single and double learners at POINTS times of each run."""
    times = np.linspace(steps / POINTS, steps, POINTS)
    result = {"steps": times}
    for name, double in (("single", False), ("double", True)):
        errors = np.zeros((seeds, POINTS))
        for seed in range(seeds):
            run = {"num_envs": 8, "seed": seed, "total_steps": steps, "device": "cpu"}
            agent_settings = {**config, "double": double}
            session = open_session(
                resolve(agent, env, preset="none", run=run, agent_settings=agent_settings, env_settings=env_settings)
            )
            for k, moment in enumerate(times):
                _train_until(session, moment)
                errors[seed, k] = error(session)
        result[name] = errors
    return result


def _train_until(session: Session, steps: float) -> None:
    while session.counters.env_steps < steps:
        rollout, _, played = session.collector.collect(session.lineup)
        session.learn(rollout)
        session.counters.env_steps += played


def _table_error(session: Session) -> float:
    """Max Q of the one state, whose true value is 0."""
    learner: Any = session.learner
    return float(learner.values(torch.zeros(1, dtype=torch.int64)).max())


class NetworkError:
    """The mean over cells of max Q less the exact value.

    Args:
        discount: gamma.
    """

    def __init__(self, discount: float) -> None:
        table = table_of(GRID, SLIPPERY)
        assert table.states is not None
        self.cells = torch.from_numpy(table.states["cell"].astype(np.int64))
        self.value = value_iteration(table, discount).value

    def __call__(self, session: Session) -> float:
        """The error of a session's learner."""
        learner: Any = session.learner
        return float((learner.state_values(self.cells).double().numpy() - self.value).mean())


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot the errors over environment steps, the mean of each variant with its 95% band.

    Args:
        results: "table" and "dqn" of :func:`reproduce`, or one of them.
        path: the plot's file.

    Raises:
        ReproductionError: if matplotlib is not installed.
    """
    from mlbits.evals.reproductions.plots import figure, mean_band, save

    titles = {
        "table": "Q-learning, ten arms that all pay N(0, 1)",
        "dqn": "DQN, a slippery gridworld, mean over its cells",
    }
    canvas, panels = figure(len(results))
    for panel, (name, result) in zip(panels, results.items(), strict=True):
        for form, colour in (("single", "C3"), ("double", "C0")):
            mean_band(panel, np.array(result["steps"]), np.array(result[form]), form, colour)
        panel.axhline(0, color="black", linewidth=1)
        panel.set_title(titles[name])
        panel.set_xlabel("environment steps")
        panel.set_ylabel("max Q less the true value")
        panel.legend()
    save(canvas, path)
