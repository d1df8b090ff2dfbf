"""Other libraries that benchmarks compare with, each measured only if it is installed (extra ``peers``).

Stable-Baselines3 and Gymnasium always are. gymnax runs in JAX, with actions drawn and resets done inside the compiled
scan, as its users run it; envpool and MiniGrid by their own Gymnasium interfaces.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import multiprocessing
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from mlbits.evals.benchmarks.stopwatch import Row, Stopwatch


def measured(measure: Callable[[], Row], *packages: str) -> Iterator[Row]:
    """One row, if the packages are installed; a peer that fails is named and left out."""
    if any(importlib.util.find_spec(name) is None for name in packages):
        return
    try:
        yield measure()
    except Exception as error:  # an error in another library does not end the benchmark
        print(f"{packages[0]} could not be measured: {type(error).__name__}: {error}", file=sys.stderr)


def version(name: str) -> str:
    """A library's name and version."""
    return f"{name} {importlib.metadata.version(name)}"


def gridworlds(watch: Stopwatch) -> Iterator[Row]:
    """Gymnax's FourRooms and envpool's FrozenLake."""
    for num_envs in (1024, 65_536):
        yield from measured(lambda: apart(_gymnax, watch, "FourRooms-misc", num_envs), "gymnax", "jax")  # noqa: B023
    yield from measured(lambda: _envpool(watch, "FrozenLake-v1", 1024), "envpool")


def cartpoles(watch: Stopwatch) -> Iterator[Row]:
    """Gymnax's and envpool's CartPole."""
    for num_envs in (1024, 65_536):
        yield from measured(lambda: apart(_gymnax, watch, "CartPole-v1", num_envs), "gymnax", "jax")  # noqa: B023
    yield from measured(lambda: _envpool(watch, "CartPole-v1", 1024), "envpool")


def singles(watch: Stopwatch) -> Iterator[Row]:
    """MiniGrid's empty room, one copy."""
    yield from measured(lambda: _minigrid(watch), "minigrid")


def _minigrid(watch: Stopwatch) -> Row:
    import gymnasium as gym
    import minigrid  # noqa: F401

    env = gym.make("MiniGrid-Empty-8x8-v0")
    env.reset(seed=0)
    draw = random.Random(0).randrange

    def call() -> None:
        for _ in range(500):
            _, _, terminated, truncated, _ = env.step(draw(7))
            if terminated or truncated:
                env.reset()

    return watch.row("MiniGrid-Empty-8x8, gym.make", call, 500, version("minigrid"))


def ppo(watch: Stopwatch) -> Iterator[Row]:
    """Stable-Baselines3's PPO with its defaults on 8 copies."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 8), device="cpu", seed=0)
    steps = 8 * model.n_steps
    yield watch.row(
        "PPO on CartPole-v1, its defaults, 8 copies", lambda: model.learn(steps), steps, version("stable-baselines3")
    )


def vec_env_row(watch: Stopwatch, name: str, envs: Any, peer: str | None = None) -> Row:
    """Random play through Stable-Baselines3's VecEnv interface."""
    import numpy as np

    envs.reset()
    draw = np.random.default_rng(0)
    actions = [draw.integers(0, envs.action_space.n, envs.num_envs) for _ in range(8)]

    def call() -> None:
        for action in actions:
            envs.step(action)

    return watch.row(name, call, 8 * envs.num_envs, peer)


def vec_envs(watch: Stopwatch) -> Iterator[Row]:
    """Stable-Baselines3's DummyVecEnv over single copies: Gymnasium's CartPole, and ours by gym.make."""
    from stable_baselines3.common.env_util import make_vec_env

    for env in ("CartPole-v1", "mlbits/CartPole-v0"):
        for num_envs in (8, 64):
            name = f"{env.removeprefix('mlbits/')}, DummyVecEnv of {num_envs}"
            yield vec_env_row(watch, name, make_vec_env(env, num_envs, seed=0), version("stable-baselines3"))


def trpo(watch: Stopwatch) -> Iterator[Row]:
    """sb3-contrib's TRPO with the settings of the RL Zoo for CartPole: 15 CG iterations, 20 epochs of the value."""
    for num_envs in (2, 16):
        yield from measured(lambda: _trpo(watch, num_envs), "sb3_contrib")  # noqa: B023


def _trpo(watch: Stopwatch, num_envs: int) -> Row:
    from sb3_contrib import TRPO
    from stable_baselines3.common.env_util import make_vec_env

    settings: dict[str, Any] = {"batch_size": 512, "n_critic_updates": 20, "cg_damping": 1e-3, "gae_lambda": 0.98}
    steps = 1024 // num_envs
    model = TRPO("MlpPolicy", make_vec_env("CartPole-v1", num_envs), n_steps=steps, device="cpu", seed=0, **settings)
    name = f"TRPO on CartPole-v1, {num_envs} copies x {steps}"
    return watch.row(name, lambda: model.learn(1024), 1024, version("sb3-contrib"))


