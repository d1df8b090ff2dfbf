"""Checks for numbers that are not finite: in rollouts, in the learner's metrics, and in weights to be kept.

One such number turns every weight into NaN at the next gradient step. So each rollout is checked before learning, the
reported losses and gradients after it, and every tensor of an agent before it is evaluated, saved or frozen. A failed
check ends the run; its earlier checkpoints stay, and the run can be resumed from them.

A number counts as finite up to :data:`LIMIT`: beyond it its square, which losses take, overflows float32.

Cost: a dot product of each block of floats with itself, once per rollout, which is finite if all numbers are; only if
it is not are they checked one by one. On a GPU the host learns of it together with the rewards, and waits once more for
the learner's report.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import DivergedError, Rollout
from mlbits.envs.core.errors import MlbitsError

_MOST = float(np.finfo(np.float32).max)
LIMIT = math.sqrt(_MOST)
_FLOAT, _INT, _vdot = torch.float32, torch.int64, np.vdot
_REPORTED = ("loss", "grad", "error")  # parts of the names of metrics that have to be finite
_LOOK_EVERY = 32  # steps of an evaluation on a GPU between two looks
_LOWER = "; a lower learning rate may help"
_WANTED = f"wanted a finite number, at most {LIMIT:.2g} in size"


class NotFiniteError(MlbitsError, ArithmeticError):
    """A number that is NaN, infinite, or too large for its square to be a float32, where a run needs one.

    Args:
        env: id of the environment.
        quantity: what the number is, as in "reward", "observation", "learn/loss" or "weights 'network.log_std'".
        value: the number.
        env_steps: environment steps of the run when it was found.
        copy: the copy of the environment, from 0; None where it belongs to none.
        why: text to append to the message.

    Attributes:
        env: id of the environment.
        quantity: what the number is.
        value: the number.
        env_steps: environment steps of the run when it was found.
        copy: the copy of the environment, or None.
    """

    def __init__(
        self, env: str, quantity: str, value: float, env_steps: int, copy: int | None = None, why: str = ""
    ) -> None:
        self.env, self.quantity, self.value, self.env_steps, self.copy = env, quantity, value, env_steps, copy
        where = "" if copy is None else f", copy {copy}"
        super().__init__(f"{env}: {quantity}: got {value:g} at step {env_steps}{where}; {_WANTED}{why}")

    @classmethod
    def of_learning(cls, env: str, error: DivergedError, env_steps: int) -> NotFiniteError:
        """From an error that an agent raised while learning."""
        return cls(env, error.quantity, error.value, env_steps, why=_LOWER)

    def kept(self, run: Path, checkpoint: Path | None) -> NotFiniteError:
        """This error with its message extended by the run's folder and its last good checkpoint."""
        what = "there is no checkpoint yet" if checkpoint is None else f"the last good checkpoint stays: {checkpoint}"
        self.args = (f"{self.args[0]}; {run} was stopped, {what}",)
        return self


def check_rollout(rollout: Rollout, ended: bool, env: str, env_steps: int) -> None:
    """Refuse a rollout with a number that is not finite, before it is used for learning or kept.

    Args:
        rollout: the rollout.
        ended: whether an episode ended in it; only then are the last observations of episodes checked.
        env: id of the environment.
        env_steps: environment steps of the run before the rollout.

    Raises:
        NotFiniteError: naming the earliest such number.
    """
    obs = rollout.obs
    if type(obs) is Tensor and obs.dtype is _FLOAT and obs.is_cpu and rollout.sample.dtype is _INT:
        # A faster path for the usual kind of rollout: a learner with a replay buffer calls this every few steps.
        reward, seen, last = rollout.reward.numpy(), obs.numpy(), rollout.last_obs.numpy()
        blocks = (reward, seen, last, rollout.final_obs.numpy()) if ended else (reward, seen, last)
        if all(map(_within, blocks)):
            return
    if _all_within_limit([block for _, _, block in _floats(rollout, ended)]):
        return
    copies, found = rollout.reward.shape[1], []
    for quantity, first, block in _floats(rollout, ended):
        place = first_beyond_limit(block)
        if place is not None:
            row, copy, value = place
            found.append((first + row, quantity, value, copy))
    if found:
        steps, quantity, value, copy = min(found, key=lambda place: place[0])
        raise NotFiniteError(env, quantity, value, env_steps + steps * copies, copy)


