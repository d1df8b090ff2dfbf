"""Bookkeeping after each training iteration: counters, evaluation, logging, checkpoints, timing.

Our own loop and Stable-Baselines3's loop use the same :class:`Bookkeeping`, so that their runs have the same files and
curves.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.selfplay.callbacks import RunUnderWay
from mlbits.selfplay.collector import Episodes, Timing
from mlbits.selfplay.curves.progress import PROGRESS
from mlbits.selfplay.curves.tracking import CurvesError, Tracker
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.finite import check_array
from mlbits.selfplay.interrupts import Interrupts, RunInterrupted, eval_command, resume_command
from mlbits.selfplay.lineup import LEARNER
from mlbits.selfplay.machine import run_cpu_seconds, run_wall_seconds
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.best_checkpoint import drop_unnamed, save_best
from mlbits.selfplay.runs.checkpoints import Checkpoint
from mlbits.selfplay.runs.folder import CHECKPOINTS, write_summary
from mlbits.selfplay.session import Session
from mlbits.selfplay.statistics import mean_interval

# Evaluation copies have a seed other than training's, the same for all runs, so that their curves are comparable.
EVAL_SEED = 1_000_000_007
_MAX_FRAMES = 200


class Bookkeeping:
    """Updates counters after each training iteration; evaluates, logs and saves checkpoints when they are due.

    Args:
        session: the run under way.
        tracker: writes the records.
        folder: the run's folder.

    Attributes:
        clock: wall and CPU time of the run.
    """

    def __init__(self, session: Session, tracker: Tracker, folder: Path) -> None:
        self.clock = Clock(session)
        self._session, self._tracker, self._folder = session, tracker, folder
        self._saved: tuple[int, Path] | None = None  # the latest checkpoint of this process: environment steps, folder
        self._under_way = RunUnderWay(session, folder)

    def after(self, steps: int, episodes: Episodes, metrics: Mapping[str, Any]) -> None:
        """Do the bookkeeping of one iteration.

        Args:
            steps: environment steps of the iteration.
            episodes: those that ended in it.
            metrics: what the learner reported; if empty, its last report is kept.
        """
        session, tracker, folder, clock = self._session, self._tracker, self._folder, self.clock
        run, counters = session.settings.run, session.counters
        counters.unrecorded_metrics = dict(metrics) or counters.unrecorded_metrics
        counters.env_steps += steps
        counters.iterations += 1
        if run.max_cpu_minutes > 0:
            clock.update()
        _note_episodes(session, episodes, clock)
        if session.opponents is not None:
            session.opponents.note(episodes, counters.env_steps)
        counters.unrecorded_lengths.extend(episodes.lengths.tolist())
        self._call("on_iteration")
        # The last evaluation comes before the last checkpoint, so that an interruption between them repeats neither.
        due = session.finished or (run.eval_every and counters.env_steps >= counters.next_eval)
        if due and session.plays_evaluations:
            counters.next_eval = _next(counters.env_steps, run.eval_every)
            session.check_weights()
            with clock.timing("evaluation"), _saved_on_error(session, tracker, folder, clock):
                evaluate(session, tracker)
            self._evaluated()
        saving = session.finished or (run.checkpoint_every and counters.env_steps >= counters.next_checkpoint)
        if saving or counters.env_steps >= counters.next_record:
            counters.next_record = _next(counters.env_steps, session.record_every)
            record = {f"learn/{name}": float(value) for name, value in counters.unrecorded_metrics.items()}
            record |= {} if session.opponents is None else session.opponents.record()
            record |= {PROGRESS: session.progress} if run.max_cpu_minutes > 0 else {}
            record |= session.record()
            tracker.record(counters.env_steps, _training_record(session) | record | clock.record())
            counters.unrecorded_metrics, counters.unrecorded_lengths = {}, []
        if saving:
            counters.next_checkpoint = _next(counters.env_steps, run.checkpoint_every)
            self._save()

    def _evaluated(self) -> None:
        """Note an evaluation, keep the agent if it is the best, and call back."""
        session, folder = self._session, self._folder
        session.evaluated(folder)
        if session.settings.run.keep_best and session.counters.evaluations_without_improvement == 0:
            self.clock.update()
            session.counters.best_env_steps = session.counters.env_steps
            acting = Checkpoint(session.learner.state_dict(), {}, session.counters.plain())
            save_best(folder, acting, session.belongs_to())
        self._call("on_evaluation")

    def _save(self) -> None:
        path = save(self._session, self._tracker, self._folder, self.clock)
        self._saved = self._session.counters.env_steps, path
        if self._session.settings.run.keep_best:
            drop_unnamed(self._folder)
        self._under_way.checkpoint = path
        self._call("on_checkpoint")

    def _call(self, moment: str) -> None:
        """Call the user's callbacks; if one fails, the run is saved first."""
        session = self._session
        if session.callbacks is not None:
            with _saved_on_error(session, self._tracker, self._folder, self.clock):
                session.callbacks.call(moment, self._under_way)

    def interrupted(self, by: Interrupts, resumable: bool = True) -> RunInterrupted:
        """Save a checkpoint between two iterations, without changing the schedule of the others.

        Args:
            by: the request to stop.
            resumable: whether the run can go on from a checkpoint.

        Returns:
            The exception to raise; it says where the run stopped and how to continue.
        """
        folder, counters, path = self._folder, self._session.counters, self.kept()
        how = f"to continue: {resume_command(folder)}"
        if not resumable:
            how = f"{self._session.settings.agent} cannot be resumed; to evaluate it: {eval_command(folder)}"
        text = f"{by.name}: stopped after {counters.env_steps:,} steps; saved: {path}\n{how}"
        return RunInterrupted(text, by.status, folder, path)

    def kept(self) -> Path:
        """The folder of a checkpoint of the run as it is now, which is saved unless it has been."""
        if self._saved is None or self._session.counters.env_steps != self._saved[0]:
            self._save()
        assert self._saved is not None
        return self._saved[1]

    def finish(self) -> dict[str, Any]:
        """Write the summary; returns it."""
        session, counters = self._session, self._session.counters
        known = counters.evaluation is not None and counters.evaluation["env_steps"] == counters.env_steps
        if session.plays_evaluations and not known:  # resumed at its end
            evaluate(session, self._tracker)
            self._evaluated()
            self._save()
        summary: dict[str, Any] = {
            **(counters.evaluation or {}),
            "best_return_mean": counters.best_return_mean,
            "env_steps": counters.env_steps,
            "wall_seconds": counters.wall_seconds,
            "cpu_seconds": counters.cpu_seconds,
            **session.about(self._folder),
        }
        if session.threshold is not None:
            summary["solved_at"] = counters.solved_at
        if session.settings.run.keep_best:
            summary["best_env_steps"] = counters.best_env_steps
        if session.progress < 1:
            summary["stopped"] = session.why_early
        write_summary(self._folder, summary)
        return summary

    def newest(self) -> Path | None:
        """The checkpoint saved last, if any."""
        found = checkpoints.found(self._folder / CHECKPOINTS)
        return found[-1] if found else None


