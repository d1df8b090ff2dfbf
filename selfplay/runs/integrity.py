"""Whether a run, a checkpoint or a frozen copy is whole: what is damaged, and what can still be used.

Everything that is written with a digest is compared with it. Nothing is changed, and no agent is played: a run that is
being trained can be checked meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mlbits.agents.agent import content_hash
from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.curves.events import PREFIX, check_records
from mlbits.selfplay.league.opponents import POOL
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.checkpoints import MANIFEST, CheckpointError
from mlbits.selfplay.runs.folder import BEST, CHECKPOINTS, CONFIG, SUMMARY, read_settings
from mlbits.selfplay.runs.one_writer import writer_of
from mlbits.selfplay.runs.saved_agents import SUFFIX, copy_settings, read_copy

METRICS = "metrics.jsonl"


@dataclass
class Report:
    """What was found in a file or folder.

    Attributes:
        path: the file or folder.
        kind: what it is.
        damages: what is damaged, one line each; whole if there are none.
        notes: other lines for the reader: what was read, and leftovers of a kill, which do no harm.
        usable: what can still be used, in a line.
    """

    path: Path
    kind: str
    damages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    usable: str = ""

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages

    def text(self) -> str:
        """The report as lines of text."""
        lines = [f"{self.path}: {self.kind}, {'whole' if self.whole else 'DAMAGED'}"]
        lines += [f"  damaged: {line}" for line in self.damages] + [f"  {line}" for line in self.notes]
        return "\n".join([*lines, *([f"  {self.usable}"] if self.usable else [])])

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"path": str(self.path), "kind": self.kind, "whole": self.whole, "damages": self.damages,
                "notes": self.notes, "usable": self.usable}  # fmt: skip


def check_run(folder: Path) -> Report:
    """Check a run: its settings, checkpoints with the frozen copies that they need, curves and summary."""
    report = Report(folder, "run")
    facts: dict[str, Any] = {}
    try:
        plain = json.loads(json.dumps(read_settings(folder).to_json()))
        facts = {key: plain[key] for key in ("agent", "env", "agent_config", "env_settings")}
    except MlbitsError as error:
        report.damages.append(str(error))
    copies = _check_pool(folder, report)
    restorable = [path for path in checkpoints.found(folder / CHECKPOINTS) if _restorable(path, facts, copies, report)]
    for path in checkpoints.found(folder / BEST):
        _restorable(path, facts, None, report)
    _check_metrics(folder / METRICS, report)
    _check_events(folder, report)
    _check_summary(folder / SUMMARY, report)
    _note_leftovers(folder, report)
    if not facts:
        report.usable = "the settings are lost; the weights of its checkpoints can be read as safetensors"
    elif restorable:
        report.usable = f"usable: evaluation and resuming from {restorable[-1].name}"
    else:
        report.usable = "nothing to resume from: no whole checkpoint"
    return report


def check_checkpoint(folder: Path) -> Report:
    """Check one checkpoint by itself, without the frozen copies that it may name."""
    report = Report(folder, "checkpoint")
    _restorable(folder, {}, None, report)
    report.usable = "usable" if report.whole else ""
    return report


def check_copy(path: Path) -> Report:
    """Check a frozen copy's file."""
    report = Report(path, "frozen copy")
    _content_of(path, report)
    return report


def _content_of(path: Path, report: Report) -> str:
    """The content hash of a frozen copy; "" if it is damaged."""
    try:
        settings = copy_settings(path)
        found = content_hash(read_copy(path, settings.env, settings.env_settings))
    except (MlbitsError, LookupError, TypeError, ValueError) as error:
        report.damages.append(str(error) if isinstance(error, MlbitsError) else f"{path}: damaged: {error!r}")
        return ""
    report.usable = f"usable: {settings.agent} for {settings.env}"
    return found


def _check_pool(folder: Path, report: Report) -> dict[str, str]:
    """The content hash of each whole frozen copy by its file's name."""
    found = {path.name: _content_of(path, report) for path in sorted((folder / POOL).glob(f"*{SUFFIX}"))}
    whole = {name: content for name, content in found.items() if content}
    if found:
        report.notes.append(f"{len(whole)} frozen copies")
    return whole


