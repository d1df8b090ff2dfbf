"""Open decisions: each is learned from once, with all of its reward, wherever a window ends."""

import dataclasses

import pytest
import torch

from mlbits.agents.agent import Rollout, RolloutSpec
from mlbits.agents.maths.open_decisions import leave_out_open
from mlbits.agents.maths.returns import gae, next_values
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.agents.reinforce import Reinforce, ReinforceConfig
from mlbits.agents.trpo import TRPO, TRPOConfig
from mlbits.envs.engine.batch import GameBatch
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session
from tests.agents.rollouts import draw
from tests.games import register_test_games
from tests.waiting import One, Scripted, all_decisions, nim, pulse, waits, winning_moves

register_test_games()

# By hand


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1)


def one_seat(active, last_active, reward, terminated=(), truncated=(), final_active=(), mask=None):
    """One stream with observations 10, 20, ..., 5 more for an episode's last, and actions 1, 2, ..."""
    steps = len(active)
    number = torch.arange(steps) + 1
    return Rollout(
        obs=10.0 * number.view(-1, 1, 1), last_obs=torch.full((1, 1), 10.0 * (steps + 1)),
        final_obs=10.0 * number.view(-1, 1, 1) + 5, sample=number.view(-1, 1, 1), log_prob=-number.view(-1, 1, 1) / 8,
        reward=column(*reward), terminated=torch.tensor([[t in terminated] for t in range(steps)]),
        truncated=torch.tensor([[t in truncated] for t in range(steps)]), legal_mask=mask,
        active=torch.tensor(active).bool().view(-1, 1, 1), last_active=torch.tensor([[bool(last_active)]]),
        last_mask=None if mask is None else torch.ones(1, 1, mask.shape[-1], dtype=torch.bool),
        final_active=torch.tensor([t in final_active for t in range(steps)]).view(-1, 1, 1),
    )  # fmt: skip


def test_a_memory_goes_with_its_decision():
    """The open decision is carried with what was remembered before it; one that a cut leaves open gives its memory to
    the end to which the decision before it leads."""
    memory = 100.0 * (torch.arange(4) + 1).view(4, 1, 1, 1)
    with_memory = {"memory": memory, "last_memory": memory[0] + 450, "final_memory": memory + 50}
    rollout = dataclasses.replace(one_seat([1, 0, 1, 0], False, [1, 2, 4, 8]), **with_memory)
    settled, left = leave_out_open(rollout)
    assert (left.memory.item(), settled.last_memory.item()) == (300, 300)
    cut = dataclasses.replace(one_seat([1, 0, 1, 0], True, [1, 2, 4, 8], truncated=(3,)), **with_memory)
    settled, left = leave_out_open(cut)
    assert settled.final_memory.flatten().tolist() == [150, 250, 350, 300]
    assert settled.final_obs[3].item() == 30
    assert settled.last_memory.item() == 550


def test_a_waiting_seats_last_decision_moves_to_the_next_rollout():
    """It decides in steps 0 and 2 and waits after step 3: the second is open, has earned 4 + 8, and the first leads to
    what it saw then."""
    mask = torch.tensor([[1, 0], [1, 1], [0, 1], [1, 0]]).bool().view(4, 1, 1, 2)
    settled, left = leave_out_open(one_seat([1, 0, 1, 0], False, [1, 2, 4, 8], mask=mask))
    assert settled.active.flatten().tolist() == [True, False, False, False]
    assert settled.reward.flatten().tolist() == [1, 2, 0, 0]
    assert settled.last_obs.item() == 30
    assert settled.last_mask.flatten().tolist() == [False, True]
    assert left.where.item()
    assert (left.obs.item(), left.sample.item(), left.log_prob.item(), left.reward.item()) == (30, 3, -3 / 8, 12)
    assert left.legal_mask.flatten().tolist() == [False, True]


def test_a_seat_that_acts_after_the_window_has_no_open_decision():
    rollout = one_seat([1, 0, 1, 0], True, [1, 2, 4, 8])
    settled, left = leave_out_open(rollout)
    assert torch.equal(settled.active, rollout.active)
    assert torch.equal(settled.reward, rollout.reward)
    assert settled.last_obs.item() == 50
    assert not left.where.any()


