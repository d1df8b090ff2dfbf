"""Agents: the algorithms, one file each, and what they have in common: networks, maths, memory and kernels.

``planning`` holds dynamic programming, ``bots`` players that never learn, ``sb3`` Stable-Baselines3's algorithms. The
training loop does not belong here (``selfplay``), nor do games (``envs``) or measurements of agents (``evals``).
``AGENTS`` is the registry, one entry per agent; :mod:`mlbits.agents.registry` describes an entry's parts.
"""

from typing import Any

from mlbits.agents.registry import (
    AGENTS,
    RULES,
    AgentEntry,
    action_kinds,
    agent_entry,
    agent_module,
    bare_name,
    bot_names,
    check_agent,
    make_bot,
    read_bot,
    register_agent,
)

__all__ = [
    "AGENTS", "RULES", "AgentEntry", "action_kinds", "agent_entry", "agent_module", "bare_name", "bot_names",
    "check_agent", "make_bot", "read_bot", "register_agent",
]  # fmt: skip

AGENTS["ppo"] = AgentEntry(
    "mlbits.agents.ppo",
    "PPO",
    "PPOConfig",
    "proximal policy optimisation: clipped, adaptive KL, or DPO's learned drift",
)
AGENTS["q-learning"] = AgentEntry(
    "mlbits.agents.tabular_q",
    "TabularQ",
    "TabularQConfig",
    "tabular Q-learning and double Q-learning, for observations that can be enumerated",
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
    "deterministic policy gradient; D4PG and TD3 as settings",
    ("continuous",),
)
AGENTS["sac"] = AgentEntry(
    "mlbits.agents.sac",
    "SAC",
    "SACConfig",
    "soft actor-critic: twin critics, entropy by a learned temperature",
    ("discrete", "continuous"),
)
AGENTS["wsc"] = AgentEntry(
    "mlbits.agents.representation.wsc",
    "WSC",
    "WSCConfig",
    "weakly supervised control: goals among factors of pictures that compared pairs have taught",
    ("continuous",),
    ("dict",),
    trainer="mlbits.selfplay.representation",
    masks=False,
)
AGENTS["reinforce"] = AgentEntry(
    "mlbits.agents.reinforce",
    "Reinforce",
    "ReinforceConfig",
    "policy gradient: returns, rewards-to-go, baselines, GAE",
)
AGENTS["lpg"] = AgentEntry(
    "mlbits.agents.lpg",
    "LPG",
    "LPGConfig",
    "learns by an update rule that was itself learned, from a file",
    ("discrete",),
    masks=False,
)
RULES["meta-lpg"] = AgentEntry(
    "mlbits.agents.learned_rules.learner",
    "NotAnAgent",
    "MetaLPGConfig",
    "an update rule in training, for mlbits meta-train lpg",
    ("discrete",),
    trainer="mlbits.selfplay.meta.training",
)
AGENTS["trpo"] = AgentEntry(
    "mlbits.agents.trpo",
    "TRPO",
    "TRPOConfig",
    "trust-region policy optimisation: natural gradient steps under a bound on the KL divergence",
)
AGENTS["classifier"] = AgentEntry(
    "mlbits.agents.classifier",
    "Classifier",
    "ClassifierConfig",
    "one-step problems: cross-entropy, policy-gradient and Q-learning losses for one network",
    ("discrete",),
)
AGENTS["alphazero"] = AgentEntry(
    "mlbits.agents.alphazero",
    "AlphaZero",
    "AlphaZeroConfig",
    "self-play by tree search (Gumbel or PUCT) in games whose rules are known",
    ("discrete",),
    plans=True,
)
AGENTS["ibr"] = AgentEntry(
    "mlbits.agents.best_response.policy_iteration",
    "PolicyIteration",
    "IBRConfig",
    "iterated best response: self-play by sampled best response to the latest policy",
    ("discrete", "multi_discrete"),
    plans=True,
)
AGENTS["fppi1"] = AgentEntry(
    "mlbits.agents.best_response.policy_iteration",
    "PolicyIteration",
    "FPPI1Config",
    "fictitious play policy iteration: sampled best response to a policy that averages the past",
    ("discrete", "multi_discrete"),
    plans=True,
)
AGENTS["fppi2"] = AgentEntry(
    "mlbits.agents.best_response.policy_iteration",
    "PolicyIteration",
    "FPPI2Config",
    "fictitious play policy iteration: sampled best response to policies of past rounds",
    ("discrete", "multi_discrete"),
    plans=True,
)
AGENTS["equilibrium"] = AgentEntry(
    "mlbits.agents.best_response.equilibrium",
    "Equilibrium",
    "EquilibriumConfig",
    "self-play by regret matching over candidates of all seats; learns the search's own policies and values",
    ("discrete", "multi_discrete"),
    plans=True,
)
AGENTS["bc"] = AgentEntry(
    "mlbits.agents.offline.bc",
    "BC",
    "BCConfig",
    "behavioural cloning of a dataset, or of its best episodes",
    ("discrete", "continuous"),
    offline=True,
)
AGENTS["crr"] = AgentEntry(
    "mlbits.agents.offline.crr",
    "CRR",
    "CRRConfig",
    "critic-regularised regression on a dataset; CRR+ as a preset",
    ("discrete", "continuous"),
    offline=True,
)
AGENTS["td3-bc"] = AgentEntry(
    "mlbits.agents.offline.td3_bc",
    "TD3BC",
    "TD3BCConfig",
    "TD3 on a dataset, held to its actions",
    ("continuous",),
    offline=True,
)
AGENTS["iql"] = AgentEntry(
    "mlbits.agents.offline.iql",
    "IQL",
    "IQLConfig",
    "implicit Q-learning on a dataset, by expectiles",
    ("discrete", "continuous"),
    offline=True,
)
AGENTS["disco"] = AgentEntry(
    "mlbits.agents.disco.agent",
    "Disco",
    "DiscoConfig",
    "DiscoRL: learns by an update rule that was itself discovered, read from the published file",
    ("discrete",),
    masks=False,
)
AGENTS["es"] = AgentEntry(
    "mlbits.agents.population.es",
    "ES",
    "ESConfig",
    "evolution strategies; with a population, members rewarded for differing (DvD)",
    observations=("index", "indices", "vector", "dict"),
    trainer="mlbits.selfplay.population.training",
)
AGENTS["dvd"] = AgentEntry(
    "mlbits.agents.population.dvd",
    "DvD",
    "DvDConfig",
    "a population of TD3 agents, rewarded for differing (DvD)",
    ("continuous",),
    ("index", "indices", "vector", "dict"),
    trainer="mlbits.selfplay.population.training",
)
AGENTS["map-elites"] = AgentEntry(
    "mlbits.agents.population.map_elites",
    "MapElites",
    "MapElitesConfig",
    "MAP-Elites: an archive of the best policy for each kind of behaviour (extra diversity)",
    observations=("index", "indices", "vector", "dict"),
    trainer="mlbits.selfplay.population.training",
)
AGENTS["random"] = AgentEntry(
    "mlbits.agents.bots.random_bot", "random_agent", "RandomConfig", "uniform over legal actions", bot=True
)
AGENTS["mcts"] = AgentEntry(
    "mlbits.agents.bots.mcts",
    "MCTSBot",
    "MCTSConfig",
    "Monte-Carlo tree search with random games, as OpenSpiel's; mcts@simulations=100 for another number",
    ("discrete",),
    bot=True,
    plans=True,
)
AGENTS["diplomacy-hold"] = AgentEntry(
    "mlbits.agents.bots.diplomacy",
    "HoldBot",
    "HoldConfig",
    "a Diplomacy bot that orders every unit to hold",
    ("orders",),
    ("dict",),
    bot=True,
)
AGENTS["diplomacy-greedy"] = AgentEntry(
    "mlbits.agents.bots.diplomacy",
    "GreedyBot",
    "GreedyConfig",
    "a Diplomacy bot that takes and defends supply centres",
    ("orders",),
    ("dict",),
    bot=True,
)


def _sb3(algorithm: str, **kinds: Any) -> AgentEntry:
    return AgentEntry(
        "mlbits.agents.sb3.agent",
        "SB3Agent",
        f"SB3{algorithm}Config",
        f"Stable-Baselines3's {algorithm}, trained by its own loop",
        trainer="mlbits.selfplay.sb3_training",
        **kinds,
    )


AGENTS["sb3-ppo"] = _sb3("PPO")
AGENTS["sb3-a2c"] = _sb3("A2C")
AGENTS["sb3-dqn"] = _sb3("DQN", actions=("discrete",))
AGENTS["sb3-ddpg"] = _sb3("DDPG", actions=("continuous",))
AGENTS["sb3-td3"] = _sb3("TD3", actions=("continuous",))
AGENTS["sb3-sac"] = _sb3("SAC", actions=("continuous",))
