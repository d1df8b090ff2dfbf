"""Training by Stable-Baselines3's own loop, with our logging, evaluation and checkpoints.

``mlbits train sb3-ppo ENV`` runs ``model.learn`` of SB3 itself. Its callback passes each iteration (a rollout and the
metrics of its update) to the same :class:`~mlbits.selfplay.bookkeeping.Bookkeeping` that our own loop uses, so that the
run's folder, curves, evaluations (on the same seeds), checkpoints and summary are those of every run. Games of mlbits
are played through :class:`~mlbits.envs.doors.sb3_vec_env.SB3VecEnv`, others through SB3's ``DummyVecEnv``, each
copy in a ``Monitor``.

Where it differs: SB3 draws from the global generators, which are seeded for the run and restored after it; and a run
cannot be resumed, since a model of SB3 saves neither its replay buffer nor its environments.

Example:
    mlbits train sb3-ppo CartPole-v1 --seed 1
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from mlbits.agents.agent import RolloutSpec
from mlbits.agents.registry import agent_entry
from mlbits.agents.sb3.agent import SB3Agent
from mlbits.agents.sb3.algorithms import algorithm_arguments, algorithm_class
from mlbits.envs.core.plain_json import read_json_file
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.doors.gymnasium_copies import ErrorsNamed
from mlbits.envs.doors.gymnasium_ids import make_copy
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.envs.engine.memory import memory_bytes
from mlbits.envs.registry import make_sb3, registered
from mlbits.selfplay.bookkeeping import Bookkeeping
from mlbits.selfplay.callbacks import Callbacks
from mlbits.selfplay.collector import Collector, Episodes
from mlbits.selfplay.curves.tracking import Tracker
from mlbits.selfplay.finite import NotFiniteError, check_array, check_metrics
from mlbits.selfplay.interrupts import Interrupts
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs.checkpoints import Checkpoint
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.runs.folder import SUMMARY, RunError, new_folder
from mlbits.selfplay.runs.one_writer import one_writer
from mlbits.selfplay.session import Measure, Session

RESUMABLE = False
_RECORD_EVERY = 1000  # environment steps: some of SB3's iterations have a single step
_MAX_SEED = 2**32 - 1  # of NumPy's global generator


def train(
    settings: Settings,
    out: str | Path | None = None,
    *,
    console: bool = True,
    measure: Measure | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Start a run of one of SB3's algorithms; see :func:`mlbits.selfplay.training.train`.

    Raises:
        MlbitsError: for settings or spaces that do not fit, or a folder that holds another run.
    """
    run = settings.run
    set_up(run.threads)
    with _global_generators_set_back():
        model, session = _open(settings)
        session.measure, session.callbacks = measure, callbacks
        folder = new_folder(settings, out)
        session.counters.next_eval, session.counters.next_checkpoint = run.eval_every, run.checkpoint_every
        with one_writer(folder), Interrupts(folder).watched() as interrupts:
            tracker = Tracker(
                folder, run.total_steps, console=console, on_closed_pipe=interrupts.closed_pipe, track=run.track
            )
            try:
                tracker.describe(settings.to_json())
                return folder, _learn(model, session, tracker, folder, interrupts)
            finally:
                tracker.close()
                model.env.close()


def _learn(model: Any, session: SB3Session, tracker: Tracker, folder: Path, interrupts: Interrupts) -> dict[str, Any]:
    """SB3's loop; returns the summary.

    Raises:
        RunInterrupted: after a signal or a closed pipe; the policy is saved first.
        NotFiniteError: naming the environment, step, copy and quantity, and the last good checkpoint.
    """
    bookkeeping = Bookkeeping(session, tracker, folder)
    try:
        recording = _Recording(session, bookkeeping, interrupts)
        model.learn(session.settings.run.total_steps, callback=recording, log_interval=None)
        if interrupts.name and not session.finished:
            raise bookkeeping.interrupted(interrupts, resumable=RESUMABLE)
        summary = bookkeeping.finish()
    except NotFiniteError as error:
        tracker.stopped(error.kept(folder, bookkeeping.newest()))
        raise
    if interrupts.name:
        raise interrupts.at_the_end()
    return summary


