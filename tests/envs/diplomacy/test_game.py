"""Diplomacy as a game: boards through their doors, masks, rewards, ends of games, observations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test

import mlbits
from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.game import Game
from mlbits.envs.diplomacy.board import Board, load_board
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    ARMY,
    COAST,
    CONVOY,
    FALL_RETREATS,
    FLEET,
    MOVE,
    SEA,
    SPRING_RETREATS,
    SUPPORT_MOVE,
)
from mlbits.envs.diplomacy.files.vectors import movement_phases
from mlbits.envs.diplomacy.game import diplomacy, diplomacy_fva, diplomacy_mini, game_on
from mlbits.envs.diplomacy.order_parser import parse_order
from mlbits.envs.diplomacy.order_reasons import why_illegal
from mlbits.envs.diplomacy.position import Position, Unit, first_position
from mlbits.envs.diplomacy.random_play import RandomGames
from mlbits.envs.diplomacy.records import read_position, write_position
from mlbits.envs.diplomacy.vocabulary import convoy_paths, vocabulary
from mlbits.envs.doors.pettingzoo_envs import make_parallel
from mlbits.envs.engine.batch import GameBatch

STANDARD = load_board("standard")
MINI = load_board("mini")
both_boards = pytest.mark.parametrize(
    "board", [MINI, pytest.param(STANDARD, marks=pytest.mark.slow)], ids=["mini", "standard"]
)
RANDOM_PLAY = Path(__file__).parent / "differential.jsonl.gz"


BUILDS = {
    "mini": (
        {
            "phase": "W1901A",
            "units": {"ARDEN": ["A ARN"], "BRENN": ["A EMA", "F BAY", "A BOR"]},
            "centers": {"ARDEN": ["ALT", "AVE", "ISL"], "BRENN": ["BIR"]},
        },
        {(ARMY, "ALT"), (ARMY, "AVE"), (FLEET, "AVE")},
        {"EMA", "BAY", "BOR"},
    ),
    "standard": (
        {
            "phase": "W1901A",
            "units": {"FRANCE": ["A BUR"], "GERMANY": ["A MUN", "F HOL", "A RUH"]},
            "centers": {"FRANCE": ["PAR", "BRE", "MAR"], "GERMANY": ["MUN"]},
        },
        {(ARMY, "PAR"), (ARMY, "BRE"), (FLEET, "BRE"), (ARMY, "MAR"), (FLEET, "MAR")},
        {"MUN", "HOL", "RUH"},
    ),
}


def slots_of(position: Any, power: int) -> list[Any]:
    units = [d.unit for d in position.dislodged.values()] if position.dislodged else list(position.units.values())
    return sorted((u for u in units if u.power == power), key=lambda u: int(position.board.province_of[u.location]))


def mini(last_year: int | None = None, scoring: str = "centers", start: dict[str, Any] | None = None) -> Game:
    """The small board from another position, by the driver that is compiled for DiplomacyMini."""
    return game_on(MINI, last_year, scoring, "standard", "datc-2.4", start, name="DiplomacyMini")


def idle_coast(position: Any, order: Any) -> bool:
    """Whether it helps an army to a named coast: the same order as without the coast, and masks have only that."""
    return (
        order.target >= len(position.board.provinces)
        and order.other in position.units
        and (position.units[order.other].kind == ARMY)
    )


def test_the_vocabulary_has_the_known_number_of_convoys() -> None:
    """DeepMind's vocabulary of the standard board has 9,022 convoys: paths over sea that visit no sea twice."""
    assert sum(map(len, convoy_paths(STANDARD).values())) == 9022


@pytest.mark.slow
def test_every_order_of_the_vectors_is_in_the_vocabulary() -> None:
    words, missing = vocabulary(STANDARD), []
    for position, orders in movement_phases(RANDOM_PLAY, STANDARD):
        for province, order in orders.items():
            unit = position.units[province]
            # A move over land may be written with or without VIA; without it, it is the plain move.
            if words.find(words.moving(unit.kind, unit.location), order) < 0:
                missing.append((position.phase_name, order))
    assert not missing


