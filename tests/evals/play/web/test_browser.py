"""The page in a real browser. A page error, a console error or a request to another host fails.

All that waits, waits for a state of the page.
"""

import threading
from contextlib import contextmanager

import pytest

pytest.importorskip("uvicorn", reason="the extra web is not installed")
import uvicorn

from mlbits.evals.play.web.hall import Hall
from mlbits.evals.play.web.safety import Gate
from mlbits.evals.play.web.serve import _listen
from mlbits.evals.play.web.server import application
from mlbits.evals.replays.checking import check_replay
from mlbits.evals.replays.page import write_page
from mlbits.evals.replays.playing import record_replay
from mlbits.selfplay.runs.saved_agents import open_guest
from tests.evals.play.test_terminal import GOOF, TTT, First

pytestmark = pytest.mark.slow


@contextmanager
def serving(hall, port=0):
    """A server in a thread; its address."""
    listening = _listen("127.0.0.1", port)
    config = uvicorn.Config(application(hall, Gate("127.0.0.1")), log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


def hall(folder, env=TTT, people=(0,), settings=None):
    return Hall(env, settings or {}, people=people, opponents={"first": First()}, folder=folder, seed=3)


def says(page, text):
    page.get_by_role("status").filter(has_text=text).first.wait_for()


def place(page, name):
    """Click a place of the drawing; whoever cannot, has the button of its name."""
    page.locator(f'#places path[data-place="{name}"]').click()


def test_a_whole_game_by_clicks_on_the_board_and_on_buttons(open_page, tmp_path):
    with serving(hall(tmp_path)) as url:
        page = open_page(url)
        says(page, "your move")
        place(page, "b2")
        says(page, "your move")
        page.get_by_text("first plays a1").wait_for()
        page.get_by_role("button", name="c1", exact=True).click()
        page.get_by_text("first plays b1").wait_for()
        page.get_by_role("button", name="undo").click()
        page.get_by_text("first plays b1").wait_for(state="detached")
        page.get_by_role("button", name="c1", exact=True).click()
        page.get_by_text("first plays b1").wait_for()
        page.get_by_label("a move by its name").fill("a3")
        page.get_by_label("a move by its name").press("Enter")
        says(page, "the game is over: you win (you 1, first -1)")
        assert page.get_by_role("button", name="a2").count() == 0
        page.get_by_role("button", name="new game").click()
        says(page, "your move")
        page.keyboard.press("5")  # the fifth legal move
        page.get_by_text("you plays b2").or_(page.get_by_text("person plays b2")).wait_for()
        page.close()
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) == 2 and not any(check_replay(file)[1] for file in pages)


def test_a_game_by_the_keyboard_alone_which_stays_where_it_was(open_page, tmp_path):
    with serving(hall(tmp_path)) as url:
        page = open_page(url)
        says(page, "your move")
        page.get_by_label("a move by its name").focus()
        page.keyboard.type("b2")
        page.keyboard.press("Enter")
        page.get_by_text("first plays a1").wait_for()
        says(page, "your move")
        assert page.evaluate("document.activeElement.id") == "name"  # which was hidden meanwhile
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.dataset.action") == "1"
        page.evaluate("window.added = []")
        page.evaluate(
            "new MutationObserver(all => all.forEach(each => each.addedNodes.forEach(node => "
            "added.push(node.textContent)))).observe(document.getElementById('log'), { childList: true })"
        )
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # c1
        page.get_by_text("first plays b1").wait_for()
        says(page, "your move")
        assert page.evaluate("document.activeElement.dataset.action") == "3"  # the first that is left
        assert page.evaluate("added") == ["person plays c1", "first plays b1"]  # and no older line is read out again
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        for role in ("button", "textbox", "combobox"):
            for each in page.get_by_role(role).all():
                assert each.evaluate("it => (it.ariaLabel || it.textContent || it.labels[0].textContent).trim()")
        page.close()


def test_reload_two_tabs_and_a_server_that_stops(open_page, tmp_path):
    games = hall(tmp_path)
    with serving(games) as url:
        port = int(url.rsplit(":", 1)[1].strip("/"))
        page = open_page(url)
        says(page, "your move")
        place(page, "b2")
        page.get_by_text("first plays a1").wait_for()
        page.reload()
        page.get_by_text("first plays a1").wait_for()
        says(page, "your move")
        second = open_page(page.url)
        second.get_by_text("first plays a1").wait_for()
        second.get_by_role("button", name="c1", exact=True).click()
        page.get_by_text("first plays b1").wait_for()
        second.close()
    page.get_by_role("alert").filter(has_text="The server has stopped").wait_for()
    says(page, "not connected")
    open_page.wrong.clear()  # that the socket cannot be opened is said on the console too
    with serving(hall(tmp_path), port):
        page.get_by_role("alert").filter(has_text="this game is not open any more").wait_for()
        page.get_by_role("button", name="new game").click()
        says(page, "your move")
        assert page.get_by_role("alert").count() == 0
        open_page.wrong.clear()
        page.close()
    assert len(list(tmp_path.glob("*.html"))) == 1


