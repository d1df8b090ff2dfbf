"""Matchmaking: a learner's next opponent by prioritised fictitious self-play, or by the rules of AlphaStar's league.

Prioritised fictitious self-play (PFSP) draws opponent B with a probability proportional to f(w), w being the fraction
of games that the learner wins against B: (1 - w)^2 "squared", w (1 - w) "variance", 1 - w "linear", min(1/2, 1 - w)
"linear_capped". Where all weights are zero, draws are uniform.

The league (Vinyals et al., "Grandmaster level in StarCraft II using multi-agent reinforcement learning" (2019), with
its published pseudocode) has three kinds of learner:

- a main agent meets all frozen players (squared) half of the time. 15% of its matches are against players it may have
  forgotten how to beat: frozen main exploiters, if it wins less than 30% against one of them, else past copies of a
  main agent that it has come to lose against (wins less than 70%), without the newest copies where these only get
  harder. Otherwise it meets a current main agent (possibly itself) or, while it loses more than 70% against that one,
  its frozen copies (variance).
- a main exploiter meets a current main agent or, while it wins 10% or less, that one's frozen copies (variance).
- a league exploiter meets all frozen players (linear_capped).

Where we differ: "played" means environment steps of the run, so that a league can be of any size, and a pair that has
met fewer than 8 times counts as even.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlbits.selfplay.league.win_rates import Payoffs

Role = Literal["main", "main_exploiter", "league_exploiter"]
Weighting = Literal["squared", "variance", "linear", "linear_capped"]
WEIGHTINGS: tuple[Weighting, ...] = ("squared", "variance", "linear", "linear_capped")

# Fractions of a main agent's matches; the rest is self-play.
_PFSP_SHARE, _LOOK_BACK_SHARE = 0.5, 0.15
_EXPLOITED, _FORGOTTEN, _TOO_STRONG, _HOPELESS = 0.3, 0.7, 0.3, 0.1
# A learner that wins this fraction against all it plays for is frozen early.
_MASTERED = 0.7


@dataclass(frozen=True, slots=True)
class Player:
    """A possible opponent.

    Attributes:
        number: its number in lineups and payoffs.
        role: of the learner, or of the learner that it is a copy of.
        parent: the number of the learner that it is a copy of; None for a learner.
    """

    number: int
    role: Role
    parent: int | None = None


def pfsp(win_rate: ArrayLike, weighting: Weighting) -> NDArray[np.float64]:
    """Probabilities of meeting opponents, [N].

    Args:
        win_rate: fraction of games that the learner wins against each, 0..1, [N], N at least 1.
        weighting: f of the module's docstring.

    Raises:
        ValueError: for an unknown weighting, no opponents, or a fraction outside 0..1.
    """
    won = np.asarray(win_rate, float)
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: got {weighting!r}; wanted one of {', '.join(WEIGHTINGS)}")
    if won.ndim != 1 or won.size == 0 or not ((won >= 0) & (won <= 1)).all():
        raise ValueError(f"win_rate: got {won}; wanted one number from 0 to 1 for each opponent")
    lost = 1 - won
    weight = {
        "squared": lost**2, "variance": won * lost, "linear": lost, "linear_capped": np.minimum(0.5, lost)
    }[weighting]  # fmt: skip
    total = weight.sum()
    return weight / total if total > 1e-10 else np.full(len(won), 1 / len(won))


def league_match(learner: Player, players: Sequence[Player], payoffs: Payoffs, draws: np.random.Generator) -> int:
    """The number of the next opponent of a league's learner; its own number for self-play.

    Args:
        learner: the learner that is to be matched.
        players: all learners and frozen copies; at least one copy of every learner, and at least one main agent.
        payoffs: results of all pairs.
        draws: random generator.
    """
    won = payoffs.win_rate(learner.number)
    copies = [player.number for player in players if player.parent is not None]
    mains = [player.number for player in players if player.parent is None and player.role == "main"]

    def prioritised(numbers: Sequence[int], weighting: Weighting) -> int:
        return int(draws.choice(numbers, p=pfsp(won[list(numbers)], weighting)))

    def copies_of(parent: int) -> list[int]:
        return [player.number for player in players if player.parent == parent]

    if learner.role == "league_exploiter":
        return prioritised(copies, "linear_capped")
    if learner.role == "main_exploiter":
        main = int(draws.choice(mains))
        return main if won[main] > _HOPELESS else prioritised(copies_of(main), "variance")
    coin = draws.random()
    if coin < _PFSP_SHARE:
        return prioritised(copies, "squared")
    main = int(draws.choice(mains))
    if coin < _PFSP_SHARE + _LOOK_BACK_SHARE:
        exploiters = [one.number for one in players if one.parent is not None and one.role == "main_exploiter"]
        if exploiters and won[exploiters].min() < _EXPLOITED:
            return prioritised(exploiters, "squared")
        past = without_harder_tail(copies_of(main), won)
        if past and won[past].min() < _FORGOTTEN:
            return prioritised(past, "squared")
    if main == learner.number or won[main] > _TOO_STRONG:
        return main
    return prioritised(copies_of(main), "variance")


def without_harder_tail(copies: Sequence[int], won: NDArray[np.float64]) -> list[int]:
    """Copies without the tail of newest ones along which they only get harder: these have not been forgotten.

    Args:
        copies: numbers, oldest first.
        won: fraction of games won against each player, by number.
    """
    for last in range(len(copies) - 1, 0, -1):
        if won[copies[last - 1]] < won[copies[last]]:
            return list(copies[: last + 1])
    return []


def is_ripe(learner: Player, players: Sequence[Player], payoffs: Payoffs, steps: int, least: int) -> bool:
    """Whether a copy of a league's learner should be frozen now.

    Args:
        learner: the learner in question.
        players: all learners and frozen copies.
        payoffs: results of all pairs.
        steps: environment steps since its last copy.
        least: after these it is frozen if it wins 70% against each player that it is trained against (main exploiters:
            the main agents; others: all frozen players); after twice as many in any case.
    """
    if steps < least:
        return False
    if learner.role == "main_exploiter":
        rivals = [player.number for player in players if player.parent is None and player.role == "main"]
    else:
        rivals = [player.number for player in players if player.parent is not None]
    return steps >= 2 * least or bool(payoffs.win_rate(learner.number)[rivals].min() > _MASTERED)
