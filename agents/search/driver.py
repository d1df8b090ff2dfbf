"""The compiled part of tree search: generated for a game and a method, from the game's own rules.

``advance`` does for every tree, in one call: take in the network's results for the leaf that waits for them and back
them up; then follow the tree to a new leaf, play its move by the rules, and write what the network has to see. Leaves
that need no network (the game is over, or the outcome is known) are backed up at once. The trees that wait are numbered
0, 1, ... (``row``), so that the network sees no rows in vain; on a GPU, where a thread has a tree, row b is tree b's.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


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
from mlbits.envs.core.game import Game
from mlbits.envs.core.rules import python_function
from mlbits.envs.engine.driver import load_generated
from mlbits.envs.engine.driver_template import importable, rules_of

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
    names = ("add_edge", "add_node", "back_up", "prove", "best_known", "set_priors", "edge_value", "known_value")
    called = {name: getattr(trees, name) for name in (*names, "sign_of")}
    called |= {name: getattr(reuse, name) for name in ("keep_subtree", "may_be_root")}
    called |= {name: getattr(METHODS[method], name) for name in ("choose", "conclude")}
    return load_generated(f"{game.name}_{method}_search_{target}", text, rules | called)


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
