"""Best-response dynamics in normal-form games: fictitious play, and iterated best response as a negative control.

Brown 1951, "Iterative Solution of Games by Fictitious Play": in every round each seat plays a best response to the mean
of what each other seat has played so far. In two-seat zero-sum games the means approach an equilibrium (Robinson 1951);
in Shapley's game they cycle for ever. The seats respond simultaneously, or one after the other, later ones knowing what
earlier ones have played in the same round ("alternating", Brown's own; Berger 2007, "Brown's original fictitious
play").

Iterated best response responds to the last round alone. There are finitely many pure profiles, so it returns to one it
has visited and cycles from there: a cycle of length 1 is a pure equilibrium, a longer one repeats for ever.

**Tie breaking matters.** Games with few different payoffs (Blotto: -1, 0, 1) have many best actions, and the rule for
ties changes a curve more than anything else. ``ties="rounding"`` takes the greatest of the payoffs as computed in
float64 from rounded means, the lowest-numbered where they are equal to the last bit. That is what
``(payoffs @ mean).argmax()`` does, made reproducible on every machine: products are added up in four lanes, as OpenBLAS
does on processors with AVX2. ``"lowest"`` counts exactly (for integer payoffs) and takes the lowest-numbered action;
``"random"`` draws among the best.

Blotto with 10 coins on 3 fields, exploitability after 100 and 1,000 rounds: 0.130 and 0.042 with "rounding", 0.140 and
0.050 with "lowest".

Example:
    >>> from mlbits.evals.game_theory.nash_conv import symmetric_game
    >>> rock_paper_scissors = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    >>> learnt = fictitious_play(symmetric_game(rock_paper_scissors), 100)
    >>> bool(learnt.exploitability[-1] < 0.15)
    True
    >>> iterated_best_response(symmetric_game(rock_paper_scissors), (0, 0)).cycle.tolist()
    [[0, 0], [1, 1], [2, 2]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlbits.envs.core.errors import GameError
from mlbits.evals.game_theory.nash_conv import check_payoffs

Updates = Literal["simultaneous", "alternating"]
Ties = Literal["rounding", "lowest", "random"]

_LANES = 4
_TIE = 1e-9  # payoffs that differ by less, relative to the largest, count as equal for "random"


@dataclass(frozen=True, eq=False)
class FictitiousPlay:
    """The result of fictitious play.

    Attributes:
        actions: the actions played, int64 [T, P].
        profile: the mean of each seat's actions, P mixtures [A_i].
        exploitability: of the means after each round (NashConv over the number of seats), [T].
    """

    actions: NDArray[np.int64]
    profile: list[NDArray[np.float64]]
    exploitability: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BestResponseCycle:
    """The path of iterated best response until it repeats.

    Attributes:
        actions: the profiles it played, each once, int64 [T, P]; after the last it continues at ``start``.
        start: the round to which it returns.
        exploitability: of each of the pure profiles, [T].
    """

    actions: NDArray[np.int64]
    start: int
    exploitability: NDArray[np.float64]

    @property
    def cycle(self) -> NDArray[np.int64]:
        """The profiles that repeat for ever, int64 [C, P]; C = 1 is a pure equilibrium."""
        return self.actions[self.start :]


def fictitious_play(
    payoffs: ArrayLike,
    rounds: int,
    *,
    initial: Sequence[int] | None = None,
    updates: Updates = "simultaneous",
    ties: Ties = "rounding",
    seed: int = 0,
) -> FictitiousPlay:
    """Play best responses to the mean of past play.

    Args:
        payoffs: [P, A_1, ..., A_P].
        rounds: number of rounds T.
        initial: the actions of the first round, one per seat; None responds to uniform play, which does not count as a
            round.
        updates: whether the seats respond simultaneously or one after the other.
        ties: which of several best actions is played, see the module's docstring.
        seed: seed of the draws for ``ties="random"``.

    Raises:
        GameError: if the payoffs, the number of rounds, an initial action or an option is invalid.
    """
    tensor = check_payoffs(payoffs)
    seats, sizes = tensor.shape[0], tensor.shape[1:]
    if rounds < 1:
        raise GameError(f"rounds: got {rounds}; wanted at least 1")
    _check_option("updates", updates, ("simultaneous", "alternating"))
    _check_option("ties", ties, ("rounding", "lowest", "random"))
    generator, scale = np.random.default_rng(seed), float(np.abs(tensor).max())
    own_first = [_own_first(tensor, seat) for seat in range(seats)]
    counts = [np.zeros(size) for size in sizes]

    def answer(seat: int, mixtures: list[NDArray[np.float64]]) -> int:
        """A best response to the others' past play: to means, or to counts, which are whole numbers."""
        earned = _against(own_first[seat], mixtures[:seat] + mixtures[seat + 1 :])
        if ties != "random":
            return int(earned.argmax())
        reach = _TIE * scale * float(np.prod([mixture.sum() for mixture in mixtures[:seat] + mixtures[seat + 1 :]]))
        return int(generator.choice(np.flatnonzero(earned >= earned.max() - reach)))

    def past(seat: int) -> NDArray[np.float64]:
        total = counts[seat].sum()
        if total == 0:
            return np.ones(sizes[seat]) / (sizes[seat] if ties == "rounding" else 1)
        return counts[seat] / total if ties == "rounding" else counts[seat]

    actions = np.zeros((rounds, seats), np.int64)
    curve = np.zeros(rounds)
    first = None if initial is None else _check_actions(tensor, initial)
    for t in range(rounds):
        seen = [past(seat) for seat in range(seats)]
        for seat in range(seats):
            actions[t, seat] = answer(seat, seen) if first is None or t > 0 else first[seat]
            if updates == "alternating":
                counts[seat][actions[t, seat]] += 1
                seen[seat] = past(seat)
        if updates == "simultaneous":
            for seat in range(seats):
                counts[seat][actions[t, seat]] += 1
        curve[t] = _exploitability(own_first, [count / (t + 1) for count in counts])
    return FictitiousPlay(actions, [count / rounds for count in counts], curve)


