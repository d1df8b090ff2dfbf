"""Exact outcomes of rules with random draws: by hand, compared with the compiled rules, and refusals."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import mix64, normal, randint, random_bits, uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.exact.outcomes import Chance
from mlbits.envs.exact.state_fields import fields_read
from mlbits.envs.exact.unresolved_draws import Continuum, Tape, Unknown
from tests.games import _draw, _text

PHI = NormalDist().cdf


@rule
def _reset(state, params):
    state.place = 0
    state.number = 0.0


@rule
def _observe(state, params, seat, out):
    out[0] = state.place


@rule
def _twice(state, top):
    """A draw in a rule that a rule calls."""
    return randint(state, top) + randint(state, top)


def game_of(step, *, reset=_reset, fields=(("place", "i4"), ("number", "f8")), params=(), **values):
    return Game(
        name="Draws", state_fields=list(fields), params=make_params(list(params), values),
        observation_space=spaces.Discrete(1000), action_space=spaces.Discrete(5), reset=reset, step=step,
        observe=_observe, text=_text, draw=_draw,
    )  # fmt: skip


def steps(game, action=0, fields=("place",), limit=10_000):
    """Outcomes of a step from a fresh state: their probability and mean reward by (place, terminated, truncated)."""
    found = {}
    outcomes = Chance(game, fields, limit).steps(np.zeros(1, game.state_dtype)[0], action)
    for outcome in outcomes:
        place = -1 if outcome.terminated else int(outcome.record["place"])
        share, paid = found.get((place, outcome.terminated, outcome.truncated), (0.0, 0.0))
        found[place, outcome.terminated, outcome.truncated] = (
            share + outcome.probability,
            paid + outcome.probability * outcome.reward,
        )
    assert sum(share for share, _ in found.values()) == pytest.approx(1, abs=1e-12)
    return found


# Rules, each with its expected outcomes


@rule
def window(state, params, actions, rewards):
    u = uniform(state)
    state.place = 1 if u > 0.25 and u <= 0.4 else 0
    return False, False


@rule
def nested(state, params, actions, rewards):
    u = uniform(state)
    if u < 0.5:
        state.place = 1 if 4.0 * u < 0.5 else 2
    else:
        rewards[0] = u
    return False, False


@rule
def cut_in_three(state, params, actions, rewards):
    state.place = int(3.0 * uniform(state)) + math.floor(-2.0 * uniform(state))
    return False, False


@rule
def two_dice(state, params, actions, rewards):
    total = 2 + _twice(state, 6)
    rewards[0] = total
    state.place = total if total >= 10 else 0
    return total == 7, total < 4


@rule
def odd(state, params, actions, rewards):
    k = randint(state, 9)
    state.place = k % 2 + 10 * (k // 4) + 100 * (k >> 3)
    rewards[0] = 0.5 * k
    return False, k == 4


@rule
def bell(state, params, actions, rewards):
    z = normal(state)
    rewards[0] += 3.0 + 2.0 * z
    rewards[0] -= abs(0.5 * normal(state))
    if z > 1.0:
        state.place = 1 if z < 2.0 else 2
    return False, False


@rule
def clipped(state, params, actions, rewards):
    u = 2.0 * uniform(state) - 1.0
    rewards[0] = min(max(u, -0.5), 0.5) - u / 4.0
    state.place = actions[0] if u != 0.0 else 99
    return u < -2.0, False


@rule
def shared(state, params, actions, rewards):
    u = uniform(state)
    v = 1.0 - u
    state.place = 1 if u < v else 2
    rewards[0] = u + v
    return False, False


@rule
def table(state, params, actions, rewards):
    state.place = params.prizes[randint(state, 3), actions[0]]
    return uniform(state) < params.end, False


CASES = {
    "window": (window, {(0, 0, 0): (0.85, 0.0), (1, 0, 0): (0.15, 0.0)}),
    "nested": (nested, {(1, 0, 0): (0.125, 0.0), (2, 0, 0): (0.375, 0.0), (0, 0, 0): (0.5, 0.75 * 0.5)}),
    "cut_in_three": (
        cut_in_three,
        {(k, 0, 0): (share, 0.0) for k, share in ((-2, 1 / 6), (-1, 1 / 3), (0, 1 / 3), (1, 1 / 6))},
    ),
    "two_dice": (
        two_dice,
        {
            (-1, 1, 0): (6 / 36, 7 * 6 / 36),
            (0, 0, 1): (3 / 36, (2 + 2 * 3) / 36),
            (0, 0, 0): (21 / 36, (3 * 4 + 4 * 5 + 5 * 6 + 5 * 8 + 4 * 9) / 36),
            (10, 0, 0): (3 / 36, 30 / 36),
            (11, 0, 0): (2 / 36, 22 / 36),
            (12, 0, 0): (1 / 36, 12 / 36),
        },
    ),
    "odd": (
        odd,
        {
            (0, 0, 0): (2 / 9, 1 / 9),
            (1, 0, 0): (2 / 9, 2 / 9),
            (10, 0, 0): (1 / 9, 3 / 9),
            (10, 0, 1): (1 / 9, 2 / 9),
            (11, 0, 0): (2 / 9, 6 / 9),
            (120, 0, 0): (1 / 9, 4 / 9),
        },
    ),
    "clipped": (clipped, {(3, 0, 0): (1.0, 0.0)}),
    "shared": (shared, {(1, 0, 0): (0.5, 0.5), (2, 0, 0): (0.5, 0.5)}),
}


@pytest.mark.parametrize("name", CASES)
def test_outcomes_worked_by_hand(name):
    step, wanted = CASES[name]
    found = steps(game_of(step), action=3 if name == "clipped" else 0)
    assert found.keys() == wanted.keys()
    for key, (share, paid) in wanted.items():
        assert found[key] == (pytest.approx(share, abs=1e-12), pytest.approx(paid, abs=1e-12)), key


def test_means_of_a_normal_draw_after_a_comparison():
    """E[z | z > c] is the density at c over the tail; comparisons narrow the range of the mean reward."""
    density = NormalDist().pdf
    found = steps(game_of(bell))
    folded = 0.5 * math.sqrt(2 / math.pi)
    for place, low, high in ((0, -math.inf, 1.0), (1, 1.0, 2.0), (2, 2.0, math.inf)):
        share = PHI(high) - PHI(low)
        mean = 3.0 - folded + 2.0 * (density(low) - density(high)) / share
        assert found[place, False, False] == (pytest.approx(share), pytest.approx(share * mean))


def test_parameters_and_actions_are_read():
    fields = [("prizes", "i4", (3, 5)), ("end", "f4")]
    game = game_of(table, params=fields, prizes=np.arange(15).reshape(3, 5), end=0.25)
    found = steps(game, action=4)
    assert {key[0] for key in found} == {4, 9, 14, -1}
    assert found[-1, True, False][0] == pytest.approx(0.25)


@pytest.mark.parametrize("step", [nested, odd, bell], ids=lambda step: step.__name__)
def test_the_compiled_rules_reach_each_outcome_with_its_probability(step):
    count, game = 40_000, game_of(step)
    batch = GameBatch(game, count, seed=3, autoreset="disabled", threads=1)
    played = batch.step(np.zeros(count, np.int64))
    terminated, truncated = played.terminated.numpy(), played.truncated.numpy()
    place = np.where(terminated, -1, batch.records()["place"])
    for (where, ended, cut), (share, paid) in steps(game).items():
        those = (place == where) & (terminated == ended) & (truncated == cut)
        assert abs(those.mean() - share) < 5 * math.sqrt(0.25 / count)
        assert abs((those * played.reward[:, 0].numpy()).mean() - paid) < 5 * 4.0 / math.sqrt(count)


# Fields of the state that must be known


@rule
def forgets(state, params, actions, rewards):
    state.number = normal(state)
    state.big = randint(state, 1_000_000)
    rewards[0] = state.number + 0.001 * state.big
    return False, False


@rule
def keeps(state, params, actions, rewards):
    rewards[0] = state.number
    state.number = state.number + uniform(state)
    return False, False


@rule
def keeps_an_integer(state, params, actions, rewards):
    rewards[0] = state.big
    state.big = randint(state, 1_000_000)
    return False, False


FIELDS = (("place", "i4"), ("number", "f8"), ("big", "i8"))


def test_a_field_that_is_never_read_back_may_come_from_a_continuum():
    game = game_of(forgets, fields=FIELDS)
    assert fields_read(game) == set()
    found = steps(game, fields=fields_read(game))
    assert found == {(0, False, False): (1.0, pytest.approx(499.9995))}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (keeps, "Draws: step draws the field 'number' of the state from a continuum; wanted finitely many outcomes"),
        (keeps_an_integer, "Draws: step draws one of 1,000,000; wanted at most 10,000"),
    ],
)
def test_a_field_that_is_read_back_must_have_finitely_many_values(step, message):
    game = game_of(step, fields=FIELDS)
    with pytest.raises(GameError, match=message):
        steps(game, fields=fields_read(game))


@rule
def race(state, params, actions, rewards):
    state.place = 1 if uniform(state) < uniform(state) else 0
    return False, False


@rule
def bent(state, params, actions, rewards):
    rewards[0] = math.sqrt(uniform(state))
    return False, False


@rule
def hashed(state, params, actions, rewards):
    state.place = mix64(state.rng_key) & np.uint64(1)
    return False, False


@rule
def many(state, params, actions, rewards):
    for _ in range(20):
        if uniform(state) < 0.5:
            state.place += 1
    return False, False


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (race, "step compares two draws from a continuum with each other; wanted finitely many outcomes"),
        (bent, "step needs the exact value of a draw from a continuum"),
        (hashed, "step cannot be run with symbolic draws"),
        (many, "step has more than 10,000 outcomes; wanted fewer"),
    ],
)
def test_rules_without_finitely_many_outcomes_are_refused(step, message):
    with pytest.raises(GameError, match=message):
        steps(game_of(step))


# A random stream of the rule's own


@rule(inline=False)
def levelled_reset(state, params):
    level = randint(state, 3)
    key, counter = state.rng_key, state.rng_counter
    state.rng_key = mix64(np.uint64(level) + np.uint64(77))
    state.rng_counter = 0
    state.place = randint(state, 1000)
    state.number = normal(state) + uniform(state) + 1e-6 * (random_bits(state) & np.uint64(255))
    state.rng_key = key
    state.rng_counter = counter
    if uniform(state) < 0.5:
        state.place += 1000


def test_draws_from_a_known_stream_are_deterministic():
    """The same as in the compiled reset, level by level."""
    game = game_of(keeps, reset=levelled_reset)
    starts = Chance(game, ["place", "number"]).resets()
    assert [start.probability for start in starts] == pytest.approx([1 / 6] * 6)
    batch = GameBatch(game, 200, seed=0, threads=1)
    compiled = {(int(place), float(number)) for place, number in batch.records()[["place", "number"]].tolist()}
    found = {(int(start.record["place"]), float(start.record["number"])) for start in starts}
    assert {place for place, _ in found} == {place for place, _ in compiled}
    assert sorted(found) == [(place, pytest.approx(number, abs=1e-12)) for place, number in sorted(compiled)]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_of_the_random_gridworld_gives_the_same_map(level):
    game = mlbits.make_game("mlbits/RandomGridWorld-v0", levels=1, first_level=level, size=5)
    (start,) = Chance(game, fields_read(game)).resets()
    assert start.probability == 1
    record = mlbits.make_batch("mlbits/RandomGridWorld-v0", 1, levels=1, first_level=level, size=5).records()[0]
    for name in ("cell", "kind", "goal", "level", "shortest"):
        assert np.array_equal(start.record[name], record[name]), name


# Symbolic draws


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(1, 9), scale=st.sampled_from([-2.0, -0.5, 0.1, 1.0, 3.0]), shift=st.sampled_from([-1.0, 0.0, 0.3]),
    bound=st.floats(-4, 4), strict=st.booleans(),
)  # fmt: skip
def test_a_comparison_of_an_integer_splits_its_range_where_the_result_changes(low, scale, shift, bound, strict):
    tape = Tape(100)
    share, more = 0.0, tape.rewind()
    while more:
        value = tape.integer(low) * scale + shift
        if value < bound if strict else value <= bound:
            share += tape.probability
        more = tape.next()
    values = [k * scale + shift for k in range(low)]
    assert share == pytest.approx(np.mean([v < bound if strict else v <= bound for v in values]))


def test_arithmetic_resolves_draws_only_where_it_must():
    tape = Tape(10)
    u, k = tape.uniform(), tape.integer(4)
    assert isinstance(u + 2.0 * k - 1, Unknown)
    assert (u + 2.0 * k - 1).mean() == 0.5 + 3.0 - 1
    assert (np.float64(0.5) * u).mean() == 0.25
    assert u - u == 0
    assert (-u).mean() == -0.5
    assert k * 0 == 0
    assert (8 / (k + 1), k.resolve(), k * u) == (8.0, 0, 0)  # the first run has the first answer
    with pytest.raises(Continuum):
        u.resolve()
    assert u != 0.5
    assert bool(u)
