"""What steps pay on the way to other goals, for any batch: a game's own rule, or Gymnasium-Robotics' functions.

Environments of others have ``compute_reward(achieved_goal, desired_goal, info)`` and ``compute_terminated`` of the same
arguments. They are called with all rows at once where they take that, else once a row; ``info`` is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.goals import GameGoals, GoalRule, check_goal_space
from mlbits.envs.doors.gymnasium_batch import AnyBatch
from mlbits.envs.engine.batch import GameBatch


def goal_rule(batch: AnyBatch) -> GoalRule:
    """The goal rule of a batch's environment.

    Raises:
        GameError: if its observations have no goals, seats play in turns or several at once, or it cannot say what
            other goals would have paid.
    """
    if isinstance(batch, GameBatch):
        if batch.num_seats > 1:
            raise GameError(f"{batch.game.name}: goals are for one seat; got {batch.num_seats} seats")
        return GameGoals(batch.game)
    return GymnasiumGoals(batch.envs[0], batch.env_id)


class GymnasiumGoals:
    """The goal rule of a Gymnasium environment, by its own ``compute_reward`` and ``compute_terminated``.

    Without ``compute_terminated`` no goal ends an episode.

    Args:
        env: the environment, with its wrappers.
        name: for messages.

    Raises:
        GameError: if its observations have no goals, or it has no ``compute_reward``.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        check_goal_space(env.observation_space, name)
        self._name, reward = name, _attribute(env, "compute_reward")
        if reward is None:
            raise GameError(f"{name}: has no compute_reward, which says what a step pays for another goal; wanted an "
                            "environment with it, as Gymnasium-Robotics' have")  # fmt: skip
        self._reward, self._terminated = reward, _attribute(env, "compute_terminated")

    def __call__(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`~mlbits.envs.core.goals.GoalRule`.

        Raises:
            GameError: if the environment's functions fail or do not return a number.
        """
        goals = achieved.cpu().numpy(), desired.cpu().numpy()
        reward = self._called("compute_reward", self._reward, *goals).astype(np.float32)
        terminated = np.zeros(len(reward), np.bool_)
        if self._terminated is not None:
            terminated = self._called("compute_terminated", self._terminated, *goals).astype(np.bool_)
        return torch.from_numpy(reward).to(achieved.device), torch.from_numpy(terminated).to(achieved.device)

    def _called(
        self, name: str, function: Callable[..., Any], achieved: NDArray[Any], desired: NDArray[Any]
    ) -> NDArray[Any]:
        """The function's values for N rows, [N]."""
        try:
            if len(achieved) > 1:  # of one row a single number could be either
                try:
                    together = np.asarray(function(achieved, desired, {}))
                except Exception:  # it takes one row at a time
                    together = np.zeros(())
                if together.shape == (len(achieved),):
                    return together
            return np.array([float(function(*row, {})) for row in zip(achieved, desired, strict=True)])
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            raise GameError(f"{self._name}: {name} failed on goals {achieved.shape[1:]} ({said})") from None


def _attribute(env: gym.Env[Any, Any], name: str) -> Any:
    """A function of the outermost wrapper that has it, or None."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