def test_rewards_before_any_decision_are_not_carried():
    settled, left = leave_out_open(one_seat([1, 0, 0, 0], False, [1, 2, 4, 8], terminated=[1]))
    assert settled.active.flatten().tolist() == [True, False, False, False]
    assert settled.reward.flatten().tolist()[:2] == [1, 2]
    assert not left.where.any()
    assert left.reward.item() == 0


@pytest.mark.parametrize("acts", [False, True])
def test_a_cut_while_the_seat_waits_drops_its_last_decision(acts):
    """Cut in step 2: where it would have waited there, the decision of step 1 has no outcome, and that of step 0 leads
    to what was seen in step 1; where it would have acted, all stays."""
    rollout = one_seat([1, 1, 0, 1], True, [1, 2, 4, 8], truncated=[2], final_active=[2] if acts else [])
    settled, left = leave_out_open(rollout)
    assert settled.active.flatten().tolist() == [True, acts, False, True]
    assert settled.reward.flatten().tolist() == ([1, 2, 4, 8] if acts else [1, 0, 0, 8])
    assert settled.final_obs[2].item() == (35 if acts else 20)
    assert not left.where.any()


def test_a_terminated_game_settles_all_decisions_even_if_also_truncated():
    rollout = one_seat([1, 1, 0, 0], False, [1, 2, 4, 8], terminated=[3], truncated=[3])
    settled, left = leave_out_open(rollout)
    assert torch.equal(settled.active, rollout.active)
    assert torch.equal(settled.reward, rollout.reward)
    assert not left.where.any()


def test_nothing_changes_if_every_seat_always_acts():
    rollout = dataclasses.replace(one_seat([1, 1], True, [1, 2]), last_active=None, final_active=None)
    assert leave_out_open(rollout) == (rollout, None)


# Against all that was played


def windows(game, num_steps, count, num_envs=5, seed=3):
    """Some rollouts of a scripted player, and the collector."""
    batch, player = GameBatch(game, num_envs, seed=seed), Scripted()
    collector = Collector(batch, RolloutSpec(num_steps, whole_episodes=False), draw())
    lineup = self_play(player, num_envs, game.seats, batch.device)
    for _ in range(count):
        yield collector.collect(lineup)[0]


def settled_of(rollout):
    """By place (copy, seat): number, action, signature, earned, next observation, kind; read along the rollout."""
    steps, found = len(rollout.reward), []
    for t, b, p in rollout.active.nonzero().tolist():
        earned, now = 0.0, t
        while True:
            earned += float(rollout.reward[now, b, p])
            if rollout.terminated[now, b]:
                following, how = None, "terminated"
            elif rollout.truncated[now, b]:
                following, how = int(rollout.final_obs[now, b, p, 0]), "cut"
            elif now + 1 == steps:
                following, how = int(rollout.last_obs[b, p, 0]), "turn"
            elif rollout.active[now + 1, b, p]:
                following, how = int(rollout.obs[now + 1, b, p, 0]), "turn"
            else:
                now += 1
                continue
            break
        number = int(rollout.obs[t, b, p, 0])
        assert rollout.log_prob[t, b, p] == pytest.approx(-number / 1000 - p)
        found.append(((b, p), (number, int(rollout.sample[t, b, p]), earned, following, how)))
    return found


