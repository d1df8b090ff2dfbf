"""``mlbits meta-train RULE``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import tyro

from mlbits.cli.printing import print_run
from mlbits.envs.core.errors import UnknownIdError
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError, RunConfig, Settings, resolve

NAMES = ("lpg",)
_USAGE = """usage: mlbits meta-train lpg [flags]

Train an update rule: a network that teaches agents. The run's folder holds its settings, curves and checkpoints, and at
its end rule.safetensors, by which agents learn anywhere (mlbits train lpg ENV --agent.rule FILE).

  mlbits meta-train lpg                                     on small gridworlds, each agent in one of its own
  mlbits meta-train lpg --levels small:3,medium:1           three quarters of the agents in small ones
  mlbits meta-train lpg --total-steps 1e9 --hidden 64 --out runs/rule
  mlbits meta-train lpg --help                              all flags
"""


def parse(words: list[str]) -> tuple[Settings, str | None, bool]:
    """The settings, the folder asked for, and whether to be quiet.

    Raises:
        ConfigError: if the rule's name is missing, or a flag is wrong.
        UnknownIdError: for an unknown rule.
        SystemExit: after --help.
    """
    from mlbits.agents.learned_rules.config import MetaLPGConfig
    from mlbits.selfplay.meta.session import ENV

    if not words or words[0].startswith("-"):
        if any(word in ("-h", "--help") for word in words):
            print(_USAGE, end="")
            raise SystemExit(0)
        raise ConfigError("meta-train: the rule is missing; wanted mlbits meta-train lpg")
    if words[0] not in NAMES:
        raise UnknownIdError("rule to train", words[0], NAMES)
    start = resolve(f"meta-{words[0]}", ENV, preset="none")
    flags_class = dataclasses.make_dataclass(
        "MetaTrain",
        [
            ("out", Annotated[str | None, tyro.conf.arg(help="folder of the run; made under runs/ without it")], None),
            ("quiet", Annotated[bool, tyro.conf.arg(help="show no progress")], False),
            ("rule", tyro.conf.OmitArgPrefixes[MetaLPGConfig], start.agent_config),
            ("run", tyro.conf.OmitArgPrefixes[RunConfig], start.run),
        ],
        frozen=True,
        kw_only=True,
    )
    flags: Any = read_flags(flags_class, "mlbits meta-train lpg", words[1:], description="Train an update rule.")
    return dataclasses.replace(start, agent_config=flags.rule, run=flags.run), flags.out, flags.quiet


def command(words: list[str]) -> int:
    """Train an update rule."""
    settings, out, quiet = parse(words)
    from mlbits.selfplay.curves.progress import compilation_messages
    from mlbits.training import train_resolved

    if not quiet:
        config = settings.agent_config
        lifetimes = f"{settings.run.num_envs // config.copies} lifetimes x {config.copies} copies"
        print(f"meta-training lpg on {config.levels} levels, {lifetimes}", flush=True)
    with compilation_messages(not quiet):
        run = train_resolved(settings, out, console=not quiet, measure=None)
    print_run(run.folder, run.summary)
    return 0
