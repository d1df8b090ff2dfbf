"""The address on which TensorBoard opens: which curves are pinned, and how they are written."""

import json
from urllib.parse import parse_qs, urlsplit

from mlbits.evals.board.links import address, tags_to_pin


def test_the_pinned_curves_are_a_list_of_cards_in_json():
    parts = urlsplit(address(6007, ["return/eval", "selfplay/exploitability_agent"]))
    assert (parts.netloc, parts.path, parts.fragment) == ("localhost:6007", "/", "timeseries")
    assert not set(parts.query) & set('"[]{} /'), "an address as terminals and browsers take it"
    query = parse_qs(parts.query)
    assert query["smoothing"] == ["0"]
    assert json.loads(query["pinnedCards"][0]) == [
        {"plugin": "scalars", "tag": "return/eval"},
        {"plugin": "scalars", "tag": "selfplay/exploitability_agent"},
    ]
    assert "tagFilter" not in parts.query  # with it TensorBoard hides what is pinned


def test_without_a_curve_nothing_is_pinned():
    assert address(6006, []) == "http://localhost:6006/?smoothing=0#timeseries"


def test_the_most_important_two_are_pinned_by_tensorboards_names():
    common = ["learn/entropy", "return/train", "return/eval", "speed/steps_per_second"]
    assert tags_to_pin(common) == ["return/eval", "return/train"]
    assert tags_to_pin([*common, "exploitability/agent"]) == ["selfplay/exploitability_agent", "return/eval"]
    assert tags_to_pin(["learn/loss"]) == []
