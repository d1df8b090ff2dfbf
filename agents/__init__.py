"""Agents: who plays. One file an algorithm; what they share is in networks, maths, memory and kernels.

``AGENTS`` is the registry, one line an agent; :mod:`mlbits.agents.registry` says what an entry's parts are.
"""

from typing import Any

from mlbits.agents.registry import (
    AGENTS,
    AgentEntry,
    action_kinds,
    agent_entry,
    agent_module,
    bot_names,
    check_agent,
    make_bot,
    register_agent,
)

__all__ = [
    "AGENTS", "AgentEntry", "action_kinds", "agent_entry", "agent_module", "bot_names", "check_agent", "make_bot",
    "register_agent",
]  # fmt: skip

AGENTS["ppo"] = AgentEntry(
    "mlbits.agents.ppo", "PPO", "PPOConfig", "proximal policy optimisation, clipped or adaptive KL"
)
AGENTS["q-learning"] = AgentEntry(
    "mlbits.agents.tabular_q",
    "TabularQ",
    "TabularQConfig",
    "tabular Q-learning and double Q-learning, for observations that can be counted",
    ("discrete", "multi_discrete"),
    ("index", "indices"),
)
AGENTS["dqn"] = AgentEntry(
    "mlbits.agents.dqn",
    "DQN",
    "DQNConfig",
    "deep Q-learning: double, dueling, n-step, prioritised, C51, QR-DQN",
    ("discrete",),
)
AGENTS["ddpg"] = AgentEntry(
    "mlbits.agents.ddpg",
    "DDPG",
    "DDPGConfig",
    "deterministic policy gradient; D4PG and TD3 by switches",
    ("continuous",),
)
AGENTS["reinforce"] = AgentEntry(
    "mlbits.agents.reinforce",
    "Reinforce",
    "ReinforceConfig",
    "policy gradient: returns, rewards-to-go, baselines, GAE",
)
AGENTS["trpo"] = AgentEntry(
    "mlbits.agents.trpo",
    "TRPO",
    "TRPOConfig",
    "trust region: natural gradient under a bound on the KL divergence",
)
AGENTS["classifier"] = AgentEntry(
    "mlbits.agents.classifier",
    "Classifier",
    "ClassifierConfig",
    "one-step problems: cross-entropy, policy gradients and Q loss on one network",
    ("discrete",),
)
AGENTS["random"] = AgentEntry(
    "mlbits.agents.bots.random_bot", "random_agent", "RandomConfig", "uniform over legal actions", bot=True
)
AGENTS["diplomacy-hold"] = AgentEntry(
    "mlbits.agents.bots.diplomacy",
    "HoldBot",
    "HoldConfig",
    "a bot for Diplomacy boards that holds",
    ("orders",),
    ("dict",),
    bot=True,
)
AGENTS["diplomacy-greedy"] = AgentEntry(
    "mlbits.agents.bots.diplomacy",
    "GreedyBot",
    "GreedyConfig",
    "a bot for Diplomacy boards that takes and defends centres",
    ("orders",),
    ("dict",),
    bot=True,
)


def _sb3(algorithm: str, **kinds: Any) -> AgentEntry:
    return AgentEntry(
        "mlbits.agents.sb3.agent",
        "SB3Agent",
        f"SB3{algorithm}Config",
        f"Stable-Baselines3's {algorithm}, by its own loop",
        trainer="mlbits.selfplay.sb3_training",
        **kinds,
    )


AGENTS["sb3-ppo"] = _sb3("PPO")
AGENTS["sb3-a2c"] = _sb3("A2C")
AGENTS["sb3-dqn"] = _sb3("DQN", actions=("discrete",))
AGENTS["sb3-ddpg"] = _sb3("DDPG", actions=("continuous",))
AGENTS["sb3-td3"] = _sb3("TD3", actions=("continuous",))
AGENTS["sb3-sac"] = _sb3("SAC", actions=("continuous",))
