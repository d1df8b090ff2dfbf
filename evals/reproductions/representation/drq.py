"""``reproduce drq``: random shifts of pictures make SAC learn from pixels.

Yarats, Kostrikov and Fergus, "Image Augmentation Is All You Need" (2021): soft actor-critic that learns from pictures
alone overfits its critic, and does not when sampled pictures are shifted at random. ``[K, M]`` is over how many shifts
targets are averaged, and how many the critic learns from. The task is ``mlbits/Pendulum-v0`` as a rod on 32 x 32
pixels, two frames, in place of the DeepMind Control Suite's on 84 x 84; arms are compared at equal environment steps,
with an update a step, and what they cost is printed: ``[2, 2]`` takes about twice the time.

The claim to be seen: over the same seeds, the interval of the difference between ``[2, 2]`` and none lies above 0.
``[1, 1]`` may tie with either.

Example:
    mlbits reproduce drq --quick
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.core.settings import integer
from mlbits.evals.reproductions.reproduction import print_table, train_in_process
from mlbits.selfplay.statistics import mean_interval

ENV, SIZE, FRAMES, SHIFT = "mlbits/Pendulum-v0", 32, 2, 2
ARMS = {
    "none": "",
    "[1, 1]": f"--agent.shift {SHIFT}",
    "[2, 2]": f"--agent.shift {SHIFT} --agent.target-shifts 2 --agent.critic-shifts 2",
}
TASK = (
    f"--preset none --env.observation pixels --env.size {SIZE} --env.frame-stack {FRAMES} --agent.encoder small "
    "--agent.hidden 256 256 --agent.batch-size 64 --agent.actor-learning-rate 1e-3 --agent.critic-learning-rate 1e-3 "
    "--agent.temperature-learning-rate 1e-3 --agent.learning-starts 1000 --agent.buffer-size 20000"
)
RUN = "--num-envs 1 --threads 1 --device cpu --no-video --quiet --eval-every 0 --eval-episodes 50"
QUICK_STEPS = 4000


def flags_of(arm: str, steps: int) -> list[str]:
    """The flags of ``mlbits train sac`` of an arm."""
    return f"--total-steps {steps} {TASK} {ARMS[arm]} {RUN}".split()


def reproduce(quick: bool = False, steps: int = 10_000, seeds: int = 5) -> dict[str, Any]:
    """Train SAC from pixels without shifts and with them.

    Args:
        quick: one seed of 4,000 steps of none and [2, 2]; met if the second has the higher return.
        steps: environment steps of each run.
        seeds: runs of each arm.

    Returns:
        "rows" (arm, "returns" of its seeds, their mean and interval, CPU seconds of a run), "difference", the mean and
        interval of [2, 2] minus none over seeds, and "met".
    """
    steps, seeds = integer("steps", steps, 1001, 10**9), integer("seeds", seeds, 2, 1000)
    steps, seeds = (QUICK_STEPS, 1) if quick else (steps, seeds)
    returns: dict[str, list[float]] = {}
    found: list[dict[str, Any]] = []
    for arm in ("none", "[2, 2]") if quick else ARMS:
        runs = [train_in_process("sac", ENV, seed, *flags_of(arm, steps)) for seed in range(seeds)]
        returns[arm] = [float(run["return_mean"]) for run in runs]
        mean, (low, high) = mean_interval(returns[arm])
        row: dict[str, Any] = {"arm": arm, "returns": returns[arm], "return_mean": mean, "low": low, "high": high}
        found.append({**row, "cpu_seconds": float(np.mean([run["cpu_seconds"] for run in runs]))})
    differences = np.subtract(returns["[2, 2]"], returns["none"])
    difference, interval = mean_interval(differences)
    print_table(
        f"SAC on {ENV} from {FRAMES} frames of {SIZE} x {SIZE} pixels after {steps:,} steps, {seeds} seed(s); "
        f"[2, 2] minus none: {difference:.0f}, 95% from {interval[0]:.0f} to {interval[1]:.0f}",
        ["shifts", "return", "95% from", "to", "CPU s"],
        [[row[name] for name in ("arm", "return_mean", "low", "high", "cpu_seconds")] for row in found],
    )
    met = bool(difference > 0) if quick else bool(interval[0] > 0)
    return {"rows": found, "difference": [difference, *interval], "met": met}
