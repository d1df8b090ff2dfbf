"""PGN: games read, written and refused."""

import pytest

from mlbits.envs.board.chess import pgn
from mlbits.envs.board.chess.fen import START, to_fen
from mlbits.envs.board.chess.pgn import PgnGame, iterate_pgn, read_pgn, write_pgn
from mlbits.envs.core.errors import GameError, IllegalActionError

# Anderssen - Kieseritzky, London 1851, as such files look.
IMMORTAL = r"""% exported
[Event "London \"off hand\""]
[Site "London ENG"]
[Date "1851.06.21"]
[Round "?"]
[White "Anderssen, Adolf"]
[Black "Kieseritzky, Lionel"]
[Result "1-0"]
[ECO "C33"]

{A comment (with brackets) 1. e4} 1. e4 e5 2. f4 exf4 3. Bc4 Qh4+ {[%clk 0:10]} 4. Kf1 b5?! 5. Bxb5 Nf6 6. Nf3 Qh6
7. d3 Nh5 8. Nh4 Qg5 9. Nf5 c6 10. g4 $1 (10. Nd6+ Bxd6 (10... Kd8 $6 11. Nxc8) 11. Qe2 {good}) 10... Nf6 11. Rg1 ; ok
cxb5 12. h4 Qg6 13. h5 Qg5 14. Qf3 Ng8 15. Bxf4 Qf6 16. Nc3 Bc5 17. Nd5 Qxb2
18. Bd6 Bxg1 19. e5 Qxa1+ 20. Ke2 Na6 21. Nxg7+ Kd8 22. Qf6+!! Nxf6 23. Be7# 1-0
"""


def test_a_game_is_read():
    (game,) = read_pgn(IMMORTAL)
    assert len(game.moves) == 45 and game.moves[-3:] == ("Qf6+", "Nxf6", "Be7#")
    assert game.result == "1-0" and game.start == START
    assert game.headers["White"] == "Anderssen, Adolf" and game.headers["Event"] == 'London "off hand"'
    states = list(game.states())
    assert len(states) == 46
    assert to_fen(states[-1]) == "r1bk3r/p2pBpNp/n4n2/1p1NP2P/6P1/3P4/P1P1K3/q5b1 b - - 1 23"
    assert int(states[-1].outcome) == 1 and not any(int(state.outcome) for state in states[:-1])


def test_games_are_written_as_they_are_read():
    (game,) = read_pgn(IMMORTAL)
    text = write_pgn(game)
    assert read_pgn(text) == [game]
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith('[Event "London \\"off hand\\""]\n[Site "London ENG"]\n[Date "1851.06.21"]\n')
    assert "\n\n1. e4 e5 2. f4 exf4 3. Bc4 Qh4+ 4. Kf1 b5 5. Bxb5 Nf6 6. Nf3 Qh6 7. d3 Nh5" in text
    assert text.endswith("23. Be7# 1-0\n")
    assert read_pgn(write_pgn([game, game])) == [game, game]
    assert read_pgn("") == [] and write_pgn([]) == ""


def test_a_game_may_start_from_a_position_with_black_to_move():
    fen = "4k3/8/8/8/3pP3/8/8/4K3 b - e3 0 31"
    game = PgnGame.of(["dxe3", "Kd1"], start=fen)
    assert game.headers == {} and game.start == fen
    text = write_pgn(game)
    assert f'[SetUp "1"]\n[FEN "{fen}"]\n\n31... dxe3 32. Kd1 *\n' in text
    assert read_pgn(text)[0].actions == game.actions


def test_players_need_not_claim_a_draw():
    shuffle = "Nf3 Nf6 Ng1 Ng8".split()
    game = PgnGame.of([*shuffle * 3, "e4"], "1-0")
    assert len(game.moves) == 13
    long = PgnGame.of("Rh2 Kd7 Rh1 Ke8".split() * 30, "1/2-1/2", start="4k3/8/8/8/8/8/8/4K2R w - - 0 1")
    assert int(list(long.states())[-1].clock) == 120
    assert read_pgn(write_pgn(long))[0].moves == long.moves


