"""The flags of ``mlbits train`` and ``solve``, built from the dataclasses of the run, the agent and the environment."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from mlbits.agents.networks.own import find_factories
from mlbits.agents.registry import AGENTS, agent_entry, check_agent
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.trust import TRUST_HELP
from mlbits.envs.doors.gymnasium_batch import check_env_id
from mlbits.envs.registry import registered
from mlbits.selfplay.runs.command_line import automatic_workers, forget_flags, read_flags
from mlbits.selfplay.runs.config import ConfigError, RunConfig, Settings, find_preset, resolve
from mlbits.selfplay.runs.config_files import read_config_file
from mlbits.selfplay.runs.env_flags import EnvFlags
from mlbits.selfplay.runs.job_flags import JobFlags

_USAGE = """usage: mlbits train AGENT ENV [flags]

Train an agent on an environment. The run's folder holds its settings, curves, checkpoints and summary.

  mlbits train ppo mlbits/GridWorld-v0
  mlbits train ppo CartPole-v1 --total-steps 100000 --num-envs 8     any Gymnasium id works
  mlbits train reinforce mlbits/CartPole-v0 --agent.baseline mean --seed 3
  mlbits train ppo mlbits/GridWorld-v0 --env.map maze --env.slip 0.1
  mlbits train crr --data my/dataset-v0                              from a dataset, which names its environment
  mlbits train --config runs/maze/config.json --seed 2               as that run; also a TOML file
  mlbits train ppo CartPole-v1 --seeds 5                             five seeds, and their mean with its interval
  mlbits train ppo mlbits/GridWorld-v0 --help                        all flags of this pair

agents: {agents}
environments: {envs}, and every id of Gymnasium
"""

_SWEEP_USAGE = """usage: mlbits sweep AGENT ENV --space FILE.toml [flags]

Search for good settings of an agent on an environment. A trial is a run; the same command goes on with a sweep that was
stopped.

  mlbits sweep ppo CartPole-v1 --space space.toml --trials 50
  mlbits sweep ppo mlbits/GridWorld-v0 --space space.toml --total-steps 100000 --jobs 4
  mlbits sweep ppo mlbits/GridWorld-v0 --help                        all flags of this pair

A space, by the names of the flags:
  agent.learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
  agent.hidden = {{ choices = [[64], [64, 64]] }}
  num_envs = {{ low = 8, high = 64, step = 8 }}

agents: {agents}
environments: {envs}, and every id of Gymnasium
"""

_MADE = {"train": "run; made under runs", "sweep": "sweep; made under sweeps"}

_SOLVE_USAGE = """usage: mlbits solve ENV [flags]

Solve an environment exactly, if it is small enough: the best return, value iteration and policy iteration.

  mlbits solve mlbits/GridWorld-v0 --env.map maze --env.slip 0.1 --picture maze.png
  mlbits solve FrozenLake-v1 --discount 0.9
  mlbits solve mlbits/Knapsack-v0 --help                             all flags of that environment

