"""PettingZoo's doors: ``pettingzoo.make("parallel", id)`` and ``pettingzoo.make("aec", id)``, one copy.

Agents are ``player_0``, ``player_1``, ... in seat order. If the game has masks, an observation is
``{"observation": ..., "action_mask": ...}``; the mask has the form that ``action_space(agent).sample(mask)`` takes:
int8 [A] for Discrete, and for MultiDiscrete a tuple with one int8 array per sub-action. Without an argument,
``sample()`` draws actions that are legal now. A seat that has to pass has one legal action, 0. Episodes end for all
agents at once, with termination and truncation kept apart; after a truncation masks show the actions that would be
legal next, after a termination they allow all.

In the AEC door the acting seats are asked in seat order, each observing the state before anyone moved; the
game steps once, after the last of them has answered.

Example:
    >>> import mlbits, pettingzoo
    >>> env = pettingzoo.make("aec", "mlbits/GridWorld-v0")
    >>> env.reset(seed=0)
    >>> env.agent_selection
    'player_0'
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
from gymnasium import spaces

from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.game import Game
from mlbits.envs.core.spaces import checked_action, own_observation
from mlbits.envs.doors.masked_spaces import legal_action_space, watch_mask
from mlbits.envs.engine import modes
from mlbits.envs.engine.cpu_copies import Copies, illegal_action_error
from mlbits.envs.engine.modes import IllegalActions
from mlbits.envs.registry import make_game

RENDER_MODES = ["rgb_array", "ansi"]


def make_parallel(
    game_id: str,
    render_mode: str | None = None,
    max_cycles: int | None = None,
    illegal: IllegalActions = "error",
    **settings: Any,
) -> PettingZooParallelEnv:
    """The entry point of ``pettingzoo.make("parallel", ...)``.

    Args:
        game_id: a registered id.
        render_mode: None, "rgb_array" or "ansi".
        max_cycles: truncates after this many steps of the game, if that is sooner than the game's own horizon.
        illegal: "error", "replace" or "forfeit"; see :class:`~mlbits.envs.engine.cpu_copies.Copies`.
        **settings: settings of the game's factory.
    """
    return PettingZooParallelEnv(make_game(game_id, **settings).limited_to(max_cycles), render_mode, illegal)


def make_aec(
    game_id: str,
    render_mode: str | None = None,
    max_cycles: int | None = None,
    illegal: IllegalActions = "error",
    **settings: Any,
) -> PettingZooAECEnv:
    """The entry point of ``pettingzoo.make("aec", ...)``; see :func:`make_parallel`."""
    return PettingZooAECEnv(make_game(game_id, **settings).limited_to(max_cycles), render_mode, illegal)


class _Copy:
    """One copy of a game as both doors need it: agents by name, with their spaces, observations and actions."""

    def __init__(self, game: Game, render_mode: str | None, illegal: IllegalActions) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise GameError(f"render_mode: got {render_mode!r}; wanted None, 'rgb_array' or 'ansi'")
        self.game, self.render_mode = game, render_mode
        self.agents = [f"player_{seat}" for seat in range(game.seats)]
        self.seat = {agent: seat for seat, agent in enumerate(self.agents)}
        # Each seat has its own space, so that seeding one agent's sampling does not affect the others.
        self.observation_spaces = {agent: copy.deepcopy(_observation_space(game)) for agent in self.agents}
        self.metadata = {
            "name": game.name,
            "render_modes": RENDER_MODES,
            "render_fps": game.frames_per_second,
            "is_parallelizable": game.acts is None,
        }
        self.copies = Copies(game, 1, autoreset="disabled", illegal=illegal)
        self.action_spaces = {
            agent: copy.deepcopy(legal_action_space(game, self._legal(seat))) for agent, seat in self.seat.items()
        }
        self._watch()
        self.actions = np.zeros((1, game.seats, *game.action.shape), game.action.dtype)
        self._cuts = np.cumsum(game.action.nvec)[:-1]
        self._seeded = False

    def _legal(self, seat: int) -> Any:
        return self.copies.legal[0, seat] if self.game.masked else None

    def _watch(self) -> None:
        for agent, seat in self.seat.items():
            watch_mask(self.action_spaces[agent], self._legal(seat))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._watch()

    def reset(self, seed: int | None) -> None:
        """Start an episode; a seed gives the copy the random stream of (seed, copy 0)."""
        if seed is None and not self._seeded:
            seed = int(np.random.default_rng().integers(2**31))
        if seed is not None:
            self.copies.seed(seed)
            self._seeded = True
        self.copies.reset()

    def acting(self) -> list[str]:
        """The agents that act now (the others pass), in seat order."""
        if self.game.acts is None:
            return list(self.agents)
        active = self.copies.active[0, : self.game.seats].tolist()
        return [agent for agent, asked in zip(self.agents, active, strict=True) if asked]

    def observe(self, agent: str) -> Any:
        """A copy of one agent's observation."""
        seat = self.seat[agent]
        face = self.game.observation.user_view(self.copies.obs[0, seat])
        obs = own_observation(self.game.observation_space, face)
        return {"observation": obs, "action_mask": self._mask(seat)} if self.game.masked else obs

    def _mask(self, seat: int) -> Any:
        mask = self.copies.legal[0, seat].astype(np.int8)
        return mask if self.game.action.kind == "discrete" else tuple(np.split(mask, self._cuts))

    def set_action(self, agent: str, action: Any) -> None:
        """Store an agent's action for the next step.

        Raises:
            IllegalActionError: for a wrong shape or dtype, and under illegal="error" for an action that is not legal
                now; the message names the agent.
        """
        seat, game = self.seat[agent], self.game
        self.actions[0, seat] = checked_action(action, game.action_space, game.action, f"action of {agent}")
        fault = self.copies.check(self.actions) if self.copies.illegal == modes.ERROR else -1
        if fault == seat:  # earlier seats were checked when their actions were set; later ones are still to come
            raise illegal_action_error(game, agent, self.actions[0, seat], self._legal(seat))

    def step(self) -> tuple[list[float], bool, bool]:
        """Step the game once with the stored actions; return rewards by seat, terminated, truncated."""
        copies = self.copies
        copies.step(self.actions)
        copies.write_truncated_masks()
        self.actions[:] = 0
        return copies.rewards[0].tolist(), copies.terminated.item(), copies.truncated.item()

    def render(self) -> Any:
        """An image uint8 [H, W, 3] or a string, depending on the render mode."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a mode: make(kind, id, render_mode="rgb_array") or "ansi"')
            return None
        if not self._seeded:
            raise self.reset_needed("nothing to draw yet")
        state, params = self.copies.record()
        draw = self.game.draw if self.render_mode == "rgb_array" else self.game.text
        return draw(state, params)

    def reset_needed(self, why: str = "the episode is over or has not begun") -> gym.error.ResetNeeded:
        """The error for calls outside an episode."""
        return gym.error.ResetNeeded(f"{self.game.name}: {why}; call reset() first")


def _observation_space(game: Game) -> gym.Space[Any]:
    if not game.masked:
        return game.observation_space
    masks = [spaces.Box(0, 1, (n,), np.int8) for n in game.action.nvec]
    mask = masks[0] if game.action.kind == "discrete" else spaces.Tuple(masks)
    return spaces.Dict({"observation": game.observation_space, "action_mask": mask})


class PettingZooParallelEnv(pettingzoo.ParallelEnv[str, Any, Any]):
    """One copy of a game in which all acting seats are asked at once.

    Args:
        game: the game.
        render_mode: None, "rgb_array" or "ansi".
        illegal: "error", "replace" or "forfeit"; see :class:`~mlbits.envs.engine.cpu_copies.Copies`.

    An agent that has to pass may be left out of the actions; whatever it plays is ignored. If the game has such turns,
    ``infos[agent]["active"]`` says who acts. An illegal action raises ``IllegalActionError`` and changes nothing.
    """

    def __init__(self, game: Game, render_mode: str | None = None, illegal: IllegalActions = "error") -> None:
        self._copy = game_copy = _Copy(game, render_mode, illegal)
        self.game, self.render_mode, self.metadata = game, render_mode, game_copy.metadata
        self.possible_agents = list(game_copy.agents)
        self.agents: list[str] = []
        self.observation_spaces, self.action_spaces = game_copy.observation_spaces, game_copy.action_spaces

    def observation_space(self, agent: str) -> gym.Space[Any]:
        """The observation space of one agent."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        """The action space of one agent."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start an episode; a seed gives the same trajectory as ``gym.make`` and as copy 0 of a batch."""
        self._copy.reset(seed)
        self.agents = list(self.possible_agents)
        return self._observations(), self._infos()

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one action per acting agent.

        Raises:
            IllegalActionError: if an agent's action is missing or illegal, or an agent is unknown.
            gym.error.ResetNeeded: if the episode is over, or none has begun.
        """
        game_copy = self._copy
        if not self.agents:
            raise game_copy.reset_needed()
        asked = game_copy.acting()
        missing = [agent for agent in asked if actions.get(agent) is None]
        unknown = [agent for agent in actions if agent not in game_copy.seat]
        if missing or unknown:
            named = f"none for {missing[0]!r}" if missing else f"one for {unknown[0]!r}"
            raise IllegalActionError(f"actions: got {named}; wanted one for each of {asked}")
        for agent in asked:
            game_copy.set_action(agent, actions[agent])
        rewards, terminated, truncated = game_copy.step()
        if terminated or truncated:
            self.agents = []
        everyone = self.possible_agents
        paid = dict(zip(everyone, rewards, strict=True))
        ends = dict.fromkeys(everyone, terminated), dict.fromkeys(everyone, truncated)
        return self._observations(), paid, *ends, self._infos()

    def render(self) -> Any:
        """An image uint8 [H, W, 3] or a string, depending on the render mode."""
        return self._copy.render()

    def close(self) -> None:
        """Do nothing."""

    def _observations(self) -> dict[str, Any]:
        return {agent: self._copy.observe(agent) for agent in self.possible_agents}

    def _infos(self) -> dict[str, dict[str, Any]]:
        if self.game.acts is None:
            return {agent: {} for agent in self.possible_agents}
        asked = self._copy.acting() if self.agents else []
        return {agent: {"active": agent in asked} for agent in self.possible_agents}


class PettingZooAECEnv(pettingzoo.AECEnv[str, Any, Any]):
    """One copy of a game in which acting seats are asked one after another.

    Args:
        game: the game.
        render_mode: None, "rgb_array" or "ansi".
        illegal: "error", "replace" or "forfeit"; see :class:`~mlbits.envs.engine.cpu_copies.Copies`.

    Seats that have to pass are never asked; when all seats pass, the game is stepped until one acts. An illegal
    action raises ``IllegalActionError`` at once and changes nothing.
    """

    def __init__(self, game: Game, render_mode: str | None = None, illegal: IllegalActions = "error") -> None:
        super().__init__()
        self._copy = game_copy = _Copy(game, render_mode, illegal)
        self.game, self.render_mode, self.metadata = game, render_mode, game_copy.metadata
        self.possible_agents = list(game_copy.agents)
        self.agents: list[str] = []
        self.observation_spaces, self.action_spaces = game_copy.observation_spaces, game_copy.action_spaces
        self.agent_selection = game_copy.agents[0]
        self.infos: dict[str, dict[str, Any]] = {}
        self._to_ask: list[str] = []
        self._skip_agent_selection: str | None = None

    def observation_space(self, agent: str) -> gym.Space[Any]:
        """The observation space of one agent."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        """The action space of one agent."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start an episode; a seed gives the same trajectory as ``gym.make`` and as copy 0 of a batch."""
        self._copy.reset(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self._skip_agent_selection = None
        self._ask_next()
        self._accumulate_rewards()
        self._deads_step_first()

    def observe(self, agent: str) -> Any:
        """One agent's observation of the current state."""
        return self._copy.observe(agent)

    def step(self, action: Any) -> None:
        """Play the action of ``agent_selection``; None if that agent's episode has ended.

        Raises:
            IllegalActionError: for an illegal action; the same agent stays selected.
            gym.error.ResetNeeded: if the episode is over for all agents, or none has begun.
        """
        if not self.agents:
            raise self._copy.reset_needed()
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._copy.set_action(agent, action)
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        if self._to_ask:
            self.agent_selection = self._to_ask.pop(0)
        else:
            self._play()
            self._ask_next()
        self._accumulate_rewards()
        self._deads_step_first()

    def _play(self) -> None:
        """Step the game once with the stored actions."""
        rewards, terminated, truncated = self._copy.step()
        for agent, reward in zip(self.agents, rewards, strict=True):
            self.rewards[agent] += reward
        self.terminations = dict.fromkeys(self.agents, terminated)
        self.truncations = dict.fromkeys(self.agents, truncated)

    def _ask_next(self) -> None:
        """Step the game until a seat acts or the episode ends, and select the first acting seat."""
        first = self.agents[0]
        while not (self.terminations[first] or self.truncations[first]):
            self._to_ask = self._copy.acting()
            if self._to_ask:
                self.agent_selection = self._to_ask.pop(0)
                return
            self._play()
        self.agent_selection = first

    def render(self) -> Any:
        """An image uint8 [H, W, 3] or a string, depending on the render mode."""
        return self._copy.render()

    def close(self) -> None:
        """Do nothing."""
