"""Goal-conditioned environments: observations that say what was achieved and what is desired.

The convention is that of Gymnasium-Robotics (Plappert et al. 2018): an observation is a Dict with ``observation``,
``achieved_goal`` and ``desired_goal``, the last two of the same space, and what a step pays and whether it ends the
episode is a function of both goals as they are after it. So an agent can ask what a step would have paid on the way to
another goal (:mod:`mlbits.agents.memory.hindsight`).

A game declares that function as its rule ``goal(params, achieved, desired) -> (reward, terminated)``, in which goals
are arrays as ``observe`` writes them, and calls it in its own ``step``. Environments of others have ``compute_reward``
and ``compute_terminated`` (:mod:`mlbits.envs.doors.goals`).

Example:
    >>> from mlbits.envs.bit_flipping import bit_flipping
    >>> import torch
    >>> goals = GameGoals(bit_flipping(bits=2))
    >>> goals(torch.tensor([[0, 1], [1, 1]], dtype=torch.int8), torch.tensor([[0, 1], [0, 1]], dtype=torch.int8))
    (tensor([ 0., -1.]), tensor([ True, False]))
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numba
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, Rule
from mlbits.envs.core.rules import python_function

OBSERVATION, ACHIEVED, DESIRED = "observation", "achieved_goal", "desired_goal"


class GoalRule(Protocol):
    """What steps pay on the way to any goals."""

    def __call__(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards and ends of N steps.

        Args:
            achieved: what was achieved after each step, [N, ...].
            desired: what was desired, [N, ...].

        Returns:
            Rewards, float32 [N], and whether the goal terminates the episode, bool [N]; on the device of the goals.
        """
        ...


def check_goal_space(space: gym.Space[Any], who: str) -> None:
    """Check that an observation space is goal-conditioned.

    Raises:
        GameError: naming the key that is missing, or the two goals that are not of the same space.
    """
    parts = dict(space.items()) if isinstance(space, spaces.Dict) else {}
    wanted = f"a Dict with {OBSERVATION}, {ACHIEVED} and {DESIRED}"
    if missing := [key for key in (OBSERVATION, ACHIEVED, DESIRED) if key not in parts]:
        got = f"a Dict without {missing[0]}" if parts else str(space)
        raise GameError(f"{who}: observations have no goals: got {got}; wanted {wanted}")
    one, other = parts[ACHIEVED], parts[DESIRED]
    if type(one) is not type(other) or one.shape != other.shape or one.dtype != other.dtype:
        raise GameError(f"{who}: got {ACHIEVED} {one} and {DESIRED} {other}; wanted goals of the same space")


class GameGoals:
    """The goal rule of a game, compiled for N rows.

    Args:
        game: a game with ``goal``.
        params: its parameters, [1]; the game's own if None.

    Raises:
        GameError: if it has none, or its observations have no goals.
    """

    def __init__(self, game: Game, params: NDArray[Any] | None = None) -> None:
        if game.goal is None:
            raise GameError(f"{game.name}: has no goals; wanted a game with a rule goal, such as mlbits/BitFlipping-v0")
        check_goal_space(game.observation_space, game.name)
        self._params = game.params if params is None else params
        self._loop = _compiled(game.goal)

    def __call__(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`GoalRule`; goals on a GPU are copied to the CPU."""
        rows = len(achieved)
        one, other = (goal.cpu().numpy().reshape(rows, -1) for goal in (achieved, desired))
        reward, terminated = np.zeros(rows, np.float32), np.zeros(rows, np.bool_)
        self._loop(self._params, one, other, reward, terminated)
        return torch.from_numpy(reward).to(achieved.device), torch.from_numpy(terminated).to(achieved.device)


def _compiled(goal: Rule) -> Any:
    """A loop over rows with the rule inside."""

    def loop(params: Any, achieved: Any, desired: Any, reward: Any, terminated: Any) -> None:
        for row in range(len(reward)):
            reward[row], terminated[row] = goal(params[0], achieved[row], desired[row])

    return loop if python_function(goal) is goal else numba.njit(error_model="numpy")(loop)
