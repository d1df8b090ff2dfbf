"""Search at one node where all seats move at once: regret matching plus by default, decoupled UCT as an option.

A pure choice by the best mean, as in UCT, does not converge where equilibria are mixed. Regret matching does (Hart and
Mas-Colell 2000). Known rules give the payoffs of all own actions against what the others were sampled to play, so that
no payoff has to be estimated; each play t of the node

1. adds every seat's mixture to its average with weight t, and samples its action from the mixture;
2. adds to each seat's regret of every own action a: u(a, others) - u(mixture, others), and cuts it at 0 ("plus",
   Tammelin 2014);
3. makes the next mixture proportional to the regrets: equations (1) to (3) of
   :mod:`~mlbits.agents.best_response.regret`, with q(a) = u(a, others).

The average is what is played. Decoupled UCT (Browne et al. 2012) is what many programs do: each seat chooses by
upper confidence bounds of its own actions alone, and plays by visits. On biased rock-paper-scissors it stays as
exploitable as uniform play; in the Prisoner's Dilemma both seats explore in step, and cooperate.

Payoffs are of the position after the joint action: the transition's rewards, and a leaf's value where the game goes on.
All joint actions of a node are stepped in one call of the compiled rules, for each seat and draw of chance.

Example:
    >>> import numpy as np
    >>> throws = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    >>> mixtures = search_node(np.stack([throws, -throws]), 10_000, seed=0)
    >>> [np.round(mixture, 1).tolist() for mixture in mixtures]
    [[0.3, 0.3, 0.3], [0.3, 0.3, 0.3]]
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision, Positions
from mlbits.agents.best_response.leaves import Leaf, NoValue, values_after
from mlbits.agents.best_response.policies import random_keys
from mlbits.agents.best_response.regret import regret_step
from mlbits.agents.best_response.transitions import Table, Transitions
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.game import Game
from mlbits.envs.core.random import GOLDEN, mix64
from mlbits.envs.engine.kernel_cache import njit

MAX_JOINT = 2**20


@configuration(AgentError)
class NodeConfig:
    """Settings of search at one node."""

    plays: int = setting(1000, "plays of the node", low=1, high=1e9)
    method: Literal["regret_matching", "uct"] = setting("regret_matching", "how seats choose: RM+, or decoupled UCT")
    draws: int = setting(4, "draws of chance that payoffs are the means of", low=1, high=1e6)
    exploration: float = setting(1.41, "weight of UCT's confidence bound", low=0, high=1e6)


def search_node(
    payoffs: ArrayLike,
    plays: int,
    *,
    method: Literal["regret_matching", "uct"] = "regret_matching",
    exploration: float = 1.41,
    seed: int = 0,
) -> list[NDArray[np.float64]]:
    """What each seat plays at a node.

    Args:
        payoffs: of each seat for every joint action, [P, A_1, ..., A_P].
        plays: number of plays of the node.
        method: "regret_matching" or "uct".
        exploration: of UCT.
        seed: of the draws.

    Returns:
        The average mixture of each seat, [A_i]; for UCT the fractions of visits.

    Raises:
        AgentError: for payoffs of another shape, or that are not finite, and fewer than one play.
    """
    table = np.ascontiguousarray(payoffs, np.float64)
    if table.ndim != len(table) + 1 or table.size == 0 or not np.isfinite(table).all():
        raise AgentError(f"payoffs: got shape {table.shape}; wanted finite numbers [P, A_1, ..., A_P]")
    if plays < 1:
        raise AgentError(f"plays: got {plays}; wanted at least 1")
    counts = np.array(table.shape[1:], np.int64)
    total = np.zeros((len(counts), counts.max()))
    kernel = _regret_matching if method == "regret_matching" else _decoupled_uct
    kernel(table.reshape(len(table), -1), counts, plays, exploration, np.uint64(seed), total)
    return [row[:count] / row[:count].sum() for row, count in zip(total, counts, strict=True)]


@njit(cache=True, nogil=True, error_model="numpy")
def _regret_matching(payoffs: Any, counts: Any, plays: Any, exploration: Any, seed: Any, total: Any) -> None:
    seats, most = total.shape
    regret, mixture = np.zeros((seats, most)), np.zeros((seats, most))
    joint, stride = np.zeros(seats, np.int64), _strides(counts)
    q, valid = np.zeros(most), np.zeros((seats, most), np.bool_)
    for seat in range(seats):
        mixture[seat, : counts[seat]] = 1.0 / counts[seat]
        valid[seat, : counts[seat]] = True
    drawn = np.uint64(0)
    for t in range(1, plays + 1):
        cell = 0
        for seat in range(seats):
            drawn += np.uint64(1)
            x = np.float64(mix64(seed + drawn * GOLDEN) >> np.uint64(11)) / 9007199254740992.0
            action = 0
            while action < counts[seat] - 1 and x >= mixture[seat, action]:
                x -= mixture[seat, action]
                action += 1
            joint[seat] = action
            cell += action * stride[seat]
        for seat in range(seats):
            own = cell - joint[seat] * stride[seat]
            for a in range(counts[seat]):
                total[seat, a] += t * mixture[seat, a]
                q[a] = payoffs[seat, own + a * stride[seat]]
            regret_step(regret[seat], mixture[seat], q, valid[seat])


@njit(cache=True, nogil=True, error_model="numpy")
def _decoupled_uct(payoffs: Any, counts: Any, plays: Any, exploration: Any, seed: Any, total: Any) -> None:
    seats, most = total.shape
    earned = np.zeros((seats, most))
    joint, stride = np.zeros(seats, np.int64), _strides(counts)
    drawn = np.uint64(0)
    for t in range(plays):
        cell = 0
        for seat in range(seats):
            best, ties = -np.inf, 0
            for a in range(counts[seat]):
                n = total[seat, a]
                score = np.inf if n == 0 else earned[seat, a] / n + exploration * math.sqrt(math.log(t) / n)
                if score > best:
                    best, ties = score, 0
                if score == best:  # one of the ties at random
                    ties += 1
                    drawn += np.uint64(1)
                    if mix64(seed + drawn * GOLDEN) % np.uint64(ties) == np.uint64(0):
                        joint[seat] = a
            cell += joint[seat] * stride[seat]
        for seat in range(seats):
            total[seat, joint[seat]] += 1
            earned[seat, joint[seat]] += payoffs[seat, cell]


@njit(cache=True, nogil=True)
def _strides(counts: Any) -> Any:
    """Steps between neighbouring actions of each seat in a table of joint actions, the last seat's fastest."""
    stride = np.ones(len(counts), np.int64)
    for seat in range(len(counts) - 2, -1, -1):
        stride[seat] = stride[seat + 1] * counts[seat + 1]
    return stride


