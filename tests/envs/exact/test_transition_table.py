"""Transition tables built from rules: exact optima by hand and by other algorithms, and games without a table."""

import itertools

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import mlbits
from mlbits.agents.planning.dynamic_programming import backward_induction, uniform_policy, value_iteration
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.exact.outcomes import Chance
from mlbits.envs.exact.transition_table import TransitionTable, read_gymnasium, read_table, table_of
from mlbits.envs.gridworld.maps import MAPS, neighbours, read_map
from mlbits.envs.gridworld.rules import CLIFF, EMPTY, GOAL, PIT
from tests.envs.test_knapsack import dynamic_programming
from tests.games import _draw, _text, register_test_games

register_test_games()


def optimum(env, **game_settings):
    table = table_of(env, game_settings)
    return float(backward_induction(table).value @ table.start)


# Gridworlds


@pytest.mark.parametrize(
    ("game_settings", "wanted"),
    [
        ({"map": "SG"}, 1.0),
        ({"map": "S..G"}, 0.98),
        ({"map": "S..G", "step_cost": 0.25}, 0.5),
        ({"map": "S..G", "horizon": 2}, -0.02),  # the goal cannot be reached in time
        ({"map": "S..G", "step_cost": -1.0, "horizon": 7}, 7.0),  # walking pays more than the goal
        ({"map": "S#./..G"}, 0.98),
        ({"map": "SX/.G", "step_cost": 2.0}, -1.0),  # so expensive that a step and the goal earn only -2 + 1
        ({"map": "SX./..G", "step_cost": 3.0}, -1.0),  # falling into the pit at once is cheapest
        ({"map": "S.G.S"}, 0.99),
        ({"map": "SG..S"}, (1.0 + 0.98) / 2),  # the mean over the starts
        ({"map": "S.G", "goal_reward": 5.0}, 4.99),
        ({"map": "S.G", "horizon": None}, 0.99),
        ({"map": "SG", "slip": 1.0, "horizon": 1}, 1 / 4 - 0.01 * 3 / 4),
        # With half of all moves slipping, right moves on with 5/8 and otherwise stays; each step costs 0.01.
        ({"map": "SG", "slip": 0.5, "horizon": None}, 1 - 0.01 * (8 / 5 - 1)),
    ],
)
def test_gridworlds_worked_by_hand(game_settings, wanted):
    assert optimum("mlbits/GridWorld-v0", **game_settings) == pytest.approx(wanted, abs=1e-6)


def test_the_cliff_is_walked_along_its_edge():
    table = table_of("mlbits/CliffWalk-v0")
    assert table.num_states == 37  # neither the cliff nor the goal is a state
    assert backward_induction(table).value @ table.start == pytest.approx(-13)


def shortest_distances(kinds):
    """Moves to the goal from every cell, by breadth-first search; -1 if there is no path around pits and cliffs."""
    table, ways = neighbours(kinds), np.full(kinds.size, -1)
    flat = kinds.reshape(-1)
    edge = [int(cell) for cell in np.flatnonzero(flat == GOAL)]
    ways[edge] = 0
    while edge:
        following = []
        for cell in range(kinds.size):
            if flat[cell] == EMPTY and ways[cell] < 0 and set(table[cell].tolist()) & set(edge):
                following.append(cell)
        for cell in following:
            ways[cell] = ways[edge[0]] + 1
        edge = following
    return ways


@pytest.mark.parametrize("name", sorted(MAPS.keys() - {"cliff_walk"}))
def test_without_slips_the_optimum_is_the_shortest_path(name):
    kinds, starts = read_map(name)
    ways = shortest_distances(kinds)[starts]
    assert optimum("mlbits/GridWorld-v0", map=name) == pytest.approx(np.mean(1 - 0.01 * (ways - 1)), abs=1e-6)


