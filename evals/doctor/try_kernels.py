"""Compiles, caches and runs a game's rules; a process of its own, because what is broken may crash or hang.

``python -m mlbits.evals.doctor.try_kernels cpu|ptx|cuda`` prints one line of JSON. The cache is that of
``MLBITS_CACHE_DIR``, which :mod:`~mlbits.evals.doctor.trials` sets to an empty folder.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

GAME, COPIES, STEPS = "mlbits/GridWorld-v0", 4096, 50


def on_cpu() -> dict[str, Any]:
    """Seconds to compile and to load from the cache, steps per second, and the share of a core that was had."""
    return _played("cpu")


def on_gpu() -> dict[str, Any]:
    """The same on a GPU, compared with the CPU step by step."""
    return _played("cuda")


def to_ptx() -> dict[str, Any]:
    """Seconds to compile for a GPU that need not be here."""
    import mlbits
    from mlbits.envs.engine.gpu_copies import compile_to_ptx

    began = time.perf_counter()
    text = compile_to_ptx(mlbits.make_game(GAME))
    return {"compile_seconds": time.perf_counter() - began, "whole": ".visible .entry" in text}


def _played(device: str) -> dict[str, Any]:
    import torch

    import mlbits
    from mlbits.envs.engine import driver

    began = time.perf_counter()
    batch = mlbits.make_batch(GAME, COPIES, device, seed=0, illegal="replace")
    _wait(device)
    compiled = time.perf_counter() - began
    driver._loaded.clear()  # as in another process
    began = time.perf_counter()
    batch = mlbits.make_batch(GAME, COPIES, device, seed=0, illegal="replace")
    _wait(device)
    found: dict[str, Any] = {"compile_seconds": compiled, "load_seconds": time.perf_counter() - began}
    actions = [batch.sample_actions() for _ in range(8)]
    if device == "cuda":
        other = mlbits.make_batch(GAME, COPIES, "cpu", seed=0, illegal="replace")
        found["equal"] = True
        for k in range(STEPS):
            batch.step(actions[k % 8])
            other.step(actions[k % 8].cpu())
            same = torch.equal(batch.state().cpu(), other.state()) and torch.equal(batch.reward.cpu(), other.reward)
            found["equal"] = found["equal"] and same
    batch.step(actions[0])
    _wait(device)
    began, cpu, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < began + 0.2:
        for action in actions:
            batch.step(action)
        steps += len(actions) * COPIES
    _wait(device)
    wall = time.perf_counter() - began
    return found | {"steps_per_second": steps / wall, "core": (time.process_time() - cpu) / wall}


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        if torch.cuda.is_available():  # else the simulator
            torch.cuda.synchronize()


def main(words: list[str]) -> None:
    """Print what was found for a device."""
    found = {"cpu": on_cpu, "cuda": on_gpu, "ptx": to_ptx}[words[0]]()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
