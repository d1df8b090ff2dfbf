"""What is kept of the copies of a wrapped environment, whose state cannot be saved, so that they can be restored.

For training, where runs are resumed, a batch is ``recorded``: it keeps the actions that each copy has played since it
was last seeded (:mod:`~mlbits.envs.doors.action_log`), and a copy is reseeded at the first end of an episode after
``SEED_EVERY`` steps. Seeding the copy and replaying its actions restores it, bit for bit if the environment is
deterministic given its seed. If the replay ends in another state, the copy's episode is restarted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.envs.core.spaces import ActionLayout
from mlbits.envs.doors.action_log import ActionLog
from mlbits.envs.doors.gymnasium_copies import Arrays, GymnasiumCopies
from mlbits.envs.doors.gymnasium_workers import Workers, elsewhere

_REPORT_EVERY = 10.0  # seconds between progress messages while copies are replayed


class Recording:
    """The actions of a batch's copies, their saving, and their restoring by replaying them.

    Args:
        env_id: for messages.
        action: layout of one action.
        arrays: what the copies write.
        copies: those of this process.
        workers: other processes, which have the rest; None without.
    """

    def __init__(
        self, env_id: str, action: ActionLayout, arrays: Arrays, copies: GymnasiumCopies, workers: Workers | None
    ) -> None:
        self._env_id, self._action, self._arrays, self._copies = env_id, action, arrays, copies
        self._workers, self._count = workers, len(arrays.over)
        self._seeds, self._seedings = copies.seeds, copies.seedings
        self._log = ActionLog(self._count, action.shape, _kept_dtype(action))

    def add(self, actions: NDArray[Any]) -> None:
        """Record one step of all copies, [B, ...]."""
        self._log.add(actions)

    def note_seedings(self) -> None:
        """Forget the actions of copies that were seeded anew at the end of an episode."""
        if not self._arrays.reseeded.any():
            return
        for b in np.flatnonzero(self._arrays.reseeded).tolist():
            self._log.restart(b)
            self._arrays.reseeded[b] = False
            if b not in self._copies.numbers:
                self._seedings[b] += 1

    def note_restarts(self, which: Sequence[int]) -> None:
        """Record that episodes were started in these copies, whether or not the last ones had ended."""
        for b in which:
            if not self._arrays.reseeded[b]:
                self._log.note_reset(b)
        self.note_seedings()

    def forget(self, b: int) -> None:
        """Forget the actions of copy b, which was seeded."""
        self._log.restart(b)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Seeds, actions since, and the observations and rewards they led to."""
        log, arrays = self._log, self._arrays
        every = range(self._count)
        actions = [log.actions(b) for b in every]
        state = {
            "seed": np.array(self._seeds, np.int64),
            "seedings": np.array(self._seedings, np.int64),
            "action": np.concatenate(actions),
            "actions": np.array([len(played) for played in actions], np.int64),
            "reset": np.array([t for own in log.resets for t in own], np.int64),
            "resets": np.array([len(own) for own in log.resets], np.int64),
            "lost": log.lost.copy(),
            "paid": arrays.paid.copy(),
            "over": arrays.over.copy(),
        }
        state |= {_obs_name(key): part.copy() for key, part in arrays.obs.items()}
        return {name: torch.from_numpy(array) for name, array in state.items()}

    def restore(self, state: Mapping[str, torch.Tensor], say: Callable[[str], None]) -> dict[int, str]:
        """Seed the copies and replay their actions.

        Args:
            state: from :meth:`state_dict`.
            say: receives progress.

        Returns:
            Why the copies whose replay failed did, by number, ascending.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if an entry does not fit this batch.
        """
        log, arrays, count = self._log, self._arrays, self._count
        saved = {name: tensor.numpy() for name, tensor in state.items()}
        lengths, resets = saved["actions"], saved["resets"]
        shape = (int(lengths.sum()), *self._action.shape)
        if len(lengths) != count or saved["action"].shape != shape or resets.sum() != len(saved["reset"]):
            raise ValueError(f"got actions {saved['action'].shape} of {len(lengths)} copies; wanted {shape} of {count}")
        actions = np.split(saved["action"].astype(log.dtype), np.cumsum(lengths)[:-1])
        reset_times = [own.tolist() for own in np.split(saved["reset"], np.cumsum(resets)[:-1])]
        self._seeds[:], self._seedings[:] = saved["seed"].tolist(), saved["seedings"].tolist()
        log.load(actions, reset_times, saved["lost"])
        wanted = {key: saved[_obs_name(key)] for key in arrays.obs}
        progress = _Progress(self._env_id, int(lengths.sum()), say)
        failed = dict.fromkeys(np.flatnonzero(log.lost).tolist(), "it had too many actions to keep")
        logs = {b: (actions[b], reset_times[b], self._seeds[b], self._seedings[b]) for b in range(count)}
        for b in failed:
            del logs[b]
        for b, why in self._replay(logs, progress).items():
            same = all(part[b].tobytes() == wanted[key][b].tobytes() for key, part in arrays.obs.items())
            same = same and arrays.paid[b] == saved["paid"][b] and arrays.over[b] == saved["over"][b]
            if why is None and not same:
                why = "its observation or rewards differ from the saved ones"
            if why is not None:
                failed[b] = why
        return dict(sorted(failed.items()))

    def _replay(self, logs: Mapping[int, Any], progress: _Progress) -> dict[int, str | None]:
        """Seed copies and replay their actions; returns an error message, or None, for each.

        Args:
            logs: for each copy its actions, when it was reset, its first seed and its number of reseedings.
            progress: called after every step of this process's copies.
        """
        found: dict[int, str | None] = {}

        def own(part: range) -> Any:
            return ({b: log for b, log in logs.items() if b in part},)

        with elsewhere(self._workers, "replay", own) as others:
            for b, (actions, resets, _, _) in logs.items():
                if b in self._copies.numbers:
                    found[b] = self._copies.replay(b, actions, resets, progress.step)
        for other in others:
            found |= other
        return found


class _Progress:
    """Reports the progress of a replay every few seconds."""

    def __init__(self, env_id: str, total: int, say: Callable[[str], None]) -> None:
        self._env_id, self._total, self._say = env_id, total, say
        self._done, self._reported = 0, time.monotonic()

    def step(self) -> None:
        self._done += 1
        if self._done % 256 == 0 and time.monotonic() - self._reported >= _REPORT_EVERY:
            self._reported = time.monotonic()
            fraction = self._done / self._total
            self._say(f"{self._env_id}: {self._done:,} of {self._total:,} steps replayed ({fraction:.0%})")


def _kept_dtype(action: ActionLayout) -> np.dtype[Any]:
    """The smallest dtype that can hold an environment's actions."""
    if action.kind == "continuous":
        return action.dtype
    kinds = (np.uint8, np.int16, np.int32, np.int64)
    return np.dtype(next(kind for kind in kinds if max(action.nvec) - 1 <= np.iinfo(kind).max))


def _obs_name(key: str | None) -> str:
    return "obs" if key is None else f"obs.{key}"
