"""Runs of agents with memory: exact resume, opponents and frozen copies with memories, every command that plays."""

import pytest
import torch

import mlbits
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.cli import main
from mlbits.evals.play.match import Match
from mlbits.evals.training_probes import during_training
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session
from mlbits.selfplay.training import train
from tests.games import register_test_games

register_test_games()
AGENT = {"num_steps": 12, "minibatches": 2, "hidden": (8,), "memory_width": 8}
GAME = "mlbits/TicTacToe-v0"


def session_of(env, memory="gru", **run):
    run = {"total_steps": 10_000, "num_envs": 6, "device": "cpu"} | run
    return open_session(resolve("ppo", env, preset="none", run=run, agent_settings={"memory": memory} | AGENT))


def go_on(session, iterations):
    for _ in range(iterations):
        rollout, _, _ = session.collect()
        session.learn(rollout)
        session.counters.env_steps += session.steps_of(rollout)
    return session


@pytest.mark.parametrize(("env", "memory"), [("mlbits/CartPole-v0", "lstm"), ("test/Nim-v0", "gru")])
def test_a_resumed_run_ends_as_if_it_had_not_been_interrupted(env, memory, tmp_path):
    whole = go_on(session_of(env, memory), 4)
    first = go_on(session_of(env, memory), 2)
    checkpoint = first.to_checkpoint()
    assert any(name.startswith("memory.") and value.abs().sum() > 0 for name, value in checkpoint.arrays.items())
    second = session_of(env, memory)
    second.from_checkpoint(checkpoint, tmp_path)
    go_on(second, 2)
    for name, value in whole.learner.state_dict().items():
        assert torch.equal(value, second.learner.state_dict()[name]), name


def test_a_copy_whose_episode_is_started_again_on_resuming_has_forgotten_the_old_one(tmp_path, monkeypatch):
    checkpoint = go_on(session_of("CartPole-v1"), 1).to_checkpoint()
    second = session_of("CartPole-v1")
    monkeypatch.setattr(second.batch, "load_state_dict", lambda state, say: [1, 4])  # these could not be replayed
    second.from_checkpoint(checkpoint, tmp_path)
    remembered = second.collector.memories.of(8).abs().sum(1) > 0
    assert remembered.tolist() == [True, False, True, True, False, True]


def test_a_run_with_a_pool_is_evaluated_recorded_and_matched(tmp_path, capsys):
    """Frozen copies play from memories of their own; what needs a policy of one observation says no."""
    run = {
        "total_steps": 600, "num_envs": 4, "device": "cpu", "pool": "uniform", "pool_every": 200, "eval_episodes": 4,
        "eval_every": 300, "video": False,
    }  # fmt: skip
    settings = resolve("ppo", GAME, preset="none", run=run, agent_settings={"memory": "gru"} | AGENT)
    folder, summary = train(settings, tmp_path / "run", console=False, measure=during_training)
    assert summary["env_steps"] >= 600
    copies = sorted(str(path) for path in (folder / "pool").glob("*.safetensors"))
    assert len(copies) >= 2
    assert main(["eval", str(folder), "--episodes", "4"]) == 0
    assert main(["tournament", str(folder), copies[0], "random", "--games", "4"]) == 0
    assert main(["record", str(folder), "--episodes", "3", "--dataset", str(tmp_path / "played-v0")]) == 0
    capsys.readouterr()
    assert main(["eval", str(folder), "--episodes", "4", "--search.simulations", "4"]) == 2
    assert "search" in capsys.readouterr().err


def test_in_a_match_an_undone_move_is_forgotten():
    batch = mlbits.make_batch(GAME, 1)
    agent = PPO(PPOConfig(memory="gru", **AGENT), batch.observation_space, batch.action_space)
    match = Match(GAME, people=(0,), opponents={"it": agent})
    match.choose(0, match.turn, [min(match.slots(0)[0].names)])
    match.advance()
    after_one = match._memories.of(8).clone()
    assert after_one[1].abs().sum() > 0
    assert after_one[0].abs().sum() == 0
    match.choose(0, match.turn, [min(match.slots(0)[0].names)])
    match.advance()
    assert not torch.equal(match._memories.of(8), after_one)
    match.undo(0, match.turn)
    assert torch.equal(match._memories.of(8), after_one)
