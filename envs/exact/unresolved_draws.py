"""Numbers that have been drawn but not looked at: what :mod:`mlbits.envs.exact.outcomes` runs rules on.

An :class:`Unknown` is a constant plus multiples of independent draws, each uniform on [0, 1), uniform on integers, or
standard normal, and each known to lie in a range that every answered question narrows. A question with several
possible answers is put to the :class:`Tape`, which gives one and remembers the others for the next run.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Literal, NoReturn

_NORMAL = NormalDist()


class Continuum(Exception):
    """A draw was asked for its very value, of which there are infinitely many."""


class TooMany(Exception):
    """A draw was asked for its very value, of which there are too many."""


class Tape:
    """The answers to a run's questions; each run gives the next combination of them.

    Args:
        limit: most answers that one question may have.

    Attributes:
        probability: of the answers given in this run so far.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._answers: list[list[int]] = []  # [the one given, number of possible ones] of each question in turn
        self.rewind()

    def rewind(self) -> bool:
        """Forget everything; always True, as there is a first run."""
        self._answers.clear()
        self._asked, self.probability = 0, 1.0
        return True

    def next(self) -> bool:
        """Go to the next combination; False where there is none left."""
        self._asked, self.probability = 0, 1.0
        while self._answers:
            self._answers[-1][0] += 1
            if self._answers[-1][0] < self._answers[-1][1]:
                return True
            self._answers.pop()
        return False

    def ask(self, count: int, share: Callable[[int], float]) -> int:
        """One of ``count`` answers, whose probabilities given all before are ``share``."""
        if count > self.limit:
            raise TooMany(f"draws one of {count:,}")
        if self._asked == len(self._answers):
            self._answers.append([0, count])
        answer = self._answers[self._asked][0]
        self._asked += 1
        self.probability *= share(answer)
        return answer

    def uniform(self) -> Unknown:
        """A draw from [0, 1)."""
        return Unknown(self, ((_Draw("uniform", 0.0, 1.0), 1),), 0)

    def integer(self, n: int) -> Any:
        """A draw from 0..n-1."""
        return Unknown(self, ((_Draw("integer", 0, n), 1),), 0) if n > 1 else 0

    def normal(self) -> Unknown:
        """A draw from N(0, 1)."""
        return Unknown(self, ((_Draw("normal", -math.inf, math.inf), 1),), 0)


class _Draw:
    """One draw, which lies in [low, high)."""

    __slots__ = ("high", "kind", "low")

    def __init__(self, kind: Literal["uniform", "integer", "normal"], low: float, high: float) -> None:
        self.kind, self.low, self.high = kind, low, high

    def share(self, low: float, high: float) -> float:
        """The probability of [low, high), given what is known."""
        if self.kind == "normal":
            return (_NORMAL.cdf(high) - _NORMAL.cdf(low)) / (_NORMAL.cdf(self.high) - _NORMAL.cdf(self.low))
        return (high - low) / (self.high - self.low)

    def mean(self) -> float:
        """Its mean, given what is known."""
        if self.kind == "normal":
            share = _NORMAL.cdf(self.high) - _NORMAL.cdf(self.low)
            return (_NORMAL.pdf(self.low) - _NORMAL.pdf(self.high)) / share
        return (self.low + self.high - (self.kind == "integer")) / 2

    def below(self, tape: Tape, bound: float) -> bool:
        """Whether it lies below a bound (for integers a whole one)."""
        if bound <= self.low:
            return False
        if bound >= self.high:
            return True
        share = self.share(self.low, bound)
        if not 0 < share < 1:  # in the far tails of a normal draw
            return share >= 1
        answer = tape.ask(2, lambda k: 1 - share if k else share)
        self.low, self.high = (bound, self.high) if answer else (self.low, bound)
        return answer == 0

    def settle(self, tape: Tape) -> int:
        """The integer that it is."""
        if self.kind != "integer":
            raise Continuum("asks for the very value of a draw from a continuum")
        first, count = int(self.low), int(self.high - self.low)
        value = first if count == 1 else first + tape.ask(count, lambda k: 1 / count)
        self.low, self.high = value, value + 1
        return value


