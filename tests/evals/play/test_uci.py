"""The UCI door: what is said, in which order and time; with a real client where python-chess is installed."""

import io
import itertools
import subprocess
import sys
import time

import pytest

from mlbits.cli import main
from mlbits.envs.board.chess.fen import START, from_fen, to_fen
from mlbits.envs.board.chess.notation import action_of_uci, after, legal_actions, uci_of_action
from mlbits.evals.play.config import PlayError, UciFlags
from mlbits.evals.play.go import limits, read_go
from mlbits.evals.play.uci import Engine, Thinker, Thought, centipawns, score_of, serve

MATE_IN_ONE = "6k1/5ppp/8/8/8/8/5PPP/R5K1 w - - 0 1"
MATED = "R5k1/5ppp/8/8/8/8/5PPP/6K1 b - - 0 1"


class Quick:
    """A thinker that plays a legal move by the number of simulations, a millisecond each."""

    simulations, least = 50, 1

    def __init__(self):
        self.asked, self.pace, self.only = [], 0.0, ()

    def think(self, state, simulations, only=()):
        self.only = [uci_of_action(state, action) for action in only]
        time.sleep(self.pace * simulations)
        self.asked.append(simulations)
        legal = only or legal_actions(state)
        move = uci_of_action(state, int(legal[simulations % len(legal)]))
        return Thought(move, simulations, "cp 7", (move,))


@pytest.fixture
def engine():
    thinker = Quick()
    made = Engine(thinker, "(quick)", io.StringIO())
    made.hear("isready")
    thinker.asked.clear()
    yield made
    made.hear("stop")
    made.finish()


def said(engine, *lines):
    """What the engine says to some lines."""
    engine.out.seek(0)
    engine.out.truncate()
    for line in lines:
        assert engine.hear(line)
    return engine.out.getvalue().splitlines()


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_the_handshake(engine):
    lines = said(engine, "uci")
    assert lines[0].startswith("id name mlbits ")
    assert lines[1].startswith("id author ")
    assert lines[2] == "option name Simulations type spin default 50 min 1 max 1000000000"
    assert lines[3:] == ["uciok"]
    assert said(engine, "isready") == ["readyok"]
    assert said(engine, "ucinewgame", "debug on", "nonsense", "") == []
    assert not engine.hear("quit")


def test_positions_are_played_to(engine):
    assert said(engine, "position startpos moves e2e4 e7e5 g1f3") == []
    assert to_fen(engine.state).startswith("rnbqkbnr/pppp1ppp/8/4p3/4P3/5N2/PPPP1PPP/RNBQKB1R b KQkq - 1 2")
    said(engine, f"position fen {MATE_IN_ONE} moves a1a8")
    assert to_fen(engine.state).startswith("R5k1/5ppp/8/8/8/8/5PPP/6K1 b")
    said(engine, "position fen 8/P6k/8/8/8/8/8/K7 w - - 0 1 moves a7a8q")
    assert to_fen(engine.state).startswith("Q7/7k")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("setoption name Hash value 16", "info string there is no option Hash; wanted Simulations"),
        ("setoption name Simulations value 0", "info string Simulations: got 0; wanted a number from 1 to"),
        ("setoption name Simulations", "info string Simulations: got nothing; wanted"),
    ],
)
def test_mistakes_are_said_and_change_nothing(engine, line, message):
    before = to_fen(engine.state)
    lines = said(engine, line)
    assert len(lines) == 1 and lines[0].startswith(message)
    assert to_fen(engine.state) == before and engine.thinker.simulations == 50


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("position startpos moves e2e5", "info string move: got 'e2e5'; wanted one that is legal"),
        ("position startpos moves e2e4 castle", "info string move: got 'castle'; wanted UCI's notation"),
        ("position fen 8/8/8/8 w - - 0 1", "info string fen '8/8/8/8 w - - 0 1': pieces: got 4 ranks"),
        ("position", "info string position: got ''; wanted startpos or fen"),
    ],
)
def test_there_is_no_move_in_a_position_that_was_refused(engine, line, message):
    lines = said(engine, "position startpos moves e2e4", line, "go nodes 5")
    engine.finish()
    assert len(lines) == 3 and lines[0].startswith(message)
    assert lines[1:] == ["info string go: the last position was refused; wanted another before it", "bestmove (none)"]
    said(engine, "position startpos", "go nodes 5")
    engine.finish()
    assert engine.out.getvalue().splitlines()[-1].split()[1] != "(none)"


