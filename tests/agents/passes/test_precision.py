"""DDPG's precision "auto": bfloat16 if the processor is fast at it; the choice is printed and recorded."""

import json
import platform
from pathlib import Path

import pytest

from mlbits.agents.ddpg import DDPG, DDPGConfig
from mlbits.agents.passes import precision as networks_precision
from mlbits.envs.control.pendulum import pendulum
from mlbits.envs.engine import processor
from mlbits.selfplay.runs.config import presets, resolve
from mlbits.selfplay.training import resume, train

ENV = "mlbits/Pendulum-v0"
RUN = {"total_steps": 40, "num_envs": 2, "eval_episodes": 1, "video": False, "device": "cpu"}
SMALL = {"hidden": (8, 8), "num_steps": 4, "learning_starts": 8, "batch_size": 4, "buffer_size": 100}


def settings(**agent):
    return resolve("ddpg", ENV, preset="none", run=RUN, agent_settings={**SMALL, **agent})


@pytest.fixture
def fast(monkeypatch):
    """A function that sets whether the processor counts as fast at bfloat16."""

    def set_fast(value):
        monkeypatch.setattr(networks_precision, "has_fast_bfloat16", lambda: value)

    return set_fast


@pytest.mark.parametrize(("value", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_auto_chooses_the_fast_precision(fast, value, chosen):
    fast(value)
    config, note = DDPGConfig(precision="auto").settled("cpu")
    assert config.precision == chosen
    assert note.startswith(f"precision {chosen}: this processor ({processor.describe().name}) ")
    assert ("AVX512-BF16" in note) == (not value)
    game = pendulum()
    agent = DDPG(DDPGConfig(precision="auto", hidden=(8, 8)), game.observation_space, game.action_space)
    assert agent.config.precision == chosen
    assert agent.precision == chosen


def test_an_explicit_precision_is_kept_with_a_warning_if_slow(fast):
    fast(False)
    config = DDPGConfig(precision="bfloat16")
    same, note = config.settled("cpu")
    assert same == config
    assert note.startswith("warning: precision bfloat16: ")
    assert DDPGConfig(precision="float32").settled("cpu") == (DDPGConfig(precision="float32"), "")
    fast(True)
    assert config.settled("cpu") == (config, "")


def test_every_preset_of_ddpg_and_sac_has_precision_auto():
    for agent in ("ddpg", "sac"):
        assert {name: values["agent"]["precision"] for name, values in presets()[agent].items()} == dict.fromkeys(
            presets()[agent], "auto"
        )
    for agent, envs in presets().items():
        for values in envs.values():
            assert agent in ("ddpg", "sac") or "precision" not in values.get("agent", {})


def test_a_run_records_the_chosen_precision_and_keeps_it(fast, tmp_path, capsys):
    fast(True)
    folder, _ = train(settings(precision="auto"), tmp_path / "run")
    assert "precision bfloat16: this processor" in capsys.readouterr().out
    recorded = json.loads((folder / "config.json").read_text())["agent_config"]["precision"]
    assert recorded == "bfloat16"
    fast(False)  # the same run on another machine
    resume(folder, total_steps=80)
    assert "warning: precision bfloat16: this processor" in capsys.readouterr().out
    assert json.loads((folder / "config.json").read_text())["agent_config"]["precision"] == "bfloat16"


def test_the_detected_processor_features_agree_with_its_flags(monkeypatch):
    """Linux lists a processor's features; on other systems, and on ARM, there is nothing to compare with."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        assert processor.describe().isa
        return
    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    processor.describe.cache_clear()
    assert processor.has_fast_bfloat16() == ("avx512_bf16" in flags or "amx_bf16" in flags)
