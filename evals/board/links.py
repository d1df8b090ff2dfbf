"""The address at which TensorBoard opens on the returns.

Its first page sorts curves by name and pins none. What is pinned can be said in the address: a list of cards, in JSON.

Example:
    >>> address(6006, ["return/eval"])
    'http://localhost:6006/?pinnedCards=%5B%7B%22plugin%22%3A%22scalars%22%2C%22tag%22%3A%22return%2Feval%22%7D%5D&smoothing=0#timeseries'
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from mlbits.selfplay.curves.tracking import tensorboard_tag

PORT = 6006  # TensorBoard's own
# What says most about a run, most important first: self-play's mean return is the same however well both sides play.
_IMPORTANT = ("exploitability/agent", "return/eval", "return/train", "rating/elo")
_MOST = 2  # cards stand two in a row


def tags_to_pin(curves: Iterable[str]) -> list[str]:
    """TensorBoard's names of the curves to pin, at most two.

    Args:
        curves: the names of the curves that there are, as in metrics.jsonl.
    """
    known = set(curves)
    return [tensorboard_tag(name) for name in _IMPORTANT if name in known][:_MOST]


def address(port: int, tags: Sequence[str], host: str = "localhost") -> str:
    """The address of a TensorBoard, with curves pinned above the others, drawn as they are.

    Args:
        port: its port.
        tags: TensorBoard's names of the curves.
        host: its machine.
    """
    cards = json.dumps([{"plugin": "scalars", "tag": tag} for tag in tags], separators=(",", ":"))
    pinned = f"pinnedCards={quote(cards, safe='')}&" if tags else ""
    return f"http://{host}:{port}/?{pinned}smoothing=0#timeseries"
