"""Fields of the state that the rules read back: found by static analysis, and when all fields count."""

import pytest
from gymnasium import spaces

import mlbits
from mlbits.envs.core import random
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.exact.state_fields import fields_read
from tests.games import _draw, _text, register_test_games

register_test_games()

FIELDS = [(name, "i4") for name in "abcdef"] + [("board", "i4", (4,)), ("done", "i4", (4,))]


@pytest.mark.parametrize(
    ("env", "fields"),
    [
        ("mlbits/GridWorld-v0", {"cell"}),
        ("mlbits/RandomGridWorld-v0", {"cell", "kind"}),
        ("mlbits/Bandit-v0", {"means"}),  # an arm's last reward is shown, but never read back
        ("mlbits/Knapsack-v0", {"left", "there"}),
        ("mlbits/DelayedChain-v0", {"position", "branch"}),
        ("mlbits/DeepSea-v0", {"row", "column"}),
        ("mlbits/Catch-v0", {"row", "ball", "paddle"}),
        ("mlbits/CartPole-v0", {"x", "x_dot", "theta", "theta_dot"}),
        ("test/Nim-v0", {"heap", "turn"}),
        ("test/Throws-v0", set()),
    ],
)
def test_the_fields_that_make_up_a_state(env, fields):
    assert fields_read(mlbits.make_game(env)) == fields


@rule
def nothing(state, params):
    pass


@rule
def observe(state, params, seat, out):
    out[0] = state.a


def game_of(step, legal=None):
    return Game(
        name="Reads", state_fields=FIELDS, params=make_params([], {}), observation_space=spaces.Discrete(9),
        action_space=spaces.Discrete(4), reset=nothing, step=step, observe=observe, legal=legal, text=_text, draw=_draw,
    )  # fmt: skip


@rule
def written_first(state, params, actions, rewards):
    state.a = actions[0]
    state.b, state.c = 1, state.a
    rewards[0] = state.a + state.b + state.c
    return False, False


@rule
def counted_only(state, params, actions, rewards):
    state.a += 1
    state.done[actions[0]] = 1
    return False, False


@rule
def counted_and_read(state, params, actions, rewards):
    state.a += 1
    return state.a > 3, False


@rule
def on_both_branches(state, params, actions, rewards):
    if actions[0] > 1:
        state.a = 1
        state.b = 2
    elif state.c > 0:
        state.a = 2
    else:
        state.a = 3
        return True, False
    rewards[0] = state.a + state.b  # b is written on one branch only
    return False, False


@rule
def in_a_loop(state, params, actions, rewards):
    for k in range(state.d):
        if k == actions[0]:
            continue
        state.a = k
    while state.board[state.e] > 0:
        state.b = 1
    rewards[0] = state.a
    return False, False


@rule
def own_stream(state, params, actions, rewards):
    rewards[0] = random.uniform(state) + uniform(state)
    return state.elapsed > 5, False


@rule
def helped(s, place):
    return s.board[place] + s.f


@rule
def helped_twice(place, s):
    return helped(s, place)


@rule
def calls(state, params, actions, rewards):
    state.f = 0
    rewards[0] = helped(state, state.a) + helped_twice(s=state, place=state.b)
    return False, False


@rule
def legal_moves(state, params, seat, out):
    out[state.c] = True


@rule
def mutually_recursive(state, params, actions, rewards):
    if state.a > 0:
        state.a -= 1
        return mutually_recursive(state, params, actions, rewards)
    return False, False


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        (written_first, set()),
        (counted_only, set()),
        (counted_and_read, {"a"}),
        (on_both_branches, {"b", "c"}),
        (in_a_loop, {"a", "board", "d", "e"}),
        (own_stream, {"elapsed"}),
        (calls, {"a", "b", "board"}),
        (mutually_recursive, {"a"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fields_are_found_in_the_source(step, fields):
    assert fields_read(game_of(step)) == fields


def test_every_rule_that_affects_the_future_counts():
    assert fields_read(game_of(written_first, legal_moves)) == {"c"}
    assert fields_read(game_of(written_first), [observe]) == {"a"}


@rule
def other_name(state, params, actions, rewards):
    s = state
    rewards[0] = s.a
    return False, False


@rule
def unknown_function(state, params, actions, rewards):
    rewards[0] = abs(state)
    return False, False


def test_all_fields_count_if_the_source_is_not_conclusive():
    namespace = {"rule": rule}
    exec("@rule\ndef untraceable(state, params, actions, rewards):\n    return False, False\n", namespace)
    for step in (other_name, unknown_function, namespace["untraceable"]):
        game = game_of(step)
        assert fields_read(game) == set(game.state_dtype.names)
