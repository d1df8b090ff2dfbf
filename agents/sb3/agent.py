"""Stable-Baselines3's policies as agents, which can be evaluated and can play a seat in multi-agent games.

``load_sb3("model.zip")`` makes an agent from a model saved by SB3 or sb3-contrib. ``AGENTS["sb3-ppo"]`` and the like
make untrained agents, which :mod:`mlbits.selfplay.sb3_training` trains by SB3's own loop. Differences from
``model.predict``: random numbers come from the generator that is passed in, and the global ones are not changed;
state-dependent exploration (gSDE) draws a new matrix at every call; a DQN always takes its best action. Masks are used
by policies that support them (MaskablePPO's); for others the batch replaces illegal actions (``illegal="replace"``).

A saved model is read without running code of its author (:mod:`mlbits.agents.sb3.saved_models`); one that has to be
unpickled, as ``PPO.load`` does with all of them, is refused outside :func:`~mlbits.envs.core.trust.trusting_files`.

Example:
    >>> import torch
    >>> from mlbits.agents.sb3.agent import load_sb3
    >>> from stable_baselines3 import PPO
    >>> PPO("MlpPolicy", "CartPole-v1", n_steps=64).learn(64).save("model.zip")
    >>> load_sb3("model.zip").act(torch.zeros(3, 4), None, torch.Generator(), greedy=True).action.shape
    torch.Size([3])
"""

from __future__ import annotations

import contextlib
import inspect
import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision, load_weights, prefixed, unprefixed
from mlbits.agents.maths.action_distributions import epsilon_greedy
from mlbits.agents.sb3.algorithms import algorithm_class, channels_first, untrained_policy
from mlbits.agents.sb3.configs import (
    SB3A2CConfig,
    SB3Config,
    SB3DDPGConfig,
    SB3DQNConfig,
    SB3PPOConfig,
    SB3SACConfig,
    SB3TD3Config,
)
from mlbits.agents.sb3.densities import action_log_prob
from mlbits.agents.sb3.saved_models import read_data, read_policy
from mlbits.envs.core.trust import NeedsTrust, check_trust, trusted

__all__ = [
    "SB3A2CConfig", "SB3Agent", "SB3DDPGConfig", "SB3DQNConfig", "SB3PPOConfig", "SB3SACConfig", "SB3TD3Config",
    "algorithm_of", "load_sb3",
]  # fmt: skip