def _floats(rollout: Rollout, ended: bool) -> Iterator[tuple[str, int, Tensor]]:
    """The blocks of floats [T, B, P, ...] of a rollout: name, number of steps before the first row, and the block."""
    yield "reward", 1, rollout.reward
    if rollout.sample.is_floating_point():
        yield "action", 1, rollout.sample
    for part in _parts(rollout.obs):
        yield "observation", 0, part
    for part in _parts(rollout.last_obs):
        yield "observation", len(rollout.reward), part[None]
    if ended:
        for part in _parts(rollout.final_obs):
            yield "observation", 1, part


def _parts(obs: Any) -> list[Tensor]:
    parts = obs.values() if isinstance(obs, dict) else (obs,)
    return [part for part in parts if part.is_floating_point()]


def _all_within_limit(blocks: list[Tensor]) -> bool:
    """Whether all numbers are certainly within the limit; False where they have to be checked one by one."""
    if blocks[0].is_cpu:
        return all(_square(block) <= _MOST for block in blocks)  # False for NaN
    squares = [block.flatten().float() @ block.flatten().float() for block in blocks]
    return bool((torch.stack(squares) <= _MOST).all())


def all_within_limit(rollout: Rollout) -> Tensor:
    """Whether all of a rollout's numbers are certainly within the limit, a tensor [] that the host has not read."""
    squares = [block.flatten().float() @ block.flatten().float() for _, _, block in _floats(rollout, ended=True)]
    return (torch.stack(squares) <= _MOST).all()


def _within(array: np.ndarray) -> bool:
    return _vdot(array, array) <= _MOST  # False for NaN


def _square(block: Tensor) -> float:
    if block.dtype not in (torch.float32, torch.float64):
        block = block.float()
    array = block.detach().numpy()
    return float(np.vdot(array, array))


def first_beyond_limit(block: Tensor) -> tuple[int, int, float] | None:
    """The t, b and value of the first number [T, B, ...] that is not within the limit; None where all are."""
    bad = ~(block.abs().double() <= LIMIT)  # double, as the limit is infinite in float16
    if not bool(bad.any()):
        return None
    flat = bad.flatten(1) if bad.dim() > 1 else bad[:, None]
    row = int(flat.any(1).nonzero()[0])
    place = int(flat[row].nonzero()[0])
    return row, place // max(1, flat.shape[1] // block.shape[1]), float(block.flatten(1)[row, place])


def check_array(values: Any, quantity: str, env: str, env_steps: int) -> None:
    """Refuse an array [B, ...], one row per copy, with a number that is not finite.

    Raises:
        NotFiniteError: naming the first such number.
    """
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return
    if array.dtype.itemsize < 4:
        array = array.astype(np.float32)
    if not np.vdot(array, array) <= _MOST:
        place = first_beyond_limit(torch.from_numpy(array.reshape(1, *array.shape)))
        if place is not None:
            raise NotFiniteError(env, quantity, place[2], env_steps, place[1])


def check_evaluation(obs: Any, reward: Tensor, env: str, steps: int) -> None:
    """Refuse a number of an evaluation step that is not finite, before it is used.

    Args:
        obs: [B, P, ...] or a dict of those.
        reward: [B, P].
        env: id of the environment.
        steps: steps of the episodes, including this one.

    Raises:
        NotFiniteError: naming the first number that is not finite.
    """
    blocks = [("reward", reward), *(("observation", part) for part in _parts(obs))]
    if not _all_within_limit([block for _, block in blocks]):
        for quantity, block in blocks:
            place = first_beyond_limit(block[None])
            if place is not None:
                raise NotFiniteError(env, f"{quantity} in an evaluation episode", place[2], steps, place[1])