def test_dots_spaces_and_line_ends_are_free():
    assert read_pgn("\ufeff1.e4 e5 2.Nf3\r\nNc6 3. Bb5 {ok}3... a6\t4.Ba4 *")[0].moves[-1] == "Ba4"
    assert read_pgn("1 e4 1... e5 *")[0].moves == ("e4", "e5")
    assert read_pgn("1. e4 {a king's pawn} 1. ... e5 *")[0].moves == ("e4", "e5")
    assert read_pgn("e4 e5!? Nf3?? *")[0].moves == ("e4", "e5", "Nf3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (5, "pgn: got int; wanted text"),
        ("1. e4 e6\n2. e5 d5 3. exd5 *", "pgn, line 2: move: got 'exd5'; wanted one that is legal"),
        ("1. e4 e5 2. Ng3 *", "move: got 'Ng3'"),
        ("1. e4 2. e5 *", "number of the move: got 2; wanted 1"),
        ("1... e4 *", "number of the move: got 1... before White's; wanted 1."),
        ("1. e4 1. e5 *", "number of the move: got 1. before Black's; wanted 1..."),
        ("1. e4 e5 2. ... *", "number of the move: got 2. ... before White's; wanted 2."),
        ("1. e4 e5 ... Nf3 *", "number of the move: got ... before White's; wanted 2."),
        ("1. 1. e4 *", "number of the move: got 1. after 1.; wanted a move"),
        ("1. e4 e5 3. d4 *", "number of the move: got 3; wanted 2"),
        ("1. e4", "the last game has no result; wanted 1-0, 0-1, 1/2-1/2, *"),
        ('[White "A"]', "the last game has no result"),
        ('1. e4\n[White "A"]', "pgn, line 2: got a header; wanted the result of the game before it"),
        ('[White "A"] [White "B"] *', "header White: got it twice"),
        ("[White A] *", 'got [; wanted a header such as [White "Name"]'),
        ('[White "A] *', "got [; wanted a header"),
        ('[Whi-te "A"] *', "got [; wanted a header"),
        ('[Result "2-0"] *', "header Result: got '2-0'; wanted one of 1-0"),
        ('[Result "1-0"] 1. e4 0-1', "result: got 0-1, and 1-0 in the header; wanted the same"),
        ("1. f3 e5 2. g4 Qh4# 1-0", "result: got 1-0; wanted 0-1, as the board says"),
        ("1. f3 e5 2. g4 Qh4# *", "result: got *; wanted 0-1"),
        ('[FEN "k7/8/1K6/8/8/8/8/2Q5 w - - 0 1"] 1. Qc7 1-0', "result: got 1-0; wanted 1/2-1/2, as the board says"),
        ("1. f3 e5 2. g4 Qh4# 3. a3 0-1", "there is none, the game is over"),
        ("1-0", "got the result 1-0 without a game"),
        ("1. e4 e5 1-0 0-1", "got the result 0-1 without a game"),
        ("1. e4 (1. d4 *", "got a variation that does not end"),
        ('1. e4 (1. d4 1-0\n[White "A"]', "line 1: got a variation that does not end"),
        ("1. e4 ) *", "got ) without ("),
        ("(1. e4) *", "got a variation before any move"),
        ("1. e4 {oh", "got '{oh'; wanted headers, moves, comments or a result"),
        ("1. e4 $1234 *", "got '$1234"),
        ("1. e4 e5 2. -- *", "got '-- *'"),
        ("1. O-O-O-O *", "move: got 'O-O-O-O'"),
        ('[Variant "Atomic"] *', "header Variant: got 'Atomic'; wanted standard chess"),
        ('[SetUp "1"] 1. e4 *', "header SetUp: got '1'; wanted 1 with a header FEN, and 0 without"),
        ('[FEN "8/8/8/8/8/8/8/4K3 w - - 0 1"] *', "black has 0 kings"),
        ('[White "A\tB"] *', "header White: got 'A\\tB'; wanted one line of text"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(GameError) as refused:
        read_pgn(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"moves": ["e5"]}, IllegalActionError, "move: got 'e5'"),
        ({"moves": [5]}, IllegalActionError, "move: got int"),
        ({"moves": [], "result": "won"}, GameError, "result: got 'won'"),
        ({"moves": [], "result": []}, GameError, r"result: got \[\]"),
        ({"moves": [], "headers": {"a b": "c"}}, GameError, "header: got the name 'a b'"),
        ({"moves": [], "headers": {"White": "a\nb"}}, GameError, "header White: got"),
        ({"moves": [], "headers": {"White": 3}}, GameError, "header White: got 3"),
        ({"moves": [], "start": "8"}, GameError, "fen '8'"),
    ],
)
def test_games_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        PgnGame.of(**arguments)


def test_a_game_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(pgn, "LONGEST_GAME", 4)
    assert len(read_pgn("1. Nf3 Nf6 2. Ng1 Ng8 *")[0].moves) == 4
    with pytest.raises(GameError, match="moves: got more than 4 in a game"):
        read_pgn("1. Nf3 Nf6 2. Ng1 Ng8 3. Nf3 *")


def test_the_games_before_a_mistake_can_be_used():
    games = iterate_pgn("1. e4 1-0\n1. d4 0-1\n1. e5 *")
    assert [next(games).moves, next(games).moves] == [("e4",), ("d4",)]
    with pytest.raises(GameError, match="line 3"):
        next(games)
