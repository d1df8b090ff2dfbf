"""Draw every registered environment into ``docs/pictures``: ``python docs/pictures.py``.

``<name>.png`` shows one copy after a few random steps. ``policy_overlay.png`` is GridWorld with the value of
each cell as a heat map and its best moves as arrows, by value iteration (Bellman 1957) on its own rules.
``diplomacy_orders.png`` is a made-up second phase of Diplomacy with every kind of order to move.
``supervised_vs_rl.png``, ``overestimation.png``, ``fictitious_play.png``, ``similarity.png``, ``dvd.png``,
``map-elites.png`` and ``noisy_tv.png`` draw the results that lie beside them, which
``mlbits reproduce supervised-vs-rl --json docs/pictures/supervised_vs_rl.json`` and the like measured in some minutes;
``tournament.png`` the payoffs that a tournament wrote (``docs/tournaments.md``).
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import mlbits
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.drawing.board_image import draw_position
from mlbits.envs.diplomacy.files.replay_page import frames_of
from mlbits.envs.diplomacy.files.saved_games import GameRecord
from mlbits.envs.diplomacy.position import Position, first_position
from mlbits.envs.diplomacy.report import adjudicate
from mlbits.evals.policy_maps import exact_picture
from mlbits.evals.reproductions import fictitious_self_play, similarity, supervised_vs_rl
from mlbits.evals.reproductions.diversity import dvd, map_elites
from mlbits.evals.reproductions.exploration import noisy_tv
from mlbits.evals.reproductions.value_learning import overestimation
from mlbits.evals.tournament.payoff_heat_map import payoff_heat_map

FOLDER = Path(__file__).parent / "pictures"
STEPS, SEED = 5, 1
LONGER = {  # boards with more to see
    "mlbits/ConnectFour-v0": 18, "mlbits/Othello-v0": 24, "mlbits/Hex-v0": 40, "mlbits/Go-v0": 46,
    "mlbits/Chess-v0": 30,
}  # fmt: skip
DISCOUNT = 0.95
AUTUMN = {
    "AUSTRIA": ["A SER S F ALB - GRE", "F ALB - GRE", "A VIE H"],
    "ENGLAND": ["F NTH C A YOR - NWY", "A YOR - NWY VIA", "F LON - ENG"],
    "FRANCE": ["A BUR H", "A MAR - SPA", "F BRE - ENG"],
    "GERMANY": ["A RUH S A MUN - BUR", "F DEN - SWE", "A MUN - BUR"],
    "ITALY": ["F ION C A APU - TUN", "A APU - TUN VIA", "A PIE - MAR"],
    "RUSSIA": ["F BOT - SWE", "A UKR - RUM", "F SEV S A UKR - RUM", "A WAR - GAL"],
    "TURKEY": ["A BUL - GRE", "A CON - BUL", "F ANK - BLA"],
}
COLOURS = 64


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    for env_id in mlbits.registered():
        write(env_id.partition("/")[2].rpartition("-v")[0], after_a_few_steps(env_id))
    game = mlbits.make_game("mlbits/GridWorld-v0")
    write("policy_overlay", exact_picture(game, DISCOUNT))
    write("diplomacy_orders", diplomacy_orders())
    write("supervised_vs_rl", curves("supervised_vs_rl", supervised_vs_rl.draw))
    write("overestimation", curves("overestimation", overestimation.draw))
    write(
        "fictitious_play",
        curves("fictitious_play", lambda found, path: fictitious_self_play.draw(found["curves"], path)),
    )
    write("tournament", payoffs("tournament"))
    write("similarity", curves("similarity", similarity.draw))
    write("dvd", curves("dvd", dvd.draw))
    write("map-elites", curves("map-elites", map_elites.draw))
    write("noisy_tv", curves("noisy_tv", noisy_tv.draw))


def after_a_few_steps(env_id: str) -> NDArray[np.uint8]:
    """A copy after random legal moves, or at the end of its episode where that comes sooner."""
    batch = mlbits.make_batch(env_id, 1, seed=SEED, autoreset="disabled")
    for _ in range(LONGER.get(env_id, STEPS)):
        batch.step(batch.sample_actions())
    return batch.render()


def diplomacy_orders() -> NDArray[np.uint8]:
    """Orders of a fall, with what became of them."""
    start = first_position(load_board("standard")).to_json()
    units = {power: [" ".join(order.split()[:2]) for order in orders] for power, orders in AUTUMN.items()}
    position = Position.from_json(start | {"phase": "F1901M", "units": units}, load_board("standard"))
    return draw_position(*frames_of(GameRecord.of([adjudicate(position, AUTUMN)]))[0], size=900)


def curves(name: str, draw: Callable[[Any, Path], None]) -> NDArray[np.uint8]:
    """The picture of a reproduction's stored result."""
    result = json.loads((Path(__file__).parent / "pictures" / f"{name}.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        draw(result, path)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))


def payoffs(name: str) -> NDArray[np.uint8]:
    """The heat-map of a stored payoff matrix, the players by their mean payoff."""
    rows = list(csv.DictReader((Path(__file__).parent / "pictures" / f"{name}.csv").open()))
    mean = {row["player"]: 0.0 for row in rows}
    for row in rows:
        mean[row["player"]] += float(row["payoff"])
    players = sorted(mean, key=lambda player: -mean[player])
    cells = np.full((3, len(players), len(players)), np.nan)
    for row in rows:
        cells[:, players.index(row["player"]), players.index(row["opponent"])] = [
            float(row[name]) for name in ("payoff", "low", "high")
        ]
    return payoff_heat_map(cells[0], players, interval=(cells[1], cells[2]))


def write(name: str, picture: NDArray[np.uint8]) -> None:
    """Save a picture in a palette of its own, which keeps the file small."""
    path = FOLDER / f"{name}.png"
    Image.fromarray(picture).quantize(COLOURS, kmeans=3).save(path, optimize=True)
    print(f"{path.stat().st_size / 1024:5.1f} kB  {path}")


if __name__ == "__main__":
    main()