@both_boards
def test_masks_allow_exactly_the_legal_orders(board: Board) -> None:
    """Every entry of every unit's list in random games, compared with the rules in plain Python."""
    game = diplomacy(last_year=1912) if board is STANDARD else diplomacy_mini(last_year=1912)
    batch = GameBatch(game, 24 if board is STANDARD else 64, seed=5)
    words, slots = vocabulary(board), game.layout["slots"]
    for _ in range(9 if board is STANDARD else 3):  # some years on
        batch.step(batch.sample_actions())
    checked = retreats = 0
    for _ in range(12):
        batch.step(batch.sample_actions())
        masks = batch.legal_mask.view(batch.num_envs, game.seats, slots, -1).numpy()
        records = batch.state().numpy().reshape(-1).view(game.state_dtype)
        for i, (record, mask) in enumerate(zip(records, masks, strict=True)):
            if record["phase"] == ADJUSTMENTS or (i >= 4 and record["phase"] not in (SPRING_RETREATS, FALL_RETREATS)):
                continue
            position = read_position(record, board)
            for power in range(game.seats):
                for slot, unit in enumerate(slots_of(position, power)):
                    retreat = bool(position.dislodged)
                    number = (words.retreating if retreat else words.moving)(unit.kind, unit.location)
                    size = words.start[number + 1] - words.start[number]
                    orders = [words.order(number, i) for i in range(size)]
                    allowed = [why_illegal(position, power, o) is None and not idle_coast(position, o) for o in orders]
                    assert np.array_equal(mask[power, slot, :size], allowed)
                    assert not mask[power, slot, size:].any()
                    checked, retreats = checked + size, retreats + retreat
    assert checked > (50_000 if board is STANDARD else 5_000)
    assert retreats > 0


@pytest.mark.slow
def test_masks_have_long_convoys() -> None:
    """Seas full of fleets and an army or two: every order of every unit, compared with the rules in plain Python."""
    rng = np.random.default_rng(4)
    played, words = RandomGames(diplomacy(last_year=1912), 1, seed=5), vocabulary(STANDARD)
    slots, width = played.game.layout["slots"], words.width
    seas = [p for p, province in enumerate(STANDARD.provinces) if province.type == SEA]
    coasts = [p for p, province in enumerate(STANDARD.provinces) if province.type == COAST]
    through = checked = 0
    for turn in range(60):
        kinds = (CONVOY, SUPPORT_MOVE, MOVE) if turn < 10 else (CONVOY,)
        fleets = rng.choice(seas, rng.integers(8, 18), replace=False).tolist()
        armies = rng.choice(coasts, 2, replace=False).tolist()
        units = {p: Unit(0, FLEET, p) for p in fleets} | {p: Unit(1, ARMY, p) for p in armies}
        position = Position(STANDARD, 1905, 0, units)
        write_position(position, played.states[0])
        played.prepare()
        mask = np.zeros((7, slots * width), bool)
        played.masks(mask)
        mask = mask.reshape(7, slots, width)
        for power in (0, 1):
            for slot, unit in enumerate(slots_of(position, power)):
                number = words.moving(unit.kind, unit.location)
                size = words.start[number + 1] - words.start[number]
                for i in range(size):
                    order = words.order(number, i)
                    if order.kind == CONVOY and order.other not in armies:
                        assert not mask[power, slot, i]
                    elif order.kind in kinds and not idle_coast(position, order):
                        allowed = why_illegal(position, power, order) is None
                        assert mask[power, slot, i] == allowed, order
                        checked += 1
                        if allowed and order.kind == CONVOY:
                            end, near = int(order.target), STANDARD.fleet_neighbours[order.location]
                            through += order.other not in near and end not in near  # it is adjacent to neither
    assert checked > 10_000
    assert through > 500


@pytest.mark.parametrize("name", ["mini", pytest.param("standard", marks=pytest.mark.slow)])
def test_masks_of_builds_and_disbands(name: str) -> None:
    start, can_build, can_go = BUILDS[name]
    game = mini(1908, start=start) if name == "mini" else diplomacy(start=start, last_year=1910)
    board, words = game.layout["board"], vocabulary(game.layout["board"])
    mask = GameBatch(game, 1).legal_mask.view(game.seats, game.layout["slots"], -1).numpy()
    builder, loser = (board.power_index[name] for name in start["units"])
    for slot in range(2):  # two builds
        orders = [words.order(words.building(builder), i) for i in np.flatnonzero(mask[builder, slot])]
        built = {(order.unit, board.locations[order.location]) for order in orders if order.location >= 0}
        assert built == can_build
    assert np.flatnonzero(mask[builder, 2]).tolist() == [0]
    chosen = [words.order(words.disbanding, i) for i in np.flatnonzero(mask[loser, 0])]
    assert {board.locations[order.location] for order in chosen} == can_go
    assert mask[loser, 1, 1:].any()
    assert not mask[loser, 2, 1:].any()


