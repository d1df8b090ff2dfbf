"""``mlbits meta-train RULE``."""

from __future__ import annotations

import dataclasses
from typing import Any

import tyro

from mlbits.cli.printing import print_run
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.errors import UnknownIdError
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError, RunConfig, Settings, resolve

NAMES = ("lpg",)
_DESCRIPTION = """Train an update rule: a network that teaches agents, by the meta-gradient of LPG. The run's folder
holds its settings, curves and checkpoints, and at its end rule.safetensors, by which agents learn anywhere (mlbits
train lpg ENV --agent.rule FILE). As in: mlbits meta-train lpg --levels small:3,medium:1 --total-steps 1e9"""


@configuration(ConfigError)
class MetaTrainFlags:
    """Where a run of meta-training goes."""

    out: str | None = setting(None, "folder of the run; made under runs/ without it")
    quiet: bool = setting(False, "show no progress")


def parse(words: list[str]) -> tuple[Settings, MetaTrainFlags]:
    """The settings, and where the run goes.

    Raises:
        ConfigError: if the rule's name is missing, or a flag is wrong.
        UnknownIdError: for an unknown rule.
        SystemExit: after --help.
    """
    from mlbits.agents.learned_rules.config import MetaLPGConfig
    from mlbits.selfplay.meta.session import ENV

    if words and words[0] in ("-h", "--help"):
        words = [NAMES[0], *words]
    if not words or words[0].startswith("-"):
        raise ConfigError("meta-train: the rule is missing; wanted mlbits meta-train lpg")
    if words[0] not in NAMES:
        raise UnknownIdError("rule to train", words[0], NAMES)
    start = resolve(f"meta-{words[0]}", ENV, preset="none")
    flags_class = dataclasses.make_dataclass(
        "MetaTrain",
        [
            ("how", tyro.conf.OmitArgPrefixes[MetaTrainFlags], MetaTrainFlags()),
            ("rule", tyro.conf.OmitArgPrefixes[MetaLPGConfig], start.agent_config),
            ("run", tyro.conf.OmitArgPrefixes[RunConfig], start.run),
        ],
        frozen=True,
        kw_only=True,
    )
    flags: Any = read_flags(flags_class, f"mlbits meta-train {words[0]}", words[1:], description=_DESCRIPTION)
    return dataclasses.replace(start, agent_config=flags.rule, run=flags.run), flags.how


def command(words: list[str]) -> int:
    """Train an update rule."""
    settings, how = parse(words)
    from mlbits.selfplay.curves.progress import compilation_messages
    from mlbits.training import train_resolved

    if not how.quiet:
        config = settings.agent_config
        lifetimes = f"{settings.run.num_envs // config.copies} lifetimes x {config.copies} copies"
        print(f"meta-training lpg on {config.levels} levels, {lifetimes}", flush=True)
    with compilation_messages(not how.quiet):
        run = train_resolved(settings, how.out, console=not how.quiet, measure=None)
    print_run(run.folder, run.summary)
    return 0
