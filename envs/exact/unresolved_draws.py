"""Symbolic random draws, resolved only when a rule branches on them; :mod:`mlbits.envs.exact.outcomes` runs on these.

An :class:`Unknown` is a constant plus multiples of independent draws, each uniform on [0, 1), uniform on integers, or
standard normal, and each known to lie in a range that every answered question narrows. A question with several
possible answers is put to the :class:`Tape`, which gives one and keeps the others for later runs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Literal, NoReturn

_NORMAL = NormalDist()


class Continuum(Exception):
    """The exact value of a continuous draw was needed, which has infinitely many possible values."""


class TooMany(Exception):
    """The exact value of a draw was needed, which has too many possible values."""


class Tape:
    """The answers to the questions of a run; each run gets the next combination of answers.

    Args:
        limit: most possible answers of one question.

    Attributes:
        probability: probability of the answers given in this run so far.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._answers: list[list[int]] = []  # [given answer, number of possible answers] of each question in order
        self.rewind()

    def rewind(self) -> bool:
        """Clear all answers; always True, because there is a first run."""
        self._answers.clear()
        self._asked, self.probability = 0, 1.0
        return True

    def next(self) -> bool:
        """Go to the next combination of answers; False if there is none left."""
        self._asked, self.probability = 0, 1.0
        while self._answers:
            self._answers[-1][0] += 1
            if self._answers[-1][0] < self._answers[-1][1]:
                return True
            self._answers.pop()
        return False

    def ask(self, count: int, probability: Callable[[int], float]) -> int:
        """One of ``count`` answers; ``probability`` gives each answer's probability given all earlier answers."""
        if count > self.limit:
            raise TooMany(f"draws one of {count:,}")
        if self._asked == len(self._answers):
            self._answers.append([0, count])
        answer = self._answers[self._asked][0]
        self._asked += 1
        self.probability *= probability(answer)
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
    """One draw, known to lie in [low, high)."""

    __slots__ = ("high", "kind", "low")

    def __init__(self, kind: Literal["uniform", "integer", "normal"], low: float, high: float) -> None:
        self.kind, self.low, self.high = kind, low, high

    def probability(self, low: float, high: float) -> float:
        """The probability of [low, high), given the known range."""
        if self.kind == "normal":
            return (_NORMAL.cdf(high) - _NORMAL.cdf(low)) / (_NORMAL.cdf(self.high) - _NORMAL.cdf(self.low))
        return (high - low) / (self.high - self.low)

    def mean(self) -> float:
        """Its mean, given the known range."""
        if self.kind == "normal":
            mass = _NORMAL.cdf(self.high) - _NORMAL.cdf(self.low)
            return (_NORMAL.pdf(self.low) - _NORMAL.pdf(self.high)) / mass
        return (self.low + self.high - (self.kind == "integer")) / 2

    def below(self, tape: Tape, bound: float) -> bool:
        """Whether it lies below a bound (for an integer draw, an integer bound)."""
        if bound <= self.low:
            return False
        if bound >= self.high:
            return True
        probability = self.probability(self.low, bound)
        if not 0 < probability < 1:  # in the far tails of a normal draw
            return probability >= 1
        answer = tape.ask(2, lambda k: 1 - probability if k else probability)
        self.low, self.high = (bound, self.high) if answer else (self.low, bound)
        return answer == 0

    def resolve(self, tape: Tape) -> int:
        """The value of an integer draw."""
        if self.kind != "integer":
            raise Continuum("needs the exact value of a draw from a continuum")
        first, count = int(self.low), int(self.high - self.low)
        value = first if count == 1 else first + tape.ask(count, lambda k: 1 / count)
        self.low, self.high = value, value + 1
        return value


