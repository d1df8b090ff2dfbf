"""``mlbits reproduce connect-four``: AlphaZero on Connect Four, measured against perfect play and against UCT.

The positions (``connect_four_positions.json``) come from games of UCT with 300 rollouts after 6 random plies, at 12 to
30 plies; a perfect solver gave the score of each move: positive wins, negative loses, larger is sooner for the winner.
A position is hard if some legal move gives away a win or a draw; a move keeps the value if it does not. By the solver,
only the first move d wins, and c and e draw.

The yardstick is UCT with 1,000 random games a move (c = 2, proven results backed up), which is OpenSpiel's MCTS bot; it
keeps the value of most hard positions too, a random player that of 40%.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.agent import Agent
from mlbits.agents.search.search import SearchConfig, TreeSearch
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.registry import make_batch
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.evals.reproductions.search.alphazero import against_yardstick, trained
from mlbits.selfplay.runs.saved_agents import load_agent
from mlbits.selfplay.statistics import fraction_interval

ENV = "mlbits/ConnectFour-v0"
LETTERS = "abcdefg"
FIRST_MOVES = (-1, -1, 0, 1, 0, -1, -1)  # a to g, for the first player
TARGETS = {"search": 0.97, "network": 0.90, "won": 0.90}


class Position(NamedTuple):
    """A position with the perfect scores of its moves.

    Attributes:
        moves: columns, from the empty board.
        scores: score of each column for the seat to move; None for a full column.
    """

    moves: tuple[int, ...]
    scores: tuple[int | None, ...]

    @property
    def signs(self) -> NDArray[np.int64]:
        """Win (1), draw (0) or loss (-1) of each column; -2 for a full one."""
        return np.array([-2 if score is None else (score > 0) - (score < 0) for score in self.scores])

    @property
    def hard(self) -> bool:
        """Whether a legal move gives something away."""
        return len(set(self.signs.tolist()) - {-2}) > 1


def read_positions() -> list[Position]:
    """The positions that come with mlbits."""
    data = json.loads(Path(__file__).with_name("connect_four_positions.json").read_text())
    return [Position(tuple(LETTERS.index(c) for c in row["moves"]), tuple(row["scores"])) for row in data]


def place(positions: Sequence[Position]) -> GameBatch:
    """A batch with one copy in each position."""
    batch = make_batch(ENV, len(positions), autoreset="disabled")
    for ply in range(max(len(position.moves) for position in positions)):
        before = batch.state()
        playing = torch.tensor([ply < len(position.moves) for position in positions])
        assert batch.legal_mask is not None
        legal = batch.legal_mask.float().argmax(-1)  # for the copies that wait, which are put back
        column = torch.tensor([position.moves[ply] if ply < len(position.moves) else 0 for position in positions])
        seat = ply % 2
        actions = legal.clone()
        actions[:, seat] = torch.where(playing, column, legal[:, seat])
        batch.step(actions)
        after = batch.state()
        batch.set_state(torch.where(playing[:, None], after, before))
    return batch


def kept(positions: Sequence[Position], moves: Tensor) -> NDArray[np.bool_]:
    """Whether each move keeps the value of its position, bool [N]."""
    signs = np.stack([position.signs for position in positions])
    return signs[np.arange(len(positions)), moves.numpy()] == signs.max(1)


def moves_of_network(agent: Agent, batch: GameBatch) -> Tensor:
    """The network's likeliest moves, [N]."""
    rows = torch.arange(batch.num_envs)
    seat = torch.from_numpy(batch.records()["turn"].astype(np.int64))
    mask = batch.legal_mask
    assert mask is not None
    return agent.act(batch.obs[rows, seat], mask[rows, seat], torch.Generator(), greedy=True).action


def moves_of_search(agent: Any, batch: GameBatch, simulations: int) -> Tensor:
    """The moves of the agent's search without noise, [N]; with no agent those of UCT with random games."""
    config = SearchConfig(method="uct", simulations=simulations) if agent is None else agent.config.search(
        simulations=simulations
    )  # fmt: skip
    evaluate = None if agent is None else agent.policy_and_value
    found = TreeSearch(batch.game, config).run(batch.state(), evaluate, torch.Generator().manual_seed(0))
    return found.action