@pytest.mark.parametrize(
    ("words", "messages", "asked"),
    [
        ("nodes 0", ["nodes: got 0; wanted a whole number of at least 1; taken as 1"], 1),
        ("nodes -4", ["nodes: got -4; wanted a whole number of at least 1; taken as 1"], 1),
        ("nodes abc", ["nodes: got abc; wanted a whole number of at least 1; it is left out"], 50),
        ("movetime", ["movetime: got nothing; wanted a whole number of at least 0; it is left out"], 50),
        ("movetime nodes 9", ["movetime: got nothing; wanted a whole number of at least 0; it is left out"], 9),
        ("movetime -100 nodes 9", ["movetime: got -100; wanted a whole number of at least 0; taken as 0"], 9),
        ("depth abc", ["depth: got abc; wanted a whole number of at least 1; it is left out"], 50),
        ("wtime 1e3", ["wtime: got 1e3; wanted a whole number of milliseconds; it is left out"], 50),
        ("fast nodes 9", ["go: got fast; wanted wtime, btime, winc, binc, nodes, movetime, movestogo, depth, mate, "
                          "searchmoves, infinite, ponder"], 9),
        ("searchmoves nodes 9", ["searchmoves: got nothing; wanted moves, as in e2e4"], 9),
        ("wtime -5 btime 7 ponder nodes 9", [], 9),
    ],
)  # fmt: skip
def test_words_after_go_that_cannot_be_read_are_said(engine, words, messages, asked):
    lines = said(engine, f"go {words}")
    engine.finish()
    assert lines[: len(messages)] == [f"info string {message}" for message in messages]
    lines = engine.out.getvalue().splitlines()
    assert sum(line.startswith("info string") for line in lines) == len(messages)
    assert lines[-1].startswith("bestmove ")
    assert engine.thinker.asked[-1] == asked and engine.thinker.asked[0] == min(16, asked)


def test_a_search_is_restricted_to_moves(engine):
    said(engine, "go nodes 20 searchmoves h2h3 e2e5 a2a4 h2h3 infinite")
    until(lambda: engine._done)
    engine.hear("stop")
    lines = engine.out.getvalue().splitlines()
    assert lines[0] == "info string searchmoves: got e2e5; wanted legal moves, as in e2e4; it is left out"
    assert engine.thinker.only == ["h2h3", "a2a4"] and engine.thinker.asked == [16, 20]
    assert lines[-1].split()[1] in {"h2h3", "a2a4"}

    def fail(state, count, only):
        raise PlayError("no memory")

    engine.thinker.think = fail
    said(engine, "go searchmoves h2h4")
    engine.finish()
    assert engine.out.getvalue().splitlines()[-1] == "bestmove h2h4"


class Scripted(Thinker):
    """Its searches find the scores of a table, by the move that led to the position."""

    least = 1

    def __init__(self, scores):
        self.scores = scores

    def think(self, state, simulations, only=()):
        if only:
            return super().think(state, simulations, only)
        reply = uci_of_action(state, int(legal_actions(state)[0]))
        return Thought(reply, simulations, self.scores[to_fen(state).split()[0]], (reply,))


def test_the_best_of_some_moves():
    """The other side's scores after the moves are turned; a mate on the board and a draw by rule are seen at once."""
    state = from_fen("6k1/5ppp/8/8/8/8/5PPP/R5K1 w - - 98 60")
    moves = ["g2g3", "h2h3", "a1b1", "a1a8"]
    actions = [action_of_uci(state, move) for move in moves]
    reached = [to_fen(after(state, action)).split()[0] for action in actions]
    for scores, best, score in (
        (["cp 30", "cp -40", "cp 0"], "h2h3", "cp 40"),
        (["mate 2", "mate 5", "mate 1"], "h2h3", "mate -5"),
        (["mate -4", "mate -2", "cp -900"], "h2h3", "mate 3"),
    ):
        found = Scripted(dict(zip(reached, scores, strict=False))).think(state, 30, actions[:3])
        assert (found.move, found.score, found.nodes, len(found.line)) == (best, score, 30, 2)
    found = Scripted(dict.fromkeys(reached, "mate -1")).think(state, 3, actions)
    assert (found.move, found.score, found.line) == ("a1a8", "mate 1", ("a1a8",))
    late = from_fen("6k1/5ppp/8/8/8/8/5PPP/R5K1 w - - 99 60")  # a move of the rook is the hundredth without a capture
    found = Scripted(dict.fromkeys(reached, "cp 50")).think(late, 2, [actions[0], actions[2]])
    assert (found.move, found.score) == ("a1b1", "cp 0")