def evaluate(session: Session, tracker: Tracker) -> None:
    """Play evaluation episodes with the current agent; log the results and keep them in the session."""
    if session.evaluates_itself(tracker):
        return
    settings, counters = session.settings, session.counters
    run = settings.run
    played = play_episodes(
        session.player, settings.env, run.eval_episodes, seed=EVAL_SEED, settings=settings.env_settings,
        device=session.device, greedy=run.eval_greedy,
        max_frames=_MAX_FRAMES if run.video else 0,
    )  # fmt: skip
    returns = played.returns.mean(1)
    check_array(played.returns, "return of an evaluation episode", settings.env, counters.env_steps)
    mean, (low, high) = mean_interval(returns, bounds=_known_range(session, returns))
    best = counters.best_return_mean
    better = best is None or mean > best
    counters.best_return_mean = mean if better else best
    counters.evaluations_without_improvement = 0 if better else counters.evaluations_without_improvement + 1
    # A curve needs finite ends: where all returns so far are equal, the band has no width.
    ends = (low, high) if math.isfinite(low) else (mean, mean)
    tracker.record(
        counters.env_steps,
        {"return/eval": mean, "return/eval_low": ends[0], "return/eval_high": ends[1],
         "return/eval_length": float(played.lengths.mean())},
    )  # fmt: skip
    tracker.picture(counters.env_steps, played.frames)
    summary: dict[str, Any] = {}
    if session.measure is not None:
        measured = session.measure(session)
        summary = {**measured.summary, "same_return": played.same_return} if measured.summary else {}
        if measured.scalars:
            tracker.record(counters.env_steps, measured.scalars)
        for name, picture in measured.pictures.items() if run.video else ():
            tracker.picture(counters.env_steps, [picture], name=name)
    if played.undrawn and not played.frames:
        tracker.say(f"no pictures: {played.undrawn}", once=True)
    if run.keep_best and played.same_return:
        tracker.say(
            "keep_best: the mean return over the seats is the same in every game, so none is the best", once=True
        )
    if played.cut:
        episodes = len(played.lengths)
        tracker.say(f"{played.cut} of {episodes} evaluation episodes did not end and were cut (returns so far)")
    counters.evaluation = {
        "env_steps": counters.env_steps,
        "return_mean": mean,
        "return_interval": [low, high],
        "episodes": run.eval_episodes,
        **({"measured": summary} if summary else {}),
    }


