"""The replay buffer for games in which seats wait for their turns: it stores decisions, and no passes."""

import dataclasses

import pytest
import torch

from mlbits.agents.agent import ReplaySpec
from mlbits.agents.dqn import DQN, DQNConfig
from mlbits.agents.memory.replay import Replay
from mlbits.envs.engine.batch import GameBatch
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.lineup import Lineup, self_play
from mlbits.selfplay.session import make_replay
from tests.agents.maths.test_open_decisions import one_seat
from tests.agents.rollouts import draw
from tests.waiting import ACTIONS, SEATS, One, Scripted, all_decisions, nim, pulse, waits, winning_moves

GAMMA = 0.5


def small(capacity=6, num_steps=3, exponent=0.0, mask=None):
    zero = torch.zeros(1, 1, dtype=torch.int64)
    return Replay(ReplaySpec(num_steps, capacity, exponent), torch.zeros(1, 1), zero, mask)


def transitions(replay, n_step=1):
    """All transitions that may be sampled: {observation: (action, reward, discount, next observation)}."""
    drawn = replay.sample(400, draw(), n_step=n_step, discount=GAMMA)
    parts = (drawn.action, drawn.reward, drawn.discount, drawn.next_obs.flatten())
    rows = zip(drawn.obs.flatten().tolist(), *(part.tolist() for part in parts), strict=True)
    return {int(obs): tuple(rest) for obs, *rest in rows}


# By hand


def test_a_decision_leads_to_the_seats_next_decision_with_all_reward_earned_until_then():
    """The seat acts at steps 0, 2 and 3, waits at 1 and 4, and the game ends at 4, on the opponent's move."""
    replay = small()
    replay.add(one_seat([1, 0, 1, 1, 0], True, [1, 2, 4, 8, -16], terminated=[4]))
    assert replay.added == 3
    assert transitions(replay) == {10: (1, 3.0, 0.5, 30.0), 30: (3, 4.0, 0.5, 40.0), 40: (4, -8.0, 0.0, 55.0)}
    # two decisions per window: 3 + 4 / 2, then the observation at step 3; 4 - 8 / 2, and the end
    two = transitions(replay, n_step=2)
    assert two == {10: (1, 5.0, 0.25, 40.0), 30: (3, 0.0, 0.0, 55.0), 40: (4, -8.0, 0.0, 55.0)}
    assert transitions(replay, n_step=3)[10] == (1, 3 + 4 / 2 - 8 / 4, 0.0, 55.0)


def test_an_open_decision_is_settled_by_a_later_rollout():
    replay = small()
    replay.add(one_seat([1, 0, 1], False, [1, 2, 4]))
    assert replay.added == 1
    assert transitions(replay) == {10: (1, 3.0, 0.5, 30.0)}
    replay.add(one_seat([0, 0, 0], False, [8, 16, 32]))
    assert replay.added == 1
    replay.add(one_seat([0, 1, 0], False, [64, 128, 256]))
    assert replay.added == 2
    found = transitions(replay)
    assert found == {10: (1, 3.0, 0.5, 30.0), 30: (3, 4 + 8 + 16 + 32 + 64, 0.5, 20.0)}
    replay.add(one_seat([0, 0, 0], False, [512, -1, 0], terminated=[1]))
    assert replay.added == 3
    assert transitions(replay)[20] == (2, 128 + 256 + 512 - 1, 0.0, 25.0)
    assert transitions(replay, n_step=3)[10] == (1, 3 + 124 / 2 + 895 / 4, 0.0, 25.0)


@pytest.mark.parametrize("acts", [False, True])
def test_a_truncated_game_leads_to_its_final_observation_if_the_seat_acts_there_and_else_is_not_sampled(acts):
    replay = small()
    replay.add(one_seat([1, 1, 0, 1], True, [1, 2, 4, 8], truncated=[2], final_active=[2] if acts else []))
    wanted = {10: (1, 1.0, 0.5, 20.0), 40: (4, 8.0, 0.5, 50.0)} | ({20: (2, 6.0, 0.5, 35.0)} if acts else {})
    assert transitions(replay) == wanted
    assert replay.added == len(wanted)
    assert transitions(replay, n_step=3)[10] == ((1, 1 + 6 / 2, 0.25, 35.0) if acts else (1, 1.0, 0.5, 20.0))


