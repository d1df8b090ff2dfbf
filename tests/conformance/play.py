"""Plays a game through any door with one script of actions, and records comparable transitions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pettingzoo
import torch
from numpy.typing import NDArray

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.registry import entry, make_game
from tests.games import register_test_games

register_test_games()
# Diplomacy's larger boards take half a minute each to compile: the small one is tested here instead, and they
# have separate tests (tests/envs/diplomacy).
LARGE_BOARDS = {"mlbits/Diplomacy-v0", "mlbits/DiplomacyFvA-v0"}
GAME_IDS = [game_id for game_id in mlbits.registered() if game_id not in LARGE_BOARDS]
SEED = 1234
STEPS = 24  # transitions compared
COPIES = 7


class Transition(NamedTuple):
    """One step of one copy: the observation before, the results of the step, and the observation after it.

    obs, mask and next_obs have the leading axis P (for a Dict space, obs is a dict of such arrays); reward is [P].
    next_obs is the last observation of the episode if the step ended it.
    """

    obs: Any
    mask: Any
    reward: Any
    terminated: bool
    truncated: bool
    next_obs: Any


def one_seat(game_id: str) -> bool:
    return make_game(game_id).seats == 1


@cache
def settings_of(game_id: str) -> dict[str, Any]:
    """A short time limit if the game has one, so that episodes end within a test."""
    if "horizon" in inspect.signature(entry(game_id).load()).parameters:
        try:
            make_game(game_id, horizon=9)
        except GameError:
            return {}
        return {"horizon": 9}
    return {}


@cache
def game_of(game_id: str) -> Game:
    return make_game(game_id, **settings_of(game_id))


def batch_of(game_id: str, num_envs: int = COPIES, **arguments: Any) -> GameBatch:
    return mlbits.make_batch(game_id, num_envs, **{"seed": SEED, **arguments}, **settings_of(game_id))


def as_numpy(value: Any) -> Any:
    """A copy as NumPy of an observation or mask (tensor, array or number, or a dict of those)."""
    if isinstance(value, dict):
        return {key: as_numpy(part) for key, part in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    return None if value is None else np.array(value)


def rows(value: Any, b: int) -> Any:
    """Row b of an array, or of each array of a dict."""
    if isinstance(value, dict):
        return {key: part[b] for key, part in value.items()}
    return None if value is None else value[b]


def assert_same(got: Any, wanted: Any, where: str) -> None:
    """Equal bit for bit, in value and shape (a door may widen an integer type)."""
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys(), where
        for key, part in wanted.items():
            assert_same(got[key], part, f"{where}[{key!r}]")
    elif wanted is None:
        assert got is None, where
    else:
        got, wanted = np.asarray(got), np.asarray(wanted)
        assert got.shape == wanted.shape, f"{where}: shape {got.shape}, wanted {wanted.shape}"
        assert got.dtype.kind in wanted.dtype.kind or {got.dtype.kind, wanted.dtype.kind} <= set("biu"), where
        assert np.array_equal(got, wanted, equal_nan=wanted.dtype.kind == "f"), f"{where}: {got}, wanted {wanted}"


def assert_same_play(got: list[Transition], wanted: list[Transition], where: str) -> None:
    """Both recordings are equal as far as both go, which is at least STEPS transitions."""
    assert min(len(got), len(wanted)) >= STEPS, where
    for t, (mine, theirs) in enumerate(zip(got, wanted, strict=False)):
        for name, a, b in zip(Transition._fields, mine, theirs, strict=True):
            assert_same(a, b, f"{where}: step {t}: {name}")


class Script(NamedTuple):
    """Random legal play by a batch under same_step: the reference for every door.

    actions: [T, B, P, ...]; active: bool [T, B, P], which seats acted; play: transitions of each copy.
    """

    actions: NDArray[Any]
    active: NDArray[np.bool_]
    play: list[list[Transition]]


def legal_actions(game: Game, mask: NDArray[np.bool_] | None, shape: tuple[int, ...], rng: Any) -> Any:
    """Actions drawn uniformly from the legal ones, [*shape] or [*shape, k], by NumPy."""
    layout = game.action
    if layout.kind == "continuous":
        low, high = np.maximum(layout.low, -10), np.minimum(layout.high, 10)
        return rng.uniform(low, high, (*shape, *layout.shape)).astype(np.float32)
    parts, start = [], 0
    for n in layout.nvec:
        score = rng.random((*shape, n))
        if mask is not None:
            score = np.where(mask[..., start : start + n], score, -1)
        parts.append(score.argmax(-1))
        start += n
    return parts[0] if layout.kind == "discrete" else np.stack(parts, -1)


@cache
def script_of(game_id: str) -> Script:
    """Twice STEPS steps, since under next_step a copy may be reset in every other call."""
    batch, game, rng = batch_of(game_id), game_of(game_id), np.random.default_rng(7)
    play: list[list[Transition]] = [[] for _ in range(COPIES)]
    actions, active = [], []
    for _ in range(2 * STEPS):
        mask = as_numpy(batch.legal_mask)
        actions.append(legal_actions(game, mask, (COPIES, game.seats), rng))
        active.append(np.ones((COPIES, game.seats), bool) if batch.active is None else as_numpy(batch.active))
        obs = as_numpy(batch.obs)
        step = batch.step(actions[-1])
        after, final = as_numpy(step.obs), as_numpy(step.final_obs)
        for b in range(COPIES):
            terminated, truncated = bool(step.terminated[b]), bool(step.truncated[b])
            next_obs = rows(final if terminated or truncated else after, b)
            reward = as_numpy(step.reward[b])
            play[b].append(Transition(rows(obs, b), rows(mask, b), reward, terminated, truncated, next_obs))
    return Script(np.stack(actions), np.stack(active), play)


class Door(NamedTuple):
    """Several copies behind one door, for :func:`play_copies`.

    reset() -> (obs, mask); step(actions) -> (obs, mask, reward, terminated, truncated, final_obs);
    restart(which bool [B]) -> (obs, mask). All with the axes [B, P].
    """

    reset: Callable[[], Any]
    step: Callable[[Any], Any]
    restart: Callable[[Any], Any]


def batch_door(batch: GameBatch) -> Door:
    def reset() -> Any:
        return as_numpy(batch.reset(seed=SEED)), as_numpy(batch.legal_mask)

    def step(actions: Any) -> Any:
        got = batch.step(torch.from_numpy(actions))
        ends = as_numpy(got.terminated), as_numpy(got.truncated)
        return (
            as_numpy(got.obs),
            as_numpy(batch.legal_mask),
            as_numpy(got.reward),
            *ends,
            as_numpy(got.final_obs),
        )

    def restart(which: Any) -> Any:
        return as_numpy(batch.reset(which=torch.from_numpy(which))), as_numpy(batch.legal_mask)

    return Door(reset, step, restart)


def vector_door(env: Any) -> Door:
    def with_seat(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: part[:, None] for key, part in value.items()}
        return None if value is None else value[:, None]

    def reset() -> Any:
        obs, info = env.reset(seed=SEED)
        return with_seat(obs), with_seat(info.get("action_mask"))

    def step(actions: Any) -> Any:
        obs, reward, terminated, truncated, info = env.step(actions[:, 0])
        final = with_seat(info.get("final_obs"))
        return (
            with_seat(obs),
            with_seat(info.get("action_mask")),
            with_seat(reward),
            terminated,
            truncated,
            final,
        )

    def restart(which: Any) -> Any:
        obs, info = env.reset(options={"reset_mask": which})
        return with_seat(obs), with_seat(info.get("action_mask"))

    return Door(reset, step, restart)


def play_copies(door: Door, autoreset: str, script: Script, num_envs: int) -> list[list[Transition]]:
    """Play each copy's script at its own pace until every copy has STEPS transitions."""
    play: list[list[Transition]] = [[] for _ in range(num_envs)]
    ended = np.zeros(num_envs, bool)
    obs, mask = door.reset()
    while min(map(len, play)) < STEPS:
        cursor = np.array([len(transitions) for transitions in play])
        actions = script.actions[cursor, np.arange(num_envs)]
        if autoreset == "disabled" and ended.any():
            obs, mask = door.restart(ended)
            ended[:] = False
        after, after_mask, reward, terminated, truncated, final = door.step(actions)
        for b in range(num_envs):
            if ended[b]:  # next_step: this call has only started the new episode
                assert autoreset == "next_step"
                assert not terminated[b] and not truncated[b] and not reward[b].any()
                continue
            over = bool(terminated[b] or truncated[b])
            last = rows(final, b) if over and autoreset == "same_step" else rows(after, b)
            play[b].append(
                Transition(rows(obs, b), rows(mask, b), reward[b], bool(terminated[b]), bool(truncated[b]), last)
            )
        ended = (terminated | truncated) & (autoreset != "same_step")
        obs, mask = after, after_mask
    return play


