"""Stable-Baselines3's algorithms from our settings: their classes, policies and constructor arguments.

Settings and spaces with which SB3 would fail in the middle of a run (infinite action bounds, images too small for its
convolutions, spaces that it cannot normalise) are rejected here with an error that names the argument, before anything
is made. SB3 is imported at first use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from mlbits.agents.agent import AgentError
from mlbits.agents.sb3.configs import SB3Config

_LEAST_PIXELS = 36  # per side, of the smallest image that SB3's convolutions support


def algorithm_arguments(
    config: SB3Config, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> dict[str, Any]:
    """Arguments of SB3's constructor, except ``env``, ``seed`` and ``device``.

    Raises:
        AgentError: if SB3 does not support the spaces.
    """
    from stable_baselines3.common.noise import NormalActionNoise

    values = dataclasses.asdict(config)
    own: dict[str, Any] = {"policy": _policy_name(config, observation_space, action_space), "policy_kwargs": {}}
    for name, schedule in (("learning_rate", "anneal_lr"), ("clip_range", "anneal_clip")):
        if values.pop(schedule, False):
            own[name] = _linear(values.pop(name))
    noise = values.pop("noise_std", 0.0)
    if noise > 0:
        zeros = np.zeros(action_space.shape or ())
        own["action_noise"] = NormalActionNoise(zeros, zeros + noise)
    for name in ("ent_coef", "target_entropy"):
        if isinstance(values.get(name), str) and not values[name].startswith("auto"):
            values[name] = float(values[name])
    names = {"log_std": "log_std_init", "ortho_init": "ortho_init"}
    own["policy_kwargs"] |= {theirs: values.pop(ours) for ours, theirs in names.items() if ours in values}
    if "activation" in values:
        own["policy_kwargs"]["activation_fn"] = {"tanh": nn.Tanh, "relu": nn.ReLU}[values.pop("activation")]
    hidden, usual = values.pop("hidden"), type(config).__dataclass_fields__["hidden"].default
    if hidden != usual:  # by default left to SB3, whose choice depends on the observations: fewer layers for images
        own["policy_kwargs"]["net_arch"] = list(hidden)
    values.pop("normalize")
    return {**values, **own}


def _linear(start: float) -> Any:
    """A schedule from ``start`` to 0, in the fraction of the run that is left (at the end SB3 passes less than 0)."""
    return lambda left: max(0.0, left) * start


def algorithm_class(name: str) -> Any:
    """The class of this name in SB3 or sb3-contrib.

    Raises:
        AgentError: if neither has it, or it would be in sb3-contrib, which is not installed.
    """
    for module in ("stable_baselines3", "sb3_contrib"):
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise AgentError(
        f"algorithm: got {name!r}; wanted one of stable_baselines3 or of sb3_contrib (pip install sb3-contrib)"
    )


def untrained_policy(
    config: SB3Config, observation_space: gym.Space[Any], action_space: gym.Space[Any], seed: int, device: Any
) -> Any:
    """The policy that the algorithm would make with these settings, only for acting: its learning rate is 0."""
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

    arguments = algorithm_arguments(config, observation_space, action_space)
    model = algorithm_class(config.algorithm)(env=None, device=device, _init_setup_model=False, **arguments)
    kwargs = dict(model.policy_kwargs) | ({"use_sde": model.use_sde} if isinstance(model, OnPolicyAlgorithm) else {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.policy_class(channels_first(observation_space)[0], action_space, lambda left: 0.0, **kwargs)


def _policy_name(config: SB3Config, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> str:
    """SB3's policy for the observations, after checks of what SB3 would fail with later."""
    from stable_baselines3.common.preprocessing import is_image_space

    name = f"sb3-{config.algorithm.lower()}"
    if isinstance(action_space, spaces.Box) and not np.isfinite([action_space.low, action_space.high]).all():
        raise AgentError(f"{name}: got the action space {action_space}; Stable-Baselines3 wants finite bounds")
    if getattr(config, "use_sde", False) and not isinstance(action_space, spaces.Box):
        raise AgentError(f"use_sde: got the action space {action_space}; wanted one that is continuous")
    parts = dict(observation_space.items()) if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    large = {}
    for key, part in parts.items():
        vector = isinstance(part, spaces.Box) and not is_image_space(part)
        if getattr(config, "normalize", False) and not vector:
            raise AgentError(f"normalize: got the observation space {part}; wanted vectors of numbers")
        if is_image_space(part):
            large[key] = min(sorted(part.shape or ())[1:]) >= _LEAST_PIXELS
    if isinstance(observation_space, spaces.Dict):
        if not all(large.values()):
            small = next(key for key, fits in large.items() if not fits)
            raise AgentError(
                f"{name}: got {parts[small].shape} for the image {small!r} in a Dict; wanted at least {_LEAST_PIXELS} "
                "pixels per side, for Stable-Baselines3's convolutions"
            )
        return "MultiInputPolicy"
    return "CnnPolicy" if large.get("") else "MlpPolicy"


def channels_first(space: Any) -> tuple[Any, set[str]]:
    """The space with the channels of images first, as SB3 transposes them, and the keys of the transposed images."""
    from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

    if isinstance(space, spaces.Dict):
        parts = {key: channels_first(part) for key, part in space.items()}
        return spaces.Dict({key: part for key, (part, _) in parts.items()}), {k for k, (_, t) in parts.items() if t}
    if not is_image_space(space) or is_image_space_channels_first(space):
        return space, set()
    height, width, channels = space.shape
    return spaces.Box(0, 255, (channels, height, width), space.dtype), {""}