_DQN_DEFAULTS: dict[str, Any] = {"train_freq": 4, "gradient_steps": 1}
_DQN_ZOO: dict[str, Any] = {
    "policy_kwargs": {"net_arch": [256, 256]}, "batch_size": 64, "learning_rate": 2.3e-3, "train_freq": 256,
    "gradient_steps": 128, "target_update_interval": 10, "exploration_final_eps": 0.04,
}  # fmt: skip


def dqn(watch: Stopwatch, *, zoo: bool) -> Iterator[Row]:
    """Stable-Baselines3's DQN, once it learns from its replay buffer; the updates per step are the same for any copies.

    Args:
        watch: the stopwatch.
        zoo: use the zoo's settings for CartPole instead of the defaults.
    """
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env

    settings = _DQN_ZOO if zoo else _DQN_DEFAULTS
    for num_envs in (1, 8):
        turn = max(1, settings["train_freq"] // num_envs)  # steps of each copy between updates
        updates = turn * num_envs * settings["gradient_steps"] // settings["train_freq"]
        rounds = {"train_freq": turn, "gradient_steps": updates}
        model = DQN(
            "MlpPolicy", make_vec_env("CartPole-v1", num_envs), buffer_size=100_000, device="cpu", seed=0,
            **(settings | rounds),
        )  # fmt: skip
        name = f"DQN on CartPole-v1 x {num_envs}, {'SB3 zoo settings' if zoo else 'SB3 defaults'}"
        yield _replayed(watch, model, name, 1024)


def ddpg(watch: Stopwatch) -> Row:
    """Stable-Baselines3's DDPG with its defaults and noise on one copy, once it learns from its replay buffer."""
    import numpy as np
    from stable_baselines3 import DDPG
    from stable_baselines3.common.noise import NormalActionNoise

    noise = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    model = DDPG("MlpPolicy", "Pendulum-v1", buffer_size=100_000, action_noise=noise, device="cpu", seed=0)
    return _replayed(watch, model, "DDPG on Pendulum-v1 x 1, float32", 256)


def sac(watch: Stopwatch) -> Row:
    """Stable-Baselines3's SAC with its defaults on one copy, once it learns from its replay buffer."""
    from stable_baselines3 import SAC

    model = SAC("MlpPolicy", "Pendulum-v1", buffer_size=100_000, device="cpu", seed=0)
    return _replayed(watch, model, "SAC on Pendulum-v1 x 1, float32", 256)


def _replayed(watch: Stopwatch, model: Any, name: str, steps: int) -> Row:
    model.learn(steps)  # past its warm-up of 100 steps, and its epsilon schedule
    return watch.row(name, lambda: model.learn(steps, reset_num_timesteps=False), steps, version("stable-baselines3"))


def apart(measure: Callable[..., Row], *arguments: Any) -> Row:
    """Measure in a separate process: JAX's threads would slow down later measurements."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def _gymnax(watch: Stopwatch, name: str, num_envs: int) -> Row:
    import gymnax
    import jax

    env, params = gymnax.make(name)
    steps = max(1, 1_048_576 // num_envs)

    def one(carry: Any, key: Any) -> Any:
        state = carry
        keys = jax.random.split(key, num_envs)
        action = jax.vmap(env.action_space(params).sample)(keys)
        result = jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, state, action, params)
        return result[1], result[2].sum()

    @jax.jit
    def scan(state: Any, key: Any) -> Any:
        return jax.lax.scan(one, state, jax.random.split(key, steps))

    _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(jax.random.key(0), num_envs), params)
    key = jax.random.key(1)

    def call() -> None:
        jax.block_until_ready(scan(state, key))

    return watch.row(f"{name}, {num_envs:,} copies (JAX, all cores)", call, steps * num_envs, version("gymnax"))


def _envpool(watch: Stopwatch, name: str, num_envs: int) -> Row:
    import envpool
    import numpy as np

    envs = envpool.make(name, env_type="gymnasium", num_envs=num_envs, num_threads=1)
    envs.reset()
    draw = np.random.default_rng(0)
    actions = [draw.integers(0, envs.action_space.n, num_envs).astype(np.int32) for _ in range(8)]

    def call() -> None:
        for action in actions:
            envs.step(action)

    return watch.row(f"{name}, envpool of {num_envs:,}", call, 8 * num_envs, version("envpool"))
