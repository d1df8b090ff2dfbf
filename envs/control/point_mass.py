"""PointMass: drive to a goal behind a U-shaped wall, which traps policies that head straight for the goal.

Description:
    A mass on a plane starts 25 m from its goal; between them is a U-shaped wall that is open towards the start. Heading
    straight for the goal ends in the U, 12 m short of it, and every small change from there costs reward: a deceptive
    local optimum. The way around it first leads past the arms of the wall.

    The layout is that of ``point-v0`` in Parker-Holder et al., "Effective diversity in population based reinforcement
    learning" (2020): start, goal, wall, reward and number of steps. The physics is our own, instead of MuJoCo's:

    - Motion. Motors work against drag: ``dv/dt = 5 (25 a - v)`` for the action a, so speed tends to 25 m/s per axis.
      A step is 0.04 s, over which this is solved exactly: ``v' = 25 a + (v - 25 a) e^-0.2``, and the mass moves by
      ``25 a 0.04 + (v - 25 a) (1 - e^-0.2) / 5``: 1 m per step at full speed.
    - Contact. The wall's plates are 1 m thick around the lines from (12, 2) to (14, 2) to (14, -2) to (12, -2), and the
      body extends 0.5 m from its centre along both axes. So the centre stays out of three rectangles: 13 to 15 by
      -3 to 3 (the back), 11 to 15 by 1 to 3 and by -3 to -1 (the arms). ``half_width`` and ``arm_length`` make the
      wall wider and its arms longer.
    - The path of a step is a straight line up to the first side of a rectangle that it meets, at any speed. There the
      velocity across that side becomes zero, and the rest of the path slides along it (to the next side, if it meets
      one).

Actions:
    Box float32 [2]: power of the motors along x and y, as a fraction of full power, -1 to 1.

Observations:
    Box float32 [4]:

    | entry | meaning | bounds |
    |---|---|---|
    | 0, 1 | position x and y, m | unbounded (the goal is at 25, 0) |
    | 2, 3 | velocity along x and y, m/s | -25 to 25 |

    With ``observation="pixels"`` a picture, Box(0, 255, [size, size], uint8), of the square from (-3, -16) to (29, 16):
    the mass as a white disc of 1 m, the goal as one of two thirds of its brightness, the wall in dark grey. A mass
    outside is drawn at the edge. ``frame_stack=2`` shows its velocity.

Rewards:
    Minus the distance to the goal after the step, in m.

Start:
    At rest; x and y uniform on [-0.1, 0.1].

End:
    No termination. Truncation after ``horizon`` steps (50).

Version history:
    v0: first version.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GREEN, GREY, GRID, INK, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.pixels import box, byte, disc, picture_space
from mlbits.envs.core.random import uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import choice, flag, number

TAU = 0.04  # s per step
TOP_SPEED = 25.0  # m/s
DRAG = 5.0  # 1/s
DECAY = math.exp(-DRAG * TAU)
COAST = (1 - DECAY) / DRAG  # s: distance covered in a step without power, per unit of speed
GOAL_X, GOAL_Y = 25.0, 0.0  # m
START_RANGE = 0.1  # m
REACH = 0.5  # m, from the body's centre to its edge
THICKNESS = 1.0  # m, of the wall
BACK_X = 14.0  # m, of the back plate
_MARGIN = REACH + THICKNESS / 2  # of the rectangles that the body's centre may not enter, around the plates
VIEW, VIEW_LEFT, VIEW_TOP = 32.0, -3.0, 16.0  # m: side of the pictures, and their top left corner
DISC = 1.0  # m: radius of mass and goal in the pictures
WALL_GREY, GOAL_GREY = 0.4, 0.67  # brightness, where the mass has 1
_TOUCH = 1e-9  # m: closer than this counts as touching, so that rounding never puts the mass inside


@rule
def _entering(position: Any, move: Any, low: Any, high: Any) -> Any:
    """When a move along one axis enters and leaves low..high, as fractions of the move, and the distance to it."""
    if move > 0:
        return (low - position) / move, (high - position) / move, low - position
    if move < 0:
        return (high - position) / move, (low - position) / move, position - high
    if low < position < high:
        return -math.inf, math.inf, -math.inf
    return math.inf, math.inf, -math.inf


@rule
def _kept_out(k: Any, params: Any) -> Any:
    """Rectangle k that the body's centre may not enter, the back and the arms: left, bottom, right, top."""
    if k == 0:
        return BACK_X - _MARGIN, -params.half_width - _MARGIN, BACK_X + _MARGIN, params.half_width + _MARGIN
    y = params.half_width if k == 1 else -params.half_width
    return BACK_X - params.arm_length - _MARGIN, y - _MARGIN, BACK_X + _MARGIN, y + _MARGIN