def resume(
    folder: Path,
    settings: Settings,
    *,
    total_steps: int | None = None,
    console: bool = True,
    measure: Measure | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[Path, dict[str, Any]]:
    """The folder and summary of a run that is finished.

    Raises:
        RunError: if it is not finished, as SB3 cannot resume.
    """
    if total_steps is None and (folder / SUMMARY).exists():
        return folder, read_json_file(folder / SUMMARY)
    raise RunError(
        f"{folder}: a run of {settings.agent} cannot be resumed: Stable-Baselines3 saves neither its replay "
        f"buffer nor its environments; wanted a new run (to evaluate this one: mlbits eval {quote(str(folder))})"
    )


class SB3Session(Session):
    """A session whose learner learns in SB3's loop; its batch is a single copy, used for its spaces."""

    @property
    def record_every(self) -> int:
        """Environment steps between records."""
        return self.settings.run.record_every or _RECORD_EVERY

    def to_checkpoint(self) -> Checkpoint:
        """The state needed for acting."""
        recent = torch.tensor(list(self.recent), dtype=torch.float64)
        return Checkpoint(self.learner.state_dict(), {"recent": recent}, self.counters.plain())


class _Recording(BaseCallback):
    """Passes SB3's iterations to the bookkeeping: each ends when the next rollout, or the end of training, begins."""

    def __init__(self, session: Session, bookkeeping: Bookkeeping, interrupts: Interrupts) -> None:
        super().__init__()
        self._session, self._bookkeeping, self._interrupts = session, bookkeeping, interrupts
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._steps, self._played = 0, False
        self._began = self._environment_began = 0.0

    def _on_training_start(self) -> None:
        envs, inner = self.training_env, self.training_env.step

        def timed(actions: Any) -> Any:
            began = time.perf_counter()
            result = inner(actions)
            self._session.collector.timing.environment += time.perf_counter() - began
            return result

        envs.step = timed  # type: ignore[method-assign]

    def _on_rollout_start(self) -> None:
        self._end_iteration()
        self._began, self._environment_began = time.perf_counter(), self._session.collector.timing.environment
        self._played = False

    def _on_step(self) -> bool:
        dones = self.locals["dones"]
        self._check(dones)
        if dones.any():
            for b in np.flatnonzero(dones):
                episode = self.locals["infos"][b]["episode"]
                self._returns.append(float(episode["r"]))
                self._lengths.append(int(episode["l"]))
        return not (self._session.finished or self._interrupts.name)

    def _check(self, dones: Any) -> None:
        """Refuse numbers from the environments that are not finite, before VecNormalize clips them."""
        normalize, env = self.model.get_vec_normalize_env(), self._session.settings.env
        if normalize is None:
            reward, obs = self.locals["rewards"], self.locals["new_obs"]
        else:
            reward, obs = normalize.old_reward, normalize.old_obs
        check_array(reward, "reward", env, self.num_timesteps)
        ends = [self.locals["infos"][b]["terminal_observation"] for b in np.flatnonzero(dones)] if dones.any() else []
        for seen in (obs, *ends):
            for part in seen.values() if isinstance(seen, dict) else (seen,):
                check_array(part, "observation", env, self.num_timesteps)

    def _on_rollout_end(self) -> None:
        now, timing = time.perf_counter(), self._session.collector.timing
        timing.network += now - self._began - (timing.environment - self._environment_began)
        self._began, self._played = now, True

    def _on_training_end(self) -> None:
        self._end_iteration()

    def _end_iteration(self) -> None:
        """Record an iteration; not a rollout that was cut short because the run was solved."""
        if not self._played or self._session.finished:
            return
        self._session.collector.timing.learning += time.perf_counter() - self._began
        steps, self._steps = self.model.num_timesteps - self._steps, self.model.num_timesteps
        episodes = Episodes(np.array(self._returns), np.array(self._lengths, np.int64))
        self._returns, self._lengths = [], []
        metrics = self._metrics()
        check_metrics(metrics, self._session.settings.env, self.model.num_timesteps)
        self._bookkeeping.after(steps, episodes, metrics)

    def _metrics(self) -> dict[str, float]:
        """SB3's latest training metrics, by its own names."""
        logged = self.model.logger.name_to_value
        metrics = {name.removeprefix("train/"): value for name, value in logged.items() if name.startswith("train/")}
        if "rollout/exploration_rate" in logged:
            metrics["exploration_rate"] = logged["rollout/exploration_rate"]
        return metrics


def _open(settings: Settings) -> tuple[Any, SB3Session]:
    """SB3's model on its copies, and the session that records it.

    Raises:
        MlbitsError: naming the setting, space or device that does not fit.
    """
    run, config = settings.run, settings.agent_config
    device = parse_device(run.device)
    device = check_cuda(device) if device.type == "cuda" else device
    if run.opponents:
        raise ConfigError(f"opponents: got {run.opponents}; wanted none, as {settings.agent}'s own loop knows none")
    if run.pool != "none":
        raise ConfigError(f"pool: got {run.pool!r}; wanted 'none', as {settings.agent}'s own loop knows no other")
    if run.seed + run.num_envs > _MAX_SEED:
        raise ConfigError(f"seed: got {run.seed}; wanted one up to {_MAX_SEED - run.num_envs:,} for Stable-Baselines3")
    envs = _open_copies(settings)
    observation_space, action_space = envs.observation_space, envs.action_space
    # An agent that is not kept: made as it is for evaluation, it names whatever does not fit.
    agent_entry(settings.agent).make(config, observation_space, action_space, seed=run.seed, device=device)
    _check_memory(settings, observation_space, action_space)
    if config.normalize:
        envs = VecNormalize(envs, gamma=config.gamma)
    arguments = algorithm_arguments(config, observation_space, action_space)
    try:
        model = algorithm_class(config.algorithm)(env=envs, seed=run.seed, device=device, **arguments)
    except (AssertionError, ValueError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{settings.agent}: Stable-Baselines3 does not take these settings ({said})") from error
    model.set_logger(Logger(None, []))
    normalize = model.get_vec_normalize_env()
    learner = SB3Agent(None, observation_space, action_space, device=device, policy=model.policy, normalize=normalize)
    batch = open_batch(settings.env, 1, settings=settings.env_settings, illegal="replace", start=False)
    return model, SB3Session(
        settings=settings,
        device=device,
        batch=batch,
        learner=learner,
        lineup=self_play(learner, 1, 1, batch.device),
        collector=Collector(batch, RolloutSpec(1, False), torch.Generator()),
        learning=torch.Generator(),
        recent=deque(maxlen=run.solved_episodes),
    )


def _open_copies(settings: Settings) -> VecEnv:
    run = settings.run
    if settings.env in registered():
        return make_sb3(settings.env, run.num_envs, seed=run.seed, **settings.env_settings)

    def make(copy: int) -> gym.Env[Any, Any]:
        return Monitor(_Named(make_copy(settings.env, settings.env_settings, training=True), settings.env, copy))

    return DummyVecEnv([partial(make, copy) for copy in range(run.num_envs)])


class _Named(gym.Wrapper[Any, Any, Any, Any]):
    """Names the environment and the copy in what the environment's own code raises."""

    def __init__(self, env: gym.Env[Any, Any], env_id: str, copy: int) -> None:
        super().__init__(env)
        self.at, self._named = copy, ErrorsNamed(env_id, self)

    def reset(self, **how: Any) -> Any:
        """As the environment's."""
        with self._named:
            return self.env.reset(**how)

    def step(self, action: Any) -> Any:
        """As the environment's."""
        with self._named:
            return self.env.step(action)


def _check_memory(settings: Settings, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Refuse a replay buffer larger than the machine's memory before the system grants memory that it does not have.

    Raises:
        ConfigError: naming the size that it would take.
    """
    capacity = getattr(settings.agent_config, "buffer_size", 0)
    shapes: Any = get_obs_shape(observation_space)
    parts = shapes.items() if isinstance(shapes, dict) else [(None, shapes)]
    spaces: Any = observation_space
    each = 2 * sum(
        int(np.prod(shape)) * np.dtype((spaces if key is None else spaces[key]).dtype).itemsize for key, shape in parts
    )
    size, room = capacity * (each + 8 * get_action_dim(action_space) + 12), memory_bytes(torch.device("cpu"))
    if size > room:
        raise ConfigError(
            f"agent.buffer_size: a replay buffer of {capacity:,} transitions of this environment takes "
            f"{size / 2**30:,.1f} GiB, and there are {room / 2**30:,.1f} GiB; "
            f"wanted at most {int(capacity * room / size):,}, with room for the rest"
        )


@contextlib.contextmanager
def _global_generators_set_back() -> Iterator[None]:
    """Leave the global generators of Python, NumPy and torch as they were before SB3 seeds and draws from them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