@pytest.mark.parametrize("actions", ["masked", "discrete", "continuous"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 8, 40])
def test_every_decision_is_in_exactly_one_rollout_with_all_its_reward(num_steps, actions):
    """Three seats that act now and then; a decision that was cut while its seat waited is in none, and the one before
    it leads to it all the same."""
    game, count = waits(actions=actions), -(-240 // num_steps)
    wanted = all_decisions(game, 5, 3, num_steps * count)
    found = {place: [] for place in wanted}
    for rollout in windows(game, num_steps, count):
        for place, decision in settled_of(rollout):
            found[place].append(decision)
        if actions != "continuous":
            seen = rollout.legal_mask[rollout.active]
            assert seen.gather(1, rollout.sample[rollout.active][:, None]).all()
    kinds = set()
    for place, decisions in wanted.items():
        listed = [decision for decision in decisions if decision.how not in ("waiting", "open")]
        kinds |= {decision.how for decision in decisions}
        assert len(found[place]) == len(listed)
        by_number = {decision.number: decision for decision in decisions}
        for got, want in zip(found[place], listed, strict=True):
            if got[4] == "cut" and want.how == "turn":  # it leads to one that was cut while waiting
                assert by_number[want.following].how == "waiting"
                assert got[:4] == want[:4]
            else:
                assert got == tuple(want)
    assert kinds >= {"turn", "terminated", "cut", "waiting"}


def test_a_row_is_added_in_front_only_if_a_seat_waits():
    first, *others = windows(waits(busy=1.0, end=0.0, cut=0.0), 4, 3)
    assert all(rollout.reward.shape == (4, 5, 3) and rollout.carried is None for rollout in (first, *others))
    assert first.active.all()
    first, second = windows(waits(busy=0.3), 2, 2)
    assert (first.reward.shape, first.carried) == ((2, 5, 3), None)
    assert second.reward.shape == (3, 5, 3)
    assert second.carried.any()
    assert not (second.active[0] & ~second.carried).any()
    part = second.of_copies(1, 3)
    assert torch.equal(part.carried, second.carried[1:3])


def test_the_open_decisions_are_saved():
    game = waits()
    one, two = (Collector(GameBatch(game, 5, seed=3), RolloutSpec(3, whole_episodes=False), draw()) for _ in range(2))
    lineup = self_play(Scripted(), 5, 3, one.batch.device)
    one.collect(lineup)
    assert one.state_dict()["open.where"].any()
    two.batch.set_state(one.batch.state())
    two.load_state_dict(one.state_dict())
    first, second = one.collect(lineup)[0], two.collect(lineup)[0]
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if field.name == "final_obs":  # stale where no episode ended
            ended = first.terminated | first.truncated
            a, b = a[ended], b[ended]
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def test_open_decisions_of_a_reset_learner_are_dropped():
    game = waits(end=0.0, cut=0.0)
    collector = Collector(GameBatch(game, 5, seed=3), RolloutSpec(3, whole_episodes=False), draw())
    lineup = self_play(Scripted(), 5, 3, collector.batch.device)
    collector.collect(lineup)
    carried = collector.state_dict()["open.where"]
    assert carried[:2].any()
    assert carried[2:].any()
    collector.forget_open(0, 2)
    assert torch.equal(collector.state_dict()["open.where"], carried & (torch.arange(5) >= 2)[:, None])


def test_a_reset_exploiter_does_not_learn_from_earlier_decisions():
    """Its own copies, 8 to 15, have no open decisions any more; the main agent's have."""
    run = {"num_envs": 16, "device": "cpu", "pool": "league", "main_exploiters": 1, "league_exploiters": 0}
    settings = {"num_steps": 3, "hidden": [4], "minibatches": 1}
    session = open_session(resolve("ppo", "test/Nim-v0", preset="none", run=run, agent_settings=settings))
    session.collect()
    before = session.collector.state_dict()["open.where"]
    assert before[8:].any()
    session.opponents._restart(1, 0)
    after = session.collector.state_dict()["open.where"]
    assert not after[8:].any()
    assert before[:8].any()
    assert torch.equal(after[:8], before[:8])


# What is learned from them


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 8, 32, 128])
def test_the_value_of_reward_two_per_decision_is_twenty(num_steps, gae_lambda):
    """Two seats in turn, 2 for each decision a tick later, gamma 0.9: 2 / (1 - 0.9), in whatever windows it is played.

    Without a network: V is one number for the observation at which seats act, the only one that is ever learned; the
    other, at which they wait, stays at a number that would bias it. The mean target is linear in V, which gives the
    V at which value and target are equal.
    """
    batch = GameBatch(pulse(pay=2.0), 2, seed=0)
    collector = Collector(batch, RolloutSpec(num_steps, whole_episodes=False), draw())
    lineup = self_play(One(), 2, 2, batch.device)
    for _ in range(3):
        collector.collect(lineup)  # the first move of all has none before it to be paid for
    for _ in range(3):
        rollout, _, _ = collector.collect(lineup)
        assert (rollout.obs[rollout.active] == 1).all()
        targets = []
        for number in (0.0, 1.0):
            table = torch.tensor([-1000.0, number], dtype=torch.float64)
            value = table[rollout.obs]
            ends = rollout.terminated, rollout.truncated
            following = next_values(value, table[rollout.last_obs], value, *ends)
            advantage = gae(
                rollout.reward.double(), value, following, *ends,
                discount=0.9, gae_lambda=gae_lambda, active=rollout.active,
            )  # fmt: skip
            targets.append(float((advantage + value)[rollout.active].mean()))
        slope = targets[1] - targets[0]
        assert slope < 1  # so that repeating the update converges to the value that equals its target
        assert targets[0] / (1 - slope) == pytest.approx(20.0, abs=1e-9)


