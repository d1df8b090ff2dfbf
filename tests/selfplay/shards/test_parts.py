"""A run in shards has the same bits however its shards are divided."""

import numpy as np
import pytest
import torch

from mlbits.agents.agent import content_hash, split_optimizers
from mlbits.selfplay.session import open_session
from mlbits.selfplay.shards.links import Alone, Order, Orders
from mlbits.selfplay.shards.lockstep import OutOfStepError
from mlbits.selfplay.shards.parts import Parts, differing
from tests.games import register_test_games
from tests.selfplay.shards.joined import digest, iterate, run, settings_of

register_test_games()

SMALL = {"hidden": (8,), "num_steps": 8}
QUICK = {"hidden": (4,), "num_steps": 4, "epochs": 1, "minibatches": 1, "normalize_reward": True}
BOTH = {"normalize_obs": True, "normalize_reward": True}
REPLAY = {"hidden": (8,), "learning_starts": 64, "batch_size": 8, "buffer_size": 400, "num_steps": 2}
POOL = {"pool": "pfsp", "pool_every": 64, "pool_draws": 2, "num_envs": 16}
LEAGUE = {"pool": "league", "pool_every": 64, "pool_draws": 2, "num_envs": 16, "env_settings": {"coins": 3}}
MANY = {"pool": "league", "pool_every": 64, "pool_draws": 2, "num_envs": 32, "league_exploiters": 5}
RUNS = {
    "ppo": ("ppo", "mlbits/CartPole-v0", {**SMALL, **BOTH, "objective": "adaptive_kl", "target_kl": 0.001}, {}),
    "learned step": ("ppo", "mlbits/CartPole-v0", {**SMALL, "apo_every": 2}, {}),
    "memory": ("ppo", "mlbits/CartPole-v0", {**SMALL, "memory": "gru", "memory_width": 8}, {}),
    "turns": ("ppo", "test/Nim-v0", {**SMALL, "num_steps": 3, "minibatches": 2, "normalize_reward": True}, {}),
    "reinforce": ("reinforce", "mlbits/CartPole-v0", {**BOTH, "hidden": (8,), "num_steps": 40}, {}),
    "reinforce, gae": ("reinforce", "mlbits/CartPole-v0", {**SMALL, "returns": "gae"}, {}),
    "trpo": ("trpo", "mlbits/CartPole-v0", {**SMALL, **BOTH, "batch_size": 16, "fvp_fraction": 0.5}, {}),
    "dqn": ("dqn", "mlbits/CartPole-v0", {**REPLAY, **BOTH, "n_step": 2}, {}),
    "dqn, priorities": ("dqn", "test/Nim-v0", {**REPLAY, "priority_exponent": 0.6, "head": "categorical"}, {}),
    "ddpg": ("ddpg", "mlbits/Pendulum-v0", {**REPLAY, **BOTH, "twin": True, "target_noise": 0.2}, {}),
    "pool": ("ppo", "mlbits/Blotto-v0", {**SMALL, "num_steps": 4}, {**POOL, "env_settings": {"coins": 3}}),
    # a shard for each learner, several for the first, several learners in a shard
    "league": ("ppo", "mlbits/Blotto-v0", QUICK, LEAGUE),
    "league, few": ("ppo", "test/Throws-v0", QUICK, {**MANY, "league_exploiters": 1, "num_envs": 16}),
    "league, many": ("trpo", "test/Nim-v0", {**SMALL, "num_steps": 3, "batch_size": 4}, MANY),
    "league, tables": ("q-learning", "mlbits/Blotto-v0", {}, LEAGUE),
    "wrapped": ("ppo", "CartPole-v1", SMALL, {}),
}
DEFAULT = ("ppo", "dqn", "reinforce")
EACH = [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow) for name in RUNS]
# What of a learner's state is of its own shard's copies.
OWN = ("reward_scale.carry", "reward_scale.earned", "reward_scale.open", "returns_seen.", "measured")
ITERATIONS = {"dqn": 12, "dqn, priorities": 24, "ddpg": 12, "pool": 6}


def settings_for(name):
    agent, env, agent_settings, more = RUNS[name]
    return settings_of(agent, env, agent_settings=agent_settings, **more)


@pytest.mark.parametrize("name", EACH)
def test_the_bits_do_not_depend_on_the_number_of_workers(name):
    settings, count = settings_for(name), ITERATIONS.get(name, 3)
    alone, steps, report = run(settings, 1, count)
    assert report.metrics  # it has learned
    for workers in (3,) if name in DEFAULT else (2, 3, 4):
        found, others, also = run(settings, workers, count)
        assert digest(found) == digest(alone), workers
        assert (others, also.metrics) == (steps, report.metrics)


RESUMED = ("ppo", "league, few")


@pytest.mark.parametrize(
    "name",
    [*RESUMED, *(pytest.param(name, marks=pytest.mark.slow) for name in RUNS if name not in (*RESUMED, "wrapped"))],
)
def test_a_checkpoint_of_some_workers_goes_on_with_others(name, tmp_path):
    settings, count = settings_for(name), ITERATIONS.get(name, 2)
    begun, steps, _ = run(settings, 2, count, folder=tmp_path)
    whole = run(settings, 1, count + 2)[0]
    assert digest(run(settings, 4, 2, begun, steps, tmp_path)[0]) == digest(whole)
    assert digest(run(settings, 1, 2, begun, steps, tmp_path)[0]) == digest(whole)


