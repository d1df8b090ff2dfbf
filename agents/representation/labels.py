"""Weak labels: of two pictures, in which is a factor larger? Answers by a person, or simulated from exact factors.

Lee et al., "Weakly-supervised reinforcement learning for controllable behavior" (2020), section 4. An answer says
nothing about how large a factor is, and nothing about factors that are not asked about.

Example:
    >>> factors = np.array([[0.1, 3.0], [0.9, 2.0], [0.5, 1.0]])
    >>> labels = ask(factors, 3, np.random.default_rng(0))
    >>> bool((labels.answers == (factors[labels.first] > factors[labels.second])).all())
    True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbits.agents.agent import AgentError


class Labels(NamedTuple):
    """N compared pairs of pictures.

    Attributes:
        first: number of the first picture of each pair, int64 [N].
        second: number of the other, int64 [N].
        answers: whether the factor is larger in the first, bool [N, K].
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    answers: NDArray[np.bool_]


def ask(
    factors: NDArray[np.floating], pairs: int, rng: np.random.Generator, *, noise: float = 0.0,
    names: Sequence[str] | None = None,
) -> Labels:  # fmt: skip
    """Simulated answers about pairs of pictures, each pair drawn once.

    Args:
        factors: the factors of n pictures that are asked about, [n, K].
        pairs: number of pairs N, at most n (n - 1) / 2.
        rng: source of pairs and noise.
        noise: probability with which a factor is misjudged in one picture of a pair, as if it were uniform between its
            smallest and largest value.
        names: of the factors, for messages.

    Raises:
        AgentError: if there are fewer pairs than that, or a factor never varies.
    """
    count, names = len(factors), _names(names, factors.shape[1])
    most = count * (count - 1) // 2
    if not 1 <= pairs <= most:
        raise AgentError(f"pairs: got {pairs:,}; wanted 1 to {most:,}, the pairs of {count:,} pictures")
    low, high = factors.min(0), factors.max(0)
    for k in np.flatnonzero(low == high).tolist():
        raise AgentError(f"{names[k]}: is {low[k]:g} in all {count:,} pictures; wanted one that varies, or labels of "
                         "the others alone")  # fmt: skip
    number = rng.choice(most, pairs, replace=False)
    # Pair f (f - 1) / 2 + s is of pictures f and s < f; the root is exact enough for 10 million pictures.
    first = ((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    second = number - first * (first - 1) // 2
    swapped = rng.random(pairs) < 0.5
    first, second = np.where(swapped, second, first), np.where(swapped, first, second)
    seen = []
    for index in (first, second):
        value = factors[index]
        wrong = rng.random(value.shape) < noise
        seen.append(np.where(wrong, rng.uniform(low, high, value.shape), value))
    return check_labels(Labels(first, second, seen[0] > seen[1]), count, names)


def check_labels(labels: Labels, pictures: int, names: Sequence[str] | None = None) -> Labels:
    """The labels, if they are of these pictures and no pair has two answers.

    Args:
        labels: answers, of a person or another program.
        pictures: how many pictures there are.
        names: of the factors, for messages.

    Raises:
        AgentError: naming the pair and the factor, for arrays that do not fit together, a picture that is not there or
            is compared with itself, and answers that contradict each other.
    """
    first, second, answers = labels
    if answers.ndim != 2 or not len(first) == len(second) == len(answers) > 0:
        shapes = ", ".join(str(list(part.shape)) for part in labels)
        raise AgentError(f"labels: got first, second and answers of shapes {shapes}; wanted [N], [N] and [N, K]")
    names = _names(names, answers.shape[1])
    for part in (first, second):
        for pair in np.flatnonzero((part < 0) | (part >= pictures)):
            raise AgentError(f"labels: pair {pair}: got picture {part[pair]}; wanted 0 to {pictures - 1}")
    for pair in np.flatnonzero(first == second):
        raise AgentError(f"labels: pair {pair}: got picture {first[pair]} twice; wanted two pictures")
    low, high = np.minimum(first, second), np.maximum(first, second)
    larger = answers == (first < second)[:, None]  # whether the picture with the lower number has more
    order = np.lexsort((high, low))
    same = (low[order][1:] == low[order][:-1]) & (high[order][1:] == high[order][:-1])
    for where, k in np.argwhere(same[:, None] & (larger[order][1:] != larger[order][:-1])).tolist():
        one, two = sorted((int(order[where]), int(order[where + 1])))
        raise AgentError(
            f"labels: pairs {one} and {two} are of pictures {low[one]} and {high[one]} and contradict each other "
            f"in {names[k]}; wanted one answer a pair"
        )
    return labels


def _names(names: Sequence[str] | None, count: int) -> Sequence[str]:
    return [f"factor {k}" for k in range(count)] if names is None else names
