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
from mlbits.evals.play.moves import Moves
from mlbits.evals.play.table import Table, check_game
from mlbits.evals.play.terminal import play, sit_down
from mlbits.selfplay.runs.saved_agents import open_guest

TTT, C4, GOOF, BLOTTO = (f"mlbits/{name}-v0" for name in ("TicTacToe", "ConnectFour", "Goofspiel", "Blotto"))
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


def test_undo_restores_returns_and_finished_games():
    table = Table(GOOF, {"cards": 3, "returns": "total_points"}, opponents={"first": First()}, seed=1)
    table.play(2)
    before = (list(table.returns), table.board(), table.legal())
    table.play(1)
    table.play(0)
    assert table.over and table.returns != before[0]
    assert table.undo() and table.undo()
    assert not table.over and (table.returns, table.board(), table.legal()) == before


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
    table = Table(TTT, opponents={"first": First()})
    first = adviser(open_guest("mcts@simulations=3000", TTT), table.game)
    for move in ("b1", "c1"):  # O answers a1, then a2
        table.play(table.moves.read(table.record, 0, move, table.legal()))
        table.advance()
    lines = hint(table, first)
    losing = [line for line in lines if "lost in 2" in line]
    assert lines[1].split()[0] == "a3" and len(losing) == 4


def test_hints_have_the_shortest_wins_first_and_the_shortest_losses_last():
    known = [(LOSS, 2), None, (WIN, 5), (LOSS, 6), (WIN, 3), (DRAW, 1)]
    assert sorted(known, key=_rank) == [(WIN, 3), (WIN, 5), None, (DRAW, 1), (LOSS, 6), (LOSS, 2)]


def test_a_won_position_is_said_with_its_distance():
    table = Table(TTT, opponents={"first": First()})
    for move in ("c3", "c2"):  # O answers a1, b1; X threatens nothing but c1, which wins
        table.play(table.moves.read(table.record, 0, move, table.legal()))
        table.advance()
    lines = hint(table, adviser(None, table.game))
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
    assert ended and said.endswith("your return: " + said.rsplit("your return: ", 1)[1])


@pytest.mark.slow
def test_equal_players_are_told_apart():
    table = Table(GOOF, {"cards": 3, "seats": 3}, opponents={"first": First()}, seat=2)
    assert table.names == ["first (seat 0)", "first (seat 1)", "you"]


@pytest.mark.parametrize("env", [env for env in registered() if env.startswith("mlbits/")])
def test_every_game_is_played_or_refused_with_a_reason(env):
    game = registered()[env].load()(**registered()[env].defaults)
    if game.action.kind != "discrete" or game.name in ("Bandit", "Digits"):
        with pytest.raises(PlayError, match="wanted"):
            check_game(env, None, 0)
        return
    check_game(env, None, game.seats - 1)
    names = Moves(game)
    table = None if game.name == "Chess" else Table(env, opponents={"first": First()})
    if table is not None and table.waits:
        shown = [names.name(table.record, 0, action) for action in table.legal()]
        assert len(set(shown)) == len(shown)
        assert names.read(table.record, 0, shown[-1], table.legal()) == table.legal()[-1]
        table.play(table.legal()[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CartPole-v1"], "CartPole-v1: is not one of mlbits' own games; wanted one of those"),
        (["mlbits/Pendulum-v0"], "wanted a game whose moves are Discrete"),
        (["mlbits/Bandit-v0"], "its text shows what a player has to find out"),
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
    table, helper = sit_down(PlayFlags(game=run, seed=1), {})
    assert table.names == ["you", "mine"] and len(table.legal()) == 4 and table.game.action.nvec[0] == 17
    assert helper.config.simulations == 200
    table, helper = sit_down(PlayFlags(game=run, against=("random",), seed=1), {})
    assert table.names == ["you", "random"] and helper.config.simulations == 200
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