def test_with_masks_a_truncated_decision_is_not_sampled_and_others_have_the_next_decisions_mask():
    mask = torch.tensor([[1, 0], [1, 1], [0, 1], [1, 1]]).bool().view(4, 1, 1, 2)
    replay = small(mask=torch.ones(1, 1, 2, dtype=torch.bool))
    replay.add(one_seat([1, 0, 1, 0], False, [1, 2, 4, 8], truncated=[3], final_active=[3], mask=mask))
    assert replay.added == 1
    drawn = replay.sample(5, draw())
    assert drawn.mask.tolist() == [[True, False]] * 5
    assert drawn.next_mask.tolist() == [[False, True]] * 5


def test_passes_are_not_stored():
    """Twelve steps of which every second is a pass: a buffer of six steps holds all six decisions."""
    replay = small(capacity=6)
    for k in range(4):
        replay.add(one_seat([1, 0, 1] if k % 2 == 0 else [0, 1, 0], k % 2 == 1, [1, 2, 4]))
    assert replay.added == 6
    drawn = replay.sample(200, draw())
    assert sorted(set(drawn.slot.tolist())) == list(range(6))


def test_after_a_cut_of_the_stream_open_decisions_are_never_settled():
    replay = small(capacity=12)
    replay.cut()
    replay.add(one_seat([1, 1, 0], False, [1, 2, 4]))
    replay.cut()
    replay.add(one_seat([1, 0, 1], True, [8, 16, 32]))
    drawn = replay.sample(300, draw(), n_step=3, discount=GAMMA)
    rows = {
        (float(r), float(d), float(n)) for r, d, n in zip(drawn.reward, drawn.discount, drawn.next_obs, strict=True)
    }
    assert rows == {(1.0, 0.5, 20.0), (24 + 32 / 2, 0.25, 40.0), (32.0, 0.5, 40.0)}


def test_what_followed_a_decision_is_kept_when_another_start_overwrites_it():
    """The second decision is settled by the one after the window, which is never played."""
    replay = small(capacity=12)
    replay.add(one_seat([1, 1], True, [1, 2]))
    replay.cut()
    replay.add(one_seat([1, 1, 0], False, [8, 16, 32], terminated=[2]))
    drawn = replay.sample(300, draw())
    rows = {(float(o), float(r), float(n)) for o, r, n in zip(drawn.obs, drawn.reward, drawn.next_obs, strict=True)}
    assert {(10.0, 1.0, 20.0), (20.0, 2.0, 30.0), (10.0, 8.0, 20.0)} <= rows
    assert replay.added == 4


# Against a record of everything played


def windows_of(decisions, n_step):
    """{number: (action, reward, discount, next observation)} of each window of one stream, from the definition."""
    found = {}
    for k, first in enumerate(decisions):
        if first.how in ("waiting", "open"):
            continue
        reward, gamma, now = first.earned, GAMMA, k
        while now + 1 < min(k + n_step, len(decisions)) and decisions[now].how == "turn":
            if decisions[now + 1].how in ("waiting", "open"):
                break
            now += 1
            reward, gamma = reward + gamma * decisions[now].earned, gamma * GAMMA
        last = decisions[now]
        found[first.number] = (first.action, reward, 0.0 if last.how == "terminated" else gamma, last.following)
    return found


