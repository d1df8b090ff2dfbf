"""``mlbits eval``: the mean return of a trained agent, with an interval, beside the optimal return if it is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlbits.agents.sb3.agent import load_sb3
from mlbits.agents.search.player import searched, searched_where_possible
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.evals.exploitability.agent_exploitability import exact_exploitability
from mlbits.evals.head_to_head import play_against
from mlbits.evals.headline import measure
from mlbits.evals.optimal_return import ReferenceReturns, reference_returns
from mlbits.evals.policy_maps import add_pictures, policy_pictures
from mlbits.evals.replays.page import check_page_file, write_page
from mlbits.evals.replays.recording import Watcher
from mlbits.selfplay.curves.tracking import ANIMATIONS, encode_animation
from mlbits.selfplay.episodes import Played, play_episodes
from mlbits.selfplay.offline import tried_online
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.saved_agents import (
    check_guest,
    copy_settings,
    game_of,
    load_agent,
    load_agent_and_problems,
    open_guest,
    read_copy,
)
from mlbits.selfplay.statistics import mean_interval

__all__ = ["evaluate_against", "evaluate_copy", "evaluate_model", "evaluate_run", "load_agent"]

_MAX_FRAMES = 1000


def evaluate_run(
    folder: str | Path,
    episodes: int = 100,
    *,
    seed: int = 1,
    greedy: bool = True,
    device: str = "cpu",
    gif: Path | None = None,
    replay: Path | None = None,
    env_settings: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    checkpoint: str | int = "latest",
) -> dict[str, Any]:
    """Play episodes with a run's agent; on a gridworld also draw its policy into the run's TensorBoard.

    Args:
        folder: the run's folder.
        episodes: number of episodes.
        seed: seed of the episodes.
        greedy: whether to take the most probable action instead of a draw.
        device: where to play.
        gif: a file for an animation of the first episode, or None.
        replay: a file for a page that shows the first episode, or None.
        env_settings: settings of the environment, which override those of training (another split, say).
        search: how the agent is to look ahead, as in {"simulations": 100}; see
            :func:`~mlbits.agents.search.player.searched`.
        checkpoint: "latest", "best" (of a run with ``keep_best``), or the environment steps of one that was kept.

    Returns:
        return_mean, return_interval (95%, see :mod:`mlbits.selfplay.statistics`; -inf and inf where all returns
        are equal), episodes, length_mean, env_steps (of the checkpoint), passed_over (a message for each newer
        checkpoint that could not be used). In multi-agent games also "measured", see :mod:`mlbits.evals.headline`. Of a
        run on a dataset how many policies were tried online, this one included
        (:func:`mlbits.selfplay.offline.tried_online.counted`).
        Where the environment is small enough to be solved, also:
        optimum and random_return (exact means of the best policy and of random play), optimum_of ("all starts", or
        "these episodes" where there are too many), score (0 is random play, 1 the best) and share_of_optimum (None
        where the optimum is not positive).

    Raises:
        ConfigError: if the number of episodes is not positive, the animation cannot be written, or the settings change
            the observation or action space.
    """
    _check(episodes, gif)
    check_page_file(replay)
    agent, settings, state, problems = load_agent_and_problems(folder, device, checkpoint)
    played = {**settings.env_settings, **(env_settings or {})}
    if played != settings.env_settings:
        _check_spaces(settings.env, settings.env_settings, played)
    player, name = searched(agent, game_of(settings.env, played), search), Path(folder).resolve().name
    figures = _play(player, settings.env, played, episodes, seed, greedy, device, gif, replay, name)
    if played == settings.env_settings:
        add_pictures(folder, state["env_steps"], policy_pictures(agent, settings, device=_place(device), exact=True))
    figures |= {"env_steps": state["env_steps"], "passed_over": problems}
    if settings.run.data:
        tried_online.note(folder, "eval", figures)
        figures |= tried_online.counted(folder)
    return figures


def evaluate_against(
    folder: str | Path,
    opponents: str,
    games: int = 100,
    *,
    seed: int = 1,
    greedy: bool = True,
    device: str = "cpu",
    env_settings: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    checkpoint: str | int = "latest",
    replay: Path | None = None,
) -> dict[str, Any]:
    """Play games with a run's agent in one seat, each seat in turn, and opponents in all others.

    Args:
        folder: the run's folder.
        opponents: a bot's name, with its settings if any (``mcts@simulations=100``), or the folder of another run.
        games: number of games.
        seed: seed of the games.
        greedy: whether to take the most probable actions instead of draws.
        device: where to play.
        env_settings: settings of the environment, which override those of training.
        search: how trained agents on both sides that can search are to look ahead, as in {"simulations": 100}; see
            :func:`~mlbits.agents.search.player.searched`.
        checkpoint: "latest", "best" (of a run with ``keep_best``), or the environment steps of one that was kept.
        replay: a file for a page that shows the first game, or None.

    Returns:
        The result of :func:`~mlbits.evals.head_to_head.play_against` for the run's agent; env_steps and passed_over as
        in :func:`evaluate_run`, and episodes, the number of games.

    Raises:
        ConfigError: for opponents that have not been trained or do not fit, and as :func:`evaluate_run` does.
        UnknownIdError: for an unknown opponent.
    """
    _check(games)
    check_page_file(replay)
    check_guest(opponents)
    agent, settings, state, problems = load_agent_and_problems(folder, device, checkpoint)
    played = {**settings.env_settings, **(env_settings or {})}
    if played != settings.env_settings:
        _check_spaces(settings.env, settings.env_settings, played)
    others = open_guest(opponents, settings.env, played, _place(device))
    game = game_of(settings.env, played)
    agent, others = searched_where_possible([searched(agent, game, None), others], game, search)
    names = [Path(name).name if Path(name).exists() else name for name in (str(Path(folder).resolve()), opponents)]
    watcher = None if replay is None else Watcher(names, settings.env, played, seed)
    figures = play_against(
        agent, others, settings.env, games, seed=seed, settings=played, device=device, greedy=greedy, watcher=watcher
    )
    if watcher is not None and replay is not None:
        write_page(watcher.replay, replay)
    return figures | {"episodes": games, "env_steps": state["env_steps"], "passed_over": problems}


def _check_spaces(env: str, trained: Mapping[str, Any], played: Mapping[str, Any]) -> None:
    """Refuse settings that change the observation or action space that the agent was made for."""
    batches = [open_batch(env, 1, settings=settings, start=False) for settings in (trained, played)]
    for name in ("observation_space", "action_space"):
        was, now = (getattr(batch, name) for batch in batches)
        if was != now:
            raise ConfigError(f"env_settings: the {name.replace('_', ' ')} becomes {now}; wanted {was}, as in training")
    for batch in batches:
        batch.close()


def evaluate_model(
    path: str | Path,
    env: str,
    episodes: int = 100,
    *,
    seed: int = 1,
    greedy: bool = True,
    device: str = "cpu",
    gif: Path | None = None,
    replay: Path | None = None,
    env_settings: Mapping[str, Any] | None = None,
    vec_normalize: str | Path | None = None,
) -> dict[str, Any]:
    """Play episodes with a model that Stable-Baselines3 saved, in every seat.

    Args:
        path: the model's file, "model.zip".
        env: an environment's id.
        episodes: number of episodes.
        seed: seed of the episodes.
        greedy: whether to take the most probable action instead of a draw.
        device: where to play.
        gif: a file for an animation of the first episode, or None.
        replay: a file for a page that shows the first episode, or None.
        env_settings: settings of the environment.
        vec_normalize: the file that ``VecNormalize.save`` wrote, if the model was trained under one.

    Returns:
        As :func:`evaluate_run`; env_steps is the number of steps that the model was trained for.

    Raises:
        AgentError: if the file is not a model, or was trained on other spaces.
        ConfigError: as :func:`evaluate_run` does.
    """
    _check(episodes, gif)
    check_page_file(replay)
    place = _place(device)
    batch = open_batch(env, 1, settings=env_settings, start=False)
    spaces = batch.observation_space, batch.action_space
    batch.close()
    agent = load_sb3(path, *spaces, vec_normalize=vec_normalize, device=place)
    name = Path(path).name
    figures = _play(agent, env, env_settings, episodes, seed, greedy, device, gif, replay, name)
    return figures | {"env_steps": agent.trained_steps, "passed_over": []}


def evaluate_copy(
    path: str | Path,
    episodes: int = 100,
    *,
    seed: int = 1,
    greedy: bool = True,
    device: str = "cpu",
    gif: Path | None = None,
    replay: Path | None = None,
    env_settings: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Play episodes with a member of a population, or a frozen copy of a pool, in every seat.

    Args:
        path: its file, ``.safetensors``.
        episodes: number of episodes.
        seed: seed of the episodes.
        greedy: whether to take the most probable action instead of a draw.
        device: where to play.
        gif: a file for an animation of the first episode, or None.
        replay: a file for a page that shows the first episode, or None.
        env_settings: settings of the environment, which override those of training.
        search: how the agent is to look ahead, as in {"simulations": 100}.

    Returns:
        As :func:`evaluate_run`, without what a run alone has.

    Raises:
        SavedAgentError: if the file cannot be read, is damaged, or is of another version.
        ConfigError: as :func:`evaluate_run` does.
    """
    _check(episodes, gif)
    trained, place = copy_settings(Path(path)), _place(device)
    played = {**trained.env_settings, **(env_settings or {})}
    if played != trained.env_settings:
        _check_spaces(trained.env, trained.env_settings, played)
    agent = read_copy(Path(path), trained.env, trained.env_settings, place)
    player = searched(agent, game_of(trained.env, played), search)
    figures = _play(player, trained.env, played, episodes, seed, greedy, device, gif, replay, Path(path).stem)
    return figures | {"passed_over": []}


