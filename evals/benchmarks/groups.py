"""``mlbits bench``: speed of the suite, beside the other libraries that are installed, in one run.

The processor is printed above the rows: rates depend on it, ratios to other libraries less so. Each row has two rates:
per CPU-second (``time.process_time``: all threads of the process, hardly affected by other load) and per wall second.
Each measurement is the median of three; a row without a peer is mlbits, else the library it names. Random actions are
drawn beforehand in vector rows; resets count as part of stepping.
"""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console

from mlbits.envs.core.errors import DeviceError, UnknownIdError
from mlbits.envs.engine.processor import describe, has_fast_bfloat16
from mlbits.envs.registry import make_batch, make_game, make_sb3
from mlbits.evals.benchmarks import peers
from mlbits.evals.benchmarks.boards import bench_boards, bench_search
from mlbits.evals.benchmarks.diplomacy import bench_diplomacy
from mlbits.evals.benchmarks.populations import bench_population
from mlbits.evals.benchmarks.stopwatch import Row, Skipped, Stopwatch
from mlbits.evals.jobs.executors import open_executor
from mlbits.evals.jobs.in_process import InProcess
from mlbits.evals.jobs.job import Job
from mlbits.evals.jobs.queue import JobQueue, in_order
from mlbits.selfplay.machine import set_up

GRID, POLE = "mlbits/GridWorld-v0", "mlbits/CartPole-v0"
EMPTY_MAP: dict[str, Any] = {"map": "empty_8x8"}
MANY, VERY_MANY = 4096, 65_536