class NodeSearch:
    """A player that searches the node it is at: payoffs of all joint actions, then :func:`search_node`.

    Args:
        game: the game, with Discrete actions.
        leaf: values of next positions; None counts only the rewards of the move, for games of one step.
        config: settings.
        discount: of the leaf's values.
        device: where the leaf's network lives.

    Raises:
        AgentError: for actions that are not Discrete.
    """

    experience = None

    def __init__(
        self, game: Game, leaf: Leaf | None = None, config: NodeConfig | None = None, *, discount: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if game.action.kind != "discrete":
            raise AgentError(f"{game.name}: got the action space {game.action_space}; wanted Discrete actions")
        self.game, self.config, self.discount = game, NodeConfig() if config is None else config, discount
        self.leaf: Leaf = NoValue() if leaf is None else leaf
        self.transitions = Transitions(game, device)

    def payoffs(self, table: Table, position: int, generator: torch.Generator) -> tuple[NDArray[np.float64], list[Any]]:
        """Payoffs of all legal joint actions in one position, and the legal actions of each seat.

        A seat that passes has one action, 0. Chance is ``config.draws`` draws, the same for all joint actions, and the
        payoffs are their means.

        Raises:
            AgentError: for more than 2**20 joint actions.
        """
        seats, acts = self.game.seats, table.acts[position].tolist()
        legal = [self._legal(table, position, seat) if acts[seat] else np.zeros(1, np.int64) for seat in range(seats)]
        counts = [len(actions) for actions in legal]
        total = math.prod(counts)
        if total > MAX_JOINT:
            raise AgentError(f"{self.game.name}: got {total} joint actions; wanted at most {MAX_JOINT}")
        places = np.unravel_index(np.arange(total), counts)
        joint = torch.from_numpy(np.stack([part[place] for part, place in zip(legal, places, strict=True)], -1))
        source = torch.full((total,), position)
        found = np.zeros((seats, total))
        for key in random_keys(self.config.draws, generator):
            for seat in range(seats):
                value = values_after(
                    self.transitions, self.leaf, self.discount, table, source, joint, torch.full((total,), seat),
                    np.full(total, key), generator,
                )  # fmt: skip
                found[seat] += value.cpu().numpy() / self.config.draws
        return found.reshape(seats, *counts), legal

    def _legal(self, table: Table, position: int, seat: int) -> NDArray[np.int64]:
        """The legal actions of a seat that acts."""
        if table.mask is None:
            return np.arange(self.game.action.nvec[0])
        return np.asarray(table.mask[position, seat].nonzero()[:, 0].cpu().numpy())

    def mixtures(self, table: Table, generator: torch.Generator) -> Tensor:
        """What every seat plays, probabilities [M, P, A]."""
        count, seats = table.shape
        found = torch.zeros(count, seats, self.game.action.nvec[0], dtype=torch.float64)
        config = self.config
        for position in range(count):
            payoffs, legal = self.payoffs(table, position, generator)
            seed = int(random_keys(1, generator)[0])
            played = search_node(payoffs, config.plays, method=config.method, exploration=config.exploration, seed=seed)
            for seat, (actions, mixture) in enumerate(zip(legal, played, strict=True)):
                found[position, seat, torch.from_numpy(actions)] = torch.from_numpy(mixture)
        return found

    def plan(self, positions: Positions, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """An action from the mixture of each row's seat; the most probable one if ``greedy``."""
        table, rows = self.transitions.table(positions)
        mixture = self.mixtures(table, generator).flatten(0, 1).to(rows.device)[rows]
        drawn = torch.multinomial(mixture, 1, generator=generator).squeeze(1)
        action = mixture.argmax(1) if greedy else drawn
        return Decision(action, action, None)

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing to save."""
        return {}
