"""What ``predict`` costs besides the network, in CPU time: ``python -m tests.predict_cost``.

One observation of CartPole, Pendulum and TicTacToe, agents as they are without training, one thread; the least of 15
repetitions. "network" is the forward pass of the policy network alone, on a tensor that is there already.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from mlbits.agents import agent_entry
from mlbits.selfplay.policy import Policy
from mlbits.selfplay.runs.loading import env_spaces
from mlbits.selfplay.runs.saved_agents import game_of

CASES = {
    ("ppo", "CartPole-v1"): lambda agent, obs: agent.core.network.policy(obs),
    ("dqn", "CartPole-v1"): lambda agent, obs: agent.network.forward(obs),
    ("ddpg", "Pendulum-v1"): lambda agent, obs: agent.actor.forward(obs),
    ("ppo", "mlbits/TicTacToe-v0"): lambda agent, obs: agent.core.network.policy(obs),
}


def microseconds(work: Callable[[], Any], calls: int = 500) -> float:
    """CPU microseconds of one call."""
    best = float("inf")
    for _ in range(15):
        began = time.process_time()
        for _ in range(calls):
            work()
        best = min(best, (time.process_time() - began) / calls)
    return 1e6 * best


def main() -> None:
    """Print a line for each case."""
    torch.set_num_threads(1)
    for (name, env_id), network in CASES.items():
        entry, game = agent_entry(name), game_of(env_id, {})
        spaces = env_spaces(env_id, {}, game)
        agent = entry.make(entry.config_class()(), *spaces, seed=0, device="cpu")
        policy = Policy(
            agent, env=env_id, env_settings={}, observation_space=spaces[0], action_space=spaces[1], game=game
        )
        env = policy.make_env("parallel" if policy.num_seats > 1 else "")
        seen = env.reset(seed=0)[0]
        obs = seen["player_0"] if policy.num_seats > 1 else seen
        rows = torch.from_numpy(obs["observation"] if policy.num_seats > 1 else obs)[None].float()
        with torch.no_grad():
            alone = microseconds(lambda: network(agent, rows))  # noqa: B023
        whole = microseconds(lambda: policy.predict(obs))  # noqa: B023
        drawn = microseconds(lambda: policy.predict(obs, greedy=False))  # noqa: B023
        print(f"{name:5} {env_id:20} network {alone:5.1f} us, predict {whole:5.1f}, drawn {drawn:5.1f}")


if __name__ == "__main__":
    main()
