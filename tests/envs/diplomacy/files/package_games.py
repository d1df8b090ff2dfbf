"""Generates sample games with the PyPI package ``diplomacy``: random orders with many conflicts.

``python -m tests.envs.diplomacy.files.package_games FILE`` writes the games of SAMPLE, one per line;
``package_games.jsonl.gz`` is that file, written by version 1.1.2 and gzipped. They were chosen for the situations in
them (see the tests).
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

# (seed, phases to play, how it ends: orders given but not carried out, a draw, or nothing)
SAMPLE = ((256, 12, "orders"), (287, 17, "orders"), (300, 6, "draw"))


def orders_of(game: Any, rng: random.Random) -> dict[str, list[str]]:
    """Orders by power: mostly attacks, with supports and convoys of ordered moves; some powers have none."""
    possible, kind = game.get_all_possible_orders(), game.get_current_phase()[-1]
    places = [(power, place) for power, own in game.get_orderable_locations().items() for place in own]
    orders: dict[str, list[str]] = {}
    if kind != "M":
        idle = {power for power in sorted({power for power, _ in places}) if rng.random() < 0.12}
        for power, place in places:
            choices = sorted(possible[place])
            retreats = [text for text in choices if " R " in text]
            choices = retreats if retreats and rng.random() < 0.85 else choices
            if power not in idle and choices and rng.random() < 0.93:
                orders.setdefault(power, []).append(rng.choice(choices))
        for power in sorted(orders):
            if kind == "A" and rng.random() < 0.2:
                orders[power].insert(0, "WAIVE")
        return orders
    rng.shuffle(places)
    standing, moves = {place[:3] for _, place in places}, set()
    for power, place in places:
        choices, draw = sorted(possible[place]), rng.random()
        own = [text for text in choices if " - " in text and " S " not in text and " C " not in text]
        kinds = [
            (0.8, [text for text in choices if " C " in text and text.split(" C ")[1] in moves]),
            (0.5, [text for text in choices if " S " in text and text.split(" S ")[1] in moves]),
            (0.6, [text for text in choices if " S " in text and " - " not in text]),
            (0.75, [text for text in own if text.endswith("VIA")]),
            (0.9, [text for text in own if text.split(" - ")[1][:3] in standing]),
            (0.97, own),
        ]
        text = rng.choice(next((some for bound, some in kinds if some and draw < bound), choices))
        orders.setdefault(power, []).append(text)
        if text in own:
            moves.add(text.removesuffix(" VIA"))
    return {power: texts for power, texts in orders.items() if rng.random() < 0.97}


def play(seed: int, phases: int, end: str = "", rules: list[str] | None = None) -> dict[str, Any]:
    """A game with the given number of phases, as the package writes it."""
    from diplomacy import Game  # type: ignore[import-not-found]
    from diplomacy.utils.export import to_saved_game_format  # type: ignore[import-not-found]

    rng = random.Random(seed)
    game = Game(game_id=f"package-{seed}", **({} if rules is None else {"rules": rules}))
    for number in range(phases + (end == "orders")):
        if game.is_game_done:
            break
        for power, texts in orders_of(game, rng).items():
            game.set_orders(power, texts)
        if number < phases:
            game.process()
    if end == "draw" and not game.is_game_done:
        game.draw()
    return json.loads(json.dumps(to_saved_game_format(game)))  # type: ignore[no-any-return]


if __name__ == "__main__":
    with Path(sys.argv[1]).open("w", encoding="utf-8") as file:
        for seed, phases, end in SAMPLE:
            file.write(json.dumps(play(seed, phases, end)) + "\n")
