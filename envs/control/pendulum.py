"""Pendulum: swing up a pendulum with a weak motor, and balance it upright.

Description:
    A rod of 1 kg and 1 m on a hinge. The motor cannot lift it directly, so it has to be swung back and forth first. The
    dynamics are those of Gymnasium's ``Pendulum-v1``, operation by operation: angle and velocity in float64, the
    motor's part in float32, as NumPy computes it there, and the C library's sine. Whole episodes agree to the last
    bit. (They have to: a difference in the last bit grows to a full turn in one episode of balancing.) The angle is 0
    upright, grows anticlockwise and is not reduced to one turn.

Actions:
    Box float32 [1]: the motor's torque, -2 to 2 N m. (Gymnasium clips larger torques; here they are clipped with
    ``illegal="replace"``.)

Observations:
    Box float32 [3]:

    | entry | meaning | bounds |
    |---|---|---|
    | 0 | cosine of the angle: height of the tip, m | -1 to 1 |
    | 1 | sine of the angle | -1 to 1 |
    | 2 | angular velocity, rad/s | -8 to 8 |

    With ``observation="pixels"`` a picture, Box(0, 255, [size, size], uint8): the rod in white on black, seen on a
    square of 2.6 m around the hinge. ``frame_stack=2`` shows how fast it turns.

Rewards:
    ``-(angle^2 + 0.1 velocity^2 + 0.001 torque^2)``, angle (from -pi to pi) and velocity before the step: 0 at rest
    upright, -16.27 at worst.

Start:
    The angle uniform on [-pi, pi], the velocity uniform on [-1, 1].

End:
    No termination. Truncation after ``horizon`` steps (200).

Version history:
    v0: first version.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GREY, GRID, INK, RED, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.pixels import byte, picture_space, rod
from mlbits.envs.core.random import uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import choice, number

MAX_TORQUE = 2.0  # N m
MAX_SPEED = 8.0  # rad/s
TAU = 0.05  # s per step
VIEW, ROD = 2.6, 0.1  # m: side of the pictures, half the rod's thickness in them
TORQUE_GAIN = np.float32(3.0)  # 3 / (m l^2); in Gymnasium a Python number times a float32, which is a float32
TORQUE_COST = np.float32(0.001)
TWO_PI = 2 * math.pi
TWO_PI_HIGH = 6.2831853069365025  # its first 31 bits: the product with an integer below 2^22 is exact
TWO_PI_LOW = 2.430840202602477e-10  # the rest


@rule
def _cos_sin(theta: Any) -> Any:
    """Cosine and sine to 1e-14, for observations: Taylor series at half the angle, then the double-angle formulas.

    Branch-free, and summed in pairs that can be computed in parallel; two library calls take twice as long.
    """
    turns = math.floor(theta * (1 / TWO_PI) + 0.5)
    x = 0.5 * ((theta - turns * TWO_PI_HIGH) - turns * TWO_PI_LOW)
    q = x * x
    q2 = q * q
    q4 = q2 * q2
    # Up to x^18 and x^19: the first omitted terms are below 1e-14 at pi / 2.
    cos = ((1 - q * (1 / 2)) + q2 * (1 / 24 - q * (1 / 720))) + q4 * (
        ((1 / 40320 - q * (1 / 3628800)) + q2 * (1 / 479001600 - q * (1 / 87178291200)))
        + q4 * (1 / 20922789888000 - q * (1 / 6402373705728000))
    )
    sin = ((1 - q * (1 / 6)) + q2 * (1 / 120 - q * (1 / 5040))) + q4 * (
        ((1 / 362880 - q * (1 / 39916800)) + q2 * (1 / 6227020800 - q * (1 / 1307674368000)))
        + q4 * (1 / 355687428096000 - q * (1 / 121645100408832000))
    )
    sin = sin * x
    return (cos - sin) * (cos + sin), 2 * sin * cos


@rule
def _reset(state: Any, params: Any) -> None:
    state.theta = math.pi * (2.0 * uniform(state) - 1.0)
    state.theta_dot = 2.0 * uniform(state) - 1.0
    state.torque = 0.0


@rule
def _step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    # The order of operations is Gymnasium's, so that results agree.
    torque = actions[0, 0]
    angle = state.theta - TWO_PI * math.floor(state.theta * (1 / TWO_PI) + 0.5)
    rewards[0] = -(angle * angle + 0.1 * (state.theta_dot * state.theta_dot) + TORQUE_COST * (torque * torque))
    speed = state.theta_dot + (params.pull * math.sin(state.theta) + TORQUE_GAIN * torque) * TAU
    state.theta_dot = min(max(speed, -MAX_SPEED), MAX_SPEED)
    state.theta = state.theta + state.theta_dot * TAU
    state.torque = torque
    return False, False


@rule
def _observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    cos, sin = _cos_sin(state.theta)
    out[0] = cos
    out[1] = sin
    out[2] = state.theta_dot


@rule(inline=False)
def _observe_pixels(state: Any, params: Any, seat: Any, out: Any) -> None:
    cos, sin = _cos_sin(state.theta)
    pixel = VIEW / out.shape[0]
    for row in range(out.shape[0]):
        y = 0.5 * VIEW - (row + 0.5) * pixel
        for column in range(out.shape[1]):
            x = (column + 0.5) * pixel - 0.5 * VIEW
            out[row, column] = byte(rod(x, y, 0.0, 0.0, -sin, cos, 1.0, ROD, pixel))


def pendulum(
    *,
    gravity: float = 10.0,
    horizon: int | None = 200,
    observation: Literal["vector", "pixels"] = "vector",
    size: int = 48,
) -> Game:
    """A pendulum game.

    Args:
        gravity: gravity in m/s^2, 0 to 1000 (Gymnasium's ``g``).
        horizon: steps after which the episode is truncated, or None.
        observation: "vector", or "pixels" for a picture.
        size: sides of the picture in pixels, 24 to 84.

    Raises:
        GameError: for a setting out of range.
    """
    seen, picture = choice("observation", observation, ("vector", "pixels")), picture_space(size)
    bound = np.array([1.0, 1.0, MAX_SPEED], np.float32)
    return Game(
        name="Pendulum",
        state_fields=[("theta", "f8"), ("theta_dot", "f8"), ("torque", "f4")],
        # 3 g / (2 m l)
        params=make_params([("pull", "f8")], {"pull": 3 * number("gravity", gravity, 0, 1000) / 2}, horizon),
        observation_space=picture if seen == "pixels" else spaces.Box(-bound, bound, dtype=np.float32),
        action_space=spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32),
        reset=_reset,
        step=_step,
        observe=_observe_pixels if seen == "pixels" else _observe,
        text=_text,
        draw=_draw,
        frames_per_second=20,
    )


def _text(state: Any, params: Any) -> str:
    """The hinge ``+`` in the middle, the rod, and its tip ``O``."""
    rows = [[" "] * 19 for _ in range(9)]
    for part in range(1, 9):
        column = round(9 - math.sin(state.theta) * part)  # a character is twice as high as it is wide
        rows[round(4 - math.cos(state.theta) * part / 2)][column] = "O" if part == 8 else "."
    rows[4][9] = "+"
    picture = "\n".join("".join(row) for row in rows)
    numbers = f"speed={state.theta_dot:+.2f} rad/s, torque={state.torque:+.2f} N m"
    return f"{picture}\nangle={math.degrees(_turned(state.theta)):+.1f} deg, {numbers}\n"


def _turned(theta: float) -> float:
    """The angle reduced to within half a turn of upright."""
    return float(theta - TWO_PI * math.floor(theta / TWO_PI + 0.5))


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    size, length = 320, 120
    canvas, middle = Canvas(size, size), size / 2
    canvas.pen.line([middle, 20, middle, size - 20], fill=GRID, width=2)
    tip = (middle - math.sin(state.theta) * length, middle - math.cos(state.theta) * length)
    canvas.line([(middle, middle), tip], BLUE, 18, round_ends=True)
    canvas.disc(middle, middle, 4, INK)
    if state.torque != 0:
        _draw_torque(canvas, middle, float(state.torque))
    canvas.text(8, size - 14, f"step {int(state.elapsed)}", anchor="lm")
    canvas.text(size - 8, size - 14, f"torque {state.torque:+.2f} N m", fill=GREY, anchor="rm")
    return canvas.array()


def _draw_torque(canvas: Canvas, middle: float, torque: float) -> None:
    """An arc around the hinge, with a length proportional to the torque and an arrowhead in its direction."""
    radius, sweep = 44, 150 * abs(torque) / MAX_TORQUE
    # Pillow's degrees start at three o'clock and grow clockwise; positive torque turns anticlockwise.
    start, end = (90 - sweep, 90) if torque > 0 else (90, 90 + sweep)
    canvas.arc(middle, middle, radius, start, end, RED, 4)
    head = math.radians(start if torque > 0 else end)
    turn = -1 if torque > 0 else 1
    x, y = middle + radius * math.cos(head), middle + radius * math.sin(head)
    along, across = (-turn * math.sin(head), turn * math.cos(head)), (math.cos(head), math.sin(head))
    corners = [(x + 12 * along[0], y + 12 * along[1])]
    corners += [(x + side * 8 * across[0], y + side * 8 * across[1]) for side in (-1, 1)]
    canvas.polygon(corners, RED)
