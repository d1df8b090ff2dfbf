"""mlbits: reinforcement-learning environments and agents; a game's rules are written once and work in every interface.

``import mlbits`` registers every environment with Gymnasium and PettingZoo.

Example:
    >>> import gymnasium as gym, mlbits
    >>> env = gym.make("mlbits/GridWorld-v0")
    >>> obs, info = env.reset(seed=0)
"""

from mlbits.envs import register_all
from mlbits.envs.registry import make_batch, make_game, make_sb3, register, registered
from mlbits.version import __version__

register_all()

__all__ = ["__version__", "make_batch", "make_game", "make_sb3", "register", "registered"]
