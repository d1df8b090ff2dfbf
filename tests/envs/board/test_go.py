"""Go: games and positions counted, values, captures and ends by hand, planes, text and picture."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.board.go import symmetries
from mlbits.envs.board.go_drawing import BLACK, star_points
from mlbits.envs.board.go_tables import BIT_PLACES, DE_BRUIJN, TOP_SIX, ZOBRIST
from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.engine.cpu_copies import Copies
from tests.envs.board.game_trees import Tree
from tests.envs.board.play import play, result

ID = "mlbits/Go-v0"
slow = pytest.mark.slow
LONG = 190  # for 2x2: beyond any game that is searched; one size of state is compiled once


def names(batch, words):
    """The names of the points of a set."""
    moves = batch.game.layout["moves"][0]
    return {moves[k] for k in range(len(moves) - 1) if int(words[k >> 6]) >> (k & 63) & 1}


def may_play(batch, name):
    seat = int(batch.records()["turn"][0])
    return bool(batch.legal_mask[0, seat, batch.game.layout["moves"][seat].index(name)])


@pytest.mark.parametrize("suicide", [False, True])
@pytest.mark.parametrize(
    ("size", "counts"),
    [
        (2, [5, 21, 68, 156, 316, 604, 1088, 2184, 4184, 8024]),
        pytest.param(3, [10, 91, 738, 5281, 33384], marks=pytest.mark.slow),
        pytest.param(5, [26, 651, 15650], marks=pytest.mark.slow),
    ],
)
def test_games_are_counted(size, counts, suicide):
    horizon = {"horizon": LONG} if size == 2 else {}
    assert Tree(ID, size=size, suicide=suicide, **horizon).perft(len(counts)) == counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "columns", "count"),
    [(2, 2, 57), (3, 3, 12_675), pytest.param(1, 2, 5, marks=slow), pytest.param(2, 3, 489, marks=slow)],
)
def test_all_legal_positions_are_reached_and_no_others(rows, columns, count):
    tree = Tree(ID, size=rows, columns=columns, **({"horizon": LONG} if rows == columns == 2 else {}))
    found = {tree.root()["stones"].tobytes()}
    fresh = tree.root()
    while len(fresh):
        both = fresh.repeat(2)
        both["turn"] = np.arange(len(both)) % 2
        # Without a past: what is asked is which boards there are.
        both["seen"], both["taken"], both["passes"], both["played"], both["elapsed"] = 0, 0, 0, 0, 0
        after = np.concatenate([states for _, _, states in tree.children(both)])
        after = after[after["passes"] == 0]
        keys = [stones.tobytes() for stones in after["stones"]]
        first = {key: k for k, key in enumerate(keys) if key not in found}
        found |= first.keys()
        fresh = after[list(first.values())]
    assert len(found) == count


@pytest.mark.parametrize(
    ("rows", "columns", "value"), [pytest.param(1, 2, 0, marks=slow), pytest.param(1, 3, 3, marks=slow), (2, 2, 1)]
)
def test_perfect_play_gives_the_known_scores(rows, columns, value):
    """By alpha-beta over games, not positions: what may be played depends on the past."""
    copies = Copies(mlbits.make_game(ID, size=rows, columns=columns, horizon=LONG), autoreset="disabled", threads=1)
    copies.reset()

    def best(state, low, high):
        """Black's lead with perfect play, or a bound of it if it does not lie between ``low`` and ``high``."""
        copies.states[0] = state
        copies.refresh()
        seat, total = int(state["turn"]), -99 if state["turn"] == 0 else 99
        for action in np.flatnonzero(copies.legal[0, seat])[::-1]:
            copies.states[0] = state
            copies.refresh()
            copies.step(np.array([[action * (seat == 0), action * (seat == 1)]]))
            assert not copies.truncated[0]
            after = copies.states[0].copy()
            lead = int(after["lead"]) if copies.terminated[0] else best(after, low, high)
            if seat == 0:
                total, low = max(total, lead), max(low, lead)
            else:
                total, high = min(total, lead), min(high, lead)
            if low >= high:
                break
        return total

    start = copies.states[0].copy()
    assert best(start, value - 1, value) >= value
    assert best(start, value, value + 1) <= value


