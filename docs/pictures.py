"""Draw every registered environment into ``docs/pictures``: ``python docs/pictures.py``.

``<name>.png`` shows one copy after a few random steps. ``policy_overlay.png`` is GridWorld with the value of
each cell as a heat map and its best moves as arrows, by value iteration (Bellman 1957) on its own rules.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import mlbits
from mlbits.selfplay.value_maps import exact_picture

FOLDER = Path(__file__).parent / "pictures"
STEPS, SEED = 5, 1
DISCOUNT = 0.95
COLOURS = 64


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    for env_id in mlbits.registered():
        write(env_id.partition("/")[2].rpartition("-v")[0], after_a_few_steps(env_id))
    game = mlbits.make_game("mlbits/GridWorld-v0")
    write("policy_overlay", exact_picture(game, DISCOUNT))


def after_a_few_steps(env_id: str) -> NDArray[np.uint8]:
    """A copy after random legal moves, or at the end of its episode where that comes sooner."""
    batch = mlbits.make_batch(env_id, 1, seed=SEED, autoreset="disabled")
    for _ in range(STEPS):
        batch.step(batch.sample_actions())
    return batch.render()


def write(name: str, picture: NDArray[np.uint8]) -> None:
    """Save a picture in a palette of its own, which keeps the file small."""
    path = FOLDER / f"{name}.png"
    Image.fromarray(picture).quantize(COLOURS).save(path, optimize=True)
    print(f"{path.stat().st_size / 1024:5.1f} kB  {path}")


if __name__ == "__main__":
    main()
