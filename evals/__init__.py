"""Evaluation: how good agents are, how exploitable, how they compare, and how fast the suite runs.

Tournaments, game theory, benchmarks and reproductions of results belong here; training does not (``selfplay``).
``EVALS`` is the registry of reproductions: one line each, imported at first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlbits.envs.core.errors import UnknownIdError


@dataclass(frozen=True, slots=True)
class EvalEntry:
    """One registered reproduction.

    Attributes:
        target: "module:function"; the function takes ``quick: bool`` and returns a dict with the key "met". Its other
            parameters, each with a type, a default and a line in its docstring, become flags of ``mlbits reproduce``.
        summary: one line for lists.
    """

    target: str
    summary: str

    def load(self) -> Callable[..., dict[str, Any]]:
        """The function itself."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


EVALS: dict[str, EvalEntry] = {
    "gridworld": EvalEntry(
        "mlbits.evals.reproductions.gridworld:reproduce", "PPO reaches 95% of the exact optimum of GridWorld in 60 s"
    ),
    "cartpole": EvalEntry(
        "mlbits.evals.reproductions.cartpole:reproduce", "PPO solves CartPole in 30k steps and 6 CPU-seconds"
    ),
    "classic": EvalEntry(
        "mlbits.evals.reproductions.classic:reproduce",
        "the classic agents beside Stable-Baselines3 and published figures",
    ),
    "supervised-vs-rl": EvalEntry(
        "mlbits.evals.reproductions.supervised_vs_rl:reproduce",
        "rewards take n times the examples that n labels take, or not",
    ),
    "diplomacy": EvalEntry(
        "mlbits.evals.reproductions.diplomacy:reproduce",
        "PPO on a small Diplomacy board beats random play and a greedy bot",
    ),
    "openspiel": EvalEntry(
        "mlbits.evals.reproductions.openspiel:reproduce",
        "NashConv, alpha-rank and Elo are OpenSpiel's, on the same inputs",
    ),
    "fictitious-play": EvalEntry(
        "mlbits.evals.reproductions.fictitious_self_play:reproduce",
        "a pool of past selves is harder to exploit than plain self-play",
    ),
    "overestimation": EvalEntry(
        "mlbits.evals.reproductions.overestimation:reproduce",
        "max Q is too high, and double Q-learning cures it, table and DQN",
    ),
    "similarity": EvalEntry(
        "mlbits.evals.reproductions.similarity:reproduce",
        "networks that see how similar they are keep cooperating, in part",
    ),
}


def eval_entry(name: str) -> EvalEntry:
    """A registered reproduction.

    Raises:
        UnknownIdError: with the nearest known name.
    """
    if name not in EVALS:
        raise UnknownIdError("evaluation", name, EVALS)
    return EVALS[name]


def register_eval(name: str, entry: EvalEntry) -> None:
    """Make a reproduction of one's own known to ``mlbits reproduce`` in this process."""
    EVALS[name] = entry
