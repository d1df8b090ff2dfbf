"""Imitation of saved games of Diplomacy: decisions and outcomes from files of the ``diplomacy`` package.

Every phase of a game gives one example for each power that had something to order: what its seat would have observed
(the last phase's orders and fates included), its legal orders, its orders as the action, and the game's outcome for it.
A unit without a readable, legal order gets what the rules give it (it holds, disbands, is not built); a power whose
due disbands are not named gives no example. Games on another board are refused by the reader.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, pick
from mlbits.agents.best_response.transitions import Transitions
from mlbits.agents.networks.actor_critic import ActorCriticCore
from mlbits.envs.core.game import Game
from mlbits.envs.diplomacy.codes import ADJUSTMENTS, DISBAND, FALL_RETREATS, HOLD, SPRING_RETREATS, WAIVE
from mlbits.envs.diplomacy.files.played_phase import PlayedPhase
from mlbits.envs.diplomacy.files.saved_games import GameRecord, load_games
from mlbits.envs.diplomacy.files.saved_results import order_of
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.phases import CENTERS, DRAW_SIZE
from mlbits.envs.diplomacy.position import Position
from mlbits.envs.diplomacy.random_play import RandomGames
from mlbits.envs.diplomacy.records import write_orders, write_position
from mlbits.envs.diplomacy.vocabulary import Vocabulary, vocabulary


class Examples(NamedTuple):
    """N decisions of saved games.

    Attributes:
        obs: what the seat observed, a dict of [N, ...].
        mask: legal choices, bool [N, A].
        action: int64 [N, K].
        outcome: the game's outcome for the seat, float32 [N]; NaN where the game was not finished.
    """

    obs: Any
    mask: Tensor
    action: Tensor
    outcome: Tensor


def read_examples(path: str, game: Game) -> Examples:
    """The decisions in a file of saved games.

    Args:
        path: the file.
        game: Diplomacy on the games' board.

    Raises:
        AgentError: if the game is not Diplomacy, or no decision can be read.
        GameError: if the file cannot be read.
    """
    board = game.layout.get("board")
    if board is None:
        raise AgentError(f"games: got a file for {game.name}; wanted a game of Diplomacy")
    parts = [_examples(record, game) for record in load_games(path, board)]
    parts = [part for part in parts if len(part.outcome)]
    if not parts:
        raise AgentError(f"games: {path} has no decision that can be read; wanted some")
    obs = {name: torch.cat([part.obs[name] for part in parts]) for name in parts[0].obs}
    return Examples(obs, *(torch.cat([part[k] for part in parts]) for k in (1, 2, 3)))


def _examples(record: GameRecord, game: Game) -> Examples:
    """The decisions of one game."""
    words, phases = vocabulary(game.layout["board"]), record.phases
    games = RandomGames(game, len(phases))
    states = games.states
    for number, phase in enumerate(phases):
        write_position(phase.position, states[number])
        if number:
            _write_last_orders(phases[number - 1], states[number])
    games.prepare()
    states["over"] = 0
    table = Transitions(game).look(states, game.params)
    assert table.mask is not None
    scores = _scores(phases[-1].position, game) if record.over else np.full(game.seats, np.nan)
    found: list[tuple[int, int, Tensor]] = []
    for number, phase in enumerate(phases):
        for seat, power in enumerate(game.layout["board"].powers):
            slots = table.obs["slots"][number, seat]
            if power in phase.orders and bool(table.acts[number, seat]):
                legal = table.mask[number, seat].view(len(slots), -1)
                action = _action(phase, phase.orders[power], slots.tolist(), legal, words)
                if action is not None:
                    found.append((number, seat, action))
    rows = torch.tensor([number * game.seats + seat for number, seat, _ in found], dtype=torch.int64)
    actions = torch.stack([action for _, _, action in found]) if found else torch.zeros(0, len(game.action.nvec)).long()
    outcome = torch.tensor([scores[seat] for _, seat, _ in found], dtype=torch.float32)
    obs = {name: value.flatten(0, 1)[rows] for name, value in table.obs.items()}
    return Examples(obs, table.mask.flatten(0, 1)[rows], actions, outcome)


def _write_last_orders(before: PlayedPhase, record: Any) -> None:
    """Write the orders of the phase before, and their fates, where observations look for them."""
    position, orders = before.position, {}
    for texts in before.orders.values():
        for text in texts:
            order = order_of(text, position)
            if order is not None and order.location >= 0:
                province = int(position.board.province_of[order.location])
                disbands = order.kind == DISBAND and position.phase == ADJUSTMENTS
                orders[province] = order._replace(target=province) if disbands else order
    write_orders(orders, record)
    record["order_power"] = -1
    for power, texts in before.orders.items():
        for text in texts:
            order = order_of(text, position)
            if order is not None and order.location >= 0:
                place = position.board.province_of[order.location]
                record["order_power"][place] = position.board.power_index[power]
    for province, bits in (before.fates or {}).items():
        record["fate"][province] = bits


def _action(
    phase: PlayedPhase, texts: tuple[str, ...], slots: list[int], legal: Tensor, words: Vocabulary
) -> Tensor | None:
    """The choices of the slots [K], or None if they cannot be read."""
    orders = [order for text in texts if (order := order_of(text, phase.position)) is not None]
    action = legal.to(torch.uint8).argmax(1)
    for k, lists in enumerate(slots):
        if lists == 0:
            continue
        context = lists - 1
        choice = next((c for order in orders if (c := _choice(order, context, phase.position, words)) >= 0), -1)
        if phase.position.phase == ADJUSTMENTS and choice >= 0:
            orders.remove(next(o for o in orders if words.find(context, o) == choice))
        if choice < 0 or not bool(legal[k, choice]):
            choice = _unordered(context, phase.position, words)
        if choice < 0 or not bool(legal[k, choice]):
            return None
        action[k] = choice
    return action


def _choice(order: Order, context: int, position: Position, words: Vocabulary) -> int:
    """Index of an order in a slot's list, -1 if it is for another unit or not in the list."""
    if context < words.building(0):
        retreats = position.phase in (SPRING_RETREATS, FALL_RETREATS)
        own = words.retreating if retreats else words.moving
        if order.location < 0 or own(order.unit, order.location) != context:
            return -1
    return words.find(context, order)


