"""Networks of the offline agents: a policy over actions of either kind, critics Q(s, a), and the scaling of inputs.

For Discrete actions a critic has an output for each action, for a Box the action is an input of its first layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.agent import AgentError
from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.networks.features import Features, observation_kind
from mlbits.agents.networks.mlp import MLP, Precision

_ROWS_AT_ONCE = 512
_LEAST_STD = 1e-3  # added to standard deviations of observations, as in TD3+BC


class Policy(nn.Module):
    """The parameters of an action distribution, from observations.

    Args:
        space: observation space.
        size: number of parameters.
        hidden: widths of the hidden layers.
        generator: the source of initial weights.
        layer_norm: whether hidden layers are normalised.
        precision: of the products between hidden layers.
        head_scale: factor on the head's initial weights.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        size: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        layer_norm: bool = False,
        precision: Precision = "float32",
        head_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.precision: Precision = precision
        self.features = Features(space, generator)
        self.mlp = MLP(self.features, hidden, size, generator, activation="relu", layer_norm=layer_norm)
        with torch.no_grad():
            self.mlp.head.mul_(head_scale)
            self.mlp.head_bias.mul_(head_scale)

    def forward(self, obs: Any) -> Tensor:
        """[N, size]."""
        return self.mlp.forward(self.features.forward(obs), self.precision)


class Critics(nn.Module):
    """One or more critics Q(s, a), which share convolutions.

    Args:
        space: observation space.
        actions: number of actions A, or of action dimensions k.
        discrete: whether actions are Discrete.
        hidden: widths of the hidden layers.
        generator: the source of initial weights.
        count: how many critics.
        atoms: outputs for each action, K; 1 for plain Q.
        layer_norm: whether hidden layers are normalised.
        precision: of the products between hidden layers.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        actions: int,
        discrete: bool,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        count: int = 1,
        atoms: int = 1,
        layer_norm: bool = False,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.discrete, self.actions, self.atoms = discrete, actions, atoms
        self.precision: Precision = precision
        self.features = Features(space, generator, extra=0 if discrete else actions)
        out = actions * atoms if discrete else atoms
        self.mlps = nn.ModuleList(
            MLP(self.features, hidden, out, generator, activation="relu", layer_norm=layer_norm) for _ in range(count)
        )
        self._mlps: list[Any] = [*self.mlps]

    def taken(self, obs: Any, action: Tensor, first: bool = False) -> list[Tensor]:
        """Each critic's output for one action in each observation, [N, K]; or the first critic's alone."""
        mlps = self._mlps[:1] if first else self._mlps
        if not self.discrete:
            parts = self.features.forward(obs, action)
            return [mlp.forward(parts, self.precision) for mlp in mlps]
        index = action.view(-1, 1, 1).expand(-1, 1, self.atoms)
        return [out.gather(1, index).squeeze(1) for out in self._every(obs, mlps)]

    def candidates(self, obs: Any, actions: Tensor | None) -> list[Tensor]:
        """Each critic's output for several actions in each observation, [M, N, K].

        Args:
            obs: [N, ...].
            actions: float32 [M, N, k]; None for all A Discrete actions, M = A.
        """
        if actions is None:
            return [out.transpose(0, 1) for out in self._every(obs, self._mlps)]
        count, rows = actions.shape[:2]
        seen = self.features.forward(obs)
        step = max(1, _ROWS_AT_ONCE // rows)  # activations of more rows leave the processor's cache
        parts = [self._of_draws(seen, actions[k : k + step]) for k in range(0, count, step)]
        if len(parts) == 1:
            return parts[0]
        return [torch.cat(outs) for outs in zip(*parts, strict=True)]

    def _of_draws(self, seen: list[Tensor], actions: Tensor) -> list[Tensor]:
        """Each critic's output [M, N, K] for the parts of N observations and actions [M, N, k]."""
        count, rows = actions.shape[:2]
        parts = [part.repeat(count, 1) for part in seen]
        flat = actions.flatten(0, 1)
        if len(parts) < len(self.features.is_index):  # an observation of indices alone
            parts.append(flat)
        else:
            parts[-1] = torch.cat([parts[-1], flat], 1)
        return [mlp.forward(parts, self.precision).view(count, rows, self.atoms) for mlp in self._mlps]

    def _every(self, obs: Any, mlps: Sequence[Any]) -> list[Tensor]:
        """[N, A, K] each."""
        parts = self.features.forward(obs)
        return [mlp.forward(parts, self.precision).view(-1, self.actions, self.atoms) for mlp in mlps]