@pytest.mark.parametrize("exponent", [0.0, 0.7])
@pytest.mark.parametrize("actions", ["masked", "continuous"])
@pytest.mark.parametrize(("num_steps", "capacity", "n_step"), [(1, 3000, 1), (4, 3000, 3), (3, 150, 2), (60, 3000, 5)])
def test_exactly_the_settled_decisions_are_sampled(num_steps, capacity, n_step, actions, exponent):
    masked = actions == "masked"
    game, copies, rounds = waits(actions=actions), 5, -(-180 // num_steps)
    batch = GameBatch(game, copies, seed=3)
    spec = ReplaySpec(num_steps, capacity, exponent)
    collector, replay = Collector(batch, spec, draw()), make_replay(spec, batch)
    lineup = self_play(Scripted(spec), copies, SEATS, batch.device)
    for _ in range(rounds):
        replay.add(collector.collect(lineup)[0])
    room = capacity // (copies * SEATS)
    played = all_decisions(game, copies, 3, num_steps * rounds)
    if masked:  # the legal actions at the end of a truncated episode are not known
        played = {
            place: [d._replace(how="waiting") if d.how == "cut" else d for d in decisions]
            for place, decisions in played.items()
        }
    wanted = {}
    for place, decisions in played.items():
        kept = decisions[-room:]
        wanted |= {(place, number): rest for number, rest in windows_of(kept, n_step).items()}
    settled = sum(d.how not in ("waiting", "open") for decisions in played.values() for d in decisions)
    assert replay.added == settled
    assert len(wanted) < settled or capacity == 3000
    drawn = replay.sample(20 * len(wanted), draw(), n_step=n_step, discount=GAMMA, weight_exponent=0.5)
    found = {}
    for k in range(len(drawn.reward)):
        number, seat = (int(x) for x in drawn.obs[k])
        copy = int(drawn.slot[k]) % (copies * SEATS) // SEATS
        discount, following = float(drawn.discount[k]), int(drawn.next_obs[k, 0])
        row = (int(drawn.action[k]), float(drawn.reward[k]), discount, following if discount else None)
        assert found.setdefault(((copy, seat), number), row) == row
        if masked:
            assert drawn.mask[k].tolist() == [(a + number + seat) % 3 != 0 for a in range(ACTIONS)]
            assert drawn.mask[k, row[0]]
            if discount:
                assert drawn.next_mask[k].tolist() == [(a + following + seat) % 3 != 0 for a in range(ACTIONS)]
    assert found == wanted


@pytest.mark.parametrize("exponent", [0.0, 0.7])
def test_a_saved_state_with_open_decisions_continues_exactly(exponent):
    game = waits()
    batch, spec = GameBatch(game, 5, seed=3), ReplaySpec(2, 150, exponent)
    collector, one = Collector(batch, spec, draw()), make_replay(spec, batch)
    lineup = self_play(Scripted(spec), 5, SEATS, batch.device)
    for _ in range(20):
        one.add(collector.collect(lineup)[0])
    if exponent:
        drawn = one.sample(8, draw(1))
        one.set_priority(drawn.slot, torch.arange(8.0))
    state = one.state_dict()
    assert state["turns"][2].any()
    two = make_replay(spec, batch)
    two.load_state_dict({name: value.clone() for name, value in state.items()})
    for _ in range(7):
        rollout = collector.collect(lineup)[0]
        one.add(rollout)
        two.add(rollout)
    first, second = one.state_dict(), two.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for a, b in zip(*(replay.sample(50, draw(3), n_step=3) for replay in (one, two)), strict=True):
        assert a is None or torch.equal(a, b)


def test_if_no_seat_ever_waits_decisions_are_steps():
    """The same play, stored as a turn-based game and as a simultaneous one, gives the same transitions."""
    game, found = waits(busy=1.0, actions="continuous"), []
    for in_turns in (True, False):
        batch, spec = GameBatch(game, 5, seed=3), ReplaySpec(3, 3000)
        collector, replay = Collector(batch, spec, draw()), make_replay(spec, batch)
        lineup = self_play(Scripted(spec), 5, SEATS, batch.device)
        for _ in range(20):
            rollout = collector.collect(lineup)[0]
            assert rollout.active.all()
            if not in_turns:
                rollout = dataclasses.replace(rollout, active=None, last_active=None, final_active=None)
            replay.add(rollout)
        assert replay.added == 20 * 3 * 5 * SEATS
        drawn = replay.sample(5000, draw(), n_step=3, discount=GAMMA)
        rows = zip(drawn.obs.tolist(), drawn.slot.tolist(), drawn.reward.tolist(), drawn.discount.tolist(), strict=True)
        found.append({(*obs, slot % 15): rest for obs, slot, *rest in rows})
    assert found[0] == found[1]


# Runs


class Zero(One):
    """Always plays 0."""

    def act(self, obs, legal_mask, generator, *, greedy=False):
        decision = super().act(obs, legal_mask, generator)
        return decision._replace(action=0 * decision.action, sample=0 * decision.sample)


def test_in_turn_based_games_other_players_decisions_are_not_sampled():
    """In copies 0 to 3 the learner has seat 0, seat 1, both seats, and no seat."""
    game = pulse(horizon=7)
    batch, spec = GameBatch(game, 4, seed=0), ReplaySpec(5, 400)
    seating = torch.tensor([[0, 1], [1, 0], [0, 0], [1, 1]])
    collector, replay = Collector(batch, spec, draw()), make_replay(spec, batch)
    lineup = Lineup((One(), Zero()), seating)
    for _ in range(14):
        rollout = collector.collect(lineup)[0]
        assert not rollout.active[:, seating == 1].any()
        replay.add(rollout)
    drawn = replay.sample(500, draw(), n_step=3, discount=GAMMA)
    assert set((drawn.slot % 8).tolist()) == {0, 3, 4, 5}
    assert (drawn.action == 1).all()
    # 70 steps are ten episodes of 7, in which seat 0 moves four times and waits when the episode is truncated, and seat
    # 1 moves three times. With masks (a pass is one) neither seat's last move in a truncated episode is sampled.
    assert replay.added == 2 * 10 * 3 + 2 * 10 * 2


@pytest.mark.parametrize(
    ("head", "settings"),
    [
        ("value", {}),
        ("categorical", {"n_step": 2}),
        ("quantile", {"n_step": 2, "priority_exponent": 0.6, "double": True}),
    ],
)
def test_rewards_on_the_opponents_move_are_learned_even_without_observations(head, settings):
    """A good move is worth 1 + 1 / 2 + 1 / 4 ... = 2, any other 1 less; if passes were sampled, neither would be."""
    game = pulse(shown=False)
    config = DQNConfig(
        num_steps=4, learning_starts=100, buffer_size=2000, discount=0.5, head=head, target_every=20,
        learning_rate=5e-3, replay_ratio=0.25, hidden=(16,), v_min=0.0, v_max=3.0, atoms=11, epsilon_end=0.2,
        **settings,
    )  # fmt: skip
    batch = GameBatch(game, 8, seed=0)
    agent = DQN(config, game.observation_space, game.action_space)
    collector, replay = Collector(batch, agent.experience, draw(1)), make_replay(agent.experience, batch)
    lineup, shuffles = self_play(agent, 8, 2, batch.device), draw(2)
    for k in range(60):
        replay.add(collector.collect(lineup)[0])
        agent.learn(replay, k / 60, shuffles)
    values = agent.values(torch.tensor([0]))[0]
    assert values.tolist() == pytest.approx([1.0, 2.0], abs=0.25)
    assert replay.added == 60 * 4 * 8 - 8  # one move per step; the last one of each copy is open


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_dqn_finds_all_nine_winning_moves_of_nim_with_twelve_stones(seed):
    """Both players see only the stones. With passes sampled as moves it found 4 to 6 of them, and V(1) = 0.2."""
    game = nim(stones=12)
    config = DQNConfig(
        num_steps=4, learning_starts=500, buffer_size=10_000, discount=1.0, target_every=50, learning_rate=2e-3,
        hidden=(64,), epsilon_end=0.2,
    )  # fmt: skip
    batch = GameBatch(game, 8, seed=seed)
    agent = DQN(config, game.observation_space, game.action_space, seed=seed)
    collector, replay = Collector(batch, agent.experience, draw(seed + 1)), make_replay(agent.experience, batch)
    lineup, shuffles = self_play(agent, 8, 2, batch.device), draw(seed + 2)
    for k in range(500):
        replay.add(collector.collect(lineup)[0])
        agent.learn(replay, k / 500, shuffles)
    assert winning_moves(agent, 12) == 9
    assert float(agent.state_values(torch.tensor([1]))) == pytest.approx(1.0, abs=0.1)
