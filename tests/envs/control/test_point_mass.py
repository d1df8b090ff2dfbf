"""PointMass: motion against an ODE solver, contact against geometry, the trap and the path around it."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import mlbits
from mlbits.envs.core.errors import GameError

ID = "mlbits/PointMass-v0"
GOAL = np.array([25.0, 0.0])
# Rectangles the body's centre may not enter, the back and the arms: left, bottom, right, top.
KEPT_OUT = np.array([[13, -3, 15, 3], [11, 1, 15, 3], [11, -3, 15, -1]], float)
COAST = 0.2 * (1 - math.exp(-0.2))  # m covered in a step without power at a speed of 1 m/s


def placed(positions, velocities=(0.0, 0.0), **settings):
    """A batch with a copy at each position [B, 2]."""
    positions = np.atleast_2d(np.asarray(positions, float))
    batch = mlbits.make_batch(ID, len(positions), autoreset="disabled", **settings)
    states = batch.records()
    states["x"], states["y"] = positions.T
    states["x_dot"], states["y_dot"] = np.broadcast_to(velocities, positions.shape).T
    batch.set_state(states)
    return batch


def moved(positions, moves, **settings):
    """End points and velocities of copies without power that would move by ``moves`` [B, 2] without the wall."""
    batch = placed(positions, np.asarray(moves, float) / COAST, **settings)
    batch.step(torch.zeros(batch.num_envs, 1, 2))
    after = batch.records()
    return np.stack([after["x"], after["y"]], 1), np.stack([after["x_dot"], after["y_dot"]], 1)


def inside(points, slack=0.0):
    """Whether points [..., 2] lie within the rectangles, deeper than ``slack``."""
    x, y = points[..., 0, None], points[..., 1, None]
    left, bottom, right, top = KEPT_OUT.T
    within = (x > left + slack) & (x < right - slack) & (y > bottom + slack) & (y < top - slack)
    return within.any(-1)


def played(policy, copies=32, **settings):
    """Returns [B], last states and path of each copy [51, B, 2] under ``policy(obs [B, 4]) -> [B, 2]``."""
    batch = mlbits.make_batch(ID, copies, seed=3, autoreset="disabled", **settings)
    total, way = np.zeros(copies), [batch.obs[:, 0, :2].numpy().copy()]
    for _ in range(50):
        actions = np.clip(policy(batch.obs[:, 0].double().numpy()), -1, 1).astype(np.float32)
        total += batch.step(torch.from_numpy(actions)[:, None]).reward[:, 0].numpy()
        way.append(batch.obs[:, 0, :2].numpy().copy())
    assert batch.truncated.all() and not batch.terminated.any()
    return total, batch.records(), np.array(way)


def straight(obs):
    """Head for the goal, braking before it."""
    return ((GOAL - obs[:, :2]) * 5 - obs[:, 2:]) / 25


def around(obs):
    """Head for a corner of the wall, along its arm, and then straight for the goal."""
    corner = np.where(obs[:, :1] < 10.9, [[11.0, 3.05]], [[15.2, 3.05]])
    ahead = corner - obs[:, :2]
    ahead = ahead / np.abs(ahead).max(1, keepdims=True)
    return np.where(obs[:, :1] < 15, ahead, straight(obs))


def heading(degrees):
    """Returns of full power along x and a little along y."""
    power = np.array([1.0, math.tan(math.radians(degrees))])
    return played(lambda obs: np.broadcast_to(power, (len(obs), 2)))[0]


def test_motion_agrees_with_an_ode_solver():
    power, start = np.array([0.3, -0.8], np.float32), [0.2, -0.1, 7.0, -3.0]

    def derivative(_, state):
        return [*state[2:], *(5 * (25 * power.astype(float) - state[2:]))]

    solved = solve_ivp(derivative, (0, 0.12), start, rtol=1e-10, atol=1e-12, t_eval=[0.04, 0.08, 0.12]).y.T
    batch = placed([start[:2]], start[2:])
    for wanted in solved:
        step = batch.step(power[None])
        state = batch.records()[0]
        assert [state[name] for name in ("x", "y", "x_dot", "y_dot")] == pytest.approx(wanted, abs=1e-8)
        assert step.obs[0, 0].tolist() == pytest.approx(wanted, abs=1e-5)
        assert float(step.reward) == pytest.approx(-math.dist(wanted[:2], GOAL), rel=1e-6)


def test_full_power_reaches_a_metre_per_step():
    batch = placed([[0, 0]], wall=False, horizon=None)
    before = 0.0
    for _ in range(60):
        before = float(batch.records()["x"][0])
        batch.step(torch.tensor([[1.0, 0.0]]))
    assert batch.records()["x"][0] - before == pytest.approx(1, abs=1e-4)
    assert batch.records()["x_dot"][0] == pytest.approx(25, abs=1e-3)


@pytest.mark.parametrize(
    ("start", "move", "end", "stopped"),
    [
        ((12.5, 0.0), (2.0, 0.5), (13.0, 0.5), "x"),  # against the back, then along it
        ((12.5, 0.0), (2.0, 3.0), (13.0, 1.0), "xy"),  # then into the corner with the arm
        ((12.0, 0.5), (0.5, 2.0), (12.5, 1.0), "y"),  # against an arm from within
        ((13.0, 0.0), (1.0, 0.0), (13.0, 0.0), "x"),  # touching already
        ((13.0, 0.0), (-1.0, 0.5), (12.0, 0.5), ""),  # and away
        ((13.0, 1.0), (1.0, 1.0), (13.0, 1.0), "xy"),  # in the corner
        ((10.0, 2.0), (3.0, 0.0), (11.0, 2.0), "x"),  # an arm's end
        ((10.0, 2.4), (2.0, 1.0), (11.0, 3.4), "x"),  # and past it along its end
        ((10.0, 3.0), (6.0, 0.0), (16.0, 3.0), ""),  # along the outer side
        ((10.0, 3.5), (6.0, -1.5), (16.0, 3.0), "y"),  # down to it, and on
        ((16.0, 0.0), (-2.0, 0.0), (15.0, 0.0), "x"),  # from behind
        ((10.0, 0.0), (1000.0, 0.0), (13.0, 0.0), "x"),  # at any speed
        ((0.0, 300.0), (20.0, -600.0), (20.0, -300.0), ""),  # past the wall: at y = 3 it is at x = 9.9, at -3 at 10.1
    ],
)
def test_contact_by_hand(start, move, end, stopped):
    for mirror in (1, -1):  # the wall is the same above and below
        position, velocity = moved([[start[0], mirror * start[1]]], [[move[0], mirror * move[1]]])
        assert position[0] == pytest.approx([end[0], mirror * end[1]], abs=1e-9)
        speed = np.array(move) / COAST * math.exp(-0.2)
        wanted = [0 if name in stopped else part for name, part in zip("xy", speed, strict=True)]
        assert velocity[0] * [1, mirror] == pytest.approx(wanted)
        free, _ = moved([[start[0], mirror * start[1]]], [[move[0], mirror * move[1]]], wall=False)
        assert free[0] == pytest.approx([start[0] + move[0], mirror * (start[1] + move[1])])


def test_no_move_passes_through_the_wall_at_any_speed():
    """Random moves of up to kilometres: free ones are not affected, all others end earlier, never inside the wall."""
    rng = np.random.default_rng(8)
    starts = rng.uniform([8, -6], [18, 6], (15_000, 2))
    starts = starts[~inside(starts)][:4000]
    moves = rng.normal(size=starts.shape) * 10 ** rng.uniform(-1, 3.5, (len(starts), 1))
    reached, velocities = moved(starts, moves)
    # Where the straight line is while it may be near the wall, sampled every two centimetres or finer.
    length = np.linalg.norm(moves, axis=1, keepdims=True)
    along = np.linspace(0, 1, 1001)[:, None, None] * np.minimum(1, 20 / length)
    line = starts + along * moves
    crosses, grazes = inside(line, 0.02).any(0), inside(line, -0.02).any(0)
    free = ~grazes
    assert free.sum() > 500 and crosses.sum() > 500
    np.testing.assert_allclose(reached[free], (starts + moves)[free], rtol=1e-12, atol=1e-9)
    assert (velocities[free] != 0).all()
    assert ((velocities[crosses] == 0).any(1)).all()
    assert not inside(reached, 1e-12).any()
    # A line that crosses the wall is stopped at the first side that it meets.
    first = inside(line[:, crosses], 0.0).argmax(0)
    met = np.take_along_axis(line[:, crosses], first[None, :, None], 0)[0]
    slid = np.abs(reached[crosses] - met).min(1)
    step = np.minimum(20, length[crosses, 0]) / 1000
    assert (
        slid < np.maximum(2 * step, 1e-9)
    ).mean() > 0.9  # the rest met a second side, or slid past the end of the first


def test_long_random_driving_never_gets_inside_the_wall():
    batch = placed(np.tile([12.5, 0.0], (256, 1)), horizon=None)
    rng = np.random.default_rng(0)
    heading = rng.uniform(-1, 1, (256, 1, 2))
    for k in range(400):
        if k % 5 == 0:
            heading = np.where(rng.random((256, 1, 1)) < 0.3, rng.uniform(-1, 1, (256, 1, 2)), heading)
            homesick = np.sign(np.array([13.0, 0.0]) - batch.obs.double().numpy()[..., :2])
            heading = np.where(rng.random((256, 1, 1)) < 0.3, homesick, heading)
        batch.step(torch.from_numpy(heading.astype(np.float32)))
        states = batch.records()
        assert not inside(np.stack([states["x"], states["y"]], 1), 1e-9).any()
    assert len(set(np.round(states["x"], 3))) > 100


def test_straight_for_the_goal_ends_in_the_trap():
    total, states, way = played(straight)
    np.testing.assert_allclose(states["x"], 13.0, atol=1e-6)
    assert np.abs(states["y"]).max() < 1
    assert total.max() < -700
    free, states, _ = played(straight, wall=False)
    np.testing.assert_allclose(states["x"], 25.0, atol=0.1)
    assert free.min() > -440
    assert way[..., 0].max() <= 13.0


def test_the_path_around_is_far_better_and_small_steps_towards_it_are_worse():
    threshold = mlbits.registered()[ID].reward_threshold
    total, states, _ = played(around)
    assert total.min() > threshold
    np.testing.assert_allclose(states["x"], 25.0, atol=0.1)
    trapped = played(straight)[0]
    assert total.min() > trapped.max() + 250

    # Slightly different headings are trapped too, and cost reward: no small change leads out of the trap.
    returns = [heading(degrees).mean() for degrees in (0, 2, 4, 6)]
    assert returns == sorted(returns, reverse=True)
    assert returns[3] < returns[0] - 5

    # Going around at full speed does not solve it either: the mass has to stop at the goal.
    def onward(obs):
        return np.where(obs[:, :1] < 15, around(obs), [[1.0, 0.0]])

    assert played(onward)[0].max() < threshold


def test_starts_and_spaces():
    batch = mlbits.make_batch(ID, 5000, seed=1)
    states = batch.records()
    for name in ("x", "y"):
        assert 0.099 < np.abs(states[name]).max() <= 0.1
        assert states[name].std() == pytest.approx(0.1 / math.sqrt(3), rel=0.05)
    assert not states["x_dot"].any() and not states["y_dot"].any()
    assert batch.action_space.shape == (2,)
    assert batch.observation_space.high.tolist() == [math.inf, math.inf, 25, 25]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"wall": 1}, "wall: got 1; wanted True or False"), ({"horizon": -3}, "horizon: got -3")],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)


def test_pictures_show_the_mass_the_wall_and_the_goal():
    batch = placed([[0, 0], [13, 1], [99, -99]], [(0.0, 0.0), (0.0, 10.0), (25.0, 0.0)])
    text = [batch.render("ansi", copy).splitlines() for copy in range(3)]
    assert text[0][4] == "..A.............#..........G.."
    assert text[1][2] == "..............###............."
    assert text[1][3][15] == text[2][8][29] == "A"
    assert text[1][9] == "x=+13.00 m, y=+1.00 m, speed 10.0 m/s"
    assert "#" not in placed([[0, 0]], wall=False).render("ansi")
    blue, green, grey = (38, 110, 214), (63, 158, 92), (90, 94, 102)
    image = batch.render(copy=0)
    assert tuple(image[6 * 18, 3 * 18]) == blue
    assert tuple(image[6 * 18, 28 * 18]) == green
    assert tuple(image[6 * 18, 17 * 18]) == grey
    assert tuple(placed([[0, 0]], wall=False).render()[6 * 18, 17 * 18]) != grey
    assert (batch.render(copy=2) == blue).all(-1).any()  # at the edge


def test_a_wider_wall_with_longer_arms_keeps_out_of_its_own_rectangles():
    wide = {"half_width": 4.0, "arm_length": 6.0}  # the back 13..15 by -5..5, the arms 7..15 by 3..5 and -5..-3
    ends, _ = moved([[6.5, 4.0], [6.5, 2.5], [10.0, 6.0], [12.5, 0.0]], [[2, 0], [2, 0], [0, -2], [2, 0]], **wide)
    assert np.allclose(ends, [[7, 4], [8.5, 2.5], [10, 5], [13, 0]])


def test_the_narrow_gap_of_the_widest_picture_is_drawn():
    batch = mlbits.make_batch(ID, 1, half_width=9.0, arm_length=4.0)
    assert "#" in batch.render("ansi")
    assert batch.render("rgb_array").shape[2] == 3


@pytest.mark.parametrize(("name", "value"), [("half_width", 0.5), ("half_width", math.inf), ("arm_length", 13)])
def test_walls_that_do_not_fit_are_named(name, value):
    with pytest.raises(GameError, match=f"{name}: got {value}"):
        mlbits.make_batch(ID, 1, **{name: value})
