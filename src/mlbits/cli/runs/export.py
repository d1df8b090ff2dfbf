"""``mlbits export RUN``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import tyro

from mlbits.cli.printing import check_file
from mlbits.envs.core.config_fields import REQUIRED, configuration, setting
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.printing import printable
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class ExportFlags:
    """Write a run's agent as a model that plays without mlbits, and check that it computes what the agent does.

    Of a run of meta-training, write its rule.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = setting(REQUIRED, "the run's folder")
    onnx: Path | None = setting(None, "the ONNX file to write, as agent.onnx")
    torchscript: Path | None = setting(None, "the TorchScript file to write, as agent.pt")
    rule: Path | None = setting(None, "the file to write an update rule to, as rule.safetensors")


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(ExportFlags, "mlbits export", words)


def command(words: list[str]) -> int:
    """Export an agent."""
    flags = parse(words)
    for name in ("onnx", "torchscript", "rule"):
        check_file(name, getattr(flags, name))
    if flags.rule is not None:
        if flags.onnx is not None or flags.torchscript is not None:
            raise MlbitsError("export: got --rule with another file; a run has either a rule or an agent: wanted one")
        from mlbits.selfplay.meta.training import export_rule

        session = export_rule(flags.run, flags.rule)
        print(printable(f"rule: {flags.rule}, after {session.counters.env_steps:,} steps of meta-training"))
        print(printable(f"use: mlbits train lpg ENV --agent.rule {quote(str(flags.rule))}"))
        return 0
    if flags.onnx is None and flags.torchscript is None:
        raise MlbitsError("export: got no file to write; wanted --onnx FILE, --torchscript FILE or --rule FILE")
    from mlbits.evals.export import TOLERANCE, export_run

    report = export_run(flags.run, onnx=flags.onnx, torchscript=flags.torchscript)
    about = report["about"]
    for name, part in about["inputs"].items():
        print(printable(f"input {name}: {part['dtype']} [{', '.join(map(str, part['shape']))}]"))
    print(f"outputs: {', '.join(about['outputs'])}")
    for kind in ("onnx", "torchscript"):
        done = report[kind]
        if done is not None and done["checked"]:
            apart = f"largest difference {done['largest_difference']:.2g}, at most {TOLERANCE:g} is allowed"
            print(f"{kind}: {done['path']}; equal to the agent on 100 random observations ({apart})")
        elif done is not None:
            print(f'{kind}: {done["path"]}; not checked, as onnxruntime is not installed (pip install "mlbits[onnx]")')
    return 0