def _known_range(session: Session, returns: NDArray[np.float64]) -> tuple[float, float] | None:
    """The smallest and greatest return of these episodes and of recent training episodes; with one seat only."""
    if session.batch.num_seats > 1:  # training returns are of one seat, evaluation's are means over all seats
        return None
    seen = [*session.recent, *returns.tolist()]
    return min(seen), max(seen)


def save(session: Session, tracker: Tracker, folder: Path, clock: Clock) -> Path:
    """Write a checkpoint, after flushing all records so far to disk. Returns its folder.

    Raises:
        NotFiniteError: if a learner's state contains NaN or infinity.
    """
    session.check_weights()
    clock.update()
    tracker.flush()
    if session.opponents is not None:
        session.opponents.write(folder)  # before the checkpoint that names them
    keep = session.settings.run.keep_checkpoints
    path = folder / CHECKPOINTS
    return checkpoints.save(path, session.counters.env_steps, session.to_checkpoint(), session.belongs_to(), keep)


@contextlib.contextmanager
def _saved_on_error(session: Session, tracker: Tracker, folder: Path, clock: Clock) -> Iterator[None]:
    """Save a checkpoint if an error in evaluation ends the run; not where the disk is full."""
    try:
        yield
    except CurvesError:  # resuming evaluates again: what was to be recorded is not lost
        raise
    except Exception:
        save(session, tracker, folder, clock)
        raise


def _next(now: int, every: int) -> int:
    return (now // every + 1) * every if every else 0


def _note_episodes(session: Session, episodes: Episodes, clock: Clock) -> None:
    """Keep the latest returns of the run's agent, and record when their mean first reaches the threshold."""
    # In a league, other learners have copies of their own.
    returns = episodes.returns if episodes.owner is None else episodes.returns[episodes.owner == LEARNER]
    if len(returns) == 0:
        return
    session.recent.extend(returns.tolist())
    counters, threshold = session.counters, session.threshold
    full = len(session.recent) == session.recent.maxlen
    if threshold is not None and counters.solved_at is None and full and np.mean(session.recent) >= threshold:
        clock.update()
        counters.solved_at = {
            "env_steps": counters.env_steps,
            "wall_seconds": counters.wall_seconds,
            "cpu_seconds": counters.cpu_seconds,
        }


def _training_record(session: Session) -> dict[str, float]:
    lengths = session.counters.unrecorded_lengths
    record = {"return/train": float(np.mean(session.recent))} if session.recent else {}
    return record | ({"return/train_length": float(np.mean(lengths))} if lengths else {})


class Clock:
    """Wall and CPU time of the run over all its processes, and the fraction spent in each part."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._wall_before, self._cpu_before = session.counters.wall_seconds, session.counters.cpu_seconds
        self._recorded, self._steps = time.perf_counter(), session.counters.env_steps

    def update(self) -> None:
        """Bring the counters up to now."""
        self._session.counters.wall_seconds = self._wall_before + run_wall_seconds()
        self._session.counters.cpu_seconds = self._cpu_before + run_cpu_seconds() + self._session.workers_cpu_seconds

    @contextlib.contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add the time spent inside this context to one of Timing's parts."""
        timing, began = self._session.collector.timing, time.perf_counter()
        yield
        setattr(timing, part, getattr(timing, part) + time.perf_counter() - began)

    def record(self) -> dict[str, float]:
        """Speed (evaluation left out) and fractions of time since the last record; seconds since the run began."""
        now = time.perf_counter()
        wall = max(now - self._recorded, 1e-9)
        self._recorded = now
        steps = self._session.counters.env_steps - self._steps
        self._steps += steps
        timing = self._session.collector.timing
        training = max(wall - timing.evaluation, 1e-9)
        shares = {f"time/{name}": seconds / wall for name, seconds in vars(timing).items()}
        self._session.collector.timing = Timing()
        self.update()
        counters = self._session.counters
        seconds = {"speed/wall_seconds": counters.wall_seconds, "speed/cpu_seconds": counters.cpu_seconds}
        rest = {"time/rest": max(0.0, 1 - sum(shares.values()))}
        return {"speed/steps_per_second": steps / training, **seconds, **shares, **rest}
