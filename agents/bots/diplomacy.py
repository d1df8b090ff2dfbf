"""Bots for Diplomacy boards: one that holds, and a greedy one that takes and defends supply centres.

Opponents that never change, for training and measurements. Their inputs are a seat's observation and legal orders, and
the action space, an :class:`~mlbits.envs.core.order_space.OrderSpace`; they play any board, whole batches at once, and
know the columns of its observation (:mod:`mlbits.envs.diplomacy.game`). Uniformly random orders are those of
:class:`~mlbits.agents.bots.random_bot.RandomAgent`.

The greedy bot scores every legal order and gives the order to the unit whose best order scores highest, then to the
next, each time taking its earlier orders into account: so it supports its own attacks, follows units that leave and
does not bounce itself. A little noise decides between nearly equal orders, so that its games differ.

Example:
    mlbits eval runs/mine --opponents diplomacy-greedy
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.order_space import OrderSpace
from mlbits.envs.diplomacy.codes import (
    BUILD,
    BUILD_FLEET,
    DISBAND,
    FALL_MOVES,
    HOLD,
    MOVE,
    RETREAT,
    SUPPORT,
    SUPPORT_MOVE,
    WAIVE,
)

_FAR = 9.0  # steps; this far or farther counts as out of reach
_NEVER = -100.0  # the score of orders given only if nothing else is legal


@configuration(AgentError)
class HoldConfig:
    """The bot that holds has no settings."""


@configuration(AgentError)
class GreedyConfig:
    """Settings of the greedy bot."""

    noise: float = setting(
        0.3, "orders whose scores differ by less than this may be swapped", low=0, high=100,
        unit="points (an empty centre is worth 10)",
    )  # fmt: skip


class _Bot:
    """The base of both bots: the spaces, and methods of an agent that does not learn.

    Args:
        config: the bot's config.
        observation_space: a Diplomacy board's observations.
        action_space: its orders.
        seed: not used; part of every agent's signature.
        device: the bot's device.

    Raises:
        AgentError: for spaces that are not those of a Diplomacy board.
    """

    experience = None
    config: Any

    def __init__(
        self,
        config: Any,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        areas = observation_space["areas"] if isinstance(observation_space, spaces.Dict) else None
        if not isinstance(action_space, OrderSpace) or areas is None or areas.shape is None:
            raise AgentError(
                f"{type(self).__name__}: got the spaces {observation_space} and {action_space}; wanted those of a "
                "Diplomacy board"
            )
        self.config = config
        self.areas, self.powers = len(action_space.adjacency), (areas.shape[1] - 22) // 4
        self.slots, self.width = len(action_space.nvec), int(action_space.nvec[0])
        self.list_start = torch.from_numpy(action_space.list_start).to(device)
        self.entries = {name: torch.from_numpy(values).to(device) for name, values in action_space.entries.items()}

    def legal(self, obs: Any, legal_mask: Tensor | None) -> Tensor:
        """Legal choices, bool [N, K, W]."""
        slots = obs["slots"]
        if legal_mask is None:
            return torch.ones((), dtype=torch.bool, device=slots.device).expand(*slots.shape, self.width)
        return legal_mask.view(*slots.shape, self.width)

    def learn(self, experience: Any, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """Always raises: the agent does not learn.

        Raises:
            AgentError: always.
        """
        raise AgentError(f"{type(self).__name__}: does not learn; wanted an agent that does, such as ppo")

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to load."""