@pytest.mark.parametrize("name", [one for one in EACH if not one.values[0].startswith(("pool", "league", "wrapped"))])
def test_the_learners_of_all_shards_stay_equal(name):
    """Weights, optimisers and moments; only running returns of its copies and its metrics are a shard's own."""
    settings = settings_for(name)
    parts = Parts(settings, Alone(4))
    parts.start()
    iterate(parts, settings, ITERATIONS.get(name, 2))
    parts.close()
    first, *others = [session.learner.state_dict() for session in parts.sessions]
    for other in others:
        apart = differing(other, first)
        assert [entry for entry in apart if not entry.startswith(OWN)] == []


def test_all_shards_know_the_same_of_a_league(monkeypatch):
    """Its results, frozen copies, resets and learners; opponents are drawn by each."""
    monkeypatch.setattr("mlbits.selfplay.league.opponents._RESTART", 0.5)
    agent, env, agent_settings, more = RUNS["league, few"]
    settings = settings_of(agent, env, agent_settings=agent_settings, **more)
    parts = Parts(settings, Alone(4))
    parts.start()
    assert [list(session.opponents.own) for session in parts.sessions] == [[0], [0], [1], [2]]
    iterate(parts, settings, 7)
    parts.close()
    first, *others = [session.opponents for session in parts.sessions]
    assert len(first.copies) > 9
    assert len({copy.hash for copy in first.copies if copy.env_steps}) == len(first.copies) - 3
    for other in others:
        for fact in ("copies", "frozen_at", "born_at"):
            assert other.state()[fact] == first.state()[fact], fact
        assert differing(other.payoffs.state_dict(), first.payoffs.state_dict()) == {}
        assert [content_hash(other.agents[copy.number]) for copy in first.copies] == [one.hash for one in first.copies]
        for mine, theirs in zip(first.learners, other.learners, strict=True):
            apart = differing(split_optimizers(theirs.state_dict())[0], split_optimizers(mine.state_dict())[0])
            assert [entry for entry in apart if not entry.startswith(OWN)] == []
        assert other._generator.bit_generator.state != first._generator.bit_generator.state
    exploiter = others[-1].lineup  # of learner 2, who meets frozen copies alone: they follow the three learners
    assert set(exploiter.owner.tolist()) == {2}
    assert min(set(exploiter.seating.unique().tolist()) - {2}) >= 3


def test_copies_play_by_their_number_in_the_run():
    """The observations of shard 1 are those of the second half of the copies of a run without shards."""
    whole = open_session(settings_of("ppo", "mlbits/CartPole-v0", shards=1, agent_settings=SMALL))
    half = open_session(settings_of("ppo", "mlbits/CartPole-v0", shards=2, agent_settings=SMALL), shard=1)
    assert torch.equal(half.batch.obs, whole.batch.obs[4:])
    assert half.batch.num_envs == 4
    assert half.collector.generator.initial_seed() != whole.collector.generator.initial_seed()


def test_the_first_shard_has_the_generators_of_a_run_without_shards():
    whole = open_session(settings_of("ppo", "mlbits/CartPole-v0", shards=1, agent_settings=SMALL))
    first = open_session(settings_of("ppo", "mlbits/CartPole-v0", shards=2, agent_settings=SMALL))
    assert first.collector.generator.initial_seed() == whole.collector.generator.initial_seed()
    assert first.learning.initial_seed() == whole.learning.initial_seed()


def test_a_replay_buffer_is_cut_like_the_copies():
    settings = settings_of("dqn", "mlbits/CartPole-v0", agent_settings=REPLAY)
    replay = open_session(settings, start=False, shard=3).replay
    assert (replay.steps, replay.streams) == (50, 2)  # 400 transitions over 4 shards


def test_weights_that_differ_stop_the_run():
    settings = settings_of("ppo", "mlbits/CartPole-v0", agent_settings=SMALL)
    parts = Parts(settings, Alone(4))
    parts.start()
    iterate(parts, settings, 1)
    with torch.no_grad():
        parts.sessions[2].learner.core.optimizer.flat[0] += 1e-6
    with pytest.raises(
        OutOfStepError, match=r"the weights of shard 2 \(worker 0\) are not those of shard 0 after step"
    ):
        iterate(parts, settings, 1, 64)


def test_gradients_are_those_of_all_rows():
    """One step of four shards is one step on all their rows: the same up to rounding as by hand on the joined rows."""
    plain = {**SMALL, "epochs": 1, "minibatches": 1, "max_grad_norm": 1e9, "learning_rate": 0.0, "anneal_lr": False}
    settings = settings_of("ppo", "mlbits/CartPole-v0", agent_settings=plain)
    parts = Parts(settings, Alone(4))
    parts.start()
    rollouts, _, _ = parts.collect(Orders(Order.ITERATE))
    by_hand = _gradient_on_all([one.learner for one in parts.sessions], rollouts)
    parts.learn(rollouts)
    for session in parts.sessions:
        np.testing.assert_allclose(session.learner.core.optimizer.vectors.grad.numpy(), by_hand, rtol=2e-3, atol=1e-6)


def _gradient_on_all(learners, rollouts):
    """The gradient of PPO's loss on the rows of all rollouts, with advantages normalised over all of them."""
    learner = learners[0]
    rows = [one._prepare(rollout) for one, rollout in zip(learners, rollouts, strict=True)]
    data = {name: torch.cat([part[name] for part in rows]) for name in rows[0]}
    learner._gradient(data, torch.arange(len(data["advantage"])), 0.2, None)
    return learner.core.optimizer.vectors.grad.clone().numpy()