def _check(episodes: int, gif: Path | None = None) -> None:
    """Refuse, before playing, what would otherwise only fail afterwards.

    Raises:
        ConfigError: for no episodes, or an animation whose format or folder does not exist.
    """
    if episodes < 1:
        raise ConfigError(f"episodes: got {episodes}; wanted at least 1")
    if gif is None:
        return
    if Path(gif).suffix.lower() not in ANIMATIONS:
        raise ConfigError(f"gif: got {gif}; wanted a file name that ends in {', '.join(ANIMATIONS)}")
    if Path(gif).is_dir() or not Path(gif).parent.is_dir():
        why = "it is a folder" if Path(gif).is_dir() else "its folder does not exist"
        raise ConfigError(f"gif: {gif} cannot be written ({why}); wanted a writable file")


def _place(device: str) -> torch.device:
    place = parse_device(device)
    return check_cuda(place) if place.type == "cuda" else place


def _play(
    agent: Any, env: str, env_settings: Mapping[str, Any] | None, episodes: int, seed: int, greedy: bool, device: str,
    gif: Path | None, replay: Path | None, name: str,
) -> dict[str, Any]:  # fmt: skip
    """The results of some episodes, and their animation or replay if asked for."""
    watcher = None if replay is None else Watcher([name], env, env_settings, seed)
    played = play_episodes(
        agent, env, episodes, seed=seed, settings=env_settings, device=device, greedy=greedy,
        max_frames=_MAX_FRAMES if gif is not None else 0, watcher=watcher,
    )  # fmt: skip
    if gif is not None:
        if not played.frames:
            raise ConfigError(f"gif: {played.undrawn}; wanted an environment that can be drawn")
        try:
            Path(gif).write_bytes(encode_animation(played.frames, Path(gif).suffix.lower()))
        except OSError as error:
            raise ConfigError(f"gif: {gif} cannot be written ({error.strerror}); wanted a writable file") from None
    if watcher is not None and replay is not None:
        write_page(watcher.replay, replay)
    mean, interval = mean_interval(played.returns.mean(1))
    return {
        **_multi_agent_measures(agent, played, env, env_settings, episodes, seed, greedy, device),
        "return_mean": mean,
        "return_interval": list(interval),
        "episodes": episodes,
        "length_mean": float(np.mean(played.lengths)),
        **_relative_to_optimum(mean, reference_returns(env, env_settings, played.starts)),
    }


def _multi_agent_measures(
    agent: Any, played: Played, env: str, settings: Mapping[str, Any] | None, games: int, seed: int, greedy: bool,
    device: str,
) -> dict[str, Any]:  # fmt: skip
    """Measurements besides the return of self-play, in multi-agent games."""
    if played.returns.shape[1] < 2:
        return {}
    exact = exact_exploitability(agent, env, settings, device=_place(device))
    found = measure(agent, env, settings, games, seed=seed, exploitability=exact, greedy=greedy, device=_place(device))
    return {"measured": found | {"same_return": played.same_return}}


def _relative_to_optimum(mean: float, found: ReferenceReturns | None) -> dict[str, Any]:
    """A mean return relative to the optimal and the random return, where they are known."""
    if found is None:
        return {}
    return {
        "optimum": found.optimum,
        "random_return": found.random,
        "optimum_of": "all starts" if found.all_starts else "these episodes",
        "score": found.score(mean),
        "share_of_optimum": mean / found.optimum if found.optimum > 0 else None,
    }