def test_four_rooms():
    kinds, starts = read_map("four_rooms")
    wanted = np.mean(1 - 0.01 * (shortest_distances(kinds)[starts] - 1))
    assert optimum("mlbits/FourRooms-v0") == pytest.approx(wanted, abs=1e-6)


def test_each_random_map_has_its_own_optimum():
    batch = mlbits.make_batch("mlbits/RandomGridWorld-v0", 40, seed=5)
    starts = batch.records()
    table = read_table(batch.game, starts=starts)
    wanted = np.mean(1 - 0.01 * (starts["shortest"] - 1.0))
    assert backward_induction(table).value @ table.start == pytest.approx(wanted, abs=1e-6)
    for record in starts[:5]:
        table = read_table(batch.game, starts=record[None])
        wanted = 1 - 0.01 * (record["shortest"] - 1.0)
        assert backward_induction(table).value @ table.start == pytest.approx(wanted, abs=1e-6)


def slippery(name, slip, rewards):
    """The same decision process built directly from the map: [S, 4, S] and [S, 4] over all cells."""
    kinds, _ = read_map(name)
    table, flat = neighbours(kinds), kinds.reshape(-1)
    first = int(read_map(name)[1][0])
    probability, reward = np.zeros((flat.size, 4, flat.size)), np.zeros((flat.size, 4))
    for cell, action, drawn in itertools.product(range(flat.size), range(4), range(4)):
        share = slip / 4 + (1 - slip) * (drawn == action)
        to = int(table[cell, drawn])
        reward[cell, action] += share * rewards[flat[to]]
        if flat[to] not in (GOAL, PIT):
            probability[cell, action, first if flat[to] == CLIFF else to] += share
    return probability, reward


@pytest.mark.parametrize(
    ("env", "name", "rewards", "horizon"),
    [
        ("mlbits/GridWorld-v0", "russell_norvig", [-0.01, -0.01, 1, -1, -1], 100),
        ("mlbits/GridWorld-v0", "8x8", [-0.01, -0.01, 1, -1, -1], 100),
        ("mlbits/CliffWalk-v0", "cliff_walk", [-1, -1, -1, -1, -100], 200),
    ],
)
@pytest.mark.parametrize("slip", [0.25, 0.8])
def test_slips_have_their_exact_probabilities(env, name, rewards, horizon, slip):
    """By dense arrays and plain loops over the whole horizon, and the values of a fixed discount."""
    probability, reward = slippery(name, slip, rewards)
    value, discounted = np.zeros(len(reward)), np.zeros(len(reward))
    for _ in range(horizon):
        value = (reward + probability @ value).max(1)
    for _ in range(600):
        discounted = (reward + 0.9 * probability @ discounted).max(1)
    table = table_of(env, {"slip": slip} | ({"map": name} if env == "mlbits/GridWorld-v0" else {}))
    cell = table.states["cell"]
    assert np.allclose(backward_induction(table).value, value[cell], atol=1e-5 * abs(value).max())
    assert np.allclose(value_iteration(table, 0.9).value, discounted[cell], atol=1e-5 * abs(discounted).max())


# The other games


def test_bandits_pay_their_best_arm():
    for game_settings in ({}, {"arms": 50, "reward_std": 7.0}, {"kind": "bernoulli", "arms": 5}):
        game = mlbits.make_game("mlbits/Bandit-v0", **game_settings)
        table = read_table(game)
        assert table.num_states == 1
        best, mean = game.layout["means"].max(), game.layout["means"].mean()
        assert backward_induction(table).value[0] == pytest.approx(100 * best, rel=1e-6)
        assert backward_induction(table, policy=uniform_policy(table)).value[0] == pytest.approx(100 * mean, rel=1e-5)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("observation", ["index", "distraction"])