def measure(agent: Any, *, simulations: int = 200, positions: Sequence[Position] | None = None) -> dict[str, Any]:
    """How often an agent keeps the value of hard positions, by its network and by search.

    Returns:
        "network", "search" and "yardstick" (UCT, 1,000 rollouts), each the fraction and its 95% interval (Wilson), and
        "positions", how many they are.
    """
    hard = [position for position in positions or read_positions() if position.hard]
    batch = place(hard)
    moves = {
        "network": moves_of_network(agent, batch),
        "search": moves_of_search(agent, batch, simulations),
        "yardstick": moves_of_search(None, batch, 1000),
    }
    found: dict[str, Any] = {"positions": len(hard)}
    for name, chosen in moves.items():
        good = kept(hard, chosen)
        fraction, (low, high) = fraction_interval(int(good.sum()), len(good))
        found[name] = {"kept": fraction, "interval": [low, high]}
    return found


def first_moves(agent: Any, *, simulations: int = 2000) -> list[float]:
    """The value of each first move for the first player, by searches of the positions after it, [7]."""
    batch = place([Position((column,), (0,) * 7) for column in range(7)])
    config = agent.config.search(simulations=simulations)
    found = TreeSearch(batch.game, config).run(batch.state(), agent.policy_and_value, torch.Generator().manual_seed(0))
    return [-float(value) for value in found.value]


def reproduce(quick: bool = False, *, seeds: int = 3, minutes: float = 60.0, out: Path | None = None) -> dict[str, Any]:
    """Train with the shipped preset, then measure.

    Args:
        quick: one seed, 36 seconds on one core, 6 games, and targets that only show whether it learns at all.
        seeds: number of runs.
        minutes: minutes of training on two cores; the run takes twice as many of CPU time.
        out: a folder for the runs, which are kept and resumed; None makes a temporary one.

    Returns:
        "rows", one per seed (network, search, yardstick: fraction of hard positions whose value is kept, with
        intervals; first_moves: values; won, drawn: of 200 games against the yardstick), and "met".
    """
    rows = []
    for seed in range(1 if quick else seeds):
        with trained(ENV, seed, 0.3 if quick else minutes, out) as folder:
            agent = load_agent(folder)[0]
            played = against_yardstick(folder, games=6 if quick else 200)
            found = {"seed": seed, **measure(agent), "first_moves": first_moves(agent), "played": played}
            rows.append(found | {"right_first_moves": _right(found["first_moves"])})
    print_table(
        f"AlphaZero on {ENV}: value kept in {rows[0]['positions']} hard positions (95% intervals), first moves a to g, "
        "games against UCT with 1,000 rollouts",
        ["seed", "network", "search, 200", "UCT, 1,000", "first moves", "won", "lost"],
        [
            [row["seed"], *(_text(row[name]) for name in ("network", "search", "yardstick")),
             " ".join(f"{value:+.2f}" for value in row["first_moves"]),
             f"{row['played']['won']:.1%}", f"{row['played']['lost']:.1%}"]
            for row in rows
        ],
        width=130,
    )  # fmt: skip
    met = all(_met(row, quick) for row in rows)
    return {"rows": rows, "median_search": statistics.median(row["search"]["kept"] for row in rows), "met": met}


def _right(values: Sequence[float]) -> bool:
    """Whether values of the first moves are a win, draws and losses where they should be."""
    return all(round(value) == wanted for value, wanted in zip(values, FIRST_MOVES, strict=True))


def _met(row: dict[str, Any], quick: bool) -> bool:
    if quick:
        return bool(row["search"]["kept"] > 0.5)
    kept_enough = all(row[name]["kept"] >= TARGETS[name] for name in ("search", "network"))
    return bool(kept_enough and row["right_first_moves"] and row["played"]["won"] >= TARGETS["won"])


def _text(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['kept']:.1%} ({low:.0%} to {high:.0%})"
