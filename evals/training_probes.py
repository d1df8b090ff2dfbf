"""Measurements of a training run besides its return: exploitability, Elo, pictures; see :func:`during_training`.

TensorBoard's names are stable:

| name | meaning |
|---|---|
| exploitability/agent | of the agent in all seats, exact; 0 is an equilibrium |
| exploitability/pool | of a mixture of the pool, a frozen copy drawn for each game, as in fictitious play; exact |
| against/* | points against a bot in evaluation games, of agents that plan: 1 for a win, half for a tie |
| rating/elo | the learner's Elo against the pool, from training games; the first copy has 0 |
| rating/groups | number of groups of players that never met, directly or through a chain of games |
| pool/payoffs | a picture: the fraction of games that the row player won against the column player |
| policy/learned, policy/exact | pictures, on gridworlds with a fixed map: the agent's policy; once, the best one |

Ratings of groups that never met have no common scale: rating/elo is left out where the first copy is not in the
learner's group, and the picture separates groups by black lines.

Exploitability is exact or left out: in games too large to enumerate there is none during training (``mlbits exploit
RUN`` trains a best responder in them, for a lower bound).

Example:
    mlbits train ppo mlbits/Blotto-v0 --pool uniform    # logs them at every evaluation
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.evals.policy_maps import policy_pictures
from mlbits.selfplay.bookkeeping import EVAL_SEED
from mlbits.selfplay.league.opponents import Opponents
from mlbits.selfplay.session import Measured, Session

# Copies of a pool that are measured (a millisecond or two each) or drawn; evenly spaced ones if there are more.
_MEASURED, _DRAWN = 512, 16


def during_training(session: Session) -> Measured:
    """Measure a run.

    Args:
        session: the run in progress; it is not changed, and none of its random numbers are drawn.
    """
    if session.batch.num_seats < 2:
        return Measured({}, _policy(session))
    # Imported here: only multi-agent runs wait for SciPy.
    from mlbits.evals.exploitability.agent_exploitability import exact_exploitability
    from mlbits.evals.game_theory.elo import elo_ratings, meeting_groups
    from mlbits.evals.headline import measure

    scalars: dict[str, float] = {}
    opponents, settings = session.opponents, session.settings
    where = (settings.env, settings.env_settings)
    found = exact_exploitability(session.learner, *where, device=session.device)
    if found is not None:
        scalars["exploitability/agent"] = found
    summary: dict[str, Any] = {}
    # Games cost more than the exact value, and are played once, at the end; by agents that plan, whose own games cost
    # as much, at every evaluation.
    plans = hasattr(session.learner, "plan")
    if found is not None or session.finished or plans:
        run = settings.run
        pool = [] if opponents is None else [opponents.agents[copy.number] for copy in opponents.copies]
        summary = measure(
            session.learner, *where, run.eval_episodes, seed=EVAL_SEED, exploitability=found, pool=pool,
            greedy=run.eval_greedy, device=session.device,
        )  # fmt: skip
    for row in summary.get("against", ()) if plans else ():
        scalars[f"against/{row['opponent']}"] = row["won"] + row["tied"] / 2
    if opponents is None:
        return Measured(scalars, {}, summary)
    copies = [copy.number for copy in opponents.copies]
    if found is not None and copies:
        members = [(opponents.agents[number], 1.0) for number in _evenly(copies, _MEASURED)]
        mixture = exact_exploitability(members, *where, device=session.device)
        assert mixture is not None
        scalars["exploitability/pool"] = mixture
        summary["pool_exploitability"] = mixture
    met = opponents.payoffs.meetings
    if not met.any():
        return Measured(scalars, {}, summary)
    if copies:
        points = opponents.payoffs.wins + opponents.payoffs.draws / 2
        groups = meeting_groups(points)
        scalars["rating/groups"] = float(groups.max() + 1)
        if groups[0] == groups[copies[0]]:
            scalars["rating/elo"] = float(elo_ratings(points, anchor=copies[0])[0])
    return Measured(scalars, {"pool/payoffs": payoffs_picture(opponents)}, summary)


def _policy(session: Session) -> dict[str, np.ndarray]:
    """Pictures of the policy, if the run is on a gridworld; at the first evaluation also of the exact one."""
    settings = session.settings
    if not settings.run.video:
        return {}
    first = session.counters.evaluation is None
    return policy_pictures(session.learner, settings, device=session.device, exact=first)


def payoffs_picture(opponents: Opponents) -> np.ndarray:
    """A heat map of win rates, uint8 [H, W, 3]: learners, guests, and frozen copies evenly spaced in time."""
    from mlbits.evals.game_theory.elo import meeting_groups
    from mlbits.evals.tournament.payoff_heat_map import payoff_heat_map  # needs Pillow

    copies = [copy.number for copy in opponents.copies]
    shown = [number for number in range(len(opponents.agents)) if number not in set(copies)] + _evenly(copies, _DRAWN)
    payoffs = opponents.payoffs
    with np.errstate(invalid="ignore"):
        won = (payoffs.wins + payoffs.draws / 2) / payoffs.meetings
    group = meeting_groups(payoffs.meetings)
    shown.sort(key=lambda number: int(group[number]))  # stable: keeps the order within a group
    picked = won[np.ix_(shown, shown)]
    return payoff_heat_map(
        picked, [opponents.names[number] for number in shown], "games won, draws counting half",
        groups=group[shown].tolist(),
    )  # fmt: skip


def _evenly(numbers: list[int], most: int) -> list[int]:
    """At most ``most`` of them, evenly spaced, including the first and the last."""
    if len(numbers) <= most:
        return numbers
    return [numbers[round(k * (len(numbers) - 1) / (most - 1))] for k in range(most)]
