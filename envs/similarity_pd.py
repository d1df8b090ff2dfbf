"""SimilarityPD: a Prisoner's Dilemma in which each player observes how similar the other is to it.

Description:
    The threshold meta-game of similarity-based cooperation. Each seat i chooses a threshold t_i. The two are compared:
    seat i observes the difference |t_0 - t_1| with noise of its own, cooperates if the observed value is at most t_i,
    and defects otherwise. In the Prisoner's Dilemma, cooperating gives ``gain`` to the other and defecting gives 1 to
    oneself.

    | | other cooperates | other defects |
    |---|---|---|
    | cooperate | gain | 0 |
    | defect | gain + 1 | 1 |

    A player that lowers its threshold to defect more becomes less similar, and meets more defection. With uniform noise
    and a gain of 2 or more, every t_0 = t_1 = t in (0, noise_scale] is an equilibrium, in which both cooperate with
    probability t / noise_scale, however large the noise; with a smaller gain only defection is one. With Gaussian noise
    the best equilibrium is partial: its probability of cooperating is 0 for a gain below 2, 0.955 at 3, 0.993 at 5,
    for any noise scale. That all players always defect is an equilibrium too. :func:`expected_payoffs` gives the
    payoffs in closed form.

    Source: Oesterheld et al., "Similarity-based cooperative equilibrium", arXiv 2211.14468 (2023).

Actions:
    Box [1]: the threshold, from -limit to limit.

Observations:
    Discrete(1): always 0, as nothing is observed before choosing. The game is the same from both seats.

Rewards:
    As in the table, for the actions that result from the thresholds and the noise.

Start:
    No thresholds chosen.

End:
    Termination after one step.

Version history:
    v0: first version.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from mlbits.envs.core.drawing import BLUE, GREEN, GREY, INK, RED, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import random_bits, uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import choice, number

Noise = Literal["uniform", "gaussian"]
NOISES = ("uniform", "gaussian")
MIN_SCALE, MAX_SCALE = 1e-6, 1e6
LIMIT = 4.0  # default largest threshold, in units of the noise scale
_HALF, _LOW, _UNIT = np.uint64(32), np.uint64(2**32 - 1), 2.0**-32
_TWO_PI = 2.0 * math.pi


@rule
def reset(state: Any, params: Any) -> None:
    """Clear thresholds, observed differences and actions."""
    for seat in range(2):
        state.threshold[seat] = 0.0
        state.seen[seat] = 0.0
        state.cooperates[seat] = -1


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Compare the thresholds, add noise, and play the dilemma."""
    mine, theirs = actions[0, 0], actions[1, 0]
    difference = abs(mine - theirs)
    if params.gaussian != 0:  # Box-Muller gives two independent numbers
        radius = math.sqrt(-2.0 * math.log(1.0 - uniform(state)))
        angle = _TWO_PI * uniform(state)
        noise, other_noise = radius * math.cos(angle), radius * math.sin(angle)
    else:  # the halves of one draw: 32 bits each, more than float32 resolves
        bits = random_bits(state)
        noise = np.float64(bits >> _HALF) * _UNIT
        other_noise = np.float64(bits & _LOW) * _UNIT
    seen = np.float32(difference + params.noise_scale * noise)
    other_seen = np.float32(difference + params.noise_scale * other_noise)
    # Arithmetic instead of branches, which would be unpredictable.
    own, other = np.int32(seen <= mine), np.int32(other_seen <= theirs)
    state.threshold[0], state.threshold[1] = mine, theirs
    state.seen[0], state.seen[1] = seen, other_seen
    state.cooperates[0], state.cooperates[1] = own, other
    rewards[0] = params.gain * other + (1 - own)
    rewards[1] = params.gain * own + (1 - other)
    return True, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Observe nothing."""
    out[0] = 0


def similarity_pd(
    gain: float = 5.0,
    *,
    noise: Noise = "uniform",
    noise_scale: float = 1.0,
    limit: float | None = None,
) -> Game:
    """A threshold meta-game.

    Args:
        gain: what cooperating gives to the other (G in the paper), above 1 up to 1000.
        noise: "uniform" on [0, noise_scale], or "gaussian" with mean 0.
        noise_scale: width of the uniform noise, or standard deviation of the Gaussian, 1e-6 to 1e6.
        limit: thresholds lie from -limit to limit; None means four times the noise scale.

    Raises:
        GameError: for a setting out of range.
    """
    gaussian, gain, scale = _checked(gain, noise, noise_scale)
    if limit is not None and number("limit", limit, 0.0, 1e9) == 0:
        raise GameError("limit: got 0; wanted a number above 0")
    params = make_params(
        [("gain", "f4"), ("noise_scale", "f4"), ("gaussian", "u1"), ("limit", "f4")],
        {"gain": gain, "noise_scale": scale, "gaussian": gaussian, "limit": limit or LIMIT * scale},
    )
    bound = float(params["limit"][0])
    return Game(
        name="SimilarityPD",
        seats=2,
        state_fields=[("threshold", "f4", (2,)), ("seen", "f4", (2,)), ("cooperates", "i4", (2,))],
        state_ranges={"cooperates": (-1, 1)},
        params=params,
        observation_space=spaces.Discrete(1),
        action_space=spaces.Box(-bound, bound, (1,), np.float32),
        reset=reset,
        step=step,
        observe=observe,
        text=_text,
        draw=_draw,
    )


def _checked(gain: Any, noise: Any, noise_scale: Any) -> tuple[bool, float, float]:
    """Check the settings; return whether the noise is Gaussian, the gain, and the noise scale."""
    gaussian = choice("noise", noise, NOISES) == "gaussian"
    if number("gain", gain, 1.0, 1000.0) == 1:
        raise GameError("gain: got 1, where cooperating has no benefit; wanted more than 1")
    return gaussian, float(gain), number("noise_scale", noise_scale, MIN_SCALE, MAX_SCALE)


def cooperation_probabilities(
    thresholds: ArrayLike, *, noise: Noise = "uniform", noise_scale: float = 1.0
) -> NDArray[np.float64]:
    """Each seat's probability of cooperating: that its noise is at most t_i - |t_0 - t_1|.

    Args:
        thresholds: [..., 2], any finite numbers.
        noise: "uniform" or "gaussian".
        noise_scale: see :func:`similarity_pd`.

    Returns:
        float64 [..., 2].

    Raises:
        GameError: for thresholds that are not finite numbers or not pairs, or a setting out of range.
    """
    gaussian, _, scale = _checked(2.0, noise, noise_scale)
    try:
        pairs = np.asarray(thresholds, np.float64)
    except (TypeError, ValueError):
        raise GameError(f"thresholds: got {thresholds!r}; wanted numbers [..., 2]") from None
    if pairs.ndim == 0 or pairs.shape[-1] != 2:
        raise GameError(f"thresholds: got shape {pairs.shape}; wanted [..., 2]")
    if not np.isfinite(pairs).all():
        raise GameError(f"thresholds: got {pairs[~np.isfinite(pairs)][0]}; wanted finite numbers")
    margin = (pairs - np.abs(pairs[..., :1] - pairs[..., 1:])) / scale
    if gaussian:
        return torch.special.erfc(torch.from_numpy(-margin / math.sqrt(2))).numpy() / 2
    return np.clip(margin, 0.0, 1.0)


def expected_payoffs(
    thresholds: ArrayLike, gain: float = 5.0, *, noise: Noise = "uniform", noise_scale: float = 1.0
) -> NDArray[np.float64]:
    """Each seat's mean payoff in closed form: gain p_other + 1 - p_own, where p is the probability of cooperating.

    Args:
        thresholds: [..., 2].
        gain: see :func:`similarity_pd`.
        noise: "uniform" or "gaussian".
        noise_scale: see :func:`similarity_pd`.

    Returns:
        float64 [..., 2].

    Raises:
        GameError: as for :func:`cooperation_probabilities`, and for a gain out of range.
    """
    _, gain, _ = _checked(gain, noise, noise_scale)
    probability = cooperation_probabilities(thresholds, noise=noise, noise_scale=noise_scale)
    return gain * probability[..., ::-1] + 1 - probability


def _played(state: Any, seat: int) -> str:
    return "cooperates" if state.cooperates[seat] == 1 else "defects"


def _paid(state: Any, params: Any, seat: int) -> float:
    return float(params.gain) * int(state.cooperates[1 - seat] == 1) + int(state.cooperates[seat] == 0)


def _text(state: Any, params: Any) -> str:
    """One line per seat."""
    if state.cooperates[0] < 0:
        return f"gain {float(params.gain):g}, no thresholds yet\n"
    lines = [
        f"seat {seat}: threshold {float(state.threshold[seat]):.3f}, sees {float(state.seen[seat]):.3f}, "
        f"{_played(state, seat)}, paid {_paid(state, params, seat):g}"
        for seat in range(2)
    ]
    return "\n".join(lines) + "\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """One line per seat: a bar up to its threshold, where it cooperates, and a dot at the difference it observed."""
    width, left, right = 560, 90, 530
    canvas = Canvas(width, 210)
    reach = 2 * float(params.limit) + float(params.noise_scale)  # the largest difference plus noise
    middle = (left + right) / 2

    def at(value: float) -> float:
        return middle + (right - left) / 2 * max(-1.0, min(1.0, value / reach))

    for seat in range(2):
        y = 60 + 80 * seat
        canvas.text(12, y, f"seat {seat}", fill=(BLUE, RED)[seat], anchor="lm")
        canvas.pen.line([left, y, right, y], fill=GREY, width=2)
        canvas.pen.line([middle, y - 5, middle, y + 5], fill=GREY, width=2)
        canvas.text(middle, y + 17, "0", size=12)
        if state.cooperates[0] >= 0:
            end, dot = at(float(state.threshold[seat])), at(float(state.seen[seat]))
            canvas.pen.line([left, y, end, y], fill=GREEN, width=5)
            canvas.pen.line([end, y - 12, end, y + 12], fill=INK, width=3)
            canvas.disc(dot, y, 6, (BLUE, RED)[seat], outline=INK)
            words = f"{_played(state, seat)}, paid {_paid(state, params, seat):g}"
            canvas.text(left, y - 24, words, size=13, anchor="lm")
    canvas.text(12, 190, "green: where a seat cooperates; dot: the difference it observes", size=13, anchor="lm")
    canvas.text(12, 18, f"gain {float(params.gain):g}", anchor="lm")
    return canvas.array()
