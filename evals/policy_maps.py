"""Pictures of policies on gridworlds: the agent's preferred moves in every cell, and their values.

Any agent can be drawn, whatever its observations: a copy of the game is put into each cell, and the agent acts on the
observations of those copies. For agents with ``state_values(obs) -> [N]`` the map is coloured by value. The exact
solution (value iteration at the agent's own discount, or backward induction where that is 1) is drawn in the same way,
so that the two can be compared side by side in TensorBoard.

Example:
    agent, settings, _ = load_agent("runs/maze")
    frames = policy_pictures(agent, settings, device="cpu", exact=True)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.agents.agent import Agent, memory_size, rows
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.game import Game
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.registry import make_game, registered
from mlbits.selfplay.runs.config import Settings

LEARNED, EXACT = "policy/learned", "policy/exact"
_DISCOUNT = 0.99  # of the exact solution for an agent that has none
_STATE_LIMIT, _OUTCOME_LIMIT = 5_000, 50_000  # solved within a second


def policy_pictures(
    agent: Agent, settings: Settings, *, device: torch.device | str, exact: bool
) -> dict[str, NDArray[np.uint8]]:
    """Pictures of an agent's policy, if its run is on a gridworld with a fixed map.

    Args:
        agent: the agent.
        settings: settings of its run; the exact solution uses the agent's own discount.
        device: the agent's device.
        exact: whether to draw the exact solution, too.

    Returns:
        Images uint8 [H, W, 3] by name; none for any other environment.
    """
    game = fixed_map(settings.env, settings.env_settings)
    if game is None:
        return {}
    remembers = memory_size(agent) > 0  # then its moves do not depend on the cell alone
    pictures = {} if remembers else {LEARNED: learned_picture(agent, game, device)}
    if exact:
        config = settings.agent_config
        discount = getattr(config, "discount", getattr(config, "gamma", _DISCOUNT))
        with contextlib.suppress(MlbitsError):  # the map is too large
            pictures[EXACT] = exact_picture(game, discount)
    return pictures


def learned_picture(agent: Agent, game: Game, device: torch.device | str = "cpu") -> NDArray[np.uint8]:
    """A gridworld's map with an agent's greedy moves, and its values if it has any.

    Args:
        agent: the agent.
        game: a gridworld with a fixed map.
        device: the agent's device.
    """
    from mlbits.envs.gridworld.drawing import draw_overlay

    cells = game.layout["kinds"].size
    batch = GameBatch(game, cells, autoreset="disabled", threads=1)
    states = batch.records()
    states["cell"], states["elapsed"], states["over"] = np.arange(cells), 0, 0
    obs = rows(batch.set_state(states), 2).to(device)
    moves = agent.act(obs, None, torch.Generator(obs.device), greedy=True).action
    values = getattr(agent, "state_values", None)
    shown = None if values is None else values(obs).detach().double().cpu().numpy()
    return draw_overlay(game, shown, moves.cpu().numpy())


def exact_picture(game: Game, discount: float) -> NDArray[np.uint8]:
    """A gridworld's map with the exact values and all best moves of the reachable cells.

    Args:
        game: a gridworld with a fixed map.
        discount: gamma; at 1 the values are those of an episode's first step, within its time limit.

    Raises:
        GameError: if there are too many cells.
        AgentError: if the values do not converge.
    """
    # Imported here: only runs on gridworlds wait for SciPy and Pillow.
    from mlbits.agents.planning.dynamic_programming import backward_induction, best_actions, value_iteration
    from mlbits.envs.exact.transition_table import read_table
    from mlbits.envs.gridworld.drawing import draw_overlay

    table = read_table(game, state_limit=_STATE_LIMIT, outcome_limit=_OUTCOME_LIMIT)
    assert table.states is not None
    solution = value_iteration(table, discount) if discount < 1 else backward_induction(table)
    best = best_actions(solution.action_value)
    cells, cell = game.layout["kinds"].size, table.states["cell"]
    values, policy = np.full(cells, np.nan), np.zeros((cells, table.num_actions))
    values[cell], policy[cell] = solution.value, best / best.sum(1, keepdims=True)
    return draw_overlay(game, values, policy)


def add_pictures(folder: str | Path, step: int, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
    """Add pictures to the TensorBoard of a finished run; does nothing if its folder is not writable.

    Args:
        folder: the run's folder.
        step: environment steps at which they are shown.
        pictures: images uint8 [H, W, 3] by name.
    """
    if not pictures:
        return
    from torch.utils.tensorboard import SummaryWriter

    from mlbits.selfplay.curves.tracking import tensorboard_tag

    try:
        with SummaryWriter(str(folder)) as writer:
            for name, picture in pictures.items():
                writer.add_image(tensorboard_tag(name, picture=True), picture, step, dataformats="HWC")
    except OSError:
        return


def fixed_map(env: str, settings: Mapping[str, Any] | None) -> Game | None:
    """The gridworld with a fixed map behind an environment id, or None for any other environment.

    Args:
        env: environment id.
        settings: settings of the environment.

    Raises:
        GameError: if a setting is unknown or out of range.
    """
    if env not in registered():
        return None
    game = make_game(env, **dict(settings or {}))
    return game if "kinds" in game.layout and "cell" in (game.state_dtype.names or ()) else None
