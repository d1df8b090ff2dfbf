"""Playing whole episodes with fixed agents: one per copy, to its end, as a function of the seed."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents.agent import Decision
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.evals.benchmarks.stand_in_gpu import stand_in_gpu
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.finite import EvaluationWatch, NotFiniteError
from tests.games import register_test_games

register_test_games()


class Always:
    """Plays one action, and counts how often it was called with greedy."""

    def __init__(self, action):
        self.action, self.greedy = action, []

    def act(self, obs, legal_mask, generator, *, greedy=False):
        self.greedy.append(greedy)
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        action = torch.full((len(some),), self.action)
        return Decision(action, action, torch.zeros(len(some)))


def chance(env, **settings):
    game = mlbits.make_game(env, **settings)
    return RandomAgent(game.observation_space, game.action_space)


def test_returns_and_lengths_by_hand():
    settings = {"map": "S..G", "step_cost": 0.25, "horizon": 9}
    played = play_episodes(Always(1), "mlbits/GridWorld-v0", 5, seed=0, settings=settings)
    assert played.returns.tolist() == [[0.5]] * 5  # two steps at a quarter, then the goal
    assert played.lengths.tolist() == [3] * 5
    played = play_episodes(Always(3), "mlbits/GridWorld-v0", 2, seed=0, settings=settings)
    assert played.returns.tolist() == [[-2.25]] * 2  # against the wall until the time is up
    assert played.lengths.tolist() == [9, 9]


def test_every_seat_has_its_return():
    """Paper, paper, paper: nobody wins, but for the noise."""
    played = play_episodes(Always(1), "test/Throws-v0", 6, seed=0, settings={"noise": 0.0})
    assert played.returns.shape == (6, 3)
    assert played.returns.any() == np.False_
    played = play_episodes(chance("test/Nim-v0"), "test/Nim-v0", 20, seed=0)
    assert sorted(set(map(tuple, played.returns.tolist()))) == [(-1.0, 1.0), (1.0, -1.0)]


def test_each_episode_counts_once_however_short():
    """Only the first episode of each copy counts."""
    played = play_episodes(chance("test/Throws-v0"), "test/Throws-v0", 50, seed=3)
    assert len(played.lengths) == 50
    assert 1 <= played.lengths.min() < played.lengths.max() <= 10


def test_the_seed_decides():
    def play(seed):
        return play_episodes(chance("test/Throws-v0"), "test/Throws-v0", 9, seed=seed).returns.tolist()

    assert play(1) == play(1) != play(2)


def test_more_episodes_than_copies_fit_are_played_in_parts(monkeypatch):
    monkeypatch.setattr("mlbits.selfplay.episodes._COPIES_AT_ONCE", 4)
    played = play_episodes(chance("test/Throws-v0"), "test/Throws-v0", 10, seed=5, max_frames=3)
    assert played.returns.shape == (10, 3)
    assert 1 <= len(played.frames) <= 3
    first = play_episodes(chance("test/Throws-v0"), "test/Throws-v0", 4, seed=5)
    assert played.returns[:4].tolist() == first.returns.tolist()
    assert len({tuple(row) for row in played.returns.tolist()}) == 10  # no part repeats another


def test_frames_are_those_of_the_first_episode():
    settings = {"map": "S..G", "horizon": 9}
    played = play_episodes(Always(1), "mlbits/GridWorld-v0", 2, seed=0, settings=settings, max_frames=10)
    assert len(played.frames) == 3
    assert not np.array_equal(played.frames[0], played.frames[1])
    assert len(play_episodes(Always(1), "mlbits/GridWorld-v0", 2, seed=0, settings=settings, max_frames=2).frames) == 2


def test_drawing_changes_nothing():
    one = play_episodes(chance("test/Throws-v0"), "test/Throws-v0", 5, seed=1)
    two = play_episodes(chance("test/Throws-v0"), "test/Throws-v0", 5, seed=1, max_frames=5)
    assert one.returns.tolist() == two.returns.tolist()


def test_greedy_is_passed_to_the_agent():
    for greedy in (True, False):
        agent = Always(1)
        play_episodes(agent, "mlbits/GridWorld-v0", 1, seed=0, settings={"map": "S.G"}, greedy=greedy)
        assert set(agent.greedy) == {greedy}


def test_an_endless_episode_is_cut_and_counted():
    settings = {"map": "S.G", "horizon": None, "step_cost": 0.5}
    played = play_episodes(Always(3), "mlbits/GridWorld-v0", 2, seed=0, settings=settings, max_steps=50)
    assert (played.cut, played.lengths.tolist(), played.returns.tolist()) == (2, [50, 50], [[-25.0]] * 2)
    assert play_episodes(Always(1), "mlbits/GridWorld-v0", 2, seed=0, settings=settings, max_steps=50).cut == 0


class Balances:
    """Pushes CartPole's cart towards where the pole falls, on any device."""

    def act(self, obs, legal_mask, generator, *, greedy=False):
        action = (obs[:, 2] + obs[:, 3] > 0).long()
        return Decision(action, action, None)


def test_a_gpu_is_looked_at_every_32_steps_and_plays_the_cpu_s_episodes():
    wanted = play_episodes(Balances(), "mlbits/CartPole-v0", 3, seed=3, settings={"horizon": 70})
    with stand_in_gpu() as counts:
        counts.waits.clear()
        found = play_episodes(Balances(), "mlbits/CartPole-v0", 3, seed=3, settings={"horizon": 70}, device="cuda")
        looks = sum(number for place, number in counts.waits.items() if place.startswith("selfplay/finite"))
    assert wanted.lengths.max() > 64
    np.testing.assert_array_equal(found.lengths, wanted.lengths)
    np.testing.assert_array_equal(found.returns, wanted.returns)
    assert looks <= 1 + 2 + 1  # the first observations, after 32 and 64 steps, and at the end


def test_a_bad_number_between_two_looks_is_found_at_the_next():
    with stand_in_gpu():
        watch, playing = EvaluationWatch("Env-v0"), torch.ones(2, dtype=torch.bool, device="cuda")
        good, bad = torch.ones(2, 1, device="cuda"), torch.tensor([[1.0], [torch.nan]], device="cuda")
        for step in range(1, 32):
            assert watch.goes_on(good, bad if step == 5 else good, playing, step)
        with pytest.raises(NotFiniteError, match="last 32 steps"):
            watch.goes_on(good, good, playing, 32)