class HoldBot(_Bot):
    """Holds with all units; takes the first legal choice if there is nothing to hold."""

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows; nothing is drawn."""
        entry = (self.list_start[(obs["slots"].long() - 1).clamp(min=0)]).unsqueeze(2)
        entry = entry + torch.arange(self.width, device=entry.device)
        holds = self.entries["kind"][entry.clamp(max=len(self.entries["kind"]) - 1)] == HOLD
        legal = self.legal(obs, legal_mask)
        action = (legal.to(torch.uint8) + (legal & holds & (obs["slots"] > 0).unsqueeze(2))).argmax(2)
        return Decision(action, action, None)


class _Board(NamedTuple):
    """N positions as seen by a seat; fields by area are [N, areas], float or bool.

    Attributes:
        mine: areas with a unit of mine.
        enemies: areas with a unit of another power.
        threat: number of other powers' units next to each area.
        own: my centres.
        wanted: centres that are not mine, or are occupied.
        steps: distance from each area to the nearest wanted centre, for armies and for fleets, [N, 2, areas].
        fleet: areas with a fleet, or from which a fleet was dislodged.
        fall: whether centres change hands after this phase, [N].
    """

    mine: Tensor
    enemies: Tensor
    threat: Tensor
    own: Tensor
    wanted: Tensor
    steps: Tensor
    fleet: Tensor
    fall: Tensor


class _Orders(NamedTuple):
    """The legal orders of all open slots, M in all.

    Attributes:
        row: row in the batch, [M].
        slot: slot of the order, [M].
        choice: its index among the slot's legal orders, [M].
        kind: kind of the order, [M].
        actor: the area that acts, [M]; 0 if none.
        other: the order's second area, likewise.
        target: likewise.
        fleet: whether a fleet acts, [M].
    """

    row: Tensor
    slot: Tensor
    choice: Tensor
    kind: Tensor
    actor: Tensor
    other: Tensor
    target: Tensor
    fleet: Tensor


class _Plan(NamedTuple):
    """The orders given so far.

    Attributes:
        goes_to: the area that each area's unit moves to, -1 for none, [N, areas].
        decided: areas whose unit has an order, or that a build or disband uses, bool [N, areas].
        claimed: areas that a unit moves to, bool [N, areas].
        helped: supports given to moves into an area, [N, areas].
    """

    goes_to: Tensor
    decided: Tensor
    claimed: Tensor
    helped: Tensor


class GreedyBot(_Bot):
    """Takes and defends centres; see the module's docstring, and :class:`_Bot` for the arguments."""

    config: GreedyConfig

    def __init__(
        self,
        config: GreedyConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, observation_space, action_space, seed=seed, device=device)
        assert isinstance(action_space, OrderSpace)
        self.near = torch.from_numpy(action_space.adjacency).float().to(device)
        # Order lists: moves of armies by location, of fleets by location, retreats likewise, builds by power, disbands.
        self.locations = (len(self.list_start) - 1 - self.powers - 1) // 4
        self.distance = torch.stack([self._distances(0), self._distances(self.locations)]).to(device)

    def _distances(self, first: int) -> Tensor:
        """Distances between areas for the units whose lists of moves start at list ``first``, [areas, areas]."""
        part = slice(int(self.list_start[first]), int(self.list_start[first + self.locations]))
        kind, actor, target = (self.entries[name][part].cpu() for name in ("kind", "actor", "target"))
        steps = torch.full((self.areas, self.areas), _FAR)
        steps.fill_diagonal_(0)
        steps[actor[kind == MOVE], target[kind == MOVE]] = 1
        for middle in range(self.areas):  # Floyd and Warshall
            steps = torch.minimum(steps, steps[:, middle, None] + steps[None, middle])
        return steps.clamp(max=_FAR)

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows; ``greedy`` changes nothing."""
        legal, slots = self.legal(obs, legal_mask), obs["slots"].long()
        action = legal.to(torch.uint8).argmax(2)
        board, orders = self._board(obs), self._orders(obs, legal, slots)
        noise = self.config.noise * torch.rand(len(orders.row), device=slots.device, generator=generator)
        none = torch.zeros(len(slots), self.areas, device=slots.device)
        plan = _Plan(none.long() - 1, none.bool(), none.bool(), none.clone())
        open_slot = slots > 0
        for _ in range(self.slots):
            undecided = open_slot[orders.row, orders.slot]
            score = torch.where(undecided, self._scores(board, orders, plan) + noise, -torch.inf)
            best = score.new_full((len(slots),), -torch.inf).scatter_reduce(0, orders.row, score, "amax")
            found = ((score == best[orders.row]) & undecided).nonzero().squeeze(1)
            if len(found) == 0:
                break
            # One per row; if several have the same score, the last one written.
            chosen = found.new_full((len(slots),), -1).index_put_((orders.row[found],), found)
            chosen = chosen[chosen >= 0]
            row, slot = orders.row[chosen], orders.slot[chosen]
            action[row, slot] = orders.choice[chosen]
            open_slot[row, slot] = False
            self._note(plan, _Orders(*(part[chosen] for part in orders)))
        return Decision(action, action, None)

    def _board(self, obs: Any) -> _Board:
        powers, areas = self.powers, obs["areas"] > 0
        mine, enemies = areas[:, :, 8], areas[:, :, 9 : 8 + powers].any(2)
        own = areas[:, :, 10 + 2 * powers]
        wanted = areas[:, :, 3] & (~own | enemies)
        away = torch.where(wanted[:, None, None], self.distance, _FAR)  # [N, 2, areas, areas]
        status = obs["status"]
        fall = (status[:, FALL_MOVES] > 0) | (status[:, FALL_MOVES + 1] > 0)
        fleet = areas[:, :, 6] | areas[:, :, 9 + powers]
        return _Board(mine, enemies, enemies.float() @ self.near, own, wanted, away.amin(3), fleet, fall)

    def _orders(self, obs: Any, legal: Tensor, slots: Tensor) -> _Orders:
        row, slot, index = (legal & (slots > 0).unsqueeze(2)).nonzero(as_tuple=True)
        lists = slots[row, slot] - 1
        entry = (self.list_start[lists] + index).clamp(max=len(self.entries["kind"]) - 1)
        kind, actor, other, target = (self.entries[name][entry] for name in ("kind", "actor", "other", "target"))
        actor, other, target = actor.clamp(min=0), other.clamp(min=0), target.clamp(min=0)
        fleet_of_list = (lists < 4 * self.locations) & (lists // self.locations % 2 == 1)
        standing = (obs["areas"][:, :, 6] > 0)[row, actor] & (kind == DISBAND)
        return _Orders(row, slot, index, kind, actor, other, target, fleet_of_list | standing | (kind == BUILD_FLEET))

    def _note(self, plan: _Plan, given: _Orders) -> None:
        """Add at most one order per row to the plan."""
        moves = (given.kind == MOVE) | (given.kind == RETREAT)
        acts = given.kind != WAIVE
        plan.decided[given.row[acts], given.actor[acts]] = True
        plan.goes_to[given.row[moves], given.actor[moves]] = given.target[moves]
        plan.claimed[given.row[moves], given.target[moves]] = True
        supports = given.kind == SUPPORT_MOVE
        plan.helped[given.row[supports], given.target[supports]] += 1

    def _scores(self, board: _Board, orders: _Orders, plan: _Plan) -> Tensor:
        """The score of each order, [M]: 10 for moving into an empty centre, 0 for nothing."""
        kind = orders.kind
        score = torch.full(kind.shape, _NEVER, device=kind.device)
        adjust = self._adjustments(board, orders, plan)
        for wanted, values in (
            ((kind == HOLD), self._holds(board, orders)),
            ((kind == MOVE), self._moves(board, orders, plan)),
            ((kind == SUPPORT), self._supports(board, orders, plan)),
            ((kind == SUPPORT_MOVE), self._attacks(board, orders, plan)),
            ((kind == RETREAT), self._retreats(board, orders, plan)),
            ((kind >= DISBAND) & (kind <= BUILD_FLEET), adjust),
        ):
            score = torch.where(wanted, values, score)
        return score

    def _holds(self, board: _Board, orders: _Orders) -> Tensor:
        """Hold: on a centre that becomes mine if I stay there after the fall, or that others could move into."""
        here = (orders.row, orders.actor)
        takes = board.wanted[here] & board.fall[orders.row]
        guards = board.own[here] & (board.threat[here] > 0)
        return torch.where(takes, 11.0, torch.where(guards, 3.0 + board.fall[orders.row], 0.0))

    def _moves(self, board: _Board, orders: _Orders, plan: _Plan) -> Tensor:
        row, actor, target = orders.row, orders.actor, orders.target
        to = (row, target)
        unit = orders.fleet.long()
        before, after = board.steps[row, unit, actor], board.steps[row, unit, target]
        occupied, threat = board.enemies[to], board.threat[to]
        # Into a centre: better if nobody else can move there; against a unit only if another unit of mine can support.
        helpers = self._helpers(board, orders, plan)
        takes = torch.where(occupied, torch.where(helpers > 0, 6.0 - threat, 0.5), 10.0 - threat.clamp(max=2))
        guards = board.own[to] & ~occupied & (threat > 0)
        nearer = 1.5 + (before - after).clamp(-2, 2) - 0.1 * after
        nearer = torch.where(occupied, 0.2, nearer)
        score = torch.where(board.wanted[to], takes, torch.where(guards, 4.0 + board.fall[row], nearer))
        leaves = board.own[row, actor] & (board.threat[row, actor] > 0)
        score = score - 3.0 * leaves
        leaving = plan.goes_to[to] >= 0
        blocked = plan.claimed[to] | (board.mine[to] & ~leaving) | (plan.goes_to[to] == actor)
        return torch.where(blocked, _NEVER / 2, score)

    def _helpers(self, board: _Board, orders: _Orders, plan: _Plan) -> Tensor:
        """For each order (a move), the number of units without orders that may support it."""
        possible = (orders.kind == SUPPORT_MOVE) & ~plan.decided[orders.row, orders.actor]
        pair = (orders.row * self.areas + orders.other) * self.areas + orders.target
        counts = torch.zeros(len(board.mine) * self.areas**2, device=pair.device)
        counts.index_add_(0, pair[possible], torch.ones_like(pair[possible], dtype=counts.dtype))
        return counts[(orders.row * self.areas + orders.actor) * self.areas + orders.target]

    def _supports(self, board: _Board, orders: _Orders, plan: _Plan) -> Tensor:
        """Support a unit of mine that stays in a centre which more than one other unit could attack."""
        to = (orders.row, orders.other)
        stays = plan.decided[to] & (plan.goes_to[to] < 0) & board.mine[to]
        worth = (board.own[to] | board.wanted[to]) & (board.threat[to] > 1)
        return torch.where(stays & worth, 3.2, _NEVER / 2) - 2.0 * self._guarding(board, orders)

    def _attacks(self, board: _Board, orders: _Orders, plan: _Plan) -> Tensor:
        """Support a move of mine: needed against a unit, useful where others may move too."""
        to = (orders.row, orders.target)
        moves = plan.goes_to[orders.row, orders.other] == orders.target
        need = torch.where(board.enemies[to], 9.5, torch.where(board.threat[to] > 0, 4.5, 0.1))
        need = need - 3.0 * plan.helped[to]
        worth = board.wanted[to] | board.own[to]
        value = torch.where(worth, need, 0.5)
        return torch.where(moves, value, _NEVER / 2)

    def _guarding(self, board: _Board, orders: _Orders) -> Tensor:
        return board.own[orders.row, orders.actor] & (board.threat[orders.row, orders.actor] > 0)

    def _retreats(self, board: _Board, orders: _Orders, plan: _Plan) -> Tensor:
        to = (orders.row, orders.target)
        near = 3.0 - 0.3 * board.steps[orders.row, orders.fleet.long(), orders.target]
        score = near + 3.0 * board.own[to] + 4.0 * (board.wanted[to] & board.fall[orders.row])
        return torch.where(plan.claimed[to], _NEVER / 2, score)

    def _adjustments(self, board: _Board, orders: _Orders, plan: _Plan) -> Tensor:
        """Build near wanted or threatened centres; disband units far from them.

        Waiving, and disbanding a dislodged unit, are the last resort.
        """
        here = (orders.row, orders.actor)
        steps = board.steps[orders.row, orders.fleet.long(), orders.actor]
        builds = 5.0 - 0.3 * steps + board.threat[here].clamp(max=2)
        disbands = 0.3 * steps - 2.0 * board.wanted[here] - 1.0 * board.own[here] * (board.threat[here] > 0)
        dislodged = ~board.mine[here]
        disbands = torch.where(dislodged, -5.0, disbands)
        built = (orders.kind == BUILD) | (orders.kind == BUILD_FLEET)
        score = torch.where(built, builds, torch.where(orders.kind == DISBAND, disbands, -10.0))
        return torch.where(plan.decided[here] & (orders.kind != WAIVE), _NEVER / 2, score)
