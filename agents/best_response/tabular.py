"""Best-response policy iteration on payoff tables: for games of one step, where exploitability is exact.

Each round, every seat answers N times by sampled best response
(:mod:`~mlbits.agents.best_response.sampled_best_response`); the round's policy is how often each action was the
answer. Round 0 is uniform. As OpenSpiel's ``sbr_blotto``: the base profiles are drawn from the latest round, or each
from a past round drawn uniformly, one round for all seats; the candidates from the initial, the latest or a uniformly
drawn past round, or with a fair coin from the initial one or the other.

Example:
    >>> import numpy as np
    >>> rock = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    >>> history = policy_iteration(np.stack([rock, -rock]), TabularConfig(base="past", candidates="past"), 8, seed=0)
    >>> [mixture.shape for mixture in history]
    [(9, 3), (9, 3)]
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlbits.agents.agent import AgentError
from mlbits.envs.core.config_fields import configuration, setting

TIE = 1e-9


@configuration(AgentError)
class TabularConfig:
    """Settings of tabular best-response policy iteration; defaults of OpenSpiel's ``sbr_blotto``."""

    base: Literal["latest", "past"] = setting("past", "round whose policy the base profiles are drawn from")
    candidates: Literal["initial", "latest", "past", "initial_latest", "initial_past"] = setting(
        "initial_latest", "rounds whose policies the candidates are drawn from, two by a fair coin"
    )
    profiles: int = setting(10, "base profiles, B", low=1, high=1e5)
    num_candidates: int = setting(25, "candidates, C", low=1, high=1e5)
    answers: int = setting(1000, "sampled best responses of each seat in a round, N", low=1, high=1e7)


# The three methods of the paper; IBR's and FPPI's choices of base and candidates.
METHODS = {
    "ibr": TabularConfig(base="latest", candidates="latest"),
    "fppi1": TabularConfig(base="past", candidates="initial_past"),
    "fppi2": TabularConfig(base="past", candidates="initial_latest"),
}


class _History:
    """The answers of all rounds so far, to draw actions from.

    Args:
        payoffs: [P, A_1, ..., A_P].
        rng: random generator.
    """

    def __init__(self, payoffs: NDArray[np.float64], rng: np.random.Generator) -> None:
        self.counts, self.rng = payoffs.shape[1:], rng
        self.answers: list[NDArray[np.int64]] = []  # of each round from 1 on, [P, N]

    def rounds(self, which: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Numbers of rounds to draw from."""
        latest = len(self.answers)
        if which == "past":
            return self.rng.integers(0, latest + 1, shape)
        return np.full(shape, latest if which == "latest" else 0)

    def draw(self, seat: int, rounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """A seat's action from the policy of each of these rounds."""
        drawn = self.rng.integers(0, self.counts[seat], rounds.shape)
        if self.answers:
            table = np.stack([answers[seat] for answers in self.answers])
            later = rounds > 0
            place = self.rng.integers(0, table.shape[1], int(later.sum()))
            drawn[later] = table[rounds[later] - 1, place]
        return drawn


def policy_iteration(
    payoffs: NDArray[np.float64], config: TabularConfig, rounds: int, seed: int
) -> list[NDArray[np.float64]]:
    """The policies of all rounds.

    Args:
        payoffs: of each seat for every joint action, [P, A_1, ..., A_P].
        config: settings.
        rounds: number of rounds after the initial one.
        seed: of all draws.

    Returns:
        For each seat [1 + rounds, A]: how probable each action is in each round.
    """
    rng = np.random.default_rng(seed)
    history = _History(payoffs, rng)
    mixtures = [np.full((1 + rounds, count), 1 / count) for count in payoffs.shape[1:]]
    for number in range(1, 1 + rounds):
        answers = answer(payoffs, config, history)
        history.answers.append(answers)
        for seat, mixture in enumerate(mixtures):
            mixture[number] = np.bincount(answers[seat], minlength=mixture.shape[1]) / config.answers
    return mixtures


def answer(payoffs: NDArray[np.float64], config: TabularConfig, history: _History) -> NDArray[np.int64]:
    """N sampled best responses of each seat, [P, N]."""
    seats, shape = len(payoffs), (config.answers, config.profiles)
    past = history.rounds(config.base, shape)
    profiles = [history.draw(seat, past) for seat in range(seats)]  # the same for all candidates and seats
    found = np.empty((seats, config.answers), np.int64)
    for seat in range(seats):
        options = _candidates(config, history, seat)
        joint = [profile[:, None, :] for profile in profiles]
        joint[seat] = options[:, :, None]
        q = payoffs[(seat, *joint)].mean(2)
        best = q >= q.max(1, keepdims=True) - TIE
        choice = np.where(best, history.rng.random(q.shape), -1.0).argmax(1)
        found[seat] = options[np.arange(config.answers), choice]
    return found


def _candidates(config: TabularConfig, history: _History, seat: int) -> NDArray[np.int64]:
    shape, kinds = (config.answers, config.num_candidates), config.candidates.split("_")
    rounds = history.rounds(kinds[-1], shape)
    if len(kinds) == 2:
        rounds = np.where(history.rng.random(shape) < 0.5, 0, rounds)
    return history.draw(seat, rounds)