def with_axis(value: Any) -> Any:
    """Add the seat axis to an observation of one seat."""
    if isinstance(value, dict):
        return {key: np.asarray(part)[None] for key, part in value.items()}
    return None if value is None else np.asarray(value)[None]


def play_gymnasium(env: gym.Env[Any, Any], script: Script) -> list[Transition]:
    """Play copy 0's script through ``gym.make``'s door."""
    play = []
    obs, info = env.reset(seed=SEED)
    for t in range(2 * STEPS):
        mask = with_axis(info.get("action_mask"))
        action = script.actions[t, 0, 0]
        after, reward, terminated, truncated, info = env.step(action.item() if action.ndim == 0 else action)
        assert type(reward) is float and type(terminated) is bool and type(truncated) is bool
        play.append(
            Transition(with_axis(obs), mask, np.array([reward], np.float32), terminated, truncated, with_axis(after))
        )
        obs = after
        if terminated or truncated:
            obs, info = env.reset()
    return play


def split_observation(game: Game, observation: Any) -> tuple[Any, Any]:
    """A PettingZoo observation as (observation, bool mask [A] or None)."""
    if not game.masked:
        return observation, None
    mask = observation["action_mask"]
    for part in mask if isinstance(mask, tuple) else (mask,):
        assert part.dtype == np.int8
    flat = np.concatenate(mask) if isinstance(mask, tuple) else mask
    return observation["observation"], flat.astype(bool)


