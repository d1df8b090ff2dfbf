"""mlbits: reinforcement-learning environments and agents; a game's rules are written once and work in every interface.

``import mlbits`` registers every environment with Gymnasium and PettingZoo; ``mlbits.train`` and ``mlbits.resume`` are
the commands of that name.

Example:
    >>> import gymnasium as gym, mlbits
    >>> env = gym.make("mlbits/GridWorld-v0")
    >>> obs, info = env.reset(seed=0)
"""

from typing import TYPE_CHECKING, Any

from mlbits.envs import register_all
from mlbits.envs.core.trust import trusting_files
from mlbits.envs.registry import make_batch, make_game, make_sb3, register, registered
from mlbits.version import __version__

if TYPE_CHECKING:
    from mlbits.training import resume, train

register_all()

__all__ = [
    "__version__", "make_batch", "make_game", "make_sb3", "register", "registered", "resume", "train", "trusting_files",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What trains, imported when it is asked for: it brings torch."""
    if name in ("resume", "train"):
        from mlbits import training

        return getattr(training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
