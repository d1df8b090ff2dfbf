"""Gridworlds on fixed maps: moves, slips, rewards, maps and observations worked by hand, and the pictures."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats

import mlbits
from mlbits.envs.core.drawing import BLUE, BROWN, GREEN, GREY, INK, RED
from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.envs.core.game import Game
from mlbits.envs.gridworld import cliff_walk, four_rooms, gridworld
from mlbits.envs.gridworld.drawing import draw_overlay
from mlbits.envs.gridworld.maps import MAPS, neighbours, read_map
from mlbits.envs.gridworld.rules import CLIFF, EMPTY, GOAL, PIT, WALL

UP, RIGHT, DOWN, LEFT = range(4)
ALL_KINDS = "S#X/.CG"  # cells 0 floor, 1 wall, 2 pit / 3 floor, 4 cliff, 5 goal


def env_of(map: str, **settings: Any) -> Any:
    env = gym.make("mlbits/GridWorld-v0", map=map, **settings).unwrapped
    env.reset(seed=0)
    return env


def walk(env: Any, actions: list[int]) -> list[int]:
    return [env.step(action)[0] for action in actions]


def test_moves_walls_and_edges() -> None:
    env = env_of("...G/.S../.#../....", max_episode_steps=-1)
    #  0  1  2  G
    #  4 S5  6  7
    #  8  #  10 11
    # 12 13 14 15
    assert walk(env, [UP, UP, LEFT, LEFT, DOWN, DOWN, DOWN, DOWN]) == [1, 1, 0, 0, 4, 8, 12, 12]
    assert walk(env, [RIGHT, UP, RIGHT, UP, LEFT]) == [13, 13, 14, 10, 10], "9 is a wall"
    assert walk(env, [RIGHT, RIGHT, DOWN, DOWN, RIGHT]) == [11, 11, 15, 15, 15]
    assert walk(env, [UP, UP]) == [11, 7]
    assert env.step(UP)[2], "the goal ends the episode"


def test_rewards_and_ends_of_each_kind_of_cell() -> None:
    rewards = {"step_cost": 0.125, "goal_reward": 3.0, "pit_reward": -2.0, "cliff_reward": -5.0}
    env = env_of("SC/XG", **rewards)
    assert env.step(LEFT)[:4] == (0, -0.125, False, False), "at the edge: stays, and pays"
    assert env.step(RIGHT)[:4] == (0, -5.0, False, False), "off the cliff: back to the start"
    assert env.step(DOWN)[:4] == (2, -2.0, True, False)
    env = env_of(".G/S#", **rewards)
    assert env.step(RIGHT)[:4] == (2, -0.125, False, False), "into a wall: stays, and pays"
    assert env.step(UP)[:4] == (0, -0.125, False, False)
    assert env.step(RIGHT)[:4] == (1, 3.0, True, False)


def test_the_default_rewards_and_horizon() -> None:
    env = env_of("S.G/..X")
    assert env.step(RIGHT)[1] == pytest.approx(-0.01)
    assert env.step(RIGHT)[1:3] == (1.0, True)
    env.reset()
    walk(env, [DOWN, RIGHT])
    assert env.step(RIGHT)[1:3] == (-1.0, True)
    whole = gym.make("mlbits/GridWorld-v0", map="S.G/..X")  # its limit is Gymnasium's TimeLimit around the game
    whole.reset(seed=0)
    flags = [whole.step(UP)[2:4] for _ in range(100)]
    assert flags == [(False, False)] * 99 + [(False, True)]


def test_a_cliff_leads_back_to_the_first_start() -> None:
    env = env_of("S.C/..G/S..", max_episode_steps=-1)
    starts = {env.reset()[0] for _ in range(50)}
    assert starts == {0, 6}
    while env.reset()[0] != 6:
        pass
    assert walk(env, [UP, UP, RIGHT, RIGHT]) == [3, 0, 1, 0]


def test_starts_are_equally_likely() -> None:
    """Without an S any floor cell is a start; walls, goals, pits and cliffs never are."""
    batch = mlbits.make_batch("mlbits/GridWorld-v0", 4000, map="..#/.CX/..G", seed=3)
    counts = np.bincount(batch.obs[:, 0].numpy(), minlength=9)
    assert np.flatnonzero(counts).tolist() == [0, 1, 3, 6, 7]
    assert stats.chisquare(counts[[0, 1, 3, 6, 7]]).pvalue > 0.01


@pytest.mark.parametrize("slip", [0.0, 0.2, 1.0])
def test_slips_go_in_a_uniform_direction(slip: float) -> None:
    n = 20_000
    batch = mlbits.make_batch("mlbits/GridWorld-v0", n, map="..G/.S./...", slip=slip, seed=4)
    where = batch.step(np.full(n, RIGHT)).obs[:, 0].numpy()
    counts = np.bincount(where, minlength=9)[[1, 5, 7, 3]]  # up, right, down, left of the middle
    assert counts.sum() == n
    shares = np.array([slip / 4, 1 - slip + slip / 4, slip / 4, slip / 4])
    if slip == 0:
        assert counts.tolist() == [0, n, 0, 0]
    else:
        assert stats.chisquare(counts, shares * n).pvalue > 0.01


def test_four_rooms_by_hand() -> None:
    game = four_rooms()
    kinds = game.layout["kinds"]
    assert kinds.shape == (13, 13)
    assert (kinds == EMPTY).sum() + (kinds == GOAL).sum() == 104  # as in Sutton, Precup and Singh (1999)
    hallways = [(3, 6), (6, 2), (7, 9), (10, 6)]
    assert all(kinds[cell] == EMPTY for cell in hallways)
    closed = kinds.copy()
    for cell in hallways:
        closed[cell] = WALL
    assert rooms(kinds) == 1
    assert rooms(closed) == 4
    assert game.horizon == 200


def rooms(kinds: np.ndarray) -> int:
    """Connected areas of what is not wall."""
    left, count = set(np.flatnonzero(kinds.reshape(-1) != WALL).tolist()), 0
    width = kinds.shape[1]
    while left:
        count, front = count + 1, [left.pop()]
        while front:
            cell = front.pop()
            for other in (cell - width, cell + 1, cell + width, cell - 1):
                if other in left:
                    left.remove(other)
                    front.append(other)
    return count


def test_cliff_walk_by_hand() -> None:
    """Sutton and Barto's example 6.6: 13 steps along the edge cost 13; the cliff costs 100."""
    env = gym.make("mlbits/CliffWalk-v0")
    start = 36
    assert env.reset(seed=0)[0] == start
    assert env.step(RIGHT)[:4] == (start, -100.0, False, False)
    rewards = [env.step(action)[1] for action in [UP, *[RIGHT] * 11]]
    obs, reward, terminated, truncated, _ = env.step(DOWN)
    assert (obs, terminated, truncated) == (47, True, False)
    assert sum(rewards) + reward == -13
    assert cliff_walk().horizon == 200


