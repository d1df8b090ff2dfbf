"""PushBlocks: a hand pushes round blocks on a table to where a goal wants them, seen as numbers or as a picture.

Description:
    A hand and one to three blocks are discs on a table, the unit square. The hand moves by its two motors; blocks only
    move when they are pushed, by the hand or by another block. The light on the table changes from episode to episode:
    it says nothing about the task, and changes every pixel. A goal is a state of the table, of which some positions
    count (setting ``goal``).

    The task and its distractors are those of the ``Push`` and ``PushLights`` tasks of Lee et al., "Weakly-supervised
    reinforcement learning for controllable behavior" (2020); the physics is our own, instead of MuJoCo's:

    - Motion. The hand moves by 0.08 times the action along each axis, in four equal parts. It stays on the table.
    - Contact. After each part blocks that the hand overlaps are moved out of it along the line between the middles, two
      blocks that overlap are moved apart by equal amounts, and blocks stay on the table. This is repeated three times,
      with what still overlaps the hand, which the rim or other blocks hold, moved apart from it by equal amounts; what
      overlaps it then moves the hand back.

    Hand and blocks have radii of 0.06 and 0.09.

Actions:
    Box float32 [2]: motion along x (right) and y (up), -1 to 1.

Observations:
    A Dict in the convention of Gymnasium-Robotics, with n blocks:

    | key | space | meaning |
    |---|---|---|
    | ``observation`` | Box float32 [2 + 2n + 1] | x, y of the hand and of each block, and the light, from 0 to 1 |
    | ``achieved_goal`` | Box float32 [k] | the positions that count, as they are |
    | ``desired_goal`` | Box float32 [k] | the positions that count, as the goal wants them |

    With ``observation="pixels"``, ``observation`` is a picture, Box(0, 255, [3, size, size], uint8): red, green and
    blue, the hand in white, the blocks in red, green and blue. With ``observation="both"`` it is that picture, and
    there are two more keys: ``factors``, the numbers above, and ``goal_picture``, the goal as a picture in a light of
    its own.

Rewards:
    After the step, for the distance between achieved and desired goal (Euclidean, in sides of the table): its negative;
    with ``reward="sparse"`` 0 within 0.1, otherwise -1.

Start:
    Positions are uniform where discs do not overlap, blocks at least 0.22 away from the rim, so that the hand fits
    behind them; goals likewise. The light is uniform from 0.4 to 1.

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

from mlbits.envs.core.drawing import BLUE, GREEN, GREY, INK, PAPER, RED, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.pixels import byte, disc, picture_space
from mlbits.envs.core.random import uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import choice, flag, integer

MOST = 3  # blocks
DISCS = MOST + 1  # disc 0 is the hand
STRIDE, PARTS = 0.08, 4  # the hand's longest move along an axis in a step, and in how many parts it is made
HAND, BLOCK = 0.06, 0.09  # radii
RIM = 0.22  # from the rim to the middle of a block at the start: the hand fits in between
DIMMEST = 0.4
NEAR = 0.1  # distance within which a goal is reached
SWEEPS = 4
TRIES = 200  # for a place where a disc overlaps no other; three blocks leave more than a quarter of the places free
GOALS = {"block": (1, 1), "blocks": (1, MOST), "hand": (0, 0), "all": (0, MOST)}  # first and last disc that counts
# Red, green and blue of the table, the hand and the blocks, in full light.
TABLE = (0.30, 0.28, 0.25)
COLOURS = ((1.0, 1.0, 1.0), (0.95, 0.20, 0.15), (0.20, 0.85, 0.25), (0.25, 0.35, 1.0))


@rule
def goal_rule(params: Any, achieved: Any, desired: Any) -> Any:
    """(reward, terminated) for a goal achieved [k] where another is desired [k]; no goal ends an episode."""
    square = 0.0
    for k in range(achieved.shape[0]):
        square += (achieved[k] - desired[k]) * (achieved[k] - desired[k])
    reward = -math.sqrt(square)
    if params.sparse != 0:
        reward = 0.0 if -reward < NEAR else -1.0
    return reward, False


@rule
def _radius(number: Any) -> Any:
    return HAND if number == 0 else BLOCK


@rule(inline=False)
def _scatter(state: Any, params: Any, x: Any, y: Any) -> None:
    """Write positions [DISCS] that do not overlap."""
    for k in range(1 + params.blocks):
        margin = HAND if k == 0 else RIM
        for _ in range(TRIES):
            x[k] = margin + (1 - 2 * margin) * uniform(state)
            y[k] = margin + (1 - 2 * margin) * uniform(state)
            free = True
            for other in range(k):
                dx, dy = x[k] - x[other], y[k] - y[other]
                apart = _radius(k) + _radius(other)
                free = free and dx * dx + dy * dy > apart * apart
            if free:
                break


@rule
def _write_goal(params: Any, x: Any, y: Any, out: Any) -> None:
    for k in range(out.shape[0] // 2):
        out[2 * k] = x[params.first + k]
        out[2 * k + 1] = y[params.first + k]


@rule
def _reset(state: Any, params: Any) -> None:
    for k in range(DISCS):
        state.x[k], state.y[k], state.goal_x[k], state.goal_y[k] = 0.0, 0.0, 0.0, 0.0
    _scatter(state, params, state.x, state.y)
    _scatter(state, params, state.goal_x, state.goal_y)
    state.light = params.dimmest + (1 - params.dimmest) * uniform(state)
    state.goal_light = params.dimmest + (1 - params.dimmest) * uniform(state)
    _write_goal(params, state.x, state.y, state.achieved)
    _write_goal(params, state.goal_x, state.goal_y, state.desired)


@rule
def _inside(value: Any, margin: Any) -> Any:
    return min(max(value, margin), 1 - margin)


@rule
def _overlap(state: Any, a: Any, b: Any) -> Any:
    """By how much discs overlap (0 if they do not), and the direction from the first to the second."""
    dx, dy = state.x[b] - state.x[a], state.y[b] - state.y[a]
    distance = math.sqrt(dx * dx + dy * dy)
    if distance == 0:
        return _radius(a) + _radius(b), 1.0, 0.0
    return max(_radius(a) + _radius(b) - distance, 0.0), dx / distance, dy / distance


@rule(inline=False)
def _move(state: Any, params: Any, dx: Any, dy: Any) -> None:
    """Move the hand, and whatever it pushes."""
    discs = 1 + params.blocks
    for _ in range(PARTS):
        state.x[0] = _inside(state.x[0] + dx / PARTS, HAND)
        state.y[0] = _inside(state.y[0] + dy / PARTS, HAND)
        for sweep in range(SWEEPS):
            given = 1.0 if sweep == 0 else 0.5  # the block's share of the way apart; the rest is the hand's
            for k in range(1, discs):
                depth, along_x, along_y = _overlap(state, 0, k)
                state.x[k] += given * depth * along_x
                state.y[k] += given * depth * along_y
                state.x[0] = _inside(state.x[0] - (1 - given) * depth * along_x, HAND)
                state.y[0] = _inside(state.y[0] - (1 - given) * depth * along_y, HAND)
            for a in range(1, discs):
                for b in range(a + 1, discs):
                    depth, along_x, along_y = _overlap(state, a, b)
                    state.x[a] -= 0.5 * depth * along_x
                    state.y[a] -= 0.5 * depth * along_y
                    state.x[b] += 0.5 * depth * along_x
                    state.y[b] += 0.5 * depth * along_y
            for k in range(1, discs):
                state.x[k] = _inside(state.x[k], BLOCK)
                state.y[k] = _inside(state.y[k], BLOCK)
        for k in range(1, discs):
            depth, along_x, along_y = _overlap(state, 0, k)
            state.x[0] = _inside(state.x[0] - depth * along_x, HAND)
            state.y[0] = _inside(state.y[0] - depth * along_y, HAND)


@rule
def _step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    _move(state, params, STRIDE * np.float64(actions[0, 0]), STRIDE * np.float64(actions[0, 1]))
    _write_goal(params, state.x, state.y, state.achieved)
    reward, reached = goal_rule(params, state.achieved, state.desired)
    rewards[0] = reward
    return reached, False


@rule
def _write_factors(state: Any, params: Any, out: Any) -> None:
    for k in range(1 + params.blocks):
        out[2 * k] = state.x[k]
        out[2 * k + 1] = state.y[k]
    out[2 + 2 * params.blocks] = state.light


@rule(inline=False)
def _paint(params: Any, x: Any, y: Any, light: Any, out: Any) -> None:
    """Paint the table [3, size, size]: blocks by number, and the hand above them."""
    size = out.shape[1]
    pixel = 1.0 / size
    for row in range(size):
        at_y = 1 - (row + 0.5) * pixel
        for column in range(size):
            at_x = (column + 0.5) * pixel
            red, green, blue = TABLE[0], TABLE[1], TABLE[2]
            for place in range(1, 2 + params.blocks):
                k = place if place <= params.blocks else 0
                share = disc(at_x, at_y, x[k], y[k], _radius(k), pixel)
                red += share * (COLOURS[k][0] - red)
                green += share * (COLOURS[k][1] - green)
                blue += share * (COLOURS[k][2] - blue)
            out[0, row, column] = byte(light * red)
            out[1, row, column] = byte(light * green)
            out[2, row, column] = byte(light * blue)


@rule
def _write_goals(state: Any, out: Any) -> None:
    for k in range(out.achieved_goal.shape[0]):
        out.achieved_goal[k] = state.achieved[k]
        out.desired_goal[k] = state.desired[k]


@rule
def _observe_vector(state: Any, params: Any, seat: Any, out: Any) -> None:
    _write_factors(state, params, out.observation)
    _write_goals(state, out)


@rule
def _observe_pixels(state: Any, params: Any, seat: Any, out: Any) -> None:
    _paint(params, state.x, state.y, state.light, out.observation)
    _write_goals(state, out)


@rule
def _observe_both(state: Any, params: Any, seat: Any, out: Any) -> None:
    _paint(params, state.x, state.y, state.light, out.observation)
    _paint(params, state.goal_x, state.goal_y, state.goal_light, out.goal_picture)
    _write_factors(state, params, out.factors)
    _write_goals(state, out)


def push_blocks(
    *,
    blocks: int = 1,
    goal: Literal["block", "blocks", "hand", "all"] = "block",
    reward: Literal["dense", "sparse"] = "dense",
    light: bool = True,
    observation: Literal["vector", "pixels", "both"] = "vector",
    size: int = 24,
    horizon: int | None = 50,
) -> Game:
    """A game of pushing blocks.

    Args:
        blocks: number of blocks, 1 to 3.
        goal: which positions count: the first block's, all blocks', the hand's, or all of them.
        reward: "dense", minus the distance to the goal, or "sparse", -1 until it is within 0.1.
        light: whether the light changes from episode to episode; otherwise it is full.
        observation: "vector", "pixels" for a picture, or "both", which shows the goal as a picture too.
        size: sides of the pictures in pixels, 24 to 84.
        horizon: steps after which the episode is truncated, or None.

    Raises:
        GameError: for a setting of the wrong type or out of range.
    """
    count, picture = integer("blocks", blocks, 1, MOST), picture_space(size, 3)
    seen = choice("observation", observation, ("vector", "pixels", "both"))
    first, last = GOALS[choice("goal", goal, GOALS)]
    numbers = 2 * (min(last, count) - first + 1)
    sparse = choice("reward", reward, ("dense", "sparse")) == "sparse"
    factors, wanted = (spaces.Box(0, 1, (length,), np.float32) for length in (3 + 2 * count, numbers))
    shown: dict[str, Any] = {"observation": factors if seen == "vector" else picture}
    shown |= {"factors": factors, "goal_picture": picture} if seen == "both" else {}
    places = [(name, "f8", (DISCS,)) for name in ("x", "y", "goal_x", "goal_y")]
    goals = [(name, "f4", (numbers,)) for name in ("achieved", "desired")]
    return Game(
        name="PushBlocks",
        state_fields=[*places, ("light", "f8"), ("goal_light", "f8"), *goals],
        state_ranges={str(field[0]): (0, 1) for field in [*places, ("light",), ("goal_light",), *goals]},
        params=make_params(
            [("blocks", "i4"), ("first", "i4"), ("sparse", "i4"), ("dimmest", "f8")],
            {"blocks": count, "first": first, "sparse": sparse, "dimmest": DIMMEST if flag("light", light) else 1.0},
            horizon,
        ),
        observation_space=spaces.Dict({**shown, "achieved_goal": wanted, "desired_goal": wanted}),
        action_space=spaces.Box(-1, 1, (2,), np.float32),
        reset=_reset,
        step=_step,
        goal=goal_rule,
        observe={"vector": _observe_vector, "pixels": _observe_pixels, "both": _observe_both}[seen],
        text=_text,
        draw=_draw,
        frames_per_second=12,
        layout={"factors": factor_names(count)},
    )


def factor_names(blocks: int) -> list[str]:
    """The names of the factors, in their order: ``hand_x``, ``hand_y``, ``block1_x`` and so on, and ``light``."""
    discs = ["hand", *(f"block{k}" for k in range(1, blocks + 1))]
    return [f"{name}_{axis}" for name in discs for axis in "xy"] + ["light"]


def _text(state: Any, params: Any) -> str:
    """The table from above: ``h`` the hand, ``1`` to ``3`` the blocks, ``*`` where the goal wants what counts."""
    rows = [["."] * 21 for _ in range(11)]

    def put(x: float, y: float, mark: str) -> None:
        rows[round(10 * (1 - float(y)))][round(20 * float(x))] = mark

    for k in range(0, len(state.desired), 2):
        put(state.desired[k], state.desired[k + 1], "*")
    for k in range(int(params.blocks), -1, -1):
        put(state.x[k], state.y[k], "h123"[k])
    picture = "\n".join("".join(row) for row in rows)
    return f"{picture}\n{_numbers(state)}\n"


def _distance(state: Any) -> float:
    return math.sqrt(sum((float(a) - float(d)) ** 2 for a, d in zip(state.achieved, state.desired, strict=True)))


def _numbers(state: Any) -> str:
    return f"{_distance(state):.2f} from the goal, light {float(state.light):.2f}"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The table, darker in dim light; rings show where the goal wants what counts."""
    size = 360
    canvas, light = Canvas(size, size + 26), 0.55 + 0.45 * float(state.light)
    canvas.pen.rectangle([0, 0, size, size], fill=tuple(int(light * part) for part in (232, 226, 212)))
    colours = ((250, 249, 245), RED, GREEN, BLUE)

    def at(x: Any, y: Any) -> tuple[float, float]:
        return float(x) * size, (1 - float(y)) * size

    for k in range(len(state.desired) // 2):
        number, radius = int(params.first) + k, (HAND if int(params.first) + k == 0 else BLOCK) * size
        x, y = at(state.desired[2 * k], state.desired[2 * k + 1])
        canvas.arc(x, y, radius, 0, 360, INK if number == 0 else colours[number], 3)
    for k in range(1, int(params.blocks) + 1):
        canvas.disc(*at(state.x[k], state.y[k]), BLOCK * size, colours[k])
    canvas.disc(*at(state.x[0], state.y[0]), HAND * size, colours[0], INK, 2)
    canvas.pen.rectangle([0, size, size, size + 26], fill=PAPER)
    canvas.text(8, size + 13, f"step {int(state.elapsed)}", anchor="lm")
    canvas.text(size - 8, size + 13, _numbers(state), fill=GREY, anchor="rm")
    return canvas.array()
