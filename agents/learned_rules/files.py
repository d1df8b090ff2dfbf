"""Rules as files: safetensors with the weights, and in the metadata what they are and how they came about.

| key | what it holds |
|---|---|
| format | "mlbits-lpg-rule-1" |
| predictions, hidden, discount | m, H and gamma, as in :class:`~mlbits.agents.learned_rules.rule.RuleConfig` |
| sign | "ascent": agents ascend log pi * pi_hat (a rule of the other convention has it flipped) |
| learning_rate, alpha | of tabular agents, as the bandit came to prefer them |
| about | JSON: levels and their numbers, settings of meta-training, steps, results |
| digest | SHA-256 of all of the above and of the weights |

Nothing is pickled. A file is checked whole before a number of it is used.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig
    >>> path = Path(tempfile.mkdtemp()) / "rule.safetensors"
    >>> save_rule(path, LPGRule(RuleConfig(hidden=4)), learning_rate=40.0, alpha=0.5, about={"levels": "small"})
    >>> load_rule(path).rule.config.hidden
    4
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.agents.learned_rules.rule import SIGN, LPGRule, RuleConfig, shapes_of
from mlbits.envs.core.plain_json import read_json

FORMAT = "mlbits-lpg-rule-1"
SHIPPED = Path(__file__).with_name("shipped") / "lpg-small.safetensors"
_LARGEST = 64 * 2**20  # bytes
_KEYS = ("format", "predictions", "hidden", "discount", "sign", "learning_rate", "alpha", "about", "digest")


class SavedRule(NamedTuple):
    """A rule from a file.

    Attributes:
        rule: the rule.
        learning_rate: of tabular agents, by gradient ascent on a mean over all steps of a rollout.
        alpha: weight of the prediction's loss.
        about: where it comes from, as plain data.
        digest: of the file's content, 64 hexadecimal digits.
    """

    rule: LPGRule
    learning_rate: float
    alpha: float
    about: Mapping[str, Any]
    digest: str


def save_rule(path: Path, rule: LPGRule, *, learning_rate: float, alpha: float, about: Mapping[str, Any]) -> None:
    """Write a rule; the file is whole or absent.

    Args:
        path: the file.
        rule: the rule.
        learning_rate: that suits agents with a table.
        alpha: weight of the prediction's loss that suits them.
        about: plain data to keep with it.

    Raises:
        AgentError: if it cannot be written.
    """
    config = rule.config
    metadata = {"format": FORMAT, "predictions": str(config.predictions), "hidden": str(config.hidden),
                "discount": repr(config.discount), "sign": SIGN, "learning_rate": repr(float(learning_rate)),
                "alpha": repr(float(alpha)), "about": json.dumps(about, sort_keys=True)}  # fmt: skip
    tensors = {name: value.detach().cpu().contiguous() for name, value in rule.state_dict().items()}
    data = save(tensors, metadata | {"digest": _digest(metadata, tensors)})
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise AgentError(f"rule: {path} cannot be written ({error.strerror}); wanted a writable file") from None


def load_rule(path: str | Path) -> SavedRule:
    """Read a rule.

    Args:
        path: a file that :func:`save_rule` wrote; "" for the rule that comes with mlbits.

    Raises:
        AgentError: naming what is wrong: no such file, not a rule, another sign convention, shapes that do not fit its
            number of predictions, a digest that its content does not have.
    """
    path = SHIPPED if str(path) == "" else Path(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise AgentError(f"rule: {path} has {path.stat().st_size:,} bytes; wanted a rule, which is smaller")
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise AgentError(f"rule: {path} is not there; wanted a file that mlbits meta-train wrote") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise AgentError(f"rule: {path} cannot be read ({error}); wanted a file that mlbits meta-train wrote") from None
    if metadata.get("format") != FORMAT:
        raise AgentError(f"rule: {path} is no rule ({metadata.get('format')!r:.80}); wanted the format {FORMAT}")
    if missing := [key for key in _KEYS if key not in metadata]:
        raise AgentError(f"rule: {path} lacks {missing[0]}; wanted a file that mlbits meta-train wrote")
    if metadata["sign"] != SIGN:
        raise AgentError(
            f"rule: {path} is for agents with the sign {metadata['sign']!r:.40}; wanted {SIGN!r}, as the agents here "
            "ascend log pi * pi_hat"
        )
    rule, numbers = _rule(path, metadata, tensors), _numbers(path, metadata)
    content = {key: value for key, value in metadata.items() if key in _KEYS and key != "digest"}
    if _digest(content, tensors) != metadata["digest"]:
        raise AgentError(f"rule: {path} does not match its digest; wanted the file as it was written")
    try:
        about = read_json(metadata["about"])
    except (ValueError, RecursionError) as error:
        raise AgentError(f"rule: {path}: its description is damaged ({error})") from None
    if not isinstance(about, dict):
        raise AgentError(f"rule: {path}: its description is {about!r:.60}; wanted a table")
    return SavedRule(rule, *numbers, about, metadata["digest"])


def _rule(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> LPGRule:
    """The rule of the declared shape with these weights."""
    try:
        config = RuleConfig(predictions=int(metadata["predictions"]), hidden=int(metadata["hidden"]),
                            discount=float(metadata["discount"]))  # fmt: skip
    except ValueError as error:  # an AgentError is one
        raise AgentError(f"rule: {path}: {error}") from None
    with torch.device("meta"):
        wanted = shapes_of(config)
    if set(tensors) != set(wanted):
        odd = sorted(set(tensors) ^ set(wanted))[0]
        raise AgentError(f"rule: {path}: the tensor {odd!r:.60} is {'missing' if odd in wanted else 'not known'}")
    for name, shape in wanted.items():
        got = tensors[name]
        if got.shape != shape or got.dtype != torch.float32:
            raise AgentError(
                f"rule: {path}: {name} is {got.dtype} {tuple(got.shape)}; wanted torch.float32 {tuple(shape)} for "
                f"{config.predictions} predictions and {config.hidden} hidden units"
            )
        if not bool(got.isfinite().all()):
            raise AgentError(f"rule: {path}: {name} has numbers that are not finite")
    rule = LPGRule(config)
    rule.load_state_dict(dict(tensors))
    return rule


def _numbers(path: Path, metadata: Mapping[str, str]) -> tuple[float, float]:
    found = []
    for key in ("learning_rate", "alpha"):
        try:
            value = float(metadata[key])
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise AgentError(f"rule: {path}: {key} is {metadata[key]!r:.40}; wanted a number of at least 0")
        found.append(value)
    return found[0], found[1]


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()
