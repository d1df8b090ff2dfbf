"""The tables of settings in the docs are those of the configs, and flags show the same help."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from mlbits.agents import AGENTS
from mlbits.selfplay.runs.config import RunConfig
from mlbits.selfplay.runs.flags import parse_train

DOCS = Path(__file__).resolve().parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import settings_tables  # noqa: E402

sys.path.remove(str(DOCS))
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
BLOCKS = [block for text in TEXTS.values() for block in settings_tables.blocks(text)]


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if settings_tables.blocks(text)])
def test_tables_are_as_the_configs_have_them(name):
    assert settings_tables.written(TEXTS[name]) == TEXTS[name], "run: python docs/settings_tables.py"


def test_every_setting_of_a_run_and_an_agent_stands_in_a_table():
    runs = [block.partition(";")[2] for block in BLOCKS if block.startswith("run;")]
    listed = [name.strip() for names in runs for name in names.split(",")]
    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(RunConfig))
    in_tables = {name for block in BLOCKS for name in block.partition(";")[0].split()}
    assert {name for name, entry in AGENTS.items() if dataclasses.fields(entry.config_class())} <= in_tables


def test_a_table_has_a_row_for_each_setting_with_default_range_and_meaning():
    lines = settings_tables.table("dqn").splitlines()
    assert lines[0] == "| setting | default | range | meaning |"
    assert "| `buffer_size` | `100_000` | at least 1 | transitions kept in the replay buffer |" in lines
    assert any(line.startswith('| `head` | `"value"` | `"value"`, `"categorical"`, `"quantile"` | ') for line in lines)
    assert settings_tables.table("run; pool_fraction").count("\n") == 2
    with pytest.raises(ValueError, match="got pool_share; wanted some of total_steps"):
        settings_tables.table("run; pool_share")


def test_several_agents_have_one_table_with_what_each_means():
    rows = {line.split("|")[1].strip(): line for line in settings_tables.table("sb3-a2c sb3-sac").splitlines()}
    assert rows["`n_steps`"].startswith("| `n_steps` | `5` | | ")
    assert "weight of the entropy bonus. `sb3-sac`: weight of the entropy: auto learns it" in rows["`ent_coef`"]


def test_flags_show_the_help_of_the_settings(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        parse_train(["dqn", "CartPole-v1", "--help"])
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert (
        "--agent.learning-starts INT transitions played at random before learning begins; at least 0 (default: 1000)"
        in said
    )
    assert "--agent.discount FLOAT discount factor, gamma; 0 to 1 (default: 0.99)" in said
    assert "--pool-fraction FLOAT fraction of the copies with one seat for the learner" in said
    assert not re.search(r"\b(whom|alike|share|turn about|told|can tell)\b", said)
