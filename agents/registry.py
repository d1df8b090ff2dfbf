"""The registry of agents: what an entry says, look-up by name, agents of one's own, bots.

The entries stand in ``agents/__init__.py``, one line an agent; what they name is imported at first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from mlbits.envs.core.order_space import OrderSpace
from mlbits.envs.core.spaces import action_layout
from mlbits.envs.origins import caller, importable_name
from mlbits.envs.registry_table import Registry


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One registered agent.

    Attributes:
        module: where it lives.
        agent: name of its class.
        config: name of its config dataclass.
        summary: one line for lists.
        actions: the kinds of action space that it handles; "orders" are those of an OrderSpace, which is
            multi-discrete too.
        observations: the kinds of observation space that it handles.
        bot: whether it plays without having learnt.
        trainer: the module that trains it, see :mod:`mlbits.selfplay.training`.
    """

    module: str
    agent: str
    config: str
    summary: str
    actions: tuple[str, ...] = ("discrete", "multi_discrete", "continuous")
    observations: tuple[str, ...] = ("index", "indices", "vector", "image", "dict")
    bot: bool = False
    trainer: str = "mlbits.selfplay.loop"

    def config_class(self) -> Any:
        """The config dataclass."""
        return getattr(importlib.import_module(self.module), self.config)

    def make(
        self, config: Any, observation_space: gym.Space[Any], action_space: gym.Space[Any], *, seed: int, device: Any
    ) -> Any:
        """An agent for one seat's spaces.

        Raises:
            AgentError: if it cannot handle the spaces; the message says which agents can.
            GameError: if no agent can.
        """
        from mlbits.agents.agent import AgentError
        from mlbits.agents.networks.features import observation_kind

        kinds = {"action": action_kinds(action_space), "observation": (observation_kind(observation_space),)}
        for what, space in (("action", action_space), ("observation", observation_space)):
            wanted, got = getattr(self, f"{what}s"), kinds[what]
            if not set(got) & set(wanted):
                able = [name for name, entry in AGENTS.items() if set(got) & set(getattr(entry, f"{what}s"))]
                raise AgentError(
                    f"{self._name()}: got the {what} space {space}; wanted one that is {_either(wanted)}. "
                    f"Agents for {got[-1].replace('_', '-')} {what}s: {', '.join(able) or 'none'}"
                )
        agent_class = getattr(importlib.import_module(self.module), self.agent)
        return agent_class(config, observation_space, action_space, seed=seed, device=device)

    def _name(self) -> str:
        return next((name for name, entry in AGENTS.items() if entry is self), self.agent)


AGENTS: Registry[AgentEntry] = Registry("agent")


def action_kinds(space: gym.Space[Any]) -> tuple[str, ...]:
    """What kinds of action space a space is: "orders" besides "multi_discrete" for orders on a graph.

    Raises:
        GameError: if no agent can act in it.
    """
    kind = action_layout(space).kind
    return ("orders", kind) if isinstance(space, OrderSpace) else (kind,)


def _either(kinds: tuple[str, ...]) -> str:
    articles = {"index": "an index", "vector": "a vector", "image": "an image", "dict": "a Dict", "orders": "of orders"}
    return " or ".join(articles.get(kind, kind.replace("_", "-")) for kind in kinds)


def agent_entry(name: str) -> AgentEntry:
    """A registered agent.

    Args:
        name: a registered one, or "module:name" for one that is known once the module has been imported.

    Raises:
        UnknownIdError: with the nearest known name.
        GameError: if the module cannot be imported.
    """
    return AGENTS[check_agent(name)]


def check_agent(name: str, folders: Sequence[str] | None = None) -> str:
    """Refuse an agent's name that is not known.

    Args:
        name: a registered one, or "module:name".
        folders: of the module, where a file has named it; see :func:`mlbits.envs.origins.import_module`.

    Returns:
        The name without the module.

    Raises:
        UnknownIdError: with the nearest known name.
        GameError: if the module cannot be imported.
    """
    return AGENTS.check(name, folders)


def agent_module(name: str) -> str:
    """The module that another process imports to know an agent; "" for our own."""
    return AGENTS.module(name)


def bot_names() -> list[str]:
    """Names of the agents that play without having learnt."""
    return [name for name, entry in AGENTS.items() if entry.bot]


def make_bot(name: str, observation_space: gym.Space[Any], action_space: gym.Space[Any], *, device: Any) -> Any:
    """A bot with its default settings.

    Raises:
        UnknownIdError: with the nearest known name.
        AgentError: if the agent is no bot, or cannot play with these spaces.
    """
    from mlbits.agents.agent import AgentError

    entry = agent_entry(name)
    if not entry.bot:
        raise AgentError(f"opponents: got {name}, which has not been trained; wanted a bot ({', '.join(bot_names())})")
    return entry.make(entry.config_class()(), observation_space, action_space, seed=0, device=device)


def register_agent(name: str, entry: AgentEntry) -> None:
    """Make an agent of one's own known to ``mlbits train``; in another process "module:name" is known.

    Raises:
        GameError: if the name is malformed, or taken by another agent.
    """
    AGENTS.register(name, entry, importable_name(caller()))
