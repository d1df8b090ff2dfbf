"""Two games whose searches were worked out by DeepMind's mctx: a tree of depth 3, and a single node."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule


@rule
def reset(state: Any, params: Any) -> None:
    state.node = 0
    state.turn = 0
    state.depth = 0


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """The child of n by a is 3n + 1 + a; stepping into a leaf c pays the mover (c mod 3) - 1."""
    mover = state.turn
    state.node = 3 * state.node + 1 + actions[mover]
    state.depth += 1
    state.turn = 1 - mover
    ended = state.depth == 3
    if ended:
        rewards[mover] = state.node % 3 - 1
        rewards[1 - mover] = -rewards[mover]
    return ended, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    out[0] = state.node


@rule
def acts(state: Any, params: Any, seat: Any) -> Any:
    return state.turn == seat


def tree_game() -> Game:
    return Game(
        name="WorkedTree", seats=2, state_fields=[("node", "i4"), ("turn", "i4"), ("depth", "i4")],
        params=make_params([], {}), observation_space=spaces.Discrete(40), action_space=spaces.Discrete(3),
        reset=reset, step=step, observe=observe, acts=acts, text=str, draw=lambda state, params: np.zeros((1, 1, 3)),
    )  # fmt: skip


def tree_network(obs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    n = obs.double()[:, None]
    logits = ((7 * n + 3 * torch.arange(3)) % 5) / 2
    return logits, (5 * n[:, 0]) % 11 / 10 - 0.5


@rule
def node_step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    rewards[0] = 3.0 if actions[0] == 1 else -1.0
    return False, False


@rule
def node_reset(state: Any, params: Any) -> None:
    state.node = 0


@rule
def node_legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    out[1] = True
    out[2] = True


def node_game() -> Game:
    """Four actions, of which 0 and 3 are illegal; 1 pays 3 and 2 pays -1, whatever came before."""
    return Game(
        name="WorkedNode", seats=1, state_fields=[("node", "i4")], params=make_params([], {}),
        observation_space=spaces.Discrete(1), action_space=spaces.Discrete(4), reset=node_reset, step=node_step,
        observe=observe, legal=node_legal, text=str, draw=lambda state, params: np.zeros((1, 1, 3)),
    )  # fmt: skip


def node_network(obs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[0.0, -1, 2, 3]]).expand(len(obs), 4), torch.full((len(obs),), -5.0)


def start(game: Game, count: int = 1) -> torch.Tensor:
    states = np.zeros(count, game.state_dtype)
    return torch.from_numpy(states.view(np.uint8).reshape(count, -1))
