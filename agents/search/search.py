"""``TreeSearch``: looks ahead in many positions of a game at once, with one network call per simulation for all.

The trees are flat arrays (:mod:`~mlbits.agents.search.trees`), the methods one file each (``gumbel``, ``puct``,
``uct``), and the loop between rules and network is :meth:`TreeSearch.run`. Results for a position do not depend on the
other positions, as far as the network's do not.

With ``reuse`` (PUCT and UCT) a search goes on in the part of the last one's tree that starts at the new position. With
``device="cuda"`` the trees are in the GPU's memory, with a thread each; the host then only starts the kernels and the
network, and waits for nothing until the end. There the network sees all rows in every call, those that wait and others.

The rules are the game's own, and a search sees the whole state: in a game with hidden information it would look into
the other's cards. Random events are drawn from a stream of the search's own, once for each edge of a tree.

Example:
    >>> import mlbits
    >>> game = mlbits.make_game("mlbits/TicTacToe-v0")
    >>> search = TreeSearch(game, SearchConfig(method="uct", simulations=2000))
    >>> start = mlbits.make_batch("mlbits/TicTacToe-v0", 1).state()
    >>> search.run(start, None, torch.Generator()).policy.shape
    torch.Size([1, 9])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.agents.search.driver import SETTINGS, load_search
from mlbits.agents.search.memory import Memory
from mlbits.agents.search.template import EARLY_REWARD, NO_ROOM, NO_TURN, NOT_ZERO_SUM
from mlbits.agents.search.trees import EDGE, NODE, OPEN, UNKNOWN
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.game import Game
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.gpu_copies import check_cuda, check_kernels
from mlbits.envs.engine.gpu_launch import kernel_stream
from mlbits.envs.engine.memory import memory_bytes

# Observations [N, ...] and masks [N, A] to logits [N, A] and values [N], float32.
Evaluate = Callable[[Any, Tensor], tuple[Tensor, Tensor]]

_EDGES_A_NODE = 64  # room at first; more is made when it is needed
_THREADS_A_BLOCK = 32
# Arrays in the order in which compiled code takes them.
_TREE = ("stride", "nodes", "edges", "states", "params", "used", "size")
_SPARE, _WAITING = ("spare", "moved", "shift"), ("pending", "row_of")
_PLAY, _ORDERS = ("actions", "rewards", "obs", "legal"), ("settings", "noise", "keys", "fault")
_RESULTS = ("visits", "q", "policy", "best", "value", "outcome")


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
    look_ahead: bool = setting(
        False, "with the solver: whether a new node's moves are all tried, to see which of them end the game"
    )
    rollouts: int = setting(1, "without a network: random games per leaf", low=1)


class Found(NamedTuple):
    """The results of a search of N positions.

    Attributes:
        action: the best action, int64 [N].
        policy: the improved policy, float32 [N, A].
        visits: visits of the root's actions, int64 [N, A].
        q: values of the root's actions for the seat to move, float32 [N, A]; 0 where there are no visits and no known
            outcome.
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
        device: where the trees are, "cpu" or "cuda".

    Raises:
        AgentError: for another game.
        DeviceError: if there is no such device.
    """

    def __init__(self, game: Game, config: SearchConfig, device: torch.device | str = "cpu") -> None:
        if game.action.kind != "discrete":
            raise AgentError(f"search: got the action space {game.action_space}; wanted Discrete")
        if game.seats > 2 or (game.seats == 2 and game.acts is None):
            raise AgentError(
                f"search: got {game.name} with {game.seats} seats{'' if game.acts else ' that act at once'}; wanted "
                "one seat, or two that move in turn"
            )
        self.game, self.config = game, config
        self.num_actions = int(game.action.nvec[0])
        self.device: torch.device | None = None  # the CPU, without kernels
        if parse_device(device).type == "cuda":
            check_kernels()
            self.device = check_cuda(parse_device(device))
        self._check_memory(1, config.simulations + 1, config.simulations + 1)
        self._shape = (0, 0)  # trees and nodes of each that there is memory for
        self._kept: tuple[int, bytes] = (0, b"")  # trees of the last search, and its parameters
        self._driver: Any = None

    def forget(self) -> None:
        """Keep nothing of the last search's trees, because the network has changed."""
        self._kept = (0, b"")

    def run(
        self,
        states: Tensor,
        evaluate: Evaluate | None,
        generator: torch.Generator,
        *,
        params: Any = None,
        explore: bool = False,
        noise: Tensor | None = None,
        reuse: bool = False,
    ) -> Found:
        """Search.

        Args:
            states: the positions, uint8 [N, state bytes].
            evaluate: the network; None plays random games from the leaves.
            generator: for noise and random games.
            params: parameters, a structured array [1] or [N]; None takes the game's.
            explore: whether there is noise at the root.
            noise: the noise itself, [N, A], in place of a draw.
            reuse: where position b is in tree b of the last search, at most two plies below its root, go on in that
                part of it. Trees have room for twice as many nodes as simulations; there are fewer simulations where
                there is no room for more. Of no use if the network has changed (:meth:`forget`).

        Raises:
            AgentError: if the trees do not fit into memory, or the game's rewards are not opposite, or the solver meets
                rewards before the end, or for reuse with Gumbel, whose schedule counts the visits of one search.
        """
        if reuse and self.config.method == "gumbel":
            raise AgentError("reuse: got method='gumbel', which counts a search's own visits; wanted 'puct' or 'uct'")
        self._check_input(states, params, noise)
        trees = len(states)
        if trees == 0:
            return self._nothing()
        params = np.ascontiguousarray(self.game.params if params is None else params)
        self._allocate(trees, (2 if reuse else 1) * self.config.simulations + 1)
        kept = self._kept[0] if reuse and self._kept[1] == params.tobytes() else 0
        self.forget()
        self._prepare(states, params, kept, explore, noise, generator)
        calls, rows = self._search(trees, evaluate)
        fault = int(self._memory.tensor("fault", 1))
        while fault == NO_ROOM:
            self._make_room(self._width * 2)
            self._prepare(states, params, 0, None, None, None)
            calls, rows = self._search(trees, evaluate)
            fault = int(self._memory.tensor("fault", 1))
        self._check(fault)
        self._kept = trees, params.tobytes()
        return self._report(trees, calls, rows)

    def _check_input(self, states: Tensor, params: Any, noise: Tensor | None) -> None:
        size = self.game.state_dtype.itemsize
        if not isinstance(states, Tensor) or states.dtype != torch.uint8 or states.shape[1:] != (size,):
            got = f"{getattr(states, 'dtype', type(states).__name__)} {tuple(np.shape(states))}"
            raise AgentError(f"states: got {got}; wanted torch.uint8 [N, {size}], as GameBatch.state() gives them")
        if params is not None and len(params) not in (1, len(states)):
            raise AgentError(f"params: got {len(params)} records for {len(states)} positions; wanted 1 or one each")
        wanted = (len(states), self.num_actions)
        if noise is not None and (tuple(noise.shape) != wanted or not bool(torch.isfinite(noise).all())):
            raise AgentError(f"noise: got shape {tuple(noise.shape)}; wanted finite numbers {wanted}")

    def _nothing(self) -> Found:
        """The results of no positions."""
        ints, floats = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        table = torch.zeros(0, self.num_actions)
        return Found(ints, table, table.long(), table, floats, ints, 0, 0, ints)

    def _search(self, trees: int, evaluate: Evaluate | None) -> tuple[int, int]:
        """Grow the trees; returns the calls of the network, and their rows."""
        if evaluate is None:
            self._call("by_rollouts", trees, *_TREE, *_SPARE, *_PLAY, "logits", *_ORDERS)
            return 0, 0
        calls, rows = 0, 0
        count = self._call("begin", trees, *_TREE, *_SPARE, *_WAITING, *_PLAY, "settings", "keys", "fault")
        self._answers: tuple[Any, ...] = (self._memory.view["logits"], self._memory.view["values"])
        for k in range(self.config.simulations + 1):
            if self.device is not None:
                count = trees
            if count:
                self._evaluate(evaluate, count)
                calls, rows = calls + 1, rows + count
            elif k > 0 and not self._alive(trees):
                break
            if self.device is None and int(self._memory.view["used"].max()) + self.num_actions > self._width:
                self._make_room(self._width * 2)
            count = self._call("advance", k, trees, *_TREE, "spare", *_WAITING, *_PLAY, *self._answers, *_ORDERS)
        return calls, rows

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call compiled code: on a GPU, start its kernel with a thread for each tree. Names stand for arrays."""
        view = self._memory.view
        values = [view[value] if isinstance(value, str) else value for value in arguments]
        function = getattr(self._driver, name)
        if self.device is None:
            return function(*values)
        trees = arguments[1] if name == "advance" else arguments[0]
        function[-(-trees // _THREADS_A_BLOCK), _THREADS_A_BLOCK, kernel_stream(self.device)](*values)
        return None

    def _evaluate(self, evaluate: Evaluate, count: int) -> None:
        """Have the network evaluate the rows that wait."""
        seen = self._memory.tensor("obs", count)
        if self.game.observation.scalar:
            seen = seen[..., 0]
        logits, values = evaluate(seen, self._memory.tensor("legal", count))
        if tuple(logits.shape) != (count, self.num_actions) or tuple(values.shape) != (count,):
            raise AgentError(
                f"evaluate: got logits {tuple(logits.shape)} and values {tuple(values.shape)}; wanted "
                f"{(count, self.num_actions)} and {(count,)}"
            )
        if self.device is None:
            self._answers = tuple(part.detach().float().contiguous().cpu().numpy() for part in (logits, values))
            if not (np.isfinite(self._answers[1]).all() and np.isfinite(self._answers[0]).all()):
                raise AgentError("evaluate: got logits or values that are not finite; wanted finite numbers")
        else:
            self._memory.tensor("logits", count).copy_(logits.detach())
            self._memory.tensor("values", count).copy_(values.detach())

    def _alive(self, trees: int) -> bool:
        """Whether any simulation is left to do."""
        roots, size = self._memory.view["nodes"][:trees, 0], self._memory.view["size"][:trees]
        return bool(((roots["kind"] == OPEN) & (roots["outcome"] == UNKNOWN) & (size < self._shape[1])).any())

    def prepare(self) -> None:
        """Compile the search, or load it from the cache; otherwise the first search does."""
        if self._driver is None:
            self._driver = load_search(self.game, self.config.method, "cpu" if self.device is None else "cuda")

    def _allocate(self, trees: int, nodes: int) -> None:
        """Memory for so many trees of so many nodes, kept from one search to the next."""
        self.prepare()
        if trees <= self._shape[0] and nodes <= self._shape[1]:
            return
        self.forget()
        game, layout, actions = self.game, self.game.observation, self.num_actions
        edges = nodes * min(actions, _EDGES_A_NODE) + actions
        self._check_memory(trees, nodes, edges)
        rows = trees if self.device is not None else 1  # on the CPU the network's own arrays are read
        shapes: dict[str, Any] = {
            "nodes": ((trees, nodes), NODE), "edges": ((trees, edges), EDGE),
            "states": ((trees, nodes), game.state_dtype), "spare": ((trees,), game.state_dtype),
            "moved": ((trees, nodes), np.int32), "shift": ((trees, nodes), np.int32),
            "obs": ((trees, *layout.shape), layout.dtype), "legal": ((trees, actions), bool),
            "logits": ((rows, actions), np.float32), "values": ((rows,), np.float32),
            "noise": ((trees, actions), np.float64), "settings": ((1,), SETTINGS), "fault": ((1,), np.int64),
            "actions": ((trees, game.seats), np.int64), "rewards": ((trees, game.seats), np.float32),
            "visits": ((trees, actions), np.int64), "q": ((trees, actions), np.float32),
            "policy": ((trees, actions), np.float32), "value": ((trees,), np.float32), "keys": ((trees,), np.uint64),
        }  # fmt: skip
        shapes |= dict.fromkeys(("used", "size", "pending", "row_of", "best", "outcome"), ((trees,), np.int64))
        self._memory, self._shape, self._width = Memory(shapes, self.device), (trees, nodes), edges

    def _check_memory(self, trees: int, nodes: int, edges: int) -> None:
        node = NODE.itemsize + self.game.state_dtype.itemsize + 8
        size = trees * (nodes * node + edges * EDGE.itemsize)
        if size > (room := memory_bytes(self.device)):
            raise AgentError(
                f"simulations: {trees:,} trees of {self.config.simulations:,} simulations take {size / 2**30:,.1f} "
                f"GiB, and there are {room / 2**30:,.1f} GiB; wanted fewer simulations, or fewer copies"
            )

    def _make_room(self, edges: int) -> None:
        """Room for so many edges in every tree, and at least for one more node's."""
        edges = max(edges, self._width + self.num_actions)
        self._check_memory(*self._shape, edges)
        self._memory.widen("edges", edges)
        self._width = edges

    def _prepare(
        self,
        states: Tensor,
        params: Any,
        kept: int,
        explore: bool | None,
        noise: Tensor | None,
        generator: torch.Generator | None,
    ) -> None:
        """Write positions, parameters, settings and noise; without a generator, the last settings and noise again."""
        memory, trees = self._memory, len(states)
        memory.bytes("spare", trees).copy_(states)
        memory.add("params", params.shape, params.dtype)
        memory.bytes("params", len(params)).copy_(torch.from_numpy(params.view(np.uint8).reshape(len(params), -1)))
        memory.tensor("fault", 1).zero_()
        if generator is not None:
            seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
            self._settings = self._settings_of(bool(explore) or noise is not None, int(seed))
            memory.tensor("noise", trees).copy_(self._noise(trees, bool(explore), noise, generator))
        self._settings["kept"] = kept
        memory.bytes("settings", 1).copy_(torch.from_numpy(self._settings.view(np.uint8).reshape(1, -1)))
        memory.view["stride"] = int(len(params) > 1)

    def _settings_of(self, noisy: bool, seed: int) -> Any:
        config, found = self.config, np.zeros(1, SETTINGS)
        for name in found.dtype.names or ():
            if hasattr(config, name):
                found[name] = getattr(config, name)
        found["noise"] = config.noise if noisy else 0.0
        found["seed"] = seed
        found["solver"] = config.solver and self.game.seats == 2 and config.discount == 1
        found["longest"] = self.game.horizon or 10_000
        return found

    def _noise(self, trees: int, explore: bool, noise: Tensor | None, generator: torch.Generator) -> Tensor:
        """Noise for the root's actions [N, A]: Gumbel's, or gamma variates for Dirichlet's."""
        shape = (trees, self.num_actions)
        if noise is not None:
            return noise
        if not explore or self.config.method == "uct":
            return torch.zeros(shape, dtype=torch.float64)
        if self.config.method == "gumbel":
            drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
            return -torch.log(-torch.log(drawn.clamp(1e-300, 1 - 1e-16)))
        # Gamma variates, which divided by the sum of those of the legal actions are a Dirichlet draw.
        alpha = torch.full(shape, self.config.dirichlet, dtype=torch.float64, device=generator.device)
        return torch._standard_gamma(alpha, generator=generator) + 1e-300

    def __deepcopy__(self, memo: dict[int, Any]) -> TreeSearch:
        return TreeSearch(self.game, self.config, "cpu" if self.device is None else "cuda")  # without its trees

    def proven(self, row: int) -> dict[int, tuple[int, int]]:
        """The moves whose outcome the last search proved in position ``row``: each outcome, and moves to the end."""
        root, edges = self._memory.on_host("nodes")[row, 0], self._memory.on_host("edges")[row]
        known = edges[root["first"] : root["first"] + root["count"]]
        return {int(e["action"]): (int(e["outcome"]), int(e["distance"])) for e in known if e["outcome"] != UNKNOWN}

    def line(self, row: int, action: int, most: int = 20) -> list[int]:
        """The moves that the last search expects in position ``row`` from ``action`` on: the most visited ones."""
        nodes, edges = self._memory.on_host("nodes")[row], self._memory.on_host("edges")[row]
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

    def _report(self, trees: int, calls: int, rows: int) -> Found:
        self._call("report", trees, "nodes", "edges", "settings", "noise", *_RESULTS)
        found = {name: self._memory.tensor(name, trees).clone() for name in (*_RESULTS, "size")}
        return Found(
            found["best"], found["policy"], found["visits"], found["q"], found["value"], found["outcome"], calls, rows,
            found["size"],
        )  # fmt: skip


def joined(parts: Sequence[Found]) -> Found:
    """The results of several searches as one; positions in their order."""
    if len(parts) == 1:
        return parts[0]

    def together(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return torch.cat(values) if isinstance(values[0], Tensor) else sum(values)

    return Found(*(together(name) for name in Found._fields))
