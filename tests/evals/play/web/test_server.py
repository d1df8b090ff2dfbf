"""The server by its protocol, without a browser: games, refusals, and who may come in."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra web is not installed")
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from mlbits.cli import main
from mlbits.evals.play.config import PlayError, PlayFlags
from mlbits.evals.play.web import serve, server
from mlbits.evals.play.web.hall import LINES, Hall
from mlbits.evals.play.web.safety import Gate, is_loopback
from mlbits.evals.play.web.server import application
from mlbits.evals.replays.checking import check_replay
from tests.evals.play.test_terminal import GOOF, TTT, First

HERE = {"origin": "http://127.0.0.1:8420", "host": "127.0.0.1:8420"}
GATE = Gate("127.0.0.1")


def hall(folder, env=TTT, people=(0,), settings=None, **more):
    return Hall(
        env, settings or {}, people=people, opponents={"first": First()}, folder=folder / "games", seed=3, **more
    )  # fmt: skip


@pytest.fixture
def client(tmp_path):
    with TestClient(application(hall(tmp_path), GATE), base_url="http://127.0.0.1:8420") as made:
        yield made


def ask(socket, **message):
    socket.send_text(json.dumps(message))
    return socket.receive_json()


def begin(socket, **message):
    """What is said to a page that begins or joins a game: where it sits, and what it sees."""
    joined = ask(socket, **(message or {"new": {}}))["joined"]
    return joined, socket.receive_json()["view"]


def test_a_game_from_the_first_move_to_its_replay(client, tmp_path):
    with client.websocket_connect("/socket", headers=HERE) as socket:
        _, view = begin(socket)
        assert view["yours"] and view["names"] == ["you", "first"] and view["picture"]["kind"] == "webp"
        assert view["slots"][0]["choices"][4] == [4, "b2", ["b2"]] and view["shapes"]["b2"] == "M140 140h96v96h-96z"
        for action in (4, 2, 6):  # b2, c1, a3
            view = ask(socket, move={"turn": view["turn"], "action": [action]})["view"]
            if not view["over"]:
                assert not view["yours"]
                view = socket.receive_json()["view"]
        assert view["over"] and view["result"].startswith("you win") and view["returns"] == [1, -1]
        assert view["log"] == [
            "person plays b2",
            "first plays a1",
            "person plays c1",
            "first plays b1",
            "person plays a3",
        ]
    (page,) = (tmp_path / "games").glob("*.html")
    replay, differences = check_replay(page)
    assert not differences and replay.names == ["person", "first"] and replay.end == "terminated"
    (line,) = (tmp_path / "games" / LINES).read_text().splitlines()
    assert json.loads(line)["returns"] == [1, -1] and json.loads(line)["file"] == page.name


def test_late_foreign_and_illegal_moves_do_no_harm(client):
    with client.websocket_connect("/socket", headers=HERE) as socket:
        _, view = begin(socket)
        turn = view["turn"]
        for action in ([9], [-1], [0, 0], [], ["0"], [True], "0", [1.5], None):
            assert "error" in ask(socket, move={"turn": turn, "action": action}), action
        assert ask(socket, move={"turn": turn, "action": [4]})["view"]["step"] == 1
        assert socket.receive_json()["view"]["step"] == 2
        assert "has changed" in ask(socket, move={"turn": turn, "action": [2]})["error"]  # a double click
        assert "has changed" in ask(socket, undo={"turn": turn})["error"]
        assert "your own move" in ask(socket, hint={"turn": turn})["error"]


def test_what_is_no_message_is_answered_in_words(client):
    with client.websocket_connect("/socket", headers=HERE) as socket:
        for text in (
            "",
            "x",
            "[]",
            "[" * 5000,
            '{"a": 1}',
            '{"move": 3}',
            '{"join": {"game": 1}}',
            '{"join": []}',
            "9" * 70_000,
        ):
            socket.send_text(text)
            assert "error" in socket.receive_json(), text[:20]
        begin(socket)
        for text in ('{"what": 1}', '{"move": 3}', '{"undo": {}}', '{"hint": []}'):
            socket.send_text(text)
            assert "error" in socket.receive_json(), text
        assert ask(socket, join={"game": "../../etc/passwd", "key": "x"})["error"].startswith("this game is not open")


def test_undo_goes_back_to_ones_own_move(client):
    with client.websocket_connect("/socket", headers=HERE) as socket:
        _, view = begin(socket)
        first = view["picture"]
        assert "nothing to take back" in ask(socket, undo={"turn": view["turn"]})["error"]
        ask(socket, move={"turn": view["turn"], "action": [4]})
        view = socket.receive_json()["view"]
        view = ask(socket, undo={"turn": view["turn"]})["view"]
        assert view["yours"] and view["step"] == 0 and view["log"] == [] and view["picture"] == first


def test_reload_and_a_second_tab_see_the_same_game(client):
    with client.websocket_connect("/socket", headers=HERE) as socket:
        joined, view = begin(socket)
        ask(socket, move={"turn": view["turn"], "action": [4]})
        view = socket.receive_json()["view"]
        place = {"game": joined["game"], "key": joined["links"]["0"]}
        with client.websocket_connect("/socket", headers=HERE) as other:
            _, same = begin(other, join=place)
            assert same == view
            ask(other, move={"turn": view["turn"], "action": [2]})
            assert socket.receive_json()["view"]["step"] == 3 == other.receive_json()["view"]["step"] - 1
            assert "for no seat" in ask(other, join={**place, "key": "guess"})["error"]


def test_simultaneous_moves_wait_for_everyone_and_stay_hidden(tmp_path):
    app = application(hall(tmp_path, GOOF, (0, 1), {"cards": 3}), GATE)
    with (
        TestClient(app, base_url="http://127.0.0.1:8420") as client,
        client.websocket_connect("/socket", headers=HERE) as one,
        client.websocket_connect("/socket", headers=HERE) as two,
    ):
        joined, view = begin(one)
        assert view["seat"] == 0 and view["waiting"] == ["person (seat 1)"]
        _, view = begin(two, join={"game": joined["game"], "key": joined["links"]["1"]})
        assert view["seat"] == 1 and view["yours"]
        mine = ask(one, move={"turn": view["turn"], "action": [2]})["view"]
        assert not mine["yours"] and mine["log"] == [] and mine["step"] == 0
        theirs = two.receive_json()["view"]
        hidden = {key: value for key, value in theirs.items() if key != "turn"}
        assert hidden == {key: value for key, value in view.items() if key not in ("turn",)} | {"waiting": []}
        assert "not your move" in ask(one, move={"turn": theirs["turn"], "action": [1]})["error"]
        after = ask(two, move={"turn": theirs["turn"], "action": [0]})["view"]
        assert after["log"] == ["person (seat 0) plays 3, person (seat 1) plays 1"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example", "host": "127.0.0.1:8420"},
        {"origin": "http://127.0.0.1:9999", "host": "127.0.0.1:8420"},
        {"origin": "null", "host": "127.0.0.1:8420"},
        {"host": "127.0.0.1:8420"},
        {"origin": "http://evil.example:8420", "host": "evil.example:8420"},
    ],
)
def test_a_strangers_page_cannot_open_the_socket(client, headers):
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/socket", headers=headers):
        pass
    assert refused.value.code == 1008
    assert "wanted" in refused.value.reason


def test_pages_are_served_with_a_strict_policy_and_to_this_machine_only(client):
    page = client.get("/")
    assert page.status_code == 200 and "play.js" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert client.get("/play.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    for path in ("/hall.py", "/../server.py", "/games/x.html", "/%2e%2e/server.py"):
        assert client.get(path).status_code == 404


def test_on_a_network_the_token_is_asked_for(tmp_path):
    gate = Gate("0.0.0.0", "secret")
    with TestClient(application(hall(tmp_path), gate), base_url="http://nas:8420") as client:
        assert client.get("/").status_code == 403
        assert client.get("/?token=secret").status_code == 200
        here = {"origin": "http://nas:8420", "host": "nas:8420"}
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket?token=guess", headers=here):
            pass
        with client.websocket_connect("/socket?token=secret", headers=here) as socket:
            assert begin(socket)[1]["yours"]


def test_loopback_is_told_from_other_addresses():
    assert [is_loopback(name) for name in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.2", "nas")] == [
        True
    ] * 3 + [False] * 3


def test_as_many_games_as_may_be_are_open(tmp_path):
    now = [0.0]
    games = hall(tmp_path, most=3, clock=lambda: now[0])
    opened = [games.begin() for _ in range(3)]
    for game in opened[:2]:
        games.look(game, 1)
    opened[2].match.choose(0, 0, [4])
    with pytest.raises(PlayError, match="3 games are open, and no more may be"):
        games.begin()
    now[0] = 3601.0  # the third was left an hour ago, and is saved
    games.begin()
    assert opened[2].id not in games.games and opened[0].id in games.games
    assert len(list((tmp_path / "games").glob("*.html"))) == 1
    with pytest.raises(PlayError, match="not open any more"):
        games.find(opened[2].id)
    games.begin()  # nobody looks at the one before, and nothing was played in it
    assert len(games.games) == 3 and len(list((tmp_path / "games").glob("*.html"))) == 1


def test_as_many_pages_as_may_be_are_open_and_the_next_is_told(client, monkeypatch):
    monkeypatch.setattr(server, "MOST_PAGES", 1)
    with client.websocket_connect("/socket", headers=HERE) as first:
        assert begin(first)[1]["yours"]
        with client.websocket_connect("/socket", headers=HERE) as second, pytest.raises(WebSocketDisconnect) as refused:
            second.receive_json()
        assert refused.value.code == 1008 and refused.value.reason.startswith("1 pages are open")
    with client.websocket_connect("/socket", headers=HERE) as third:
        assert begin(third)[1]["yours"]


def test_without_a_browser_the_link_is_there_to_open(tmp_path, capsys, monkeypatch):
    import uvicorn

    monkeypatch.setattr(serve, "open_page", lambda link: False)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    serve.serve(PlayFlags(game=TTT, web=True, open=True, port=0, games=tmp_path, against=("random",)), {})
    first, *_, words, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{TTT}: play at http://127.0.0.1:")
    assert (words, last) == (
        "no browser could be opened; open the link yourself",
        "the server has stopped; what was played is saved",
    )


def test_a_server_that_stops_saves_what_was_played(tmp_path):
    with TestClient(application(hall(tmp_path), GATE), base_url="http://127.0.0.1:8420") as client:
        socket = client.websocket_connect("/socket", headers=HERE)
        with socket:
            _, view = begin(socket)
            ask(socket, move={"turn": view["turn"], "action": [4]})
            socket.receive_json()
        assert not (tmp_path / "games").exists()
    (page,) = (tmp_path / "games").glob("*.html")
    replay, differences = check_replay(page)
    assert not differences and replay.end == "unfinished" and len(replay.steps) == 2


def test_names_with_markup_are_text_in_the_replay(tmp_path):
    bad = "</script><img src=x onerror=alert(1)>"
    games = Hall(TTT, {}, people=(0,), opponents={bad: First()}, folder=tmp_path, seed=3)
    game = games.begin()
    game.match.choose(0, 0, [4])
    games.close()
    text = game.file.read_text()
    assert "<img src=x" not in text and "&lt;img src=x" in text and text.count("</script>") == 2
    assert check_replay(game.file)[0].names[1] == bad


def test_hints_are_the_advisers_opinion(tmp_path):
    from mlbits.selfplay.runs.saved_agents import open_guest

    app = application(hall(tmp_path, adviser=open_guest("random", TTT)), GATE)
    with (
        TestClient(app, base_url="http://127.0.0.1:8420") as client,
        client.websocket_connect("/socket", headers=HERE) as socket,
    ):
        _, view = begin(socket)
        found = ask(socket, hint={"turn": view["turn"]})["hint"]
        assert found["turn"] == view["turn"] and found["chances"] == {
            str(k): pytest.approx(1 / 9, abs=1e-4) for k in range(9)
        }


def test_mistakes_of_the_command_are_refused(tmp_path, capsys, monkeypatch):
    listening = serve._listen("127.0.0.1", 0)
    port = str(listening.getsockname()[1])
    for words, message in (
        ([TTT, "--port", port], f"port: 127.0.0.1 port {port} cannot be used"),
        ([TTT, "--port", "0", "--seats", "0", "2"], "--seat: got 2; wanted 0 to 1"),
        ([TTT, "--port", "0", "--replay", "x.html"], "every game is saved; wanted --games FOLDER"),
        ([TTT, "--port", "0", "--against", "mctz"], "did you mean 'mcts'"),
    ):
        assert main(["play", *words, "--web"]) == 2
        assert message in capsys.readouterr().err
    listening.close()
    assert main(["play", TTT, "--seats", "0", "1"]) == 2
    assert "are for --web" in capsys.readouterr().err


def test_people_may_have_all_seats(tmp_path):
    flags = PlayFlags(game=TTT, web=True, seats=(1, 0), games=tmp_path)
    made = serve.open_hall(flags, {})
    assert made.people == (0, 1) and made.opponents == {}
    assert made.begin().match.names == ["person (seat 0)", "person (seat 1)"]
