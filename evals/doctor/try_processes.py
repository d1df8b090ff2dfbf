"""Steps a Gymnasium environment with two processes that share memory: ``python -m mlbits.evals.doctor.try_processes``.

Prints one line of JSON: seconds to start the second process, and of a step.
"""

from __future__ import annotations

import json
import time

ENV, STEPS = "CartPole-v1", 100


def main() -> None:
    """Print what was found."""
    from mlbits.envs.doors.gymnasium_batch import GymnasiumBatch

    began = time.perf_counter()
    batch = GymnasiumBatch(ENV, 2, workers=2)
    started = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(STEPS):
        batch.step(batch.sample_actions())
    seconds = (time.perf_counter() - began) / STEPS
    batch.close()
    print(json.dumps({"start_seconds": started, "step_seconds": seconds}))


if __name__ == "__main__":
    main()
