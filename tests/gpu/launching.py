"""What a step costs the host before the driver's part, without a GPU: ``python -m tests.gpu.launching [GAME]``.

Prints CPU microseconds a step by our launcher, and as Numba does when it is given a stream and an array of torch's.
"""

from __future__ import annotations

import sys
import time

import torch

import mlbits
from mlbits.envs.engine.gpu_copies import CudaCopies
from mlbits.envs.engine.gpu_launch import Launcher
from tests.gpu.stand_in import Card, put_in_place

COPIES, MEMORIES, ROUNDS, STEPS = 4096, 128, 5, 500


class ByNumba(Launcher):
    """Gives Numba the grid, the stream and the arguments at every start."""

    def __call__(self, *arguments: object) -> None:
        from numba import cuda

        stream = cuda.external_stream(torch.cuda.current_stream(self._device).cuda_stream)
        self._kernel[-(-self._rows // 128), 128, stream](*arguments)


def main(game_id: str) -> None:
    card, game = put_in_place(Card()), mlbits.make_game(game_id)
    copies = CudaCopies(game, COPIES, device=torch.device("cpu"), illegal="replace")
    kind = torch.float32 if game.action.kind == "continuous" else torch.int64
    actions = [torch.zeros((COPIES, game.seats, *game.action.shape), dtype=kind) for _ in range(MEMORIES)]
    copies.step(actions[0])
    print(f"{game_id}: {len(card.starts[-1].words)} words for the device")
    ours, numbas = copies._run, ByNumba(copies._run._kernel, COPIES, copies.device)
    for launcher, memories, what in (
        (numbas, 1, "by Numba"),
        (ours, 1, "by our launcher"),
        (ours, MEMORIES, f"by our launcher, {MEMORIES} memories of actions in turn"),
    ):
        copies._run, found = launcher, []
        for _ in range(ROUNDS):
            began = time.process_time()
            for k in range(STEPS):
                copies.step(actions[k % memories])
            found.append((time.process_time() - began) / STEPS)
            card.starts.clear()
        print(f"{1e6 * min(found):7.1f} us a step {what}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "mlbits/GridWorld-v0")
