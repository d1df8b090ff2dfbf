"""Recording episodes: a policy plays, and every finished episode goes to a dataset on disk, in constant memory.

Episode e is played from the seed ``seed + e``: ``gym.make(id).reset(seed=seed + e)``, or one copy of a batch with that
seed, followed by the recorded actions gives the recorded observations and rewards. Several episodes are played at
once, by copies of a batch; a copy whose episode ends takes the next seed. The episodes are a fixed set of seeds, so
that short ones count no more than long ones, and are in the order of their seeds.

**Seats.** In a game of several seats the policy plays all of them, and each seat's decisions are an episode of its own:
its observations, actions and masks at its turns, with the rewards until its next turn (a seat's rewards before its
first turn belong to no decision). The seats' episodes of one game have the same seed. Where a game is truncated while a
seat waits, that seat's last decision has no outcome and is left out, as in a replay buffer.

**Probabilities.** Where the policy draws and knows them, the log probability (density) of each action as it was played
is recorded; clipped Gaussians that give it with their decisions (PPO's) are recorded with the draw that it is the
density of. With ``greedy`` there are none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.agents.agent import Agent, AgentError, Decision, pick, rows
from mlbits.agents.memory.dataset import Episode
from mlbits.agents.memory.hdf5_episodes import EpisodeInParts
from mlbits.agents.memory.minari import DatasetWriter
from mlbits.envs.doors.gymnasium_batch import AnyBatch, open_batch
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.selfplay.finite import check_evaluation
from mlbits.selfplay.lineup import decide
from mlbits.selfplay.memories import Memories
from mlbits.selfplay.runs.config import ConfigError

_BUFFER_BYTES = 1 << 26  # for the episodes under way
_FEWEST_ROWS, _MOST_ROWS = 16, 1024  # of an episode, before a part of it is written
_GAMES_AT_ONCE, _ENVIRONMENTS_AT_ONCE = 256, 16


@dataclass(frozen=True)
class Recorded:
    """What was recorded.

    Attributes:
        folder: the dataset's.
        episodes: how many; in games of several seats each seat's.
        steps: decisions in them.
        games: how many were played.
        cut: how many games of an environment without a time limit were cut.
        return_mean: of the episodes.
        seconds: that it took.
        stopped: the signal that ended it early, or "".
        probabilities: whether log probabilities were recorded.
    """

    folder: Path
    episodes: int
    steps: int
    games: int
    cut: int
    return_mean: float
    seconds: float
    stopped: str
    probabilities: bool


def record(
    agent: Agent,
    env: str,
    dataset: str | Path,
    *,
    episodes: int = 0,
    steps: int = 0,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    greedy: bool = False,
    num_envs: int = 0,
    max_steps: int = 10_000,
    about: Mapping[str, Any] | None = None,
    say: Callable[[int, int], None] = lambda episodes, steps: None,
) -> Recorded:
    """Play episodes with an agent in every seat and write them to a new dataset.

    A first Ctrl-C or SIGTERM starts no more episodes, finishes those under way, and keeps the shorter dataset.

    Args:
        agent: the policy.
        env: id of the environment.
        dataset: a new Minari id, or a new folder.
        episodes: games to play; 0 for no limit.
        steps: steps of the environment after which no game is begun; 0 for no limit.
        settings: of the environment.
        seed: of the first episode, and of the draws of actions.
        greedy: whether to take the most probable actions instead of draws.
        num_envs: games played at once; 0 chooses.
        max_steps: steps after which a game of an environment without a time limit is cut.
        about: what to note in the metadata, as plain data.
        say: is called with the episodes and steps so far, now and then.

    Raises:
        ConfigError: if neither episodes nor steps are limited.
        DatasetError: if the name is taken, or the folder cannot be written.
        NotFiniteError: if the environment returns a number that is not finite.
    """
    if episodes < 1 and steps < 1:
        raise ConfigError(f"episodes: got {episodes}; wanted at least 1, or steps")
    began = time.monotonic()
    batch = open_batch(env, 1, settings=settings, start=False)
    usual = _GAMES_AT_ONCE if isinstance(batch, GameBatch) else _ENVIRONMENTS_AT_ONCE
    count = num_envs or min(usual, episodes or usual)
    batch.close()
    notes = {"seed": seed, "greedy": greedy, "num_envs": count, "seats": batch.num_seats, **(about or {})}
    spaces = batch.observation_space, batch.action_space
    with (
        DatasetWriter(dataset, *spaces, env=env, settings=settings, about=notes) as writer,
        contextlib.closing(open_batch(env, count, seed=seed, settings=settings, autoreset="disabled")) as batch,
        _stop_requests() as stop,
    ):
        recorder = _Recorder(batch, env, agent, writer, seed, greedy, batch.horizon or max_steps)
        recorder.play(episodes, steps, stop, say)
        folder = writer.publish(games=recorder.games, stopped=stop.name)
        return Recorded(
            folder, writer.episodes, writer.steps, recorder.games, recorder.cut,
            recorder.paid / max(1, writer.episodes), time.monotonic() - began, stop.name, recorder.probabilities,
        )  # fmt: skip


class _Recorder:
    """Plays games in the copies of a batch and writes each seat's episodes; streams are copies x seats.

    Attributes:
        games: that have ended.
        cut: of those, cut at the limit of steps.
        paid: sum of rewards in the episodes.
        probabilities: whether log probabilities are recorded.
    """

    def __init__(
        self, batch: AnyBatch, env: str, agent: Agent, writer: DatasetWriter, seed: int, greedy: bool, limit: int
    ) -> None:
        self.batch, self.env, self.agent, self.writer, self.limit = batch, env, agent, writer, limit
        self.seed, self.greedy = seed, greedy
        self.games = self.cut = 0
        self.paid, self.probabilities = 0.0, False
        copies, seats = batch.num_envs, batch.num_seats
        self._playing = np.zeros(copies, bool)
        self._elapsed, self._seeds = np.zeros(copies, np.int64), np.zeros(copies, np.int64)
        self._length = np.zeros((copies, seats), np.int64)
        self._parts: dict[tuple[int, int], EpisodeInParts] = {}
        self._rows: dict[tuple[str, str | None], NDArray[Any]] = {}
        self._room = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._memories = Memories(copies, seats)

    def play(self, episodes: int, steps: int, stop: _Stop, say: Callable[[int, int], None]) -> None:
        """Play until the games are played, the steps are taken, or a stop is asked for."""
        begun = taken = 0
        said = time.monotonic()
        while True:
            free = np.flatnonzero(~self._playing)
            if len(free) and not stop.name and not (steps and taken >= steps):
                free = free[: episodes - begun] if episodes else free
                self._begin(free, begun)
                begun += len(free)
            if not self._playing.any():
                return
            taken += int(self._playing.sum())
            self._step()
            if time.monotonic() - said > 1.0:
                said = time.monotonic()
                say(self.games, taken)

    def _begin(self, copies: NDArray[np.int64], begun: int) -> None:
        if not len(copies):
            return
        self._seeds[copies] = self.seed + begun + np.arange(len(copies))
        which = np.zeros(self.batch.num_envs, bool)
        which[copies] = True
        seeds: Any = self._seeds  # as an array, whose values are checked at once
        self.batch.reset(seed=seeds, which=torch.from_numpy(which))
        self._memories.end(torch.from_numpy(which))
        self._playing[copies], self._elapsed[copies] = True, 0
        check_evaluation(self.batch.obs, self.batch.reward, self.env, 0)

    def _step(self) -> None:
        batch = self.batch
        obs, mask = rows(batch.obs, 2), None if batch.legal_mask is None else batch.legal_mask.flatten(0, 1)
        with torch.no_grad():
            decision = decide(
                self.agent, batch, None, obs, mask, self._generator, greedy=self.greedy, memories=self._memories
            )
        acting = np.repeat(self._playing[:, None], batch.num_seats, 1)
        if batch.active is not None:
            acting &= batch.active.numpy()
        self._note(acting, self._decided(decision, obs, mask))
        step = batch.step(decision.action.view(batch.num_envs, batch.num_seats, *decision.action.shape[1:]))
        self._elapsed += self._playing
        check_evaluation(batch.obs, step.reward, self.env, int(self._elapsed.max()))
        self._pay(step.reward.numpy())
        terminated, truncated = step.terminated.numpy() & self._playing, step.truncated.numpy() & self._playing
        cut = self._playing & (self._elapsed >= self.limit) & ~terminated & ~truncated
        ended = np.flatnonzero(terminated | truncated | cut)
        if len(ended):
            if isinstance(batch, GameBatch) and isinstance(batch.copies, Copies):
                batch.copies.show_truncated()
            for copy in ended.tolist():
                self._end(copy, bool(terminated[copy]), bool(truncated[copy] or cut[copy]))
            self.cut += int(cut.sum())
            self.games += len(ended)
            self._playing[ended] = False

    def _decided(self, decision: Decision, obs: Any, mask: Any) -> dict[tuple[str, str | None], NDArray[Any]]:
        """What is recorded of a step, as rows [streams, ...] by field and key."""
        found: dict[str, Any] = {"action": decision.action, "mask": mask}
        found |= {} if self.greedy else self._probabilities(decision, obs, mask)
        parts = obs if isinstance(obs, dict) else {None: obs}
        shown = {("obs", key): part.numpy() for key, part in parts.items()}
        return shown | {(name, None): value.numpy() for name, value in found.items() if value is not None}

    def _probabilities(self, decision: Decision, obs: Any, mask: Any) -> dict[str, Any]:
        if decision.log_prob is not None:
            self.probabilities = True
            scaled = decision.sample.is_floating_point() and decision.sample is not decision.action
            return {"log_prob": decision.log_prob, "draw": decision.sample if scaled else None}
        found = None if hasattr(self.agent, "plan") else _log_prob(self.agent, obs, mask, decision.action)
        self.probabilities = found is not None
        return {"log_prob": found}

    def _note(self, acting: NDArray[np.bool_], values: Mapping[tuple[str, str | None], NDArray[Any]]) -> None:
        """Append a decision to the episodes of the streams that act."""
        if not self._rows:
            self._allocate(values)
        full = acting & (self._length == self._room)
        for stream in np.flatnonzero(full).tolist():
            self._write_part(*divmod(stream, acting.shape[1]))
        copy, seat = np.nonzero(acting)
        place = self._length[copy, seat]
        stream = copy * acting.shape[1] + seat
        for name, value in values.items():
            self._rows[name][stream, place] = value[stream]
        self._rows["reward", None][stream, place] = 0
        self._length[copy, seat] += 1

    def _allocate(self, values: Mapping[tuple[str, str | None], NDArray[Any]]) -> None:
        streams = self._length.size
        each = sum(value[:1].nbytes for value in values.values()) + 4
        self._room = int(np.clip(_BUFFER_BYTES // (each * streams), _FEWEST_ROWS, _MOST_ROWS))
        for name, value in values.items():
            self._rows[name] = np.zeros((streams, self._room + 1, *value.shape[1:]), value.dtype)
        self._rows["reward", None] = np.zeros((streams, self._room + 1), np.float32)

    def _pay(self, reward: NDArray[np.float32]) -> None:
        """Add rewards to the last decision of each stream that is playing."""
        copy, seat = np.nonzero((self._length > 0) & self._playing[:, None])
        stream = copy * reward.shape[1] + seat
        self._rows["reward", None][stream, self._length[copy, seat] - 1] += reward[copy, seat]

    def _write_part(self, copy: int, seat: int) -> None:
        """Write all but the last decision of an episode, which is still open, and keep that."""
        stream, count = copy * self._length.shape[1] + seat, self._room - 1
        if (copy, seat) not in self._parts:
            number, seed = self._number(copy, seat), int(self._seeds[copy])
            self._parts[copy, seat] = self.writer.begin(number, seed, **self._seat(seat))
        part = self._episode(stream, count, count, False, False)
        self.writer.append(self._parts[copy, seat], part, last=False)
        self.paid += float(part.reward.sum(dtype=np.float64))
        for array in self._rows.values():
            array[stream, 0] = array[stream, count]
        self._length[copy, seat] = 1

    def _end(self, copy: int, terminated: bool, truncated: bool) -> None:
        """Write the episodes of a copy's seats."""
        batch = self.batch
        for seat in range(batch.num_seats):
            count, stream = int(self._length[copy, seat]), copy * batch.num_seats + seat
            self._length[copy, seat] = 0
            waits = not terminated and batch.active is not None and not bool(batch.active[copy, seat])
            if waits:  # the last decision has no outcome; its own observation ends the episode
                count -= 1
            else:
                self._last_row(copy, seat, stream, count)
            parts = self._parts.pop((copy, seat), None)
            if count <= 0 and parts is None:
                continue
            episode = self._episode(stream, count, count + 1, terminated, truncated)
            self.paid += float(episode.reward.sum(dtype=np.float64))
            if parts is None:
                episode = episode._replace(seed=int(self._seeds[copy]))
                self.writer.write(self._number(copy, seat), episode, **self._seat(seat))
            else:
                self.writer.append(parts, episode, last=True)
                parts.end()

    def _last_row(self, copy: int, seat: int, stream: int, count: int) -> None:
        """Write the observation and the mask at the end of an episode behind its decisions."""
        seen = pick(self.batch.obs, (copy, seat))
        for key, part in seen.items() if isinstance(seen, dict) else ((None, seen),):
            self._rows["obs", key][stream, count] = part.numpy()
        if self.batch.legal_mask is not None:
            self._rows["mask", None][stream, count] = self.batch.legal_mask[copy, seat].numpy()

    def _episode(self, stream: int, steps: int, seen: int, terminated: bool, truncated: bool) -> Episode:
        """The first ``steps`` decisions of a stream and ``seen`` observations; the flags are those of the last."""
        flags = [np.zeros(steps, bool), np.zeros(steps, bool)]
        if steps:
            flags[0][-1], flags[1][-1] = terminated, truncated
        found: dict[str, Any] = {}
        for (name, key), array in self._rows.items():
            part = array[stream, : seen if name in ("obs", "mask") else steps]
            if key is None:
                found[name] = part
            else:
                found.setdefault(name, {})[key] = part
        return Episode(**found, terminated=flags[0], truncated=flags[1])

    def _number(self, copy: int, seat: int) -> int:
        return int(self._seeds[copy] - self.seed) * self.batch.num_seats + seat

    def _seat(self, seat: int) -> dict[str, int]:
        return {"seat": seat} if self.batch.num_seats > 1 else {}


def _log_prob(agent: Any, obs: Any, mask: Any, action: torch.Tensor) -> torch.Tensor | None:
    """The log probabilities of actions as they were played, float32 [N], if the agent knows them."""
    if action.dim() == 1 and hasattr(agent, "action_probabilities"):
        return agent.action_probabilities(obs, mask).gather(1, action.unsqueeze(1)).squeeze(1).log().float()
    if action.dim() != 2 or not hasattr(agent, "action_log_prob"):
        return None
    try:
        return agent.action_log_prob(obs, mask, action).float()
    except AgentError:  # it draws from no distribution: a deterministic policy, a choice among draws
        return None


class _Stop:
    """A request to stop: the name of the first signal, or ""."""

    name = ""


@contextlib.contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """Note the first SIGINT or SIGTERM inside this context; a second one ends it at once."""
    stop = _Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.name:
            raise KeyboardInterrupt
        stop.name = signal.Signals(number).name
        with contextlib.suppress(OSError):
            os.write(2, f"\n{stop.name}: finishing the episodes under way; a second signal keeps nothing\n".encode())

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for kind in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(kind) in (signal.SIG_DFL, signal.default_int_handler):
                before[kind] = signal.signal(kind, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
