"""``mlbits reproduce tic-tac-toe``: AlphaZero never loses at tic-tac-toe, whatever the other side plays.

Every line of play is followed (:mod:`mlbits.evals.worst_case`): with perfect play the game is a draw.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlbits.evals.reproductions.reproduction import print_table
from mlbits.evals.reproductions.search.alphazero import trained
from mlbits.evals.worst_case import worst_return
from mlbits.selfplay.runs.saved_agents import load_agent

ENV = "mlbits/TicTacToe-v0"


class _Network:
    """The bare network of an agent."""

    def __init__(self, agent: Any) -> None:
        self.act = agent.act


def reproduce(quick: bool = False, *, seeds: int = 3, minutes: float = 5.0, out: Path | None = None) -> dict[str, Any]:
    """Train with the shipped preset, then follow every line of play.

    Args:
        quick: one seed, half a minute, and only the first seat has to hold.
        seeds: number of runs.
        minutes: minutes of training on two cores; the run takes twice as many of CPU time.
        out: a folder for the runs, which are kept and resumed; None makes a temporary one.

    Returns:
        "rows" (seed, the worst return in each seat by search and by the bare network; 0 is a draw, -1 a loss) and
        "met": whether the search never loses.
    """
    rows: list[dict[str, Any]] = []
    for seed in range(1 if quick else seeds):
        with trained(ENV, seed, 0.5 if quick else minutes, out) as folder:
            agent = load_agent(folder)[0]
            search = [worst_return(agent, ENV, seat) for seat in (0, 1)]
            network = [worst_return(_Network(agent), ENV, seat) for seat in (0, 1)]  # type: ignore[arg-type]
            rows.append({"seed": seed, "search": search, "network": network})
    print_table(
        "AlphaZero on tic-tac-toe: the worst return over all play of the other side (0 is a draw)",
        ["seed", "search, first", "second", "network, first", "second"],
        [[row["seed"], *row["search"], *row["network"]] for row in rows],
    )
    # Half a minute of CPU time is too little for the second seat.
    held = [worst for row in rows for worst in (row["search"][:1] if quick else row["search"])]
    return {"rows": rows, "met": all(worst >= 0 for worst in held)}
