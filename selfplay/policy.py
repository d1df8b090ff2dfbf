"""``Policy``: a trained agent or a bot as one acts with it in Python: observations in, actions out, as NumPy.

``mlbits.load`` makes one (:mod:`mlbits.selfplay.runs.loading`).

Example:
    >>> import gymnasium as gym, mlbits
    >>> env = gym.make("mlbits/GridWorld-v0")
    >>> policy = mlbits.load("random", env="mlbits/GridWorld-v0", seed=0)
    >>> obs, info = env.reset(seed=0)
    >>> action = policy.predict(obs)
    >>> obs, reward, terminated, truncated, info = env.step(action)
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision, Positions
from mlbits.envs.core.game import Game
from mlbits.envs.doors.copies_of import copies_of
from mlbits.envs.doors.gymnasium_ids import make_env
from mlbits.envs.registry import registered
from mlbits.selfplay.numpy_rows import ActionWriter, MaskReader, ObservationReader, PolicyError

__all__ = ["Policy", "PolicyError", "Prediction"]


class Prediction(NamedTuple):
    """An action, and what the agent says about it; arrays have the batch's leading axis [N], if there is a batch.

    Attributes:
        action: as the environment takes it.
        log_prob: its log probability (continuous: the log density of the draw before it was clipped), float32; None of
            an agent that has none, as of Q-learning.
        value: what the agent expects of the observation, discounted, float32; None of an agent without a critic.
        probabilities: of all actions, float64 [A]; None where actions are not Discrete.
    """

    action: Any
    log_prob: Any
    value: Any
    probabilities: Any


class Policy:
    """An agent that acts: ``predict`` takes observations as environments give them.

    Args:
        agent: the agent.
        env: id of the environment that it plays; "" where that is not known (a model of Stable-Baselines3).
        env_settings: settings of the environment.
        observation_space: the environment's.
        action_space: the environment's.
        game: the game's rules, of one of mlbits' own.
        device: where the agent is.
        seed: of the draws of ``predict(greedy=False)``.
        steps: environment steps that the agent was trained for, 0 for a bot.

    Attributes:
        agent: the agent itself, of tensors.
        env: id of the environment.
        env_settings: its settings.
        observation_space: of what ``predict`` takes.
        action_space: of what it returns.
        num_seats: how many seats the environment has.
        steps: environment steps that the agent was trained for.
        generator: random generator of its draws.
    """

    def __init__(
        self,
        agent: Any,
        *,
        env: str,
        env_settings: Mapping[str, Any],
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        game: Game | None = None,
        device: torch.device | None = None,
        seed: int = 0,
        steps: int = 0,
    ) -> None:
        self.agent, self.env, self.env_settings, self.steps = agent, env, dict(env_settings), steps
        self.observation_space, self.action_space = observation_space, action_space
        self.num_seats = 1 if game is None else game.seats
        self.device = device or torch.device("cpu")
        self.generator = torch.Generator(self.device)
        self.seed(seed)
        self._game = game
        self._plans = getattr(agent, "plan", None)
        self._observations = ObservationReader(observation_space, self.device)
        self._masks = MaskReader(action_space, self.device)
        self._actions = ActionWriter(action_space)
        keys = set(observation_space.keys()) if isinstance(observation_space, spaces.Dict) else set()
        self._unpacks = not keys & {"observation", "action_mask"}
        self._memory_size = int(getattr(agent, "memory_size", 0))
        self._memories: dict[int, Tensor] = {}  # by seat, [N, M]

    def predict(
        self,
        obs: Any,
        *,
        action_mask: Any = None,
        greedy: bool = True,
        agent: str | int = 0,
        episode_start: Any = None,
        details: bool = False,
    ) -> Any:
        """Choose an action for one observation, or one for each of a batch.

        Args:
            obs: what the environment gives: an observation, or a batch of N from a vector environment; from PettingZoo
                also a dict of "observation" and "action_mask". An agent that plans (its states need rules, not
                observations) takes the environment itself, one of mlbits' own.
            action_mask: which actions are legal, [A] or [N, A], as in ``info["action_mask"]``; in games with masks it
                is needed.
            greedy: take the most probable action; False draws one from the policy (:meth:`seed` seeds the draws).
            agent: whose observation it is, in games of several seats: PettingZoo's "player_0", or 0. Only agents with
                memory, or that plan, need to know.
            episode_start: for agents with memory: whether this is the first observation of an episode, True or a bool
                [N]; what was remembered is then forgotten. Without it, :meth:`reset` says so.
            details: return a :class:`Prediction` instead of the action.

        Returns:
            The action, in the form and dtype of the environment's action space; [N, ...] for a batch.

        Raises:
            PolicyError: naming the argument, its shape, dtype or range, and the one wanted.
        """
        seat = 0 if type(agent) is int and agent == 0 else self._seat(agent)
        if self._plans is not None:
            return self._planned(obs, seat, greedy, details)
        if self._unpacks and isinstance(obs, Mapping) and "action_mask" in obs and obs.keys() == _PAIR:
            obs, action_mask = obs["observation"], obs["action_mask"] if action_mask is None else action_mask
        rows, count = self._observations.read(obs)
        mask = None
        if action_mask is not None:
            mask = self._masks.read(action_mask, count)
        elif self._game is not None and self._game.masked:
            raise PolicyError(f"action_mask: missing; {self.env} has illegal actions: wanted info['action_mask']")
        decision, before = self._decide(rows, count, mask, greedy, seat, episode_start)
        action = decision.action if mask is None else self._masks.legal(decision.action, mask)
        played = self._actions.write(action, count is None)
        if not details:
            return played
        return Prediction(
            played,
            _numbers(decision.log_prob, count),
            _numbers(self._values(rows, mask, before), count),
            _numbers(self._probabilities(rows, mask, greedy, before), count),
        )

    def _decide(
        self, rows: Any, count: int | None, mask: Tensor | None, greedy: bool, seat: int, episode_start: Any
    ) -> tuple[Decision, Tensor | None]:
        """The agent's decision, and what it remembered before it, [N, M], or None without memory.

        One with memory is handed what it remembers, which is kept for its seat.
        """
        if not self._memory_size:
            return self.agent.act(rows, mask, self.generator, greedy=greedy), None
        size = 1 if count is None else count
        memory = self._memories.get(seat)
        if isinstance(episode_start, np.bool_):
            episode_start = bool(episode_start)
        if memory is None or episode_start is True or (len(memory) != size and _all_start(episode_start)):
            memory = torch.zeros(size, self._memory_size, device=self.device)
        elif len(memory) != size:
            raise PolicyError(
                f"obs: got {size} observations, and it remembers {len(memory)}; wanted as many, or reset() before"
            )
        if episode_start is not None and not isinstance(episode_start, bool):
            starts = np.asarray(episode_start)
            if starts.shape != (size,) or starts.dtype != np.bool_:
                raise PolicyError(
                    f"episode_start: got {starts.dtype} {starts.shape}; wanted True, False or bool ({size},)"
                )
            memory = memory * ~torch.from_numpy(starts).to(self.device)[:, None]
        decision: Any = self.agent.act(rows, mask, self.generator, greedy=greedy, memory=memory)
        self._memories[seat] = decision.memory
        return decision, memory

    def _planned(self, env: Any, seat: int, greedy: bool, details: bool) -> Any:
        """The action of an agent that plans, in an environment as it is now."""
        if details:
            raise PolicyError("details: got True; wanted False, as an agent that plans gives its moves alone")
        copies = copies_of(env)
        if copies is None or copies.game.name != getattr(self._game, "name", None):
            raise PolicyError(
                f"obs: got {type(env).__name__}; {type(self.agent).__name__} plans by the rules of {self.env}: wanted "
                "the environment itself: predict(env). A trained agent's network acts on observations alone if it is "
                'loaded with search={"simulations": 0}'
            )
        size, seats = copies.num_envs, copies.game.seats
        layout, legal = copies.game.observation, copies.legal
        view = layout.user_view(copies.obs[:, seat])
        obs: Any = {key: _own(part) for key, part in view.items()} if isinstance(view, dict) else _own(view)
        acts = np.ones((size, seats), bool) if copies.game.acts is None else copies.active[:, :seats]
        states = torch.from_numpy(copies.states.view(np.uint8).reshape(size, -1).copy())
        position = Positions(
            copies.game, copies.params, states, torch.arange(size), torch.full((size,), seat), _own(acts[:, seat]), obs,
            _own(legal[:, seat]) if copies.game.masked else None,
        )  # fmt: skip
        found: Decision = self._plans(position, self.generator, greedy=greedy)  # type: ignore[misc]
        return self._actions.write(found.action, size == 1 and not isinstance(env, gym.vector.VectorEnv))

    def reset(self) -> None:
        """Forget what an agent with memory remembers, at the start of an episode; others have nothing to forget."""
        self._memories.clear()

    def seed(self, seed: int) -> None:
        """Seed the draws of ``predict(greedy=False)``; the same seed and observations give the same actions.

        Raises:
            PolicyError: for anything but a whole number from 0 to 2**63 - 1.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
            raise PolicyError(f"seed: got {seed!r:.60}; wanted a whole number from 0 to 2**63 - 1")
        seed = int(seed)
        self.generator.manual_seed(seed)

    def make_env(self, kind: str = "", **settings: Any) -> Any:
        """A new environment of the kind that the agent plays, with the settings that it was trained in.

        Args:
            kind: of a game of several seats PettingZoo's "aec" or "parallel".
            **settings: settings that replace or complete those, such as ``render_mode="rgb_array"``.

        Returns:
            A Gymnasium environment (for Atari with the usual preprocessing, unless that is switched off); PettingZoo's
            for a game of several seats.

        Raises:
            PolicyError: if the environment is not known, or ``kind`` does not fit.
        """
        if not self.env:
            raise PolicyError("env: not known; wanted mlbits.load(MODEL, env=ID)")
        own = {**self.env_settings, **settings}
        if self.num_seats == 1 and not kind:
            return gym.make(self.env, **own) if self.env in registered() else make_env(self.env, own)
        if kind not in ("aec", "parallel") or self.env not in registered():
            raise PolicyError(
                f"kind: got {kind!r} for {self.env}; wanted 'aec' or 'parallel', in one of mlbits' own games"
            )
        import pettingzoo

        return pettingzoo.make(kind, self.env, **own)

    def _seat(self, agent: str | int) -> int:
        names = [f"player_{seat}" for seat in range(self.num_seats)]
        if isinstance(agent, str) and agent in names:
            return names.index(agent)
        if isinstance(agent, (int, np.integer)) and 0 <= agent < self.num_seats:
            return int(agent)
        raise PolicyError(f"agent: got {agent!r}; wanted one of {', '.join(names)}, or its number")

    def _values(self, rows: Any, mask: Tensor | None, before: Tensor | None) -> Tensor | None:
        """What the agent expects; None of one without a critic."""
        values = getattr(self.agent, "state_values" if before is None else "values_with_memory", None)
        if values is None:
            return None
        takes_masks = "legal_mask" in inspect.signature(values).parameters
        more = (mask,) if takes_masks else () if before is None else (before,)
        with torch.no_grad():
            found: Tensor = values(rows, *more)
        return found

    def _probabilities(self, rows: Any, mask: Tensor | None, greedy: bool, before: Tensor | None) -> Tensor | None:
        name = "action_probabilities" if before is None else "probabilities_with_memory"
        probabilities = getattr(self.agent, name, None)
        if probabilities is None or not isinstance(self.action_space, spaces.Discrete):
            return None
        try:
            with torch.no_grad():
                found: Tensor = probabilities(rows, mask, *(() if before is None else (before,)), greedy=greedy)
        except AgentError:  # of a network that gives none
            return None
        return found

    def __repr__(self) -> str:
        trained = f", after {self.steps:,} steps" if self.steps else ""
        return f"Policy({type(self.agent).__name__} for {self.env or 'its own spaces'}{trained})"


_PAIR = {"observation", "action_mask"}


def _all_start(episode_start: Any) -> bool:
    """Whether all episodes begin."""
    return episode_start is not None and bool(np.all(episode_start))


def _own(array: NDArray[Any]) -> Tensor:
    """A tensor with memory of its own."""
    return torch.from_numpy(np.array(array))


def _numbers(tensor: Tensor | None, count: int | None) -> Any:
    if tensor is None:
        return None
    array = tensor.detach().cpu().numpy()
    return array[0] if count is None else array