def _batch_row(watch: Stopwatch, name: str, env: str, num_envs: int, threads: int | None = 1, **settings: Any) -> Row:
    illegal = "replace" if watch.device == "cuda" else "error"
    batch = make_batch(env, num_envs, watch.device, threads=threads, illegal=illegal, **settings)
    actions = [batch.sample_actions() for _ in range(8)]
    calls = max(1, MANY * 16 // num_envs)

    def call() -> None:
        for k in range(calls):
            batch.step(actions[k % 8])

    return watch.row(name, call, calls * num_envs)


def _vector_row(watch: Stopwatch, name: str, env: str, num_envs: int, peer: str | None = None, **settings: Any) -> Row:
    envs = gym.make_vec(env, num_envs=num_envs, **settings)
    envs.reset(seed=0)
    actions = [envs.action_space.sample() for _ in range(8)]

    def call() -> None:
        for action in actions:
            envs.step(action)

    return watch.row(name, call, 8 * num_envs, peer)


def _single_row(watch: Stopwatch, name: str, env: str, peer: str | None = None, **settings: Any) -> Row:
    one = gym.make(env, **settings)
    one.reset(seed=0)
    draw, count = random.Random(0).randrange, int(one.action_space.n)  # type: ignore[attr-defined]

    def call() -> None:
        for _ in range(2000):
            _, _, terminated, truncated, _ = one.step(draw(count))
            if terminated or truncated:
                one.reset()

    return watch.row(name, call, 2000, peer)


def bench_gridworld(watch: Stopwatch) -> Iterator[Row]:
    """GridWorld 8x8 in batches."""
    if watch.device == "cuda":
        for num_envs in (VERY_MANY, 1_048_576):
            yield _batch_row(watch, f"GridWorld 8x8, batch of {num_envs:,}, GPU", GRID, num_envs, **EMPTY_MAP)
        return
    yield _batch_row(watch, f"GridWorld 8x8, batch of {MANY:,}", GRID, MANY, **EMPTY_MAP)
    yield _vector_row(watch, f"GridWorld 8x8, gym.make_vec of {MANY:,}", GRID, MANY, threads=1, **EMPTY_MAP)
    yield _batch_row(watch, f"GridWorld 8x8, batch of {VERY_MANY:,}, one core", GRID, VERY_MANY, **EMPTY_MAP)
    yield _batch_row(watch, f"GridWorld 8x8, batch of {VERY_MANY:,}, all cores", GRID, VERY_MANY, None, **EMPTY_MAP)
    yield from peers.gridworlds(watch)


def bench_cartpole(watch: Stopwatch) -> Iterator[Row]:
    """CartPole in batches."""
    if watch.device == "cuda":
        for num_envs in (VERY_MANY, 1_048_576):
            yield _batch_row(watch, f"CartPole, batch of {num_envs:,}, GPU", POLE, num_envs)
        return
    yield _batch_row(watch, f"CartPole, batch of {MANY:,}", POLE, MANY)
    yield _vector_row(watch, f"CartPole, gym.make_vec of {MANY:,}", POLE, MANY, threads=1)
    yield _batch_row(watch, f"CartPole, batch of {VERY_MANY:,}, one core", POLE, VERY_MANY)
    yield _batch_row(watch, f"CartPole, batch of {VERY_MANY:,}, all cores", POLE, VERY_MANY, None)
    gymnasium = f"gymnasium {gym.__version__}"
    yield _vector_row(watch, f"CartPole-v1, gym.make_vec of {MANY:,}", "CartPole-v1", MANY, gymnasium)
    yield from peers.cartpoles(watch)


def bench_single(watch: Stopwatch) -> Iterator[Row]:
    """One copy through gym.make, one Python call per step."""
    gymnasium = f"gymnasium {gym.__version__}"
    yield _single_row(watch, "GridWorld 8x8, gym.make", GRID, **EMPTY_MAP)
    yield _single_row(watch, "FrozenLake-v1, gym.make", "FrozenLake-v1", gymnasium)
    yield _single_row(watch, "CartPole, gym.make", POLE)
    yield _single_row(watch, "CartPole-v1, gym.make", "CartPole-v1", gymnasium)
    yield from peers.singles(watch)


def _learner_row(watch: Stopwatch, name: str, agent: str, num_envs: int, **settings: Any) -> Row:
    """An on-policy agent on CartPole with its defaults: acting, stepping and learning."""
    from mlbits.selfplay.runs.config import resolve
    from mlbits.selfplay.session import open_session

    run = {"num_envs": num_envs, "device": watch.device}
    session = open_session(resolve(agent, POLE, preset="none", run=run, agent_settings=settings))

    def call() -> None:
        rollout, _, _ = session.collector.collect(session.lineup)
        session.learner.learn(rollout, 0.0, session.learning)

    return watch.row(name, call, num_envs * session.collector.spec.num_steps)


def bench_ppo(watch: Stopwatch) -> Iterator[Row]:
    """PPO on CartPole: 64x64 actor and critic, 4 epochs x 4 minibatches."""
    sizes = (1024, 4096) if watch.device == "cpu" else (16_384, VERY_MANY)
    for num_envs in sizes:
        yield _learner_row(watch, f"PPO on CartPole, {num_envs:,} copies x 32", "ppo", num_envs, num_steps=32)
    if watch.device == "cpu":
        yield from peers.ppo(watch)


def bench_trpo(watch: Stopwatch) -> Iterator[Row]:
    """TRPO on CartPole, 64x64 actor and critic; on the CPU with the peer's rollouts of 1,024 steps and its settings."""
    if watch.device == "cuda":
        name = f"TRPO on CartPole, {VERY_MANY:,} copies x 32"
        yield _learner_row(watch, name, "trpo", VERY_MANY, num_steps=32, batch_size=65_536)
        return
    same: dict[str, Any] = {"batch_size": 512, "critic_updates": 20, "cg_damping": 1e-3, "gae_lambda": 0.98}
    for num_envs in (2, 16, 64):
        steps = 1024 // num_envs
        name = f"TRPO on CartPole, {num_envs} copies x {steps}"
        yield _learner_row(watch, name, "trpo", num_envs, num_steps=steps, **same)
    yield from peers.trpo(watch)


def _replay_row(watch: Stopwatch, name: str, agent: str, env: str, num_envs: int, **settings: Any) -> Row:
    """Acting, stepping, replay and learning of an off-policy agent, after its warm-up."""
    from mlbits.selfplay.runs.config import resolve
    from mlbits.selfplay.session import open_session

    run = {"num_envs": num_envs, "device": watch.device, "total_steps": 1_000_000}
    session = open_session(resolve(agent, env, preset="none", run=run, agent_settings=settings))
    session.counters.env_steps = 500_000  # past the exploration schedule

    def call() -> None:
        rollout, _, _ = session.collector.collect(session.lineup)
        session.learn(rollout)

    watch.warm_up(call, lambda: session.replay is None or session.replay.added >= 1024)
    return watch.row(name, call, num_envs * session.collector.spec.num_steps)


def bench_dqn(watch: Stopwatch) -> Iterator[Row]:
    """DQN on CartPole with Stable-Baselines3's defaults and with the settings of its zoo, beside Stable-Baselines3."""
    default: dict[str, Any] = {
        "batch_size": 32, "replay_ratio": 0.25, "target_every": 2500, "learning_rate": 1e-4, "learning_starts": 100,
        "hidden": [64, 64],
    }  # fmt: skip
    # The zoo updates the target every 10 steps; with rounds of 128 updates after 256 steps that is once per round.
    zoo = default | {
        "batch_size": 64, "replay_ratio": 0.5, "target_every": 128, "learning_rate": 2.3e-3, "hidden": [256, 256],
        "epsilon_end": 0.04,
    }  # fmt: skip
    shapes = (("CartPole-v1", 1), (POLE, 1), (POLE, 8)) if watch.device == "cpu" else ((POLE, 1024),)
    for words, settings, every in (("SB3 defaults", default, 4), ("SB3 zoo settings", zoo, 256)):
        for env, num_envs in shapes:
            name, num_steps = f"DQN on {env.removeprefix('mlbits/')} x {num_envs}, {words}", max(1, every // num_envs)
            yield _replay_row(watch, name, "dqn", env, num_envs, num_steps=num_steps, **settings)
        if watch.device == "cpu":
            yield from peers.dqn(watch, zoo=settings is zoo)


def bench_ddpg(watch: Stopwatch) -> Iterator[Row | Skipped]:
    """DDPG on Pendulum with Stable-Baselines3's defaults, beside it: an update of 256 transitions per step.

    Stable-Baselines3 only has float32; ours is also measured with products in bfloat16, where those are fast.
    """
    settings: dict[str, Any] = {"batch_size": 256, "replay_ratio": 1.0, "learning_starts": 100, "hidden": [400, 300]}
    native = "mlbits/Pendulum-v0"
    shapes = (("Pendulum-v1", 1), (native, 1), (native, 8)) if watch.device == "cpu" else ((native, 1024),)
    yield from _at_precisions(watch, "ddpg", shapes, settings)
    if watch.device == "cpu":
        yield peers.ddpg(watch)


def bench_sac(watch: Stopwatch) -> Iterator[Row | Skipped]:
    """SAC on Pendulum with Stable-Baselines3's defaults, beside it: an update of 256 transitions per step.

    As for DDPG, ours is also measured with products in bfloat16, where those are fast.
    """
    settings: dict[str, Any] = {"batch_size": 256, "replay_ratio": 1.0, "learning_starts": 100, "hidden": [256, 256]}
    native = "mlbits/Pendulum-v0"
    shapes = (("Pendulum-v1", 1), (native, 1)) if watch.device == "cpu" else ((native, 1024),)
    yield from _at_precisions(watch, "sac", shapes, settings)
    if watch.device == "cpu":
        yield peers.sac(watch)


def _at_precisions(
    watch: Stopwatch, agent: str, shapes: Sequence[tuple[str, int]], settings: Mapping[str, Any]
) -> Iterator[Row | Skipped]:
    """Rows of an agent on environments with numbers of copies: in float32, and in bfloat16 where that is fast."""
    for precision in ("float32", "bfloat16"):
        for env, num_envs in shapes:
            title = f"{agent.upper()} on {env.removeprefix('mlbits/')} x {num_envs}, {precision}"
            if precision == "bfloat16" and watch.device == "cpu" and not has_fast_bfloat16():
                reason = f"{describe().isa} has no products in bfloat16; emulated, they are slower than in float32"
                yield Skipped(title, reason)
                continue
            own = {**settings, "precision": precision, "num_steps": 1}
            yield _replay_row(watch, title, agent, env, num_envs, **own)


def bench_lpg(watch: Stopwatch) -> Iterator[Row]:
    """Meta-training of LPG's rule on small levels, everything counted: play, updates, meta-gradient, new levels.

    A step is a step of one copy of a level. On the CPU 64 lifetimes x 16 copies; on a GPU 512 x 64.
    """
    from mlbits.selfplay.meta.session import ENV, open_meta_session
    from mlbits.selfplay.runs.config import resolve

    lifetimes, copies = (64, 16) if watch.device == "cpu" else (512, 64)
    for hidden in (16, 32, 64):
        run = {"num_envs": lifetimes * copies, "device": watch.device}
        settings = {"hidden": hidden, "copies": copies}
        session = open_meta_session(resolve("meta-lpg", ENV, preset="none", run=run, agent_settings=settings))

        def call(session: Any = session) -> None:
            steps, _, _ = session.collect()
            session.learn(steps)

        steps = session.collect()[2]
        yield watch.row(f"LPG meta-training, GRU {hidden}, {lifetimes} x {copies} copies", call, steps)


def bench_sb3(watch: Stopwatch) -> Iterator[Row]:
    """CartPole through Stable-Baselines3's VecEnv interface, with random actions: our door, and SB3's DummyVecEnv."""
    for num_envs in (8, 64, 1024):
        envs = make_sb3(POLE, num_envs, seed=0, threads=1)
        yield peers.vec_env_row(watch, f"CartPole, make_sb3 of {num_envs:,}", envs)
    yield from peers.vec_envs(watch)


def bench_similarity(watch: Stopwatch) -> Iterator[Row]:
    """SimilarityPD, a joint step of both seats; every step is a whole episode."""
    for num_envs in (MANY, VERY_MANY) if watch.device == "cpu" else (VERY_MANY, 1_048_576):
        for noise in ("uniform", "gaussian"):
            name = f"SimilarityPD, {noise}, batch of {num_envs:,}" + (", GPU" if watch.device == "cuda" else "")
            yield _batch_row(watch, name, "mlbits/SimilarityPD-v0", num_envs, noise=noise)


def bench_pool(watch: Stopwatch) -> Iterator[Row]:
    """PPO on Blotto with learning: plain self-play, against 8 frozen copies, and leagues with 8 frozen members."""
    from mlbits.selfplay.runs.config import resolve
    from mlbits.selfplay.session import open_session

    ways: dict[str, dict[str, Any]] = {
        "plain self-play": {},
        "half against 8 frozen copies": {"pool": "uniform"},
        "all against 8 frozen copies": {"pool": "uniform", "pool_fraction": 1.0},
        "league of a main agent, 8 frozen": {"pool": "league", "main_exploiters": 0, "league_exploiters": 0},
        "league of 4 learners, 8 frozen": {"pool": "league"},
    }
    for way, run in ways.items():
        run |= {"num_envs": MANY, "device": watch.device, "pool_every": 10**12}
        session = open_session(
            resolve("ppo", "mlbits/Blotto-v0", preset="none", run=run, agent_settings={"num_steps": 8})
        )
        opponents = session.opponents
        while opponents is not None and len(opponents.copies) < 8:
            opponents.freeze(len(opponents.copies) % len(opponents.learners), 0)

        def call(session: Any = session) -> None:
            rollout, episodes, _ = session.collect()
            session.learn(rollout)
            if session.opponents is not None:
                session.opponents.note(episodes, 0)

        yield watch.row(f"PPO on Blotto, {MANY:,} copies, {way}", call, MANY * 8)


def bench_tournament(watch: Stopwatch) -> Iterator[Row]:
    """A tournament of eight PPO agents on Blotto, in memory; one step is one game."""
    from mlbits.agents.ppo import PPO, PPOConfig
    from mlbits.evals.tournament.config import TournamentConfig
    from mlbits.evals.tournament.tournament import play_tournament

    env, config = "mlbits/Blotto-v0", TournamentConfig(games=100)
    game = make_game(env)
    spaces = game.observation_space, game.action_space
    agents = {f"ppo-{seed}": PPO(PPOConfig(), *spaces, seed=seed, device=watch.device) for seed in range(8)}
    name, games = "Games of a tournament on Blotto, 8 PPO agents", 28 * config.games
    yield watch.row(name, lambda: play_tournament(agents, env, config, device=watch.device), games)


GROUPS: dict[str, Callable[[Stopwatch], Iterator[Row | Skipped]]] = {
    "gridworld": bench_gridworld,
    "cartpole": bench_cartpole,
    "similarity": bench_similarity,
    "single": bench_single,
    "ppo": bench_ppo,
    "trpo": bench_trpo,
    "dqn": bench_dqn,
    "ddpg": bench_ddpg,
    "sac": bench_sac,
    "lpg": bench_lpg,
    "population": bench_population,
    "sb3": bench_sb3,
    "pool": bench_pool,
    "tournament": bench_tournament,
    "diplomacy": bench_diplomacy,
    "boards": bench_boards,
    "search": bench_search,
}


# Groups that measure nothing on a GPU, and why.
CPU_ONLY = {
    "single": "one copy, a Python call for each step, runs on the CPU",
    "sb3": "Stable-Baselines3's interface hands over NumPy arrays, of the CPU",
}


def run_benchmarks(
    group: str = "all", *, device: str = "cpu", seconds: float = 1.0, jobs: int | None = None, cluster: str = ""
) -> list[Row]:
    """Measure one group or all; print the processor, each row as it is measured, and the names of skipped rows.

    Args:
        group: a key of GROUPS, or "all".
        device: "cpu" or "cuda".
        seconds: length of each measurement.
        jobs: groups measured at once, each in a process of its own, where their rows are printed together; None is 1,
            or as many as a cluster has CPUs. Groups at once share caches and memory: compare within a group.
        cluster: address of a Ray cluster to measure on; "" measures here.

    Raises:
        UnknownIdError: for an unknown group.
        DeviceError: if the device is not available, or the group measures nothing on it.
    """
    if group != "all" and group not in GROUPS:
        raise UnknownIdError("benchmark group", group, GROUPS)
    from mlbits.envs.engine.batch import parse_device
    from mlbits.envs.engine.gpu_copies import check_cuda, check_kernels

    kind = parse_device(device).type
    if kind == "cuda":
        if group in CPU_ONLY:
            raise DeviceError(f"device: got 'cuda' for the group {group}: {CPU_ONLY[group]}; wanted 'cpu'")
        check_kernels()
        check_cuda(torch.device("cuda"))
    set_up(threads=1)
    watch, console = Stopwatch(seconds, kind), Console(width=120, highlight=False)
    rows: list[Row] = []
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("mlbits", "torch", "numba"))
    console.print(f"{describe()}")
    console.print(f"{versions}; one torch thread; {kind}\n")
    console.print(f"{'measurement':<52} {'per CPU-second':>15} {'per second':>12}  library")
    wanted = []
    for name in GROUPS if group == "all" else [group]:
        if kind == "cuda" and name in CPU_ONLY:
            console.print(f"{name:<52} skipped: {CPU_ONLY[name]}")
            continue
        arguments: dict[str, Any] = {"group": name, "device": kind, "seconds": seconds}
        wanted.append(Job(name, f"{__name__}:bench_group", arguments, here=partial(_measured, name, watch, console)))
    with open_executor(jobs, cluster) as executor:
        for ended in in_order(wanted, JobQueue(executor, tries=1)):
            found = [Row(**row) if "reason" not in row else Skipped(**row) for row in ended.result()]
            if not isinstance(executor, InProcess):
                for one in found:
                    _print_row(console, one)
            rows += [row for row in found if isinstance(row, Row)]
    return rows


def bench_group(*, group: str, device: str, seconds: float) -> list[dict[str, Any]]:
    """Measure one group in any process.

    Args:
        group: a key of GROUPS.
        device: "cpu" or "cuda".
        seconds: length of each measurement.

    Returns:
        The fields of each :class:`~mlbits.evals.benchmarks.stopwatch.Row` or ``Skipped``.
    """
    set_up(threads=1)
    return _measured(group, Stopwatch(seconds, device), None)


def _measured(name: str, watch: Stopwatch, console: Console | None) -> list[dict[str, Any]]:
    """The rows of a group, printed as they are measured if there is a console."""
    found = []
    for row in GROUPS[name](watch):
        if console is not None:
            _print_row(console, row)
        found.append(asdict(row))
    return found


def _print_row(console: Console, row: Row | Skipped) -> None:
    if isinstance(row, Skipped):
        console.print(f"{row.name:<52} skipped: {row.reason}")
        return
    rates = f"{_rate(row.per_cpu_second):>15} {_rate(row.per_second):>12}"
    console.print(f"{row.name:<52} {rates}  {row.peer or 'mlbits'}")


def _rate(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
