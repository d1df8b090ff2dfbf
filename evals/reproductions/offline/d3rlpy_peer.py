"""CRR of d3rlpy on a dataset, by an interpreter of its own: d3rlpy pins an old Gymnasium, and does not import mlbits.

    PYTHON d3rlpy_peer.py DATA.npz RESULT.json SEED STEPS

DATA.npz holds the arrays of a dataset. Its episodes are built by hand, with T observations for T actions: d3rlpy's own
reader of Minari's datasets (2.8.1) takes all T + 1, so that in episode k they are k steps away from their actions.
Settings: batch 256, two layers of 256, Adam 3e-4, standardised observations and rewards, exp, mean of m = 4 draws, hard
targets every 100 steps. RESULT.json: the mean return on Pendulum-v1, and gradient steps per CPU-second.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

EPISODES, LENGTH, SEED = 100, 200, 20_000


def main(data: str, result: str, seed: int, steps: int) -> None:
    """Train, play, and write the result."""
    d3rlpy: Any = importlib.import_module("d3rlpy")
    preprocessing: Any = importlib.import_module("d3rlpy.preprocessing")
    logging: Any = importlib.import_module("d3rlpy.logging")
    torch.set_num_threads(1)
    d3rlpy.seed(seed)
    arrays = np.load(data)
    starts, episodes = arrays["starts"], []
    for k in range(len(starts) - 1):
        first, last = int(starts[k]), int(starts[k + 1])
        episodes.append(
            d3rlpy.dataset.Episode(
                observations=arrays["obs"][first + k : last + k],
                actions=arrays["action"][first:last],
                rewards=arrays["reward"][first:last, None],
                terminated=bool(arrays["terminated"][last - 1]),
            )
        )
    buffer = d3rlpy.dataset.ReplayBuffer(d3rlpy.dataset.InfiniteBuffer(), episodes=episodes)
    algorithm = d3rlpy.algos.CRRConfig(
        batch_size=256, actor_learning_rate=3e-4, critic_learning_rate=3e-4, beta=1.0, n_action_samples=4,
        advantage_type="mean", weight_type="exp", max_weight=20.0,
        target_update_type="hard", target_update_interval=100,
        observation_scaler=preprocessing.StandardObservationScaler(),
        action_scaler=preprocessing.MinMaxActionScaler(),
        reward_scaler=preprocessing.StandardRewardScaler(),
    ).create(device="cpu")  # fmt: skip
    quiet = {"show_progress": False, "logger_adapter": logging.NoopAdapterFactory(), "save_interval": 10**9}
    algorithm.fit(buffer, n_steps=10, n_steps_per_epoch=10, **quiet)  # finds the scaling, and warms up
    began = time.process_time()
    algorithm.fit(buffer, n_steps=steps, n_steps_per_epoch=steps, **quiet)
    speed = steps / (time.process_time() - began)
    found = {"return_mean": played(algorithm), "steps_per_cpu_second": speed}
    Path(result).write_text(json.dumps(found))


def played(algorithm: Any) -> float:
    """The mean return of its policy on Pendulum-v1."""
    gymnasium: Any = importlib.import_module("gymnasium")
    envs = [gymnasium.make("Pendulum-v1") for _ in range(EPISODES)]
    obs = np.stack([env.reset(seed=SEED + k)[0] for k, env in enumerate(envs)])
    total = np.zeros(EPISODES)
    for _ in range(LENGTH):
        action = algorithm.predict(obs.astype(np.float32))
        results = [env.step(one) for env, one in zip(envs, action, strict=True)]
        obs, total = np.stack([one[0] for one in results]), total + [float(one[1]) for one in results]
    return float(total.mean())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
