"""The record of policies that were tried online: most offline scores are the best of many, and do not say of how many.

Learning from data is for where playing is dear or dangerous. A policy that was chosen among several by playing each has
used as many trials, and the best of several noisy returns is too high. So every evaluation of an offline run is noted
in its folder, by training (``--eval-online``) and by ``mlbits eval``: a line of ``tried_online.jsonl`` for each. A
policy is a run and a number of gradient steps; playing it again is no new trial.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE, CONFIG = "tried_online.jsonl", "config.json"


def note(folder: str | Path, by: str, evaluation: Mapping[str, Any]) -> None:
    """Note an evaluation of a run's policy.

    Args:
        folder: the run's folder.
        by: what played: "training" or "eval".
        evaluation: with env_steps (of the policy), return_mean and episodes.
    """
    line = {
        "env_steps": evaluation["env_steps"],
        "by": by,
        "return_mean": evaluation["return_mean"],
        "episodes": evaluation["episodes"],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    with (Path(folder) / FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")


def counted(folder: str | Path) -> dict[str, int]:
    """How many policies were tried online.

    Args:
        folder: the run's folder; the runs on the same dataset are those in the folders beside it.

    Returns:
        "policies_tried_online" of this run, "policies_tried_on_data" and "runs_on_data" of all runs on its dataset.
    """
    folder = Path(folder).resolve()
    wanted, tried, runs = _data_hash(folder), 0, 0
    for other in folder.parent.iterdir():
        if other == folder or (wanted and _data_hash(other) == wanted):
            tried, runs = tried + _policies(other), runs + 1
    return {"policies_tried_online": _policies(folder), "policies_tried_on_data": tried, "runs_on_data": runs}


def line(counts: Mapping[str, Any]) -> str:
    """The counts in words."""
    own, every, runs = (counts[name] for name in ("policies_tried_online", "policies_tried_on_data", "runs_on_data"))
    text = f"policies tried online: {own} of this run"
    if runs > 1:
        text += f", {every} of the {runs} runs on this data beside it"
    if every > 1:
        text += " (the best return of several is too high an estimate of its policy)"
    return text


def _policies(folder: Path) -> int:
    """Number of policies of a run that were tried."""
    try:
        lines = (folder / FILE).read_text().splitlines()
    except OSError:
        return 0
    steps = set()
    for text in lines:
        try:
            steps.add(int(json.loads(text)["env_steps"]))
        except (ValueError, KeyError, TypeError):  # a line cut by a kill
            continue
    return len(steps)


def _data_hash(folder: Path) -> str:
    try:
        return str(json.loads((folder / CONFIG).read_text())["run"].get("data_hash", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
