"""``TreeSearch``: looks ahead in many positions of a game at once, with one network call per simulation for all.

The trees are flat arrays (:mod:`~mlbits.agents.search.trees`), the methods one file each (``gumbel``, ``puct``,
``uct``), and the loop between rules and network is :meth:`TreeSearch.run`. Results for a position do not depend on the
other positions, as far as the network's do not.

The rules are the game's own, and a search sees the whole state: in a game with hidden information it would look into
the other's cards. Random events are drawn from a stream of the search's own, once for each edge of a tree.

Example:
    >>> import mlbits
    >>> game = mlbits.make_game("mlbits/TicTacToe-v0")
    >>> search = TreeSearch(game, SearchConfig(method="uct", simulations=2000))
    >>> start = mlbits.make_batch("mlbits/TicTacToe-v0", 1).state()
    >>> search.run(start, None, torch.Generator()).value.abs().max() < 0.2
    tensor(True)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.agents.search.driver import EARLY_REWARD, NO_TURN, NOT_ZERO_SUM, load_search
from mlbits.agents.search.trees import EDGE, NODE, UNKNOWN
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.game import Game
from mlbits.envs.core.random import mix_array
from mlbits.envs.engine.memory import memory_bytes

# Observations [N, ...] and masks [N, A] to logits [N, A] and values [N], float32.
Evaluate = Callable[[Any, Tensor], tuple[Tensor, Tensor]]

_SETTINGS = np.dtype(
    [
        ("discount", "f8"), ("c_visit", "f8"), ("c_scale", "f8"), ("c_init", "f8"), ("c_base", "f8"), ("c_uct", "f8"),
        ("noise", "f8"), ("simulations", "i4"), ("considered", "i4"), ("rollouts", "i4"), ("longest", "i4"),
        ("rescale", "u1"), ("solver", "u1"),
    ],
    align=True,
)  # fmt: skip
_EDGES_A_NODE = 64  # room at first; more is made when it is needed


@configuration(AgentError)
class SearchConfig:
    """Settings of tree search."""

    method: Literal["gumbel", "puct", "uct"] = setting(
        "gumbel", "gumbel (Danihelka et al. 2022), puct (AlphaZero) or uct (no network)"
    )
    simulations: int = setting(32, "simulations a move", low=1)
    considered: int = setting(16, "gumbel: actions considered at the root (Danihelka et al.: 16)", low=1)
    c_visit: float = setting(50.0, "gumbel: sigma = (c_visit + most visits) * c_scale * Q (mctx)", low=0)
    c_scale: float = setting(0.1, "gumbel: see c_visit (mctx; 1 without rescaling, Danihelka et al.)", low=0)
    c_init: float = setting(1.25, "puct: exploration (Silver et al. 2018)", low=0)
    c_base: float = setting(19652.0, "puct: visits from which exploration grows (Silver et al. 2018)", low=1e-6)
    c_uct: float = setting(2.0, "uct: exploration (OpenSpiel's bots: 2)", low=0)
    rescale: bool = setting(True, "whether Q is rescaled to 0..1 by the range of a node's values (mctx, MuZero)")
    noise: float = setting(
        1.0, "noise at the root when training: scale of Gumbel noise; for puct the fraction of Dirichlet noise", low=0
    )
    dirichlet: float = setting(0.3, "puct: alpha of the Dirichlet noise (Silver et al. 2018: 0.3 for chess)", low=1e-6)
    discount: float = setting(1.0, "of the future, per step", low=1e-6, high=1)
    solver: bool = setting(True, "whether proven wins and losses are backed up; needs rewards 1, 0, -1 at the end only")
    rollouts: int = setting(1, "without a network: random games per leaf", low=1)


class Found(NamedTuple):
    """The results of a search of N positions.

    Attributes:
        action: the best action, int64 [N].
        policy: the improved policy, float32 [N, A].
        visits: visits of the root's actions, int64 [N, A].
        q: values of the root's actions for the seat to move, float32 [N, A]; 0 where there are no visits.
        value: value of the position for the seat to move, float32 [N].
        outcome: proven outcome for the seat to move, int64 [N]: 0 unknown, 1 win, 2 loss, 3 draw.
        calls: calls of the network.
        rows: rows that the network evaluated in all.
        nodes: nodes of each tree, int64 [N].
    """

    action: Tensor
    policy: Tensor
    visits: Tensor
    q: Tensor
    value: Tensor
    outcome: Tensor
    calls: int
    rows: int
    nodes: Tensor


class TreeSearch:
    """Tree search in one game.

    Args:
        game: a game of mlbits' own with Discrete actions and one seat, or two seats that move in turn with opposite
            rewards.
        config: the settings.

    Raises:
        AgentError: for another game.
    """

    def __init__(self, game: Game, config: SearchConfig) -> None:
        if game.action.kind != "discrete":
            raise AgentError(f"search: got the action space {game.action_space}; wanted Discrete")
        if game.seats > 2 or (game.seats == 2 and game.acts is None):
            raise AgentError(
                f"search: got {game.name} with {game.seats} seats{'' if game.acts else ' that act at once'}; wanted "
                "one seat, or two that move in turn"
            )
        self.game, self.config = game, config
        self.num_actions = int(game.action.nvec[0])
        self._trees = 0
        self._nodes_a_tree = 0
        self._driver: Any = None

    def run(
        self,
        states: Tensor,
        evaluate: Evaluate | None,
        generator: torch.Generator,
        *,
        params: Any = None,
        explore: bool = False,
        noise: Tensor | None = None,
    ) -> Found:
        """Search.

        Args:
            states: the positions, uint8 [N, state bytes].
            evaluate: the network; None plays random games from the leaves.
            generator: for noise and random games.
            params: parameters, a structured array [1] or [N]; None takes the game's.
            explore: whether there is noise at the root.
            noise: the noise itself, [N, A], in place of a draw.

        Raises:
            AgentError: if the trees do not fit into memory, or the game's rewards are not opposite, or the solver meets
                rewards before the end.
        """
        trees = len(states)
        self._allocate(trees)
        self._place(states.cpu().numpy(), generator)
        settings = self._settings(explore or noise is not None)
        given = self._noise(trees, explore, noise, generator)
        params = np.ascontiguousarray(self.game.params if params is None else params)
        calls, rows = 0, 0
        fault = np.zeros(1, np.int64)
        memory = self._memory
        common = (memory["nodes"], memory["edges"], memory["states"], params, memory["used"], memory["size"])
        play = (memory["actions"], memory["rewards"], memory["obs"], memory["legal"])
        stride = int(len(params) > 1)
        if evaluate is None:
            self._driver.by_rollouts(
                trees, stride, *common, memory["spare"], *play, memory["nothing"], settings, given, memory["keys"],
                fault,
            )  # fmt: skip
        else:
            waiting = (memory["pending"], memory["row_of"])
            count = self._driver.begin(trees, stride, *common, *waiting, memory["obs"], memory["legal"], fault)
            logits, values = memory["nothing"], memory["no_values"]
            for k in range(self.config.simulations + 1):
                if count:
                    logits, values = self._evaluated(evaluate, count)
                    calls, rows = calls + 1, rows + count
                elif k > 0 and not self._alive(trees):
                    break
                common = self._with_room(common)
                count = self._driver.advance(
                    k, trees, stride, *common, *waiting, *play, logits, values, settings, given, memory["keys"], fault
                )  # fmt: skip
        self._check(int(fault[0]))
        return self._report(trees, settings, given, calls, rows)

    def _evaluated(self, evaluate: Evaluate, count: int) -> tuple[Any, Any]:
        logits, values = evaluate(self._seen(count), torch.from_numpy(self._memory["legal"][:count]))
        if tuple(logits.shape) != (count, self.num_actions) or tuple(values.shape) != (count,):
            raise AgentError(
                f"evaluate: got logits {tuple(logits.shape)} and values {tuple(values.shape)}; wanted "
                f"{(count, self.num_actions)} and {(count,)}"
            )
        return logits.detach().float().contiguous().cpu().numpy(), values.detach().float().contiguous().cpu().numpy()

    def _alive(self, trees: int) -> bool:
        """Whether any simulation is left to do."""
        roots = self._memory["nodes"][:trees, 0]
        return bool(((roots["kind"] == 0) & (roots["outcome"] == UNKNOWN)).any())

    def _seen(self, count: int) -> Any:
        """The observations of the rows that wait, as the network takes them."""
        layout, obs = self.game.observation, self._memory["obs"][:count]
        if layout.keys is None:
            rows = torch.from_numpy(obs)
            return rows[..., 0] if layout.scalar else rows
        return {key: torch.from_numpy(np.ascontiguousarray(obs[key])) for key in layout.keys}

    def _allocate(self, trees: int) -> None:
        """Memory for so many trees, kept from one search to the next."""
        if self._driver is None:
            self._driver = load_search(self.game, self.config.method)
        nodes = self.config.simulations + 1
        if trees <= self._trees and nodes <= self._nodes_a_tree:
            return
        game, layout, actions = self.game, self.game.observation, self.num_actions
        edges = nodes * min(actions, _EDGES_A_NODE) + actions
        self._check_memory(trees, nodes, edges)
        self._memory = {
            "nodes": np.zeros((trees, nodes), NODE),
            "edges": np.zeros((trees, edges), EDGE),
            "states": np.zeros((trees, nodes), game.state_dtype),
            "spare": np.zeros(trees, game.state_dtype),
            "used": np.zeros(trees, np.int64),
            "size": np.zeros(trees, np.int64),
            "pending": np.full(trees, -1, np.int64),
            "row_of": np.zeros(trees, np.int64),
            "keys": np.zeros(trees, np.uint64),
            "actions": np.zeros((trees, game.seats), np.int64),
            "rewards": np.zeros((trees, game.seats), np.float32),
            "obs": np.zeros((trees, *layout.shape), layout.dtype),
            "legal": np.zeros((trees, actions), bool),
            "nothing": np.zeros((1, actions), np.float32),
            "no_values": np.zeros(1, np.float32),
            "visits": np.zeros((trees, actions), np.int64),
            "q": np.zeros((trees, actions), np.float32),
            "policy": np.zeros((trees, actions), np.float32),
            "best": np.zeros(trees, np.int64),
            "value": np.zeros(trees, np.float32),
            "outcome": np.zeros(trees, np.int64),
        }
        self._trees, self._nodes_a_tree = trees, nodes

    def _check_memory(self, trees: int, nodes: int, edges: int) -> None:
        size = trees * (nodes * (NODE.itemsize + self.game.state_dtype.itemsize) + edges * EDGE.itemsize)
        if size > (room := memory_bytes()):
            raise AgentError(
                f"simulations: {trees:,} trees of {self.config.simulations:,} simulations take {size / 2**30:,.1f} "
                f"GiB, and there are {room / 2**30:,.1f} GiB; wanted fewer simulations, or fewer copies"
            )

    def _with_room(self, common: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arrays, with room for one more node's edges in every tree."""
        edges = self._memory["edges"]
        if int(self._memory["used"].max()) + self.num_actions <= edges.shape[1]:
            return common
        wider = edges.shape[1] * 2 + self.num_actions
        self._check_memory(self._trees, self._nodes_a_tree, wider)
        grown = np.zeros((self._trees, wider), EDGE)
        grown[:, : edges.shape[1]] = edges
        self._memory["edges"] = grown
        return common[0], grown, *common[2:]

    def _place(self, states: Any, generator: torch.Generator) -> None:
        """Put positions at the roots, with random streams that are not the games' own."""
        trees, roots = len(states), self._memory["states"][:, 0]
        roots[:trees] = states.view(self.game.state_dtype)[:, 0]
        with np.errstate(over="ignore"):
            roots["rng_key"][:trees] = mix_array(roots["rng_key"][:trees] + np.uint64(0x5EA2C4))
            seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
            start = np.uint64(int(seed)) + np.arange(trees, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)
            self._memory["keys"][:trees] = mix_array(start)

    def _settings(self, explore: bool) -> Any:
        config, found = self.config, np.zeros(1, _SETTINGS)
        for name in found.dtype.names or ():
            if hasattr(config, name):
                found[name] = getattr(config, name)
        found["noise"] = config.noise if explore else 0.0
        found["solver"] = config.solver and self.game.seats == 2 and config.discount == 1
        found["longest"] = self.game.horizon or 10_000
        return found[0]

    def _noise(self, trees: int, explore: bool, noise: Tensor | None, generator: torch.Generator) -> Any:
        """Noise for the root's actions [N, A]: Gumbel's, or gamma variates for Dirichlet's."""
        shape = (trees, self.num_actions)
        if noise is not None:
            return noise.double().cpu().numpy()
        if not explore or self.config.method == "uct":
            return np.zeros(shape)
        if self.config.method == "gumbel":
            drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
            return (-torch.log(-torch.log(drawn.clamp(1e-300, 1 - 1e-16)))).cpu().numpy()
        # Gamma variates, which divided by the sum of those of the legal actions are a Dirichlet draw.
        alpha = torch.full(shape, self.config.dirichlet, dtype=torch.float64, device=generator.device)
        return torch._standard_gamma(alpha, generator=generator).cpu().numpy() + 1e-300

    def __deepcopy__(self, memo: dict[int, Any]) -> TreeSearch:
        return TreeSearch(self.game, self.config)  # trees last for one search

    def proven(self, row: int) -> dict[int, tuple[int, int]]:
        """The moves whose outcome the last search proved in position ``row``: each outcome, and moves to the end."""
        root, edges = self._memory["nodes"][row, 0], self._memory["edges"][row]
        known = edges[root["first"] : root["first"] + root["count"]]
        return {int(e["action"]): (int(e["outcome"]), int(e["distance"])) for e in known if e["outcome"] != UNKNOWN}

    def line(self, row: int, action: int, most: int = 20) -> list[int]:
        """The moves that the last search expects in position ``row`` from ``action`` on: the most visited ones."""
        nodes, edges = self._memory["nodes"][row], self._memory["edges"][row]
        at, moves = 0, list[int]()
        while at >= 0 and len(moves) < most:
            below = edges[nodes[at]["first"] : nodes[at]["first"] + nodes[at]["count"]]
            if moves:
                below = below[below["visits"] == below["visits"].max(initial=0)]
                below = below[below["visits"] > 0]
            else:
                below = below[below["action"] == action]
            if not len(below):
                break
            moves.append(int(below[0]["action"]))
            at = int(below[0]["child"])
        return moves

    def _check(self, fault: int) -> None:
        name = self.game.name
        if fault == NOT_ZERO_SUM:
            raise AgentError(f"search: the two seats' rewards in {name} are not opposite; wanted a zero-sum game")
        if fault == EARLY_REWARD:
            raise AgentError(f"solver: {name} pays rewards before its end; wanted solver=False")
        if fault == NO_TURN:
            raise AgentError(f"search: in {name} several seats act at once, or none; wanted seats that move in turn")

    def _report(self, trees: int, settings: Any, noise: Any, calls: int, rows: int) -> Found:
        memory = self._memory
        names = ("visits", "q", "policy", "best", "value", "outcome")
        self._driver.report(
            trees, memory["nodes"], memory["edges"], settings, noise, *(memory[name] for name in names)
        )  # fmt: skip
        found = {name: torch.from_numpy(memory[name][:trees].copy()) for name in names}
        return Found(
            found["best"], found["policy"], found["visits"], found["q"], found["value"], found["outcome"], calls, rows,
            torch.from_numpy(memory["size"][:trees].copy()),
        )  # fmt: skip


def joined(parts: Sequence[Found]) -> Found:
    """The results of several searches as one; positions in their order."""
    if len(parts) == 1:
        return parts[0]

    def together(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return torch.cat(values) if isinstance(values[0], Tensor) else sum(values)

    return Found(*(together(name) for name in Found._fields))
