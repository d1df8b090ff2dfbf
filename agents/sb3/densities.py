"""Log densities of the actions that Stable-Baselines3's stochastic policies play."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.agents.maths.action_distributions import DiagonalGaussian

_EDGE = 1e-6  # how near to a bound a squashed action counts; beyond, float32 cannot invert tanh


def action_log_prob(policy: Any, seen: Any, action: Tensor) -> Tensor:
    """Log probabilities of actions as played, [N]; densities in the action's units, if it is continuous.

    Gaussians (PPO, A2C) are clipped to the bounds of the action space, which get the probability beyond them; SAC's are
    squashed by tanh.

    Args:
        policy: SB3's policy.
        seen: observations in its form.
        action: [N, ...].

    Raises:
        AgentError: for a deterministic policy (DDPG, TD3, DQN).
    """
    space = policy.action_space
    if hasattr(policy, "get_distribution"):
        found = policy.get_distribution(seen)
        if not isinstance(space, spaces.Box):
            return found.log_prob(action)
        if policy.squash_output:
            raise AgentError("action_log_prob: got a policy with squashed gSDE; wanted a plain Gaussian, or SAC's")
        normal, box = found.distribution, DiagonalGaussian(space.low.reshape(-1), space.high.reshape(-1))
        scale, center = box.scale.to(action.device), box.center.to(action.device)
        params = torch.cat([(normal.mean - center) / scale, torch.log(normal.stddev / scale)], -1)
        return box.played_log_prob(params, None, action.reshape(len(action), -1))
    actor = getattr(policy, "actor", None)
    if not hasattr(actor, "get_action_dist_params") or actor.use_sde:  # type: ignore[union-attr]
        raise AgentError(f"action_log_prob: got {type(policy).__name__}, which has no density; wanted PPO's or SAC's")
    mean, log_std, _ = actor.get_action_dist_params(seen)  # type: ignore[union-attr]
    low, high = (torch.as_tensor(end, device=action.device) for end in (space.low, space.high))
    half = (high - low) / 2
    unit = ((action - low) / half - 1).clamp(-1 + _EDGE, 1 - _EDGE)
    density = actor.action_dist.proba_distribution(mean, log_std).log_prob(unit)  # type: ignore[union-attr]
    return density - half.log().sum()
