"""Recorded games as a page to step through, as a GIF, and by the command line."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mlbits import cli
from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.files.replay_page import Frame, draw_game, frames_of, gif, html_page
from mlbits.envs.diplomacy.files.saved_games import GameRecord, game_from_json, save_games
from mlbits.envs.diplomacy.position import first_position
from mlbits.envs.diplomacy.report import adjudicate

ORDERS = (
    {
        "ARDEN": ["A ALT - EMA", "F AVE - ESO"],
        "BRENN": ["A BIR - EMA", "F BAY - ESO"],
        "CORVO": ["A COR H", "nonsense"],
    },
    {"ARDEN": ["A ALT - WMA"], "BRENN": ["A BIR - SMA"], "CORVO": ["F CAP - SSO", "A ALT H"]},
    {"ARDEN": ["A ALT B"], "BRENN": ["WAIVE"]},
)


class Checker(HTMLParser):
    """Records ids and external references, and fails if elements are not nested properly."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.fetched, self.data = [], [], [], {}

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.fetched += [value for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "input"):
            self.open.append((tag, attrs.get("id")))

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.data[self.open[-1]] = self.data.get(self.open[-1], "") + data


@pytest.fixture(scope="module")
def game():
    """ORDERS on the small board, as they were adjudicated once."""
    return game_from_json(json.loads((Path(__file__).parent / "three_phases.json").read_text()), load_board("mini"))


@pytest.mark.slow  # it compiles the adjudicator for the small board
def test_the_game_is_what_the_orders_give(game):
    position, results = first_position(game.board), []
    for orders in ORDERS:
        results.append(adjudicate(position, orders))
        position = results[-1].after
    wanted = GameRecord.of(results, id="three <phases>", map_name="mini")
    assert len(game.phases) == len(wanted.phases) == 4
    for read, played in zip(game.phases, wanted.phases, strict=True):
        assert (read.position, read.orders, read.fates) == (played.position, played.orders, played.fates)


def test_frames_hold_the_orders_that_can_be_drawn(game):
    frames = frames_of(game)
    assert [frame.position.phase_name for frame in frames] == ["S1901M", "F1901M", "W1901A", "S1902M"]
    assert [len(frame.orders) for frame in frames] == [5, 3, 1, 0]  # without nonsense, another power's unit, a waive


def test_the_page_is_complete_and_well_formed(game):
    page = html_page(frames_of(game), game.id)
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == [] and checker.fetched == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert {"first", "back", "play", "next", "last", "place", "marks", "text", "frames"} <= set(checker.ids)
    rest = page.replace("http://www.w3.org/2000/svg", "")
    assert not any(outside in rest for outside in ("http:", "https:", "url(", "@import"))
    assert "ArrowRight" in page and "three &lt;phases&gt;" in page
    frames = json.loads(checker.data["script", "frames"])
    assert [frame["title"] for frame in frames] == [
        "Spring 1901, moves", "Fall 1901, moves", "Winter 1901", "Spring 1902, moves"
    ]  # fmt: skip
    assert all(len(frame["colours"]) == 16 and frame["marks"].startswith("<g>") for frame in frames)
    assert "A ALT - EMA  (bounce)" in frames[0]["text"]


def test_the_animation_has_one_image_per_frame(game, tmp_path):
    path = tmp_path / "game.gif"
    gif(frames_of(game), path, size=300, seconds=0.5)
    with Image.open(path) as image:
        assert (image.n_frames, image.width, image.info["duration"], image.info["loop"]) == (4, 300, 500, 0)


def test_invalid_arguments_are_refused(game, tmp_path):
    frames = frames_of(game)
    other = Frame(first_position(load_board("mini")), {}, {})
    for wrong, said in (([], "got none"), ([*frames, other], "several boards")):
        with pytest.raises(GameError, match=said):
            html_page(wrong)
        with pytest.raises(GameError, match=said):
            gif(wrong, tmp_path / "x.gif")
    for seconds in (0.0, 61.0, float("nan")):
        with pytest.raises(GameError, match=r"seconds: got .*; wanted 0.02 to 60"):
            gif(frames, tmp_path / "x.gif", seconds=seconds)
    with pytest.raises(GameError, match=r"out: got .*; wanted a name that ends in .html, .gif, .png or .svg"):
        draw_game(game, tmp_path / "game.bmp")
    with pytest.raises(GameError, match="phase: got 'S1950M'; wanted one of the game's phases, S1901M to S1902M"):
        draw_game(game, tmp_path / "game.png", phase="S1950M")


def test_the_command(game, tmp_path, capsys):
    saved, board = tmp_path / "games.json", ["--map", "mini"]
    save_games(saved, [game, game])
    for kind, start in (("html", b"<!DOCTYPE"), ("svg", b"<svg"), ("png", b"\x89PNG"), ("gif", b"GIF8")):
        out = tmp_path / f"out.{kind}"
        flags = ["--out", str(out), "--game", "2", "--size", "300", "--phase", "" if kind == "html" else "F1901M"]
        assert cli.main(["diplomacy", "draw", str(saved), *board, *flags]) == 0
        assert out.read_bytes().startswith(start)
        assert capsys.readouterr().out == f"drawn: {out}\n"
    assert cli.main(["diplomacy", "draw", str(saved), *board, "--game", "3"]) == 2
    assert "game: got 3; wanted 1 to 2" in capsys.readouterr().err
    saved.write_text(saved.read_text()[:-40])
    assert cli.main(["diplomacy", "draw", str(saved), *board, "--out", str(tmp_path / "x.html")]) == 2
    assert "line 2" in capsys.readouterr().err and not (tmp_path / "x.html").exists()


@pytest.mark.slow
def test_a_page_allows_no_script_but_its_own():
    """The policy names the script by its digest, so that a changed or added one does not run."""
    game = GameRecord.of([adjudicate(first_position(load_board("mini")), {})])
    page = html_page(frames_of(game), "<script>alert(1)</script>")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert page.index(policy) < page.index("<title>") < page.index("<style>")
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    (script,) = scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert not re.search(r"\son\w+=", page.replace(script, "")), "no handlers in attributes"