def test_a_stone_without_a_liberty_is_taken_and_so_are_several_chains_at_once():
    batch, _ = play(ID, "a1 a2 e5 b1", size=5)
    assert batch.render("ansi").splitlines()[1:3] == ["1 . O . . .", "2 O . . . ."]
    # c3 takes b3, c2 and the two stones d3, d4.
    batch, _ = play(ID, "a3 b3 b2 c2 b4 d3 d2 d4 c1 a1 e3 b1 e4 e2 d5 e1 c4 a5 c3", size=5)
    wanted = ["1 O O X . O", "2 . X . X O", "3 X . X . X", "4 . X X . X", "5 O . . X ."]
    assert batch.render("ansi").splitlines()[1:6] == wanted
    assert names(batch, batch.records()["taken"][0, 1]) == {"b3", "c2", "d3", "d4"}


def test_ko():
    moves = "b1 c1 a2 d2 b3 c3 c2 b2"
    batch, _ = play(ID, moves, size=5)
    assert not may_play(batch, "c2")
    assert batch.obs[0, 0, 4].nonzero().tolist() == [[1, 2]]
    assert torch.equal(batch.obs[0, 1, 4], batch.obs[0, 0, 4])
    with pytest.raises(IllegalActionError, match="seat 0 in Go: got 7"):
        batch.step(torch.tensor([[7, 0]]))
    batch, _ = play(ID, moves + " e5 e4 c2", size=5)
    assert batch.render("ansi").splitlines()[2] == "2 X . X O ."
    assert not may_play(batch, "b2")


def test_a_snapback_is_no_ko():
    batch, _ = play(ID, "c1 a2 c2 b2 b3 e5 a3 e4 a1 b1", size=5)
    assert batch.render("ansi").splitlines()[1:3] == ["1 . O X . .", "2 O O X . ."]
    batch, _ = play(ID, "c1 a2 c2 b2 b3 e5 a3 e4 a1 b1 a1", size=5)
    assert batch.render("ansi").splitlines()[1:3] == ["1 X . X . .", "2 . . X . ."]


def test_a_triple_ko_does_not_go_round():
    setup = "b1 c1 a2 d2 b3 c3 b4 c4 a5 d5 b6 c6 b7 c7 a8 d8 b9 c9 c2 b8 c5"
    before, _ = play(ID, setup)
    assert may_play(before, "b2") and may_play(before, "b5")
    batch, _ = play(ID, setup + " b2 c8 b5 c2 b8")
    assert batch.records()["turn"][0] == 0
    assert not may_play(batch, "c5"), "would be the board before b2"
    assert not may_play(batch, "c8"), "a simple ko"
    batch, _ = play(ID, setup + " b2 c8 b5 c2 b8 i9 i8 c5")
    assert batch.render("ansi").splitlines()[5] == "5 X . X O . . . . ."


def test_suicide_of_one_stone_is_never_legal_and_of_more_by_setting():
    moves = "a1 a2 e5 b2 e4 c1"
    batch, _ = play(ID, moves, size=5)
    assert not may_play(batch, "b1")
    batch, _ = play(ID, moves, size=5, suicide=True)
    assert may_play(batch, "b1")
    batch, step = play(ID, moves + " b1", size=5, suicide=True)
    assert batch.render("ansi").splitlines()[1:3] == ["1 . . O . .", "2 O O . . ."]
    assert not step.terminated.any() and batch.records()["turn"][0] == 1
    for suicide in (False, True):
        batch, _ = play(ID, "e5 a2 e4 b1", size=5, suicide=suicide)
        assert not may_play(batch, "a1")


@slow
def test_a_board_of_one_point_leaves_passes_only():
    for suicide in (False, True):
        batch = mlbits.make_batch(ID, 1, size=1, suicide=suicide, autoreset="disabled")
        assert batch.legal_mask.tolist() == [[[False, True], [True, False]]]
        batch.step(torch.tensor([[1, 0]]))
        step = batch.step(torch.tensor([[0, 1]]))
        assert step.terminated.all() and step.reward.tolist() == [[-1, 1]]


WALLS = "b1 d1 b2 d2 b3 d3 b4 d4 b5 d5"