class Unknown:
    """``shift`` + the sum of ``factor`` x draw over ``terms``; unknowns may share draws.

    Attributes:
        terms: pairs of a draw and its factor.
        shift: the known constant.
    """

    __slots__ = ("shift", "tape", "terms")
    __array_ufunc__ = None  # NumPy's scalars leave arithmetic to this class
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tape: Tape, terms: tuple[tuple[_Draw, Any], ...], shift: Any) -> None:
        self.tape, self.terms, self.shift = tape, terms, shift

    @property
    def whole(self) -> bool:
        """Whether it is an integer for every value of the draws."""
        return isinstance(self.shift, int) and all(
            draw.kind == "integer" and isinstance(factor, int) for draw, factor in self.terms
        )

    def resolve(self) -> Any:
        """Its value, with all draws resolved.

        Raises:
            Continuum: if it depends on a continuous draw.
        """
        value = self.shift
        for draw, factor in self.terms:
            value = value + factor * draw.resolve(self.tape)
        return value

    def mean(self) -> float:
        """Its mean, given the known ranges of its draws."""
        return float(self.shift + sum(factor * draw.mean() for draw, factor in self.terms))

    # Arithmetic that leaves draws unresolved

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
            return large * small.resolve()
        factor = _number(other)
        if factor == 0:
            return self.shift * 0 * factor
        return Unknown(self.tape, tuple((draw, own * factor) for draw, own in self.terms), self.shift * factor)

    def __truediv__(self, other: Any) -> Any:
        divisor = _value(other)
        if divisor == 0 or not math.isfinite(divisor):
            return self.resolve() / divisor
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

    # Questions, which resolve draws

    def __lt__(self, other: Any) -> bool:
        return self._compared(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._compared(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return not self._compared(operator.le, other)

    def __ge__(self, other: Any) -> bool:
        return not self._compared(operator.lt, other)

    def _compared(self, less: Callable[[Any, Any], bool], other: Any) -> bool:
        """Whether it is less than (or equal to) a number or another Unknown."""
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
        # The first integer at which the answer changes, found with the comparison that the rule makes.
        first = less(shift + factor * draw.low, other)
        low, high = int(draw.low), int(draw.high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if less(shift + factor * middle, other) == first else (low, middle)
        return bool(draw.below(self.tape, high) == first)

    def _single(self) -> tuple[_Draw | None, Any, Any]:
        """(draw, factor, shift) with at most one unresolved draw; if there are several, integer draws are resolved."""
        terms, shift = list(self.terms), self.shift
        while len(terms) > 1:
            place = next((k for k, (draw, _) in enumerate(terms) if draw.kind == "integer"), None)
            if place is None:
                raise Continuum("compares two draws from a continuum with each other")
            draw, factor = terms.pop(place)
            shift = shift + factor * draw.resolve(self.tape)
        draw, factor = terms[0]
        if draw.kind == "integer" and draw.high - draw.low == 1:
            return None, 0, shift + factor * int(draw.low)
        return draw, factor, shift

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Unknown):
            difference = self - other
            return bool(difference == 0)
        if any(draw.kind != "integer" for draw, _ in self.terms):
            return False  # a single value of a continuous draw has probability 0
        return bool(self.resolve() == _number(other))

    def __ne__(self, other: object) -> bool:
        return not self.__eq__(other)

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __floor__(self) -> int:
        if all(draw.kind == "integer" for draw, _ in self.terms):
            return math.floor(self.resolve())
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
        answer = self.tape.ask(len(parts), lambda k: draw.probability(*parts[k]))
        draw.low, draw.high = parts[answer]
        return math.floor(shift + factor * (draw.low + draw.high) / 2)

    def __int__(self) -> int:
        return -math.floor(-self) if self < 0 and not self.whole else math.floor(self)

    def __index__(self) -> int:
        if not self.whole:
            raise TypeError("an index that is not an integer")
        return int(self.resolve())

    def __float__(self) -> float:
        return float(self.resolve())

    # Arithmetic that needs the value itself

    def __floordiv__(self, other: Any) -> Any:
        return math.floor(self / other) if not self.whole else self.resolve() // _value(other)

    def __mod__(self, other: Any) -> Any:
        return self.resolve() % _value(other)

    def __and__(self, other: Any) -> Any:
        return self.resolve() & _value(other)

    def __or__(self, other: Any) -> Any:
        return self.resolve() | _value(other)

    def __xor__(self, other: Any) -> Any:
        return self.resolve() ^ _value(other)

    def __lshift__(self, other: Any) -> Any:
        return self.resolve() << _value(other)

    def __rshift__(self, other: Any) -> Any:
        return self.resolve() >> _value(other)

    def __pow__(self, other: Any) -> Any:
        return self.resolve() ** _value(other)

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.resolve()

    def __rfloordiv__(self, other: Any) -> Any:
        return other // self.resolve()

    def __rmod__(self, other: Any) -> Any:
        return other % self.resolve()

    def __rlshift__(self, other: Any) -> Any:
        return other << self.resolve()

    def __rrshift__(self, other: Any) -> Any:
        return other >> self.resolve()

    def __rpow__(self, other: Any) -> Any:
        return other ** self.resolve()

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise TypeError("an unresolved draw cannot be copied")


def _number(value: Any) -> Any:
    """A number as a Python scalar."""
    return value.item() if hasattr(value, "item") else value


def _value(value: Any) -> Any:
    return value.resolve() if isinstance(value, Unknown) else _number(value)


def mean_of(value: Any) -> float:
    """The mean of a number, unknown or not."""
    return value.mean() if isinstance(value, Unknown) else float(value)
