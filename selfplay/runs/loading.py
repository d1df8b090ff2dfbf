"""``load_policy``: agents to act with, from whatever holds one.

| source | what it is |
|---|---|
| ``runs/maze`` | a run: its newest whole checkpoint, or ``checkpoint="best"``, or that of a number of steps |
| ``runs/maze/checkpoints/step-000000100000`` | one checkpoint |
| ``runs/blotto/pool/copy-0003-1f9c04e7b2da.safetensors`` | a frozen copy of a pool |
| ``model.zip`` | a model that Stable-Baselines3 or sb3-contrib saved |
| ``random``, ``mcts@simulations=100`` | a bot; it needs ``env`` |
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from mlbits.agents.registry import AGENTS, bare_name, make_bot
from mlbits.agents.sb3.agent import load_sb3
from mlbits.agents.search.player import searched
from mlbits.envs.core.game import Game
from mlbits.envs.doors.gymnasium_ids import check_env_id, make_env
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.envs.registry import plain_id, registered
from mlbits.selfplay.policy import Policy
from mlbits.selfplay.runs.checkpoints import MANIFEST
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.folder import CONFIG
from mlbits.selfplay.runs.saved_agents import (
    SUFFIX,
    check_guest,
    copy_settings,
    game_of,
    load_agent_and_problems,
    read_copy,
    spaces_of,
)


def load_policy(
    source: str | PathLike[str],
    env: str | None = None,
    *,
    env_settings: Mapping[str, Any] | None = None,
    checkpoint: str | int = "latest",
    search: Mapping[str, Any] | None = None,
    vec_normalize: str | Path | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Policy:
    """Load an agent to act with.

    Args:
        source: a run or its folder, one of its checkpoints, a frozen copy (``.safetensors``), a model of
            Stable-Baselines3 (``.zip``), or a bot's name.
        env: the environment's id, for a bot; a model of Stable-Baselines3 has its own spaces, and may do without. The
            others know theirs.
        env_settings: its settings; of a run those that differ from its own.
        checkpoint: of a run: "latest" (the newest whole one), "best" (of a run with ``keep_best``), or the number of
            environment steps of one that it has kept.
        search: how an agent is to look ahead, as in ``{"simulations": 100}``; see
            :func:`mlbits.agents.search.player.searched`.
        vec_normalize: the file that ``VecNormalize.save`` wrote, if a model of Stable-Baselines3 was trained under one.
        device: "cpu", "cuda" or "auto".
        seed: of the draws of ``predict(greedy=False)``.

    Raises:
        RunError: for a folder that is no run.
        CheckpointError: if there is no such checkpoint, or none is whole.
        SavedAgentError: for a damaged frozen copy.
        UnknownIdError: for a name that is none of these, with the nearest bot's.
        MlbitsError: for what does not fit: an environment of other spaces, an agent that has not been trained.
    """
    if not isinstance(source, (str, PathLike)):
        raise ConfigError(f"source: got {source!r:.60}; wanted a run, a path, or a bot's name")
    path, place = Path(source), parse_device(device)
    place = check_cuda(place) if place.type == "cuda" else place
    loader = _Loader(None if env is None else check_env_id(plain_id(env)), env_settings, search, place, seed)
    if path.suffix != ".zip" and vec_normalize is not None:
        raise ConfigError(f"vec_normalize: got {vec_normalize} with {source}; wanted it with MODEL.zip alone")
    if path.suffix == ".zip":
        return loader.sb3(path, vec_normalize)
    if path.suffix == SUFFIX:
        return loader.copy(path)
    if (path / MANIFEST).is_file():
        return loader.run(path.parent.parent, path)
    if (path / CONFIG).exists() or path.is_dir():
        return loader.run(path, checkpoint)
    return loader.bot(str(source))


class _Loader:
    """Makes policies of agents for one environment, on one device."""

    def __init__(
        self, env: str | None, settings: Mapping[str, Any] | None, search: Mapping[str, Any] | None,
        device: torch.device, seed: int,
    ) -> None:  # fmt: skip
        self._env, self._settings, self._search = env, dict(settings or {}), search
        self._device, self._seed = device, seed

    def run(self, folder: Path, checkpoint: str | int | Path) -> Policy:
        agent, trained, state, _ = load_agent_and_problems(folder, self._device, checkpoint)
        self._check_own(trained.env, folder)
        settings = {**trained.env_settings, **self._settings}
        if settings != trained.env_settings and (
            spaces_of(trained.env, settings) != spaces_of(trained.env, trained.env_settings)
        ):
            raise ConfigError(f"env_settings: got {self._settings}, which change the spaces; wanted those of {folder}")
        return self._policy(agent, trained.env, settings, int(state["env_steps"]))

    def copy(self, path: Path) -> Policy:
        trained = copy_settings(path)
        self._check_own(trained.env, path)
        settings = {**trained.env_settings, **self._settings}
        return self._policy(read_copy(path, trained.env, settings, self._device), trained.env, settings)

    def sb3(self, path: Path, vec_normalize: str | Path | None) -> Policy:
        known = (None, None) if self._env is None else spaces_of(self._env, self._settings)
        agent = load_sb3(path, *known, vec_normalize=vec_normalize, device=self._device)
        if self._env is not None:
            return self._policy(agent, self._env, self._settings, agent.trained_steps)
        if self._search:
            raise ConfigError("search: got one for a model of Stable-Baselines3; wanted a run of mlbits")
        policy = agent.policy
        return Policy(
            agent, env="", env_settings={}, observation_space=policy.observation_space,
            action_space=policy.action_space, device=self._device, seed=self._seed, steps=agent.trained_steps,
        )  # fmt: skip

    def bot(self, name: str) -> Policy:
        check_guest(name, "source")
        if bare_name(name) in AGENTS and not AGENTS[bare_name(name)].bot:
            raise ConfigError(
                f"source: got {name}; wanted the folder of a run, as it is an agent that has to be trained"
            )
        if self._env is None:
            raise ConfigError("env: got None; wanted an environment's id")
        game = game_of(self._env, self._settings)
        bot = make_bot(name, *spaces_of(self._env, self._settings), device=self._device, game=game)
        return self._policy(bot, self._env, self._settings)

    def _check_own(self, env: str, source: Path) -> None:
        if self._env not in (None, env):
            raise ConfigError(f"env: got {self._env}; {source} was trained in {env}: wanted that, or none")

    def _policy(self, agent: Any, env: str, settings: dict[str, Any], steps: int = 0) -> Policy:
        game = game_of(env, settings)
        observation_space, action_space = env_spaces(env, settings, game)
        return Policy(
            searched(agent, game, self._search), env=env, env_settings=settings, observation_space=observation_space,
            action_space=action_space, game=game, device=self._device, seed=self._seed, steps=steps,
        )  # fmt: skip


def env_spaces(env: str, settings: Mapping[str, Any], game: Game | None) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """The spaces of an environment as a user sees them, where agents may know them in another form."""
    if env in registered():
        assert game is not None
        return game.observation_space, game.action_space
    made = make_env(env, settings)
    spaces = made.observation_space, made.action_space
    made.close()
    return spaces
