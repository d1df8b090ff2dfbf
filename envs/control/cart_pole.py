"""CartPole: balance a pole on a cart by pushing the cart left or right.

Description:
    The system of Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve difficult learning control
    problems" (1983). The dynamics are those of Gymnasium's ``CartPole-v1``, in float64, step for step; sine and cosine
    are accurate to the second-to-last bit, so whole episodes agree to better than 1e-9.

Actions:
    Discrete(2): 0 pushes left, 1 pushes right, with 10 N.

Observations:
    Box float32 [4]:

    | entry | meaning | bounds |
    |---|---|---|
    | 0 | cart position, m | -4.8 to 4.8 (the episode ends beyond 2.4) |
    | 1 | cart velocity, m/s | unbounded |
    | 2 | pole angle, rad | -0.419 to 0.419 (the episode ends beyond 0.2095, 12 degrees) |
    | 3 | pole angular velocity, rad/s | unbounded |

    With ``velocities=False`` Box float32 [2], entries 0 and 2 alone: how the pole moves shows only over time.

    With ``observation="pixels"`` a picture, Box(0, 255, [size, size], uint8), of a square 5.2 m wide: the cart in grey
    and the pole in white, twice as long as it is, so that small pictures show its angle. ``frame_stack=2`` shows
    how they move.

Rewards:
    1 for every step, the last included. With ``sutton_barto_reward``, 0, and -1 for the step that ends the episode.

Start:
    All four entries uniform on [-0.05, 0.05].

End:
    Termination when the cart or the pole leaves its range. Truncation after ``horizon`` steps (500).

Version history:
    v0: first version.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BROWN, GREY, INK, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.pixels import box, byte, picture_space, rod
from mlbits.envs.core.random import uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import choice, flag

GRAVITY = 9.8  # m/s^2
MASS_POLE = 0.1  # kg
TOTAL_MASS = MASS_POLE + 1.0  # kg, including the cart
HALF_LENGTH = 0.5  # m, from the hinge to the pole's centre
POLE_MASS_LENGTH = MASS_POLE * HALF_LENGTH
FORCE = 10.0  # N
TAU = 0.02  # s per step
X_LIMIT = 2.4  # m
ANGLE_LIMIT = 12 * 2 * math.pi / 360  # rad
START_RANGE = 0.05
VIEW, VIEW_TOP = 5.2, 3.6  # m: side of the pictures, and the height of their top above the hinge
CART_HALF, CART_HEIGHT, CART_GREY = 0.4, 0.3, 0.5  # m, and its brightness, where the pole has 1
POLE_SHOWN, POLE_HALF = 2.0, 0.1  # m: the pole's length and half its thickness in the pictures


@rule
def _reset(state: Any, params: Any) -> None:
    state.x = START_RANGE * (2.0 * uniform(state) - 1.0)
    state.x_dot = START_RANGE * (2.0 * uniform(state) - 1.0)
    state.theta = START_RANGE * (2.0 * uniform(state) - 1.0)
    state.theta_dot = START_RANGE * (2.0 * uniform(state) - 1.0)


@rule
def _cos_sin(theta: Any) -> Any:
    """Cosine and sine in float64, by Taylor series at usual pole angles (a library call is half of a step's cost)."""
    if abs(theta) > 0.4:
        return math.cos(theta), math.sin(theta)
    # Up to theta^15 and theta^16: the first omitted term is below 1e-20 at 0.4.
    q = theta * theta
    cos = q * (1 / 479001600 + q * (-1 / 87178291200 + q / 20922789888000))
    cos = 1 + q * (-1 / 2 + q * (1 / 24 + q * (-1 / 720 + q * (1 / 40320 + q * (-1 / 3628800 + cos)))))
    sin = q * (-1 / 39916800 + q * (1 / 6227020800 - q / 1307674368000))
    sin = theta + theta * (q * (-1 / 6 + q * (1 / 120 + q * (-1 / 5040 + q * (1 / 362880 + sin)))))
    return cos, sin


@rule
def _step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    # The order of operations is Gymnasium's, so that results agree.
    force = FORCE if actions[0] == 1 else -FORCE
    cos, sin = _cos_sin(state.theta)
    temp = (force + POLE_MASS_LENGTH * (state.theta_dot * state.theta_dot) * sin) / TOTAL_MASS
    theta_acc = (GRAVITY * sin - cos * temp) / (HALF_LENGTH * (4.0 / 3.0 - MASS_POLE * (cos * cos) / TOTAL_MASS))
    x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS
    state.x = state.x + TAU * state.x_dot
    state.x_dot = state.x_dot + TAU * x_acc
    state.theta = state.theta + TAU * state.theta_dot
    state.theta_dot = state.theta_dot + TAU * theta_acc
    fallen = abs(state.x) > X_LIMIT or abs(state.theta) > ANGLE_LIMIT
    rewards[0] = params.reward_fallen if fallen else params.reward_upright
    return fallen, False


@rule
def _observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    out[0] = state.x
    out[1] = state.x_dot
    out[2] = state.theta
    out[3] = state.theta_dot


@rule
def _observe_positions(state: Any, params: Any, seat: Any, out: Any) -> None:
    out[0] = state.x
    out[1] = state.theta


@rule(inline=False)
def _observe_pixels(state: Any, params: Any, seat: Any, out: Any) -> None:
    cos, sin = _cos_sin(state.theta)
    left, right, pixel = state.x - CART_HALF, state.x + CART_HALF, VIEW / out.shape[0]
    for row in range(out.shape[0]):
        y = VIEW_TOP - (row + 0.5) * pixel
        for column in range(out.shape[1]):
            x = (column + 0.5) * pixel - 0.5 * VIEW
            pole = rod(x, y, state.x, 0.0, sin, cos, POLE_SHOWN, POLE_HALF, pixel)
            cart = box(x, y, left, -CART_HEIGHT, right, 0.0, pixel)
            out[row, column] = byte(max(pole, CART_GREY * cart))


def cart_pole(
    *,
    sutton_barto_reward: bool = False,
    horizon: int | None = 500,
    velocities: bool = True,
    observation: Literal["vector", "pixels"] = "vector",
    size: int = 48,
) -> Game:
    """A CartPole game.

    Args:
        sutton_barto_reward: reward 0 per step and -1 for falling, instead of 1 per step.
        horizon: steps after which the episode is truncated, or None.
        velocities: whether the velocities are part of the vector; pictures do not show them.
        observation: "vector", or "pixels" for a picture.
        size: sides of the picture in pixels, 24 to 84.

    Raises:
        GameError: for a setting out of range.
    """
    seen, picture = choice("observation", observation, ("vector", "pixels")), picture_space(size)
    upright, fallen = (0.0, -1.0) if sutton_barto_reward else (1.0, 1.0)
    bound = np.array([2 * X_LIMIT, np.inf, 2 * ANGLE_LIMIT, np.inf], np.float32)
    bound = bound if flag("velocities", velocities) else bound[::2]
    return Game(
        name="CartPole",
        state_fields=[("x", "f8"), ("x_dot", "f8"), ("theta", "f8"), ("theta_dot", "f8")],
        params=make_params(
            [("reward_upright", "f4"), ("reward_fallen", "f4")],
            {"reward_upright": upright, "reward_fallen": fallen},
            horizon,
        ),
        observation_space=picture if seen == "pixels" else spaces.Box(-bound, bound, dtype=np.float32),
        action_space=spaces.Discrete(2),
        reset=_reset,
        step=_step,
        observe=_observe_pixels if seen == "pixels" else _observe if velocities else _observe_positions,
        text=_text,
        draw=_draw,
        frames_per_second=50,
        layout={"moves": (("left", "right"),)},
    )


def _text(state: Any, params: Any) -> str:
    track = ["-"] * 49
    track[round(24 + 10 * max(-2.4, min(2.4, float(state.x))))] = "\\" if state.theta < 0 else "/"
    return f"[{''.join(track)}] x={state.x:+.2f} m, angle={math.degrees(state.theta):+.1f} deg\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    width, height, scale = 480, 320, 480 / (2 * X_LIMIT)
    canvas = Canvas(width, height)
    ground, x = height - 70, width / 2 + float(state.x) * scale
    canvas.pen.line([0, ground, width, ground], fill=INK, width=2)
    canvas.pen.rectangle([x - 30, ground - 30, x + 30, ground], fill=GREY)
    pole = scale * 2 * HALF_LENGTH
    tip = (x + math.sin(state.theta) * pole, ground - 30 - math.cos(state.theta) * pole)
    canvas.line([(x, ground - 30), tip], BROWN, 10)
    canvas.disc(x, ground - 30, 6, INK)
    canvas.text(8, height - 20, f"step {int(state.elapsed)}", anchor="lm")
    return canvas.array()
