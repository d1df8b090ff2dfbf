"""``mlbits resume RUN``."""

from __future__ import annotations

from shlex import quote
from typing import Annotated, Any

import tyro

from mlbits.cli.printing import print_run
from mlbits.envs.core.config_fields import REQUIRED, configuration, setting
from mlbits.envs.core.printing import printable
from mlbits.envs.core.trust import TRUST_HELP, trusting_files
from mlbits.selfplay.runs.command_line import automatic_workers, read_flags
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.shards.launcher import launched


@configuration(ConfigError)
class ResumeFlags:
    """Continue a run from its newest whole checkpoint; on the CPU it ends as if it had never been interrupted."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = setting(REQUIRED, "the run's folder")
    total_steps: int | None = setting(None, "new number of environment steps (or gradient steps) to end at")
    data: str | None = setting(None, "where the run's dataset is now, if it has been moved")
    workers: int | None = setting(
        None, "processes that the run's shards are divided among from now on; 0 or auto takes one a core or GPU", low=0
    )
    actors: int | None = setting(
        None, "processes that play the copies of a run with actors from now on; the run is the same", low=0
    )
    trust: bool = setting(False, TRUST_HELP)


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(ResumeFlags, "mlbits resume", automatic_workers(words))


def command(words: list[str]) -> int:
    """Continue a run."""
    if (by := launched()) is not None and by.rank:
        from mlbits.selfplay.shards.worker import serve_launched

        serve_launched(by)
    flags = parse(words)
    from mlbits.evals.headline import headlines
    from mlbits.selfplay.curves.progress import compilation_messages
    from mlbits.selfplay.runs.folder import SUMMARY, RunError, finished_summary, read_settings, steps_done
    from mlbits.selfplay.runs.stopping import reached
    from mlbits.selfplay.training import resumable
    from mlbits.training import resume_folder

    done = finished_summary(flags.run, flags.total_steps)
    if done is not None:
        settings = read_settings(flags.run)
        try:
            print(f"{flags.run} is finished: it has its {done['env_steps']:,} steps; nothing was done")
            print(printable(f"its result: {'; '.join(headlines(done))}"))
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise RunError(f"{flags.run}: its {SUMMARY} is damaged ({error}); nothing needs it: delete it") from None
        if not resumable(settings.agent):
            print(f"a run of {settings.agent} cannot go on; wanted a new run with more --total-steps")
        elif why := done.get("stopped") or reached(settings.run, done):
            print(f"it ended early: {why}; to train longer, start a new run without that setting")
        else:
            print(f"to train longer: mlbits resume {quote(flags.run)} --total-steps {2 * done['env_steps']}")
        return 0
    steps = steps_done(flags.run)
    if flags.total_steps is not None and steps > flags.total_steps:
        print(f"{flags.run} has {steps:,} steps, more than --total-steps {flags.total_steps}: it ends with those")
    with trusting_files(flags.trust), compilation_messages():
        run = resume_folder(
            flags.run, total_steps=flags.total_steps, data=flags.data, workers=flags.workers, actors=flags.actors
        )
    print_run(run.folder, run.summary)
    return 0