@pytest.mark.parametrize(
    ("moves", "settings", "wanted", "words"),
    [
        (f"{WALLS} pass pass", {}, [-1, 1], "O won by 7.5"),
        (f"{WALLS} pass pass", {"komi": 0}, [0, 0], "draw"),
        (f"{WALLS} pass pass", {"komi": -1}, [1, -1], "X won by 1"),
        (f"{WALLS} c3 pass pass", {"komi": 1}, [0, 0], "draw"),
        (f"{WALLS} c3 pass pass", {"komi": 0.5}, [1, -1], "X won by 0.5"),
        (f"{WALLS} c3 pass pass", {"komi": 2}, [-1, 1], "O won by 1"),
        # A stone that could not live counts all the same, and its area with it.
        (f"{WALLS} e1 pass pass", {"komi": 0}, [1, -1], "X won by 6"),
        ("c3 pass pass", {}, [1, -1], "X won by 17.5"),
        ("pass pass", {"komi": 0}, [0, 0], "draw"),
        ("pass pass", {}, [-1, 1], "O won by 7.5"),
    ],
)
def test_areas_are_counted(moves, settings, wanted, words):
    batch, step = play(ID, moves, size=5, **settings)
    assert step.terminated.tolist() == [True]
    assert step.reward[0].tolist() == wanted
    assert batch.render("ansi").splitlines()[-1] == words


@pytest.mark.parametrize("moves", ["a1 pass pass", "i9 pass pass", "e1 pass pass"])
def test_an_area_reaches_over_the_whole_board(moves):
    assert play(ID, moves)[0].records()["lead"].tolist() == [81]


def test_passes_apart_do_not_end_the_game():
    assert result(ID, "pass c3 pass c2 c4 pass", size=5) is None
    batch, _ = play(ID, "pass", size=5)
    assert batch.render("ansi").splitlines()[-1] == "O to move, X passed"


def test_the_default_komi_and_others():
    default = {size: mlbits.make_game(ID, size=size).params["twice_komi"][0] / 2 for size in (1, 4, 5, 9, 19)}
    assert default == {1: 0.5, 4: 0.5, 5: 7.5, 9: 7.5, 19: 7.5}
    assert mlbits.make_game(ID, size=9, columns=4).params["twice_komi"] == 1
    assert mlbits.make_game(ID, komi=-3).params["twice_komi"] == -6


def test_observations_by_hand():
    batch, _ = play(ID, "c3 b2", size=5)
    own, other = [[2, 2]], [[1, 1]]
    for seat in (0, 1):
        planes = batch.obs[0, seat]
        assert planes[0].nonzero().tolist() == (own, other)[seat]
        assert planes[1].nonzero().tolist() == (other, own)[seat]
        assert planes[2].tolist() == [[1 - seat] * 5] * 5
        assert planes[3].nonzero().tolist() == other
        assert not planes[4].any()
    batch, _ = play(ID, "c3 pass", size=5)
    assert batch.obs[0, :, 3].tolist() == [[[1] * 5] * 5] * 2
    assert not mlbits.make_batch(ID, 1, size=5).obs[0, :, 3].any()
    batch, _ = play(ID, "i9 a1 h9")
    assert batch.obs[0, 0, :2].nonzero().tolist() == [[0, 8, 7], [0, 8, 8], [1, 0, 0]]
    assert batch.legal_mask[0].sum(1).tolist() == [1, 79]


def test_a_horizon_truncates_and_nobody_wins():
    batch = mlbits.make_batch(ID, 64, size=5, horizon=51, autoreset="disabled")
    for k in range(51):
        before = batch.terminated.clone()
        step = batch.step(batch.sample_actions())
        assert torch.equal(step.truncated, ~before & (k == 50))
    cut = step.truncated & ~step.terminated
    assert 0 < cut.sum() < 64
    assert not step.reward[cut].any()
    assert (batch.records()["outcome"] == 0).tolist() == cut.tolist()
    assert mlbits.make_game(ID).horizon == 324


