"""Pictures for notebooks: an image, an animation, an environment as it is drawn now; tables as HTML."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import mlbits
from mlbits.evals.html_tables import html_table
from mlbits.evals.pictures import Picture, PictureError, show
from mlbits.evals.solve import describe, solve
from mlbits.evals.tournament.config import TournamentConfig
from mlbits.evals.tournament.tournament import hold_tournament

FRAME = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def test_one_frame_is_an_image(tmp_path: Path) -> None:
    picture = show(FRAME)
    assert picture._repr_html_() is None
    png = picture._repr_png_()
    assert png is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), FRAME)
    picture.save(tmp_path / "one.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "one.png").convert("RGB")), FRAME)


def test_several_are_an_animation(tmp_path: Path) -> None:
    picture = show([FRAME, 255 - FRAME, FRAME])
    assert picture._repr_png_() is None
    text = picture._repr_html_()
    assert text is not None
    assert text.startswith('<img src="data:image/gif;base64,')
    assert repr(picture) == "Picture(3 of 2 x 4)"
    with Image.open(picture.save(tmp_path / "three.gif")) as found:
        assert found.n_frames == 3


def test_an_environment_is_drawn_as_it_is() -> None:
    env: Any = gym.make("mlbits/GridWorld-v0", render_mode="rgb_array")
    env.reset(seed=0)
    assert np.array_equal(mlbits.show(env).frames[0], env.render())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (gym.make("mlbits/GridWorld-v0"), r'env: its render_mode is None; wanted render_mode="rgb_array"'),
        (FRAME.astype(float), r"frames: got float64 \(2, 4, 3\); wanted images uint8"),
        ([], r"frames: got none; wanted at least one image"),
        ("text", r"what: got 'text'; wanted an environment, an image or a list of images"),
    ],
)
def test_what_is_no_picture_is_named(what: Any, said: str) -> None:
    with pytest.raises(PictureError, match=said):
        show(what)


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"path: got .*one.mp4; wanted a file name that ends in .gif"):
        Picture([FRAME]).save(tmp_path / "one.mp4")
    with pytest.raises(PictureError, match=r"cannot be written"):
        Picture([FRAME]).save(tmp_path / "none" / "one.gif")


def test_tables_and_results_are_shown_as_html(tmp_path: Path) -> None:
    assert "&lt;b&gt;" in html_table(["<b>"], [["x"]], "a\nb")
    _, found = hold_tournament(
        ["random", "mcts@simulations=1"], TournamentConfig(games=2, num_envs=2), env="mlbits/TicTacToe-v0",
        out=tmp_path / "t",
    )  # fmt: skip
    text = found._repr_html_()
    assert text.count("<tr>") == 3
    assert all(f"<td>{name}</td>" in text for name in found.table.names)
    result = solve("FrozenLake-v1", discount=0.9)
    assert result["value"] > 0
    assert describe(result).splitlines()[0] in result._repr_html_().replace("&#x27;", "'")
