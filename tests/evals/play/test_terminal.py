"""A person at the board: scripts of lines in, text out; no line is needed to end."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mlbits.agents.agent import Decision
from mlbits.agents.search.trees import DRAW, LOSS, WIN
from mlbits.cli import main
from mlbits.envs.core.errors import UnknownIdError
from mlbits.envs.registry import make_game, registered
from mlbits.evals.play.config import PlayError, PlayFlags
from mlbits.evals.play.hints import _rank, adviser, hint
from mlbits.evals.play.match import Match
from mlbits.evals.play.moves import Moves
from mlbits.evals.play.terminal import check_readable, play, sit_down
from mlbits.evals.play.typed import read_action, read_orders
from mlbits.selfplay.runs.saved_agents import open_guest

TTT, C4, GOOF, BLOTTO = (f"mlbits/{name}-v0" for name in ("TicTacToe", "ConnectFour", "Goofspiel", "Blotto"))
SLOW_TO_COMPILE = ("mlbits/Chess", "mlbits/Diplomacy", "mlbits/DiplomacyFvA", "mlbits/DiplomacyMini")
TINY = "--preset none --total-steps 64 --num-envs 4 --no-video --quiet --eval-episodes 2 --agent.num-steps 8".split()


class First:
    """Plays the first legal action; notes what it is asked."""

    experience = None

    def __init__(self):
        self.asked = []

    def act(self, obs, legal_mask, generator, *, greedy=False):
        self.asked.append(greedy)
        action = legal_mask.to(torch.uint8).argmax(-1) if legal_mask is not None else torch.zeros(len(obs), dtype=int)
        return Decision(action, action, None)

    def state_dict(self):
        return {}


class Holds(First):
    """Gives the first legal order to each of its units, which hold."""

    def act(self, obs, legal_mask, generator, *, greedy=False):
        slots = obs["slots"].shape[-1]
        action = legal_mask.view(len(legal_mask), slots, -1).to(torch.uint8).argmax(-1)
        return Decision(action, action, None)


def talk(script, game=TTT, **flags):
    """What is said to a script of lines, and whether the game came to its end."""
    out, settings = io.StringIO(), flags.pop("settings", {})
    ended = play(PlayFlags(game=game, **{"seed": 3, **flags}), settings, io.StringIO(script), out)
    return out.getvalue(), ended


def test_a_whole_game_is_told_move_by_move(monkeypatch):
    monkeypatch.setattr("mlbits.evals.play.guests.open_guest", lambda *words, **more: First())
    said, ended = talk("b2\nc1\na3\n", against=("random",))
    assert ended
    parts = said.split("your move> ")
    assert parts[0] == (
        "mlbits/TicTacToe-v0; seat 0: you, seat 1: random. Type a move, or help.\n\n"
        "  a b c\n1 . . .\n2 . . .\n3 . . .\nX to move\n\n"
    )
    assert parts[1] == (
        "you play b2\n\n  a b c\n1 . . .\n2 . X .\n3 . . .\nO to move\n\n"
        "random plays a1\n\n  a b c\n1 O . .\n2 . X .\n3 . . .\nX to move\n\n"
    )
    assert "random plays b1\n" in parts[2]
    assert parts[3] == "you play a3\n\n  a b c\n1 O O X\n2 . X .\n3 X . .\nX won\n\nyou win (you 1, random -1)\n"


def test_the_second_seat_waits_for_the_first(monkeypatch):
    monkeypatch.setattr("mlbits.evals.play.guests.open_guest", lambda *words, **more: First())
    said, ended = talk("b2\n", against=("random",), seat=1)
    assert not ended
    assert said.index("random plays a1") < said.index("your move> you play b2") < said.index("random plays b1")
    assert said.endswith("your move> \nthe game was left\n")


def test_the_first_and_the_last_of_many_moves_are_shown_without_the_pass():
    game = make_game("mlbits/Go-v0", size=5)
    assert Moves(game).some(None, 0, list(range(26))) == "a1 to e5, pass"
    assert Moves(game).some(None, 0, list(range(25))) == "a1 to e5"


@pytest.mark.parametrize("word", ["/nonexistent", "runs/mime", "tests"])
def test_a_path_that_is_no_run_is_refused_as_one(word, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    with pytest.raises(PlayError, match=f"game: {word} is no run's folder and no environment"):
        sit_down(PlayFlags(game=word), {})
    with pytest.raises(UnknownIdError, match="did you mean 'mlbits/TicTacToe-v0'"):
        sit_down(PlayFlags(game="mlbits/TicTacTo-v0"), {})


def test_wrong_moves_are_explained_and_asked_again():
    said, _ = talk("z9\nb22\nb2\nb2\nA1\n\nquit\n", against=("random",), seed=4)
    assert "no move 'z9'; wanted a1, b1, c1, a2, b2, c2, a3, b3, c3, or help" in said
    assert "no move 'b22'; did you mean b2?" in said
    assert said.count("you play b2") == 1
    assert "b2 is not legal now; wanted " in said
    assert "you play a1" in said or "A1 is not legal now" in said  # in any case of the letters
    assert said.endswith("your move> the game was left\n")


@pytest.mark.slow
def test_undo_goes_back_to_the_decision_before():
    said, _ = talk("undo\nb2\na1\nundo\nundo\nundo\nmoves\nquit\n", against=("mcts@simulations=2",))
    assert said.count("there is nothing to take back") == 2
    assert said.count("taken back") == 2
    empty = "  a b c\n1 . . .\n2 . . .\n3 . . .\nX to move\n"
    assert said.count(empty) == 2 and f"taken back\n\n{empty}" in said
    assert "your move> a1 b1 c1 a2 b2 c2 a3 b3 c3\n" in said


def chosen(match, word, seat=0):
    """Plays what a person types; the others answer."""
    match.choose(seat, match.turn, read_action(match, seat, word))
    match.advance()


def test_undo_restores_returns_and_finished_games():
    match = Match(GOOF, {"cards": 3, "returns": "total_points"}, opponents={"first": First()}, seed=1)
    chosen(match, "3")
    before = (list(match.returns), match.batch.render("ansi"), match.slots(0))
    chosen(match, "2")
    assert match.over and match.returns != before[0]
    match.undo(0, match.turn)
    assert not match.over and (match.returns, match.batch.render("ansi"), match.slots(0)) == before


@pytest.mark.slow
def test_help_board_and_hint():
    said, _ = talk("help\nboard\nhint\n", against=("mcts@simulations=500",), game=C4)
    assert "a move   its name: a, b, c and 4 more" in said or "a to g" in said
    for word in ("moves", "hint", "undo", "board", "quit"):
        assert f"\n  {word} " in said
    assert said.count("X to move") == 2
    lines = said.split("after 500 simulations\n")[1].splitlines()
    visits = [int(line.split()[3].replace(",", "")) for line in lines[:5]]
    assert visits == sorted(visits, reverse=True) and sum(visits) <= 500


def test_hints_say_what_is_proven():
    """O, who has a1 and a2, wins by a3 unless X takes it."""
    match = Match(TTT, opponents={"first": First()})
    first = adviser(open_guest("mcts@simulations=3000", TTT), match.words.game)
    for move in ("b1", "c1"):  # O answers a1, then a2
        chosen(match, move)
    lines = hint(match, 0, first)
    losing = [line for line in lines if "lost in 2" in line]
    assert lines[1].split()[0] == "a3" and len(losing) == 4


def test_hints_have_the_shortest_wins_first_and_the_shortest_losses_last():
    known = [(LOSS, 2), None, (WIN, 5), (LOSS, 6), (WIN, 3), (DRAW, 1)]
    assert sorted(known, key=_rank) == [(WIN, 3), (WIN, 5), None, (DRAW, 1), (LOSS, 6), (LOSS, 2)]


def test_a_won_position_is_said_with_its_distance():
    match = Match(TTT, opponents={"first": First()})
    for move in ("c3", "c2"):  # O answers a1, b1; X threatens nothing but c1, which wins
        chosen(match, move)
    lines = hint(match, 0, adviser(None, match.words.game))
    assert lines[0] == "this position is won in 1"
    assert lines[1].split() == ["c1", "won", "in", "1", "(moves", "of", "both", "sides)"]


def test_simultaneous_moves_are_not_shown_before_both_are_chosen(monkeypatch):
    opponent = First()
    monkeypatch.setattr("mlbits.evals.play.guests.open_guest", lambda *words, **more: opponent)
    said, _ = talk("moves\nhelp\n", game=GOOF, against=("random",), settings={"cards": 4})
    assert opponent.asked == []  # nobody has chosen yet
    assert "plays" not in said and "bid" not in said
    said, ended = talk("4\n3\n2\n1\n", game=GOOF, against=("random",), settings={"cards": 4})
    assert ended and opponent.asked == [False] * 3  # the last card is forced; mixed strategies are drawn
    assert said.index("you play 4") < said.index("random plays 1")


@pytest.mark.slow
def test_several_seats_and_one():
    said, ended = talk("10-0-0\n", game=BLOTTO, against=("random", "random"), settings={"seats": 3}, seat=1)
    assert ended and "seat 0: random, seat 1: you, seat 2: random (2)" in said and "you play 10-0-0" in said
    said, _ = talk("down\nright\nhint\n", game="mlbits/GridWorld-v0")
    assert "seat 0: you. " in said and "you play down" in said and "value " in said
    said, ended = talk("right\nright\n", game="mlbits/GridWorld-v0", settings={"map": "S.G"})
    assert ended and said.splitlines()[-1].startswith("return ")


@pytest.mark.parametrize(
    "env",
    [env for env in registered() if env.startswith("mlbits/") and not env.startswith(("mlbits/Dipl", "mlbits/Chess"))],
)
def test_every_game_is_played_by_what_its_moves_are_called(env):
    match = Match(env, opponents={"first": First()}, seed=1)
    check_readable(match)
    if match.batch.action.kind == "continuous":
        chosen(match, " ".join(f"{bound:g}" for bound in match.batch.action.low))
    elif match.waiting:
        shown = list(match.slots(0)[0].names.items())
        assert len({name for _, name in shown}) == len(shown)
        assert read_action(match, 0, shown[-1][1]) == [shown[-1][0]]
        chosen(match, shown[0][1])
        assert match.replay.steps
    match.close()


def test_numbers_are_typed_for_continuous_actions_and_taken_back():
    said, ended = talk("help\n1.5\n3\n1 1\nx\nnan\nundo\n-2\nquit\n", game="mlbits/Pendulum-v0")
    assert not ended and "Type numbers, or help." in said and "a move   1 number from -2 to 2" in said
    parts = said.split("your move> ")
    assert parts[2].startswith("you play 1.5\nreward -") and "torque=+1.50" in parts[2]
    for part, typed in zip(parts[3:7], ("3", "1 1", "'x'", "nan"), strict=True):
        assert part.startswith(f"got {typed}; wanted 1 number from -2 to 2")
    assert parts[7].startswith("taken back\n") and "torque=+0.00" in parts[7]
    assert parts[8].startswith("you play -2\n") and "torque=-2.00" in parts[8]


def test_environments_of_gymnasium_are_read_as_they_write_themselves_or_as_numbers():
    said, ended = talk("9\n1\n1\n1\n", game="FrozenLake-v1", settings={"map_name": "4x4", "is_slippery": False})
    assert "no move '9'; wanted 0, 1, 2, 3, or help" in said and "(Down)" in said and "HFFG" in said
    assert ended and said.endswith("\nreturn 0\n")  # into the hole
    said, _ = talk("1\nundo\nquit\n", game="CartPole-v1")
    assert said.count("observation: [") == 3 and "reward 1, 1 in all" in said
    start, _, again = (line for line in said.splitlines() if "observation" in line)
    assert start == again


def test_what_is_to_be_found_out_stays_hidden_in_the_terminal():
    said, ended = talk("1\n", game="mlbits/Bandit-v0", settings={"arms": 3, "horizon": 2})
    assert not ended and said.count("observation: ") == 2


MINI = "mlbits/DiplomacyMini-v0"


def test_orders_of_diplomacy_are_typed_in_standard_notation():
    script = (
        "Army Altburg to Westmark, f ave h\nA BIR H\nA ALT - BAY, F AVE - ARN\nfoo\nundo\nundo\nA ALT-EMA\nsend\nundo\n"
    )
    said, ended = talk(script, game=MINI, against=("random",), settings={"last_year": 1901})
    parts = said.split("your orders> ")
    assert not ended and "Type orders, or help." in parts[0] and "ARDEN  2 centres  A ALT, F AVE" in parts[0]
    assert parts[1] == "  A ALT: A ALT - WMA\n  F AVE: F AVE H\n'send' sends them\n"
    assert parts[2].startswith("A BIR H: the unit in BIR belongs to BRENN")
    assert parts[3].startswith("A ALT - BAY: BAY is not a neighbour of ALT")  # then none of the line is taken
    assert parts[4].startswith("order 'foo': got 'FOO'; wanted a province")
    assert parts[5] == "the orders are taken back\n" and parts[6] == "there is nothing to take back\n"
    assert parts[7] == "  A ALT: A ALT - EMA\n  F AVE: F AVE H (no order yet)\n'send' sends them\n"
    assert "you play A ALT - EMA, F AVE H\nrandom (seat 1) plays " in parts[8] and "Fall 1901" in parts[8]
    assert parts[9].startswith("taken back\n\nSpring 1901, moves")


def test_orders_of_builds_fill_one_after_another_and_waives_too():
    match = Match(MINI, opponents={"holds": Holds()})
    for orders in ("A ALT - WMA, F AVE - WSO", "F WSO - ISL"):
        given = read_orders(match, 0, orders, {})
        match.choose(0, match.turn, [given.get(k, min(slot.names)) for k, slot in enumerate(match.slots(0))])
    match.advance()
    assert [slot.heading for slot in match.slots(0)] == ["build 1", "build 2"]
    orders = read_orders(match, 0, "A ALT B", {})
    assert list(orders) == [0] and read_orders(match, 0, "build a altburg", orders) == orders
    both = read_orders(match, 0, "WAIVE; F AVE B", orders)
    assert [match.slots(0)[k].names[both[k]] for k in (0, 1)] == ["A ALT B", "F AVE B"]
    idle = read_orders(match, 0, "WAIVE, waive", {})
    assert [match.slots(0)[k].names[idle[k]] for k in (0, 1)] == ["WAIVE", "WAIVE"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CartPole-v7"], "CartPole-v7"),
        ([TTT, "--seat", "2"], "--seat: got 2; wanted 0 to 1, the seats of mlbits/TicTacToe-v0"),
        ([TTT, "--seat", "-1"], "seat: got -1; wanted a number from 0"),
        ([TTT, "--against", "mctz"], "did you mean 'mcts'"),
        ([TTT, "--against", "mcts", "random"], "--against: got 2 players; wanted at most 1"),
        ([TTT, "--against", "mcts@simulations=0"], "got 0; wanted a number of at least 1"),
        ([BLOTTO, "--against", "mcts"], "got Blotto with 2 seats that act at once"),
        (["mlbits/GridWorld-v0", "--against", "random"], "has one seat, yours; wanted no opponents"),
        ([TTT, "--search.simulations", "5"], "none of the players can search"),
        (["mlbits/Ticktacktoe-v0"], "did you mean"),
        ([], "missing"),
    ],
)
def test_mistakes_are_refused(words, message, capsys):
    assert main(["play", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_its_own_opponent_and_helps(tmp_path, capsys, monkeypatch):
    run = str(tmp_path / "mine")
    assert (
        main(["train", "ppo", "mlbits/Othello-v0", *TINY, "--agent.hidden", "8", "--env.size", "4", "--out", run]) == 0
    )
    match, helper = sit_down(PlayFlags(game=run, seed=1), {})
    assert match.names == ["person", "mine"] and len(match.slots(0)[0].names) == 4
    assert match.batch.action.nvec == (17,) and helper.config.simulations == 200
    match, helper = sit_down(PlayFlags(game=run, against=("random",), seed=1), {})
    assert match.names == ["person", "random"] and helper.config.simulations == 200
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO("hint\nmoves\n"))
    # The game is the first word, not the run that plays against the person.
    words = [
        "play",
        "mlbits/Othello-v0",
        "--env.size",
        "4",
        "--against",
        run,
        "--search.simulations",
        "9",
        "--seed",
        "1",
    ]
    assert main(words) == 0
    assert "seat 1: mine" in (said := capsys.readouterr().out) and "after 9 simulations" in said
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["play", "mlbits/Othello-v0", "--against", run]) == 2
    assert "was trained on the" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_terminal_the_game_is_left_at_once():
    words = [sys.executable, "-m", "mlbits", "play", TTT, "--against", "random"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.endswith("your move> \nthe game was left\n") and done.stderr == ""


def test_ctrl_c_leaves_the_game():
    words = [sys.executable, "-m", "mlbits", "play", TTT, "--against", "random"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as game:
        shown = b""
        while not shown.endswith(b"your move> "):
            shown += os.read(game.stdout.fileno(), 1000)
        time.sleep(0.1)
        game.send_signal(signal.SIGINT)
        rest, errors = game.communicate(timeout=30)
    assert (game.returncode, rest, errors) == (0, b"\nthe game was left\n", b"")
