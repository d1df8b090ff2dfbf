"""``mlbits replay RUN|ENV`` and ``mlbits replay --check PAGE``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.printing import printable
from mlbits.envs.core.trust import trusting_files
from mlbits.evals.replays.config import ReplayFlags

if TYPE_CHECKING:
    from mlbits.selfplay.runs.env_flags import EnvFlags


def parse(words: list[str]) -> tuple[Any, EnvFlags]:
    """The flags and the environment's settings."""
    from mlbits.selfplay.runs.env_flags import read_with_env

    first = words[0] if words and not words[0].startswith("-") else ""
    return read_with_env(ReplayFlags, "mlbits replay", words, first)


def command(words: list[str]) -> int:
    """Write a replay, or check one."""
    flags, env_flags = parse(words)
    from mlbits.evals.replays.page import check_page_file, write_page
    from mlbits.selfplay.curves.progress import compilation_messages

    with trusting_files(flags.trust), compilation_messages():
        if flags.checked is not None:
            if flags.source:
                raise MlbitsError(f"--check: cannot be used with {flags.source}; wanted the page alone")
            return _check(flags.checked)
        check_page_file(flags.out, "out")
        from mlbits.evals.replays.playing import replay_of

        replay = replay_of(flags, env_flags.over(flags))
    write_page(replay, flags.out)
    earned = ", ".join(f"{name} {value:g}" for name, value in zip(replay.names, replay.returns(), strict=True))
    print(
        printable(f"{replay.env}: {len(replay.steps):,} steps, {replay.end}; {earned}\nreplay: {flags.out}", keep="\n")
    )
    return 0


def _check(path: Path) -> int:
    """Print whether a replay is true."""
    from mlbits.evals.replays.checking import check_replay

    replay, differences = check_replay(path)
    print(printable(f"{replay.env}, seed {replay.seed}: {len(replay.steps):,} steps, {replay.end}"))
    for line in differences:
        print(printable(f"not true: {line}"))
    if not differences:
        print("true: the rules play it so; probabilities and expectations are the players' own word")
    return 1 if differences else 0
