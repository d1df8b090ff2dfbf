"""Playing whole episodes with fixed agents, for evaluation, videos and tournaments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.agents.agent import Agent, rows
from mlbits.envs.core.errors import GameError
from mlbits.envs.doors.gymnasium_batch import AnyBatch, open_batch
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.engine.on_host import on_host
from mlbits.selfplay.finite import EvaluationWatch, check_evaluation
from mlbits.selfplay.lineup import Lineup, decide
from mlbits.selfplay.memories import Memories

_COPIES_AT_ONCE = 1024


class Watcher(Protocol):
    """Who is called with every step of copy 0."""

    def before(self, batch: AnyBatch, players: Sequence[Agent], seating: Any, actions: Any) -> None:
        """Called before a step: the copies, the players, who of them sits where [P], and the actions [P, ...]."""

    def after(self, batch: AnyBatch) -> None:
        """Called after it."""


@dataclass
class Played:
    """Finished episodes.

    Attributes:
        returns: undiscounted, float64 [E, P].
        lengths: steps, int64 [E].
        frames: images uint8 [H, W, 3] of the first episode, if asked for.
        undrawn: why there are no frames although they were asked for, or None.
        cut: number of episodes cut at the step limit, whose returns are those so far.
        starts: records [E] of the initial states, None for environments that cannot be saved.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    undrawn: str | None = None
    cut: int = 0
    starts: NDArray[Any] | None = None

    @property
    def same_return(self) -> bool:
        """Whether the mean return over the seats is the same in every episode, as in a zero-sum game."""
        means = self.returns.mean(1)
        return self.returns.shape[1] > 1 and bool(np.ptp(means) <= 1e-6 * max(1.0, float(np.abs(means).max())))


def play_episodes(
    agent: Agent | Sequence[Agent],
    env: str,
    episodes: int,
    *,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    greedy: bool = True,
    max_frames: int = 0,
    max_steps: int = 10_000,
    seating: NDArray[np.int64] | None = None,
    watcher: Watcher | None = None,
) -> Played:
    """Play whole episodes, one per copy, so that short episodes count no more than long ones.

    Args:
        agent: plays every seat; or several agents, to which ``seating`` gives seats.
        env: environment id.
        episodes: number of episodes, E.
        seed: seeds copies and action draws; the results are a function of it.
        settings: settings of the environment.
        device: where to play.
        greedy: take the most probable action instead of a draw.
        max_frames: images of the first episode to draw, 0 for none.
        max_steps: steps after which an episode without a time limit is cut.
        seating: the number of the agent in each seat of each episode, [E, P]; None gives the first agent every seat.
        watcher: called with every step of the first episode.

    Raises:
        NotFiniteError: naming the step and copy in which the environment returned a number that is not finite.
    """
    players = tuple(agent) if isinstance(agent, Sequence) else (agent,)
    parts: list[Played] = []
    while sum(len(part.lengths) for part in parts) < episodes:
        done = sum(len(part.lengths) for part in parts)
        count = min(_COPIES_AT_ONCE, episodes - done)
        part = _play(
            players, None if seating is None else seating[done : done + count], env, count, seed + done, settings,
            device, greedy, 0 if parts else max_frames, max_steps, None if parts else watcher,
        )  # fmt: skip
        parts.append(part)
    returns, lengths = np.concatenate([p.returns for p in parts]), np.concatenate([p.lengths for p in parts])
    starts = [p.starts for p in parts if p.starts is not None]
    return Played(
        returns, lengths, parts[0].frames, parts[0].undrawn, sum(p.cut for p in parts),
        np.concatenate(starts) if starts else None,
    )  # fmt: skip


