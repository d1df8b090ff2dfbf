"""Bandit: k arms with random rewards; find the arm with the best mean. The smallest learning problem of the suite.

Description:
    In every step an arm is pulled and pays a random reward. Gaussian arms pay N(mean, reward_std),
    Bernoulli arms pay 1 with a probability equal to their mean, else 0. The means are either one fixed instance
    (drawn from ``instance_seed``, or given), so that an agent learns over episodes which arm is best;
    or, with ``means="random"``, are drawn again in every episode and have to be found out within it.

    Source: the testbed of Sutton and Barto, "Reinforcement Learning" (2018), section 2.3: ten Gaussian arms
    whose means are drawn from N(0, 1). Bernoulli means are drawn from U(0, 1). ``means="random"`` is the
    testbed itself, one bandit problem per episode (the book's runs have 1,000 pulls, the default here is 100).

Actions:
    Discrete(k): the arm to pull.

Observations (setting ``observation``):

    | value | space | meaning |
    |---|---|---|
    | "none" | Discrete(1) | always 0; sufficient if the means are fixed |
    | "history" | Box float32 [k + 2] | what an agent with memory needs to adapt within an episode |

    Entries of "history":

    | index | meaning | low | high |
    |---|---|---|---|
    | 0..k-1 | 1 at the arm pulled last, all 0 before the first pull | 0 | 1 |
    | k | reward of the last pull, 0 before the first | -inf (Bernoulli: 0) | inf (Bernoulli: 1) |
    | k + 1 | elapsed fraction of the episode | 0 | 1 |

Rewards:
    The reward of the pulled arm. In the default instance the best arm pays 1.51 on average, 151 per episode, and
    random play 6 per episode.

Start:
    No pulls. With ``means="random"`` the means are drawn.

End:
    Truncation after ``horizon`` pulls. It never terminates, as a bandit has no terminal state.

Version history:
    v0: first version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GREEN, GREY, GRID, RED, YELLOW, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import normal, uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import capacity, choice, integer, number, numbers

DEFAULT_ARMS, MAX_ARMS = 10, 1000
_MAX_HORIZON = 10**9


@rule(inline=False)
def reset(state: Any, params: Any) -> None:
    """Clear the last pull; take the fixed means, or draw new ones."""
    state.arm = -1
    state.paid = 0.0
    for arm in range(params.arms):
        if params.redrawn == 0:
            state.means[arm] = params.means[arm]
        elif params.bernoulli != 0:
            state.means[arm] = uniform(state)
        else:
            state.means[arm] = normal(state)


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Pull an arm."""
    arm = actions[0]
    mean = state.means[arm]
    if params.bernoulli != 0:
        state.paid = 1.0 if uniform(state) < mean else 0.0
    else:
        state.paid = mean + params.reward_std * normal(state)
    state.arm = arm
    rewards[0] = state.paid
    return False, False