def iterated_best_response(
    payoffs: ArrayLike, initial: Sequence[int], *, updates: Updates = "simultaneous"
) -> BestResponseCycle:
    """Respond to the last round alone, until a profile repeats; ties go to the lowest-numbered action.

    Args:
        payoffs: [P, A_1, ..., A_P].
        initial: the actions of the first round, one per seat.
        updates: whether the seats respond simultaneously or one after the other.

    Raises:
        GameError: if the payoffs, an initial action or the option is invalid.
    """
    tensor = check_payoffs(payoffs)
    _check_option("updates", updates, ("simultaneous", "alternating"))
    own_first = [_own_first(tensor, seat) for seat in range(tensor.shape[0])]
    met: dict[tuple[int, ...], int] = {}
    now, gaps = tuple(_check_actions(tensor, initial)), list[float]()
    every: Any = slice(None)
    while now not in met:
        met[now] = len(met)
        following, gap = list(now), 0.0
        for seat, payoff in enumerate(own_first):
            facing = now if updates == "simultaneous" else following
            earned = payoff[(every, *facing[:seat], *facing[seat + 1 :])]
            following[seat] = int(earned.argmax())
            here = payoff[(every, *now[:seat], *now[seat + 1 :])]
            gap += float(here.max() - here[now[seat]])
        gaps.append(gap / len(own_first))
        now = tuple(following)
    return BestResponseCycle(np.array(list(met), np.int64), met[now], np.array(gaps))


def _own_first(tensor: NDArray[np.float64], seat: int) -> NDArray[np.float64]:
    """A seat's payoffs with its own action on the first axis, the others' in their order."""
    return np.ascontiguousarray(np.moveaxis(tensor[seat], seat, 0))


def _against(payoff: NDArray[np.float64], others: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Payoffs of the own actions [A_i] against mixtures (or counts) of the others, whose axes follow in order."""
    for mixture in reversed(others):
        payoff = _four_lanes(payoff, mixture)
    return payoff


def _four_lanes(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sums, values @ weights, over the last axis, added up in an order that is the same on every machine."""
    size = len(weights)
    padded = np.zeros((*values.shape[:-1], -(-size // _LANES) * _LANES))
    np.multiply(values, weights, out=padded[..., :size])
    lanes = padded.reshape(*values.shape[:-1], -1, _LANES).cumsum(-2)[..., -1, :]  # cumsum adds one after the other
    return (lanes[..., 0] + lanes[..., 2]) + (lanes[..., 1] + lanes[..., 3])


def _exploitability(own_first: list[NDArray[np.float64]], profile: list[NDArray[np.float64]]) -> float:
    gap = 0.0
    for seat, payoff in enumerate(own_first):
        earned = _against(payoff, profile[:seat] + profile[seat + 1 :])
        gap += float(earned.max() - profile[seat] @ earned)
    return gap / len(own_first)


def _check_actions(tensor: NDArray[np.float64], initial: Sequence[int]) -> list[int]:
    actions, sizes = [int(action) for action in initial], tensor.shape[1:]
    if len(actions) != len(sizes) or any(not 0 <= a < size for a, size in zip(actions, sizes, strict=True)):
        raise GameError(f"initial: got {tuple(actions)}; wanted {len(sizes)} actions, below {sizes}")
    return actions


def _check_option(name: str, got: str, wanted: tuple[str, ...]) -> None:
    if got not in wanted:
        raise GameError(f"{name}: got {got!r}; wanted any of {', '.join(wanted)}")
