"""Collecting: a rollout holds what was played, row by row, and episodes are counted as by a slow loop."""

from typing import ClassVar

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents.agent import Decision, ReplaySpec, RolloutSpec
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.envs.core.errors import GameError
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.lineup import Lineup, against, self_play
from tests.games import register_test_games

register_test_games()
WINDOW = 16


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


class Player:
    """Plays the legal action with its number, and marks its decisions with its number."""

    experience: ClassVar[RolloutSpec] = RolloutSpec(WINDOW, whole_episodes=False)

    def __init__(self, number):
        self.number, self.rows = number, []

    def act(self, obs, legal_mask, generator, *, greedy=False):
        self.rows.append(obs.clone())
        action = torch.full((len(obs),), self.number, dtype=torch.int64)
        if legal_mask is not None:  # a different legal action for each player, where there are several
            order = legal_mask.float().cumsum(-1) * legal_mask
            wanted = 1 + self.number % legal_mask.sum(-1, keepdim=True)
            action = (order == wanted).float().argmax(-1)
        return Decision(action, action, torch.full((len(obs),), -1.0 - self.number))


def collector_of(game_id, spec=None, num_envs=7, **settings):
    batch = mlbits.make_batch(game_id, num_envs, seed=3, illegal="error", **settings)
    spec = spec or RolloutSpec(WINDOW, whole_episodes=False)
    return Collector(batch, spec, draw()), mlbits.make_batch(game_id, num_envs, seed=3, **settings)


def replay(twin, rollout, played=None):
    """Step a second batch with the same actions and compare everything in the rollout."""
    for t in range(rollout.carried is not None, len(rollout.reward)):  # what was carried over is no step
        compare(pick(rollout.obs, t), twin.obs)
        if twin.legal_mask is not None:
            assert torch.equal(rollout.legal_mask[t], twin.legal_mask)
        step = twin.step(rollout.sample[t] if played is None else played(rollout.sample[t]))
        assert torch.equal(rollout.reward[t], step.reward)
        assert torch.equal(rollout.terminated[t], step.terminated)
        ended = step.terminated | step.truncated
        compare(pick(pick(rollout.final_obs, t), ended), pick(step.final_obs, ended))
        yield t, step


def pick(value, index):
    return {key: part[index] for key, part in value.items()} if isinstance(value, dict) else value[index]


def compare(one, two):
    for a, b in [(one[key], two[key]) for key in one] if isinstance(one, dict) else [(one, two)]:
        assert torch.equal(a, b)


def slow_episodes(windows, owned):
    """Returns and lengths by adding up one step after another; owned [B, P] are the seats whose rewards count."""
    found, total, length = [], np.zeros(owned.shape), np.zeros(len(owned), int)
    for rollout in windows:
        ended = (rollout.terminated | rollout.truncated).numpy()
        for t, reward in enumerate(rollout.reward.double().numpy()):
            total, length = total + reward, length + (t > 0 or rollout.carried is None)
            for b in np.flatnonzero(ended[t]):
                found.append((total[b][owned[b]].mean() if owned[b].any() else 0.0, length[b]))
                total[b], length[b] = 0, 0
    return found


def clone(rollout):
    """Copy a rollout, since the next one overwrites the collector's memory."""
    fields = {name: getattr(rollout, name) for name in type(rollout).__slots__}
    copied = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in fields.items()}
    return type(rollout)(**copied)


def seats(num_envs, num_seats, players, seed=1):
    seating = torch.randint(players, (num_envs, num_seats), generator=draw(seed))
    seating[0] = 0  # the learner has every seat of copy 0, and none of copy 1
    seating[1] = players - 1
    return seating