@pytest.mark.parametrize(
    ("scoring", "rewards"),
    [("draw_size", (0.5, 0.5)), ("sum_of_squares", (0.9, 0.1)), ("centers", (0.75, 0.25))],
)
def test_a_draw_is_divided_by_the_scoring(scoring: str, rewards: tuple[float, float]) -> None:
    start = {"phase": "F1901M", "units": {"ARDEN": ["A ALT"], "BRENN": ["A BIR"]},
             "centers": {"ARDEN": ["ALT", "AVE", "ISL"], "BRENN": ["BIR"]}}  # fmt: skip
    game = mini(1901, scoring, start)
    batch = GameBatch(game, 2)
    step = batch.step(batch.legal_mask.view(2, 3, game.layout["slots"], -1).int().argmax(-1))
    assert step.terminated.all()
    assert not step.truncated.any()
    assert step.reward[0].tolist() == pytest.approx([*rewards, 0.0])


def test_enough_centers_win() -> None:
    centers = {"ARDEN": ["ALT", "AVE", "ISL", "BIR", "BAY", "EMA"], "BRENN": ["SMA"]}
    start = {"phase": "F1901M", "units": {"ARDEN": ["A ALT"], "BRENN": ["A BOR"]}, "centers": centers}
    batch = GameBatch(mini(start=start), 1)
    step = batch.step(batch.legal_mask.view(1, 3, batch.game.layout["slots"], -1).int().argmax(-1))
    assert step.terminated.all()
    assert step.reward[0].tolist() == [1.0, 0.0, 0.0]


def test_a_time_limit_truncates_and_pays_nothing() -> None:
    batch = GameBatch(diplomacy_mini().limited_to(2), 3, seed=1)
    assert not batch.step(batch.sample_actions()).truncated.any()
    step = batch.step(batch.sample_actions())
    assert step.truncated.all()
    assert not step.terminated.any()
    assert (step.reward == 0).all()


@pytest.mark.slow
def test_welfare_pays_centers_minus_units() -> None:
    """Both units of ARDEN are disbanded in the first winter; BRENN keeps its two."""
    game = diplomacy(map="mini", variant="welfare", last_year=1901)
    board, slots = game.layout["board"], game.layout["slots"]
    batch = GameBatch(game, 1)
    hold = lambda: batch.legal_mask.view(1, 3, slots, -1).int().argmax(-1)  # noqa: E731
    assert not batch.step(hold()).terminated.any()
    assert not batch.step(hold()).terminated.any()
    assert batch.active.all()  # all powers may disband
    action = hold()
    for slot, unit in enumerate(board.initial_units[:2]):
        action[0, 0, slot] = 1 + int(board.province_of[unit[2]])
    step = batch.step(action)
    assert step.terminated.all()
    assert step.reward[0].tolist() == [2.0, 0.0, 0.0]


@both_boards
def test_observations_show_the_position_from_each_seat(board: Board) -> None:
    batch = GameBatch(diplomacy(last_year=1910) if board is STANDARD else diplomacy_mini(), 1)
    areas, status, slots = (batch.obs[key][0].numpy() for key in ("areas", "status", "slots"))
    position, seats = first_position(board), len(board.powers)
    for seat in range(seats):
        for p, unit in position.units.items():
            assert areas[seat, p, 4 + unit.kind] == 1
            assert areas[seat, p, 8 : 8 + seats].tolist() == [r == (unit.power - seat) % seats for r in range(seats)]
        if board is STANDARD:
            assert areas[seat, board.province_of[board.location_index["STP/SC"]], 7] == 2
        assert areas[seat, :, 4].sum() == sum(province.home == seat for province in board.provinces)
        assert status[seat, :5].tolist() == [1, 0, 0, 0, 0]
        own = slots_of(position, seat)
        assert slots[seat, : len(own)].tolist() == [1 + vocabulary(board).moving(u.kind, u.location) for u in own]
        assert not slots[seat, len(own) :].any()