def _restorable(path: Path, facts: Mapping[str, Any], copies: Mapping[str, str] | None, report: Report) -> bool:
    """Whether a checkpoint is whole, and so is every frozen copy that it names."""
    try:
        found = checkpoints.load(path, facts)
    except CheckpointError as error:
        report.damages.append(str(error))
        return False
    bad = [name for name, tensor in found.weights.items() if _is_nan(tensor)]
    if bad:
        report.damages.append(f"{path}: the weights {bad[0]!r} are not numbers (NaN)")
    wrong = [] if copies is None else _wrong_copies(found.state, copies)
    report.damages += [f"{path}: names the frozen copy {name}, which is missing or another one" for name in wrong]
    best = "best, " if path.parent.name == BEST else ""
    report.notes.append(
        f"{best}{path.name}: {found.state['env_steps']:,} steps, {len(found.weights)} tensors of weights"
    )
    return not bad and not wrong


def _is_nan(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().any())


def _wrong_copies(state: Mapping[str, Any], copies: Mapping[str, str]) -> list[str]:
    """The frozen copies that a checkpoint names and that are not in the pool as it names them."""
    met = state.get("opponents") or {}
    try:
        own = met[0] if isinstance(met, list) else met  # of a run in shards a list, the first with the copies of all
        named = {str(copy["file"]): copy["hash"] for copy in own.get("copies", ())}
    except (TypeError, KeyError, AttributeError):
        return ["in state.json"]
    return [name for name, content in named.items() if copies.get(name) != content]


def _check_metrics(path: Path, report: Report) -> None:
    """The curves: whole lines with a step; an incomplete last one is what a kill leaves."""
    if not path.exists():
        return
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        report.damages.append(f"{path}: cannot be read ({error.strerror})")
        return
    bad = [number for number, line in enumerate(lines, 1) if not _is_record(line)]
    if bad:
        report.damages.append(f"{path}: {len(bad)} of {len(lines):,} lines are no records, the first line {bad[0]}")
    if rest:
        report.notes.append(f"{path.name}: the last line is incomplete; resuming drops it")
    report.notes.append(f"{path.name}: {len(lines) - len(bad):,} records")


def _check_events(folder: Path, report: Report) -> None:
    """TensorBoard's files: checksums of their records; a cut end is what a kill or a power loss leaves."""
    found, records = sorted(folder.glob(f"{PREFIX}*")), 0
    for path in found:
        try:
            file = check_records(path)
        except OSError as error:
            report.damages.append(f"{path}: cannot be read ({error.strerror})")
            continue
        records += file.whole
        if file.damaged:
            report.damages.append(
                f"{path}: the checksum of record {file.whole + 1:,} is wrong; TensorBoard shows what comes before it, "
                f"{METRICS} has the same numbers"
            )
        elif file.rest:
            report.notes.append(f"{path.name}: the last record is incomplete; TensorBoard leaves it out")
    if found:
        report.notes.append(f"TensorBoard: {records:,} records in {len(found)} files")


def _is_record(line: bytes) -> bool:
    try:
        row = json.loads(line)
        return isinstance(row, dict) and isinstance(row["env_steps"], int)
    except (ValueError, KeyError, RecursionError):
        return False


def _check_summary(path: Path, report: Report) -> None:
    try:
        if not isinstance(json.loads(path.read_bytes())["env_steps"], int):
            raise ValueError("env_steps is not a whole number")
        report.notes.append("finished: it has a summary")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        report.damages.append(f"{path}: damaged ({error!r:.80}); resuming writes it again")


def _note_leftovers(folder: Path, report: Report) -> None:
    """What a kill leaves; the next save deletes it. And whether the run is being written now."""
    for path in [
        *folder.glob("**/.*.tmp"),
        *folder.glob(f"{CHECKPOINTS}/step-*.old"),
        *folder.glob(f"{BEST}/step-*.old"),
    ]:
        report.notes.append(f"{path.relative_to(folder)}: left by an interrupted save; the next one deletes it")
    if writer := writer_of(folder):
        report.notes.append(f"{writer} is writing it")


def kind_of(path: Path) -> str:
    """What a path is, as far as this module knows it: "run", "checkpoint", "frozen copy", or ""."""
    if (path / CONFIG).exists() or (path / CHECKPOINTS).is_dir():
        return "run"
    if (path / MANIFEST).exists() or path.name.startswith("step-"):
        return "checkpoint"
    return "frozen copy" if path.suffix == SUFFIX else ""


CHECKS = {"run": check_run, "checkpoint": check_checkpoint, "frozen copy": check_copy}