class SB3Agent:
    """A Stable-Baselines3 policy as an agent.

    Args:
        config: settings of the algorithm; None if ``policy`` is given.
        observation_space: one seat's.
        action_space: one seat's.
        seed: of the initial weights.
        device: where the policy is kept.
        policy: an existing policy.
        normalize: the ``VecNormalize`` that the policy was or is trained with; its statistics, which may still
            change, standardise observations.

    Attributes:
        experience: None, because it learns in SB3's own loop.
        policy: SB3's policy.
        trained_steps: environment steps that it was trained for, if known, else 0.

    Raises:
        AgentError: if the spaces do not match the policy's, or SB3 does not support them.
    """

    experience = None

    def __init__(
        self,
        config: SB3Config | None,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        policy: Any = None,
        normalize: Any = None,
    ) -> None:
        self._moments: dict[str, Any] = {}
        self._epsilon, self._clip = 1e-8, 10.0
        if policy is None:
            assert config is not None
            policy = untrained_policy(config, observation_space, action_space, seed, device)
            if getattr(config, "normalize", False):
                self._moments = _new_moments(observation_space)
        elif normalize is not None and normalize.norm_obs:
            moments = normalize.obs_rms
            self._moments = moments if isinstance(moments, dict) else {"": moments}
            self._epsilon, self._clip = normalize.epsilon, normalize.clip_obs
        self.policy, self.trained_steps = policy.to(device), 0
        self._channels_last = _check_fit(policy, observation_space, action_space)
        known = inspect.signature(policy._predict).parameters
        if "lstm_states" in known:
            raise AgentError(f"policy: got the recurrent {type(policy).__name__}; wanted one without hidden state")
        self._knows_masks = "action_masks" in known
        box = action_space if isinstance(action_space, spaces.Box) else None
        self._bounds = None if box is None else tuple(torch.as_tensor(b, device=device) for b in (box.low, box.high))

    def outputs(self, obs: Any, discrete: bool) -> dict[str, Tensor]:
        """What the policy says besides an action, by name: Q-values, probabilities of discrete actions, values.

        Args:
            obs: observations [N, ...].
            discrete: whether actions are discrete.
        """
        policy, seen = self.policy, self.seen(obs)
        if hasattr(policy, "q_net"):
            q_values = policy.q_net(seen)
            return {"q_values": q_values, "value": q_values.amax(-1)}
        if not hasattr(policy, "get_distribution"):
            return {}
        found = {"probabilities": policy.get_distribution(seen).distribution.probs} if discrete else {}
        return found | {"value": policy.predict_values(seen).squeeze(-1)}

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Choose actions for N rows."""
        policy = self.policy
        if policy.training:
            policy.set_training_mode(False)
        masks = {"action_masks": legal_mask} if self._knows_masks and legal_mask is not None else {}
        seen = self.seen(obs)
        if greedy:
            action = policy._predict(seen, deterministic=True, **masks)
        else:
            with _draws_from(generator, policy, len(next(iter(seen.values())) if isinstance(seen, dict) else seen)):
                action = policy._predict(seen, deterministic=False, **masks)
        action = action.reshape(-1, *policy.action_space.shape)
        if self._bounds is not None:
            low, high = self._bounds
            action = low + 0.5 * (action + 1) * (high - low) if policy.squash_output else action
            action = torch.clamp(action, low, high)
        return Decision(action, action, None)

    @torch.no_grad()
    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """Probability of each Discrete action, float64 [N, A]; 0 or 1 for policies without a distribution.

        Raises:
            AgentError: if the action space is not Discrete.
        """
        policy: Any = self.policy
        if not isinstance(policy.action_space, spaces.Discrete):
            raise AgentError(f"action_probabilities: got {policy.action_space}; wanted Discrete actions")
        if greedy or not hasattr(policy, "get_distribution"):
            action = self.act(obs, legal_mask, torch.Generator(policy.device), greedy=True).action
            return epsilon_greedy(action, 0.0, None, int(policy.action_space.n))
        policy.set_training_mode(False)
        masks = {"action_masks": legal_mask} if self._knows_masks and legal_mask is not None else {}
        return policy.get_distribution(self.seen(obs), **masks).distribution.probs.double()

    @torch.no_grad()
    def action_log_prob(self, obs: Any, legal_mask: Tensor | None, action: Tensor) -> Tensor:
        """Log probabilities (densities) of actions as played, [N]; masks are not used.

        Raises:
            AgentError: for a deterministic policy.
        """
        self.policy.set_training_mode(False)
        return action_log_prob(self.policy, self.seen(obs), action)

    def seen(self, obs: Any) -> Any:
        """Observations in the form that the policy takes: standardised, images with their channels first."""
        if isinstance(obs, dict):
            return {key: self._part(part, key) for key, part in obs.items()}
        return self._part(obs, "")

    def _part(self, obs: Tensor, key: str) -> Tensor:
        if key in self._channels_last:
            obs = obs.permute(0, 3, 1, 2)
        if key not in self._moments:
            return obs
        moments = self._moments[key]
        mean, deviation = moments.mean, np.sqrt(moments.var + self._epsilon)
        centred = obs - torch.as_tensor(mean, device=obs.device)
        return torch.clamp(centred / torch.as_tensor(deviation, device=obs.device), -self._clip, self._clip).float()

    def learn(self, experience: Any, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Not available: the training loop is SB3's own.

        Raises:
            AgentError: always.
        """
        raise AgentError("Stable-Baselines3's algorithms learn in their own loop; wanted mlbits train sb3-...")

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of the policy's tensors and, if observations are standardised, of their moments."""
        state = prefixed("policy", self.policy.state_dict())
        for key, moments in self._moments.items():
            values = {"mean": moments.mean, "var": moments.var, "count": np.asarray(moments.count, np.float64)}
            state |= prefixed(_moments_name(key), {name: torch.from_numpy(value) for name, value in values.items()})
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of this policy.
        """
        load_weights({"policy": self.policy}, state)
        for key, moments in self._moments.items():
            parts = unprefixed(_moments_name(key), state)
            saved = {name: part.cpu().numpy().copy() for name, part in parts.items()}
            if missing := {"mean", "var", "count"} - saved.keys():
                raise AgentError(f"{_moments_name(key)}: got a state without {', '.join(sorted(missing))}; wanted all")
            moments.mean, moments.var, moments.count = saved["mean"], saved["var"], float(saved["count"])


def _moments_name(key: str) -> str:
    return f"moments.{key}" if key else "moments"


def _new_moments(space: gym.Space[Any]) -> dict[str, Any]:
    """SB3's running mean and variance of each part of the observations, before the first observation."""
    from stable_baselines3.common.running_mean_std import RunningMeanStd

    parts = dict(space.items()) if isinstance(space, spaces.Dict) else {"": space}
    return {key: RunningMeanStd(shape=part.shape or ()) for key, part in parts.items()}


