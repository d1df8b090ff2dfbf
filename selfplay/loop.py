"""The self-play loop, which trains every agent whose entry names no other trainer.

    draw a lineup -> collect -> learn -> record -> now and then evaluate and checkpoint

One seat and one learner is ordinary reinforcement learning; a learner in every seat is self-play. An offline agent
collects nothing: it gets the run's dataset (:mod:`mlbits.selfplay.offline.session`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlbits.selfplay.bookkeeping import Bookkeeping
from mlbits.selfplay.callbacks import Callbacks
from mlbits.selfplay.curves.tracking import Tracker
from mlbits.selfplay.finite import NotFiniteError
from mlbits.selfplay.interrupts import Interrupts
from mlbits.selfplay.machine import count_from_now, set_up
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.best_checkpoint import drop_later
from mlbits.selfplay.runs.config import Settings, settled
from mlbits.selfplay.runs.folder import CHECKPOINTS, change_settings, new_folder, other_processor, read_settings
from mlbits.selfplay.runs.one_writer import one_writer
from mlbits.selfplay.session import Measure, Session
from mlbits.selfplay.shards.links import GroupLostError
from mlbits.selfplay.shards.session import open_run


def loop(session: Session, tracker: Tracker, folder: Path, interrupts: Interrupts) -> dict[str, Any]:
    """Train until the run has all its steps, or a signal asks it to stop; returns the summary.

    Raises:
        RunInterrupted: after a signal or a closed pipe; the current iteration is finished and saved first.
        NotFiniteError: naming the environment, step, copy and quantity, and the last good checkpoint.
        GroupLostError: if a worker of a run in shards is gone; after a checkpoint, if it has said so before.
    """
    bookkeeping = Bookkeeping(session, tracker, folder)
    try:
        while not session.finished:
            rollout, episodes, steps = session.collect()
            with bookkeeping.clock.timing("learning"):
                metrics = session.learn(rollout)
            bookkeeping.after(steps, episodes, metrics)
            if interrupts.name and not session.finished:
                raise bookkeeping.interrupted(interrupts)
            if session.losing and not session.finished:
                bookkeeping.kept()
                raise GroupLostError(session.losing)
        summary = bookkeeping.finish()
    except NotFiniteError as error:
        tracker.stopped(error.kept(folder, bookkeeping.newest()))
        raise
    if interrupts.name:
        raise interrupts.at_the_end()
    return summary


def train(
    settings: Settings,
    out: str | Path | None = None,
    *,
    console: bool = True,
    measure: Measure | None = None,
    callbacks: Callbacks | None = None,
    open_session: Callable[..., Session] = open_run,
) -> tuple[Path, dict[str, Any]]:
    """Start a run; see :func:`mlbits.selfplay.training.train`. ``open_session`` builds its parts."""
    set_up(settings.run.threads)
    settings, notes = settled(settings)
    session = open_session(settings, start=False)
    session.measure, session.callbacks = measure, callbacks
    with _closed_on_error(session):
        folder = new_folder(session.settings, out)  # after every check that can fail: only now are the rules compiled
        session.start()
    session.counters.next_eval = settings.run.eval_every
    session.counters.next_checkpoint = settings.run.checkpoint_every
    with one_writer(folder), Interrupts(folder).watched() as interrupts:
        return folder, _to_the_end(session, folder, interrupts, notes, console, None)


def resume(
    folder: Path,
    settings: Settings,
    *,
    total_steps: int | None = None,
    console: bool = True,
    measure: Measure | None = None,
    callbacks: Callbacks | None = None,
    open_session: Callable[..., Session] = open_run,
) -> tuple[Path, dict[str, Any]]:
    """Continue a run; see :func:`mlbits.selfplay.training.resume`. ``open_session`` builds its parts."""
    if total_steps is not None:
        settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, total_steps=total_steps))
    set_up(settings.run.threads)
    settings, notes = settled(settings)
    session = open_session(settings, start=False)
    session.measure, session.callbacks = measure, callbacks
    with _closed_on_error(session):
        more = _restored(session, folder, print if console else lambda text: None)
        more += [note] if (note := other_processor(folder)) else []
        kept = session.settings
        if kept.run.total_steps < (done := session.counters.env_steps):  # it cannot lose steps
            kept = dataclasses.replace(kept, run=dataclasses.replace(kept.run, total_steps=done))
        if kept.run != read_settings(folder).run:
            change_settings(folder, kept)  # so that a run interrupted again resumes to the same end
    with Interrupts(folder).watched() as interrupts:
        steps = session.counters.env_steps
        return folder, _to_the_end(session, folder, interrupts, notes, console, steps, more)


def _restored(session: Session, folder: Path, say: Callable[[str], None]) -> list[str]:
    """Start a session and restore the newest usable checkpoint of its run; returns lines for the user."""
    session.counters.next_eval = session.settings.run.eval_every
    session.counters.next_checkpoint = session.settings.run.checkpoint_every
    session.start()
    _, path, problems = checkpoints.load_latest(
        folder / CHECKPOINTS, session.belongs_to(), lambda found: session.from_checkpoint(found, folder, say)
    )
    drop_later(folder, session.counters.env_steps, session.counters.best_env_steps)
    skipped = [f"skipped {problem}" for problem in problems]
    return [*skipped, f"resuming from {path if path is not None else 'the start: there is no checkpoint yet'}"]


def _to_the_end(
    session: Session, folder: Path, interrupts: Interrupts, notes: list[str], console: bool, resumed_at: int | None,
    more: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Train until the run is over; where workers are lost, from the last checkpoint on with new ones."""
    run = session.settings.run
    try:
        while True:
            tracker = Tracker(
                folder, run.total_steps, resumed_at, console=console, on_closed_pipe=interrupts.closed_pipe,
                track=run.track,
            )  # fmt: skip
            try:
                for note in [*notes, *_notes_on(session), *more]:
                    tracker.say(note)
                if resumed_at is None:
                    tracker.describe(session.settings.to_json())
                return loop(session, tracker, folder, interrupts)
            except GroupLostError as lost:
                if interrupts.name:
                    raise interrupts.at_once() from None
                tracker.say(f"{lost}; starting new workers")
                session, more = _begun_again(session, lost, folder, tracker.say)
                resumed_at = session.counters.env_steps
            finally:
                tracker.close()
    finally:
        session.close()


def _begun_again(
    session: Session, lost: GroupLostError, folder: Path, say: Callable[[str], None]
) -> tuple[Session, list[str]]:
    """A session with new workers, from the run's last checkpoint; and lines for the user."""
    while True:
        session = session.again(lost)
        count_from_now()
        try:
            return session, _restored(session, folder, say)
        except GroupLostError as error:
            lost = error


@contextlib.contextmanager
def _closed_on_error(session: Session) -> Iterator[None]:
    try:
        yield
    except BaseException:
        session.close()
        raise


def _notes_on(session: Session) -> list[str]:
    """What the user should know about how the run is played."""
    return [note] if (note := getattr(session.batch, "note", "")) else []