@pytest.mark.parametrize(
    ("game_id", "players"),
    [
        ("test/Throws-v0", 1),
        ("test/Throws-v0", 3),
        ("test/Nim-v0", 1),
        ("test/Nim-v0", 2),
        ("test/Solitaire-v0", 1),
    ],
)
def test_a_rollout_holds_what_was_played(game_id, players):
    collector, twin = collector_of(game_id)
    agents = tuple(Player(k) for k in range(players))
    lineup = Lineup(agents, seats(7, twin.num_seats, players))
    windows = []
    for _ in range(3):
        rollout, episodes, steps = collector.collect(lineup)
        assert steps == WINDOW * 7
        for t, step in replay(twin, rollout):
            assert torch.equal(rollout.truncated[t], step.truncated)
        acts = torch.ones(7, twin.num_seats, dtype=torch.bool) if twin.active is None else twin.active
        compare(pick(rollout.last_obs, acts), pick(twin.obs, acts))
        windows.append(clone(rollout))
        found = slow_episodes(windows, (lineup.seating == 0).numpy())[-len(episodes.returns) or None :]
        assert np.allclose(episodes.returns, [mean for mean, _ in found])
        assert episodes.lengths.tolist() == [length for _, length in found]
    assert len(slow_episodes(windows, (lineup.seating == 0).numpy())) > 7  # episodes did end, in every window


def test_each_learner_of_a_league_counts_the_returns_of_its_own_seats():
    """Copies 0 and 1 are the first learner's, 2 and 3 the second's; player 2 is neither's."""
    collector, _ = collector_of("test/Throws-v0", num_envs=4)
    seating, owner = torch.tensor([[0, 1, 2], [0, 0, 1], [0, 1, 2], [1, 0, 1]]), torch.tensor([0, 0, 1, 1])
    lineup = Lineup(tuple(Player(k) for k in range(3)), seating, owner)
    rollout, episodes, _ = collector.collect(lineup)
    assert torch.equal(rollout.active, (seating == owner[:, None]).expand(WINDOW, 4, 3))
    assert sorted(set(episodes.owner.tolist())) == [0, 1]
    counted = {}
    for k, number in enumerate(episodes.owner):
        place = next(b for b in range(4) if episodes.seating[k].tolist() == seating[b].tolist() and owner[b] == number)
        own = [p for p in range(3) if seating[place, p] == number]
        assert episodes.returns[k] == pytest.approx(np.mean([episodes.seat_returns[k][p] for p in own]))
        others = np.mean([episodes.seat_returns[k][p] for p in range(3) if p not in own])
        counted[place] = abs(episodes.returns[k] - others)
    assert set(counted) == {0, 1, 2, 3}
    assert min(counted.values()) > 1e-3  # to take another's for one's own would be seen


def test_every_player_decides_only_for_its_rows():
    collector, _ = collector_of("test/Throws-v0")
    agents, seating = tuple(Player(k) for k in range(3)), seats(7, 3, 3)
    rollout, _, _ = collector.collect(Lineup(agents, seating))
    wanted = seating.expand(WINDOW, 7, 3)
    assert torch.equal(rollout.sample, wanted)
    assert torch.equal(rollout.log_prob, -1.0 - wanted)
    for number, agent in enumerate(agents):
        rows = rollout.obs[:, seating == number]
        assert torch.equal(torch.stack(agent.rows), rows)


def test_only_the_learners_seats_are_active():
    collector, _ = collector_of("test/Throws-v0")
    seating = seats(7, 3, 3)
    rollout, _, _ = collector.collect(Lineup(tuple(Player(k) for k in range(3)), seating))
    assert torch.equal(rollout.active, (seating == 0).expand(WINDOW, 7, 3))
    alone, _ = collector_of("test/Throws-v0")
    assert alone.collect(self_play(Player(0), 7, 3, torch.device("cpu")))[0].active is None


@pytest.mark.parametrize("players", [1, 2])
def test_seats_that_wait_for_their_turn_are_not_active(players):
    collector, twin = collector_of("test/Nim-v0")
    seating = seats(7, 2, players)
    rollout, _, _ = collector.collect(Lineup(tuple(Player(k) for k in range(players)), seating))
    played, ended, before = [], [], twin.active.clone()
    for _, step in replay(twin, rollout):
        played.append(before & (seating == 0))
        ended.append((step.terminated | step.truncated).clone())
        before = twin.active.clone()
    for b, p in np.ndindex(7, 2):  # but for the last decision of a seat that waits at the window's edge
        turns = [t for t in range(WINDOW) if played[t][b, p]]
        if turns and not before[b, p] and not any(end[b] for end in ended[turns[-1] :]):
            turns.pop()
        assert rollout.active[:, b, p].nonzero().flatten().tolist() == turns


