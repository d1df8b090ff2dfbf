"""Plays games on Numba's CUDA simulator, for ``test_gpu``: ``-m tests.conformance.simulator OUT.npz ID...``

A separate process, since the simulator is chosen when Numba is imported (``NUMBA_ENABLE_CUDASIM=1``), and
with ``NUMBA_DISABLE_JIT=1`` so that the rules run as plain Python. One file holds the results of all games: for
each (game, mode) the actions and everything the batch showed; failures are stored as text: "ID|error".
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import numpy as np

COPIES, STEPS = 3, 7
MODES = {
    "error": "same_step",
    "replace": "next_step",
    "forfeit": "disabled",
}  # illegal actions, and autoreset


def simulated_play(game_id: str, illegal: str) -> dict[str, Any]:
    """Play random actions, legal ones under "error", and collect [STEPS, ...] of everything visible."""
    from mlbits.envs.core.errors import IllegalActionError
    from tests.conformance.play import as_numpy, batch_of, game_of, legal_actions

    batch = batch_of(game_id, COPIES, device="cuda", illegal=illegal, autoreset=MODES[illegal])
    assert type(batch.copies).__name__ == "CudaCopies"
    game, rng = game_of(game_id), np.random.default_rng(5)
    play: dict[str, list[Any]] = {}
    for t in range(STEPS):
        mask = as_numpy(batch.legal_mask) if illegal == "error" or t < 2 else None
        actions = legal_actions(game, mask, (COPIES, game.seats), rng)
        if illegal == "error" and t == 2:
            check_illegal(batch, actions, IllegalActionError)
        batch.step(actions)
        for name, value in {"actions": actions, **visible(batch)}.items():
            play.setdefault(name, []).append(value)
    return {name: np.stack(values) for name, values in play.items()}


def check_illegal(batch: Any, actions: Any, error: type[Exception]) -> None:
    """An action out of range raises an error that names the copy, and does not change the states."""
    before, bad = batch.state(), actions.copy()
    bad[1] = np.nan if bad.dtype.kind == "f" else -1
    if batch.active is not None and not batch.active[1].any():
        return
    try:
        batch.step(bad)
    except error as raised:
        assert "copy 1, seat" in str(raised), raised
    else:
        raise AssertionError("an illegal action was played")
    assert (batch.state() == before).all()


def visible(batch: Any) -> dict[str, Any]:
    """All arrays that a batch shows, by flat names."""
    from tests.conformance.play import as_numpy

    shown = {"state": batch.state(), "reward": batch.reward}
    shown |= {"terminated": batch.terminated, "truncated": batch.truncated}
    shown |= {name: value for name in ("legal_mask", "active") if (value := getattr(batch, name)) is not None}
    for name in ("obs", "final_obs"):
        value = getattr(batch, name)
        shown |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return {name: as_numpy(value) for name, value in shown.items()}


def main(path: str, game_ids: list[str]) -> None:
    assert os.environ["NUMBA_ENABLE_CUDASIM"] == os.environ["NUMBA_DISABLE_JIT"] == "1"
    arrays: dict[str, Any] = {}
    for game_id in game_ids:
        try:
            for illegal in MODES:
                for name, values in simulated_play(game_id, illegal).items():
                    arrays[f"{game_id}|{illegal}|{name}"] = values
        except Exception:
            arrays[f"{game_id}|error"] = np.array(traceback.format_exc())
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
