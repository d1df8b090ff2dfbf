"""Every picture is readable: text is large enough, has contrast, is not cut off, and overlaps nothing."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import mlbits
from mlbits.envs.bandit import ticks
from mlbits.envs.core.drawing import BLUE, INK, PAPER, SEATS, SMALLEST_TEXT, Canvas, font
from mlbits.envs.gridworld.drawing import draw_overlay
from mlbits.envs.policy_similarity import SimilarityGame

SLOW = [  # each needs a compilation of its own, and others show a picture of the same kind
    ("mlbits/RandomGridWorld-v0", {"size": 32}), ("mlbits/Knapsack-v0", {"items": 50}),
    ("mlbits/Bandit-v0", {"arms": 40}), ("mlbits/Bandit-v0", {"arms": 40, "kind": "bernoulli"}),
    ("mlbits/DeepSea-v0", {"size": 30}), ("mlbits/DeepSea-v0", {"size": 60}),
    ("mlbits/CollectObjects-v0", {"levels": "mazes", "level": 3}), ("mlbits/Bandit-v0", {"arms": 2}),
    ("mlbits/Goofspiel-v0", {"seats": 3, "cards": 5}), ("mlbits/Hex-v0", {"size": 1}), ("mlbits/Hex-v0", {"size": 26}),
    ("mlbits/Go-v0", {"size": 1}), ("mlbits/Go-v0", {"size": 19}),
    ("mlbits/Blotto-v0", {"seats": 6, "fields": 4}), ("mlbits/Blotto-v0", {"seats": 10, "fields": 4}),
]  # fmt: skip
# Games with the settings that change their pictures; Diplomacy's boards are drawn and tested separately.
SHOWN: list[tuple[str, dict[str, Any]]] = [
    *((env, {}) for env in mlbits.registered() if "Diplomacy" not in env),
    ("mlbits/GridWorld-v0", {"map": "empty_8x8"}),
    ("mlbits/RandomGridWorld-v0", {"size": 32}),
    *(("mlbits/Bandit-v0", {"arms": arms}) for arms in (1, 2, 40, 300)),
    *(("mlbits/Bandit-v0", {"arms": arms, "kind": "bernoulli"}) for arms in (1, 40)),
    ("mlbits/Bandit-v0", {"means": [-30.0, 400.0]}),
    *(("mlbits/Knapsack-v0", {"items": items}) for items in (1, 50, 200)),
    *(("mlbits/DelayedChain-v0", {"length": length}) for length in (1, 5, 500)),
    *(("mlbits/CollectObjects-v0", {"levels": levels, "level": 3}) for levels in ("mazes", "longer_horizon")),
    *(("mlbits/DeepSea-v0", {"size": size}) for size in (5, 14, 20, 30, 60)),
    *(("mlbits/Blotto-v0", {"seats": seats, "fields": 4}) for seats in (3, 6, 10)),
    *(("mlbits/Goofspiel-v0", {"seats": seats, "cards": 5}) for seats in (3, 10)),
    ("mlbits/Goofspiel-v0", {"cards": 2}),
    ("mlbits/Othello-v0", {"size": 4}),
    *(("mlbits/Hex-v0", {"size": size}) for size in (1, 26)),
    *(("mlbits/Go-v0", {"size": size}) for size in (1, 19)),
    ("mlbits/SimilarityPD-v0", {"noise": "gaussian"}),
]  # fmt: skip


class Written(NamedTuple):
    """A piece of text, its bounding box, and the picture below it."""

    text: str
    size: int
    box: tuple[float, float, float, float]
    ink: Any
    beneath: NDArray[np.uint8]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Canvas, Written]]:
    """All text written to any canvas from now on."""
    found: list[tuple[Canvas, Written]] = []
    original = Canvas.text

    def text(
        canvas: Canvas, x: float, y: float, words: str, size: int = 14, fill: Any = INK, anchor: str = "mm"
    ) -> None:
        box = canvas.pen.textbbox((x, y), words, font=font(size), anchor=anchor)
        rows, columns = slice(max(0, int(box[1])), int(box[3])), slice(max(0, int(box[0])), int(box[2]))
        found.append((canvas, Written(words, size, box, fill, canvas.array()[rows, columns].copy())))
        original(canvas, x, y, words, size, fill, anchor)

    monkeypatch.setattr(Canvas, "text", text)
    return found


def luminance(colour: Any) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    parts = np.asarray(colour, float) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: Any, other: Any) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def check(written: list[tuple[Canvas, Written]]) -> None:
    for canvas, one in written:
        left, top, right, bottom = one.box
        assert one.size >= SMALLEST_TEXT, one
        assert left >= 0 and top >= 0 and right <= canvas.image.width and bottom <= canvas.image.height, one
        colours, counts = np.unique(one.beneath.reshape(-1, 3), axis=0, return_counts=True)
        assert contrast(one.ink, colours[counts.argmax()]) >= 3, one
    for (canvas, one), (other_canvas, other) in itertools.combinations(written, 2):
        if canvas is other_canvas:
            apart = one.box[2] <= other.box[0] or other.box[2] <= one.box[0]
            assert apart or one.box[3] <= other.box[1] or other.box[3] <= one.box[1], (one, other)


@pytest.mark.parametrize(
    ("env", "settings"),
    [pytest.param(*one, marks=[pytest.mark.slow] if one in SLOW else [], id=f"{one[0]}-{one[1]}") for one in SHOWN],
)
def test_text_is_readable(env: str, settings: dict[str, Any], written: list[tuple[Canvas, Written]]) -> None:
    batch = mlbits.make_batch(env, 1, seed=1, autoreset="disabled", **settings)
    for _ in range(3):
        written.clear()
        batch.render()
        assert (
            written
            or "GridWorld" in env
            or env.endswith(("FourRooms-v0", "CliffWalk-v0", "NoisyTV-v0"))
            or settings.get("size")
        )
        check(written)
        if not batch.terminated.any():
            batch.step(batch.sample_actions())


def test_text_of_values_and_policies_is_readable(written: list[tuple[Canvas, Written]]) -> None:
    draw_overlay(mlbits.make_game("mlbits/GridWorld-v0"), np.linspace(-100, 100, 64), np.arange(64) % 4)
    check(written)
    written.clear()
    game = SimilarityGame()
    game.render([lambda seen, x: game.cooperate(x), lambda seen, x: game.defect(x)])
    check(written)


def test_the_last_pull_covers_no_number(written: list[tuple[Canvas, Written]], monkeypatch: pytest.MonkeyPatch) -> None:
    """For any reward and any mean."""
    discs: list[tuple[float, float, float]] = []
    original = Canvas.disc
    monkeypatch.setattr(
        Canvas, "disc", lambda canvas, x, y, radius, *rest, **more: (
            discs.append((x, y, radius)), original(canvas, x, y, radius, *rest, **more)
        )
    )  # fmt: skip
    game = mlbits.make_game("mlbits/Bandit-v0", means=[-2.0, 0.1, 3.0])
    for arm, paid in itertools.product(range(3), np.linspace(-9, 9, 31)):
        state = np.zeros(1, game.state_dtype).view(np.recarray)[0]
        state.means[:3], state.arm, state.paid = [-2.0, 0.1, 3.0], arm, paid
        written.clear()
        discs.clear()
        game.draw(state, game.params.view(np.recarray)[0])
        ((x, y, radius),) = discs
        for _, one in written:
            left, top, right, bottom = one.box
            across, down = max(left - x, x - right, 0), max(top - y, y - bottom, 0)
            assert across**2 + down**2 >= radius**2, (arm, paid, one)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-4.13, 3.51, [-4, -2, 0, 2]),
        (0.0, 12.0, [0, 5, 10]),
        (-0.031, 0.02, [-0.02, 0, 0.02]),
        (-90.0, 1200.0, [0, 500, 1000]),
        (0.0, 0.0, [0]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_digits_are_ink_on_paper() -> None:
    """0 is paper and 1 is ink, in the observation and in the picture."""
    batch = mlbits.make_batch("mlbits/Digits-v0", 1, seed=3)
    image = batch.render()
    pixels = image[34 : 34 + 240, 40 : 40 + 240].reshape(8, 30, 8, 30, 3).mean((1, 3, 4)).reshape(-1)
    observed = batch.obs[0, 0].numpy()
    assert np.corrcoef(pixels, observed)[0, 1] < -0.999
    assert pixels[observed == 0] == pytest.approx(np.mean(PAPER), abs=3)
    assert pixels[observed == 1] == pytest.approx(np.mean(INK), abs=3)


def test_edges_are_smooth() -> None:
    """A slanted edge mixes its colour with the ground, and covers the area of its geometry."""
    canvas = Canvas(100, 100)
    canvas.line([(10, 10), (80, 55)], BLUE, 10)
    canvas.disc(25, 75, 15, BLUE)
    covered = (np.array(PAPER, float)[0] - canvas.array()[..., 0]) / (PAPER[0] - BLUE[0])
    assert ((covered > 0.1) & (covered < 0.9)).sum() > 100
    assert covered[60:, :45].sum() == pytest.approx(np.pi * 15**2, rel=0.02)
    assert covered.sum() - covered[60:, :45].sum() == pytest.approx(10 * np.hypot(70, 45), rel=0.03)


@pytest.mark.parametrize(
    "env", ["mlbits/CartPole-v0", "mlbits/Pendulum-v0", "mlbits/PointMass-v0", "mlbits/GridWorld-v0"]
)
def test_round_and_slanted_shapes_have_smooth_edges(env: str) -> None:
    image = mlbits.make_batch(env, 1, seed=1).render()
    sharp = np.unique(image.reshape(-1, 3), axis=0)
    assert len(sharp) > 40


def test_goofspiel_names_its_colours(written: list[tuple[Canvas, Written]]) -> None:
    mlbits.make_batch("mlbits/Goofspiel-v0", 1).render()
    words = " ".join(one.text for _, one in written)
    for part in ("prize on offer, last bid", "prize won by that seat", "won by none", "in hand"):
        assert part in words


def test_seats_have_distinct_readable_colours() -> None:
    assert len(set(SEATS)) == 10
    assert min(contrast(colour, PAPER) for colour in SEATS) >= 3
    assert min(np.abs(np.subtract(a, b)).sum() for a, b in itertools.combinations(SEATS, 2)) >= 60