@rule
def _slide(x: Any, y: Any, dx: Any, dy: Any, params: Any) -> Any:
    """Move by (dx, dy) as far as the wall allows: the new position, and whether each axis was blocked."""
    blocked_x, blocked_y = False, False
    for _ in range(2):  # with both axes blocked no movement is left
        first, side, along_x = 2.0, 0.0, True
        for k in range(3):
            left, bottom, right, top = _kept_out(k, params)
            enter_x, leave_x, gap_x = _entering(x, dx, left, right)
            enter_y, leave_y, gap_y = _entering(y, dy, bottom, top)
            enter, gap = (enter_x, gap_x) if enter_x >= enter_y else (enter_y, gap_y)
            if gap >= -_TOUCH and enter <= 1 and enter < first and enter < min(leave_x, leave_y):
                first, along_x = enter, enter_x >= enter_y
                if along_x:
                    side = left if dx > 0 else right
                else:
                    side = bottom if dy > 0 else top
        if first > 1:
            break
        first = max(first, 0.0)
        x, y = x + first * dx, y + first * dy
        dx, dy = (1 - first) * dx, (1 - first) * dy
        if along_x:
            x, dx, blocked_x = side, 0.0, True
        else:
            y, dy, blocked_y = side, 0.0, True
    return x + dx, y + dy, blocked_x, blocked_y


@rule
def _reset(state: Any, params: Any) -> None:
    state.x = START_RANGE * (2.0 * uniform(state) - 1.0)
    state.y = START_RANGE * (2.0 * uniform(state) - 1.0)
    state.x_dot = 0.0
    state.y_dot = 0.0


@rule
def _step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    power_x, power_y = TOP_SPEED * np.float64(actions[0, 0]), TOP_SPEED * np.float64(actions[0, 1])
    dx = power_x * TAU + (state.x_dot - power_x) * COAST
    dy = power_y * TAU + (state.y_dot - power_y) * COAST
    state.x_dot = power_x + (state.x_dot - power_x) * DECAY
    state.y_dot = power_y + (state.y_dot - power_y) * DECAY
    if params.wall != 0:
        x, y, blocked_x, blocked_y = _slide(state.x, state.y, dx, dy, params)
        state.x = x
        state.y = y
        if blocked_x:
            state.x_dot = 0.0
        if blocked_y:
            state.y_dot = 0.0
    else:
        state.x += dx
        state.y += dy
    rewards[0] = -math.sqrt((state.x - GOAL_X) * (state.x - GOAL_X) + (state.y - GOAL_Y) * (state.y - GOAL_Y))
    return False, False


@rule
def _observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    out[0] = state.x
    out[1] = state.y
    out[2] = state.x_dot
    out[3] = state.y_dot


@rule(inline=False)
def _observe_pixels(state: Any, params: Any, seat: Any, out: Any) -> None:
    pixel = VIEW / out.shape[0]
    mass_x = min(max(state.x, VIEW_LEFT), VIEW_LEFT + VIEW)
    mass_y = min(max(state.y, VIEW_TOP - VIEW), VIEW_TOP)
    for row in range(out.shape[0]):
        y = VIEW_TOP - (row + 0.5) * pixel
        for column in range(out.shape[1]):
            x = VIEW_LEFT + (column + 0.5) * pixel
            shown = max(disc(x, y, mass_x, mass_y, DISC, pixel), GOAL_GREY * disc(x, y, GOAL_X, GOAL_Y, DISC, pixel))
            if params.wall != 0:
                for k in range(3):
                    left, bottom, right, top = _kept_out(k, params)
                    covered = box(x, y, left + REACH, bottom + REACH, right - REACH, top - REACH, pixel)
                    shown = max(shown, WALL_GREY * covered)
            out[row, column] = byte(shown)


