"""Steps as bonuses see them: what was observed, what was done, what followed, in the order of play."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor

from mlbits.agents.agent import AgentError, Rollout, pick, rows
from mlbits.envs.core.order_space import OrderSpace
from mlbits.envs.core.spaces import action_layout


class Steps(NamedTuple):
    """T steps of S streams (one per copy and seat), or with one axis N steps in any order.

    Attributes:
        obs: [T, S, ...] or a dict of those.
        action: the draws, [T, S, ...].
        next_obs: what followed, at the end of an episode its last observation, [T, S, ...] or a dict of those.
        ended: bool [T, S], whether the episode ended; None if the steps are in no order.
        mine: bool [T, S], whether the step is the learner's; None if all are.
    """

    obs: Any
    action: Tensor
    next_obs: Any
    ended: Tensor | None = None
    mine: Tensor | None = None

    def flat(self) -> Steps:
        """The learner's steps alone, in no order: [N, ...]."""
        flat = Steps(rows(self.obs, 2), self.action.flatten(0, 1), rows(self.next_obs, 2))
        return flat if self.mine is None else flat.of(self.mine.flatten().nonzero().squeeze(1))

    def of(self, index: Any) -> Steps:
        """Entries ``index`` of the first axis."""
        ended, mine = (None if part is None else part[index] for part in (self.ended, self.mine))
        return Steps(pick(self.obs, index), pick(self.action, index), pick(self.next_obs, index), ended, mine)


def steps_of(rollout: Rollout) -> Steps:
    """The steps of a rollout, T of S = B x P streams.

    Raises:
        AgentError: if seats wait for their turns: what follows a decision then comes later.
    """
    if rollout.carried is not None or rollout.last_active is not None:
        raise AgentError("bonus: got a game in which seats wait for their turns; wanted one where all act in each step")
    ended = (rollout.terminated | rollout.truncated).unsqueeze(-1).expand(rollout.reward.shape)

    def following(obs: Any, last: Any, final: Any) -> Any:
        if isinstance(obs, dict):
            return {name: following(obs[name], last[name], final[name]) for name in obs}
        after = torch.cat([obs[1:], last.unsqueeze(0)])
        end = ended.reshape(*ended.shape, *[1] * (obs.dim() - 3))
        return torch.where(end, final, after)

    def streams(value: Any) -> Any:
        return {name: streams(part) for name, part in value.items()} if isinstance(value, dict) else value.flatten(1, 2)

    return Steps(
        obs=streams(rollout.obs),
        action=rollout.sample.flatten(1, 2),
        next_obs=streams(following(rollout.obs, rollout.last_obs, rollout.final_obs)),
        ended=ended.flatten(1, 2),
        mine=None if rollout.active is None else rollout.active.flatten(1, 2),
    )


class ActionCode:
    """Actions as inputs of a network, and as what a network guesses.

    Args:
        space: one seat's actions: Discrete, MultiDiscrete or Box of one axis.

    Attributes:
        width: of the code, k.

    Raises:
        AgentError: for orders on a graph.

    Example:
        >>> from gymnasium import spaces
        >>> ActionCode(spaces.MultiDiscrete([2, 3])).encode(torch.tensor([[1, 0]])).tolist()
        [[0.0, 1.0, 1.0, 0.0, 0.0]]
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        if isinstance(space, OrderSpace):
            raise AgentError(f"bonus: got the action space {space}; wanted Discrete, MultiDiscrete or Box")
        layout = action_layout(space)
        self.nvec = layout.nvec
        self.width = layout.mask_size if self.nvec else len(layout.low)

    def encode(self, action: Tensor) -> Tensor:
        """Codes float32 [N, k] of actions [N, ...]: one-hot, or the numbers of a continuous action themselves."""
        if not self.nvec:
            return action.float()
        parts = action.reshape(len(action), len(self.nvec))
        return torch.cat([F.one_hot(parts[:, k], n) for k, n in enumerate(self.nvec)], 1).float()

    def guess_loss(self, guess: Tensor, action: Tensor) -> Tensor:
        """How far guesses [N, k] are from the actions: mean cross-entropy, or mean squared error, a tensor []."""
        if not self.nvec:
            return F.mse_loss(guess, action.float())
        parts, losses, start = action.reshape(len(action), len(self.nvec)), [], 0
        for k, n in enumerate(self.nvec):
            losses.append(F.cross_entropy(guess[:, start : start + n], parts[:, k]))
            start += n
        return torch.stack(losses).mean()
