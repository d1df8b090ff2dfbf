"""PettingZoo's doors by hand: turns, rewards, masks and errors."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
import pytest
from gymnasium import spaces

from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule
from mlbits.envs.doors.pettingzoo_envs import PettingZooAECEnv, PettingZooParallelEnv
from tests.games import HEAPS, MOST, register_test_games

register_test_games()
SMALL = {"largest": 1}  # Nim with three heaps of one: first, second, first; the first player wins


def take(heap: int, number: int = 1) -> int:
    return heap * MOST + number - 1


def begun(game_id: str, **settings: Any) -> Any:
    env = pettingzoo.make("aec", game_id, **settings)
    env.reset(seed=0)
    return env


def test_the_registry_gives_both_doors() -> None:
    assert isinstance(pettingzoo.make("parallel", "test/Nim-v0"), PettingZooParallelEnv)
    assert isinstance(pettingzoo.make("aec", "test/Nim-v0"), PettingZooAECEnv)
    assert pettingzoo.make("aec", "mlbits/GridWorld").metadata["name"] == "GridWorld", "the latest version"


def test_a_game_in_turn_by_hand() -> None:
    env = begun("test/Nim-v0", **SMALL)
    told = []
    for agent, heap in zip(env.agent_iter(), (0, 1, 2, None, None), strict=False):
        _, reward, terminated, truncated, _ = env.last()
        told.append((agent, reward, terminated, truncated))
        env.step(None if heap is None else take(heap))
    assert told == [
        ("player_0", 0, False, False),
        ("player_1", 0, False, False),
        ("player_0", 0, False, False),
        ("player_0", 1.0, True, False),
        ("player_1", -1.0, True, False),  # the loser gets its result, too
    ]
    assert env.agents == []
    with pytest.raises(gym.error.ResetNeeded):
        env.step(take(0))
    env.reset()
    assert env.agents == ["player_0", "player_1"]
    assert not any(env.terminations.values())


def test_observations_and_masks_in_turn() -> None:
    env = begun("test/Nim-v0", **SMALL)
    space = env.observation_space("player_0")
    assert space["action_mask"] == spaces.Box(0, 1, (HEAPS * MOST,), np.int8)
    first, second = env.observe("player_0"), env.observe("player_1")
    assert first["observation"].tolist() == [1, 1, 1, 0]
    assert second["observation"].tolist() == [1, 1, 1, 1]
    assert np.flatnonzero(first["action_mask"]).tolist() == [take(0), take(1), take(2)]
    assert np.flatnonzero(second["action_mask"]).tolist() == [0], "one action is left: pass"
    assert first in space and second in space
    env.step(take(1))
    assert np.flatnonzero(env.observe("player_1")["action_mask"]).tolist() == [take(0), take(2)]
    assert np.flatnonzero(first["action_mask"]).tolist() == [take(0), take(1), take(2)], "it is a copy"


def test_a_simultaneous_game_asks_all_agents_before_it_steps() -> None:
    env = begun("test/Throws-v0", noise=0.0, end=0.0, horizon=2)
    rock, paper, scissors = 0, 1, 2
    before = env.observe("player_2").copy()
    env.step(rock)
    assert env.agent_selection == "player_1"
    env.step(paper)
    assert env.agent_selection == "player_2"
    assert np.array_equal(env.observe("player_2"), before), "no agent sees the others' actions"
    assert set(env.rewards.values()) == {0}
    env.step(rock)
    assert env.agent_selection == "player_0"
    assert env.rewards == {"player_0": -1.0, "player_1": 2.0, "player_2": -1.0}
    for throw, reward in zip((scissors, scissors, rock), (-1.0, 2.0, -1.0), strict=True):
        assert env.last()[1] == reward
        env.step(throw)
    assert env.truncations == dict.fromkeys(env.possible_agents, True)
    assert env.terminations == dict.fromkeys(env.possible_agents, False)
    for reward in (-1.0, -1.0, 2.0):
        assert env.last()[1:4] == (reward, False, True)
        env.step(None)
    assert env.agents == []


def test_turns_in_which_no_agent_acts_are_stepped_automatically() -> None:
    """In Relay no agent acts in every third turn, which pays player_0 a half."""
    env = begun("test/Relay-v0", horizon=None)
    for _ in range(4):
        if env.terminations["player_0"]:
            break
        assert env.agent_selection == "player_0"
        act_legally(env)
        if env.terminations["player_0"]:
            break
        assert env.agent_selection == "player_1"
        before = env._copy.copies.states["count"][0]
        act_legally(env)
        if not env.terminations["player_0"]:
            assert env._copy.copies.states["count"][0] == before + 2
            assert env.rewards["player_0"] == 0.5


def act_legally(env: Any) -> None:
    mask = env.last()[0]["action_mask"]
    env.step([int(part.argmax()) for part in mask])


def test_each_sub_action_has_its_own_mask() -> None:
    env = begun("test/Relay-v0")
    mask = env.observe("player_0")["action_mask"]
    assert [(part.dtype, part.shape) for part in mask] == [(np.int8, (3,)), (np.int8, (2,))]
    for _ in range(20):
        action = env.action_space("player_0").sample(mask)
        assert all(part[choice] for part, choice in zip(mask, action, strict=True))


@pytest.mark.parametrize("kind", ["parallel", "aec"])
def test_action_spaces_draw_legal_actions(kind: str) -> None:
    env = pettingzoo.make(kind, "test/Nim-v0", **SMALL)
    twin = copy.deepcopy(env)
    for one in (twin, env):  # a copied environment uses its own masks
        for episode in range(20):
            one.reset(seed=episode)
            one.action_space("player_0").seed(episode)
            while one.agents:
                drawn = {agent: one.action_space(agent).sample() for agent in one.agents}
                if kind == "parallel":
                    one.step(drawn)
                else:
                    one.step(None if one.terminations[one.agent_selection] else drawn[one.agent_selection])
    assert env.action_space("player_0") == env.unwrapped.game.action_space


@pytest.mark.parametrize("kind", ["parallel", "aec"])
def test_masks_of_a_truncated_game_show_the_legal_actions(kind: str) -> None:
    """Nim of three heaps of one: player_0 has taken the first, and it is player_1's turn."""
    env = pettingzoo.make(kind, "test/Nim-v0", max_cycles=1, **SMALL)
    env.reset(seed=0)
    wanted = [env.unwrapped._copy.observe("player_1")["action_mask"].tolist()]
    if kind == "parallel":
        observations, _, terminated, truncated, infos = env.step({"player_0": take(0)})
        assert (any(terminated.values()), all(truncated.values())) == (False, True)
        assert not any(info["active"] for info in infos.values())
        masks = [observations[agent]["action_mask"].tolist() for agent in env.possible_agents]
    else:
        env.step(take(0))
        assert all(env.truncations.values())
        masks = [env.observe(agent)["action_mask"].tolist() for agent in env.possible_agents]
    legal = [int(action in (take(1), take(2))) for action in range(len(masks[1]))]
    assert masks == [*wanted, legal]