def test_without_a_limit_the_table_of_positions_is_one():
    copies = Copies(mlbits.make_game(ID, size=5, horizon=51).unlimited(), 32, autoreset="disabled")
    copies.reset()
    slots, n, rng, cut = copies.states["seen"].shape[1], np.arange(32), np.random.default_rng(0), 0
    for _ in range(400):
        turn = copies.states["turn"]
        noise = rng.random((32, 26)) * copies.legal[n, turn]
        noise[:, 25] *= 0.02  # passes are rare
        actions = np.zeros((32, 2), np.int64)
        actions[n, turn] = np.where(copies.states["over"] != 0, 0, noise.argmax(1))
        copies.step(actions)
        full = np.count_nonzero(copies.states["seen"], axis=1) == slots - 1
        assert np.array_equal(copies.truncated, full & ~copies.terminated) or copies.states["over"].all()
        cut += copies.truncated.sum()
    assert cut > 0


def test_a_new_game_knows_nothing_of_the_last():
    batch, fresh = (mlbits.make_batch(ID, 16, size=5, autoreset=mode) for mode in ("same_step", "disabled"))
    ended = torch.zeros(16, dtype=torch.bool)
    own = [name for name, *_ in batch.game.state_fields]
    while not ended.all():
        step = batch.step(batch.sample_actions())
        for b in (step.terminated | step.truncated).nonzero().ravel().tolist():
            ended[b] = True
            assert batch.records()[b][own] == fresh.records()[b][own]
            assert torch.equal(batch.obs[b], fresh.obs[b]) and torch.equal(batch.legal_mask[b], fresh.legal_mask[b])


def test_random_bits_differ_and_places_are_those_of_the_bits():
    assert len(np.unique(ZOBRIST)) == ZOBRIST.size
    assert abs(np.bitwise_count(ZOBRIST).mean() - 32) < 1
    for place in range(64):
        assert BIT_PLACES[(np.array([1 << place], np.uint64) * DE_BRUIJN >> TOP_SIX).item()] == place


def test_symmetries_of_boards_that_are_no_squares():
    assert [len(symmetries(*shape)) for shape in ((1, 1), (1, 3), (3, 1), (2, 3), (3, 3))] == [1, 2, 2, 4, 8]
    assert symmetries(2, 3).actions[1].tolist() == [3, 4, 5, 0, 1, 2, 6]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size: got 0; wanted an integer from 1 to 19"),
        ({"size": 20}, "size: got 20"),
        ({"size": 9.0}, "size: got 9.0"),
        ({"columns": 20}, "columns: got 20; wanted an integer from 1 to 19"),
        ({"komi": 6.3}, "komi: got 6.3; wanted a multiple of 0.5"),
        ({"komi": float("nan")}, "komi: got nan; wanted a finite number from -81 to 81"),
        ({"komi": "7.5"}, "komi: got '7.5'"),
        ({"suicide": 1}, "suicide: got 1; wanted True or False"),
        ({"horizon": 0}, "horizon: got 0; wanted an integer from 1 to 32768"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)


def test_the_picture_marks_the_last_stone_where_not_to_play_and_areas():
    def pixel(batch, name, right=0):
        moves = batch.game.layout["moves"][0]
        row, column = divmod(moves.index(name), 5)
        left = (batch.render().shape[1] - 5 * 40) // 2
        return batch.render()[42 + 40 * row + 20, left + 40 * column + 20 + right].tolist()

    batch, _ = play(ID, "b1 c1 a2 d2 b3 c3 c2 b2", size=5)
    assert max(pixel(batch, "b2", 10)) < 100 < min(pixel(batch, "c3", 10)), "a ring on a white stone"
    assert pixel(batch, "c2") == [176, 70, 48]
    batch, _ = play(ID, "b2", size=5)
    assert min(pixel(batch, "b2", 10)) > 150
    batch, _ = play(ID, f"{WALLS} pass pass", size=5)
    assert pixel(batch, "a3") == list(BLACK)
    assert min(pixel(batch, "e3")) > 230
    assert pixel(batch, "c3", 5) != list(BLACK) and min(pixel(batch, "c2")) < 200


def test_star_points_of_the_usual_boards():
    assert sorted(star_points(9, 9)) == [(2, 2), (2, 6), (4, 4), (6, 2), (6, 6)]
    assert sorted(star_points(13, 13)) == [(3, 3), (3, 9), (6, 6), (9, 3), (9, 9)]
    assert sorted(star_points(19, 19)) == [(r, c) for r in (3, 9, 15) for c in (3, 9, 15)]
    assert star_points(5, 5) == [(2, 2)] and star_points(4, 4) == [] and star_points(6, 5) == []
