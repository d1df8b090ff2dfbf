"""What an agent holds if it has a bonus: the bonus itself, its scale and normalisation, and what it has paid.

An agent that learns from rollouts calls :meth:`Explorer.rewarded` first, and learns from the rollout that it returns.
An agent with a replay buffer calls :meth:`Explorer.arrived` with the latest steps, and samples with
``bonus=explorer.of_sampled``: the bonus of an old step is what it is worth now. A bonus that sees steps in order
(``lwm``) cannot do that; it is added to the stored rewards when the steps arrive.

Only learning sees the bonus: returns of episodes, in training and in evaluation, are those of the environment. The
bonus is paid for the step that ends an episode, terminated or truncated, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, Rollout, network_generator, prefixed, unprefixed
from mlbits.agents.exploration.bonus import Bonus
from mlbits.agents.exploration.count import Count
from mlbits.agents.exploration.icm import ICM
from mlbits.agents.exploration.latent_world_model import LatentWorldModel
from mlbits.agents.exploration.own_value import OwnValue
from mlbits.agents.exploration.rnd import RND
from mlbits.agents.exploration.settings import BonusSettings
from mlbits.agents.exploration.steps import Steps, steps_of
from mlbits.agents.memory.replay import Replay
from mlbits.envs.core.schedules import value_at

BONUSES: dict[str, Any] = {"count": Count, "rnd": RND, "icm": ICM, "lwm": LatentWorldModel}
CLIP = 10.0  # of standardised bonuses
_STREAM = 4_000_003  # so that the bonus's initial weights are not the agent's


class Explorer:
    """A bonus in an agent's learning.

    Args:
        settings: the agent's config.
        observation_space: one seat's.
        action_space: one seat's.
        seed: of the initial weights.
        device: of the networks.
        gae_lambda: lambda of the bonus's own advantages, for agents with an actor and a critic.

    Attributes:
        bonus: what is new.
        metrics: of the latest rollout: losses, ``bonus`` (mean, before normalisation), ``bonus_reward`` (after it), and
            ``intrinsic_return``, the mean sum of bonuses of the episodes that ended.

    Raises:
        AgentError: if the bonus does not fit the spaces.
    """

    def __init__(
        self,
        settings: BonusSettings,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int,
        device: torch.device | str,
        gae_lambda: float = 0.95,
    ) -> None:
        self._settings, generator = settings, network_generator(seed + _STREAM)
        self.bonus: Bonus = BONUSES[settings.bonus](settings, observation_space, action_space, generator, device)
        how = settings.bonus_normalize
        self._normalize = self.bonus.normalize if how == "auto" else how
        self._scale = value_at(settings.bonus_scale, 0.0)
        # Of all bonuses: how many, and their mean square; recent ones: mean and mean square.
        self._square = torch.zeros(2, dtype=torch.float64, device=device)
        self._recent: Tensor | None = None
        self._paid: Tensor | None = None  # sums of the episodes under way, [S]
        self.metrics: dict[str, Tensor] = {}
        self.own_value: OwnValue | None = None
        if discount := getattr(settings, "bonus_discount", 0.0):
            self.own_value = OwnValue(settings, observation_space, discount, gae_lambda, generator, device)

    def rewarded(
        self, rollout: Rollout, progress: float, generator: torch.Generator
    ) -> tuple[Rollout, Tensor | None]:  # fmt: skip
        """Learn from a rollout what is new, and reward it.

        Returns:
            The rollout with the bonus in its rewards, and None; with a value of the bonus's own the rollout as it was,
            and the bonus's advantages [T, B, P].
        """
        steps, reward = self._see(rollout, progress, generator)
        shape = rollout.reward.shape
        if self.own_value is None:
            return dataclasses.replace(rollout, reward=rollout.reward + reward.view(shape)), None
        return rollout, self.own_value.advantages(steps, rollout.last_obs, reward, generator).view(shape)

    def arrived(self, replay: Replay, progress: float, generator: torch.Generator) -> None:
        """Learn what is new from the steps that a replay buffer got last."""
        if replay.latest is None:
            return
        reward = self._see(replay.latest, progress, generator)[1]
        if self.bonus.in_order:
            replay.add_to_latest(reward)

    def _see(self, rollout: Rollout, progress: float, generator: torch.Generator) -> tuple[Steps, Tensor]:
        """The steps of a rollout and their bonuses [T, S], from which the bonus has learned."""
        self._scale = value_at(self._settings.bonus_scale, progress)
        steps = steps_of(rollout)
        assert steps.ended is not None
        found = self.bonus.of_steps(steps)
        mine = found if steps.mine is None else found[steps.mine]
        self._update_moments(mine)
        reward = self._scaled(found)
        if steps.mine is not None:
            reward = reward.masked_fill(~steps.mine, 0.0)
        losses = self.bonus.learn(steps, generator)
        self.metrics = {**losses}
        if mine.numel():
            self.metrics |= {"bonus": mine.mean(), "bonus_reward": reward.sum() / mine.numel()}
        self._add_up(reward, steps.ended)
        return steps, reward

    @property
    def of_sampled(self) -> Callable[[Any, Tensor, Any], Tensor] | None:
        """The bonus of N stored steps now, from obs, action and next_obs; None if it is in the stored rewards."""
        return None if self.bonus.in_order else self._of_sampled

    def _of_sampled(self, obs: Any, action: Tensor, next_obs: Any) -> Tensor:
        return self._scaled(self.bonus.of_steps(Steps(obs, action, next_obs)))

    def _update_moments(self, found: Tensor) -> None:
        if not found.numel():
            return
        mean, square = found.double().mean(), found.double().square().mean()
        count = self._square[0] + found.numel()
        self._square[1] += (square - self._square[1]) * found.numel() / count
        self._square[0] = count
        now, decay = torch.stack([mean, square]), self._settings.bonus_decay
        self._recent = now if self._recent is None else decay * self._recent + (1 - decay) * now

    def _scaled(self, found: Tensor) -> Tensor:
        if self._normalize == "rms":
            found = found / (self._square[1].sqrt().float() + 1e-8)
        elif self._normalize == "standard" and self._recent is not None:
            mean, square = self._recent
            deviation = (square - mean.square()).clamp(min=0).sqrt()
            found = ((found - mean.float()) / (deviation.float() + 1e-8)).clamp(-CLIP, CLIP)
        return self._scale * found

    def _add_up(self, reward: Tensor, ended: Tensor) -> None:
        """Add bonuses to their episodes' sums."""
        paid = torch.zeros_like(reward[0]) if self._paid is None or len(self._paid) != len(reward[0]) else self._paid
        sums = []
        for t in range(len(reward)):
            paid = paid + reward[t]
            sums.append(paid)
            paid = paid.masked_fill(ended[t], 0.0)
        self._paid = paid
        total, number = (torch.stack(sums) * ended).sum(), ended.sum()
        if number:
            self.metrics["intrinsic_return"] = total / number

    def state_dict(self) -> dict[str, Tensor]:
        """The bonus, its moments, and the sums of the episodes under way; under names that begin with "explorer"."""
        state = prefixed("bonus", self.bonus.state_dict()) | {"square": self._square}
        state |= {} if self._recent is None else {"recent": self._recent}
        state |= {} if self._paid is None else {"paid": self._paid}
        state |= {} if self.own_value is None else prefixed("own_value", self.own_value.state_dict())
        return {f"explorer.{name}": value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state, in which other entries are ignored."""
        mine = unprefixed("explorer", state)
        if "square" not in mine:
            raise AgentError("explorer: missing in the saved state; wanted one of an agent with this bonus")
        self.bonus.load_state_dict(unprefixed("bonus", mine))
        device = self._square.device
        self._square.copy_(mine["square"])
        self._recent, self._paid = (
            mine[name].to(device, copy=True) if name in mine else None for name in ("recent", "paid")
        )
        if self.own_value is not None:
            self.own_value.load_state_dict(unprefixed("own_value", mine))


def explorer_of(
    settings: BonusSettings,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    seed: int,
    device: torch.device | str,
    gae_lambda: float = 0.95,
) -> Explorer | None:
    """The explorer that an agent's settings ask for; None without a bonus."""
    if settings.bonus == "none":
        return None
    return Explorer(settings, observation_space, action_space, seed=seed, device=device, gae_lambda=gae_lambda)


def refuse_turns(settings: Any, env: str, active: Tensor | None) -> None:
    """Refuse a bonus where seats wait for their turns.

    Args:
        settings: of any agent.
        env: id of the environment.
        active: the batch's, who acts; None if all seats act in each step.

    Raises:
        AgentError: naming the setting.
    """
    if active is not None and (bonus := getattr(settings, "bonus", "none")) != "none":
        raise AgentError(f"bonus: got {bonus!r} for {env}, in which seats wait for their turns; wanted 'none', or an "
                         "environment where all seats act in each step")  # fmt: skip
