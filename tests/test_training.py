"""Training from Python is the command's: the same settings, the same records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mlbits
from mlbits.cli import main
from mlbits.selfplay.runs.config import ConfigError

GRID = "mlbits/GridWorld-v0"
RUN = {"total_steps": 64, "num_envs": 4, "seed": 5, "eval_every": 0, "eval_episodes": 2, "device": "cpu"}
AGENT = {"num_steps": 16, "hidden": (4,), "minibatches": 1}
ENV = {"map": "S.G", "horizon": 9}


def python(out: Path, **more: Any) -> Path:
    settings = {"agent_settings": AGENT, "env_settings": ENV}
    return mlbits.train("ppo", GRID, out=out, preset="none", console=False, **settings, **RUN, **more)[0]


def pictures(folder: Path) -> set[str]:
    return set(EventAccumulator(str(folder)).Reload().Tags()["images"])


def test_both_doors_draw_policies_unless_told_not_to(tmp_path: Path) -> None:
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in RUN.items())
    agent = "--agent.num-steps 16 --agent.hidden 4 --agent.minibatches 1 --env.map S.G --env.horizon 9"
    by_command, by_python = tmp_path / "command", python(tmp_path / "python")
    words = f"train ppo {GRID} --preset none --quiet {flags} {agent} --out {by_command}".split()
    assert main(words) == 0
    assert {"view/policy_learned", "view/policy_exact"} <= pictures(by_python) == pictures(by_command)
    assert not {"view/policy_learned", "view/policy_exact"} & pictures(python(tmp_path / "plain", measure=None))
    kept = [json.loads((folder / "config.json").read_text()) for folder in (by_command, by_python)]
    assert {**kept[0], "started": ""} == {**kept[1], "started": ""}
    weights = [
        load_file(next((folder / "checkpoints").glob("*")) / "weights.safetensors")
        for folder in (by_command, by_python)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == value).all() for name, value in weights[1].items())


def test_going_on_draws_them_too(tmp_path: Path) -> None:
    folder = python(tmp_path / "run", measure=None)
    assert "view/policy_learned" not in pictures(folder)
    again, summary = mlbits.resume(folder, total_steps=128, console=False)
    assert (again, summary["env_steps"]) == (folder, 128)
    assert "view/policy_learned" in pictures(folder)


def test_a_setting_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.total_step: unknown setting; did you mean 'total_steps'"):
        mlbits.train("ppo", GRID, out=tmp_path / "run", total_step=3)
    with pytest.raises(AttributeError, match="module 'mlbits' has no attribute 'trian'"):
        _ = mlbits.trian  # type: ignore[attr-defined]