@pytest.mark.parametrize("players", [1, 2])
def test_replay_rollouts_have_inactive_passes_and_last_active(players):
    batch, twin = (mlbits.make_batch("test/Nim-v0", 7, seed=3, horizon=5) for _ in range(2))
    collector, seating = Collector(batch, ReplaySpec(4, 1000), draw()), seats(7, 2, players)
    lineup = Lineup(tuple(Player(k) for k in range(players)), seating)
    cuts = 0
    for _ in range(5):
        rollout, _, _ = collector.collect(lineup)
        before = twin.active.clone()
        for t, step in replay(twin, rollout):
            assert torch.equal(rollout.active[t], before & (seating == 0))
            cut = step.truncated & ~step.terminated
            assert torch.equal(rollout.final_active[t][cut], ~before[cut])  # in turn: who moved would have waited
            before, cuts = twin.active.clone(), cuts + int(cut.sum())
        assert torch.equal(rollout.last_active, twin.active)
        assert (rollout.active.sum(-1) == 1).all() or players > 1
    assert cuts > 5


def test_whole_episodes_are_reset_and_count_once():
    spec = RolloutSpec(60, whole_episodes=True)
    collector, _ = collector_of("test/Throws-v0", spec, horizon=9)
    lineup = self_play(Player(1), 7, 3, torch.device("cpu"))
    previous = None
    for _ in range(2):
        rollout, episodes, steps = collector.collect(lineup)
        ended = rollout.terminated | rollout.truncated
        first = [int(column.nonzero()[0]) for column in ended.T]
        assert len(rollout.reward) == max(first) + 1 <= 9  # it stops once the last copy is done
        assert steps == 7 * len(rollout.reward)
        for b, end in enumerate(first):
            assert rollout.active[: end + 1, b].all()
            assert not rollout.active[end + 1 :, b].any()
        assert sorted(episodes.lengths) == sorted(end + 1 for end in first)
        totals = [float(rollout.reward[: end + 1, b].double().sum(0).mean()) for b, end in enumerate(first)]
        assert np.allclose(sorted(episodes.returns), sorted(totals))
        assert rollout.obs[0].sum() == 0  # nothing has been thrown yet
        assert previous is None or not torch.equal(rollout.reward[0], previous)
        previous = rollout.reward[0].clone()


def test_episodes_longer_than_allowed_are_cut_as_truncated():
    spec = RolloutSpec(4, whole_episodes=True)
    collector, _ = collector_of("test/Throws-v0", spec, end=0.0, horizon=None)
    rollout, episodes, _ = collector.collect(self_play(Player(2), 7, 3, torch.device("cpu")))
    assert not rollout.terminated.any()
    assert rollout.truncated.tolist() == [[False] * 7] * 3 + [[True] * 7]
    assert rollout.active.all()
    assert episodes.lengths.tolist() == [4] * 7
    assert torch.equal(rollout.final_obs[3], rollout.last_obs)
    assert torch.equal(rollout.last_obs[:, :, 2], torch.ones(7, 3, dtype=torch.int8))  # the last throw


def test_a_real_end_is_not_overwritten_by_the_truncation():
    spec = RolloutSpec(6, whole_episodes=True)
    collector, twin = collector_of("test/Throws-v0", spec, num_envs=64, end=0.2, horizon=None)
    twin.reset()  # the collector starts its episodes anew
    rollout, _, _ = collector.collect(self_play(Player(2), 64, 3, torch.device("cpu")))
    for t, step in replay(twin, rollout):
        if t < 5:
            assert torch.equal(rollout.truncated[t], step.truncated)
    over = rollout.terminated[:5].any(0)
    last = rollout.truncated[5]
    assert over.any()
    assert torch.equal(last, ~over & ~rollout.terminated[5])


