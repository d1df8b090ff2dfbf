"""The self-play loop, which trains every agent whose entry names no other trainer.

    draw a lineup -> collect -> learn -> record -> now and then evaluate and checkpoint

One seat and one learner is ordinary reinforcement learning; a learner in every seat is self-play. An offline agent
collects nothing: it gets the run's dataset (:mod:`mlbits.selfplay.offline.session`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlbits.selfplay.bookkeeping import Bookkeeping
from mlbits.selfplay.callbacks import Callbacks
from mlbits.selfplay.curves.tracking import Tracker
from mlbits.selfplay.finite import NotFiniteError
from mlbits.selfplay.interrupts import Interrupts
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.best_checkpoint import drop_later
from mlbits.selfplay.runs.config import Settings, settled
from mlbits.selfplay.runs.folder import CHECKPOINTS, change_settings, new_folder, read_settings
from mlbits.selfplay.runs.one_writer import one_writer
from mlbits.selfplay.session import Measure, Session, open_session


def loop(session: Session, tracker: Tracker, folder: Path, interrupts: Interrupts) -> dict[str, Any]:
    """Train until the run has all its steps, or a signal asks it to stop; returns the summary.

    Raises:
        RunInterrupted: after a signal or a closed pipe; the current iteration is finished and saved first.
        NotFiniteError: naming the environment, step, copy and quantity, and the last good checkpoint.
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
    open_session: Callable[..., Session] = open_session,
) -> tuple[Path, dict[str, Any]]:
    """Start a run; see :func:`mlbits.selfplay.training.train`. ``open_session`` builds its parts."""
    set_up(settings.run.threads)
    settings, notes = settled(settings)
    session = open_session(settings, start=False)
    session.measure, session.callbacks = measure, callbacks
    folder = new_folder(session.settings, out)  # after every check that can fail: only now are the rules compiled
    session.start()
    session.counters.next_eval = settings.run.eval_every
    session.counters.next_checkpoint = settings.run.checkpoint_every
    with one_writer(folder), Interrupts(folder).watched() as interrupts:
        tracker = Tracker(
            folder, settings.run.total_steps, console=console, on_closed_pipe=interrupts.closed_pipe,
            track=settings.run.track,
        )  # fmt: skip
        try:
            for note in [*notes, *_notes_on(session)]:
                tracker.say(note)
            tracker.describe(session.settings.to_json())
            return folder, loop(session, tracker, folder, interrupts)
        finally:
            tracker.close()


def resume(
    folder: Path,
    settings: Settings,
    *,
    total_steps: int | None = None,
    console: bool = True,
    measure: Measure | None = None,
    callbacks: Callbacks | None = None,
    open_session: Callable[..., Session] = open_session,
) -> tuple[Path, dict[str, Any]]:
    """Continue a run; see :func:`mlbits.selfplay.training.resume`. ``open_session`` builds its parts."""
    if total_steps is not None:
        settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, total_steps=total_steps))
    set_up(settings.run.threads)
    settings, notes = settled(settings)
    session = open_session(settings, start=False)
    session.measure, session.callbacks = measure, callbacks
    session.counters.next_eval = settings.run.eval_every
    session.counters.next_checkpoint = settings.run.checkpoint_every
    session.start()
    say = print if console else lambda text: None
    _, path, problems = checkpoints.load_latest(
        folder / CHECKPOINTS, session.belongs_to(), lambda found: session.from_checkpoint(found, folder, say)
    )
    drop_later(folder, session.counters.env_steps, session.counters.best_env_steps)
    if session.settings.run != read_settings(folder).run:
        change_settings(folder, session.settings)  # so that a run interrupted again resumes to the same end
    with Interrupts(folder).watched() as interrupts:
        tracker = Tracker(
            folder, settings.run.total_steps, session.counters.env_steps, console=console,
            on_closed_pipe=interrupts.closed_pipe, track=settings.run.track,
        )  # fmt: skip
        try:
            for note in [*notes, *_notes_on(session)]:
                tracker.say(note)
            for problem in problems:
                tracker.say(f"skipped {problem}")
            tracker.say(f"resuming from {path if path is not None else 'the start: there is no checkpoint yet'}")
            return folder, loop(session, tracker, folder, interrupts)
        finally:
            tracker.close()


def _notes_on(session: Session) -> list[str]:
    """What the user should know about how the run is played."""
    return [note] if (note := getattr(session.batch, "note", "")) else []
