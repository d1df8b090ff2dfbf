"""Digits: classify a handwritten digit; the right answer is rewarded.

Description:
    A labelled dataset as an environment of one step (see :mod:`mlbits.envs.supervised`): 1,797 images of 8x8
    pixels of the digits 0 to 9, written by 43 people, as distributed with scikit-learn. A fifth of each digit's
    images, the same in every run, are the test split, which is never used in training.

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits" (1998), UCI machine learning repository;
    its test set, which scikit-learn distributes.

Actions:
    Discrete(A): the answer, one of the A digits in use; action k stands for ``classes[k]``.

Observations (setting ``observation``):

    | value | space | meaning |
    |---|---|---|
    | "flat" | Box(0, 1, [64], float32) | the pixels row by row, 0 is paper and 1 ink |
    | "image" | Box(0, 255, [8, 8], uint8) | the same as an image |

    With ``feedback="full"`` a Dict of "features", as above, and "feedback", the reward of each answer: 0 before the
    answer, all rewards after it.

Rewards:
    1 for the right answer and 0 for any other; the mean return is the accuracy. Or ``rewards[label, answer]``.

Start:
    An image drawn uniformly from the split.

End:
    Termination after one step.

Version history:
    v0: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.game import Game
from mlbits.envs.core.settings import choice, integer
from mlbits.envs.supervised import supervised
from mlbits.envs.supervised.drawing import draw

DIGITS, MOST = 10, 16  # number of labels; largest value of a pixel


@cache
def _load() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels 0..16, [1797, 8, 8], and labels [1797]."""
    from sklearn.datasets import load_digits  # imported here because it takes a second

    data: Any = load_digits()
    return data.images, data.target


def digits(
    split: Literal["train", "test", "all"] = "train",
    *,
    classes: int | Sequence[int] = DIGITS,
    rewards: Sequence[float] | None = None,
    observation: Literal["flat", "image"] = "flat",
    feedback: Literal["bandit", "full"] = "bandit",
) -> Game:
    """Handwritten digits.

    Args:
        split: "train" (four fifths of the images), "test" (the rest) or "all".
        classes: number of digits in use, starting with 0, at least two; or a list of digits.
        rewards: rewards of answers: a matrix [label, answer], also flattened row by row; None means 1 for the right
            answer and 0 for others.
        observation: "flat" or "image".
        feedback: "bandit" shows nothing after the answer, "full" the rewards of all answers.

    Raises:
        GameError: for a setting out of range.
    """
    if isinstance(classes, (int, np.integer)):
        classes = range(integer("classes", classes, 2, DIGITS))
    choice("observation", observation, ("flat", "image"))
    images, labels = _load()
    if observation == "flat":
        features = images.reshape(len(images), -1) / MOST
    else:
        features = np.round(images * (255 / MOST)).astype(np.uint8)
    game = supervised(
        features, labels, num_classes=DIGITS, classes=classes, rewards=rewards, split=split, feedback=feedback,
        name="Digits",
    )  # fmt: skip
    return replace(game, draw=partial(draw, ink=True))
