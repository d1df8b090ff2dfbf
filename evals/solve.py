"""``mlbits solve``: the exact solution of an environment that is small enough to have a table.

The transition table is read off the environment's own rules (:mod:`mlbits.envs.exact.transition_table`) and solved in
three ways: by backward induction for the greatest undiscounted return within the time limit, and by value iteration and
policy iteration at a discount, without a time limit, each with a bound on its distance from the optimum.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlbits.agents.planning.dynamic_programming import (
    backward_induction,
    check_accuracy,
    policy_iteration,
    uniform_policy,
    value_iteration,
)
from mlbits.envs.exact.transition_table import table_of
from mlbits.evals.policy_maps import exact_picture, fixed_map
from mlbits.selfplay.runs.config import ConfigError


class Solution(dict[str, Any]):
    """The result of :func:`solve`: a dict, which notebooks show as :func:`describe` does."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(describe(self))}</pre>"


def solve(
    env: str,
    settings: Mapping[str, Any] | None = None,
    *,
    discount: float = 0.99,
    tolerance: float = 1e-8,
    state_limit: int = 200_000,
    picture: Path | None = None,
) -> Solution:
    """Solve an environment.

    Args:
        env: its id.
        settings: settings of the environment.
        discount: gamma of value and policy iteration; at 1 policy iteration is left out.
        tolerance: value iteration stops once its bound is below this.
        state_limit: maximum number of states; larger environments are refused.
        picture: a file for a picture of the map with values and best moves, only for gridworlds with a fixed map; or
            None.

    Returns:
        env, states, actions, starts, horizon, read_seconds; optimum and random_return (undiscounted, mean over starts,
        within the time limit); discount and value (the best discounted return, mean over starts); value_iteration
        {sweeps, bound, prior_bound, seconds}; policy_iteration {improvements, bound, seconds, difference} or None.
        Bounds are None where none is known.

    Raises:
        GameError: if the environment has no table, or too large a one.
        AgentError: if the discount is out of range, or the values do not converge.
        ConfigError: if the picture cannot be drawn or written.
    """
    check_accuracy(discount, tolerance)
    if picture is not None:
        from PIL import Image

        if Image.registered_extensions().get(picture.suffix.lower()) not in Image.SAVE:
            raise ConfigError(f"picture: got {picture}; wanted a file name of a picture, ending in .png or .jpg")
    game = fixed_map(env, settings) if picture is not None else None
    if picture is not None and game is None:
        raise ConfigError(f"picture: {env} has no map to draw; wanted a gridworld with a fixed map")
    began = time.perf_counter()
    table = table_of(env, settings, state_limit=state_limit)
    read = time.perf_counter()
    swept = value_iteration(table, discount, tolerance=tolerance)
    done = time.perf_counter()
    result = Solution(
        {
            "env": env,
            "states": table.num_states,
            "actions": table.num_actions,
            "starts": int((table.start > 0).sum()),
            "horizon": table.horizon,
            "read_seconds": read - began,
            "optimum": float(backward_induction(table).value @ table.start),
            "random_return": float(backward_induction(table, policy=uniform_policy(table)).value @ table.start),
            "discount": discount,
            "value": float(swept.value @ table.start),
            "value_iteration": {
                "sweeps": swept.iterations,
                "bound": _known(swept.bound),
                "prior_bound": _known(swept.prior_bound),
                "seconds": done - read,
            },
            "policy_iteration": None,
        }
    )
    if discount < 1:
        began = time.perf_counter()
        improved = policy_iteration(table, discount)
        result["policy_iteration"] = {
            "improvements": improved.iterations,
            "bound": _known(improved.bound),
            "seconds": time.perf_counter() - began,
            "difference": float(np.abs(improved.value - swept.value).max()),
        }
    if picture is not None and game is not None:
        try:
            Image.fromarray(exact_picture(game, discount)).save(picture)
        except (OSError, ValueError) as error:
            raise ConfigError(f"picture: {picture} cannot be written ({error}); wanted a writable file") from None
    return result


def describe(result: Mapping[str, Any]) -> str:
    """The result of :func:`solve` as a few lines of text."""
    limit = "no time limit" if result["horizon"] is None else f"a time limit of {result['horizon']:,} steps"
    sweeps, improvements = result["value_iteration"], result["policy_iteration"]
    bound = "no bound holds at discount 1"
    if sweeps["bound"] is not None:
        bound = f"within {sweeps['bound']:.2g} of the optimum (known in advance: {sweeps['prior_bound']:.2g})"
    lines = [
        f"{result['env']}: {result['states']:,} states, {result['actions']:,} actions, {result['starts']:,} "
        f"start{'' if result['starts'] == 1 else 's'}, "
        f"{limit}; read in {result['read_seconds']:.2f} s",
        f"undiscounted, within the time limit: best play {result['optimum']:.6g}, random play "
        f"{result['random_return']:.6g}",
        f"at discount {result['discount']:g}, without a limit: best play {result['value']:.6g}",
        f"value iteration: {sweeps['sweeps']:,} sweeps in {sweeps['seconds']:.2f} s, {bound}",
    ]
    if improvements is not None:
        lines.append(
            f"policy iteration: {improvements['improvements']:,} improvements in {improvements['seconds']:.2f} s, "
            f"within {improvements['bound']:.2g}; the two differ by {improvements['difference']:.2g} at most"
        )
    return "\n".join(lines)


def _known(bound: float) -> float | None:
    return bound if np.isfinite(bound) else None
