"""Tree searches on Numba's CUDA simulator, for ``test_gpu_search``: ``-m tests.agents.search.simulated OUT.npz``.

A separate process, since the simulator is chosen when Numba is imported (``NUMBA_ENABLE_CUDASIM=1``), and with
``NUMBA_DISABLE_JIT=1`` so that the rules run as plain Python.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import torch

RESULTS = ("action", "policy", "visits", "q", "value", "outcome", "nodes")
WAITS = ("item", "cpu", "numpy", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "unique")


def searches() -> dict[str, tuple[Any, Any, Any, dict[str, Any]]]:
    """Name: game, network, states, settings."""
    import mlbits
    from tests.agents.search import tables

    worked = tables.worked_tree().game()
    batch = mlbits.make_batch("mlbits/TicTacToe-v0", 3, seed=4, autoreset="disabled")
    for ply in range(3):
        actions = np.zeros((3, 2), np.int64)
        actions[:, ply % 2] = [[4, 0, 8], [0, 4, 3], [1, 8, 7]][ply]
        batch.step(actions)
    states = torch.cat([batch.state(), tables.start(batch.game, over=1)])
    start = tables.start(worked)
    return {
        "worked gumbel": (worked, tables.worked_network, start, {"simulations": 8, "considered": 3, "solver": False}),
        "worked puct": (worked, tables.worked_network, start, {"method": "puct", "simulations": 8, "solver": False}),
        "gumbel": (batch.game, tables.hashed_network, states, {"simulations": 20, "look_ahead": True}),
        "puct": (batch.game, tables.hashed_network, states, {"method": "puct", "simulations": 20}),
        "random games": (batch.game, None, states, {"method": "uct", "simulations": 10}),
    }


def results(name: str, device: str) -> dict[str, Any]:
    """Two searches, for the methods that can the second one in the trees of the first."""
    from mlbits.agents.search.search import SearchConfig, TreeSearch

    game, network, states, settings = searches()[name]
    search = TreeSearch(game, SearchConfig(**settings), device)
    generator, found = torch.Generator().manual_seed(3), {}
    reuse = settings.get("method", "gumbel") != "gumbel"
    for turn in range(2):
        result = search.run(states, network, generator, reuse=reuse, explore=True)
        found |= {f"{turn}|{part}": getattr(result, part).numpy() for part in RESULTS}
    return found


def counts() -> dict[str, Any]:
    """Kernels, calls of the network and waits for the device while trees grow, by number of simulations."""
    from mlbits.agents.search.search import SearchConfig, TreeSearch

    game, _, states, settings = searches()["gumbel"]
    found = {}
    for simulations in (3, 9):
        search = TreeSearch(game, SearchConfig(**settings | {"simulations": simulations}), "cuda")
        kernels, waits, calls, grow, call = [], [], [], search._search, search._call
        originals = {name: getattr(torch.Tensor, name) for name in WAITS}

        def watched(name: str, original: Any, waits: Any = waits) -> Any:
            return lambda *arguments: waits.append(name) or original(*arguments)

        def counted(trees: int, evaluate: Any, grow: Any = grow, originals: Any = originals) -> Any:
            for name, original in originals.items():
                setattr(torch.Tensor, name, watched(name, original))
            try:
                return grow(trees, evaluate)
            finally:
                for name, original in originals.items():
                    setattr(torch.Tensor, name, original)

        def answers(obs: Any, mask: Any, calls: Any = calls) -> Any:
            calls.append(len(mask))
            return torch.zeros(mask.shape), torch.zeros(len(mask))

        search._search = counted  # type: ignore[method-assign]

        def started(name: str, *rest: Any, kernels: Any = kernels, call: Any = call) -> Any:
            kernels.append(name)
            return call(name, *rest)

        search._call = started  # type: ignore[method-assign]
        result = search.run(states, answers, torch.Generator().manual_seed(0))
        assert (result.calls, result.rows) == (len(calls), sum(calls))
        found |= {f"{simulations}|kernels": np.array(kernels), f"{simulations}|waits": np.array(waits, str)}
        found[f"{simulations}|calls"] = np.array(calls)
    return found


def main(path: str) -> None:
    assert os.environ["NUMBA_ENABLE_CUDASIM"] == os.environ["NUMBA_DISABLE_JIT"] == "1"
    arrays = {f"{name}|{part}": value for name in searches() for part, value in results(name, "cuda").items()}
    np.savez(path, **arrays, **{f"counts|{part}": value for part, value in counts().items()})


if __name__ == "__main__":
    main(sys.argv[1])
