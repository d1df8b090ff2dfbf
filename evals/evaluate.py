"""``mlbits eval``: how good a trained agent is, with an interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mlbits.agents import agent_entry
from mlbits.envs.core.batch import parse_device
from mlbits.envs.core.cuda import check_cuda
from mlbits.envs.core.wrapped import open_batch
from mlbits.selfplay import checkpoints
from mlbits.selfplay.config import ConfigError
from mlbits.selfplay.play import play_episodes
from mlbits.selfplay.run import CHECKPOINTS, read_settings
from mlbits.selfplay.statistics import mean_interval
from mlbits.selfplay.tracking import encode_gif

_MAX_FRAMES = 1000


def load_agent(folder: str | Path, device: str = "cpu") -> tuple[Any, Any, dict[str, Any]]:
    """The agent of a run's newest whole checkpoint.

    Args:
        folder: the run's folder.
        device: where the agent is to live.

    Returns:
        The agent, the run's settings and the checkpoint's counters.

    Raises:
        RunError: if the folder is no run.
        CheckpointError: if it has no usable checkpoint.
    """
    return _load(folder, device)[:3]


def _load(folder: str | Path, device: str) -> tuple[Any, Any, dict[str, Any], list[str]]:
    """The same, and what is wrong with newer checkpoints that were passed over."""
    settings = read_settings(folder)
    place = parse_device(device)
    place = check_cuda(place) if place.type == "cuda" else place
    plain = json.loads(json.dumps(settings.to_json()))
    facts = {key: plain[key] for key in ("agent", "env", "agent_config", "env_settings")}
    checkpoint, _, problems = checkpoints.load_latest(Path(folder) / CHECKPOINTS, facts)
    if checkpoint is None:
        raise checkpoints.CheckpointError(f"{folder}: there is no checkpoint yet; wanted a run that has saved one")
    batch = open_batch(settings.env, 1, settings=settings.env_settings)
    agent = agent_entry(settings.agent).make(
        settings.agent_config, batch.observation_space, batch.action_space, seed=0, device=place
    )
    agent.load_state_dict(checkpoint.weights)
    batch.close()
    return agent, settings, checkpoint.state, problems


def evaluate_run(
    folder: str | Path,
    episodes: int = 100,
    *,
    seed: int = 1,
    greedy: bool = True,
    device: str = "cpu",
    gif: Path | None = None,
) -> dict[str, Any]:
    """Play episodes with a run's agent.

    Args:
        folder: the run's folder.
        episodes: how many.
        seed: of the episodes.
        greedy: whether the most probable action is taken in place of a draw.
        device: where to play.
        gif: a file for an animation of the first episode, or None.

    Returns:
        return_mean, return_interval (95%, Student's t), episodes, length_mean, env_steps (of the checkpoint),
        passed_over (what is wrong with newer checkpoints).

    Raises:
        ConfigError: if the number of episodes is not positive, or the animation cannot be written.
    """
    if episodes < 1:
        raise ConfigError(f"episodes: got {episodes}; wanted at least 1")
    agent, settings, state, problems = _load(folder, device)
    played = play_episodes(
        agent, settings.env, episodes, seed=seed, settings=settings.env_settings, device=device, greedy=greedy,
        max_frames=_MAX_FRAMES if gif is not None else 0,
    )  # fmt: skip
    if gif is not None:
        if not played.frames:
            raise ConfigError(f"gif: {played.undrawn}; wanted an environment that can be drawn")
        try:
            Path(gif).write_bytes(encode_gif(played.frames))
        except OSError as error:
            raise ConfigError(f"gif: {gif} cannot be written ({error.strerror}); wanted a file of your own") from None
    mean, interval = mean_interval(played.returns.mean(1))
    return {
        "return_mean": mean,
        "return_interval": list(interval),
        "episodes": episodes,
        "length_mean": float(np.mean(played.lengths)),
        "env_steps": state["env_steps"],
        "passed_over": problems,
    }