@pytest.mark.parametrize("action", [9, -1, take(0, 2), 1.0, None, [0], "all", 2**80])
def test_an_illegal_action_is_refused_at_once_and_its_agent_stays_selected(action: Any) -> None:
    env = begun("test/Nim-v0", **SMALL)
    env.step(take(0))
    state = env._copy.copies.states.tobytes()
    with pytest.raises(IllegalActionError, match=r"action of player_1.*wanted"):
        env.step(action)
    assert env._copy.copies.states.tobytes() == state
    assert env.agent_selection == "player_1"
    env.step(take(1))
    assert env.agent_selection == "player_0"


@pytest.mark.parametrize("kind", ["parallel", "aec"])
def test_illegal_actions_may_be_replaced_or_forfeit_instead(kind: str) -> None:
    def rewards_of(illegal: str) -> Any:
        env = pettingzoo.make(kind, "test/Nim-v0", illegal=illegal, **SMALL)
        env.reset(seed=0)
        env.step(take(0, 3) if kind == "aec" else {"player_0": take(0, 3)})
        heaps = env.unwrapped._copy.copies.states["heap"][0].tolist()
        return heaps, env.unwrapped._copy.copies.rewards[0].tolist()

    assert rewards_of("replace") == ([0, 1, 1], [0.0, 0.0])
    assert rewards_of("forfeit") == ([1, 1, 1], [-1.0, 0.0])
    with pytest.raises(IllegalActionError, match="action of player_0"):
        rewards_of("error")
    with pytest.raises(GameError, match="illegal: got 'ignore'"):
        pettingzoo.make(kind, "test/Nim-v0", illegal="ignore")


def test_an_illegal_action_is_refused_at_once_in_a_simultaneous_game_too() -> None:
    env = begun("test/Throws-v0")
    env.step(2)
    with pytest.raises(IllegalActionError, match=r"action of player_1 in Throws: got 3; wanted 0\.\.2"):
        env.step(3)
    assert env.agent_selection == "player_1"
    for throw in (0, 1):
        env.step(throw)
    assert env._copy.copies.states["last"][0].tolist() == [2, 0, 1], "the earlier action of player_0 was kept"


def test_a_dead_agent_may_only_step_with_none() -> None:
    env = begun("test/Nim-v0", **SMALL)
    for heap in range(HEAPS):
        env.step(take(heap))
    with pytest.raises(ValueError, match="only valid action is None"):
        env.step(0)


