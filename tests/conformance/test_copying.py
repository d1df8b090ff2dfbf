"""Every door can be copied and pickled in the middle of an episode; the copy continues equally, in its own memory."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mlbits.envs.doors.gymnasium_envs import GymnasiumEnv, GymnasiumVectorEnv
from mlbits.envs.doors.pettingzoo_envs import PettingZooParallelEnv
from tests.conformance.play import GAME_IDS, assert_same, batch_of, game_of, one_seat

WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}
every_way = pytest.mark.parametrize("way", WAYS)
every_solo = pytest.mark.parametrize("game_id", [name for name in GAME_IDS if one_seat(name)])


@every_way
@every_solo
def test_gymnasium_env(game_id: str, way: str) -> None:
    env = GymnasiumEnv(game_of(game_id))
    env.reset(seed=5)
    env.action_space.seed(1)
    first = env.step(env.action_space.sample())
    if first[2] or first[3]:  # an episode with one step
        env.reset()
    twin = WAYS[way](env)
    kept = env._copies.states.copy()
    for _ in range(3):
        action = twin.action_space.sample()
        step = twin.step(action)
        if step[2] or step[3]:
            break
    assert (env._copies.states == kept).all(), "the copy uses the original's memory"
    twin = WAYS[way](env)
    for _ in range(3):
        action = twin.action_space.sample()
        ours, theirs = env.step(action), twin.step(action)
        assert_same(ours[0], theirs[0], "observation")
        assert ours[1:4] == theirs[1:4]
        if ours[2] or ours[3]:
            break


@every_way
@every_solo
def test_vector_env(game_id: str, way: str) -> None:
    envs = GymnasiumVectorEnv(game_of(game_id), 3)
    envs.reset(seed=5)
    twin = WAYS[way](envs)
    actions = twin.action_space.sample()
    ours, theirs = envs.step(actions), twin.step(actions)
    assert_same(ours[0], theirs[0], "observations")
    np.testing.assert_array_equal(ours[1], theirs[1])


@every_way
@pytest.mark.parametrize("game_id", GAME_IDS)
def test_batch_and_table(game_id: str, way: str) -> None:
    batch = batch_of(game_id, 4, autoreset="disabled")  # otherwise a one-step game would be reset
    actions = batch.sample_actions()
    twin = WAYS[way](batch)
    ours = batch.step(actions)
    assert (batch.records() != twin.records()).any(), "the copy shares the original's memory"
    theirs = twin.step(actions)
    assert (batch.records() == twin.records()).all()
    assert torch.equal(ours.reward, theirs.reward)
    assert torch.equal(batch.sample_actions(), twin.sample_actions())
    table = PettingZooParallelEnv(game_of(game_id))
    table.reset(seed=5)
    assert WAYS[way](table).agents == table.agents
