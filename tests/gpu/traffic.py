"""What a step moves between a GPU's memory and its cores, without a GPU.

``python -m tests.gpu.traffic [GAME...] [--ptx]`` prints, on paper, bytes a step: the state (read and written), actions,
observations, masks, rewards and flags. With ``--ptx`` also how many loads and stores the kernel has, and how many if
the state lay as words of all copies beside each other (a struct of arrays), each thread taking its words into registers
first and putting them back last.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import Any

import numpy as np

import mlbits
from mlbits.envs.core.game import Game
from mlbits.envs.engine.driver_template import driver_text, rules_of
from mlbits.envs.engine.gpu_copies import compile_to_ptx, kernel_ptx, kernel_type

GAMES = ("mlbits/GridWorld-v0", "mlbits/CartPole-v0", "mlbits/ConnectFour-v0", "mlbits/Diplomacy-v0")
SECTOR, WARP = 32, 32  # bytes that memory hands over at once; threads that ask together
H100 = 3.35e12  # bytes a second
_ACCESS = re.compile(r"^\s+(?:@!?%p\d+ )?(ld|st)\.(global|local)\b", re.MULTILINE)
_BY_WORDS = """
@cuda.jit
def run(op, start, stop, stride, autoreset, illegal, states, params, actions, played, obs, final_obs, legal, active,
        rewards, terminated, truncated, which, low, high, fault):
    b = cuda.grid(1) + start
    if b < stop:
        words = cuda.local.array(WORDS, np.int64)
        for w in range(WORDS):
            words[w] = states[w, b]
        advance(b, autoreset, illegal, words.view(STATE), params[b * stride], actions, played, obs, final_obs, legal,
                active, rewards, terminated, truncated, low, high)
        for w in range(WORDS):
            states[w, b] = words[w]
"""


def bytes_a_step(game: Game) -> dict[str, int]:
    """Bytes of one copy by what they are; the state counts twice, read and written."""
    seats, action = game.seats, game.action
    row = game.observation.dtype.itemsize * int(np.prod(game.observation.shape or (1,)))
    return {
        "state": 2 * game.state_dtype.itemsize,
        "actions": np.dtype(action.dtype).itemsize * seats * int(np.prod(action.shape or (1,))),
        "observations": seats * row,
        "masks": seats * action.mask_size if game.masked else 0,
        "turns": 2 * seats if game.acts is not None else 0,
        "rewards and flags": 4 * seats + 2,
    }


def sectors(stride: int, width: int) -> int:
    """Sectors that a warp touches when each thread accesses ``width`` bytes, ``stride`` apart."""
    return len({(k * stride + byte) // SECTOR for k in range(WARP) for byte in (0, width - 1)})


def accesses(ptx: str) -> dict[str, int]:
    """How many instructions load or store, by kind of memory."""
    return dict(Counter(f"{kind}.{memory}" for kind, memory in _ACCESS.findall(ptx)))


def step_by_words(game: Game) -> str:
    """The PTX of a step whose states are words of all copies beside each other, [words, B]."""
    text = driver_text(game, "cuda").replace(
        "from numba import cuda\n", "from numba import cuda\nimport numpy as np\n", 1
    )
    text = text.replace("    state = states[b]\n    for seat", "    state = states[0]\n    for seat", 1)
    text = text[: text.index("@cuda.jit(cache=True)")] + _BY_WORDS
    size = game.state_dtype.itemsize
    assert size % 8 == 0
    names: dict[str, Any] = {"WORDS": size // 8, "STATE": game.state_dtype, **rules_of(game)}
    exec(compile(text, f"<{game.name} by words>", "exec"), names)
    return kernel_ptx(names["run"], signature(game), (9, 0))


def signature(game: Game) -> Any:
    """The types of the arguments of a step by words."""
    from numba import types

    layout, action = game.observation, game.action
    obs = kernel_type(layout.dtype, 2 + len(layout.shape))
    actions = kernel_type(action.dtype, 2 + len(action.shape))
    flags, bounds = kernel_type(np.bool_, 1), kernel_type(np.float32, 1)
    return types.void(
        *[types.int64] * 6, kernel_type(np.int64, 2), kernel_type(game.params.dtype, 1), actions, actions, obs, obs,
        kernel_type(np.bool_, 3), kernel_type(np.bool_, 2), kernel_type(np.float32, 2), flags, flags, flags, bounds,
        bounds, kernel_type(np.int64, 1),
    )  # fmt: skip


def main(words: list[str]) -> None:
    for game_id in [word for word in words if word != "--ptx"] or GAMES:
        game = mlbits.make_game(game_id)
        parts, record = bytes_a_step(game), game.state_dtype.itemsize
        total = sum(parts.values())
        print(f"{game_id}: {total:,} bytes a step: " + ", ".join(f"{name} {size:,}" for name, size in parts.items()))
        print(f"  an H100's memory: at most {H100 / total / 1e6:,.0f} M steps/s; the state is {record:,} bytes")
        print(f"  8 bytes of each of a warp's states: {sectors(record, 8)} sectors of memory, by words {sectors(8, 8)}")
        if "--ptx" in words:
            print(f"  accesses of the kernel (step, reset, refresh, check): {accesses(compile_to_ptx(game))}")
            print(f"  accesses of a step by words: {accesses(step_by_words(game))}")


if __name__ == "__main__":
    main(sys.argv[1:])