OPENS = """to => new Promise(say => {
    const socket = new WebSocket(to);
    socket.onopen = () => say(true);
    socket.onclose = () => say(false);
})"""


def test_a_strangers_page_cannot_open_the_socket(open_page, tmp_path):
    with serving(hall(tmp_path)) as url:
        page = open_page(url)
        says(page, "your move")
        stranger = page.context.new_page()
        stranger.goto("data:text/html,<title>a stranger</title>")
        socket = url.replace("http", "ws") + "socket"
        assert [each.evaluate(OPENS, socket) for each in (page, stranger)] == [True, False]
        open_page.wrong.clear()  # the refusal is said on the console too
        stranger.close()
        page.close()


def test_two_people_by_links_and_in_the_dark(open_page, tmp_path):
    with serving(hall(tmp_path, GOOF, (0, 1), {"cards": 3})) as url:
        page = open_page(url)
        page.emulate_media(color_scheme="dark")
        says(page, "your move")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(29, 32, 38)"
        other = open_page(url.rstrip("/") + page.get_by_role("link", name="seat 1").get_attribute("href"))
        says(other, "your move")
        page.get_by_role("button", name="3", exact=True).click()
        says(page, "waiting for person (seat 1)")
        assert other.locator("#log li").count() == 0
        place(other, "2")
        for each in (page, other):
            each.get_by_text("person (seat 0) plays 3, person (seat 1) plays 2").wait_for()
            each.close()


def test_a_game_in_real_time_by_keys(open_page, tmp_path):
    with serving(hall(tmp_path, "mlbits/CartPole-v0")) as url:
        page = open_page(url)
        says(page, "your move")
        page.get_by_role("button", name="start").click()
        page.keyboard.down("ArrowRight")
        says(page, "the game is over: return")
        page.keyboard.up("ArrowRight")
        page.close()
    (file,) = tmp_path.glob("*.html")
    replay, differences = check_replay(file)
    assert not differences and {step.said[0].name for step in replay.steps[5:]} == {"right"}


def test_a_replay_opens_from_disk_and_is_stepped_through(open_page, tmp_path):
    game = record_replay({"random": open_guest("random", TTT)}, TTT, seed=5)
    file = write_page(game, tmp_path / "game.html")
    page = open_page(file.as_uri() + "#2")
    last = len(game.steps)
    says(page, f"step 2 of {last}")
    page.get_by_role("button", name="next").click()
    says(page, f"step 3 of {last}")
    page.keyboard.press("End")
    says(page, f"step {last} of {last}")
    assert page.url.endswith(f"#{last}")
    page.get_by_text("the game is over").wait_for()
    page.keyboard.press("Home")
    page.get_by_text(f"plays {game.steps[0].said[0].name}").first.wait_for()
    assert page.locator("#picture").evaluate("image => image.decode().then(() => image.naturalWidth)") == 376
    assert page.get_by_role("meter").count() == 9
    page.keyboard.press("p")
    page.get_by_role("button", name="stop").wait_for()
    page.get_by_text("the game is over").wait_for()
    page.get_by_role("button", name="random: c3").or_(page.locator("#moves button").first).first.click()
    page.get_by_role("slider", name="step").wait_for()


def test_orders_of_diplomacy_by_clicks_on_the_board(open_page, tmp_path):
    env = "mlbits/DiplomacyMini-v0"
    games = Hall(
        env, {"last_year": 1901}, people=(0,), opponents={"random": open_guest("random", env)}, folder=tmp_path
    )
    games.prepare()
    with serving(games) as url:
        page = open_page(url)
        says(page, "your move")
        page.get_by_role("button", name="A ALT: A ALT H (unless you choose)").wait_for()
        place(page, "ALT")
        place(page, "ALT")  # holds
        page.get_by_role("button", name="A ALT: A ALT H", exact=True).wait_for()
        place(page, "AVE")
        move = page.locator("#choices button", has_text="F AVE - ").first
        order = move.text_content()
        move.click()
        page.get_by_role("button", name=f"F AVE: {order}", exact=True).wait_for()
        page.get_by_role("button", name="send all 2").click()
        page.get_by_text(f"person plays A ALT H, {order}").wait_for()
        while "over" not in page.locator("#status").text_content():
            step = page.locator("#board").get_attribute("data-turn")
            page.get_by_role("button", name="send all").or_(page.locator("#choices button")).first.click()
            page.wait_for_function("step => board.dataset.turn !== step", arg=step)
        page.close()
    (file,) = tmp_path.glob("*.html")
    assert not check_replay(file)[1] and file.stat().st_size < 500_000
