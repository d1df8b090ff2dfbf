"""Games given by tables, and networks given by tables: two that DeepMind's mctx worked out, and others.

A game is a graph of at most 64 nodes. Node n has a seat that moves (2 stands for both) and three actions; action a
leads to ``child[n, a]``, pays both seats and may end the game. All such games have the same rules, which compile once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from mlbits.agents.search.search import Found, SearchConfig, TreeSearch
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule

NODES = 64


@rule
def reset(state: Any, params: Any) -> None:
    state.node = 0


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    n = state.node
    a = actions[params.mover[n]]
    rewards[0] = params.pays[n, a, 0]
    rewards[1] = params.pays[n, a, 1]
    state.node = params.child[n, a]
    return params.ended[n, a] != 0, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    out[0] = state.node


@rule
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    for a in range(3):
        out[a] = params.legal[state.node, a]


@rule
def acts(state: Any, params: Any, seat: Any) -> Any:
    return params.mover[state.node] == seat or params.mover[state.node] == 2


class Table:
    """The table of a game: a tree of depth 3 in which the child of n by a is 3n + 1 + a, until it is changed."""

    def __init__(self) -> None:
        self.child = np.zeros((NODES, 3), np.int32)
        self.pays = np.zeros((NODES, 3, 2), np.float32)
        self.mover = np.zeros(NODES, np.int8)
        self.legal = np.ones((NODES, 3), bool)
        self.ended = np.zeros((NODES, 3), bool)
        for n in range(13):
            depth = 0 if n == 0 else 1 if n < 4 else 2
            self.child[n] = 3 * n + 1 + np.arange(3)
            self.mover[n] = depth % 2
            self.ended[n] = depth == 2

    def pay(self, n: int, a: int, mover: float) -> None:
        """Pay the mover, at the expense of the other."""
        seat = self.mover[n]
        self.pays[n, a, seat], self.pays[n, a, 1 - seat] = mover, -mover

    def game(self, horizon: int | None = None) -> Game:
        values = {name: getattr(self, name) for name in ("child", "pays", "mover", "legal", "ended")}
        fields = [
            ("child", "i4", (NODES, 3)), ("pays", "f4", (NODES, 3, 2)), ("mover", "i1", (NODES,)),
            ("legal", "u1", (NODES, 3)), ("ended", "u1", (NODES, 3)),
        ]  # fmt: skip
        return Game(
            name="Table", seats=2, state_fields=[("node", "i4")], params=make_params(fields, values, horizon),
            observation_space=spaces.Discrete(NODES), action_space=spaces.Discrete(3), reset=reset, step=step,
            observe=observe, legal=legal, acts=acts, text=str, draw=lambda state, params: np.zeros((8, 8, 3), np.uint8),
        )  # fmt: skip

    def value(self, n: int = 0) -> float:
        """Seat 0's value of a node under perfect play."""
        seat, found = self.mover[n], []
        for a in range(3):
            if self.legal[n, a]:
                rest = 0.0 if self.ended[n, a] else self.value(int(self.child[n, a]))
                found.append(float(self.pays[n, a, 0]) + rest)
        return max(found) if seat == 0 else min(found)


def worked_tree() -> Table:
    """Stepping into leaf c pays the mover (c mod 3) - 1."""
    table = Table()
    for n in range(4, 13):
        for a in range(3):
            table.pay(n, a, (3 * n + 1 + a) % 3 - 1)
    return table


def random_tree(seed: int) -> Table:
    """Leaves win, lose or draw at random, and each node's seat is drawn, too: seats move twice, or not at all."""
    rng, table = np.random.default_rng(seed), Table()
    table.mover[:] = rng.integers(0, 2, NODES)
    for n in range(4, 13):
        for a in range(3):
            table.pay(n, a, float(rng.integers(-1, 2)))
    return table


def worked_network(obs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and values for the mover, both simple functions of the node."""
    n = obs.double()[:, None]
    return ((7 * n + 3 * torch.arange(3)) % 5) / 2, (5 * n[:, 0]) % 11 / 10 - 0.5


def flat_network(obs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Knows nothing."""
    return torch.zeros(mask.shape), torch.zeros(len(mask))


def hashed_network(obs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Any logits and values, each row's a function of the row alone: sums of integers."""
    flat = obs.reshape(len(obs), -1).long()
    numbers = torch.arange(1, flat.shape[1] + 1)
    logits = [(flat * (numbers * (a + 3) % 101)).sum(1) % 31 / 10 for a in range(mask.shape[1])]
    return torch.stack(logits, 1), (flat * (numbers % 89)).sum(1) % 41 / 50 - 0.4


class Counted:
    """A network that counts its calls and rows."""

    def __init__(self, network: Callable[..., Any]) -> None:
        self.network, self.rows = network, []  # type: ignore[var-annotated]

    def __call__(self, obs: torch.Tensor, mask: torch.Tensor) -> Any:
        self.rows.append(len(mask))
        return self.network(obs, mask)


def start(game: Game, count: int = 1, **fields: Any) -> torch.Tensor:
    """States of zeros with some fields set."""
    states = np.zeros(count, game.state_dtype)
    for name, value in fields.items():
        states[name] = value
    return torch.from_numpy(states.view(np.uint8).reshape(count, -1))


def search(game: Game, network: Any, states: torch.Tensor | None = None, seed: int = 0, **settings: Any) -> Found:
    """A search from node 0, or from some states."""
    generator = torch.Generator().manual_seed(seed)
    return TreeSearch(game, SearchConfig(**settings)).run(start(game) if states is None else states, network, generator)


# mctx's test case of one node: four actions, of which 0 and 3 are illegal; 1 pays 3 and 2 pays -1, always.


@rule
def node_reset(state: Any, params: Any) -> None:
    state.node = 0


@rule
def node_step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    rewards[0] = 3.0 if actions[0] == 1 else -1.0
    return False, False


@rule
def node_observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    out[0] = state.node


@rule
def node_legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    out[1] = True
    out[2] = True


def node_game() -> Game:
    return Game(
        name="WorkedNode", seats=1, state_fields=[("node", "i4")], params=make_params([], {}),
        observation_space=spaces.Discrete(1), action_space=spaces.Discrete(4), reset=node_reset, step=node_step,
        observe=node_observe, legal=node_legal, text=str, draw=lambda state, params: np.zeros((8, 8, 3), np.uint8),
    )  # fmt: skip


def node_network(obs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[0.0, -1, 2, 3]]).expand(len(obs), 4), torch.full((len(obs),), -5.0)