def test_a_delayed_chain_is_worth_one(noisy, observation):
    game = mlbits.make_game("mlbits/DelayedChain-v0", noisy=noisy, observation=observation, length=9)
    table = read_table(game)
    assert table.num_states == 1 + 2 * 8
    solution = backward_induction(table)
    correct = game.layout["correct_action"]
    assert solution.action_value[0].tolist() == pytest.approx([1.0, -1.0] if correct == 0 else [-1.0, 1.0])
    assert solution.policy[0] == correct


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(  # each size is compiled
    "size", [pytest.param(2, marks=pytest.mark.slow), 7, pytest.param(20, marks=pytest.mark.slow)]
)
def test_the_documented_optimum_of_deep_sea(size, stochastic):
    game = mlbits.make_game("mlbits/DeepSea-v0", size=size, stochastic=stochastic)
    assert optimum("mlbits/DeepSea-v0", size=size, stochastic=stochastic) == pytest.approx(
        game.layout["optimal_return"], abs=1e-6
    )


@st.composite
def instances(draw):
    """Small knapsacks: whole weights, values and a capacity that at least one item fits into.

    Of a few sizes, as the rules are compiled for each.
    """
    size = draw(st.sampled_from([1, 3, 7]))
    items = draw(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 30)), min_size=size, max_size=size))
    weights, values = [weight for weight, _ in items], [float(value) for _, value in items]
    return weights, values, draw(st.integers(min(weights), sum(weights) + 3))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(instances())
def test_the_optimum_of_knapsack_is_that_of_dynamic_programming(instance):
    weights, values, capacity = instance
    found = optimum("mlbits/Knapsack-v0", weights=weights, values=values, capacity=capacity, availability=1.0)
    assert found == pytest.approx(dynamic_programming(weights, values, capacity))


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(instances(), st.sampled_from([0.15, 0.5, 0.9]))
def test_the_mean_over_all_draws_of_items(instance, availability):
    """Every subset with its probability; if none that fits was drawn, one is added, drawn uniformly."""
    weights, values, capacity = instance
    fit = [item for item, weight in enumerate(weights) if weight <= capacity]
    mean = 0.0
    for there in itertools.product([False, True], repeat=len(weights)):
        share = np.prod([availability if one else 1 - availability for one in there])
        chosen = [item for item, one in enumerate(there) if one]
        sets = [chosen] if set(chosen) & set(fit) else [[*chosen, lone] for lone in fit]
        for items in sets:
            best = dynamic_programming([weights[i] for i in items], [values[i] for i in items], capacity)
            mean += share * best / len(sets)
    found = optimum("mlbits/Knapsack-v0", weights=weights, values=values, capacity=capacity, availability=availability)
    assert found == pytest.approx(mean)


def test_the_default_knapsack():
    table = table_of("mlbits/Knapsack-v0")
    assert backward_induction(table).value @ table.start == pytest.approx(65.2956, abs=1e-3)
    assert table.start.sum() == pytest.approx(1)
    records = mlbits.make_batch("mlbits/Knapsack-v0", 30, seed=1).records()
    layout = mlbits.make_game("mlbits/Knapsack-v0").layout
    found = read_table(mlbits.make_game("mlbits/Knapsack-v0"), starts=records)
    best = []
    for record in records:
        there = record["there"][:10] != 0
        best.append(dynamic_programming(layout["weights"][there], layout["values"][there], layout["capacity"]))
    assert backward_induction(found).value @ found.start == pytest.approx(np.mean(best))


@pytest.mark.parametrize(
    ("env", "wanted", "random"),
    [("FrozenLake-v1", 0.7442, 0.0139), ("CliffWalking-v1", -13, None), ("Taxi-v4", 7.93, None)],
)
def test_gymnasiums_own_tables(env, wanted, random):
    """FrozenLake within 100 steps; Taxi's mean over its 300 starts."""
    table = read_gymnasium(env)
    assert backward_induction(table).value @ table.start == pytest.approx(wanted, abs=1e-3)
    if random is not None:
        drawn = backward_induction(table, policy=uniform_policy(table))
        assert drawn.value @ table.start == pytest.approx(random, abs=1e-3)