class Unknown:
    """``shift`` + the sum of ``factor`` x draw over ``terms``; its draws are shared with other unknowns.

    Attributes:
        terms: pairs of a draw and its factor.
        shift: what is known of it.
    """

    __slots__ = ("shift", "tape", "terms")
    __array_ufunc__ = None  # NumPy's scalars leave arithmetic to this class
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tape: Tape, terms: tuple[tuple[_Draw, Any], ...], shift: Any) -> None:
        self.tape, self.terms, self.shift = tape, terms, shift

    @property
    def whole(self) -> bool:
        """Whether it is an integer whatever the draws are."""
        return isinstance(self.shift, int) and all(
            draw.kind == "integer" and isinstance(factor, int) for draw, factor in self.terms
        )

    def settled(self) -> Any:
        """The number that it is.

        Raises:
            Continuum: if it is drawn from a continuum.
        """
        value = self.shift
        for draw, factor in self.terms:
            value = value + factor * draw.settle(self.tape)
        return value

    def mean(self) -> float:
        """Its mean, given what is known of its draws."""
        return float(self.shift + sum(factor * draw.mean() for draw, factor in self.terms))

    # Arithmetic that keeps it open

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Unknown):
            return Unknown(self.tape, self.terms, self.shift + _number(other))
        factors: dict[int, tuple[_Draw, Any]] = {id(draw): (draw, factor) for draw, factor in self.terms}
        for draw, factor in other.terms:
            factors[id(draw)] = (draw, factors.get(id(draw), (draw, 0))[1] + factor)
        terms = tuple(term for term in factors.values() if term[1] != 0)
        shift = self.shift + other.shift
        return Unknown(self.tape, terms, shift) if terms else shift

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Unknown):
            small, large = (other, self) if other.whole else (self, other)
            return large * small.settled()
        factor = _number(other)
        if factor == 0:
            return self.shift * 0 * factor
        return Unknown(self.tape, tuple((draw, own * factor) for draw, own in self.terms), self.shift * factor)

    def __truediv__(self, other: Any) -> Any:
        divisor = _value(other)
        if divisor == 0 or not math.isfinite(divisor):
            return self.settled() / divisor
        terms = tuple((draw, factor / divisor) for draw, factor in self.terms)
        return Unknown(self.tape, terms, self.shift / divisor)

    def __sub__(self, other: Any) -> Any:
        return self + (-other)

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __neg__(self) -> Any:
        return self * -1

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return -self if self < 0 else self

    __radd__, __rmul__ = __add__, __mul__

    # Questions

    def __lt__(self, other: Any) -> bool:
        return self._compared(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._compared(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return not self._compared(operator.le, other)

    def __ge__(self, other: Any) -> bool:
        return not self._compared(operator.lt, other)

    def _compared(self, less: Callable[[Any, Any], bool], other: Any) -> bool:
        """Whether it is less than (or equal to) a number or another unknown."""
        if isinstance(other, Unknown):
            difference, other = self - other, 0
        else:
            difference, other = self, _number(other)
        if not isinstance(difference, Unknown):
            return bool(less(difference, other))
        draw, factor, shift = difference._single()
        if draw is None:
            return bool(less(shift, other))
        if draw.kind != "integer":
            return draw.below(self.tape, (other - shift) / factor) is (factor > 0)
        # The first integer at which the answer changes, found by asking the very question that the rule asks.
        first = less(shift + factor * draw.low, other)
        low, high = int(draw.low), int(draw.high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if less(shift + factor * middle, other) == first else (low, middle)
        return bool(draw.below(self.tape, high) == first)

    def _single(self) -> tuple[_Draw | None, Any, Any]:
        """(draw, factor, shift) with at most one draw left open; the integers among several are settled."""
        terms, shift = list(self.terms), self.shift
        while len(terms) > 1:
            place = next((k for k, (draw, _) in enumerate(terms) if draw.kind == "integer"), None)
            if place is None:
                raise Continuum("compares two draws from a continuum with each other")
            draw, factor = terms.pop(place)
            shift = shift + factor * draw.settle(self.tape)
        draw, factor = terms[0]
        if draw.kind == "integer" and draw.high - draw.low == 1:
            return None, 0, shift + factor * int(draw.low)
        return draw, factor, shift

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Unknown):
            difference = self - other
            return bool(difference == 0)
        if any(draw.kind != "integer" for draw, _ in self.terms):
            return False  # one number of a continuum has probability 0
        return bool(self.settled() == _number(other))

    def __ne__(self, other: object) -> bool:
        return not self.__eq__(other)

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __floor__(self) -> int:
        if all(draw.kind == "integer" for draw, _ in self.terms):
            return math.floor(self.settled())
        draw, factor, shift = self._single()
        if draw is None or draw.kind == "normal":
            raise Continuum("rounds a draw from N(0, 1), which has no bounds")
        ends = sorted((shift + factor * draw.low, shift + factor * draw.high))
        bottom = math.floor(ends[0])
        count = max(math.ceil(ends[1]) - bottom, 1)
        parts = []
        for k in range(min(count, self.tape.limit + 1)):
            edges = sorted((edge - shift) / factor for edge in (bottom + k, bottom + k + 1))
            parts.append((max(edges[0], draw.low), min(edges[1], draw.high)))
        parts = [part for part in parts if part[1] > part[0]]
        answer = self.tape.ask(len(parts), lambda k: draw.share(*parts[k]))
        draw.low, draw.high = parts[answer]
        return math.floor(shift + factor * (draw.low + draw.high) / 2)

    def __int__(self) -> int:
        return -math.floor(-self) if self < 0 and not self.whole else math.floor(self)

    def __index__(self) -> int:
        if not self.whole:
            raise TypeError("an index that is no integer")
        return int(self.settled())

    def __float__(self) -> float:
        return float(self.settled())

    # Arithmetic that needs the number itself

    def __floordiv__(self, other: Any) -> Any:
        return math.floor(self / other) if not self.whole else self.settled() // _value(other)

    def __mod__(self, other: Any) -> Any:
        return self.settled() % _value(other)

    def __and__(self, other: Any) -> Any:
        return self.settled() & _value(other)

    def __or__(self, other: Any) -> Any:
        return self.settled() | _value(other)

    def __xor__(self, other: Any) -> Any:
        return self.settled() ^ _value(other)

    def __lshift__(self, other: Any) -> Any:
        return self.settled() << _value(other)

    def __rshift__(self, other: Any) -> Any:
        return self.settled() >> _value(other)

    def __pow__(self, other: Any) -> Any:
        return self.settled() ** _value(other)

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.settled()

    def __rfloordiv__(self, other: Any) -> Any:
        return other // self.settled()

    def __rmod__(self, other: Any) -> Any:
        return other % self.settled()

    def __rlshift__(self, other: Any) -> Any:
        return other << self.settled()

    def __rrshift__(self, other: Any) -> Any:
        return other >> self.settled()

    def __rpow__(self, other: Any) -> Any:
        return other ** self.settled()

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise TypeError("a draw that is not known cannot be copied")


def _number(value: Any) -> Any:
    """A number as Python has it."""
    return value.item() if hasattr(value, "item") else value


def _value(value: Any) -> Any:
    return value.settled() if isinstance(value, Unknown) else _number(value)


def mean_of(value: Any) -> float:
    """The mean of a number, unknown or not."""
    return value.mean() if isinstance(value, Unknown) else float(value)