def test_searches_double_up_to_the_limit(engine):
    said(engine, "go nodes 100")
    engine.finish()
    lines = engine.out.getvalue().splitlines()
    assert engine.thinker.asked == [16, 32, 64, 100]
    assert [line.split()[4] for line in lines[:-1]] == ["16", "32", "64", "100"]
    assert lines[-1] == "bestmove " + lines[-2].split(" pv ")[1]
    assert lines[0].startswith("info depth 1 nodes 16 nps ") and " score cp 7 pv " in lines[0]
    engine.thinker.asked.clear()
    said(engine, "setoption name Simulations value 20", "go depth 9")
    engine.finish()
    assert engine.thinker.asked == [16, 20]


def test_time_is_kept(engine):
    engine.thinker.pace = 0.001
    start = time.monotonic()
    said(engine, "go movetime 300")
    engine.finish()
    assert 0.02 < time.monotonic() - start < 1.5
    assert engine.out.getvalue().count("bestmove") == 1
    assert sum(engine.thinker.asked) < 400


def test_a_search_that_lasts_too_long_is_answered_from_the_one_before(engine):
    """The second search, of 32 simulations, takes longer than there is time."""
    plain = engine.thinker.think

    def slow(state, count, only):
        time.sleep(1.5 if count > 16 else 0.05)
        return plain(state, count, only)

    engine.thinker.think = slow
    start = time.monotonic()
    said(engine, "go movetime 200")
    until(lambda: "bestmove" in engine.out.getvalue(), 1.2)
    assert time.monotonic() - start < 1.2
    lines = engine.out.getvalue().splitlines()
    assert len(lines) == 2 and " nodes 16 " in lines[0] and lines[1] == "bestmove " + lines[0].split(" pv ")[1]


def test_an_infinite_search_ends_with_stop_alone(engine):
    engine.thinker.pace = 1e-5
    said(engine, "go infinite")
    until(lambda: "nodes 1024 " in engine.out.getvalue())
    assert "bestmove" not in engine.out.getvalue()
    assert engine.hear("isready") and engine.out.getvalue().endswith("readyok\n")
    engine.hear("stop")
    lines = engine.out.getvalue().splitlines()
    assert lines[-1].startswith("bestmove ")
    engine.hear("stop")
    engine.finish()
    assert engine.out.getvalue().count("bestmove") == 1
    said(engine, "go nodes 5")
    engine.finish()
    assert engine.out.getvalue().splitlines()[-1].startswith("bestmove ")


def test_an_infinite_search_that_is_done_is_answered_at_stop(engine):
    engine.thinker.think = lambda state, count, only: Thought("e2e4", count, "mate 3", ("e2e4",))
    said(engine, "go infinite")
    until(lambda: "mate 3" in engine.out.getvalue())
    time.sleep(0.1)
    assert "bestmove" not in engine.out.getvalue()
    engine.hear("stop")
    assert engine.out.getvalue().splitlines()[-1] == "bestmove e2e4"


def test_a_finished_game_has_no_best_move(engine):
    assert said(engine, f"position fen {MATED}", "go nodes 10") == ["bestmove (none)"]


def test_a_failed_search_is_answered_with_a_legal_move(engine):
    def fail(state, count, only):
        raise PlayError("no memory")

    engine.thinker.think = fail
    said(engine, "go nodes 10")
    engine.finish()
    first, last = engine.out.getvalue().splitlines()
    assert first == "info string no memory"
    assert last.split()[1] in {uci_of_action(engine.state, int(a)) for a in legal_actions(engine.state)}


def test_limits():
    def limits_of(text, turn=0):
        asked = read_go(text.split(), from_fen(START), 0)
        return limits(asked.numbers, asked.infinite, turn, 77)

    assert limits_of("") == (77, None)
    assert limits_of("depth 3") == (77, None)
    assert limits_of("nodes 0") == (0, None)
    assert limits_of("nodes " + "9" * 30) == (10**9, None)
    assert limits_of("infinite") == (10**9, None)
    assert limits_of("movetime 500") == (10**9, pytest.approx(0.48))
    assert limits_of("movetime x nodes 9") == (9, None)
    words = "wtime 60000 btime 30000 winc 1000 binc 0"
    assert limits_of(words) == (10**9, pytest.approx(2 + 0.8 - 0.02))
    assert limits_of(words, 1) == (10**9, pytest.approx(1 - 0.02))
    assert limits_of(words + " movestogo 1", 1) == (10**9, pytest.approx(15 - 0.02))
    assert limits_of("wtime -5 btime 9") == (10**9, 0.0)


