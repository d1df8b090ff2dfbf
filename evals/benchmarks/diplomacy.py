"""Speed of Diplomacy: adjudication, random play, masks, search, beside the ``diplomacy`` package if it is installed.

Movement phases are those of the test vectors if the command runs in a clone, else those of random games; the peer gets
the same positions and orders.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlbits.agents.best_response.leaves import Critic
from mlbits.agents.best_response.policies import SamePolicy, Uniform
from mlbits.agents.best_response.sampled_best_response import SampledBestResponse, first_equal
from mlbits.agents.best_response.transitions import Table
from mlbits.envs.core.random import copy_keys
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import FALL_MOVES, SPRING_MOVES
from mlbits.envs.diplomacy.compiled_adjudicator import Adjudicator
from mlbits.envs.diplomacy.files.vectors import movement_phases
from mlbits.envs.diplomacy.game import diplomacy
from mlbits.envs.diplomacy.order_parser import order_text
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position
from mlbits.envs.diplomacy.random_play import RandomGames
from mlbits.envs.diplomacy.records import board_dtype, read_orders, read_position, write_orders, write_position
from mlbits.envs.engine.cpu_copies import Copies
from mlbits.envs.registry import make_batch
from mlbits.evals.benchmarks.stopwatch import Row, Stopwatch

VECTORS = Path("tests/envs/diplomacy/differential.jsonl.gz")
GAMES, GPU_GAMES, LAST_YEAR = 256, 65_536, 1910
SEARCHED, SEARCH_GAMES, SEARCH_POSITIONS, SEARCHED_ACTIONS = "Diplomacy", 8, 8, 16
PEER_GAMES = 2  # whole games of the Python engine per call: a tenth of a second each

Phase = tuple[Position, dict[int, Order]]


def bench_diplomacy(watch: Stopwatch) -> Iterator[Row]:
    """Diplomacy's adjudicator, random games and masks, on one core (or the adjudicator on a GPU)."""
    phases, source = _movement_phases()
    units = np.mean([len(position.units) for position, _ in phases])
    board = phases[0][0].board
    copies = -(-GPU_GAMES // len(phases)) if watch.device == "cuda" else 1
    states = np.zeros(len(phases), board_dtype(board))
    for record, (position, orders) in zip(states, phases, strict=True):
        write_position(position, record)
        write_orders(orders, record)
    adjudicator = Adjudicator(np.tile(states, copies), board, device=watch.device)
    name = f"adjudicate movement, {source}, {units:.0f} units"
    yield watch.row(name + (", GPU" if watch.device == "cuda" else ""), adjudicator.run, copies * len(phases))
    if watch.device == "cuda":
        return
    yield from _peer(watch, lambda: _peer_adjudicates(watch, name, phases))
    games = RandomGames(diplomacy(last_year=LAST_YEAR), GAMES)
    played = games.play(40)
    yield watch.row("random legal orders and adjudication, all phases", lambda: games.play(40), played)
    yield watch.row(f"whole random games to {LAST_YEAR}", games.finish, GAMES)
    mask = np.zeros((games.game.seats, games.game.action.mask_size), bool)
    _into_movement(games, phases)
    yield watch.row(f"masks of a position, {source}", lambda: games.masks(mask), len(games.states))
    yield from _peer(watch, lambda: _peer_lists(watch, f"legal orders of a position, {source}", phases))
    yield from _peer(watch, lambda: _peer_plays(watch))
    yield from _searches(watch)


def _searches(watch: Stopwatch) -> Iterator[Row]:
    """Sampled best response of all seven seats, B = C = 16, random policies: transitions, draws and choices included.

    The positions are those of random games, as they come; equal candidates are evaluated and counted once.
    """
    batch = make_batch(f"mlbits/{SEARCHED}-v0", SEARCH_GAMES, threads=1)
    assert isinstance(batch.copies, Copies)
    game, generator = batch.game, torch.Generator().manual_seed(0)
    for what, leaf in (("", None), (", next positions observed", _Nothing())):
        policy = Uniform(game)
        search = SampledBestResponse(
            game, SamePolicy(policy), [(policy, SEARCHED_ACTIONS)], profiles=SEARCHED_ACTIONS, leaf=leaf
        )
        tables, steps = [], 0
        for _ in range(SEARCH_POSITIONS):
            tables.append(search.transitions.look(batch.copies.states.copy(), game.params))
            batch.step(search(tables[-1], generator).action)
        calls = itertools.cycle(tables)
        for table in tables:
            new = first_equal(search(table, generator).candidates) == torch.arange(SEARCHED_ACTIONS)
            steps += int((new & table.acts.unsqueeze(2)).sum()) * SEARCHED_ACTIONS
        name = f"sampled best response, seven seats, B = C = {SEARCHED_ACTIONS}, random policies{what}: transitions"

        def call(search: SampledBestResponse = search, calls: Iterator[Table] = calls) -> None:
            search(next(calls), generator)

        yield watch.row(name, lambda call=call: [call() for _ in range(SEARCH_POSITIONS)], steps)  # type: ignore[misc]


class _Nothing(Critic):
    """Values of zero, for which the next positions are observed."""

    def __init__(self) -> None:
        super().__init__(self)

    def state_values(self, obs: Any) -> torch.Tensor:
        return torch.zeros(len(obs["slots"]))


def _movement_phases() -> tuple[list[Phase], str]:
    if VECTORS.is_file():
        return movement_phases(VECTORS, load_board("standard")), "test vectors"
    games = RandomGames(diplomacy(last_year=LAST_YEAR), 1024)
    board = games.game.layout["board"]
    phases: list[Phase] = []
    while len(phases) < 512:
        games.play(7)
        games.draw_orders()
        for record in games.states:
            if record["phase"] in (SPRING_MOVES, FALL_MOVES):
                phases.append((read_position(record, board), read_orders(record)))
    return phases[:512], "random games"


def _into_movement(games: RandomGames, phases: list[Phase]) -> None:
    """Set the games to the phases' positions."""
    states = np.zeros(len(phases), games.game.state_dtype)
    states["rng_key"] = copy_keys(0, len(phases))
    for record, (position, _) in zip(states, phases, strict=True):
        write_position(position, record)
    games.states = states
    games.prepare()


def _peer(watch: Stopwatch, measure: Callable[[], Row]) -> Iterator[Row]:
    if importlib.util.find_spec("diplomacy") is not None:
        yield measure()


def _version() -> str:
    return f"diplomacy {importlib.metadata.version('diplomacy')}"


def _peer_game(position: Position) -> Any:
    from diplomacy import Game

    game = Game()
    game.clear_units()
    game.clear_centers()
    form = position.to_json()
    for power in position.board.powers:
        game.set_units(power, form["units"].get(power, []), reset=True)
        game.set_centers(power, form["centers"].get(power, []), reset=True)
    game.set_current_phase(position.phase_name)
    return game


def _peer_adjudicates(watch: Stopwatch, name: str, phases: list[Phase]) -> Row:
    """Only ``process()`` is measured: copies of games with their orders are prepared beforehand."""
    import time

    chosen = phases[:: max(1, len(phases) // 200)]
    cpu = wall = 0.0
    for position, orders in chosen:
        game = _peer_game(position)
        for p, order in orders.items():
            power = position.board.powers[position.units[p].power]
            game.set_orders(power, [order_text(order, position.board, position)], expand=False)
        start, started = time.process_time(), time.perf_counter()
        game.process()
        cpu, wall = cpu + time.process_time() - start, wall + time.perf_counter() - started
    return Row(name, len(chosen) / cpu, len(chosen) / wall, _version())


def _peer_lists(watch: Stopwatch, name: str, phases: list[Phase]) -> Row:
    games = [_peer_game(position) for position, _ in phases[:32]]
    return watch.row(name, lambda: [game.get_all_possible_orders() for game in games], len(games), _version())


def _peer_plays(watch: Stopwatch) -> Row:
    from diplomacy import Game

    draw = random.Random(0)

    def call() -> None:
        for _ in range(PEER_GAMES):
            game = Game()
            while not game.is_game_done and int(game.get_current_phase()[1:5]) <= LAST_YEAR:
                orders = game.get_all_possible_orders()
                for power in game.powers:
                    places = game.get_orderable_locations(power)
                    game.set_orders(power, [draw.choice(orders[place]) for place in places if orders[place]])
                game.process()

    return watch.row(f"whole random games to {LAST_YEAR}", call, PEER_GAMES, _version())