def test_a_reset_in_the_middle_of_a_turn_clears_its_actions() -> None:
    env = begun("test/Throws-v0", noise=0.0, end=0.0)
    env.step(2)
    env.reset(seed=0)
    assert env.agent_selection == "player_0"
    for throw in (0, 0, 0):
        env.step(throw)
    assert env._copy.copies.states["last"][0].tolist() == [0, 0, 0]
    assert set(env._cumulative_rewards.values()) == {0}


def test_a_reset_among_dead_agents_revives_all() -> None:
    env = begun("test/Nim-v0", **SMALL)
    for heap in range(HEAPS):
        env.step(take(heap))
    env.step(None)
    assert env.agents == ["player_1"]
    env.reset(seed=0)
    assert env.agents == ["player_0", "player_1"]
    assert env.agent_selection == "player_0"
    assert set(env._cumulative_rewards.values()) == {0}


def test_parallel_by_hand() -> None:
    env = pettingzoo.make("parallel", "test/Nim-v0", **SMALL)
    _, infos = env.reset(seed=0)
    assert infos == {"player_0": {"active": True}, "player_1": {"active": False}}
    env.step({"player_0": take(0)})  # an agent that has to pass may be left out
    env.step({"player_0": "whatever", "player_1": take(1)})  # or play anything
    _, rewards, terminations, truncations, infos = env.step({"player_0": take(2), "player_1": None})
    assert rewards == {"player_0": 1.0, "player_1": -1.0}
    assert terminations == {"player_0": True, "player_1": True}
    assert truncations == {"player_0": False, "player_1": False}
    assert env.agents == []
    with pytest.raises(gym.error.ResetNeeded):
        env.step({"player_0": take(0)})


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (
            {"player_0": 0, "player_2": 0},
            r"got none for 'player_1'; wanted one for each of \['player_0', 'player_1'",
        ),
        ({"player_0": 0, "player_1": None, "player_2": 0}, "got none for 'player_1'"),
        ({"player_0": 0, "player_1": 0, "player_2": 0, "player_3": 0}, "got one for 'player_3'"),
        ({"player_0": 0, "player_1": 5, "player_2": 0}, "action of player_1 in Throws: got 5"),
        ({"player_0": 0, "player_1": 0, "player_2": [0]}, r"action of player_2: got \[0\]"),
    ],
)
def test_bad_actions_in_parallel_change_nothing(actions: Any, message: str) -> None:
    env = pettingzoo.make("parallel", "test/Throws-v0")
    env.reset(seed=0)
    state = env._copy.copies.states.tobytes()
    with pytest.raises(IllegalActionError, match=message):
        env.step(actions)
    assert env._copy.copies.states.tobytes() == state
    env.step(dict.fromkeys(env.agents, 0))


@pytest.mark.parametrize("kind", ["parallel", "aec"])
def test_max_cycles_truncates_sooner_but_not_later(kind: str) -> None:
    for max_cycles, wanted in [(2, 2), (50, 4), (None, 4), (-1, 4)]:
        env = pettingzoo.make(kind, "test/Throws-v0", max_cycles=max_cycles, horizon=4, end=0.0)
        assert env.unwrapped.game.horizon == wanted
    with pytest.raises(GameError, match="time limit: got 0"):
        pettingzoo.make(kind, "test/Throws-v0", max_cycles=0)


@pytest.mark.parametrize("kind", ["parallel", "aec"])
def test_a_game_that_ends_in_its_last_cycle_is_terminated_and_truncated(kind: str) -> None:
    env = pettingzoo.make(kind, "test/Nim-v0", max_cycles=HEAPS, **SMALL)
    env.reset(seed=0)
    flags: Any = None
    for heap in range(HEAPS):
        mover = f"player_{heap % 2}"
        flags = env.step(take(heap) if kind == "aec" else {mover: take(heap)})
    ends = (env.terminations, env.truncations) if kind == "aec" else flags[2:4]
    assert [set(flag.values()) for flag in ends] == [{True}, {True}]


@pytest.mark.parametrize("kind", ["parallel", "aec"])
def test_without_a_seed_two_envs_differ_and_their_streams_continue(kind: str) -> None:
    envs = [pettingzoo.make(kind, "mlbits/Goofspiel-v0") for _ in range(2)]
    plays = []
    for env in envs:
        prizes = []
        for _ in range(20):
            env.reset()
            prizes.append(int(env.unwrapped._copy.copies.states["prize"][0]))
        plays.append(prizes)
    assert plays[0] != plays[1]
    assert len(set(plays[0])) > 1