def _play(
    players: tuple[Agent, ...], seating: NDArray[np.int64] | None, env: str, count: int, seed: int,
    settings: Mapping[str, Any] | None, device: torch.device | str, greedy: bool, max_frames: int, max_steps: int,
    watcher: Watcher | None = None,
) -> Played:  # fmt: skip
    batch, undrawn = open_to_draw(env, count, seed, settings, device, drawn=max_frames > 0 or watcher is not None)
    seats = np.zeros((count, batch.num_seats), np.int64) if seating is None else seating
    lineup = Lineup(players, torch.from_numpy(seats).to(batch.device))
    starts = batch.records() if isinstance(batch, GameBatch) else None
    generator = torch.Generator(batch.device).manual_seed(seed)
    playing = torch.ones(count, dtype=torch.bool, device=batch.device)
    returns = torch.zeros(count, batch.num_seats, dtype=torch.float64, device=batch.device)
    check_evaluation(batch.obs, returns, env, 0)
    lengths = torch.zeros(count, dtype=torch.int64, device=batch.device)
    frames: list[NDArray[np.uint8]] = []
    memories = Memories(count, batch.num_seats, batch.device)  # each copy plays one episode, so that none ends here
    watch = EvaluationWatch(env)
    for t in range(batch.horizon or max_steps):
        if undrawn is None and len(frames) < max_frames and bool(playing[0]):
            try:
                frame = batch.render("rgb_array", 0)
            except GameError as error:
                undrawn = str(error)
            else:
                frames += [] if frame is None else [frame]
        action = _decide(lineup, batch, generator, greedy, memories)
        actions = action.view(count, batch.num_seats, *action.shape[1:])
        watched = watcher if watcher is not None and bool(playing[0]) else None
        if watched is not None:
            watched.before(batch, players, seats[0], actions[0].cpu())
        step = batch.step(actions)
        if watched is not None:
            watched.after(batch)
        returns += step.reward.double() * playing[:, None]
        lengths += playing
        playing = playing & ~(step.terminated | step.truncated)
        if not watch.goes_on(batch.obs, step.reward, playing, t + 1):
            break
    watch.look(batch.obs, batch.reward, playing, t + 1)
    batch.close()
    undrawn = undrawn or (f"{env}: does not draw pictures" if max_frames and not frames else None)
    total, length, going = on_host(returns, lengths, playing)
    return Played(total, length, frames, undrawn, int(going.sum()), starts)


def _decide(
    lineup: Lineup, batch: AnyBatch, generator: torch.Generator, greedy: bool, memories: Memories
) -> torch.Tensor:
    """The actions of all seats as rows [B * P, ...]: one forward pass per player."""
    obs, mask = rows(batch.obs, 2), None if batch.legal_mask is None else batch.legal_mask.flatten(0, 1)
    if lineup.learner_only:
        return decide(lineup.players[0], batch, None, obs, mask, generator, greedy=greedy, memories=memories).action
    action: torch.Tensor | None = None
    for _, agent, index in lineup.seated:
        part = decide(agent, batch, index, obs, mask, generator, greedy=greedy, memories=memories).action
        if action is None:
            action = part.new_zeros(lineup.seating.numel(), *part.shape[1:])
        action[index] = part
    assert action is not None  # a lineup has at least one player
    return action


def open_to_draw(
    env: str, count: int, seed: int, settings: Mapping[str, Any] | None, device: torch.device | str, *, drawn: bool
) -> tuple[AnyBatch, str | None]:
    """Copies that are not reset when their episode ends, and why they cannot be drawn.

    Args:
        env: environment id.
        count: number of copies.
        seed: of the copies.
        settings: settings of the environment.
        device: where to play.
        drawn: whether they are to be drawn.

    Returns:
        The copies, and None where they can be drawn or need not be.
    """
    # A copy is not stepped after its episode is over, which saves the steps of slow environments.
    common: dict[str, Any] = {
        "device": device, "seed": seed, "settings": settings, "illegal": "replace", "autoreset": "disabled",
    }  # fmt: skip
    if drawn:
        try:
            return open_batch(env, count, render_mode="rgb_array", **common), None
        except GameError as error:  # an environment that takes no render_mode
            return open_batch(env, count, **common), str(error)
    return open_batch(env, count, **common), None