def test_scores():
    assert [score_of(1, plies) for plies in (1, 3, 5)] == ["mate 1", "mate 2", "mate 3"]
    assert [score_of(2, plies) for plies in (2, 4)] == ["mate -1", "mate -2"]
    assert score_of(3, 7) == "cp 0"
    assert centipawns(0) == 0 and centipawns(1) == 12_800 == -centipawns(-1)
    assert centipawns(0.5) == 111  # 111.71 tan(0.78103), a little less than tan(pi / 4) = 1
    values = [centipawns(k / 10) for k in range(-10, 11)]
    assert all(a < b for a, b in itertools.pairwise(values))


def test_players_that_cannot_search_are_refused(capsys, tmp_path):
    assert main(["uci", "random"]) == 2
    assert "player: random cannot search; wanted a run of an agent with a critic, or mcts" in capsys.readouterr().err
    assert main(["uci", "mcts", "--search.simulations", "5"]) == 2
    assert "wanted a run, or mcts@simulations=..." in capsys.readouterr().err
    assert main(["uci", "mctz"]) == 2
    run = str(tmp_path / "run")
    small = "--preset none --total-steps 64 --num-envs 4 --no-video --quiet --eval-episodes 2 --agent.num-steps 8"
    assert main(["train", "ppo", "mlbits/TicTacToe-v0", *small.split(), "--agent.hidden", "8", "--out", run]) == 0
    assert main(["uci", run]) == 2
    assert "was trained on the" in capsys.readouterr().err


@pytest.mark.slow
def test_real_searches():
    """The search's compilation takes half a minute."""
    thinker = Thinker("mcts@simulations=40", {})
    assert thinker.simulations == 40 and thinker.least == 1
    found = thinker.think(from_fen(MATE_IN_ONE), 200)
    assert (found.move, found.score, found.line) == ("a1a8", "mate 1", ("a1a8",))
    found = thinker.think(from_fen(START), 60)
    assert found.nodes == 60 and found.line[0] == found.move and found.score.startswith("cp ")
    some = [action_of_uci(from_fen(START), move) for move in ("a2a3", "h2h4")]
    found = thinker.think(from_fen(START), 60, some)
    assert found.nodes == 60 and found.move in {"a2a3", "h2h4"} and found.line[0] == found.move
    drawn = thinker.think(from_fen("7k/8/8/8/8/8/8/K7 w - - 0 1"), 20)  # kings alone: the game may be played on
    assert drawn.move in {"a1a2", "a1b1", "a1b2"}
    out = io.StringIO()
    serve(UciFlags(player="mcts@simulations=20"), io.StringIO("uci\nposition startpos\ngo infinite\n"), out)
    assert out.getvalue().splitlines()[-1].startswith("bestmove ")


@pytest.mark.slow
def test_a_real_client_plays_a_game_against_itself():
    chess_engine, chess = pytest.importorskip("chess.engine"), pytest.importorskip("chess")
    compiled = [sys.executable, "-m", "mlbits", "uci", "mcts"]
    subprocess.run(compiled, input="isready\n", text=True, check=True, timeout=300)
    command = [sys.executable, "-m", "mlbits", "uci", "mcts@simulations=30"]
    with chess_engine.SimpleEngine.popen_uci(command, timeout=60) as engine:
        assert engine.id["name"].startswith("mlbits")
        board = chess.Board(MATE_IN_ONE)
        found = engine.play(board, chess_engine.Limit(nodes=300), info=chess_engine.INFO_ALL)
        assert found.move.uci() == "a1a8" and found.info["score"].white().mate() == 1
        board = chess.Board()
        for limit in (chess_engine.Limit(time=0.2), chess_engine.Limit(white_clock=5, black_clock=5)):
            found = engine.play(board, limit)
            assert found.move in board.legal_moves
            board.push(found.move)
        engine.configure({"Simulations": 20})
        while not board.is_game_over(claim_draw=True) and board.ply() < 40:
            board.push(engine.play(board, chess_engine.Limit(depth=1)).move)
        with engine.analysis(board) as analysis:
            for info in analysis:
                if info.get("nodes", 0) >= 256:
                    break
        assert analysis.wait().move in board.legal_moves
