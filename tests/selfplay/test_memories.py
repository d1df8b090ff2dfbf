"""Memories: a row for each seat of each copy, which moves on only where the seat acts and ends with the episode."""

import itertools
from typing import ClassVar

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents.agent import AgentError, Decision, RolloutSpec, memory_size
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.lineup import against, decide, self_play
from mlbits.selfplay.memories import Memories
from mlbits.selfplay.recording import record
from tests.games import register_test_games

register_test_games()


class Counter(RandomAgent):
    """Plays at random; remembers how many decisions it has made in this episode, and how often it was asked."""

    experience: ClassVar[RolloutSpec] = RolloutSpec(16, whole_episodes=False)
    memory_size = 2

    def act(self, obs, legal_mask, generator, *, greedy=False, memory):
        made = super().act(obs, legal_mask, generator, greedy=greedy)
        self.seen = memory.clone()
        return Decision(made.action, made.sample, torch.zeros(len(memory)), memory=memory + torch.tensor([1.0, 10.0]))


def counter(batch):
    return Counter(batch.observation_space, batch.action_space)


def collector_of(game_id, whole=False, num_envs=5):
    batch = mlbits.make_batch(game_id, num_envs, seed=3)
    return Collector(batch, RolloutSpec(16, whole_episodes=whole), torch.Generator().manual_seed(0)), batch


def counted(rollout, count):
    """What a counter remembers before each step, at the end of each episode and after the last step, by a slow loop."""
    before, final = torch.zeros(rollout.reward.shape), torch.zeros(rollout.reward.shape)
    for t in range(len(rollout.reward)):
        before[t] = count
        active = torch.ones_like(count) if rollout.active is None else rollout.active[t]
        count = count + active.float()
        final[t] = count
        count = count * ~(rollout.terminated | rollout.truncated)[t][:, None]
    return before, final, count


@pytest.mark.parametrize("game_id", ["mlbits/CartPole-v0", "test/Throws-v0"])
def test_a_rollout_holds_what_was_remembered_before_each_step_at_each_end_and_after_the_last(game_id):
    """Over three windows, so that memories move from one to the next."""
    collector, batch = collector_of(game_id)
    lineup = self_play(counter(batch), batch.num_envs, batch.num_seats, batch.device)
    count, ended = torch.zeros(batch.num_envs, batch.num_seats), 0
    for _ in range(3):
        rollout, _, _ = collector.collect(lineup)
        before, final, count = counted(rollout, count)
        assert torch.equal(rollout.memory[..., 0], before)
        assert torch.equal(rollout.last_memory[..., 0], count)
        ends = rollout.terminated | rollout.truncated
        assert torch.equal(rollout.final_memory[ends][..., 1], 10 * final[ends])
        ended += int(ends.sum())
    assert ended > 3


def test_a_seat_that_passes_remembers_what_it_did():
    """In Relay every third turn is idle, and seats take turns: a window holds each seat's own count."""
    collector, batch = collector_of("test/Relay-v0")
    lineup = self_play(counter(batch), batch.num_envs, batch.num_seats, batch.device)
    seen = set()
    for _ in range(4):
        rollout, _, _ = collector.collect(lineup)
        of_seat = rollout.memory[..., 0].permute(1, 2, 0).flatten(0, 1)
        active = rollout.active.permute(1, 2, 0).flatten(0, 1)
        ended = (rollout.terminated | rollout.truncated).T.repeat_interleave(batch.num_seats, 0)
        for counts, acts, ends in zip(of_seat, active, ended, strict=True):
            own, last = None, None
            for t in range(len(counts)):
                if acts[t]:
                    if own is not None:
                        assert float(counts[t]) == (0 if bool(ends[last:t].any()) else own + 1)
                    own, last = float(counts[t]), t
                    seen.add(own)
    assert {0, 1, 2} <= seen


def test_an_open_decision_is_carried_with_what_was_remembered_before_it():
    collector, batch = collector_of("test/Nim-v0", num_envs=9)
    lineup = self_play(counter(batch), batch.num_envs, batch.num_seats, batch.device)
    carried = 0
    for _ in range(6):
        rollout, _, _ = collector.collect(lineup)
        if rollout.carried is None:
            continue
        for copy, seat in rollout.carried.nonzero().tolist():
            first = int(rollout.active[1:, copy, seat].float().argmax()) + 1
            if not rollout.active[first, copy, seat] or bool(
                (rollout.terminated | rollout.truncated)[:first, copy].any()
            ):
                continue
            assert rollout.memory[first, copy, seat, 0] == rollout.memory[0, copy, seat, 0] + 1
            carried += 1
    assert carried > 3


