"""Lineups: who sits in each seat, and in which fraction of the copies."""

import pytest
import torch

from mlbits.agents.agent import AgentError
from mlbits.selfplay.lineup import Lineup, against, self_play

CPU = torch.device("cpu")


def test_self_play_gives_the_learner_every_seat():
    lineup = self_play("learner", 5, 3, CPU)
    assert lineup.players == ("learner",)
    assert lineup.learner_only
    assert lineup.learner_seats().all()
    assert lineup.rows(0).tolist() == list(range(15))


def test_rows_of_the_players_are_a_partition():
    seating = torch.tensor([[0, 1], [2, 0], [1, 1]])
    lineup = Lineup(("a", "b", "c"), seating)
    assert not lineup.learner_only
    assert [lineup.rows(player).tolist() for player in range(3)] == [[0, 3], [1, 4, 5], [2]]
    assert lineup.learner_seats().tolist() == [[True, False], [False, True], [False, False]]


def test_fractions_of_opponents_and_the_learners_rotating_seat():
    lineup = against("learner", [("x", 0.5), ("y", 0.25)], 8, 2, CPU)
    assert lineup.players == ("learner", "x", "y")
    # four copies against x, two against y, two of self-play
    assert lineup.seating.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0], [0, 2], [2, 0], [0, 0], [0, 0]]


def test_the_learner_has_one_of_many_seats():
    lineup = against("learner", [("x", 1.0)], 7, 3, CPU)
    assert lineup.learner_seats().sum(1).tolist() == [1] * 7
    assert lineup.learner_seats().sum(0).tolist() == [3, 2, 2]


@pytest.mark.parametrize("shares", [[0.6, 0.5], [-0.1], [2.0]])
def test_impossible_fractions_are_refused(shares):
    with pytest.raises(AgentError, match=r"opponents: got shares .*wanted numbers from 0 that add up to at most 1"):
        against("learner", [("x", share) for share in shares], 8, 2, CPU)


@pytest.mark.parametrize(
    "seating",
    [torch.zeros(3, dtype=torch.int64), torch.zeros(3, 2), torch.tensor([[0, 2]]), torch.tensor([[-1, 0]])],
)
def test_an_invalid_seating_is_refused(seating):
    with pytest.raises(AgentError, match=r"^seating: "):
        Lineup(("a", "b"), seating)