def test_continuous_actions_are_kept_as_they_were_drawn():
    collector, twin = collector_of("test/Point-v0")
    agent = PPO(PPOConfig(log_std=1.0), twin.observation_space, twin.action_space)
    rollout, _, _ = collector.collect(self_play(agent, 7, 1, torch.device("cpu")))
    assert rollout.sample.abs().max() > 1  # beyond the bounds, where the environment gets them clipped
    for _ in replay(twin, rollout, lambda sample: sample.clamp(-1, 1)):
        pass


def test_dict_observations_and_multi_discrete_actions_are_collected():
    collector, twin = collector_of("test/Signs-v0")
    agent = RandomAgent(twin.observation_space, twin.action_space)
    rollout, _, _ = collector.collect(self_play(agent, 7, 1, torch.device("cpu")))
    for _ in replay(twin, rollout):
        pass
    compare(rollout.last_obs, twin.obs)


def test_episodes_under_way_are_saved():
    lineup = self_play(Player(1), 7, 3, torch.device("cpu"))
    one, _ = collector_of("test/Throws-v0")
    one.collect(lineup)
    two, _ = collector_of("test/Throws-v0")
    two.batch.set_state(one.batch.state())
    two.load_state_dict(one.state_dict())
    first, second = one.collect(lineup)[1], two.collect(lineup)[1]
    assert first.returns.tolist() == second.returns.tolist()
    assert first.lengths.tolist() == second.lengths.tolist()


def test_a_wrapped_environment_is_collected_too():
    batch, twin = open_batch("CartPole-v1", 4, seed=5), open_batch("CartPole-v1", 4, seed=5)
    collector = Collector(batch, RolloutSpec(60, whole_episodes=False), draw())
    agent = RandomAgent(batch.observation_space, batch.action_space)
    rollout, episodes, _ = collector.collect(self_play(agent, 4, 1, torch.device("cpu")))
    for _ in replay(twin, rollout):
        pass
    assert len(episodes.returns) == int((rollout.terminated | rollout.truncated).sum()) > 4
    assert episodes.returns.tolist() == episodes.lengths.tolist()  # a point a step


def test_a_rollout_that_does_not_fit_into_memory_is_refused():
    batch = mlbits.make_batch("mlbits/CartPole-v0", 1)
    with pytest.raises(GameError, match="does not fit into memory"):
        Collector(batch, RolloutSpec(2**50, whole_episodes=False), draw())


def trained_against(opponent, game_id, iterations, **settings):
    """Train PPO in one seat of a game against fixed opponents; returns the learner's mean return in each rollout."""
    batch = mlbits.make_batch(game_id, 64, seed=0, illegal="error")
    agent = PPO(PPOConfig(hidden=(32,), **settings), batch.observation_space, batch.action_space)
    lineup = against(agent, [(opponent(batch), 1.0)], 64, batch.num_seats, batch.device)
    collector, shuffles, means = Collector(batch, agent.experience, draw(1)), draw(2), []
    for _ in range(iterations):
        rollout, episodes, _ = collector.collect(lineup)
        agent.learn(rollout, 0.0, shuffles)
        means.append(float(episodes.returns.mean()))
    return means


def test_a_learner_beats_random_play():
    """In turn and under a mask, from its own seat's reward: over ten seeds it ended between 0.36 and 0.46."""

    def chance(batch):
        return RandomAgent(batch.observation_space, batch.action_space)

    means = trained_against(chance, "test/Nim-v0", 40, num_steps=16, learning_rate=5e-3, discount=1.0)
    assert abs(means[0]) < 0.2
    assert np.mean(means[-10:]) > 0.25


def test_a_learner_finds_the_best_response_to_fixed_players():
    """Paper against two rocks wins twice a step, in six or seven steps an episode."""
    means = trained_against(lambda _: Player(0), "test/Throws-v0", 20, num_steps=16, learning_rate=5e-3)
    assert abs(means[0]) < 3
    assert np.mean(means[-5:]) > 10