def point_mass(
    *,
    wall: bool = True,
    half_width: float = 2.0,
    arm_length: float = 2.0,
    horizon: int | None = 50,
    observation: Literal["vector", "pixels"] = "vector",
    size: int = 48,
) -> Game:
    """A point mass game.

    Args:
        wall: whether there is a wall.
        half_width: half the width of the U, m: the way round it passes the middle line at ``half_width`` + 1.
        arm_length: length of the arms, from the back towards the start, m.
        horizon: steps after which the episode is truncated, or None.
        observation: "vector", or "pixels" for a picture.
        size: sides of the picture in pixels, 24 to 84.

    Raises:
        GameError: for a setting of the wrong type or out of range.
    """
    seen, picture = choice("observation", observation, ("vector", "pixels")), picture_space(size)
    bound = np.array([np.inf, np.inf, TOP_SPEED, TOP_SPEED], np.float32)
    return Game(
        name="PointMass",
        state_fields=[("x", "f8"), ("y", "f8"), ("x_dot", "f8"), ("y_dot", "f8")],
        params=make_params(
            [("wall", "u1"), ("half_width", "f8"), ("arm_length", "f8")],
            {
                "wall": flag("wall", wall),
                "half_width": number("half_width", half_width, 1, 100),
                "arm_length": number("arm_length", arm_length, 0, 12),
            },
            horizon,
        ),
        observation_space=picture if seen == "pixels" else spaces.Box(-bound, bound, dtype=np.float32),
        action_space=spaces.Box(-1, 1, (2,), np.float32),
        reset=_reset,
        step=_step,
        observe=_observe_pixels if seen == "pixels" else _observe,
        text=_text,
        draw=_draw,
        frames_per_second=12,
    )


def _plates(params: Any) -> list[tuple[float, float, float, float]]:
    """The middle lines of the wall's plates, m: left, bottom, right, top."""
    x, y = BACK_X - float(params.arm_length), float(params.half_width)
    return [(BACK_X, -y, BACK_X, y), (x, y, BACK_X, y), (x, -y, BACK_X, -y)]


def _text(state: Any, params: Any) -> str:
    """One character per metre: ``A`` the mass, ``G`` the goal, ``#`` the wall."""
    left, top, width, height = -2, 4, 30, 9
    rows = [["."] * width for _ in range(height)]
    if params.wall:
        for x_low, y_low, x_high, y_high in _plates(params):
            for y in range(max(round(y_low), top - height + 1), min(round(y_high), top) + 1):
                for x in range(round(x_low), round(x_high) + 1):
                    rows[top - y][x - left] = "#"
    rows[top - int(GOAL_Y)][int(GOAL_X) - left] = "G"
    column, row = round(float(state.x)) - left, top - round(float(state.y))
    rows[max(0, min(height - 1, row))][max(0, min(width - 1, column))] = "A"
    picture = "\n".join("".join(row) for row in rows)
    return f"{picture}\n{_numbers(state)}\n"


def _numbers(state: Any) -> str:
    return f"x={state.x:+.2f} m, y={state.y:+.2f} m, speed {math.hypot(state.x_dot, state.y_dot):.1f} m/s"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The plane from (-3, -6) to (29, 6); a mass outside is drawn at the edge."""
    scale, left, top, width, height = 18, -3, 6, 32, 12
    canvas = Canvas(width * scale, height * scale + 26)

    def at(x: float, y: float) -> tuple[float, float]:
        return (x - left) * scale, (top - y) * scale

    def disc(x: float, y: float, radius: float, fill: Any) -> None:
        canvas.disc(*at(x, y), radius * scale, fill)

    canvas.pen.line([at(left, 0), at(left + width, 0)], fill=GRID, width=1)
    for x in range(0, 30, 5):
        canvas.pen.line([at(x, -0.15), at(x, 0.15)], fill=GRID, width=1)
    if params.wall:
        half = THICKNESS / 2
        for x_low, y_low, x_high, y_high in _plates(params):
            canvas.pen.rectangle([at(x_low - half, y_high + half), at(x_high + half, y_low - half)], fill=GREY)
    disc(GOAL_X, GOAL_Y, 0.7, GREEN)
    middle_x = max(left + REACH, min(left + width - REACH, float(state.x)))
    middle_y = max(-top + REACH, min(top - REACH, float(state.y)))
    disc(middle_x, middle_y, REACH, BLUE)
    if math.hypot(state.x_dot, state.y_dot) > 0.5:  # a line to where it will be in 0.08 s
        tip = at(middle_x + 0.08 * float(state.x_dot), middle_y + 0.08 * float(state.y_dot))
        canvas.line([at(middle_x, middle_y), tip], INK, 3)
    canvas.text(8, height * scale + 12, f"step {int(state.elapsed)}", anchor="lm")
    canvas.text(width * scale - 8, height * scale + 12, _numbers(state), fill=GREY, anchor="rm")
    return canvas.array()
