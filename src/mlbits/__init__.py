"""mlbits: reinforcement-learning environments and agents; a game's rules are written once and work in every interface.

``import mlbits`` registers every environment with Gymnasium and PettingZoo. ``mlbits.train`` trains an agent and
returns a :class:`Run`, ``mlbits.resume`` continues one, and ``mlbits.load`` gives an agent to act with.

Example:
    >>> import gymnasium as gym, mlbits
    >>> env = gym.make("mlbits/GridWorld-v0")
    >>> obs, info = env.reset(seed=0)
    >>> run = mlbits.train("ppo", "mlbits/GridWorld-v0", total_steps=1_000, out="runs/first", console=False)
    >>> action = mlbits.load("runs/first").predict(obs)
"""

import importlib
from typing import TYPE_CHECKING, Any

from mlbits.envs import register_all
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.trust import trusting_files
from mlbits.envs.registry import make_batch, make_game, make_sb3, register, registered
from mlbits.version import __version__

if TYPE_CHECKING:
    from mlbits.evals.pictures import show
    from mlbits.runs import Run, Runs, load_run
    from mlbits.selfplay.policy import Policy, Prediction
    from mlbits.selfplay.runs.loading import load_policy as load
    from mlbits.training import resume, train

register_all()

__all__ = [
    "MlbitsError", "Policy", "Prediction", "Run", "Runs", "__version__", "load", "load_run", "make_batch", "make_game",
    "make_sb3", "register", "registered", "resume", "show", "train", "trusting_files",
]  # fmt: skip

# What trains and acts, by the module that it is in and its name there; imported when it is asked for: it brings torch.
_LATER = {
    "Policy": ("mlbits.selfplay.policy", "Policy"),
    "Prediction": ("mlbits.selfplay.policy", "Prediction"),
    "Run": ("mlbits.runs", "Run"),
    "Runs": ("mlbits.runs", "Runs"),
    "load_run": ("mlbits.runs", "load_run"),
    "load": ("mlbits.selfplay.runs.loading", "load_policy"),
    "resume": ("mlbits.training", "resume"),
    "show": ("mlbits.evals.pictures", "show"),
    "train": ("mlbits.training", "train"),
}


def __getattr__(name: str) -> Any:
    """What is imported when it is asked for."""
    if name in _LATER:
        module, inner = _LATER[name]
        return getattr(importlib.import_module(module), inner)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
