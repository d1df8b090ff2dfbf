"""``mlbits reproduce diplomacy-search``: its quick form, its targets, and the estimate for a GPU."""

import pytest

from mlbits.agents.registry import make_bot
from mlbits.envs.registry import make_game
from mlbits.evals.reproductions.search import diplomacy_search
from mlbits.evals.reproductions.search.diplomacy_search import NAMES, TARGETS, reproduce
from mlbits.evals.reproductions.search.seven_seats import against_greedy, estimate
from mlbits.evals.tournament.pairings import all_against_all
from mlbits.selfplay.runs.saved_agents import read_copy


@pytest.mark.slow
def test_the_quick_form_trains_plays_and_saves(tmp_path):
    found = reproduce(quick=True, out=tmp_path)
    assert found["met"]
    rows = found["boards"]["mlbits/DiplomacyMini-v0"]
    assert [row["agent"] for row in rows["training"]] == list(NAMES)
    assert all(row["env_steps"] > 0 for row in rows["training"])
    asked = {(row["agent"], row["plays by"], row["against"]) for row in rows["opponents"]}
    assert ("fppi2", "search", "ppo") in asked
    assert ("ppo", "policy", "random") in asked
    assert len(asked) == 3 * 2 * 3 + 2
    assert {row["agent"] for row in rows["rounds"]} >= {"fppi2"}
    assert len(rows["population"]) == 9
    assert found["seven_seats"]["transitions_per_second"] > 0
    assert found["seven_powers"]["games"] == 7
    saved = sorted(path.name for path in tmp_path.iterdir())
    assert saved[0] == "DiplomacyMini-v0-equilibrium.safetensors"
    assert read_copy(tmp_path / saved[1], "mlbits/DiplomacyMini-v0", None, "cpu").rounds > 0


def rows(won=1.0, searched=0.7, later=0.4):
    opponents = [{"agent": "ibr", "plays by": "search", "against": name, "won": won} for name in TARGETS]
    return {"opponents": opponents, "search": [{"won": searched}], "rounds": [{"return_mean": later}]}


def test_each_target_counts():
    assert diplomacy_search._met(rows(), 3)
    assert not diplomacy_search._met(rows(won=0.9), 3)
    assert not diplomacy_search._met(rows(searched=0.55), 3)
    assert not diplomacy_search._met(rows(later=0.33), 3)
    assert not diplomacy_search._met(rows(later=0.4), 2)


@pytest.mark.parametrize(("entries", "seats"), [(9, 3), (9, 2)])
def test_the_population_plays_the_games_that_are_asked_for(entries, seats):
    count = diplomacy_search.games_of_pairs(1000, entries, seats, seed=0)
    assert 1000 <= len(all_against_all(entries, seats, count)) <= 1000 + 120


def test_the_estimate_is_the_slower_of_network_and_rules():
    text = estimate({"flops_a_row": 1e6}, 1000.0, 100_000.0)
    assert "The rules limit it to 5,760,000 environment steps" in text
    assert "The network limit" in estimate({"flops_a_row": 1e9}, 1000.0, 100_000.0)


@pytest.mark.slow
def test_a_greedy_bot_among_greedy_bots_takes_its_part_of_the_centres_and_a_bot_that_holds_less():
    game = make_game("mlbits/Diplomacy-v0")
    greedy, hold = (
        make_bot(name, game.observation_space, game.action_space, device="cpu", game=game)
        for name in ("diplomacy-greedy", "diplomacy-hold")
    )
    same = against_greedy(greedy, 42, 0, last_year=1902)
    assert same["low"] < 1 / 7 < same["high"]
    assert not same["met"]
    less = against_greedy(hold, 42, 0, last_year=1902)
    assert less["high"] < 1 / 7
    assert 0 < less["centers"] < same["centers"]
