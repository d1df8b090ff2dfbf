"""The compiled part of tree search: generated for a game and a method, from the game's own rules.

``advance`` does for every tree, in one call: take in the network's results for the leaf that waits for them and back
them up; then follow the tree to a new leaf, play its move by the rules, and write what the network has to see. Leaves
that need no network (the game is over, or the outcome is known) are backed up at once. The trees that wait are numbered
0, 1, ... (``row``), so that the network sees no rows in vain; on a GPU, where a thread has a tree, row b is tree b's.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from mlbits.agents.search import gumbel, puct, reuse, trees, uct
from mlbits.agents.search.template import (
    CPU_FOOTER,
    CPU_HEADER,
    CUDA_FOOTER,
    CUDA_HEADER,
    EARLY_REWARD,
    NO_ROOM,
    NO_TURN,
    NOT_ZERO_SUM,
    TEXT,
    TURNS,
)
from mlbits.agents.search.trees import EDGE, NODE
from mlbits.envs.core.game import Game
from mlbits.envs.core.rules import python_function
from mlbits.envs.engine.driver import load_generated
from mlbits.envs.engine.driver_template import importable, rules_of
from mlbits.envs.engine.gpu_copies import kernel_ptx, kernel_type

# What compiled code reads of a search's settings, and the random stream.
SETTINGS = np.dtype(
    [
        ("discount", "f8"), ("c_visit", "f8"), ("c_scale", "f8"), ("c_init", "f8"), ("c_base", "f8"), ("c_uct", "f8"),
        ("noise", "f8"), ("seed", "u8"), ("kept", "i4"), ("simulations", "i4"), ("considered", "i4"),
        ("rollouts", "i4"), ("longest", "i4"), ("rescale", "u1"), ("solver", "u1"),
        ("look_ahead", "u1"),
    ],
    align=True,
)  # fmt: skip
METHODS: dict[str, Any] = {"gumbel": gumbel, "puct": puct, "uct": uct}


def load_search(game: Game, method: str, target: str = "cpu") -> ModuleType:
    """Compile a game's search, or load it from the cache.

    Args:
        game: a game of one seat, or of two that move in turn, with Discrete actions.
        method: "gumbel", "puct" or "uct".
        target: "cpu", or "cuda" (needs the package numba-cuda).

    Returns:
        The generated module, with ``begin``, ``advance``, ``by_rollouts`` and ``report``.
    """
    rules: dict[str, Any] = rules_of(game)
    del rules["rule_reset"]
    imports = [
        f"from {python_function(function).__module__} import {python_function(function).__qualname__} as {name}"
        for name, function in rules.items()
        if importable(function)
    ]
    fill = "    for a in range(ACTIONS):\n        legal[row, a] = {}\n"
    moves = fill.format("True")
    if game.legal is not None:
        moves = fill.format("False") + "    rule_legal(state, params, seat, legal[row])\n"
    text = TEXT.format(
        name=game.name,
        method=method,
        header=CPU_HEADER if target == "cpu" else CUDA_HEADER,
        footer=CPU_FOOTER if target == "cpu" else CUDA_FOOTER,
        imports="\n".join(imports),
        seats=game.seats,
        actions=game.action.nvec[0],
        mover=TURNS if game.acts is not None else "    return ROOT\n",
        moves=moves,
        same=_comparison(game),
        NOT_ZERO_SUM=NOT_ZERO_SUM,
        EARLY_REWARD=EARLY_REWARD,
        NO_TURN=NO_TURN,
        NO_ROOM=NO_ROOM,
    )
    names = (
        "add_edge",
        "add_node",
        "back_up",
        "prove",
        "best_known",
        "set_priors",
        "edge_value",
        "known_value",
        "decided",
        "outcome_of",
        "has_value",
    )
    called = {name: getattr(trees, name) for name in (*names, "sign_of", "or_draw", "undecided")}
    called |= {name: getattr(reuse, name) for name in ("keep_subtree", "may_be_root")}
    called |= {name: getattr(METHODS[method], name) for name in ("choose", "conclude")}
    return load_generated(f"{game.name}_{method}_search_{target}", text, rules | called)


def compile_to_ptx(
    game: Game, method: str, kernels: Sequence[str], compute_capability: tuple[int, int] = (9, 0)
) -> list[str]:
    """Compile kernels of a search, "begin" and so on, to PTX; this needs no GPU.

    Raises:
        numba.core.errors.NumbaError: if something cannot run on a GPU.
    """
    from numba import types

    layout = game.observation
    axes = {
        "nodes": (NODE, 2), "edges": (EDGE, 2), "states": (game.state_dtype, 2), "params": (game.params.dtype, 1),
        "spare": (game.state_dtype, 1), "moved": (np.int32, 2), "shift": (np.int32, 2),
        "obs": (layout.dtype, 1 + len(layout.shape)), "legal": (np.bool_, 2), "actions": (np.int64, 2),
        "rewards": (np.float32, 2), "logits": (np.float32, 2), "values": (np.float32, 1), "noise": (np.float64, 2),
        "settings": (SETTINGS, 1), "keys": (np.uint64, 1), "visits": (np.int64, 2), "q": (np.float32, 2),
        "policy": (np.float32, 2), "value": (np.float32, 1),
    }  # fmt: skip
    module, found = load_search(game, method, "cuda"), []
    for name in kernels:
        kernel = getattr(module, name)
        arguments = inspect.signature(kernel.py_func).parameters
        given = [
            types.int64 if one in ("k", "trees", "stride") else kernel_type(*axes.get(one, (np.int64, 1)))
            for one in arguments
        ]
        found.append(kernel_ptx(kernel, types.void(*given), compute_capability))
    return found


def _comparison(game: Game) -> str:
    """Lines that return False where a field of the game's own differs between two states."""
    lines = []
    for name, *_ in game.state_fields:
        shape = game.state_dtype[name].shape
        index = ", ".join(f"i{axis}" for axis in range(len(shape)))
        for axis, length in enumerate(shape):
            lines.append("    " * (axis + 1) + f"for i{axis} in range({length}):")
        pad, at = "    " * (len(shape) + 1), f"[{index}]" if shape else ""
        lines += [f"{pad}if one.{name}{at} != other.{name}{at}:", f"{pad}    return False"]
    return "\n".join(lines)
