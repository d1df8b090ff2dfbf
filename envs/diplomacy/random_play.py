"""Random legal play, compiled: every unit gets an order drawn from its legal ones, without a mask in between.

For measuring, for rollouts to the end of a game, and for making test positions.

Example:
    >>> from mlbits.envs.diplomacy.game import diplomacy_mini
    >>> games = RandomGames(diplomacy_mini(), num_games=4, seed=0)
    >>> games.play(phases=10)
    40
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.game import Game
from mlbits.envs.core.random import copy_keys, randint
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import integer
from mlbits.envs.diplomacy import phases as rules
from mlbits.envs.diplomacy.aftermath import clear_orders
from mlbits.envs.diplomacy.codes import ADJUSTMENTS, FALL_RETREATS, NO_UNIT, SPRING_RETREATS
from mlbits.envs.diplomacy.order_masks import list_builds, list_disbands, list_moves, list_retreats
from mlbits.envs.engine.driver import load_generated

_TEXT = '''"""Random Diplomacy over many records, written by mlbits; safe to delete, it is made again."""

from numba import njit

from mlbits.envs.diplomacy.phases import advance, legal, prepare, reset
from mlbits.envs.diplomacy.random_play import random_orders


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def start(states, params):
    for b in range(len(states)):
        reset(states[b], params[0])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def look(states, params):
    for b in range(len(states)):
        prepare(states[b], params[0])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def play(states, params, rewards, phases):
    """Play phases of each game, new games where one ends; returns how many games ended."""
    ended = 0
    for b in range(len(states)):
        for _ in range(phases):
            random_orders(states[b], params[0])
            if advance(states[b], params[0], rewards):
                ended += 1
                reset(states[b], params[0])
    return ended


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def draw(states, params):
    for b in range(len(states)):
        random_orders(states[b], params[0])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def finish(states, params, rewards):
    """Play each game from its first position to its end; returns how many phases that took."""
    phases = 0
    for b in range(len(states)):
        reset(states[b], params[0])
        ended = False
        while not ended:
            random_orders(states[b], params[0])
            ended = advance(states[b], params[0], rewards)
            phases += 1
    return phases


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def masks(states, params, out):
    """Write the masks of every seat into out [P, K * W], position after position."""
    for b in range(len(states)):
        for seat in range(params[0].powers):
            out[seat, :] = False
            legal(states[b], params[0], seat, out[seat])
'''


@rule(inline=False)
def random_orders(state: Any, params: Any) -> None:
    """Give every unit that must be ordered one of its legal orders, each as likely."""
    clear_orders(state, params)
    if state.phase == ADJUSTMENTS:
        for seat in range(params.powers):
            _random_adjustments(state, params, seat)
        return
    retreats = state.phase == SPRING_RETREATS or state.phase == FALL_RETREATS
    for p in range(params.provinces):
        if (state.out_kind[p] if retreats else state.unit_kind[p]) != NO_UNIT:
            count = list_retreats(state, params, p) if retreats else list_moves(state, params, p)
            index = state.choices[randint(state, count)]
            power = state.out_power[p] if retreats else state.unit_power[p]
            rules.give_order(state, params, p, power, rules.list_of(state, params, p, retreats), index)


@rule(inline=False)
def _random_adjustments(state: Any, params: Any, seat: Any) -> None:
    due = state.due[seat]
    number = 4 * params.locations + (seat if due > 0 else params.powers)
    count = 0
    if due != 0:
        count = list_builds(state, params, seat) if due > 0 else list_disbands(state, params, seat)
    for _ in range(abs(due)):
        index = state.choices[randint(state, count)]
        if index > 0:
            p = np.int64(params.province_of[params.entry_target[params.list_start[number] + index]])
            rules.give_order(state, params, p, seat, number, index)


class RandomGames:
    """Games of random legal play, all on one core.

    Args:
        game: a game of Diplomacy.
        num_games: how many go on at once.
        seed: game i plays as copy i of a batch with that seed would draw.

    Attributes:
        states: their records, [num_games].
    """

    def __init__(self, game: Game, num_games: int, seed: int = 0) -> None:
        num_games = integer("num_games", num_games, 1, 2**31 - 1)
        self.game, self.params = game, game.params
        self.states = np.zeros(num_games, game.state_dtype)
        self.states["rng_key"] = copy_keys(seed, num_games)
        self._rewards = np.zeros(game.seats, np.float32)
        self._kernel().start(self.states, self.params)

    def play(self, phases: int) -> int:
        """Play so many phases of each game, starting anew where one ends; returns how many were played."""
        self._kernel().play(self.states, self.params, self._rewards, phases)
        return phases * len(self.states)

    def draw_orders(self) -> None:
        """Draw the orders of each game's phase and leave them in the records, not carried out."""
        self._kernel().draw(self.states, self.params)

    def prepare(self) -> None:
        """Find out what masks need, after positions were written into ``states`` by hand."""
        self._kernel().look(self.states, self.params)

    def finish(self) -> int:
        """Play each game from its first position to its end; returns how many phases that took."""
        return int(self._kernel().finish(self.states, self.params, self._rewards))

    def masks(self, out: NDArray[np.bool_]) -> None:
        """Write every seat's mask, position after position, into ``out`` bool [P, K * W]; the last one stays."""
        self._kernel().masks(self.states, self.params, out)

    def _kernel(self) -> ModuleType:
        called = {name: getattr(rules, name) for name in ("advance", "legal", "prepare", "reset")}
        return load_generated("diplomacy_random_play", _TEXT, called | {"random_orders": random_orders})
