"""A one-shot Prisoner's Dilemma between networks, each of which observes how similar the other is to it.

Two policies play. Each observes how different the two are, with noise of its own, and a context x, and answers with a
vector. Cooperating and defecting are functions of the context, f_C and f_D, which have to be learnt. With s_i the
difference observed by seat i, and d the Euclidean distance, the loss of seat i is

    d(pi_i(s_i, x), f_D(x)) + gain * d(pi_other(s_other, x), f_C(x))

f_C and f_D are scaled so that their mean distance is 1. So mutual cooperation has mean loss 1, mutual defection
``gain``; a defector has loss 0 against a cooperator, who has gain + 1. The difference is one of behaviour:

    difference = E d(pi_0(y, x'), pi_1(y, x')),   s_i = difference + U[0, noise_scale]

over test contexts x' and test differences y from U[0, test_scale]; the noise is drawn for each seat and play.

Source: Oesterheld et al., "Similarity-based cooperative equilibrium", arXiv 2211.14468 (2023), its high-dimensional
one-shot Prisoner's Dilemma. The form is the paper's as we know it; its sizes, its f_C and f_D and its distribution
of contexts are not known to us. Ours: contexts from U[0, 1]^3, answers in R^3, and f(x) = tanh((2x - 1) W + b) V with
16 hidden units and normal weights.

Why it has its own interface and no Gymnasium id: it cannot be played by choosing an action in a step. What a seat
observes depends on both networks as functions, so seats hold the networks themselves. Nor are rewards enough: the
loss is differentiable in both networks, also through the difference, and without that gradient networks do not learn to
cooperate. :mod:`mlbits.envs.similarity_pd` is the same idea as an ordinary game, with policies reduced to one number.

A policy is any callable (difference [..., N], context [..., N, n]) -> [..., N, m], for example a torch module. The axes
before N belong to a population: S pairs play at once if draws and policies have an axis of size S.
before N are those of a population: S pairs play at once where draws and policies have an axis of S.

Example:
    >>> import torch
    >>> from mlbits.envs.policy_similarity import SimilarityGame
    >>> game = SimilarityGame(gain=5.0)
    >>> cooperator, defector = (lambda seen, x: game.cooperate(x)), (lambda seen, x: game.defect(x))
    >>> outcome = game.play((cooperator, defector), game.draw(1000, torch.Generator().manual_seed(0)))
    >>> [round(loss) for loss in outcome.loss.mean(0).tolist()]
    [6, 0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.envs.core.drawing import BLUE, GREY, INK, RED, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.settings import integer, number

Policy = Callable[[Tensor, Tensor], Tensor]
HIDDEN, NORMALISING = 16, 65_536  # hidden units of f_C and f_D; contexts over which their mean distance is computed
SHOWN, SHOWN_CONTEXTS = 61, 256  # differences in a picture, and contexts for each


class Draws(NamedTuple):
    """The random numbers of N plays.

    Attributes:
        context: context of each play [..., N, n].
        noise: noise of each play and seat [..., N, 2].
        test_context: contexts at which the policies are compared [..., N, n].
        test_difference: differences that they observe there [..., N].
    """

    context: Tensor
    noise: Tensor
    test_context: Tensor
    test_difference: Tensor


class Outcome(NamedTuple):
    """The results of N plays.

    Attributes:
        loss: loss of each seat [..., N, 2]; lower is better.
        seen: difference that each seat observes [..., N, 2].
        difference: difference between the two policies, without noise [...].
        cooperation: where each seat's answer lies between f_D (0) and f_C (1) [..., N, 2].
    """

    loss: Tensor
    seen: Tensor
    difference: Tensor
    cooperation: Tensor


class SimilarityGame:
    """The game between policies; see the module's docstring.

    Args:
        gain: cost of being defected against (G in the paper), above 1 up to 1000.
        context_size: size n of contexts, 1 to 1000.
        answer_size: size m of answers, 1 to 1000.
        noise_scale: each seat's noise is uniform on [0, noise_scale], 0 to 1000.
        test_scale: policies are compared at differences uniform on [0, test_scale], 0 to 1000.
        seed: seed of f_C and f_D, 0 or more.

    Raises:
        GameError: for a setting out of range.
    """

    def __init__(
        self,
        gain: float = 5.0,
        *,
        context_size: int = 3,
        answer_size: int = 3,
        noise_scale: float = 0.1,
        test_scale: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.gain = number("gain", gain, 1.0, 1000.0)
        if self.gain == 1:
            raise GameError("gain: got 1, where mutual cooperation has no benefit; wanted more than 1")
        self.context_size = integer("context_size", context_size, 1, 1000)
        self.answer_size = integer("answer_size", answer_size, 1, 1000)
        self.noise_scale = number("noise_scale", noise_scale, 0.0, 1000.0)
        self.test_scale = number("test_scale", test_scale, 0.0, 1000.0)
        self.seed = integer("seed", seed, 0, 2**63 - 1)
        generator = torch.Generator().manual_seed(self.seed)
        shapes = ((context_size, HIDDEN), (HIDDEN,), (HIDDEN, answer_size))
        self._maps = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2)]
        contexts = torch.rand(NORMALISING, context_size, generator=generator)
        scale = float(_distance(self.cooperate(contexts), self.defect(contexts)).mean())
        for _, _, last in self._maps:
            last /= scale

    def cooperate(self, context: Tensor) -> Tensor:
        """f_C [..., m] of contexts [..., n]."""
        return self._target(0, context)

    def defect(self, context: Tensor) -> Tensor:
        """f_D [..., m] of contexts [..., n]."""
        return self._target(1, context)

    def _target(self, which: int, context: Tensor) -> Tensor:
        first, bias, last = self._maps[which]
        return torch.tanh((2 * context - 1) @ first + bias) @ last

    def draw(self, plays: int, generator: torch.Generator | Sequence[torch.Generator]) -> Draws:
        """Draw the random numbers of N plays.

        Args:
            plays: N, at least 1.
            generator: the source; a list has one generator per member of a population, so that a member's draws do
                not depend on the other members.

        Returns:
            Draws, with a leading axis of members if there are several generators.

        Raises:
            GameError: for an invalid number of plays, or an empty list of generators.
        """
        integer("plays", plays, 1, 2**31)
        n = self.context_size
        width = 2 * n + 3
        if isinstance(generator, torch.Generator):
            numbers = torch.rand(plays, width, generator=generator)
        elif generator:
            numbers = torch.stack([torch.rand(plays, width, generator=one) for one in generator])
        else:
            raise GameError("generator: got an empty list; wanted a generator for each member")
        context, test_context, noise, test = numbers.split((n, n, 2, 1), -1)
        return Draws(context, self.noise_scale * noise, test_context, self.test_scale * test.squeeze(-1))

    def difference(self, policies: Sequence[Policy], draws: Draws) -> Tensor:
        """How different two policies are [...], from their answers to the test pairs; 0 for a policy and itself.

        Raises:
            GameError: if there are not two policies, or one does not match the game.
        """
        self._check_seats(policies)
        if policies[0] is policies[1]:
            return torch.zeros(draws.test_difference.shape[:-1])
        answers = [self._ask(policies, seat, draws.test_difference, draws.test_context) for seat in range(2)]
        return _distance(*answers).mean(-1)

    def play(self, policies: Sequence[Policy], draws: Draws, *, cut_gradient: bool = False) -> Outcome:
        """Let two policies play N times.

        Args:
            policies: policies of seat 0 and seat 1.
            draws: from :meth:`draw`.
            cut_gradient: treat the difference as a constant, so that no gradient flows through it.

        Raises:
            GameError: if there are not two policies, or one does not match the game: it cannot be called with a
                difference and a context, or its answers have a wrong shape or are not finite.
        """
        difference = self.difference(policies, draws)
        if cut_gradient:
            difference = difference.detach()
        seen = difference[..., None, None] + draws.noise
        answers = [self._ask(policies, seat, seen[..., seat], draws.context) for seat in range(2)]
        wanted = self.cooperate(draws.context), self.defect(draws.context)
        from_cooperating, from_defecting = (
            torch.stack([_distance(answer, target) for answer in answers], -1) for target in wanted
        )
        loss = from_defecting + self.gain * from_cooperating.flip(-1)
        with torch.no_grad():
            cooperation = _cooperation(from_cooperating, from_defecting)
        return Outcome(loss, seen, difference, cooperation)

    @torch.no_grad()
    def response(self, policy: Policy, seen: Tensor, context: Tensor) -> Tensor:
        """How much a policy cooperates at given differences: 1 is f_C, 0 is f_D; averaged over contexts.

        Args:
            policy: a policy without an axis of members.
            seen: differences [D].
            context: contexts [N, n].

        Returns:
            Cooperation from 0 to 1, [D].

        Raises:
            GameError: if the policy does not match the game.
        """
        at_seen, at = seen.repeat_interleave(len(context)), context.repeat(len(seen), 1)
        answer = self._ask([policy], 0, at_seen, at)
        cooperation = _cooperation(_distance(answer, self.cooperate(at)), _distance(answer, self.defect(at)))
        return cooperation.view(len(seen), len(context)).mean(1)

    def _check_seats(self, policies: Sequence[Policy]) -> None:
        if len(policies) != 2:
            raise GameError(f"policies: got {len(policies)}; wanted 2")

    def _ask(self, policies: Sequence[Policy], seat: int, seen: Tensor, context: Tensor) -> Tensor:
        """A seat's answers [..., N, m], checked."""
        name = f"policies[{seat}]"
        try:
            answer = policies[seat](seen, context)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            inputs = f"a difference {list(seen.shape)} and a context {list(context.shape)}"
            raise GameError(f"{name}: got {type(error).__name__} ({error}); wanted a network of {inputs}") from error
        wanted = [*context.shape[:-1], self.answer_size]
        if not isinstance(answer, Tensor) or list(answer.shape) != wanted:
            got = f"shape {list(answer.shape)}" if isinstance(answer, Tensor) else repr(answer)
            raise GameError(f"{name}: got answers of {got}; wanted a tensor {wanted}")
        if not bool(torch.isfinite(answer.detach()).all()):
            raise GameError(f"{name}: got answers that are not finite; wanted finite numbers")
        return answer

    def render(self, policies: Sequence[Policy]) -> NDArray[np.uint8]:
        """A picture [H, W, 3] of both response curves, and of the range of differences that the two observe.

        Args:
            policies: policies of seat 0 and seat 1, without an axis of members.

        Raises:
            GameError: as for :meth:`play`.
        """
        draws = self.draw(SHOWN_CONTEXTS, torch.Generator().manual_seed(0))
        with torch.no_grad():
            outcome = self.play(policies, draws)
        difference = float(outcome.difference)
        seen = torch.linspace(0, max(3 * self.noise_scale, 1.5 * (difference + self.noise_scale), 0.01), SHOWN)
        curves = [self.response(policy, seen, draws.context).tolist() for policy in policies]
        return _draw(seen.tolist(), curves, (difference, difference + self.noise_scale), outcome.loss.mean(0).tolist())


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distance over the last axis; its gradient at 0 is 0."""
    return torch.linalg.vector_norm(one - other, dim=-1)


def _cooperation(from_cooperating: Tensor, from_defecting: Tensor) -> Tensor:
    """Where an answer lies between f_D (0) and f_C (1)."""
    total = from_cooperating + from_defecting
    return torch.where(total > 0, from_defecting / total.clamp(min=1e-12), 0.5)


def _draw(
    seen: list[float], curves: list[list[float]], band: tuple[float, float], loss: list[float]
) -> NDArray[np.uint8]:
    """Plot cooperation over the observed difference, one line per seat."""
    left, right, top, bottom = 60, 540, 40, 250
    canvas = Canvas(560, 300)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x / seen[-1], bottom - (bottom - top) * y

    canvas.pen.rectangle([*at(band[0], 1), *at(band[1], 0)], fill=(232, 232, 222))
    for level in (0.0, 0.5, 1.0):
        canvas.pen.line([at(0, level), at(seen[-1], level)], fill=GREY, width=1)
        canvas.text(left - 8, at(0, level)[1], f"{level:g}", size=11, anchor="rm")
    for curve, colour in zip(curves, (BLUE, RED), strict=True):
        points: Any = [at(x, y) for x, y in zip(seen, curve, strict=True)]
        canvas.line(points, colour, 3)
    for x in (0.0, seen[-1] / 2, seen[-1]):
        canvas.text(at(x, 0)[0], bottom + 12, f"{x:.2g}", size=11)
    for seat, colour in enumerate((BLUE, RED)):
        canvas.text(left + 170 * seat, 20, f"seat {seat} loses {loss[seat]:.2f}", fill=colour, size=13, anchor="lm")
    words = f"cooperation over the observed difference; shaded: what the two observe, {band[0]:.3f} plus noise"
    canvas.text(left, bottom + 34, words, size=11, fill=INK, anchor="lm")
    return canvas.array()
