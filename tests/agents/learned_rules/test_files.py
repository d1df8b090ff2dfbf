"""Rules as files: they come back as they were, and whatever else a file may be is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mlbits.agents.agent import AgentError
from mlbits.agents.learned_rules import files
from mlbits.agents.learned_rules.card import card
from mlbits.agents.learned_rules.files import load_rule, save_rule
from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rule = LPGRule(RuleConfig(predictions=5, hidden=4, discount=0.97), seed=2)
    save_rule(tmp_path / "rule.safetensors", rule, learning_rate=40, alpha=0.5, about={"levels": "small", "seed": 2})
    return tmp_path / "rule.safetensors"


def test_a_rule_comes_back_as_it_was(path: Path) -> None:
    found, rule = load_rule(path), LPGRule(RuleConfig(predictions=5, hidden=4, discount=0.97), seed=2)
    assert found.rule.config == rule.config and (found.learning_rate, found.alpha) == (40, 0.5)
    assert found.about == {"levels": "small", "seed": 2} and len(found.digest) == 64
    assert all(torch.equal(value, found.rule.state_dict()[name]) for name, value in rule.state_dict().items())
    again = path.with_name("again.safetensors")
    save_rule(again, found.rule, learning_rate=40, alpha=0.5, about=found.about)
    assert load_rule(again).digest == found.digest


def test_the_shipped_rule_is_small_and_says_where_it_comes_from() -> None:
    found = load_rule("")
    assert files.SHIPPED.stat().st_size < 1_000_000
    assert found.about["levels"]["levels"] == "small" and found.about["levels"]["split"] == "train"
    assert found.about["env_steps"] > 0 and found.about["evaluation"]["rewards"]
    assert files.SHIPPED.with_suffix(".md").read_text() == card("lpg-small", found)


def test_a_card_says_what_the_file_does(path: Path) -> None:
    rewards = {f"{part}_reward{who}": 0.01 for part in ("final", "lifetime") for who in ("", "_a2c", "_random")}
    about = {
        "levels": {"levels": "medium", "split": "train", "numbers": [0, 1000], "lifetimes_ended": 12}, "seed": 3,
        "env_steps": 4000, "settings": {"copies": 16},
        "evaluation": {"rewards": rewards | {"final_reward": 0.034}, "return_interval": [0.02, 0.04], "episodes": 32},
    }  # fmt: skip
    save_rule(path, load_rule(path).rule, learning_rate=20, alpha=0.1, about=about)
    text = card("mine", load_rule(path))
    for part in ("# mine", "GRU of 4 units, 279 weights", "0 to 999", "| this rule | 0.0340 |", "0.0200 to 0.0400",
                 "| `copies` | `16` |", "learning rate 20, alpha 0.1", load_rule(path).digest):  # fmt: skip
        assert part in text, part
    save_rule(path, load_rule(path).rule, learning_rate=20, alpha=0.1, about={})
    assert "Results" not in card("mine", load_rule(path))


def changed(path: Path, tensors: dict[str, Any] | None = None, signed: bool = False, **metadata: str | None) -> Path:
    """The file with other metadata (None leaves a key out) or tensors; ``signed`` gives it its digest anew."""
    with safe_open(path, "pt") as file:
        kept, weights = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    kept = {key: value for key, value in {**kept, **metadata}.items() if value is not None}
    weights = {name: value for name, value in {**weights, **(tensors or {})}.items() if value is not None}
    if signed:
        kept["digest"] = files._digest({key: value for key, value in kept.items() if key != "digest"}, weights)
    save_file(weights, path, kept)
    return path


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sign": "descent"}, "is for agents with the sign 'descent'; wanted 'ascent'"),
        (
            {"predictions": "8"},
            r"embedding is torch.float32 \(5, 16\); wanted torch.float32 \(8, 16\) for 8 predictions",
        ),
        ({"hidden": "8"}, r"inputs is torch.float32 \(6, 12\); wanted torch.float32 \(6, 24\)"),
        ({"predictions": "many"}, "invalid literal"),
        ({"discount": "1.5"}, "discount: got 1.5; wanted"),
        ({"format": "mlbits-lpg-rule-9"}, "is no rule .*; wanted the format mlbits-lpg-rule-1"),
        ({"alpha": None}, "lacks alpha"),
        ({"learning_rate": "-1"}, "learning_rate is '-1'; wanted a number of at least 0"),
        ({"tensors": {"heads": torch.full((4, 6), torch.nan)}}, "heads has numbers that are not finite"),
        ({"tensors": {"heads": torch.zeros(4, 6).double()}}, "heads is torch.float64"),
        ({"tensors": {"more": torch.zeros(2)}}, "the tensor 'more' is not known"),
        ({"tensors": {"heads": None}}, "the tensor 'heads' is missing"),
    ],
)
def test_what_does_not_fit_is_named(path: Path, change: dict[str, Any], said: str, signed: bool) -> None:
    with pytest.raises(AgentError, match=rf"^rule: .*{said}"):
        load_rule(changed(path, signed=signed, **change))


@pytest.mark.parametrize(
    "change", [{"discount": "0.5"}, {"about": "{}"}, {"alpha": "0.25"}, {"tensors": {"heads": torch.zeros(4, 6)}}]
)
def test_another_content_does_not_have_the_digest(path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(AgentError, match="does not match its digest"):
        load_rule(changed(path, **change))
    load_rule(changed(path, signed=True, **change))


def test_a_file_that_is_none_is_named(path: Path) -> None:
    with pytest.raises(AgentError, match=r"rule: .*nowhere is not there; wanted"):
        load_rule(path.with_name("nowhere"))
    with pytest.raises(AgentError, match=r"rule: .* cannot be read \("):
        load_rule(path.parent)
    whole = path.read_bytes()
    for damaged in (whole[:200], b"", b"{}" * 50, whole[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(AgentError, match=r"rule: .* cannot be read \("):
            load_rule(path)
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(AgentError, match="has 104,857,600 bytes; wanted a rule"):
        load_rule(path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot be written"):
        save_rule(tmp_path / "no" / "rule", LPGRule(RuleConfig(hidden=2)), learning_rate=1, alpha=1, about={})