@pytest.mark.parametrize("name", MAPS)
def test_every_named_map_can_be_solved(name: str) -> None:
    kinds, starts = read_map(name)
    table, reached = neighbours(kinds), set()
    for start in starts.tolist():
        front, seen = [start], {start}
        while front:
            cell = front.pop()
            if kinds.reshape(-1)[cell] == EMPTY:
                new = set(table[cell].tolist()) - seen
                seen |= new
                front += new
        assert any(kinds.reshape(-1)[cell] == GOAL for cell in seen), f"no path from {start}"
        reached |= seen
    assert reached <= set(np.flatnonzero(kinds.reshape(-1) != WALL).tolist())


def test_reading_a_map() -> None:
    kinds, starts = read_map(ALL_KINDS)
    assert kinds.tolist() == [[EMPTY, WALL, PIT], [EMPTY, CLIFF, GOAL]]
    assert starts.tolist() == [0]
    for same in ("S#X\n.CG", "\nS#X\n.CG\n", "S#X/ CG"):
        assert read_map(same)[0].tolist() == kinds.tolist()
    assert read_map("SG")[0].shape == (1, 2)
    assert read_map("S\nG")[0].shape == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S..\n..\n..G", "ragged rows: row 1 has 2 cells and row 0 has 3"),
        ("S.\n..", "there is no goal"),
        ("GG\n##", "no cell to start from"),
        ("S?\n.G", r"row 0, column 1 is '\?'; wanted one of"),
        ("", "got 1 x 0 cells"),
        ("S" + "." * 127 + "G", "got 1 x 129 cells; wanted sides from 1 to 128"),
        ("S\n" + ".\n" * 127 + "G", "got 129 x 1 cells"),
    ],
)
def test_bad_maps(text: str, message: str) -> None:
    with pytest.raises(GameError, match=message):
        gridworld(text)


