"""``mlbits train AGENT ENV``."""

from __future__ import annotations

from mlbits.cli.printing import print_run, print_runs
from mlbits.envs.core.trust import trusting_files
from mlbits.selfplay.shards.launcher import launched


def command(words: list[str]) -> int:
    """Train an agent on an environment."""
    if (by := launched()) is not None and by.rank:
        from mlbits.selfplay.shards.worker import serve_launched

        serve_launched(by)
    from mlbits.selfplay.runs.flags import read_train

    settings, out, quiet, seeds, where, dry_run = read_train(words)
    if dry_run:
        from mlbits.selfplay.league.learners import divided
        from mlbits.selfplay.shards.places import check_sharded, number_of_workers, plan

        check_sharded(settings)
        places = divided(settings.run.shards, number_of_workers(settings.run, by))
        print(plan(settings.run, places, by))
        return 0
    from mlbits.selfplay.curves.progress import compilation_messages
    from mlbits.training import train_resolved, train_seeds

    if not quiet:
        preset = "no preset: defaults and flags" if settings.preset == "none" else f"preset {settings.preset}"
        times = "" if seeds is None else f", {seeds} seeds from {settings.run.seed}"
        print(f"training {settings.agent} on {settings.env} ({preset}){times}", flush=True)
    with trusting_files("--trust" in words), compilation_messages(not quiet):
        if seeds is not None:
            print_runs(train_seeds(settings, seeds, out, jobs=where.jobs, cluster=where.cluster, console=not quiet))
            return 0
        run = train_resolved(settings, out, console=not quiet)
    print_run(run.folder, run.summary)
    return 0
