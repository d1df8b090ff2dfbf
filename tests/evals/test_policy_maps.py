"""Pictures of policies on gridworlds: every cell's move and value for any observations, and the exact ones."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents import agent_entry
from mlbits.agents.agent import Decision
from mlbits.envs.gridworld.drawing import draw_overlay
from mlbits.evals.policy_maps import add_pictures, exact_picture, fixed_map, learned_picture, policy_pictures
from mlbits.selfplay.runs.config import resolve

MAP = "S..G/.#.X/...."
GRID = "mlbits/GridWorld-v0"


class Table:
    """Plays a table's move, and values cells by another; both by the cell that the observation shows."""

    def __init__(self, moves, values, observation):
        self.moves, self.values, self.observation = moves, values, observation

    def _cells(self, obs):
        if self.observation == "index":
            return obs.long()
        return (obs if self.observation == "one_hot" else obs[:, 0].flatten(1)).float().argmax(-1)

    def act(self, obs, legal_mask, generator, *, greedy=False):
        assert greedy
        action = self.moves[self._cells(obs)]
        return Decision(action, action, None)

    def state_values(self, obs):
        return self.values[self._cells(obs)]


@pytest.mark.parametrize("observation", ["index", "one_hot", "planes"])
def test_every_cell_shows_its_own_move_and_value(observation):
    game = mlbits.make_game(GRID, map=MAP, observation=observation)
    moves, values = torch.arange(12) % 4, torch.linspace(-1, 1, 12)
    picture = learned_picture(Table(moves, values, observation), game)
    assert np.array_equal(picture, draw_overlay(game, values.double().numpy(), moves.numpy()))


def test_an_agent_without_values_shows_its_moves():
    game = mlbits.make_game(GRID, map=MAP)
    table = Table(torch.arange(12) % 4, torch.zeros(12), "index")
    table.state_values = None
    assert np.array_equal(learned_picture(table, game), draw_overlay(game, None, table.moves.numpy()))


def test_the_exact_picture_worked_by_hand():
    """A corridor of two cells before the goal, a step at 0.01, discount 0.95: 1, then -0.01 + 0.95. One cell apart."""
    game = mlbits.make_game(GRID, map="S.G#.")
    values, policy = [0.94, 1.0, np.nan, np.nan, np.nan], np.zeros((5, 4))
    policy[:2, 1] = 1
    assert np.array_equal(exact_picture(game, 0.95), draw_overlay(game, values, policy))
    undiscounted = draw_overlay(game, [0.99, 1.0, np.nan, np.nan, np.nan], policy)
    assert np.array_equal(exact_picture(game, 1.0), undiscounted)


@pytest.mark.parametrize("name", ["ppo", "trpo", "reinforce", "dqn", "q-learning"])
def test_agents_with_values_draw_them(name):
    game = mlbits.make_game(GRID, map=MAP)
    entry = agent_entry(name)
    agent = entry.make(entry.config_class()(), game.observation_space, game.action_space, seed=0, device="cpu")
    assert agent.state_values(torch.arange(5, dtype=torch.int32)).shape == (5,)


def test_only_gridworlds_with_a_fixed_map_are_drawn():
    for env in ("mlbits/DeepSea-v0", "mlbits/RandomGridWorld-v0", "CartPole-v1", "mlbits/Digits-v0"):
        assert fixed_map(env, {}) is None
        assert policy_pictures(None, resolve("ppo", env, preset="none"), device="cpu", exact=True) == {}
    assert fixed_map("mlbits/FourRooms-v0", {}).name == "FourRooms"


def test_a_map_too_large_to_be_solved_at_once_has_no_exact_picture():
    settings = resolve("ppo", GRID, preset="none", env_settings={"map": "/".join(["." * 99] * 60 + ["." * 98 + "G"])})
    table = Table(torch.zeros(61 * 99, dtype=torch.int64), torch.zeros(61 * 99), "index")
    assert list(policy_pictures(table, settings, device="cpu", exact=True)) == ["policy/learned"]


def test_nothing_is_written_without_pictures(tmp_path):
    add_pictures(tmp_path, 5, {})
    assert list(tmp_path.iterdir()) == []
