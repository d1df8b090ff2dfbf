"""Agents: who plays. One file an algorithm; shared maths in returns, networks and distributions.

``AGENTS`` is the registry: one line an agent, imported at first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.envs.core.order_space import OrderSpace
from mlbits.envs.core.spaces import action_layout
from mlbits.envs.origins import caller, import_module, importable_name


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
    """

    module: str
    agent: str
    config: str
    summary: str
    actions: tuple[str, ...] = ("discrete", "multi_discrete", "continuous")
    observations: tuple[str, ...] = ("index", "indices", "vector", "image", "dict")
    bot: bool = False

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
        from mlbits.agents.networks.policy_value import observation_kind

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


AGENTS: dict[str, AgentEntry] = {
    "ppo": AgentEntry("mlbits.agents.ppo", "PPO", "PPOConfig", "proximal policy optimisation, clipped or adaptive KL"),
    "q-learning": AgentEntry(
        "mlbits.agents.tabular_q",
        "TabularQ",
        "TabularQConfig",
        "tabular Q-learning and double Q-learning, for observations that can be counted",
        ("discrete", "multi_discrete"),
        ("index", "indices"),
    ),
    "dqn": AgentEntry(
        "mlbits.agents.dqn",
        "DQN",
        "DQNConfig",
        "deep Q-learning: double, dueling, n-step, prioritised, C51, QR-DQN",
        ("discrete",),
    ),
    "ddpg": AgentEntry(
        "mlbits.agents.ddpg",
        "DDPG",
        "DDPGConfig",
        "deterministic policy gradient; D4PG and TD3 by switches",
        ("continuous",),
    ),
    "reinforce": AgentEntry(
        "mlbits.agents.reinforce",
        "Reinforce",
        "ReinforceConfig",
        "policy gradient: returns, rewards-to-go, baselines, GAE",
    ),
    "trpo": AgentEntry(
        "mlbits.agents.trpo", "TRPO", "TRPOConfig", "trust region: natural gradient under a bound on the KL divergence"
    ),
    "classifier": AgentEntry(
        "mlbits.agents.classifier",
        "Classifier",
        "ClassifierConfig",
        "one-step problems: cross-entropy, policy gradients and Q loss on one network",
        ("discrete",),
    ),
    "random": AgentEntry(
        "mlbits.agents.bots.random_bot", "random_agent", "RandomConfig", "uniform over legal actions", bot=True
    ),
    "diplomacy-hold": AgentEntry(
        "mlbits.agents.bots.diplomacy",
        "HoldBot",
        "HoldConfig",
        "a bot for Diplomacy boards that holds",
        ("orders",),
        ("dict",),
        bot=True,
    ),
    "diplomacy-greedy": AgentEntry(
        "mlbits.agents.bots.diplomacy",
        "GreedyBot",
        "GreedyConfig",
        "a bot for Diplomacy boards that takes and defends centres",
        ("orders",),
        ("dict",),
        bot=True,
    ),
    "sb3-ppo": AgentEntry(
        "mlbits.agents.sb3.agent", "SB3Agent", "SB3PPOConfig", "Stable-Baselines3's PPO, by its own loop"
    ),
    "sb3-a2c": AgentEntry(
        "mlbits.agents.sb3.agent", "SB3Agent", "SB3A2CConfig", "Stable-Baselines3's A2C, by its own loop"
    ),
    "sb3-dqn": AgentEntry(
        "mlbits.agents.sb3.agent", "SB3Agent", "SB3DQNConfig", "Stable-Baselines3's DQN, by its own loop", ("discrete",)
    ),
    "sb3-ddpg": AgentEntry(
        "mlbits.agents.sb3.agent",
        "SB3Agent",
        "SB3DDPGConfig",
        "Stable-Baselines3's DDPG, by its own loop",
        ("continuous",),
    ),
    "sb3-td3": AgentEntry(
        "mlbits.agents.sb3.agent",
        "SB3Agent",
        "SB3TD3Config",
        "Stable-Baselines3's TD3, by its own loop",
        ("continuous",),
    ),
    "sb3-sac": AgentEntry(
        "mlbits.agents.sb3.agent",
        "SB3Agent",
        "SB3SACConfig",
        "Stable-Baselines3's SAC, by its own loop",
        ("continuous",),
    ),
}


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


_modules: dict[str, str] = {}  # by name: the module that registered an agent of one's own


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
    module, colon, own = name.rpartition(":")
    if colon and _modules.get(own) != module:
        try:
            import_module(module, folders)
        except GameError as error:
            raise GameError(f"{name}: {error}") from None
    if own not in AGENTS:
        raise UnknownIdError("agent", own, AGENTS)
    return own


def agent_module(name: str) -> str:
    """The module that another process imports to know an agent; "" for our own."""
    return _modules.get(name, "")


def make_bot(name: str, observation_space: gym.Space[Any], action_space: gym.Space[Any], *, device: Any) -> Any:
    """A bot with its default settings.

    Raises:
        UnknownIdError: with the nearest known name.
        AgentError: if the agent is no bot, or cannot play with these spaces.
    """
    from mlbits.agents.agent import AgentError

    entry = agent_entry(name)
    if not entry.bot:
        bots = [name for name, known in AGENTS.items() if known.bot]
        raise AgentError(f"opponents: got {name}, which has not been trained; wanted a bot ({', '.join(bots)})")
    return entry.make(entry.config_class()(), observation_space, action_space, seed=0, device=device)


def register_agent(name: str, entry: AgentEntry) -> None:
    """Make an agent of one's own known to ``mlbits train``; in another process "module:name" is known."""
    AGENTS[name] = entry
    _modules[name] = importable_name(caller())
