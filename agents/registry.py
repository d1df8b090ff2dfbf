"""The registry of agents: what an entry contains, look-up by name, registration of custom agents, bots.

The entries are in ``agents/__init__.py``, one per agent; the modules that they name are imported at first use.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from mlbits.envs.core.game import Game
from mlbits.envs.core.order_space import OrderSpace
from mlbits.envs.core.spaces import action_layout
from mlbits.envs.origins import caller, import_name, importable_name
from mlbits.envs.registry_table import Registry


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One registered agent.

    Attributes:
        module: name of the module that defines it.
        agent: name of its class.
        config: name of its config dataclass.
        summary: one line for lists.
        actions: the kinds of action space that it handles; "orders" is an OrderSpace, which counts as multi-discrete
            too.
        observations: the kinds of observation space that it handles.
        bot: whether it plays without any training.
        plans: whether it looks ahead by the game's rules; it is then made with ``game=``, and is for mlbits' own games
            only.
        trainer: the module that trains it; see :mod:`mlbits.selfplay.training`.
        offline: whether it learns from a dataset (``--data``) instead of playing.
        masks: whether it plays where some actions are illegal at times.
    """

    module: str
    agent: str
    config: str
    summary: str
    actions: tuple[str, ...] = ("discrete", "multi_discrete", "continuous")
    observations: tuple[str, ...] = ("index", "indices", "vector", "image", "dict")
    bot: bool = False
    plans: bool = False
    trainer: str = "mlbits.selfplay.loop"
    offline: bool = False
    masks: bool = True

    def config_class(self) -> Any:
        """The config dataclass."""
        return import_name(self.module, self.config)

    def make(
        self,
        config: Any,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int,
        device: Any,
        game: Game | None = None,
    ) -> Any:
        """Make an agent for one seat's spaces.

        Args:
            config: its settings.
            observation_space: one seat's observations.
            action_space: one seat's actions.
            seed: of the initial weights.
            device: where it lives.
            game: the game to be played, for agents that plan; None for an environment that is not one of mlbits' own.

        Raises:
            AgentError: if the agent does not support the spaces; the message lists the agents that do. Also if it plans
                and there is no game.
            GameError: if no agent supports them.
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
        agent_class = import_name(self.module, self.agent)
        if not self.plans:
            return agent_class(config, observation_space, action_space, seed=seed, device=device)
        if game is None:
            raise AgentError(f"{self._name()}: plans by a game's rules; wanted one of mlbits' own games (mlbits/...)")
        return agent_class(config, game, seed=seed, device=device)

    def _name(self) -> str:
        known = {**AGENTS, **RULES}
        return next((name for name, entry in known.items() if entry is self), self.agent)


AGENTS: Registry[AgentEntry] = Registry("agent")
# What runs train that is no agent: update rules (``mlbits meta-train``). They are found by their names, and not listed.
RULES: dict[str, AgentEntry] = {}


def action_kinds(space: gym.Space[Any]) -> tuple[str, ...]:
    """The kinds of action space that a space counts as: an OrderSpace is both "orders" and "multi_discrete".

    Raises:
        GameError: if no agent supports it.
    """
    kind = action_layout(space).kind
    return ("orders", kind) if isinstance(space, OrderSpace) else (kind,)


def _either(kinds: tuple[str, ...]) -> str:
    articles = {"index": "an index", "vector": "a vector", "image": "an image", "dict": "a Dict", "orders": "of orders"}
    return " or ".join(articles.get(kind, kind.replace("_", "-")) for kind in kinds)


def agent_entry(name: str) -> AgentEntry:
    """Look up a registered agent.

    Args:
        name: a registered name, or "module:name" for an agent that the module registers when it is imported.

    Raises:
        UnknownIdError: for an unknown name; the message suggests the nearest known one.
        GameError: if the module cannot be imported.
    """
    return RULES[name] if name in RULES else AGENTS[check_agent(name)]


def check_agent(name: str, folders: Sequence[str] | None = None) -> str:
    """Check that an agent's name is known, and strip the module from it.

    Args:
        name: a registered name, or "module:name".
        folders: where to look for the module if a file named it; see :func:`mlbits.envs.origins.import_module`.

    Returns:
        The name without the module.

    Raises:
        UnknownIdError: for an unknown name; the message suggests the nearest known one.
        GameError: if the module cannot be imported.
    """
    return name if name in RULES else AGENTS.check(name, folders)


def agent_module(name: str) -> str:
    """The module that another process has to import to register an agent; "" for built-in agents."""
    return "" if name in RULES else AGENTS.module(name)


def bot_names() -> list[str]:
    """Names of the agents that play without any training."""
    return [name for name, entry in AGENTS.items() if entry.bot]


def make_bot(
    name: str,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    device: Any,
    game: Game | None = None,
) -> Any:
    """Make a bot; one that plans needs the game.

    Args:
        name: the bot, with settings if they are not the default ones: see :func:`read_bot`.
        observation_space: one seat's observations.
        action_space: one seat's actions.
        device: where it plays.
        game: the game to be played, for bots that plan.

    Raises:
        UnknownIdError: for an unknown name; the message suggests the nearest known one.
        AgentError: if the agent is not a bot, has no such setting, or does not support the spaces.
    """
    from mlbits.agents.agent import AgentError

    entry, config = read_bot(name)
    try:
        return entry.make(config, observation_space, action_space, seed=0, device=device, game=game)
    except AgentError as error:  # a value that does not fit this game
        if str(error).partition(":")[0] not in typing.get_type_hints(type(config)):
            raise
        raise AgentError(f"{name}: {error}") from None


def bare_name(name: str) -> str:
    """The name of a bot without its settings."""
    return name.partition("@")[0]


def read_bot(name: str) -> tuple[AgentEntry, Any]:
    """A bot and its settings by a name such as ``mcts`` or ``mcts@simulations=100,c=1.4``.

    Raises:
        UnknownIdError: for an unknown bot; the message suggests the nearest known one.
        AgentError: if the agent is not a bot, or a setting is unknown, has no value or a wrong one.
    """
    from mlbits.agents.agent import AgentError

    plain, at, text = name.partition("@")
    entry = agent_entry(plain)
    if not entry.bot:
        raise AgentError(f"opponents: got {plain}, which has not been trained; wanted a bot ({', '.join(bot_names())})")
    kind = entry.config_class()
    hints, values = typing.get_type_hints(kind), dict[str, Any]()
    for part in text.split(",") if at else ():
        key, equals, value = part.partition("=")
        key = key.replace("-", "_")
        if key not in hints or not equals or key in values:
            known = f"NAME=VALUE,NAME=VALUE with {', '.join(hints)}, each once" if hints else "no settings"
            raise AgentError(f"{name}: got {part!r} after the @; wanted {known}")
        try:
            values[key] = _value_of(value, hints[key])
        except ValueError:
            wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(hints[key], "a value")
            raise AgentError(f"{name}: {key}: got {value!r}; wanted {wanted}") from None
    try:
        return entry, kind(**values)
    except AgentError as error:
        raise AgentError(f"{name}: {error}") from None


def _value_of(text: str, kind: Any) -> Any:
    """A setting's value, written as in Python (true and false in any case)."""
    if kind is bool:
        return ["false", "true"].index(text.lower()) == 1
    return kind(text) if kind in (int, float) else text


def register_agent(name: str, entry: AgentEntry) -> None:
    """Register a custom agent, for ``mlbits train`` too; other processes find it as "module:name".

    Raises:
        GameError: if the name is malformed, or already taken by another agent.
    """
    AGENTS.register(name, entry, importable_name(caller()))
