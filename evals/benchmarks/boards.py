"""Speed of board games and of tree search, beside OpenSpiel, pgx and mctx where they are installed.

Random legal steps: actions are drawn from the masks by a compiled loop and played in the same run, so that drawing is
part of what is measured, as it is for the peers; every step writes all masks and observations, and resets ended games.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from numba import njit

from mlbits.agents.search.search import SearchConfig, TreeSearch
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.envs.registry import make_batch, make_game, registered
from mlbits.evals.benchmarks import board_peers
from mlbits.evals.benchmarks.stopwatch import Row, Stopwatch

MANY, GPU_MANY, GAMES, SIMULATIONS = 4096, 65_536, 1024, 32
FOUR = "mlbits/ConnectFour-v0"
# Name, id, settings, and the names of OpenSpiel and pgx (its copies in a batch).
BOARDS: tuple[tuple[str, str, dict[str, Any], str, str, int], ...] = (
    ("Connect Four", FOUR, {}, "connect_four", "connect_four", MANY),
    ("Othello", "mlbits/Othello-v0", {}, "othello", "othello", MANY),
    ("Hex 11x11", "mlbits/Hex-v0", {"size": 11}, "hex", "", 0),
    ("Go 9x9", "mlbits/Go-v0", {"size": 9}, "go(board_size=9)", "go_9x9", 256),
    ("chess", "mlbits/Chess-v0", {}, "chess", "chess", 256),
)


@njit(cache=True)
def draw_legal(legal: Any, active: Any, actions: Any, streams: Any) -> None:
    """Draw a legal action for the seat of each copy that acts, by counting; ``streams`` [B] are random numbers."""
    for b in range(actions.shape[0]):
        seat = 0 if active[b, 0] else 1
        count = 0
        for a in range(legal.shape[2]):
            count += legal[b, seat, a]
        streams[b] = streams[b] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        drawn = np.int64(((streams[b] >> np.uint64(33)) * np.uint64(count)) >> np.uint64(31))
        passed, action = 0, 0
        while action + 32 < legal.shape[2]:  # 32 at once; the last ones without a branch, hard to guess
            block = 0
            for a in range(action, action + 32):
                block += legal[b, seat, a]
            if passed + block > drawn:
                break
            passed += block
            action += 32
        for a in range(action, min(action + 32, legal.shape[2])):
            passed += legal[b, seat, a]
            action += passed <= drawn
        actions[b, seat] = action
        actions[b, 1 - seat] = 0


def random_steps(watch: Stopwatch, name: str, env: str, num_envs: int, **settings: Any) -> Row:
    """Random legal steps of a game of two seats that move in turn."""
    copies = Copies(make_game(env, **settings), num_envs, threads=1)
    copies.seed(0)
    copies.reset()
    actions = np.zeros((num_envs, 2), np.int64)
    streams = np.arange(1, num_envs + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)

    def call() -> None:
        for _ in range(8):
            draw_legal(copies.legal, copies.active, actions, streams)
            copies.step(actions)

    return watch.row(name, call, 8 * num_envs)


def gpu_steps(watch: Stopwatch, name: str, env: str, num_envs: int, **settings: Any) -> Row:
    """Random legal steps on a GPU, drawn there from the masks; nothing waits for it."""
    batch = make_batch(env, num_envs, watch.device, illegal="replace", **settings)

    def call() -> None:
        for _ in range(8):
            batch.step(batch.sample_actions())

    return watch.row(name, call, 8 * num_envs)


def bench_boards(watch: Stopwatch) -> Iterator[Row]:
    """Random legal steps of board games, drawn in compiled code (on a GPU by torch), and chess's perft on the CPU."""
    if watch.device == "cuda":
        for title, env, settings, *_ in BOARDS:
            if env in registered():
                yield gpu_steps(watch, f"{title}, {GPU_MANY:,} copies, random legal steps", env, GPU_MANY, **settings)
        return
    for title, env, settings, spiel, pgx, batch in BOARDS:
        if env not in registered():
            continue
        yield random_steps(watch, f"{title}, {MANY:,} copies, random legal steps", env, MANY, **settings)
        yield from board_peers.random_steps(watch, title, spiel, pgx, batch)
    if "mlbits/Chess-v0" in registered():
        perft = importlib.import_module("mlbits.envs.board.chess.perft").perft
        state = make_batch("mlbits/Chess-v0", 1).records()[0]
        yield watch.row("chess, perft(5) from the start, leaves", lambda: perft(state, 5), 4_865_609)
        yield from board_peers.perft(watch)


def small_network(inputs: int, actions: int) -> torch.nn.Module:
    """A 64x64 network with a policy and a value."""
    layers = [torch.nn.Linear(inputs, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(64, actions + 1))


def bench_search(watch: Stopwatch) -> Iterator[Row]:
    """Tree search in Connect Four from the start: simulations with random games, and with a small network."""
    game = make_game(FOUR)
    generator = torch.Generator().manual_seed(0)
    network = small_network(3 * 6 * 7, 7).to(watch.device)

    @torch.inference_mode()
    def evaluate(obs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = network(obs.flatten(1).float())
        return out[:, :7], out[:, 7].tanh()

    if watch.device == "cpu":
        states = make_batch(FOUR, 8).state()
        search = TreeSearch(game, SearchConfig(method="uct", simulations=1000))
        yield watch.row(
            "Connect Four, UCT, 1,000 random games a move", lambda: search.run(states, None, generator), 8 * 1000
        )
        yield from board_peers.rollouts(watch)
    games = GAMES if watch.device == "cpu" else 16 * GAMES
    states = make_batch(FOUR, games).state()
    methods: tuple[Literal["gumbel", "puct"], ...] = ("gumbel", "puct")
    for method in methods:
        tree = TreeSearch(game, SearchConfig(method=method, simulations=SIMULATIONS), watch.device)

        def call(tree: TreeSearch = tree) -> None:
            tree.run(states, evaluate, generator, explore=True)

        name = f"Connect Four, {method}, {games:,} x {SIMULATIONS}, 64x64 MLP"
        yield watch.row(name, call, games * SIMULATIONS)
    if watch.device == "cpu":
        yield from board_peers.gumbel(watch, GAMES, SIMULATIONS)