@pytest.mark.parametrize("winner", ["player_0", "player_1"])
def test_both_agents_get_the_end_whoever_caused_it(winner: str) -> None:
    """In Tug one player pulls and the other does not: the rope moves by 0.75 to 1.25 per pair of actions."""
    env = begun("test/Tug-v0")
    heard: dict[str, list[float]] = {agent: [] for agent in env.possible_agents}
    pulls = 0
    for agent in env.agent_iter():
        _, reward, terminated, truncated, _ = env.last()
        heard[agent].append(reward)
        pulls += agent == winner and not terminated
        env.step(None if terminated or truncated else np.array([agent == winner], np.float32))
    assert env.agents == []
    assert pulls in (1, 2, 3)  # the other one slips by up to 0.25 each time
    for agent, rewards in heard.items():
        assert rewards == [0.0] * (len(rewards) - 1) + [1.0 if agent == winner else -1.0]


# Ticks: at even times one of two seats acts, at odd times none. Step t pays t + 1 to seat 0, and to seat 1 ten times
# that, plus the actions that were read.


@rule
def ticks_reset(state: Any, params: Any) -> None:
    state.time = 0


@rule
def ticks_step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    state.time += 1
    rewards[0] = state.time
    rewards[1] = 10 * state.time + 100 * actions[0] + 1000 * actions[1]
    return state.time == 8, False


@rule
def ticks_observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    out[0] = state.time


@rule
def ticks_acts(state: Any, params: Any, seat: Any) -> Any:
    return state.time % 4 == 2 * seat


def ticks() -> Game:
    return Game(
        name="Ticks", seats=2, state_fields=[("time", "i4")], params=make_params([], {}),
        observation_space=spaces.Discrete(9), action_space=spaces.Discrete(4), reset=ticks_reset, step=ticks_step,
        observe=ticks_observe, acts=ticks_acts, text=lambda state, params: "",
        draw=lambda state, params: np.zeros((1, 1, 3), np.uint8),
    )  # fmt: skip


def test_rewards_of_one_seat_add_up_until_it_is_asked() -> None:
    env = PettingZooAECEnv(ticks())
    for _ in range(2):  # a second episode starts with no rewards
        env.reset(seed=0)
        heard = []
        for agent, action in zip(env.agent_iter(), (2, 3, 1, 0, None, None), strict=False):
            _, reward, terminated, truncated, _ = env.last()
            heard.append((agent, reward, terminated, truncated))
            env.step(action)
        assert heard == [
            ("player_0", 0, False, False),
            ("player_1", 10 + 200 + 20, False, False),
            ("player_0", 1 + 2 + 3 + 4, False, False),
            ("player_1", 30 + 3000 + 40 + 50 + 100 + 60, False, False),
            ("player_0", 5 + 6 + 7 + 8, True, False),
            ("player_1", 70 + 80, True, False),
        ]


def test_a_passing_agents_current_and_earlier_actions_count_as_a_pass() -> None:
    env = PettingZooParallelEnv(ticks())
    env.reset(seed=0)
    everyone = {"player_0": 3, "player_1": 2}
    paid = [env.step(everyone)[1] for _ in range(8)]
    assert [one["player_0"] for one in paid] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [one["player_1"] for one in paid] == [10 + 300, 20, 30 + 2000, 40, 50 + 300, 60, 70 + 2000, 80]


@pytest.mark.parametrize("kind", ["parallel", "aec"])
def test_rendering(kind: str) -> None:
    env = pettingzoo.make(kind, "mlbits/GridWorld-v0", map="S.G", render_mode="ansi")
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    env.reset(seed=0)
    assert env.render() == "A.G\n"
    env.close()
    with pytest.warns(UserWarning, match="render_mode="):
        assert pettingzoo.make(kind, "mlbits/GridWorld-v0").render() is None
    with pytest.raises(GameError, match="render_mode: got 'human'"):
        pettingzoo.make(kind, "mlbits/GridWorld-v0", render_mode="human")


def test_metadata() -> None:
    assert pettingzoo.make("aec", "test/Throws-v0").metadata["is_parallelizable"]
    assert not pettingzoo.make("aec", "test/Nim-v0").metadata["is_parallelizable"]


def test_conversions_of_pettingzoo_agree_with_the_native_doors() -> None:
    """parallel_to_aec on a simultaneous game gives what the AEC door gives by itself."""
    from pettingzoo.utils import parallel_to_aec

    native, converted = (
        begun("test/Throws-v0"),
        parallel_to_aec(pettingzoo.make("parallel", "test/Throws-v0")),
    )
    converted.reset(seed=0)
    for t in range(30):
        assert native.agent_selection == converted.agent_selection
        for mine, theirs in zip(native.last(), converted.last(), strict=True):
            np.testing.assert_equal(mine, theirs)
        over = native.terminations[native.agent_selection] or native.truncations[native.agent_selection]
        for env in (native, converted):
            env.step(None if over else t % 3)
        if not native.agents:
            break
    assert native.agents == converted.agents == []