class Scaling(nn.Module):
    """Shifts and scales of observations and rewards, found once from a dataset and saved with the weights.

    Args:
        space: observation space; vectors of floats are scaled, alone or in a Dict, indices and images are not.

    Attributes:
        fitted: whether they have been found, a float tensor [].
        reward_shift: taken from rewards.
        reward_scale: then multiplied with them.
    """

    fitted: Tensor
    reward_shift: Tensor
    reward_scale: Tensor

    def __init__(self, space: gym.Space[Any]) -> None:
        super().__init__()
        self._fitted = False  # the same, as far as the host knows: reading it from a GPU takes a wait
        self.register_load_state_dict_post_hook(_forget_fitted)  # type: ignore[no-untyped-call]
        parts = dict(space.items()) if isinstance(space, spaces.Dict) else {"": space}
        self._keys = [key for key, part in parts.items() if observation_kind(part) == "vector"]
        self._is_dict = isinstance(space, spaces.Dict)
        for key in self._keys:
            self.register_buffer(f"mean_{key}", torch.zeros(parts[key].shape or ()))
            self.register_buffer(f"scale_{key}", torch.ones(parts[key].shape or ()))
        for name, number in (("fitted", 0.0), ("reward_shift", 0.0), ("reward_scale", 1.0)):
            self.register_buffer(name, torch.tensor(number))

    def fit(self, data: Dataset, observations: str, rewards: str) -> None:
        """Find them, unless they have been found or restored.

        Args:
            data: the dataset.
            observations: "none" or "standard" (mean 0, standard deviation 1).
            rewards: "none", "std" (divided by their standard deviation; by their size if all are equal), "standard"
                (mean 0 too), "auto" ("standard" where no episode terminates, else "std", since a shift of rewards is
                worth more the longer an episode is), or "returns" (1000 is the range of the episodes' returns).

        Raises:
            AgentError: if rewards or returns that do not vary are to be scaled by how they vary.
        """
        self._fitted = self._fitted or bool(self.fitted)
        if self._fitted:
            return
        for key in self._keys if observations == "standard" else ():
            seen = (data.obs[key] if self._is_dict else data.obs).double()
            deviation, mean = torch.std_mean(seen, 0, correction=0)
            self.get_buffer(f"mean_{key}").copy_(mean)
            self.get_buffer(f"scale_{key}").copy_(1 / (deviation + _LEAST_STD))
        reward, returns = data.reward.double(), data.returns
        if rewards == "auto":
            rewards = "std" if bool(data.terminated.any()) or not bool(reward.diff().any()) else "standard"
        std, size = float(reward.std(correction=0)), float(reward.abs().mean())
        varies = std > 1e-6 * max(size, 1e-6)
        spread = float(returns.max() - returns.min())
        if (rewards == "standard" and not varies) or (rewards == "returns" and spread <= 0):
            what = "rewards" if rewards == "standard" else "returns"
            raise AgentError(f"reward_scaling: got {rewards!r}, and all {what} of {data.name} are equal; wanted 'std'")
        scales = {"none": 1.0, "std": 1 / (std if varies else size or 1.0), "standard": 1 / (std or 1.0)}
        self.reward_scale.fill_(scales[rewards] if rewards in scales else 1000 / spread)
        self.reward_shift.fill_(float(reward.mean()) if rewards == "standard" else 0.0)
        self.fitted.fill_(1.0)

    def obs(self, obs: Any) -> Any:
        """Observations as the networks see them."""
        if not self._keys:
            return obs
        if not self._is_dict:
            return self._scaled(obs, "")
        return {**obs, **{key: self._scaled(obs[key], key) for key in self._keys}}

    def reward(self, reward: Tensor) -> Tensor:
        """Rewards as the critics see them."""
        return (reward - self.reward_shift) * self.reward_scale

    def _scaled(self, obs: Tensor, key: str) -> Tensor:
        return (obs.float() - self.get_buffer(f"mean_{key}")) * self.get_buffer(f"scale_{key}")


def _forget_fitted(scaling: Any, keys: Any) -> None:
    scaling._fitted = False
