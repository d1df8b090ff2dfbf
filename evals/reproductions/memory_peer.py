"""sb3-contrib's RecurrentPPO on one of our tasks, in a process of its own, whose CPU time is counted whole.

    python -m mlbits.evals.reproductions.memory_peer '{"env": ..., "settings": {}, "steps": ..., "seed": ..., ...}'

Its own defaults but for 8 copies, an LSTM as wide as our memory, and observations standardised where ours are. Prints
one line of JSON: the mean return of 100 greedy episodes, the steps taken, and CPU-seconds, imports and evaluation
included, as in our summaries.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import numpy as np
import torch

import mlbits

EPISODES, COPIES, WIDTH = 100, 8, 64


def main(env: str, settings: dict[str, Any], steps: int, seed: int, normalize: bool) -> dict[str, float]:
    """Train, play, and return the result."""
    contrib: Any = importlib.import_module("sb3_contrib")
    vec_env: Any = importlib.import_module("stable_baselines3.common.vec_env")
    torch.set_num_threads(1)
    venv: Any = mlbits.make_sb3(env, COPIES, seed=seed, **settings)
    if normalize:
        venv = vec_env.VecNormalize(venv, norm_reward=False)
    model = contrib.RecurrentPPO(
        "MlpLstmPolicy", venv, seed=seed, device="cpu", policy_kwargs={"lstm_hidden_size": WIDTH}
    )
    model.learn(steps)
    score = played(model, env, settings, venv if normalize else None)
    return {"return_mean": score, "env_steps": model.num_timesteps, "cpu_seconds": time.process_time()}


def played(model: Any, env: str, settings: dict[str, Any], moments: Any) -> float:
    """The mean return of greedy episodes, one per copy."""
    venv: Any = mlbits.make_sb3(env, EPISODES, seed=1_000_000, **settings)
    obs, total, playing = venv.reset(), np.zeros(EPISODES), np.ones(EPISODES, bool)
    state, starts = None, np.ones(EPISODES, bool)
    while playing.any():
        seen = obs if moments is None else moments.normalize_obs(obs)
        action, state = model.predict(seen, state=state, episode_start=starts, deterministic=True)
        obs, reward, starts, _ = venv.step(action)
        total += reward * playing
        playing &= ~starts
    return float(total.mean())


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