def play_parallel(env: pettingzoo.ParallelEnv, script: Script) -> list[Transition]:
    """Play copy 0's script through PettingZoo's parallel door."""
    agents, game = env.possible_agents, env.unwrapped.game

    def stacked(observations: Any) -> tuple[Any, Any]:
        parts = [split_observation(game, observations[agent]) for agent in agents]
        obs, masks = zip(*parts, strict=True)
        if isinstance(obs[0], dict):
            faces = {key: np.stack([part[key] for part in obs]) for key in obs[0]}
        else:
            faces = np.stack(obs)
        return faces, np.stack(masks) if game.masked else None

    play = []
    observations, _ = env.reset(seed=SEED)
    for t in range(2 * STEPS):
        obs, mask = stacked(observations)
        actions = dict(zip(agents, script.actions[t, 0], strict=True))
        observations, rewards, terminations, truncations, infos = env.step(actions)
        assert all(list(part) == agents for part in (observations, rewards, terminations, truncations, infos))
        assert len(set(terminations.values())) == len(set(truncations.values())) == 1
        terminated, truncated = terminations[agents[0]], truncations[agents[0]]
        reward = np.array(list(rewards.values()), np.float32)
        play.append(Transition(obs, mask, reward, terminated, truncated, stacked(observations)[0]))
        assert env.agents == ([] if terminated or truncated else agents)
        if terminated or truncated:
            observations, _ = env.reset()
    return play


def follow_aec(env: pettingzoo.AECEnv, script: Script) -> None:
    """Play copy 0's script through PettingZoo's AEC door, comparing on the way."""
    agents, game = env.possible_agents, env.unwrapped.game
    owed = dict.fromkeys(agents, 0.0)
    env.reset(seed=SEED)
    for t, wanted in enumerate(script.play[0]):
        for seat in np.flatnonzero(script.active[t, 0]):
            where = f"step {t}, seat {seat}"
            assert env.agent_selection == agents[seat], where
            observation, reward, terminated, truncated, _ = env.last()
            obs, mask = split_observation(game, observation)
            assert_same(obs, rows(wanted.obs, seat), where)
            assert_same(mask, rows(wanted.mask, seat), where)
            assert not terminated and not truncated, where
            assert abs(reward - owed[agents[seat]]) < 1e-6, where
            owed[agents[seat]] = 0.0
            env.step(script.actions[t, 0, seat])
        for seat, agent in enumerate(agents):
            owed[agent] += float(wanted.reward[seat])
        if wanted.terminated or wanted.truncated:
            for seat, agent in enumerate(agents):
                assert env.agent_selection == agent
                observation, reward, terminated, truncated, _ = env.last()
                assert_same(split_observation(game, observation)[0], rows(wanted.next_obs, seat), f"end at {t}")
                assert (terminated, truncated) == (wanted.terminated, wanted.truncated)
                assert abs(reward - owed[agent]) < 1e-6, f"end at {t}: the last reward of {agent}"
                env.step(None)
            assert env.agents == []
            env.reset()
            owed = dict.fromkeys(agents, 0.0)
