"""When a run ends before it has all its steps, by its own settings: read off its counters, which are saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlbits.selfplay.runs.config import RunConfig


def reached(run: RunConfig, counters: Mapping[str, Any]) -> str:
    """Why a run is over though steps are left, as text; "" if it is not.

    Args:
        run: the run's settings.
        counters: of :class:`mlbits.selfplay.session.counters.Counters`, as they are or as a checkpoint has kept them.
    """
    if run.stop_when_solved and counters.get("solved_at") is not None:
        return "it is solved (stop_when_solved)"
    best, since = counters.get("best_return_mean"), counters.get("evaluations_without_improvement")
    if run.stop_at_return is not None and isinstance(best, (int, float)) and best >= run.stop_at_return:
        return f"an evaluation's mean return is {best:.4g} (stop_at_return {run.stop_at_return:g})"
    if run.stop_without_improvement and isinstance(since, int) and since >= run.stop_without_improvement:
        return f"{since} evaluations in a row were no better than the best (stop_without_improvement)"
    return ""
