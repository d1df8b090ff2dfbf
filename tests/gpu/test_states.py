"""States are saved and loaded exactly, on a card and between card and CPU; memory does not grow."""

from __future__ import annotations

import pytest
import torch

import mlbits
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session
from tests.conformance.play import batch_of

pytestmark = pytest.mark.gpu
GAMES = ["mlbits/GridWorld-v0", "mlbits/CartPole-v0", "mlbits/TicTacToe-v0", "mlbits/Goofspiel-v0"]


def batch_on(card, game_id, **arguments):
    return batch_of(game_id, card.copies, device=card.device, illegal="replace", **arguments)


def played(batch, actions):
    """Everything that is shown after each step."""
    found = []
    for one in actions:
        step = batch.step(one.to(batch.device))
        found.append([part.clone() for part in (batch.state(), step.reward, step.terminated, step.truncated)])
    return found


@pytest.mark.parametrize("game_id", GAMES)
def test_a_restored_batch_goes_on_bit_for_bit(game_id, card):
    batch = batch_on(card, game_id)
    played(batch, [batch.sample_actions() for _ in range(card.steps // 2)])
    kept, plan = batch.state(), [batch.sample_actions() for _ in range(card.steps // 2)]
    wanted = played(batch, plan)
    other = batch_on(card, game_id, seed=99)
    for restored in (batch, other):
        restored.set_state(kept)
        for t, (got, want) in enumerate(zip(played(restored, plan), wanted, strict=True)):
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), f"step {t}"


@pytest.mark.parametrize("game_id", GAMES)
def test_states_go_to_the_cpu_and_back(game_id, card):
    batch = batch_on(card, game_id)
    played(batch, [batch.sample_actions() for _ in range(3)])
    cpu = batch_of(game_id, card.copies, illegal="replace")
    cpu.set_state(batch.state().cpu())
    assert torch.equal(cpu.state(), batch.state().cpu())
    again = batch_on(card, game_id)
    again.set_state(cpu.state())
    assert torch.equal(again.state(), batch.state())


def test_a_run_is_saved_and_goes_on(card, tmp_path):
    """What a checkpoint holds is what the learner was, on the card and on the CPU."""
    copies, steps = (256, 32) if card.train else (4, 4)
    iteration = copies * steps
    settings = {
        "out": tmp_path / "run", "preset": "none", "console": False, "measure": None, "device": card.device,
        "num_envs": copies, "eval_every": 0, "eval_episodes": 2, "video": False,
        "agent_settings": {"num_steps": steps, "hidden": (16,)},
    }  # fmt: skip
    kept = []

    def keep(run):
        kept.append({name: value.detach().cpu().clone() for name, value in run.agent().agent.state_dict().items()})

    folder, _ = mlbits.train("ppo", "mlbits/GridWorld-v0", total_steps=2 * iteration, on_checkpoint=keep, **settings)
    assert kept
    for device in ("cpu", card.device):
        loaded = mlbits.load(folder, device=device).agent.state_dict()
        assert all(torch.equal(loaded[name].cpu(), value) for name, value in kept[-1].items())
    _, summary = mlbits.resume(folder, total_steps=3 * iteration, console=False)
    assert summary["env_steps"] == 3 * iteration


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_memory_does_not_grow(agent, card):
    """Iterations of a learner, each with new tensors of actions."""
    rounds = 30 if card.train else 3
    run = {"num_envs": 256 if card.train else 4, "device": card.device}
    settings = {"num_steps": 8} | (
        {"learning_starts": 0, "batch_size": 8, "buffer_size": 4096} if agent == "dqn" else {}
    )
    session = open_session(resolve(agent, "mlbits/GridWorld-v0", preset="none", run=run, agent_settings=settings))

    def iterate(times):
        for _ in range(times):
            rollout, _, _ = session.collect()
            session.learn(rollout)
        del rollout
        card.wait()
        return card.memory()

    first = iterate(rounds)
    assert iterate(2 * rounds) <= first * 1.01 + 4096


def test_memory_of_batches_is_given_back(card):
    def made():
        batch = batch_on(card, "mlbits/GridWorld-v0")
        for _ in range(4):
            batch.step(batch.sample_actions())
        card.wait()

    made()
    first = card.memory()
    for _ in range(20 if card.real else 3):
        made()
    assert card.memory() <= first


def test_starts_keep_no_actions_alive(card):
    batch = batch_on(card, "mlbits/GridWorld-v0")
    batch.step(batch.sample_actions())
    first = card.memory()
    for _ in range(card.steps):
        batch.step(batch.sample_actions())
    card.wait()
    assert card.memory() <= first