environments: finite games of one seat, and Gymnasium's toy text
"""


@configuration(ConfigError)
class SolveFlags:
    """How an environment is to be solved."""

    discount: float = setting(0.99, "discount factor of value iteration and policy iteration, gamma")
    tolerance: float = setting(1e-8, "largest distance from the optimum at which value iteration stops")
    state_limit: int = setting(200_000, "largest number of states; larger environments are refused")
    picture: Path | None = setting(None, "write the map with values and best moves to this file (gridworlds)")
    json: Path | None = setting(None, "write the result to this file")


def parse_solve(words: list[str]) -> tuple[str, dict[str, Any], SolveFlags]:
    """Read the words after ``mlbits solve``.

    Returns:
        The environment's id, its settings, and how to solve it.

    Raises:
        ConfigError: if the environment is missing, or a flag is wrong.
        UnknownIdError: for an unknown environment.
        SystemExit: after --help.
    """
    if not words or words[0].startswith("-"):
        if any(word in ("-h", "--help") for word in words):
            print(_SOLVE_USAGE, end="")
            raise SystemExit(0)
        raise ConfigError("solve: ENV missing; wanted mlbits solve ENV, as in: solve mlbits/GridWorld-v0")
    env = check_env_id(words[0])
    env_flags = EnvFlags(env, {}, words[1:])
    flags_class = dataclasses.make_dataclass(
        "Solve",
        [("how", tyro.conf.OmitArgPrefixes[SolveFlags], SolveFlags()), env_flags.field],
        frozen=True,
        kw_only=True,
    )
    flags = read_flags(flags_class, f"mlbits solve {env}", env_flags.words, description=f"Solve {env} exactly.")
    return env, env_flags.settings(flags), flags.how


class TrainFlags(NamedTuple):
    """What the words after ``mlbits train`` ask for.

    Attributes:
        settings: of the run, or of the first of several.
        out: the folder asked for, or None.
        quiet: whether to show no progress.
        seeds: how many runs to train, with one seed after another; None for one run.
        where: how many of them at once, and on which cluster.
        dry_run: whether only to check the settings and say which process would have which shards.
    """

    settings: Settings
    out: str | None
    quiet: bool
    seeds: int | None
    where: JobFlags
    dry_run: bool = False


def parse_train(words: list[str]) -> tuple[Settings, str | None, bool]:
    """The settings, the folder asked for and whether to be quiet; see :func:`read_train`."""
    return read_train(words)[:3]


def read_train(words: list[str]) -> TrainFlags:
    """Read the words after ``mlbits train``.

    Raises:
        ConfigError: if the agent or environment is missing, or a flag is wrong.
        UnknownIdError: for an unknown agent or environment.
        SystemExit: after --help.
    """
    seeds = tyro.conf.arg(help="train so many runs, with one seed after another from --seed on")
    dry = tyro.conf.arg(help="train nothing: check the settings, and print which process would have which shards")
    own = [
        ("seeds", Annotated[int | None, seeds], None), ("where", tyro.conf.OmitArgPrefixes[JobFlags], JobFlags()),
        ("dry_run", Annotated[bool, dry], False),
    ]  # fmt: skip
    settings, flags = _read(words, "train", _USAGE, own)
    if flags.seeds is None and flags.where != JobFlags():
        name = "jobs" if flags.where.jobs is not None else "cluster"
        raise ConfigError(f"{name}: got {getattr(flags.where, name)} for one run; wanted --seeds N with it")
    return TrainFlags(settings, flags.out, flags.quiet, flags.seeds, flags.where, flags.dry_run)


def read_sweep(words: list[str], own: Any) -> tuple[Settings, str | None, bool, Any]:
    """Read the words after ``mlbits sweep``: the flags of ``mlbits train``, and those of the sweep.

    Args:
        words: the words.
        own: the dataclass of the sweep's flags, all with defaults.

    Returns:
        The settings of its runs, except what is tried; the folder asked for; whether to be quiet; its own flags.

    Raises:
        ConfigError: as :func:`read_train` raises, like the other errors.
    """
    bare: Any = tyro.conf.OmitArgPrefixes
    settings, flags = _read(words, "sweep", _SWEEP_USAGE, [("sweep", bare[own], own())])
    return settings, flags.out, flags.quiet, flags.sweep


def _read(words: list[str], command: str, usage: str, own: list[Any]) -> tuple[Settings, Any]:
    """The settings of a run, and all flags of a command that has those of ``mlbits train`` and some of its own."""
    words, data = _without(automatic_workers(words), "--data")
    words, config = _without(words, "--config")
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words[:2]))
    given = len(names)
    file = None if config is None else read_config_file(config)
    if file is not None:
        data = data or file.run.get("data") or None
        from_file = [] if file.env is None else [file.env]
        names = [file.check_agent(names[0] if names else None), *(names[1:] or from_file)]
    from_data = data is not None and len(names) == 1
    if len(names) < 2 and not from_data:
        if any(word in ("-h", "--help") for word in words):
            print(usage.format(agents=", ".join(AGENTS), envs=", ".join(registered())))
            raise SystemExit(0)
        missing = "ENV" if names else "AGENT and ENV"
        offline = " (of an offline agent --data DATASET is enough)" if names else ""
        raise ConfigError(
            f"{command}: {missing} missing; wanted mlbits {command} AGENT ENV, as in: {command} ppo "
            f"mlbits/GridWorld-v0{offline}"
        )
    agent, recorded = check_agent(names[0]), dict[str, Any]()
    if from_data:
        from mlbits.selfplay.offline.data import environment_of

        env, recorded = environment_of(str(data))
    env = check_env_id(env if from_data else names[1])
    config_class = agent_entry(agent).config_class()
    if "rule" in config_class.__dataclass_fields__:  # the one file that these agents are told; --agent.rule in full
        words = [re.sub(r"^--rule(?==|$)", "--agent.rule", word) for word in words]
    choice = _preset_choice(words, "auto" if file is None else file.preset)
    forget_flags("preset")
    preset, values = find_preset(agent, env, choice)
    start = resolve(agent, env, preset=choice) if file is None else file.resolved(agent, env, preset=choice)
    base = {**values.get("env", {}), **recorded, **({} if file is None else file.settings_of(env))}
    env_flags = EnvFlags(env, base, words[given:])
    flags_class = dataclasses.make_dataclass(
        command.title(),
        [
            ("out", Annotated[str | None, tyro.conf.arg(help=f"folder of the {_MADE[command]}/ without it")], None),
            (
                "preset",
                Annotated[str, tyro.conf.arg(help="auto, none, or the environment whose preset to use")],
                choice,
            ),
            *own,
            (
                "config",
                Annotated[str | None, tyro.conf.arg(help="a run's config.json to repeat, or a TOML file of settings")],
                None,  # read above; here for the help
            ),
            ("quiet", Annotated[bool, tyro.conf.arg(help="show no progress")], False),
            ("trust", Annotated[bool, tyro.conf.arg(help=TRUST_HELP)], False),  # read by the command itself
            ("run", tyro.conf.OmitArgPrefixes[RunConfig], dataclasses.replace(start.run, data=data or start.run.data)),
            ("agent", config_class, start.agent_config),
            env_flags.field,
        ],
        frozen=True,
        kw_only=True,
    )
    shown = "." if preset == "none" else f". Defaults shown are the values of the preset {preset}."
    shown = shown if file is None else f". Defaults shown are the values of {file.path}."
    what = "Train" if command == "train" else "Search for good settings of"
    flags = read_flags(
        flags_class, f"mlbits {command} {agent} {env}", env_flags.words, description=f"{what} {agent} on {env}{shown}"
    )
    find_factories(flags.agent, None)
    settings = Settings(
        agent=agent,
        env=env,
        preset=preset,
        run=flags.run,
        agent_config=flags.agent,
        env_settings=env_flags.settings(flags),
    )
    return settings, flags


def _without(words: list[str], flag: str) -> tuple[list[str], str | None]:
    """The words without a flag and its value, which may stand between AGENT and ENV; and that value, or None."""
    for k, word in enumerate(words):
        if word == flag and k + 1 < len(words):
            return [*words[:k], *words[k + 2 :]], words[k + 1]
        if word.startswith(f"{flag}="):
            return [*words[:k], *words[k + 1 :]], word.partition("=")[2]
    return words, None


def _preset_choice(words: list[str], usual: str) -> str:
    """The value of --preset, which has to be known before the other flags' defaults are."""
    for k, word in enumerate(words):
        if word == "--preset" and k + 1 < len(words):
            return words[k + 1]
        if word.startswith("--preset="):
            return word.partition("=")[2]
    return usual
