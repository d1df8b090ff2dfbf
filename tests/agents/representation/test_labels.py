"""Weak labels: answers and their noise, pairs drawn once, and labels that cannot be learned from."""

import numpy as np
import pytest

from mlbits.agents.agent import AgentError
from mlbits.agents.representation.labels import Labels, ask, check_labels


def test_answers_are_the_order_of_the_factors_and_every_pair_is_drawn_once():
    factors = np.random.default_rng(0).random((30, 3))
    labels = ask(factors, 435, np.random.default_rng(1))
    assert np.array_equal(labels.answers, factors[labels.first] > factors[labels.second])
    pairs = {frozenset(pair) for pair in zip(labels.first.tolist(), labels.second.tolist(), strict=True)}
    assert len(pairs) == 435  # all of them
    assert (labels.first < labels.second).mean() == pytest.approx(0.5, abs=0.1)
    again = ask(factors, 435, np.random.default_rng(1))
    assert all(np.array_equal(one, two) for one, two in zip(labels, again, strict=True))


def test_noise_misjudges_a_factor_of_a_picture_with_its_probability():
    factors = np.random.default_rng(0).random((200, 2))
    labels = ask(factors, 15_000, np.random.default_rng(2), noise=0.1)
    wrong = (labels.answers != (factors[labels.first] > factors[labels.second])).mean(0)
    # One of the two is misjudged with 0.19, and a third of the answers changes when one value of two is drawn anew.
    assert wrong == pytest.approx(0.19 / 3, abs=0.015)


def test_more_pairs_than_there_are_and_factors_that_never_vary_are_refused():
    factors = np.stack([np.arange(4.0), np.full(4, 0.5)], 1)
    with pytest.raises(AgentError, match="pairs: got 7; wanted 1 to 6, the pairs of 4 pictures"):
        ask(factors[:, :1], 7, np.random.default_rng(0))
    with pytest.raises(AgentError, match=r"light: is 0\.5 in all 4 pictures; wanted one that varies, or labels"):
        ask(factors, 3, np.random.default_rng(0), names=["hand", "light"])


def labels_of(first, second, *answers):
    return Labels(np.array(first), np.array(second), np.array(answers, bool))


def test_labels_that_contradict_each_other_are_named():
    fine = labels_of([0, 2, 1], [1, 0, 0], [1, 0], [0, 0], [0, 1])  # pairs 0 and 2 are the same pair turned round
    assert check_labels(fine, 3) is fine
    message = (
        "labels: pairs 0 and 2 are of pictures 0 and 1 and contradict each other in height; wanted one answer a pair"
    )
    with pytest.raises(AgentError, match=message):
        check_labels(labels_of([0, 2, 1], [1, 0, 0], [1, 0], [0, 0], [0, 0]), 3, ["width", "height"])
    with pytest.raises(AgentError, match="contradict each other in factor 0"):
        check_labels(labels_of([0, 0], [1, 1], [1], [0]), 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (labels_of([0], [3], [1]), "pair 0: got picture 3; wanted 0 to 2"),
        (labels_of([0, 1], [1, 1], [1], [1]), "pair 1: got picture 1 twice; wanted two pictures"),
        (labels_of([0, 1], [1], [1]), r"of shapes \[2\], \[1\], \[1, 1\]; wanted \[N\], \[N\] and \[N, K\]"),
    ],
)
def test_labels_that_do_not_fit_the_pictures_are_refused(labels, message):
    with pytest.raises(AgentError, match=message):
        check_labels(labels, 3)
