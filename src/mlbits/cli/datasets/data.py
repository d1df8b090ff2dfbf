"""``mlbits data DATASET``, ``mlbits data mix A B`` and ``mlbits data split A``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.config_fields import REQUIRED, configuration, setting
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class SummaryFlags:
    """Describe a dataset: returns, lengths, ends, actions, coverage. Others: mlbits data mix, mlbits data split."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = setting(
        REQUIRED, "name of a Minari dataset, or its folder"
    )
    plot: Path | None = setting(None, "draw the distributions to this file, as data.png")
    json: Path | None = setting(None, "write the summary to this file")


@configuration(ConfigError)
class MixFlags:
    """Make a dataset of the episodes of several ones, in random order."""

    datasets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATASETS")] = setting(
        REQUIRED, "names of Minari datasets, or their folders"
    )
    into: str = setting(REQUIRED, "name of the new dataset, or a new folder")
    fractions: tuple[float, ...] | None = setting(None, "of each dataset's episodes, drawn at random; by default all")
    seed: int = setting(0, "seed of the draws and of the order")


@configuration(ConfigError)
class SplitFlags:
    """Make two datasets of one's episodes: a random fraction of them, and the others."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = setting(
        REQUIRED, "name of a Minari dataset, or its folder"
    )
    into: tuple[str, str] = setting(REQUIRED, "names of the new datasets, or new folders")
    fraction: float = setting(0.5, "of the episodes, for the first", low=0, high=1)
    seed: int = setting(0, "seed of the draw")


def _summary(flags: Any) -> int:
    for name in ("plot", "json"):
        check_file(name, getattr(flags, name))
    from mlbits.agents.memory.minari import read_dataset
    from mlbits.evals.dataset_summary import describe, draw, summarise

    data = read_dataset(flags.dataset)
    result = summarise(data)
    print(describe(result))
    if flags.plot is not None:
        draw(data, flags.plot)
        print(f"plot: {flags.plot}")
    write_json(flags.json, result)
    return 0


def _mix(flags: Any) -> int:
    from mlbits.agents.memory.dataset import Dataset
    from mlbits.agents.memory.minari import check_new, read_dataset

    check_new(flags.into)
    parts = [read_dataset(name) for name in flags.datasets]
    mixed = Dataset.mix(parts, flags.fractions, seed=flags.seed)
    about = {"mixed": list(flags.datasets), "fractions": flags.fractions, "seed": flags.seed}
    _write(mixed, flags.into, about)
    return 0


def _split(flags: Any) -> int:
    from mlbits.agents.memory.minari import check_new, read_dataset

    for name in flags.into:
        check_new(name)
    if flags.into[0] == flags.into[1]:
        raise ConfigError(f"into: got {flags.into[0]} twice; wanted two names")
    data = read_dataset(flags.dataset)
    for part, name in zip(data.split(flags.fraction, flags.seed), flags.into, strict=True):
        _write(part, name, {"part_of": flags.dataset, "fraction": flags.fraction, "seed": flags.seed})
    return 0


def _write(data: Any, name: str, about: dict[str, Any]) -> None:
    from mlbits.agents.memory.minari import write_dataset

    folder = write_dataset(data, name, about)
    mean = float(data.returns.double().mean())
    print(f"{data.num_episodes:,} episodes, {data.num_steps:,} steps, mean return {mean:.4g}\ndataset: {folder}")


_COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {"mix": (MixFlags, _mix), "split": (SplitFlags, _split)}


def parse(words: list[str]) -> Any:
    """The flags of the summary, or of a command on datasets."""
    if words and words[0] in _COMMANDS:
        return read_flags(_COMMANDS[words[0]][0], f"mlbits data {words[0]}", words[1:])
    return read_flags(SummaryFlags, "mlbits data", words)


def command(words: list[str]) -> int:
    """Describe, mix or split datasets."""
    flags = parse(words)
    return _COMMANDS[words[0]][1](flags) if words and words[0] in _COMMANDS else _summary(flags)
