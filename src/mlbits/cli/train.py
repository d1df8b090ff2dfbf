"""``mlbits train AGENT ENV``."""

from __future__ import annotations

from mlbits.cli.printing import print_run
from mlbits.envs.core.trust import trusting_files


def command(words: list[str]) -> int:
    """Train an agent on an environment."""
    from mlbits.selfplay.runs.flags import parse_train

    settings, out, quiet = parse_train(words)
    from mlbits.selfplay.runs.progress import compilation_messages
    from mlbits.training import train_resolved

    if not quiet:
        preset = "no preset: defaults and flags" if settings.preset == "none" else f"preset {settings.preset}"
        print(f"training {settings.agent} on {settings.env} ({preset})", flush=True)
    with trusting_files("--trust" in words), compilation_messages(not quiet):
        folder, summary = train_resolved(settings, out, console=not quiet)
    print_run(folder, summary)
    return 0
