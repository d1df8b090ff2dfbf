"""Draw every registered environment into ``docs/pictures``: ``python docs/pictures.py``.

``<name>.png`` shows one copy after a few random steps. ``policy_overlay.png`` is GridWorld with the value of
each cell as a heat map and its best moves as arrows, by value iteration (Bellman 1957) on its own rules.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import mlbits
from mlbits.envs.core.batch import GameBatch
from mlbits.envs.core.game import Game
from mlbits.envs.gridworld.drawing import draw_overlay

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
    write("policy_overlay", draw_overlay(game, *value_iteration(game)))


def after_a_few_steps(env_id: str) -> NDArray[np.uint8]:
    """A copy after random legal moves; where an episode ended on the way, the next one has begun."""
    batch = mlbits.make_batch(env_id, 1, seed=SEED)
    for _ in range(STEPS):
        batch.step(batch.sample_actions())
    return batch.render()


def value_iteration(game: Game) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and best moves of a gridworld without slips.

    Args:
        game: a gridworld on a fixed map, slip 0.

    Returns:
        V of each cell [H * W] at a discount of 0.95, and the probabilities [H * W, 4] of a policy that takes
        each of a cell's best moves alike.
    """
    cells, moves = game.layout["kinds"].size, 4
    batch = GameBatch(game, cells * moves, autoreset="disabled")  # a copy for each cell and move
    states = batch.records()
    states["cell"] = np.repeat(np.arange(cells), moves)
    batch.set_state(states)
    step = batch.step(torch.arange(moves).repeat(cells))
    reward = step.reward.double().numpy().reshape(cells, moves)
    goes_on = ~step.terminated.numpy().reshape(cells, moves)
    following = batch.records()["cell"].reshape(cells, moves)
    value = np.zeros(cells)
    for _ in range(1000):
        action_value = reward + DISCOUNT * goes_on * value[following]
        value = action_value.max(1)
    best = action_value > value[:, None] - 1e-9
    return value, best / best.sum(1, keepdims=True)


def write(name: str, picture: NDArray[np.uint8]) -> None:
    """Save a picture in a palette of its own, which keeps the file small."""
    path = FOLDER / f"{name}.png"
    Image.fromarray(picture).quantize(COLOURS).save(path, optimize=True)
    print(f"{path.stat().st_size / 1024:5.1f} kB  {path}")


if __name__ == "__main__":
    main()