def test_whole_episodes_begin_with_nothing_remembered():
    collector, batch = collector_of("mlbits/CartPole-v0", whole=True)
    lineup = self_play(counter(batch), batch.num_envs, batch.num_seats, batch.device)
    for _ in range(2):
        rollout, _, _ = collector.collect(lineup)
        assert rollout.memory[0].abs().sum() == 0
        assert torch.equal(rollout.memory[:8, 0, 0, 0], torch.arange(8.0))


def test_opponents_have_memories_of_their_own_and_others_have_none():
    collector, batch = collector_of("test/Throws-v0", num_envs=6)
    learner, other = counter(batch), counter(batch)
    forgetful = RandomAgent(batch.observation_space, batch.action_space)
    lineup = against(learner, [(other, 0.5), (forgetful, 0.5)], 6, batch.num_seats, batch.device)
    for _ in range(2):
        rollout, _, _ = collector.collect(lineup)
    rows = lineup.rows(1)
    now = collector.memories.of(2)
    assert torch.equal(now[lineup.rows(0)], rollout.last_memory.flatten(0, 1)[lineup.rows(0)])
    assert now[rows].sum() > 0
    assert now[lineup.rows(2)].abs().sum() == 0


def test_saved_memories_are_restored_and_go_on():
    def play(resumed):
        collector, batch = collector_of("test/Nim-v0")
        lineup = self_play(counter(batch), batch.num_envs, batch.num_seats, batch.device)
        collector.collect(lineup)
        if resumed:
            state, where, drawn = collector.state_dict(), batch.state(), collector.generator.get_state()
            collector, batch = collector_of("test/Nim-v0")
            collector.load_state_dict(state)
            collector.generator.set_state(drawn)
            batch.set_state(where)
        return collector.collect(lineup)[0]

    one, two = play(False), play(True)
    assert torch.equal(one.memory[one.active], two.memory[two.active])
    assert one.memory[one.active].sum() > 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"3": torch.zeros(10, 2)}, r"memory 3: got torch.float32 \(10, 2\); wanted float32 \(10, 3\)"),
        ({"2": torch.zeros(9, 2)}, r"memory 2: got torch.float32 \(9, 2\); wanted float32 \(10, 2\)"),
        ({"2": torch.full((10, 2), torch.nan)}, "memory 2: got a number that is not finite"),
        ({"x": torch.zeros(10, 2)}, "invalid literal"),
    ],
)
def test_saved_memories_of_another_shape_are_refused(state, message):
    with pytest.raises(ValueError, match=message):
        Memories(5, 2).load_state_dict(state)


def test_evaluation_keeps_a_memory_for_each_episode_and_begins_with_none():
    batch = mlbits.make_batch("mlbits/CartPole-v0", 1)
    agent = counter(batch)
    for seed in (0, 1):
        played = play_episodes(agent, "mlbits/CartPole-v0", 3, seed=seed)
        assert float(agent.seen[:, 0].max()) == float(played.lengths.max()) - 1


def test_a_recorded_game_begins_with_nothing_remembered(tmp_path):
    """One copy plays three games in turn."""
    batch = mlbits.make_batch("mlbits/CartPole-v0", 1)
    agent = counter(batch)
    asked = []
    act = agent.act
    agent.act = lambda *args, **kwargs: asked.append(float(kwargs["memory"][0, 0])) or act(*args, **kwargs)
    done = record(agent, "mlbits/CartPole-v0", tmp_path / "counted-v0", episodes=3, num_envs=1)
    assert len(asked) == done.steps
    assert asked.count(0.0) == 3
    assert all(b in (0, a + 1) for a, b in itertools.pairwise(asked))


def test_an_agent_with_memory_is_refused_where_none_is_kept():
    batch = mlbits.make_batch("mlbits/CartPole-v0", 2)
    agent = counter(batch)
    assert memory_size(agent) == 2
    assert memory_size(RandomAgent(batch.observation_space, batch.action_space)) == 0
    with pytest.raises(AgentError, match="Counter: has a memory; wanted an agent that decides by what it sees now"):
        decide(agent, batch, None, batch.obs[:, 0], None, torch.Generator())


def test_forgetting_some_copies_leaves_the_others():
    memories = Memories(3, 2)
    memories.keep(None, torch.ones(6, 4), None)
    memories.keep(torch.tensor([1, 5]), torch.full((2, 4), 2.0), torch.tensor([[1, 1], [1, 1], [1, 0]]).bool())
    assert memories.of(4)[:, 0].tolist() == [1, 2, 1, 1, 1, 1]
    memories.end(torch.tensor([False, True, False]))
    assert memories.of(4)[:, 0].tolist() == [1, 2, 0, 0, 1, 1]
    memories.forget(0, 1)
    assert memories.of(4)[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert np.array_equal(memories.state_dict()["4"].numpy(), memories.of(4).numpy())