@rule
def observe_none(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Observe nothing."""
    out[0] = 0


@rule
def observe_history(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The last arm as one-hot, its reward, and the elapsed fraction of the episode."""
    for arm in range(params.arms):
        out[arm] = 1.0 if state.arm == arm else 0.0
    out[params.arms] = state.paid
    out[params.arms + 1] = min(1.0, state.elapsed / params.horizon)  # a door may extend an episode


_OBSERVE = {"none": observe_none, "history": observe_history}


def bandit(
    arms: int | None = None,
    *,
    kind: Literal["gaussian", "bernoulli"] = "gaussian",
    means: Literal["fixed", "random"] | Sequence[float] = "fixed",
    instance_seed: int = 0,
    reward_std: float = 1.0,
    observation: Literal["none", "history"] = "none",
    horizon: int = 100,
) -> Game:
    """A bandit game.

    Args:
        arms: number of arms k, 1 to 1000; None means the length of ``means`` if that is a list, else 10.
        kind: "gaussian" or "bernoulli".
        means: the arms' means as a list (0..1 for Bernoulli arms); "fixed" draws them once from
            ``instance_seed``; "random" draws new ones in every episode.
        instance_seed: seed of the fixed means; copies of one batch may differ in it.
        reward_std: standard deviation of a Gaussian arm's reward; Bernoulli arms do not use it.
        observation: "none" or "history".
        horizon: pulls per episode.

    Raises:
        GameError: for a setting out of range, or a list of means of the wrong length.
    """
    bernoulli = choice("kind", kind, ("gaussian", "bernoulli")) == "bernoulli"
    choice("observation", observation, _OBSERVE)
    horizon = integer("horizon", horizon, 1, _MAX_HORIZON)
    instance_seed = integer("instance_seed", instance_seed, 0, 2**63 - 1)
    reward_std = number("reward_std", reward_std, 0.0, 1e6)
    table = _means(arms, means, bernoulli, instance_seed)
    arms, room = len(table), capacity(len(table))
    redrawn = isinstance(means, str) and means == "random"
    params = make_params(
        [
            ("arms", "i4"),
            ("bernoulli", "u1"),
            ("redrawn", "u1"),
            ("reward_std", "f4"),
            ("means", "f4", (room,)),
        ],
        {"arms": arms, "bernoulli": bernoulli, "redrawn": redrawn, "reward_std": reward_std, "means": table},
        horizon,
    )
    return Game(
        name="Bandit",
        state_fields=[("arm", "i4"), ("paid", "f4"), ("means", "f4", (room,))],
        state_ranges={"arm": (-1, arms - 1)},
        params=params,
        observation_space=_observation_space(observation, arms, bernoulli),
        action_space=spaces.Discrete(arms),
        reset=reset,
        step=step,
        observe=_OBSERVE[observation],
        text=_text,
        draw=_draw,
        reveals=True,
        layout={} if redrawn else {"means": table},
    )


def _means(arms: Any, means: Any, bernoulli: bool, instance_seed: int) -> NDArray[np.float64]:
    """The means, float64 [k], given or drawn."""
    if arms is not None:
        arms = integer("arms", arms, 1, MAX_ARMS)
    if isinstance(means, str):
        choice("means", means, ("fixed", "random"))
        return draw_means(arms or DEFAULT_ARMS, bernoulli, instance_seed)
    table = numbers("means", means, 0.0 if bernoulli else -1e6, 1.0 if bernoulli else 1e6)
    if len(table) > MAX_ARMS or arms not in (None, len(table)):
        wanted = arms or f"at most {MAX_ARMS}"
        raise GameError(f"means: got {len(table)} means; wanted {wanted}, one per arm")
    return table


def draw_means(arms: int, bernoulli: bool, instance_seed: int) -> NDArray[np.float64]:
    """The means of a fixed instance: U(0, 1) for Bernoulli arms, N(0, 1) for Gaussian ones, [arms]."""
    # Only `random` of NumPy's generator is used: its stream has never changed between versions.
    uniforms = np.random.default_rng(instance_seed).random(arms)
    return uniforms if bernoulli else np.array([NormalDist().inv_cdf(max(u, 1e-12)) for u in uniforms])


def _observation_space(observation: str, arms: int, bernoulli: bool) -> Any:
    if observation == "none":
        return spaces.Discrete(1)
    low, high = np.zeros(arms + 2, np.float32), np.ones(arms + 2, np.float32)
    if not bernoulli:
        low[arms], high[arms] = -np.inf, np.inf
    return spaces.Box(low, high, dtype=np.float32)


def _text(state: Any, params: Any) -> str:
    lines = [f"pull {int(state.elapsed)} of {int(params.horizon)}"]
    for arm, mean in enumerate(state.means[: int(params.arms)]):
        pulled = f"  <- paid {float(state.paid):.2f}" if arm == state.arm else ""
        lines.append(f"arm {arm:3}  mean {float(mean):6.2f}{pulled}")
    return "\n".join(lines) + "\n"


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough * 0.999)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """One bar per arm from zero to its mean, the best in green, and a dot for the reward of the last pull."""
    arms = int(params.arms)
    means = state.means[:arms]
    slot = max(6, min(56, 1200 // arms))
    left, top, height = 54, 38, 240
    width = max(left + slot * arms + 12, 470)
    canvas = Canvas(width, top + height + 76)
    spread = 0.0 if params.bernoulli else 2.0 * float(params.reward_std)
    low, high = min(0.0, float(means.min()) - spread), max(0.0, float(means.max()) + spread)
    if params.bernoulli:
        low, high = 0.0, 1.0
    scale = height / ((high - low) or 1.0)

    def level(value: float) -> float:
        return top + (high - min(max(value, low), high)) * scale

    for tick in ticks(low, high):
        canvas.pen.line([left, level(tick), width - 8, level(tick)], fill=GRID)
        canvas.text(left - 8, level(tick), f"{tick:g}", size=12, fill=GREY, anchor="rm")
    below = top + height
    for row, word in ((18, "arm"), (36, "mean")) if slot >= 16 else ():
        canvas.text(left - 8, below + row, word, size=12, fill=GREY, anchor="rm")
    best = float(means.max())
    for arm in range(arms):
        x, mean = left + arm * slot, float(means[arm])
        ends = sorted((level(0.0), level(mean)))
        gap = slot * 0.18
        colour = GREEN if mean == best else BLUE
        canvas.pen.rectangle([x + gap, ends[0], x + slot - gap, ends[1]], fill=colour)
        if slot >= 16:
            canvas.text(x + slot / 2, below + 18, str(arm), size=12)
        if slot >= 34:
            canvas.text(x + slot / 2, below + 36, f"{mean:.2f}", size=12)
    canvas.pen.line([left, level(0.0), width - 8, level(0.0)], fill=GREY, width=2)
    title = f"pull {int(state.elapsed)} of {int(params.horizon)}"
    if state.arm >= 0:
        middle, y = left + (int(state.arm) + 0.5) * slot, level(float(state.paid))
        canvas.disc(middle, y, max(3.0, min(7.0, slot * 0.2)), YELLOW, outline=RED, width=2)
        title += f":  arm {int(state.arm)} paid {float(state.paid):.2f}"
    canvas.text(left, 14, title, size=14, anchor="lm")
    note = "bars: the arms' means, best in green; dot: reward of the last pull"
    canvas.text(12, below + 62, note, size=13, anchor="lm")
    return canvas.array()