@pytest.mark.parametrize(("name", "near"), [("8x9", "8x8"), ("four_room", "four_rooms"), ("Maze", "maze")])
def test_an_unknown_map_name(name: str, near: str) -> None:
    with pytest.raises(UnknownIdError, match=f"unknown map '{name}'; did you mean '{near}'"):
        gridworld(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slip": 1.5}, "slip: got 1.5"),
        ({"slip": -0.1}, "slip: got -0.1"),
        ({"slip": float("nan")}, "slip: got nan"),
        ({"goal_reward": float("inf")}, "goal_reward: got inf; wanted a finite number"),
        ({"step_cost": float("nan")}, "step_cost: got nan; wanted a finite number"),
        (
            {"observation": "rgb"},
            "observation: got 'rgb'; wanted one of 'index', 'one_hot', 'planes', 'pixels'",
        ),
        ({"horizon": 0}, "horizon: got 0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GameError, match=message):
        gridworld(**settings)


def test_the_largest_map_fits() -> None:
    side = 128
    env = env_of(
        "\n".join(["S" + "." * (side - 1), *["." * side] * (side - 2), "." * (side - 1) + "G"]), max_episode_steps=-1
    )
    assert walk(env, [RIGHT] * (side + 2))[-1] == side - 1
    assert walk(env, [DOWN] * (side - 2))[-1] == side * (side - 1) - 1
    assert env.step(DOWN)[:3] == (side * side - 1, 1.0, True)


def observed(observation: str, moves: list[int]) -> Any:
    env = env_of(ALL_KINDS, observation=observation)
    obs = env.reset(seed=0)[0]
    for move in moves:
        obs = env.step(move)[0]
    assert obs in env.observation_space
    return obs


def test_index_and_one_hot_by_hand() -> None:
    assert [observed("index", moves) for moves in ([], [DOWN])] == [0, 3]
    assert observed("one_hot", []).tolist() == [1, 0, 0, 0, 0, 0]
    assert observed("one_hot", [DOWN]).tolist() == [0, 0, 0, 1, 0, 0]


def test_planes_by_hand() -> None:
    planes = observed("planes", [DOWN])
    assert planes.shape == (5, 2, 3)
    agent, walls, goals, pits, cliffs = planes.tolist()
    assert agent == [[0, 0, 0], [1, 0, 0]]
    assert walls == [[0, 1, 0], [0, 0, 0]]
    assert goals == [[0, 0, 0], [0, 0, 1]]
    assert pits == [[0, 0, 1], [0, 0, 0]]
    assert cliffs == [[0, 0, 0], [0, 1, 0]]


def test_pixels_by_hand() -> None:
    pixels = observed("pixels", [DOWN])
    assert pixels.shape == (16, 24, 3)
    corners = [pixels[8 * row, 8 * column].tolist() for row in range(2) for column in range(3)]
    middles = [pixels[8 * row + 4, 8 * column + 4].tolist() for row in range(2) for column in range(3)]
    assert len({tuple(colour) for colour in corners}) == 5, "one colour per kind of cell"
    assert corners[0] == corners[3], "floor"
    assert middles[3] == [30, 90, 220], "the agent"
    assert [middle == corner for middle, corner in zip(middles, corners, strict=True)] == [True] * 3 + [False] + [
        True
    ] * 2
    blue = (pixels == [30, 90, 220]).all(-1)
    assert blue.sum() == 16 and blue[10:14, 2:6].all()


def test_pixels_have_the_documented_colours() -> None:
    """Floor pale, wall grey, pit red, cliff brown, goal green."""
    pixels = observed("pixels", [DOWN])
    corners = [pixels[8 * row, 8 * column].tolist() for row in range(2) for column in range(3)]
    floor, grey, red, brown, green = [245, 245, 240], [70, 70, 80], [200, 60, 50], [120, 80, 50], [60, 170, 90]
    assert corners == [floor, grey, red, floor, brown, green]


def test_the_agent_does_not_hide_the_goal_below_it() -> None:
    batch = mlbits.make_batch("mlbits/GridWorld-v0", 1, map="SG", observation="planes", autoreset="disabled")
    batch.step([[1]])  # right
    agent, _, goals, _, _ = batch.obs[0, 0].tolist()
    assert agent == goals == [[0, 1]]


def test_all_kinds_of_observation_agree_on_one_walk() -> None:
    batches = [
        mlbits.make_batch("mlbits/GridWorld-v0", 6, observation=kind, slip=0.3, seed=9)
        for kind in ("index", "one_hot", "planes", "pixels")
    ]
    for _ in range(30):
        cells = batches[0].obs[:, 0]
        assert (batches[1].obs[:, 0].argmax(-1) == cells).all()
        assert (batches[2].obs[:, 0, 0].flatten(1).argmax(-1) == cells).all()
        middles = batches[3].obs[:, 0, 4::8, 4::8]
        agent = (middles == middles.new_tensor([30, 90, 220])).all(-1).flatten(1)
        assert (agent.sum(1) == 1).all() and (agent.int().argmax(-1) == cells).all()
        actions = batches[0].sample_actions()
        for batch in batches:
            batch.step(actions)


def test_text() -> None:
    env = gym.make("mlbits/GridWorld-v0", map=ALL_KINDS, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "A#X\n.CG\n"
    env.step(DOWN)
    assert env.render() == ".#X\nACG\n"


def colour_at(image: np.ndarray, row: int, column: int, side: int = 48, across: float = 0.1) -> tuple[int, ...]:
    return tuple(image[int((row + 0.1) * side), int((column + across) * side)].tolist())


def test_the_picture() -> None:
    env = gym.make("mlbits/GridWorld-v0", map=ALL_KINDS, render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render()
    assert image.shape == (2 * 48 + 1, 3 * 48 + 1, 3)
    assert [colour_at(image, *cell) for cell in [(0, 1), (0, 2), (1, 1), (1, 2)]] == [GREY, RED, BROWN, GREEN]
    assert tuple(image[24, 24]) == BLUE
    env.step(DOWN)
    image = env.render()
    assert tuple(image[24, 24]) != BLUE and tuple(image[72, 24]) == BLUE


def test_the_overlay_shows_values_as_heat_and_the_policy_as_arrows() -> None:
    game = gridworld("S.../...G")
    plain = draw_overlay(game)
    values = np.array([0, 1, 2, 3, 0, np.nan, 2, 99])
    heat = draw_overlay(game, values)
    assert heat.shape == plain.shape == (2 * 48 + 1, 4 * 48 + 1, 3)
    low, *middle, high = [colour_at(heat, 0, column) for column in range(4)]
    assert (low, high) == ((190, 208, 240), (252, 214, 92))
    assert all(low[2] > colour[2] > high[2] for colour in middle)
    assert colour_at(heat, 1, 1) == colour_at(plain, 1, 1), "no value, no colour"
    assert colour_at(heat, 1, 3) == GREEN, "the goal keeps its colour"
    arrows = draw_overlay(game, policy=np.array([RIGHT, LEFT, UP, DOWN, -1, -1, -1, RIGHT]))
    assert [ink_in(arrows, column) for column in range(4)] == ["right", "left", "up", "down"]
    assert np.array_equal(arrows[49:], plain[49:]), "negative actions and goals have no arrow"
    shares = np.zeros((8, 4))
    shares[0] = [0, 1, 0, 0]
    assert ink_in(draw_overlay(game, policy=shares), 0) == "right"


def ink_in(image: np.ndarray, column: int) -> str:
    """The side of a cell in the first row to which its arrow points."""
    cell = (image[:48, column * 48 : (column + 1) * 48] == INK).all(-1)
    rows, columns = np.nonzero(cell)
    down, right = rows.mean() - 24, columns.mean() - 24
    return ("right" if right > 0 else "left") if abs(right) > abs(down) else ("down" if down > 0 else "up")


@pytest.mark.parametrize(
    ("values", "policy", "message"),
    [
        (np.zeros(3), None, r"values: got shape \(3,\); wanted \(8,\)"),
        (None, np.zeros(3), r"policy: got shape \(3,\); wanted \(8,\) or \(8, 4\)"),
        (None, np.zeros((8, 3)), r"policy: got shape \(8, 3\)"),
    ],
)
def test_overlays_of_a_wrong_shape(values: Any, policy: Any, message: str) -> None:
    with pytest.raises(GameError, match=message):
        draw_overlay(gridworld("S.../...G"), values, policy)


def test_no_overlay_without_a_map() -> None:
    from tests.games import throws

    game: Game = throws()
    with pytest.raises(GameError, match="Throws has no fixed map"):
        draw_overlay(game)
