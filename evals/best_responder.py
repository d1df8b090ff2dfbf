"""A lower bound of how far agents can be exploited, for games too large to go through: a trained best responder.

Timbers et al. 2022, "Approximate exploitability: learning a best response" (IJCAI; arXiv 2004.09677): an agent learns
to play one seat while the agents that are measured keep all others, and do not learn. What it earns more than they did
there is a gain that somebody can make; the best response gains that or more. So the result is a lower bound of
exploitability, and a poor one where the responder learns poorly: a small one says little, and never that play is safe.

The responder takes each seat in turn, in training (:func:`mlbits.selfplay.lineup.against`) and in the games that
decide, which are new ones. There it takes its most probable actions, since a best response need not mix; the others
draw theirs. The interval is that of the games played: 95%, of the difference of two means (Welch).

Differs from the paper, whose responder searches besides learning, in that it is one of this suite's learners, PPO by
default.

Example:
    >>> import mlbits
    >>> from mlbits.agents import make_bot
    >>> game = mlbits.make_game("mlbits/MatrixGame-v0")
    >>> bot = make_bot("random", game.observation_space, game.action_space, device="cpu")
    >>> found = best_response([(bot, 1.0)], "mlbits/MatrixGame-v0", steps=4096, episodes=100)
    >>> found.kind, found.interval[0] < 0 < found.interval[1]  # nobody gains by any reply to random throws
    ('lower bound', True)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import Agent, Decision
from mlbits.envs.core.wrapped import open_batch
from mlbits.evals.agent_exploitability import Mixture, members
from mlbits.evals.opponents import turning_seats
from mlbits.selfplay.config import ConfigError, resolve
from mlbits.selfplay.lineup import against
from mlbits.selfplay.play import play_episodes
from mlbits.selfplay.session import open_session
from mlbits.selfplay.statistics import difference_interval

_COPIES = 64
# PPO's, for games of a few moves: tried on Blotto and Goofspiel, whose exact answers are known.
_PPO = {"num_steps": 32, "learning_rate": 1e-3}


@dataclass(frozen=True, eq=False)
class BestResponse:
    """What a trained responder gained, a lower bound of exploitability.

    Attributes:
        responder: the agent that was trained.
        gain: what a seat gained on average, over the seats; a lower bound of exploitability up to the games' chance.
        interval: its 95% interval, low and high; -inf and inf where all returns of all games are equal.
        response_return: what the responder earned.
        value: what the agents themselves earn, the mean over seats.
        seats: of the game.
        steps: environment steps that the responder learnt from.
        episodes: games that each of the two means is over.
        kind: always "lower bound".
    """

    responder: Agent
    gain: float
    interval: tuple[float, float]
    response_return: float
    value: float
    seats: int
    steps: int
    episodes: int
    kind: Literal["lower bound"] = "lower bound"


def best_response(
    players: Mixture,
    env: str,
    settings: Mapping[str, Any] | None = None,
    *,
    steps: int = 200_000,
    episodes: int = 5000,
    learner: str = "ppo",
    learner_settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    greedy: bool = False,
    device: torch.device | str = "cpu",
) -> BestResponse:
    """Train a responder to agents, and see what it gains.

    Args:
        players: whom to exploit: an agent, or agents with the weights with which they are drawn for a game.
        env: id of an environment with two seats or more.
        settings: of the environment.
        steps: environment steps to learn from.
        episodes: games that decide, with the responder and without; rounded up to as many in each seat.
        learner: the agent that learns to respond.
        learner_settings: of that agent.
        seed: of learning and of the games.
        greedy: whether the agents that are measured take their most probable actions.
        device: where all of them live.

    Raises:
        ConfigError: for an environment of one seat, or no episodes.
        MlbitsError: for a learner that does not fit.
    """
    if episodes < 1:
        raise ConfigError(f"episodes: got {episodes}; wanted at least 1")
    pairs = [(Sure(agent) if greedy else agent, weight) for agent, weight in members(players)]
    responder, seats, learnt = _train(pairs, env, settings, steps, learner, learner_settings, seed, device)
    games = math.ceil(episodes / seats) * seats
    rng = np.random.default_rng([seed, 1])
    agents: list[Agent] = [Sure(responder), *(agent for agent, _ in pairs)]
    drawn = 1 + rng.choice(len(pairs), (2, games, seats), p=[weight for _, weight in pairs])
    turns = turning_seats(games, seats) == 0
    common: dict[str, Any] = {"settings": settings, "device": device, "greedy": False}
    # Other seeds than those of learning.
    answered = play_episodes(agents, env, games, seed=seed + 10**9, seating=np.where(turns, 0, drawn[0]), **common)
    without = play_episodes(agents, env, games, seed=seed + 2 * 10**9, seating=drawn[1], **common)
    response, own = answered.returns[turns], without.returns.mean(1)
    gain, interval = difference_interval(response, own)
    return BestResponse(responder, gain, interval, float(response.mean()), float(own.mean()), seats, learnt, games)


class Sure:
    """An agent that takes its most probable actions.

    Args:
        agent: whose.
    """

    experience = None

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows."""
        return self.agent.act(obs, legal_mask, generator, greedy=True)

    def learn(self, experience: Any, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Nothing is learnt."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """The agent's."""
        return self.agent.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The agent's."""
        self.agent.load_state_dict(state)


def _train(
    pairs: Sequence[tuple[Agent, float]], env: str, settings: Mapping[str, Any] | None, steps: int, learner: str,
    learner_settings: Mapping[str, Any] | None, seed: int, device: torch.device | str,
) -> tuple[Agent, int, int]:  # fmt: skip
    """A responder that has learnt in one seat against agents in the others; the number of seats and of steps."""
    batch = open_batch(env, 1, settings=settings, start=False)
    seats = batch.num_seats
    batch.close()
    if seats < 2:
        raise ConfigError(f"env: {env} has one seat; wanted an environment with two or more")
    values = {**(_PPO if learner == "ppo" else {}), **(learner_settings or {})}
    # Enough copies for the responder to meet everybody in every seat. No preset: those of games are for learners that
    # are to mix, which a responder need not.
    copies = max(_COPIES, 2 * seats * len(pairs))
    run = {"total_steps": steps, "num_envs": copies, "seed": seed, "device": str(device)}
    session = open_session(
        resolve(learner, env, preset="none", run=run, agent_settings=values, env_settings=dict(settings or {})),
        start=False,
    )
    session.start()
    batch = session.batch
    session.lineup = against(session.learner, pairs, batch.num_envs, seats, batch.device)
    while not session.finished:
        rollout, _, played = session.collect()
        session.learn(rollout)
        session.counters.env_steps += played
    batch.close()
    return session.learner, seats, session.counters.env_steps
