"""Random games of Go: against a plain rewrite of the rules, and against other libraries where they are installed."""

from collections import Counter

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.board.go_tables import EMPTY_BOARD, ZOBRIST
from tests.envs.board.plain_go import EMPTY, PASS, PlainGo

ID = "mlbits/Go-v0"
slow = pytest.mark.slow


def board_of(record, points):
    marks = []
    for point in range(points):
        seats = [seat for seat in (0, 1) if int(record["stones"][seat, point >> 6]) >> (point & 63) & 1]
        assert len(seats) < 2
        marks.append("XO"[seats[0]] if seats else EMPTY)
    return "".join(marks)


def kind_of(game, point):
    """Why a free point may or may not be played."""
    board, other, own = game.after(point)
    return ("repeats" if board in game.past else "new", "takes" if other else "suicide" if own else "adds")


def compare(copies, seed, plies=10**6, rarely_pass=False, **settings):
    """Play random games beside the plain rules; returns how often points of each kind were met."""
    batch = mlbits.make_batch(ID, copies, seed=seed, autoreset="disabled", **settings)
    rows, columns = batch.obs.shape[-2:]
    points, rng = rows * columns, np.random.default_rng(seed)
    games = [PlainGo(rows, columns, settings.get("suicide", False)) for _ in range(copies)]
    kinds, ended = Counter(), 0
    while plies > 0 and not (batch.terminated | batch.truncated).all():
        actions = torch.zeros((copies, 2), dtype=torch.int64)
        live = ~(batch.terminated | batch.truncated)
        for b, game in enumerate(games):
            if live[b]:
                legal = [point for point in range(points) if game.legal(point)]
                assert batch.legal_mask[b, game.turn].nonzero().ravel().tolist() == [*legal, points], game.board
                kinds.update(kind_of(game, point) for point in range(points) if game.board[point] == EMPTY)
                passes = not legal or rng.random() < (0.02 if rarely_pass else 1 / (len(legal) + 1))
                actions[b, game.turn] = points if passes else rng.choice(legal)
        step = batch.step(actions)
        for b, game in enumerate(games):
            if live[b]:
                action = int(actions[b, game.turn])
                game.play(PASS if action == points else action)
                record = batch.records()[b]
                assert board_of(record, points) == game.board
                bits = [int(ZOBRIST["XO".index(mark), k]) for k, mark in enumerate(game.board) if mark != EMPTY]
                assert int(record["position"]) == int(np.bitwise_xor.reduce(np.array([EMPTY_BOARD, *bits], np.uint64)))
                assert np.count_nonzero(record["seen"]) == len(game.past)
                assert bool(step.terminated[b]) == (game.passes == 2)
                if game.passes == 2:
                    ended += 1
                    margin = game.lead() - float(batch.game.params["twice_komi"][0]) / 2
                    assert record["lead"] == game.lead()
                    assert step.reward[b].tolist() == [np.sign(margin), -np.sign(margin)]
        plies -= 1
    return kinds, ended


@pytest.mark.parametrize("suicide", [False, True])
def test_small_games_repeat_in_every_way_and_are_as_the_plain_rules_have_them(suicide):
    kinds, ended = compare(60, 1, size=3, suicide=suicide, rarely_pass=True, horizon=50)
    assert ended > 3
    assert {("repeats", way) for way in ("takes", "adds", "suicide")} <= kinds.keys()
    assert min(kinds["repeats", "takes"], kinds["repeats", "adds"], kinds["new", "suicide"]) > 20, kinds


@pytest.mark.parametrize(
    ("copies", "settings"),
    [
        (4, {"size": 5, "suicide": True, "komi": 1}),
        (2, {"size": 9}),
        pytest.param(1, {"size": 19, "suicide": True, "plies": 250}, marks=slow),
        pytest.param(2, {"size": 13}, marks=slow),
        pytest.param(12, {"size": 9, "suicide": True, "rarely_pass": True}, marks=slow),
        pytest.param(20, {"size": 4, "columns": 7}, marks=slow),
        pytest.param(200, {"size": 3, "suicide": True, "rarely_pass": True, "horizon": 200}, marks=slow),
        pytest.param(20, {"size": 2, "columns": 2, "rarely_pass": True, "horizon": 100}, marks=slow),
        pytest.param(20, {"size": 1, "columns": 6, "rarely_pass": True, "horizon": 200}, marks=slow),
    ],
)
def test_random_games_are_as_the_plain_rules_have_them(copies, settings):
    kinds, ended = compare(copies, 7, **settings)
    assert kinds["new", "adds"] > 100 * (settings["size"] > 2)
    assert ended > 0 or "rarely_pass" in settings or "plies" in settings


@slow
@pytest.mark.parametrize("size", [3, 9])
def test_openspiel_has_the_same_moves_but_for_repetitions(size):
    """Its mask knows the simple ko only; a repetition ends its games."""
    pyspiel = pytest.importorskip("pyspiel")
    rng, points, repetitions = np.random.default_rng(size), size * size, 0
    for _ in range(150 if size == 3 else 10):
        theirs = pyspiel.load_game("go", {"board_size": size, "komi": 7.5, "max_game_length": 1000}).new_initial_state()
        batch = mlbits.make_batch(ID, 1, size=size, komi=7.5, autoreset="disabled")
        seen = {str(theirs.observation_tensor(0)[: 2 * points])}
        while True:
            seat = theirs.current_player()
            assert batch.active[0].tolist() == [seat == 0, seat == 1]
            allowed = []
            for action in theirs.legal_actions():
                repeated = action < points and str(theirs.child(action).observation_tensor(0)[: 2 * points]) in seen
                repetitions += repeated
                allowed += [] if repeated else [action]
            assert batch.legal_mask[0, seat].nonzero().ravel().tolist() == allowed
            passes = len(allowed) == 1 or rng.random() < 0.03
            action = points if passes else int(rng.choice(allowed[:-1]))
            theirs.apply_action(action)
            seen.add(str(theirs.observation_tensor(0)[: 2 * points]))
            step = batch.step(torch.tensor([[action * (seat == 0), action * (seat == 1)]]))
            if step.truncated.any():
                break
            assert step.terminated.tolist() == [theirs.is_terminal()]
            if theirs.is_terminal():
                assert step.reward[0].tolist() == theirs.returns()
                break
    assert repetitions > 10 or size > 3


@slow
def test_sgfmills_board_takes_the_same_stones_and_counts_the_same_areas():
    boards = pytest.importorskip("sgfmill.boards")
    batch = mlbits.make_batch(ID, 20, size=9, suicide=True, seed=4, autoreset="disabled")
    theirs = [boards.Board(9) for _ in range(20)]
    counted = 0
    while not (batch.terminated | batch.truncated).all():
        live, turns = ~(batch.terminated | batch.truncated), batch.records()["turn"].copy()
        actions = batch.sample_actions()
        step = batch.step(actions)
        for b, board in enumerate(theirs):
            action = int(actions[b, turns[b]])
            if live[b] and action < 81:
                board.play(*divmod(action, 9), "bw"[turns[b]])
            marks = {"b": "X", "w": "O", None: EMPTY}
            got = board_of(batch.records()[b], 81)
            assert got == "".join(marks[board.get(*divmod(point, 9))] for point in range(81))
            if live[b] and step.terminated[b]:
                assert batch.records()["lead"][b] == board.area_score()
                counted += 1
    assert counted > 15
