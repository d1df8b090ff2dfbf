"""Reading the file of a rule: what is refused, and why; nothing is unpickled."""

import numpy as np
import pytest
import torch

from mlbits.agents.agent import AgentError
from mlbits.agents.disco import rule_file
from mlbits.agents.disco.rule_file import SHAPES, parse_rule, read_rule
from tests.agents.disco.made_up import arrays, as_bytes


def test_the_shapes_are_those_of_the_published_file():
    assert len(SHAPES) == 42
    assert sum(int(np.prod(shape)) for shape in SHAPES.values()) == 754_778
    assert SHAPES["lstm/lstm/linear/w"] == (283, 1024)  # 27 inputs and 256 units; four gates of 256
    assert SHAPES["lstm/~/meta_lstm/~unroll/lstm/linear/w"] == (144, 512)
    assert SHAPES["lstm/sequential_1/conv1_d/w"] == (1, 516, 16)


def test_a_file_with_the_right_digest_is_read(rule):
    found = read_rule(str(rule))
    assert found.keys() == SHAPES.keys()
    for name, wanted in arrays().items():
        assert torch.equal(found[name], torch.from_numpy(wanted))


@pytest.mark.parametrize("path", ["", "nowhere/disco_103.npz", "."])
def test_without_the_file_one_line_says_what_it_is_and_where_it_is_published(path):
    with pytest.raises(AgentError) as caught:
        read_rule(path)
    said = str(caught.value)
    assert said.startswith("rule: missing" if path == "" else f"rule: got '{path}'")
    for part in ("disco_103.npz", "google-deepmind/disco_rl", rule_file.SHA256, "2,803,507 bytes", "Nature 2025"):
        assert part in said
    assert "\n" not in said


def test_another_file_is_refused_by_its_digest_before_it_is_opened(rule, monkeypatch):
    data = rule.read_bytes()
    monkeypatch.setattr(rule_file, "parse_rule", lambda data: pytest.fail("it was opened"))
    rule.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(AgentError, match=rf"^rule: got .*{len(data):,} bytes with SHA-256 .*wanted disco_103.npz"):
        read_rule(str(rule))
    rule.write_bytes(data + b"more")  # no more than its size and a byte is read
    with pytest.raises(AgentError, match=f"more than {len(data):,} bytes"):
        read_rule(str(rule))


def test_wrong_arrays_are_refused_by_name():
    good = arrays()
    name = "lstm/linear_2/w"
    changes = {
        "lstm/linear_2/w: got float32 \\[256, 30\\]; wanted float32 \\[256, 600\\]": {name: good[name][:, :30]},
        "lstm/linear_2/w: got float64": {name: good[name].astype(np.float64)},
        "lstm/linear_2/w: got a number that is not finite": {name: good[name] * np.nan},
        "other/w is not part of a rule": {"other/w": np.zeros(3, np.float32)},
        "no archive of arrays": {name: np.array([{"an": "object"}], object)},  # pickled
        "unpacks to": {"other/w": np.zeros((2000, 1000), np.float32)},
    }
    for said, change in changes.items():
        with pytest.raises(AgentError, match=f"^rule: {said}"):
            parse_rule(as_bytes({**good, **change}))
    del good[name]
    with pytest.raises(AgentError, match=r"^rule: lstm/linear_2/w is missing; wanted the 42 arrays"):
        parse_rule(as_bytes(good))


@pytest.mark.parametrize("keep", [0, 10, 1000, -30])
def test_damaged_archives_are_refused(keep):
    with pytest.raises(AgentError, match=r"^rule: "):
        parse_rule(as_bytes(arrays())[:keep])
