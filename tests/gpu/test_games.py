"""Every game plays on the card as on the CPU, on torch's default stream and on another, and from a captured graph."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch

from tests.conformance.play import GAME_IDS, LARGE_BOARDS, batch_of, game_of, legal_actions

pytestmark = pytest.mark.gpu
SHOWN = ("obs", "final_obs", "reward", "terminated", "truncated", "legal_mask", "active", "final_active")
EPISODE = {"error": "same_step", "replace": "next_step", "forfeit": "same_step"}


def shown(batch: Any) -> dict[str, np.ndarray]:
    """All that a batch shows, on the host, by flat names."""
    found = {}
    for name in SHOWN:
        value = getattr(batch, name)
        parts = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        found |= {key: part.cpu().numpy().copy() for key, part in parts.items() if part is not None}
    records = batch.records()
    return found | {f"state.{field}": records[field] for field in records.dtype.names}


def assert_same(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray], where: str) -> None:
    """Integers, flags and masks bit for bit; floats to rounding."""
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        message = f"{where}: {name}"
        if value.dtype.kind == "f":
            np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5, err_msg=message)
        else:
            np.testing.assert_array_equal(got[name], value, err_msg=message)


def play_both(game_id: str, card: Any, illegal: str = "error") -> None:
    """Play the same actions on both; the card goes on from the CPU's states, since rounding may part two copies."""
    arguments = {"illegal": illegal, "autoreset": EPISODE[illegal]}
    cpu = batch_of(game_id, card.copies, **arguments)
    gpu = batch_of(game_id, card.copies, device=card.device, **arguments)
    assert type(gpu.copies).__name__ == "CudaCopies"
    game, rng = game_of(game_id), np.random.default_rng(5)
    assert_same(shown(gpu), shown(cpu), "at first")
    ended = 0
    for t in range(card.steps):
        mask = None if cpu.legal_mask is None or illegal != "error" else cpu.legal_mask.numpy()
        actions = torch.from_numpy(legal_actions(game, mask, (card.copies, game.seats), rng))
        cpu.step(actions)
        gpu.step(actions.to(card.where))
        assert_same(shown(gpu), shown(cpu), f"step {t}")
        ended += int((cpu.terminated | cpu.truncated).sum())
        if any(game.state_dtype[name].base.kind == "f" for name in game.state_dtype.names):
            for batch in (cpu, gpu):
                batch.set_state(cpu.state().to(batch.device))
    if card.real and game.horizon:
        assert ended, "no episode ended"


@pytest.mark.parametrize("stream", ["default stream", "own stream"])
@pytest.mark.parametrize("game_id", GAME_IDS)
def test_a_game_plays_as_on_the_cpu(game_id, stream, card):
    with card.own_stream() if stream == "own stream" else contextlib.nullcontext():
        play_both(game_id, card)


@pytest.mark.parametrize("illegal", ["replace", "forfeit"])
@pytest.mark.parametrize(
    "game_id", ["mlbits/GridWorld-v0", "mlbits/PointMass-v0", "mlbits/TicTacToe-v0", "test/Nim-v0"]
)
def test_illegal_actions_are_met_as_on_the_cpu(game_id, illegal, card):
    play_both(game_id, card, illegal)


@pytest.mark.slow
@pytest.mark.parametrize("game_id", sorted(LARGE_BOARDS))
def test_a_large_board_plays_as_on_the_cpu(game_id, card):
    play_both(game_id, card)


def test_two_streams_do_not_disturb_each_other(card):
    """Kernels run on the stream on which their batch is stepped, in order with torch's own work on it."""
    game_id = "mlbits/GridWorld-v0"
    batches = [batch_of(game_id, card.copies, device=card.device, illegal="replace", seed=k) for k in (0, 1)]
    cpus = [batch_of(game_id, card.copies, illegal="replace", seed=k) for k in (0, 1)]
    card.wait()
    contexts = [card.own_stream(), card.own_stream()]
    plans = [[cpu.sample_actions() for _ in range(card.steps)] for cpu in cpus]
    for t in range(card.steps):
        for batch, plan, context in zip(batches, plans, contexts, strict=True):
            with context if card.real else contextlib.nullcontext():
                actions = torch.zeros_like(plan[t], device=card.where)
                actions += plan[t].to(card.where)  # the kernel has to wait for this
                batch.step(actions)
                del actions  # its memory is used again by the next step
    card.wait()
    for batch, cpu, plan in zip(batches, cpus, plans, strict=True):
        for actions in plan:
            cpu.step(actions)
        assert_same(shown(batch), shown(cpu), "at last")


@pytest.mark.parametrize("game_id", ["mlbits/GridWorld-v0", "mlbits/CartPole-v0", "mlbits/TicTacToe-v0"])
def test_a_captured_step_plays_as_one_that_is_not(game_id, card):
    """A step, with its actions drawn before, as a CUDA graph."""
    if not card.real:
        pytest.skip("graphs are captured by a card alone")
    batches = [batch_of(game_id, card.copies, device=card.device, illegal="replace") for _ in range(2)]
    captured, plain = batches
    actions = captured.sample_actions()
    start = captured.state()
    with card.own_stream():
        captured.step(actions)  # compiles
    card.wait()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step(actions)
    for batch in batches:
        batch.set_state(start)
    rng = np.random.default_rng(3)
    for t in range(card.steps):
        drawn = legal_actions(game_of(game_id), None, tuple(actions.shape[:2]), rng)
        actions.copy_(torch.from_numpy(drawn))
        graph.replay()
        plain.step(actions.clone())
        assert_same(shown(captured), shown(plain), f"step {t}")
