"""Evaluation: how good agents are, how exploitable, how they compare, and how fast the suite runs.

Tournaments, game theory, benchmarks and reproductions of results belong here; training does not (``selfplay``).
``EVALS`` is the registry of reproductions, one line each; :mod:`mlbits.evals.registry` describes an entry's parts.
"""

from mlbits.evals.registry import EVALS, EvalEntry, eval_entry, register_eval

__all__ = ["EVALS", "EvalEntry", "eval_entry", "register_eval"]

EVALS["gridworld"] = EvalEntry(
    "mlbits.evals.reproductions.gridworld:reproduce", "PPO reaches 95% of the exact optimum of GridWorld in 60 s"
)
EVALS["cartpole"] = EvalEntry(
    "mlbits.evals.reproductions.cartpole:reproduce", "PPO solves CartPole in 30k steps and 6 CPU-seconds"
)
EVALS["classic"] = EvalEntry(
    "mlbits.evals.reproductions.classic:reproduce",
    "the classic agents beside Stable-Baselines3 and published figures",
)
EVALS["supervised-vs-rl"] = EvalEntry(
    "mlbits.evals.reproductions.supervised_vs_rl:reproduce",
    "rewards take n times the examples that n labels take, or not",
)
EVALS["diplomacy"] = EvalEntry(
    "mlbits.evals.reproductions.diplomacy:reproduce",
    "PPO on a small Diplomacy board beats random play and a greedy bot",
)
EVALS["openspiel"] = EvalEntry(
    "mlbits.evals.reproductions.openspiel:reproduce",
    "NashConv, alpha-rank and Elo are OpenSpiel's, on the same inputs",
)
EVALS["fictitious-play"] = EvalEntry(
    "mlbits.evals.reproductions.fictitious_self_play:reproduce",
    "a pool of past selves is harder to exploit than plain self-play",
)
EVALS["overestimation"] = EvalEntry(
    "mlbits.evals.reproductions.overestimation:reproduce",
    "max Q is too high, and double Q-learning cures it, table and DQN",
)
EVALS["similarity"] = EvalEntry(
    "mlbits.evals.reproductions.similarity:reproduce",
    "networks that see how similar they are keep cooperating, in part",
)
