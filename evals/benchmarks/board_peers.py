"""OpenSpiel, pgx, mctx and python-chess at the work of ``boards``, each measured only if it is installed.

OpenSpiel is called from Python, one game after another; its search runs in C++. pgx draws actions and resets ended
games inside a compiled scan; mctx searches with pgx's rules, as its users run it. What runs in JAX is measured in a
process of its own; its rate per CPU-second counts the time of all its threads.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from typing import Any

from mlbits.evals.benchmarks.peers import apart, measured, version
from mlbits.evals.benchmarks.stopwatch import Row, Stopwatch


def random_steps(watch: Stopwatch, title: str, spiel: str, pgx: str, batch: int) -> Iterator[Row]:
    """Random legal steps in OpenSpiel and pgx."""
    yield from measured(lambda: _spiel_steps(watch, title, spiel), "pyspiel")
    if pgx:
        yield from measured(lambda: apart(_pgx_steps, watch, title, pgx, batch), "pgx", "jax")


def rollouts(watch: Stopwatch) -> Iterator[Row]:
    """OpenSpiel's MCTS in C++ with one random game per leaf, c = 2 and its solver."""
    yield from measured(lambda: _spiel_search(watch), "pyspiel")


def gumbel(watch: Stopwatch, games: int, simulations: int) -> Iterator[Row]:
    """Mctx's Gumbel search with pgx's Connect Four and a 64x64 network."""
    yield from measured(lambda: apart(_mctx, watch, games, simulations), "mctx", "pgx", "jax")


def perft(watch: Stopwatch) -> Iterator[Row]:
    """The same count by python-chess, three plies deep, leaves counted in bulk."""
    yield from measured(lambda: _chess_perft(watch), "chess")


def _spiel_steps(watch: Stopwatch, title: str, name: str) -> Row:
    game = importlib.import_module("pyspiel").load_game(name)
    draw, steps = random.Random(0).choice, 1000

    def call() -> None:
        state = game.new_initial_state()
        for _ in range(steps):
            state.apply_action(draw(state.legal_actions()))
            if state.is_terminal():
                state = game.new_initial_state()

    return watch.row(f"{title}, from Python, random legal steps", call, steps, version("open_spiel"))


def _spiel_search(watch: Stopwatch) -> Row:
    spiel = importlib.import_module("pyspiel")
    game = spiel.load_game("connect_four")
    evaluator = spiel.RandomRolloutEvaluator(1, 0)
    bot = spiel.MCTSBot(game, evaluator, 2.0, 1000, 1000, True, 0, False)
    state = game.new_initial_state()
    name = "Connect Four, MCTS, 1,000 random games a move"
    return watch.row(name, lambda: bot.mcts_search(state), 1000, version("open_spiel"))


def _pgx_steps(watch: Stopwatch, title: str, name: str, num_envs: int) -> Row:
    import jax

    pgx: Any = importlib.import_module("pgx")
    auto_reset = importlib.import_module("pgx.experimental.wrappers").auto_reset
    env = pgx.make(name)
    init, step, length = jax.vmap(env.init), jax.vmap(auto_reset(env.step, env.init)), max(8, 65_536 // num_envs)

    def one(state: Any, key: Any) -> Any:
        drawn, reset = jax.random.split(key)
        logits = jax.numpy.log(state.legal_action_mask.astype(jax.numpy.float32))
        action = jax.random.categorical(drawn, logits, axis=-1)
        following = step(state, action, jax.random.split(reset, num_envs))
        return following, following.observation.sum() + following.legal_action_mask.sum()  # both are needed

    @jax.jit
    def scan(state: Any, key: Any) -> Any:
        return jax.lax.scan(one, state, jax.random.split(key, length))

    state = init(jax.random.split(jax.random.key(0), num_envs))
    key = jax.random.key(1)
    label = f"{title}, {num_envs:,} copies (JAX), random legal steps"
    return watch.row(label, lambda: jax.block_until_ready(scan(state, key)), length * num_envs, version("pgx"))


def _mctx(watch: Stopwatch, games: int, simulations: int) -> Row:
    import jax
    import jax.numpy as jnp

    mctx: Any = importlib.import_module("mctx")
    env = importlib.import_module("pgx").make("connect_four")
    init, step = jax.vmap(env.init), jax.vmap(env.step)
    keys = jax.random.split(jax.random.key(0), 4)
    state = init(jax.random.split(keys[0], games))
    sizes = (state.observation[0].size, 64, 64, 8)
    weights = [
        (jax.random.normal(key, (a, b)) / a**0.5, jnp.zeros(b))
        for key, a, b in zip(keys[1:], sizes[:-1], sizes[1:], strict=True)
    ]

    def network(weights: Any, obs: Any) -> Any:
        x = obs.reshape(len(obs), -1).astype(jnp.float32)
        for layer, (matrix, bias) in enumerate(weights):
            x = x @ matrix + bias
            x = jax.nn.relu(x) if layer < 2 else x
        return x[:, :7], jnp.tanh(x[:, 7])

    def recur(weights: Any, key: Any, action: Any, state: Any) -> Any:
        mover = state.current_player
        state = step(state, action)
        logits, value = network(weights, state.observation)
        logits = jnp.where(state.legal_action_mask, logits, jnp.finfo(jnp.float32).min)
        ended = state.terminated
        found = mctx.RecurrentFnOutput(
            reward=state.rewards[jnp.arange(games), mover], discount=jnp.where(ended, 0.0, -1.0),
            prior_logits=logits, value=jnp.where(ended, 0.0, value),
        )  # fmt: skip
        return found, state

    @jax.jit
    def search(weights: Any, state: Any, key: Any) -> Any:
        logits, value = network(weights, state.observation)
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state)
        return mctx.gumbel_muzero_policy(
            weights, key, root, recur, num_simulations=simulations, invalid_actions=~state.legal_action_mask
        ).action

    key = jax.random.key(1)
    name = f"Connect Four, gumbel, {games:,} x {simulations}, 64x64 MLP (JAX)"
    libraries = f"{version('mctx')}, {version('pgx')}"
    return watch.row(name, lambda: jax.block_until_ready(search(weights, state, key)), games * simulations, libraries)


def _chess_perft(watch: Stopwatch) -> Row:
    chess: Any = importlib.import_module("chess")
    board = chess.Board()

    def count(depth: int) -> int:
        if depth == 1:
            return int(board.legal_moves.count())
        found = 0
        for move in board.legal_moves:
            board.push(move)
            found += count(depth - 1)
            board.pop()
        return found

    return watch.row("chess, perft(3) from the start, leaves", lambda: count(3), 8902, version("chess"))
