"""The worst case of agents without randomness: perfect play never loses, and a flaw in one line of play is found."""

import pytest
import torch

from mlbits.agents.agent import Decision
from mlbits.envs.core.errors import GameError
from mlbits.evals.worst_case import worst_return
from tests.envs.board.game_trees import Tree

ID = "mlbits/TicTacToe-v0"


class Table:
    """Plays perfectly by backward induction, except for the positions in ``flaws``, where it plays worst."""

    def __init__(self, flaws=()):
        tree = Tree(ID)
        self.moves = {}
        for (states, _), values in zip(tree.levels(), tree.values()[1], strict=True):
            for state, row in zip(states, values, strict=True):
                sign = 1 if state["turn"] == 0 else -1
                row = torch.tensor(row) * sign
                key = self.key(state)
                low, high = row.nan_to_num(9.0).argmin(), row.nan_to_num(-9.0).argmax()
                self.moves[key] = int(low if key in flaws else high)

    @staticmethod
    def key(state):
        return (*(int(marks) for marks in state["marks"]),)

    def plan(self, positions, generator, *, greedy=False):
        states = positions.states.numpy().view(positions.game.state_dtype)[:, 0]
        action = torch.tensor([self.moves[self.key(state)] for state in states])
        return Decision(action, action, None)


def test_perfect_play_never_loses_and_one_flaw_does():
    assert [worst_return(Table(), ID, seat) for seat in (0, 1)] == [0, 0]
    flawed = Table(flaws={(0b000000001, 0b000000000)})  # after a1: only the centre draws
    assert [worst_return(flawed, ID, seat) for seat in (0, 1)] == [0, -1]


def test_the_first_legal_move_loses():
    class First:
        def act(self, obs, mask, generator, *, greedy=False):
            action = mask.int().argmax(-1)
            return Decision(action, action, None)

    assert [worst_return(First(), ID, seat) for seat in (0, 1)] == [-1, -1]


def test_games_that_are_too_large_or_simultaneous_are_refused(monkeypatch):
    monkeypatch.setattr("mlbits.evals.worst_case._MOST_POSITIONS", 100)
    with pytest.raises(GameError, match="more than 100 positions"):
        worst_return(Table(), ID, 0)
    with pytest.raises(GameError, match="two seats that move in turn"):
        worst_return(Table(), "mlbits/Blotto-v0", 0)