# Games for cases that the suite's games do not cover


@rule
def dial_reset(state, params):
    state.place = 0
    state.last = 0


@rule
def dial_step(state, params, actions, rewards):
    state.place = (state.place + actions[0, 0] + 2 * actions[0, 1]) % 7
    state.last = actions[0, 0]
    rewards[0] = 1.0 if state.place == 6 else 0.0
    return False, params.cuts != 0 and state.place == 6


@rule
def dial_observe(state, params, seat, out):
    out[0] = state.place


@rule
def dial_legal(state, params, seat, out):
    for k in range(2):
        out[k] = k != state.last or state.place == 0
    for k in range(3):
        out[2 + k] = k < 2 or state.place < 3


def dial(*, cuts=False, horizon=None):
    return Game(
        name="Dial", state_fields=[("place", "i4"), ("last", "i4")],
        params=make_params([("cuts", "i4")], {"cuts": cuts}, horizon), observation_space=spaces.Discrete(7),
        action_space=spaces.MultiDiscrete([2, 3]), reset=dial_reset, step=dial_step, observe=dial_observe,
        legal=dial_legal, text=_text, draw=_draw,
    )  # fmt: skip


def test_actions_of_several_parts_under_masks():
    table = read_table(dial(horizon=3))
    assert table.actions.tolist() == [[a, b] for a in range(2) for b in range(3)]
    states = list(zip(table.states["place"].tolist(), table.states["last"].tolist(), strict=True))
    assert states[0] == (0, 0)
    for (place, last), legal in zip(states, table.legal, strict=True):
        wanted = [(a != last or place == 0) and (b < 2 or place < 3) for a in range(2) for b in range(3)]
        assert legal.tolist() == wanted
    # 0 by (1, 1) to 3, where 0 and then at most 2 more: 5, from there 1 and no more to 6.
    assert backward_induction(table).value[0] == 1
    assert table.probability.sum() == table.legal.sum()


def test_truncation_by_the_rules_ends_the_episode_but_not_the_value():
    table = read_table(dial(cuts=True))
    assert table.cut is not None
    assert table.cut.nnz > 0
    assert backward_induction(table).value[0] == 1
    endless, plain = value_iteration(table, 0.9), value_iteration(read_table(dial()), 0.9)
    assert endless.value[0] == pytest.approx(plain.value[0])
    assert endless.value[0] > 1


@rule
def clock_step(state, params, actions, rewards):
    late = state.elapsed >= 3
    state.place = (state.place + actions[0]) % 2
    rewards[0] = 1.0 if late and state.place == 1 else 0.0
    return late and uniform(state) < 0.25, False


def clock(horizon):
    return Game(
        name="Clock", state_fields=[("place", "i4"), ("last", "i4")], params=make_params([], {}, horizon),
        observation_space=spaces.Discrete(2), action_space=spaces.Discrete(2), reset=dial_reset, step=clock_step,
        observe=dial_observe, text=_text, draw=_draw,
    )  # fmt: skip


def test_time_is_part_of_the_state_if_the_rules_read_it():
    """Three idle steps, then 1 per step, each of which may be the last: 1 + 3/4 + 9/16."""
    table = read_table(clock(6))
    assert set(table.states["elapsed"].tolist()) == {0, 1, 2, 3, 4, 5}
    assert table.horizon is None
    assert backward_induction(table).value @ table.start == pytest.approx(1 + 0.75 + 0.75**2)
    with pytest.raises(GameError, match="Clock: got more than 50 states within 25 moves of 1 starts"):
        read_table(clock(None), state_limit=50)


@rule
def two_faced_step(state, params, actions, rewards):
    state.place = 1 if uniform(state) < 0.5 else 2
    return False, False


@rule
def two_faced_legal(state, params, seat, out):
    out[state.place % 2] = True


