"""The copies behind one of our own environments, however it is wrapped: states that rules can continue."""

from __future__ import annotations

from typing import Any

from mlbits.envs.engine.cpu_copies import Copies


def copies_of(env: Any) -> Copies | None:
    """The copies of an environment made by ``gym.make``, ``gym.make_vec`` or ``pettingzoo.make``.

    Args:
        env: an environment, perhaps in wrappers.

    Returns:
        The copies; None for an environment that is not one of mlbits' own.
    """
    inner = getattr(env, "unwrapped", env)
    found = getattr(inner, "_copies", None) or getattr(getattr(inner, "_copy", None), "copies", None)
    return found if isinstance(found, Copies) else None
