"""The cross-entropy method on a table: play, then make the actions of the best episodes more probable.

Mannor, Rubinstein and Gat, "The cross entropy method for fast policy search" (2003). For every observation s
the table has the probabilities p(a | s). An iteration plays one episode per copy, keeps the elite (episodes
whose return is at least the 1 - elite quantile), and moves the table towards how often they chose a in s:

    p(a | s)  <-  (1 - step_size) p(a | s) + step_size * count(s, a) / sum_b count(s, b)

Differs if returns take few values (won or lost): ties at the quantile are all elite, and episodes with the
worst return never are, so that nothing is learned if all returns are equal.

Example:
    python docs/examples/run.py train cross_entropy mlbits/GridWorld-v0
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor

from mlbits.agents import AgentEntry, register_agent
from mlbits.agents.agent import AgentError, Decision, Rollout, RolloutSpec
from mlbits.agents.maths.action_distributions import Categorical
from mlbits.agents.maths.returns import rewards_to_go
from mlbits.envs.core.config_fields import configuration, setting

LEAST = 1e-6  # the smallest probability, so that its log is finite


@configuration(AgentError)
class CrossEntropyConfig:
    """Settings of the cross-entropy method."""

    num_steps: int = setting(500, "longest episode, in steps", low=1, high=1e6)
    elite: float = setting(0.2, "fraction of the episodes that are kept", low=1e-6, high=1)
    step_size: float = setting(0.3, "fraction of the old table that an iteration replaces", low=1e-6, high=1)


class CrossEntropy:
    """A tabular agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's, Discrete.
        action_space: one seat's, Discrete.
        seed: not used, as the initial table is uniform; part of every agent's signature.
        device: where the table lives.

    Raises:
        AgentError: for spaces that have no table.
    """

    def __init__(
        self,
        config: CrossEntropyConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, space in (("observation_space", observation_space), ("action_space", action_space)):
            if not isinstance(space, spaces.Discrete):
                raise AgentError(f"{name}: cross_entropy keeps a table; got {space}, wanted Discrete")
        self.config = config
        self.distribution = Categorical(int(action_space.n))
        shape = (int(observation_space.n), int(action_space.n))
        self.table = torch.full(shape, 1 / shape[1], device=device)

    @property
    def experience(self) -> RolloutSpec:
        """One whole episode a copy."""
        return RolloutSpec(self.config.num_steps, whole_episodes=True)

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows of observations."""
        params = self.table[obs].clamp(min=LEAST).log()
        if greedy:
            action = self.distribution.mode(params, legal_mask)
        else:
            action = self.distribution.sample(params, legal_mask, generator)
        return Decision(action, action, self.distribution.log_prob(params, legal_mask, action))

    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """Move the table towards the elite.

        Returns:
            The elite's mean return (NaN, which is not recorded, where there was none), the return that was
            enough to belong to it, and the table's mean entropy in nats.
        """
        assert rollout.active is not None  # whole episodes: copies that are over are not active
        # From step 0 with discount 1 the rewards to go are each episode's return, [B, P].
        returns = rewards_to_go(rollout.reward, rollout.terminated, rollout.truncated, discount=1.0)[0]
        played = rollout.active.any(0)
        enough = torch.quantile(returns[played], 1 - self.config.elite)
        elite = played & (returns >= enough) & (returns > returns[played].min())
        chosen = rollout.active & elite  # [T, B, P]
        states, actions = self.table.shape
        pairs = rollout.obs[chosen].long() * actions + rollout.sample[chosen]
        count = torch.bincount(pairs, minlength=states * actions).view(states, actions)
        seen = count.sum(1) > 0
        share = count[seen] / count[seen].sum(1, keepdim=True)
        self.table[seen] += self.config.step_size * (share - self.table[seen])
        entropy = -(self.table * self.table.clamp(min=LEAST).log()).sum(1).mean()
        return {
            "elite_return": float(returns[elite].mean()),
            "elite_threshold": float(enough),
            "entropy": float(entropy),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The table."""
        return {"table": self.table.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved table.

        Raises:
            AgentError: if it is of another shape.
        """
        if state["table"].shape != self.table.shape:
            raise AgentError(f"table: got {tuple(state['table'].shape)}; wanted {tuple(self.table.shape)}")
        self.table.copy_(state["table"])


register_agent(
    "cross_entropy",
    AgentEntry(
        "cross_entropy",
        "CrossEntropy",
        "CrossEntropyConfig",
        "cross-entropy method on a table",
        actions=("discrete",),
        observations=("index",),
    ),
)