def test_a_compiled_step_that_is_not_among_the_outcomes_is_detected(monkeypatch):
    """Each of the two outcomes is left out in turn: the compiled rules reach one of them."""
    game = Game(
        name="TwoFaced", state_fields=[("place", "i4"), ("last", "i4")], params=make_params([], {}),
        observation_space=spaces.Discrete(7), action_space=spaces.Discrete(2), reset=dial_reset, step=two_faced_step,
        observe=dial_observe, legal=two_faced_legal, text=_text, draw=_draw,
    )  # fmt: skip
    assert read_table(game).probability.toarray()[0].tolist() == [0.0, 0.5, 0.5]
    steps, refused = Chance.steps, 0
    for kept in (slice(1), slice(1, 2)):
        monkeypatch.setattr(Chance, "steps", lambda self, record, action, kept=kept: steps(self, record, action)[kept])
        try:
            read_table(game)
        except GameError as error:
            assert "TwoFaced: the compiled step gave a result that is not among the outcomes" in str(error)
            refused += 1
    assert refused >= 1


# Refusals


@pytest.mark.parametrize(
    ("env", "game_settings", "message"),
    [
        ("mlbits/CartPole-v0", {}, "CartPole: reset draws the field 'x' of the state from a continuum"),
        ("test/Nim-v0", {}, "Nim: got 2 seats and discrete actions; wanted one seat and finitely many actions"),
        ("test/Point-v0", {}, "Point: got 1 seats and continuous actions"),
        ("mlbits/RandomGridWorld-v0", {}, "RandomGridWorld: reset draws one of 2,147,483,648; wanted at most 100,000"),
        ("mlbits/Knapsack-v0", {"items": 12}, "Knapsack: got more than 5,000 states within"),
        (
            "mlbits/GridWorld-v0",
            {"slip": 0.1, "map": "four_rooms"},
            "GridWorld: got more than 1,500 outcomes of chance",
        ),
        ("CartPole-v1", {}, "CartPole-v1: it has no transition table"),
    ],
)
def test_games_without_a_table_are_refused(env, game_settings, message):
    limits = {"state_limit": 5000, "outcome_limit": 1500} if env.startswith("mlbits") else {}
    with pytest.raises(GameError, match=message):
        table_of(env, game_settings, **limits)


def test_the_error_for_an_endless_game_says_how_far_it_was_enumerated():
    start = mlbits.make_batch("mlbits/CartPole-v0", 1, seed=0).records()
    with pytest.raises(
        GameError, match="CartPole: got more than 1,000 states within 9 moves of 1 starts; wanted fewer"
    ):
        read_table(mlbits.make_game("mlbits/CartPole-v0"), starts=start, state_limit=1000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": np.full((2, 2, 2), 0.6)}, "probabilities below 0 or, together, above 1"),
        ({"probability": -np.eye(2)[None].repeat(2, 1).reshape(2, 2, 2)}, "probabilities below 0"),
        ({"probability": np.zeros((2, 2, 3))}, r"probability: got shape \(2, 2, 3\); wanted \[S, A, S\]"),
        ({"reward": np.zeros(2)}, r"reward of shape \(2,\); wanted \(2, 2\)"),
        ({"reward": np.full((2, 2), np.nan)}, "a reward that is not finite"),
        ({"legal": [[True, True], [False, False]]}, "a state without a legal action"),
        ({"start": np.ones(3)}, r"start of shape \(3,\); wanted \(2,\)"),
    ],
)
def test_invalid_tables_are_refused(changes, message):
    arguments = {"probability": np.zeros((2, 2, 2)), "reward": np.zeros((2, 2))} | changes
    with pytest.raises(GameError, match=message):
        TransitionTable.from_arrays(**arguments)


def test_starts_must_be_records_of_the_game():
    with pytest.raises(GameError, match=r"starts: wanted one or more records \[N\] of GridWorld's state_dtype"):
        read_table(mlbits.make_game("mlbits/GridWorld-v0"), starts=np.zeros(3))
