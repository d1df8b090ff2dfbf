"""``mlbits play GAME|RUN``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.trust import trusting_files
from mlbits.evals.play.config import PlayFlags

if TYPE_CHECKING:
    from mlbits.selfplay.runs.env_flags import EnvFlags


def parse(words: list[str]) -> tuple[Any, EnvFlags]:
    """The flags and the environment's settings."""
    from mlbits.selfplay.runs.env_flags import find_env, read_with_env

    # The game is the first word that is one, or a run; runs after it are opponents.
    named = next((word for word in words if word[:1] != "-" and find_env([word])[0]), "")
    return read_with_env(PlayFlags, "mlbits play", words, named)


def command(words: list[str]) -> int:
    """Play a game in the terminal, or serve a page to play in."""
    flags, env_flags = parse(words)
    from mlbits.selfplay.curves.progress import compilation_messages

    with trusting_files(flags.trust), compilation_messages():
        if flags.web:
            from mlbits.evals.play.web.serve import serve

            serve(flags, env_flags.over(flags))
        else:
            from mlbits.evals.play.terminal import play

            if flags.seats:
                raise MlbitsError("seats: are for --web; wanted --seat in the terminal, which has one person")
            play(flags, env_flags.over(flags))
    return 0
