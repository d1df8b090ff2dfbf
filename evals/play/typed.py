"""What a person types, read as an action: a name, numbers, one word for each part, or Diplomacy's orders.

Orders are read in standard notation (:mod:`mlbits.envs.diplomacy.order_parser`), one or several at a time; what is
ordered already is kept by whoever asks, until all is sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from mlbits.evals.play.config import PlayError
from mlbits.evals.play.match import Match
from mlbits.evals.play.moves import read_name, shortened
from mlbits.evals.replays.decisions import Slot

_SHOWN = 12  # names in an error
_COAST = re.compile(r"/[A-Z]C$")
_WAIVE = "WAIVE"  # the only order that several may have in common


def takes_orders(match: Match) -> bool:
    """Whether a person gives several named decisions, one after another, before the move is played."""
    game = match.words.game
    return game is not None and game.decisions is not None


def read_action(match: Match, seat: int, text: str) -> list[float]:
    """The action that a person typed, as :meth:`~mlbits.evals.play.match.Match.choose` takes it.

    Raises:
        PlayError: for what is unknown or illegal now, with what is wanted.
    """
    if match.batch.action.kind == "continuous":
        return _numbers(match, text)
    slots = match.slots(seat)
    moves = match.words.moves
    if moves is not None:
        return [moves.read(match.words.record()[0], seat, text, list(slots[0].names))]
    words = [text] if len(slots) == 1 else [word for word in re.split(r"[\s,;]+", text) if word]
    if len(words) != len(slots):
        raise PlayError(f"got {len(words)} words; wanted {len(slots)}, one for each part: {wanted(match, seat)}")
    return [read_name(word, slot.names, list(slot.names), _some(slot)) for word, slot in zip(words, slots, strict=True)]


def read_orders(match: Match, seat: int, text: str, given: Mapping[int, int]) -> dict[int, int]:
    """The orders that a person typed, with commas between them.

    Args:
        match: a game of orders.
        seat: the person's.
        text: one order or several.
        given: what is ordered already, by slot.

    Returns:
        The number of the order of each slot that has one now.

    Raises:
        PlayError: for what is no order, or not legal now, with why; then none of them is given.
    """
    orders = dict(given)
    for part in re.split(r"[,;]", text):
        if part.strip():
            slot, choice = _order(match, seat, part.strip(), orders)
            orders[slot] = choice
    return orders


def wanted(match: Match, seat: int) -> str:
    """What a person may type now, in a few words."""
    layout = match.batch.action
    if layout.kind == "continuous":
        bounds = [f"{low:g} to {high:g}" for low, high in zip(layout.low, layout.high, strict=True)]
        if len(set(bounds)) == 1:
            return f"{len(bounds)} number{'s' * (len(bounds) > 1)} from {bounds[0]}"
        return f"{len(bounds)} numbers: {', '.join(bounds)}"
    slots = match.slots(seat)
    if match.words.moves is not None:
        return match.words.moves.some(match.words.record()[0], seat, list(slots[0].names), 3)
    return "; ".join(f"{slot.heading}: {_some(slot, 3)}" if slot.heading else _some(slot, 3) for slot in slots[:4])


def _numbers(match: Match, text: str) -> list[float]:
    layout = match.batch.action
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise PlayError(f"got {shortened(text)!r}; wanted {wanted(match, 0)}, or help") from None
    bounds = zip(numbers, layout.low, layout.high, strict=False)
    if len(numbers) != len(layout.low) or not all(math.isfinite(n) and low <= n <= high for n, low, high in bounds):
        raise PlayError(f"got {shortened(text)}; wanted {wanted(match, 0)}")
    return numbers


def _order(match: Match, seat: int, text: str, given: Mapping[int, int]) -> tuple[int, int]:
    """The slot and the number of one order."""
    from mlbits.envs.diplomacy.order_parser import NotationError, order_text, parse_order
    from mlbits.envs.diplomacy.order_reasons import why_illegal
    from mlbits.envs.diplomacy.records import read_position

    assert match.words.game is not None
    board = match.words.game.layout["board"]
    position = read_position(match.words.record()[0], board)
    try:
        order = parse_order(text, board, position)
    except NotationError as error:
        raise PlayError(str(error)) from None
    name = order_text(order, board, position)
    slots = match.slots(seat)
    # A support of a move to a coast may be known by its province.
    for known in (name, _COAST.sub("", name)):
        able = {k: choice for k, slot in enumerate(slots) for choice, own in slot.names.items() if own == known}
        if not able:
            continue
        unordered = [k for k in able if k not in given]
        same = [k for k, choice in able.items() if given.get(k) == choice]
        if same and (known != _WAIVE or not unordered):
            return same[0], able[same[0]]
        waived = [k for k in able if k in given and slots[k].names[given[k]] == _WAIVE]
        slot = [*unordered, *waived, *able][0]
        return slot, able[slot]
    why = why_illegal(position, seat, order) or f"there is nothing to {'order' if slots else 'decide'} so now"
    raise PlayError(f"{name}: {why}; 'moves' lists what is legal")


def _some(slot: Slot, most: int = _SHOWN) -> str:
    names = list(slot.names.values())
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