class EvaluationWatch:
    """Looks at the steps of an evaluation: at each on a CPU, at times on a GPU, where the host waits for every look.

    Args:
        env: id of the environment.
    """

    def __init__(self, env: str) -> None:
        self._env = env
        self._sound: Tensor | None = None  # on a GPU, whether all numbers since the last look are within the limit

    def goes_on(self, obs: Any, reward: Tensor, playing: Tensor, steps: int) -> bool:
        """Check a step; whether any copy still plays, as far as the host knows.

        Args:
            obs: [B, P, ...] or a dict of those.
            reward: [B, P].
            playing: bool [B].
            steps: steps of the episodes, including this one.

        Raises:
            NotFiniteError: naming the first number that is not finite.
        """
        if playing.is_cpu:
            check_evaluation(obs, reward, self._env, steps)
            return bool(playing.any())
        squares = torch.stack([block.flatten().float() @ block.flatten().float() for block in (reward, *_parts(obs))])
        sound = (squares <= _MOST).all()
        self._sound = sound if self._sound is None else self._sound & sound
        return steps % _LOOK_EVERY != 0 or self.look(obs, reward, playing, steps)

    def look(self, obs: Any, reward: Tensor, playing: Tensor, steps: int) -> bool:
        """Whether any copy still plays; as :meth:`goes_on`, with a look on a GPU too."""
        if self._sound is not None:
            sound, going = torch.stack([self._sound, playing.any()]).tolist()
            self._sound = None
            if not sound:
                check_evaluation(obs, reward, self._env, steps)
                what = f"a number of the last {_LOOK_EVERY} steps of an evaluation episode"
                raise NotFiniteError(self._env, what, math.nan, steps)
            return bool(going)
        return bool(playing.any())


def check_metrics(metrics: Mapping[str, Any], env: str, env_steps: int) -> None:
    """Refuse a reported loss, gradient norm or error that is not finite.

    Other metrics may be NaN, meaning that there is no value to report.

    Raises:
        NotFiniteError: naming the metric's curve.
    """
    names = _reported(tuple(metrics))
    values: list[Any] = [metrics[name] for name in names]
    on_device = [k for k, value in enumerate(values) if isinstance(value, Tensor) and not value.is_cpu]
    if on_device:  # in one transfer: the host waits for each
        for k, number in zip(on_device, torch.stack([values[k].float() for k in on_device]).tolist(), strict=True):
            values[k] = number
    for name, value in zip(names, values, strict=True):
        if not -math.inf < value < math.inf:  # also true for NaN
            raise NotFiniteError(env, f"learn/{name}", float(value), env_steps, why=_LOWER)


@functools.lru_cache(maxsize=64)
def _reported(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the metrics that have to be finite."""
    return tuple(name for name in names if any(word in name for word in _REPORTED))


class Guard:
    """Checks that an agent's tensors are still finite, except those that are not finite in a new agent.

    A tensor that is infinite from the start uses infinity as a value (an infinite noise meaning "at random").

    Args:
        fresh: the state of a new agent.
    """

    def __init__(self, fresh: Mapping[str, Tensor]) -> None:
        self._exempt = {name for name, tensor in fresh.items() if not _finite(tensor)}

    def check(self, state: Mapping[str, Tensor], env: str, env_steps: int) -> None:
        """Check a state.

        Raises:
            NotFiniteError: naming its first tensor that has become NaN or infinite.
        """
        for name, tensor in state.items():
            if name not in self._exempt and not _finite(tensor):
                flat = tensor.flatten()
                value = float(flat[~flat.isfinite()][0])
                raise NotFiniteError(env, f"weights {name!r}", value, env_steps, why=_LOWER)


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