def taught(agent, game, iterations, num_envs, seed=0):
    batch = GameBatch(game, num_envs, seed=seed)
    collector, shuffles = Collector(batch, agent.experience, draw(seed + 1)), draw(seed + 2)
    for iteration in range(iterations):
        rollout, _, _ = collector.collect(self_play(agent, num_envs, game.seats, batch.device))
        agent.learn(rollout, iteration / iterations, shuffles)
    return agent


SMALL = {"hidden": (16,), "discount": 0.9}
LATE = {
    "ppo": lambda seed, steps: PPO(
        PPOConfig(num_steps=steps, minibatches=1, learning_rate=0.01, **SMALL), *SPACES, seed=seed
    ),
    "trpo": lambda seed, steps: TRPO(TRPOConfig(num_steps=steps, target_kl=0.05, **SMALL), *SPACES, seed=seed),
    "reinforce": lambda seed, steps: Reinforce(
        ReinforceConfig(returns="gae", num_steps=steps, learning_rate=0.01, **SMALL), *SPACES, seed=seed
    ),
}
SPACES = (pulse().observation_space, pulse().action_space)


def probability_of_good(name, num_steps, seed, shown):
    agent = taught(LATE[name](seed, num_steps), pulse(shown=shown), 60, 64, seed)
    return float(agent.action_probabilities(torch.tensor([int(shown)]), None)[0, 1])


@pytest.mark.parametrize("name", LATE)
def test_delayed_rewards_are_learned_in_windows_of_one_step(name):
    assert probability_of_good(name, 1, 0, shown=False) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("name", LATE)
def test_delayed_rewards_are_learned_for_any_seed(name, shown, num_steps, seed):
    assert probability_of_good(name, num_steps, seed, shown) > 0.95


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_ppo_in_windows_of_three_steps_finds_all_winning_moves_of_nim(seed):
    """Both players only see the stones; a seat that waits after the window must not take them for its own turn."""
    game = nim(stones=12)
    config = PPOConfig(num_steps=3, learning_rate=3e-3, discount=1.0, hidden=(32,))
    agent = taught(PPO(config, game.observation_space, game.action_space, seed=seed), game, 100, 64, seed)
    assert winning_moves(agent, 12) == 9
    assert float(agent.state_values(torch.tensor([1]))) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", LATE)
def test_nothing_is_learned_from_a_rollout_without_settled_decisions(name):
    """The first window of one step of a turn-based game: the seat that moved waits."""
    agent = LATE[name](0, 1)
    batch = GameBatch(pulse(), 4, seed=0)
    rollout, _, _ = Collector(batch, agent.experience, draw()).collect(self_play(agent, 4, 2, batch.device))
    assert not rollout.active.any()
    before = {key: value.clone() for key, value in agent.state_dict().items()}
    assert agent.learn(rollout, 0.0, draw()) == {}
    assert all(torch.equal(value, before[key]) for key, value in agent.state_dict().items())