def _unordered(context: int, position: Position, words: Vocabulary) -> int:
    """What a unit without an order does: index in its list, -1 for a disband that is due."""
    if position.phase == ADJUSTMENTS:
        return -1 if context == words.disbanding else words.find(context, Order(WAIVE, 0, -1))
    kind = DISBAND if position.phase in (SPRING_RETREATS, FALL_RETREATS) else HOLD
    return words.find(context, Order(kind, 0, 0))


def _scores(position: Position, game: Game) -> np.ndarray:
    """How the game's scoring divides 1 at its end, [P]."""
    params, seats = game.params[0], game.seats
    centers = np.bincount(list(position.centers.values()), minlength=seats).astype(float)
    units = np.bincount([unit.power for unit in position.units.values()], minlength=seats)
    alive = (centers + units) > 0
    winner = centers >= params["victory"]
    if winner.any() or alive.sum() == 1:
        return (winner if winner.any() else alive).astype(float)
    if params["scoring"] == DRAW_SIZE or not centers.any():
        return alive / max(1, alive.sum())
    weights = centers if params["scoring"] == CENTERS else centers**2
    return np.asarray(weights / weights.sum())


def imitate(core: ActorCriticCore, game: Game, config: Any, generator: torch.Generator) -> dict[str, float]:
    """Train a policy and a value on saved games.

    Args:
        core: the network.
        game: Diplomacy on the games' board.
        config: settings with games, imitation_steps, batch_size and value_coef.
        generator: samples minibatches.

    Returns:
        The last step's losses: "policy_loss", nats a decision, and "value_loss".
    """
    data = read_examples(config.games, game)
    device = next(core.network.parameters()).device
    found: dict[str, float] = {}
    for _ in range(config.imitation_steps):
        index = torch.randint(len(data.outcome), (config.batch_size,), generator=generator, device=generator.device)
        obs = {name: value.to(device) for name, value in pick(data.obs, index).items()}
        params, value = core.network(core.prepare(obs))
        policy_loss = -core.distribution.log_prob(params, data.mask[index].to(device), data.action[index].to(device))
        outcome = data.outcome[index].to(device)
        known = ~outcome.isnan()
        value_loss = 0.5 * torch.where(known, value - outcome, 0.0).square().sum() / known.sum().clamp(min=1)
        core.optimizer.zero_grad()
        (policy_loss.mean() + config.value_coef * value_loss).backward()
        core.optimizer.step()
        found = {"policy_loss": float(policy_loss.detach().mean()), "value_loss": float(value_loss.detach())}
    return found