@pytest.mark.slow
def test_orders_are_observed_in_the_next_phase() -> None:
    batch = GameBatch(diplomacy(last_year=1910), 1)
    words, position = vocabulary(STANDARD), first_position(STANDARD)
    action = np.zeros((1, 7, batch.game.layout["slots"]), np.int64)
    france = STANDARD.power_index["FRANCE"]
    texts = {"PAR": "A PAR - BUR", "MAR": "A MAR S A PAR - BUR", "BRE": "F BRE - MAO"}
    for slot, unit in enumerate(slots_of(position, france)):
        order = parse_order(texts[STANDARD.locations[unit.location]], STANDARD, position)
        action[0, france, slot] = words.find(words.moving(unit.kind, unit.location), order)
    batch.step(torch.from_numpy(action))
    areas = batch.obs["areas"][0].numpy()
    par, mar, bur = (STANDARD.location_index[name] for name in ("PAR", "MAR", "BUR"))
    first = 10 + 3 * 7
    assert areas[0, par, first + 2] == 1  # a move
    assert areas[0, mar, first + 4] == 1  # support of a move
    assert areas[0, mar, 20 + 3 * 7] == 1 + par
    assert areas[0, par, 21 + 3 * 7] == areas[0, mar, 21 + 3 * 7] == 1 + bur
    assert areas[france, par, 22 + 3 * 7] == 1
    assert areas[0, bur, 5] == 1
    assert areas[0, par, 19 + 3 * 7] == 0


@pytest.mark.slow
def test_the_standard_board_through_its_doors() -> None:
    env = make_parallel("mlbits/Diplomacy-v0", last_year=1903)
    parallel_api_test(env, num_cycles=12)
    batch = mlbits.make_batch("mlbits/Diplomacy-v0", 3, last_year=1903, seed=2)
    ended = 0
    for _ in range(30):
        step = batch.step(batch.sample_actions())
        ended += int(step.terminated.sum())
        sums = step.reward.sum(1)
        assert ((sums - step.terminated.float()).abs() < 1e-5).all()
    assert ended > 0
    bad = batch.sample_actions()
    bad[0, 0, 0] = vocabulary(STANDARD).width - 1
    with pytest.raises(IllegalActionError):
        batch.step(bad)


@pytest.mark.parametrize(
    "env", ["mlbits/DiplomacyMini-v0", pytest.param("mlbits/Diplomacy-v0", marks=pytest.mark.slow)]
)
def test_a_copys_game_does_not_depend_on_the_batch(env: str) -> None:
    """Copy 5 of a batch of 9 plays the same game as alone."""
    many = mlbits.make_batch(env, 9, last_year=1905, seed=3, autoreset="disabled")
    alone = mlbits.make_batch(env, 1, last_year=1905, seed=3, autoreset="disabled")
    for _ in range(6):
        actions = many.sample_actions()
        many.step(actions)
        alone.step(actions[5:6])
        for key in ("areas", "status", "slots"):
            assert (many.obs[key][5] == alone.obs[key][0]).all()


def test_france_against_austria() -> None:
    game = diplomacy_fva()
    board = game.layout["board"]
    assert board.powers == ("FRANCE", "AUSTRIA")
    assert board.victory_centers == 24
    assert len(board.initial_units) == 6
    assert {province.home for province in board.provinces if province.id in ("LON", "MOS", "ANK")} == {None}
    assert len(board.centers) == 34
    assert game.action_space.shape == (23,)


def test_pictures() -> None:
    env = make_parallel("mlbits/DiplomacyMini-v0", render_mode="rgb_array")
    env.reset(seed=0)
    empty = env.render()
    env.step({agent: np.zeros(env.action_space(agent).shape, np.int64) for agent in env.agents})  # hold
    played = env.render()
    assert empty.shape == played.shape
    assert (empty != played).any()
    text = make_parallel("mlbits/DiplomacyMini-v0", render_mode="ansi")
    text.reset(seed=0)
    assert "ARDEN" in text.render().upper()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"last_year": 1900}, "last_year"),
        ({"scoring": "even"}, "scoring"),
        ({"variant": "chaos"}, "variant"),
        ({"rules": "house"}, "rules"),
        ({"map": "moon"}, "map"),
        ({"start": {"phase": "X"}}, "phase"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(GameError, match=named):
        diplomacy(**settings)


def test_a_users_map_file(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    path.write_text(json.dumps(dict(load_board("mini").source)))
    game = diplomacy(map=str(path))
    assert game.seats == 3
    assert game.action_space == diplomacy_mini().action_space
    path.write_text(path.read_text()[:200])
    with pytest.raises(GameError, match=r"board\.json: line 1"):
        diplomacy(map=str(path))


@pytest.mark.slow
def test_the_small_board_plays_to_its_end() -> None:
    played = RandomGames(diplomacy_mini(), 64, seed=1)
    assert 64 * 16 <= played.finish() <= 64 * 40