def _check_fit(policy: Any, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> set[str]:
    """Check that the spaces fit the policy; returns the keys of images whose channels to move first.

    Raises:
        AgentError: if the policy was made for other spaces.
    """
    if not _compatible(policy.action_space, action_space, bounds=True):
        raise AgentError(f"action_space: got {action_space}; the model was trained on {policy.action_space}")
    if _compatible(policy.observation_space, observation_space):
        return set()
    transposed, keys = channels_first(observation_space)
    if keys and _compatible(policy.observation_space, transposed):
        return keys
    raise AgentError(f"observation_space: got {observation_space}; the model was trained on {policy.observation_space}")


def _compatible(one: Any, other: Any, bounds: bool = False) -> bool:
    """Whether the same network fits both spaces; with ``bounds``, for actions, their bounds must be equal too."""
    if isinstance(one, spaces.Dict):
        same = isinstance(other, spaces.Dict) and set(one) == set(other)
        return same and all(_compatible(one[key], other[key]) for key in one)
    if isinstance(one, spaces.Box):
        same = isinstance(other, spaces.Box) and one.shape == other.shape
        images = same and len(one.shape) == 3 and np.uint8 in (one.dtype, other.dtype)
        exact = bounds or images
        return same and (not exact or bool(np.all(one.low == other.low) and np.all(one.high == other.high)))
    return bool(one == other)


@contextlib.contextmanager
def _draws_from(generator: torch.Generator, policy: Any, count: int) -> Iterator[None]:
    """Make torch's global draws depend on this generator; restore the global generators and gSDE's noise at the end."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
    head = policy if hasattr(policy, "action_dist") else getattr(policy, "actor", None)
    noise = head.action_dist if head is not None and getattr(head, "use_sde", False) else None
    kept = (None, None) if noise is None else (noise.exploration_mat, noise.exploration_matrices)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            if noise is not None:
                head.reset_noise(count)  # type: ignore[union-attr]
            yield
        finally:
            if noise is not None:
                noise.exploration_mat, noise.exploration_matrices = kept


# Loading


def load_sb3(
    path: str | Path,
    observation_space: gym.Space[Any] | None = None,
    action_space: gym.Space[Any] | None = None,
    *,
    algorithm: str | type | None = None,
    vec_normalize: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> SB3Agent:
    """Make an agent from a model saved by Stable-Baselines3 or sb3-contrib.

    Args:
        path: the file that ``model.save`` wrote.
        observation_space: of the seat that the agent will play; None for the model's own.
        action_space: the same.
        algorithm: SB3's class or its name; None to find it from the file.
        vec_normalize: the file that ``VecNormalize.save`` wrote, if the model was trained with one.
        device: where the policy is kept.

    Raises:
        NeedsTrust: if something in it can only be unpickled, and files are not trusted; ``vec_normalize`` always is.
        AgentError: if the file is missing or not a saved model, its algorithm is unknown, or it was trained on other
            spaces.
    """
    contents = read_data(Path(path))
    named = algorithm or _algorithm_in(contents, path)
    known: Any = algorithm_class(named) if isinstance(named, str) else named
    normalize = None if vec_normalize is None else _read_normalize(Path(vec_normalize))
    steps = contents.get("num_timesteps")
    try:
        policy = read_policy(Path(path), contents, observation_space, action_space, device)
    except NeedsTrust:
        if not trusted():
            raise
        model = _unpickled(known, path, device)
        policy, steps = model.policy, model.num_timesteps
    agent = SB3Agent(
        None,
        policy.observation_space if observation_space is None else observation_space,
        policy.action_space if action_space is None else action_space,
        device=device,
        policy=policy,
        normalize=normalize,
    )
    agent.trained_steps = steps if type(steps) is int and 0 <= steps < 2**63 else 0
    return agent


def _unpickled(known: Any, path: str | Path, device: torch.device | str) -> Any:
    """The model as SB3 loads it."""
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are probably loading")
            # SB3 sets up the whole algorithm, so what acting does not need is replaced by something small.
            return known.load(path, device=device, custom_objects=_UNUSED)
    except Exception as error:  # unpickling may raise anything
        text = str(error).splitlines() or [""]
        raise AgentError(f"{path}: cannot be loaded as {known.__name__} ({type(error).__name__}: {text[0]})") from error


_UNUSED: dict[str, Any] = {
    "seed": None, "learning_rate": 0.0, "lr_schedule": None, "clip_range": 0.2, "clip_range_vf": None,
    "exploration_schedule": None, "buffer_size": 1, "n_steps": 1, "n_envs": 1, "tensorboard_log": None,
    "replay_buffer_class": None, "replay_buffer_kwargs": {}, "rollout_buffer_class": None, "rollout_buffer_kwargs": {},
    "action_noise": None, "ep_info_buffer": None, "ep_success_buffer": None, "_last_obs": None,
    "_last_original_obs": None, "_last_episode_starts": None,
}  # fmt: skip


def algorithm_of(path: str | Path) -> str:
    """The name of the algorithm that trained a saved model; no code in the file is executed.

    Raises:
        AgentError: if the file is missing or not a saved model, or the algorithm is unknown.
    """
    return _algorithm_in(read_data(Path(path)), path)


def _algorithm_in(contents: Mapping[str, Any], path: str | Path) -> str:
    """Identify the algorithm by settings that no other has or, if two have the same, by the policy's module."""
    policy = contents["policy_class"]
    module = str(policy.get("__module__", "")) if isinstance(policy, dict) else ""
    removed_tricks = contents.get("target_noise_clip") == 0 and contents.get("policy_delay") == 1
    signs = [
        ("cg_max_steps", "", "TRPO"), ("clip_range", ".maskable.", "MaskablePPO"),
        ("clip_range", ".recurrent.", "RecurrentPPO"), ("clip_range", "", "PPO"), ("gae_lambda", "", "A2C"),
        ("exploration_fraction", ".qrdqn.", "QRDQN"), ("exploration_fraction", "", "DQN"),
        ("target_noise_clip", "", "DDPG" if removed_tricks else "TD3"), ("target_entropy", ".tqc.", "TQC"),
        ("target_entropy", ".crossq.", "CrossQ"), ("target_entropy", "", "SAC"),
    ]  # fmt: skip
    for key, within, name in signs:
        if key in contents and within in module:
            return name
    raise AgentError(f"{path}: cannot tell which algorithm it is; wanted its name as algorithm=...")


def _read_normalize(path: Path) -> Any:
    from stable_baselines3.common.vec_env import VecNormalize

    check_trust(f"vec_normalize: {path}", "the statistics of VecNormalize")
    try:
        with path.open("rb") as file:
            normalize = pickle.load(file)
    except Exception as error:  # a missing file; unpickling may raise anything
        raise AgentError(f"vec_normalize: {path} cannot be read ({type(error).__name__}: {error})") from None
    if not isinstance(normalize, VecNormalize):
        raise AgentError(
            f"vec_normalize: {path} holds a {type(normalize).__name__}; wanted what VecNormalize.save wrote"
        )
    return normalize
