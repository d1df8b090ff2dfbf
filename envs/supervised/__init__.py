"""Supervised: a labelled dataset as a one-step environment, in which the action is an answer and is rewarded.

Description:
    An example is drawn, its features are observed, one of the labels is answered and rewarded: a contextual bandit
    with the reward R(answer | features). With the default rewards, 1 for the right label and 0 for others, the mean
    return of a policy is its accuracy, and supervised learning is reinforcement learning in which every action's
    reward is known. :func:`supervised` makes the game from arrays or from a torch Dataset, :func:`register_supervised`
    registers it under an id, and ``mlbits/Digits-v0`` (:mod:`mlbits.envs.digits`) is a ready-made one.

    Source: Kaplan, "Notes on Contemporary Machine Learning for Physicists", section 8.4.

Actions:
    Discrete(A): the label to answer, of A labels.

Observations (setting ``feedback``):

    | value | space | meaning |
    |---|---|---|
    | "bandit" | Box of the features' shape, float32 or uint8 | the example's features |
    | "full" | Dict: "features" as above, "feedback" Box float32 [A] | the features, and the reward of each answer |

    "feedback" is 0 before the answer and holds the rewards of all answers in the episode's last observation. So after
    the answer, "full" reveals the label, which "bandit" does not. The policy has the same information in both; a
    learner that uses the feedback is a supervised one.

Rewards:
    ``rewards[label, answer]``, or ``rewards[example, answer]`` if each example has its own.

Start:
    An example drawn uniformly from the split; no answer yet.

End:
    Termination after one step.

Version history:
    v0: first version.

Example:
    >>> import numpy as np
    >>> from mlbits.envs.engine.batch import GameBatch
    >>> x, y = np.random.default_rng(0).normal(size=(100, 5)), np.arange(100) % 3
    >>> batch = GameBatch(supervised(x, y, split="train"), 64)
    >>> batch.step(batch.sample_actions()).reward.shape
    torch.Size([64, 1])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.settings import choice, integer
from mlbits.envs.registry import register
from mlbits.envs.supervised import drawing
from mlbits.envs.supervised.data import MAX_CLASSES, check_size, read_classes, read_data, read_rewards, split_examples
from mlbits.envs.supervised.rules import OBSERVE, reset, step

SPLITS = ("all", "train", "test")


def supervised(
    features: Any,
    labels: Any = None,
    *,
    num_classes: int | None = None,
    classes: Sequence[int] | None = None,
    rewards: Any = None,
    split: Literal["all", "train", "test"] = "all",
    test_fraction: float = 0.2,
    split_seed: int = 0,
    feedback: Literal["bandit", "full"] = "bandit",
    name: str = "Supervised",
) -> Game:
    """A labelled dataset as a one-step game.

    Args:
        features: [N, ...] with one to three axes per example, numbers (a column [N] counts as [N, 1]); bool and
            integers 0..255 become uint8, the rest float32. Or, without ``labels``, a torch Dataset or any other
            sequence of pairs (features, label).
        labels: non-negative integers [N].
        num_classes: number of labels; None means the largest label plus one.
        classes: labels in use, at least two; answer k stands for the label classes[k]. None means all.
        rewards: rewards of answers: None means 1 for the right answer and 0 for others; a matrix [A, A] of label and
            answer, also flattened row by row; or a table [N, A] of example and answer. A is the number of labels in
            use; if N equals A, it is read as the matrix.
        split: "all", "train" or "test".
        test_fraction: fraction of each label's examples in the test split, above 0 and below 1.
        split_seed: seed of the split.
        feedback: "bandit" or "full", see the module's docstring.
        name: the game's name, a Python identifier.

    Raises:
        GameError: naming what is wrong with the data: no examples, lengths that differ, NaN, labels that are not
            integers or out of range, a single class, more than 2 GiB; or a setting out of range.
    """
    choice("split", split, SPLITS)
    choice("feedback", feedback, OBSERVE)
    integer("split_seed", split_seed, 0, 2**63 - 1)
    table, given = read_data(features, labels, num_classes)
    shown = read_classes(classes, given, num_classes)
    pay = read_rewards(rewards, len(shown), len(given))
    check_size(table, table.dtype, pay.nbytes)
    train, test = split_examples(given, shown, split, test_fraction, split_seed)
    first = len(train) if split == "test" else 0
    count = {"all": len(train) + len(test), "train": len(train), "test": len(test)}[split]
    answer_of = np.full(MAX_CLASSES, -1)
    answer_of[list(shown)] = np.arange(len(shown))
    axes, numbers = table.shape[1:], math.prod(table.shape[1:])
    params = make_params(
        [
            ("first", "i4"), ("examples", "i4"), ("by_example", "u1"), ("low", "f4"), ("high", "f4"),
            ("axes", "i4", (3,)), ("classes", "i4", (len(shown),)), ("members", "i4", (len(given),)),
            ("labels", "i2", (len(given),)), ("rewards", "f4", pay.shape),
            ("features", table.dtype, (len(given), numbers)),
        ],
        {
            "first": first, "examples": count, "by_example": len(pay) != len(shown), "low": table.min(),
            "high": table.max(), "axes": axes, "classes": shown, "members": np.concatenate([train, test]),
            "labels": answer_of[given], "rewards": pay, "features": table.reshape(len(given), numbers),
        },
    )  # fmt: skip
    return Game(
        name=name,  # state.example is the row index in the user's arrays
        state_fields=[("example", "i4"), ("answer", "i4")],
        state_ranges={"example": (0, len(given) - 1), "answer": (-1, len(shown) - 1)},
        params=params,
        observation_space=_observation_space(table, pay, feedback),
        action_space=spaces.Discrete(len(shown)),
        reset=reset,
        step=step,
        observe=OBSERVE[feedback][len(axes) - 1],
        text=drawing.text,
        draw=drawing.draw,
        reveals=True,
        layout={"classes": shown},
    )


def register_supervised(game_id: str, features: Any, labels: Any = None, *, summary: str = "", **settings: Any) -> None:
    """Register a dataset under an id, for all doors and for training in this process.

    The settings that remain are ``split`` ("train" by default) and ``feedback``.

    Args:
        game_id: "namespace/Name-vN".
        features: see :func:`supervised`.
        labels: see :func:`supervised`.
        summary: one line for listings.
        **settings: further settings of :func:`supervised`, fixed for this id.

    Raises:
        GameError: as for :func:`supervised`, at once; or if the id is malformed or taken.
    """

    def factory(
        split: Literal["all", "train", "test"] = "train", feedback: Literal["bandit", "full"] = "bandit"
    ) -> Game:
        return supervised(features, labels, split=split, feedback=feedback, **settings)

    factory()
    register(game_id, factory, summary=summary)


def _observation_space(table: NDArray[Any], pay: NDArray[np.float32], feedback: str) -> spaces.Space[Any]:
    shape, kind = table.shape[1:], table.dtype
    high = (1 if table.max() <= 1 else 255) if kind == np.uint8 else table.max()
    seen = spaces.Box(0 if kind == np.uint8 else table.min(), high, shape, kind.type)
    if feedback == "bandit":
        return seen
    rewards = spaces.Box(min(pay.min(), 0.0), max(pay.max(), 0.0), pay.shape[1:], np.float32)
    return spaces.Dict({"features": seen, "feedback": rewards})
