"""Properties of every registered game's batch: invariance, saved states, illegal actions, clean rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mlbits.envs.core.errors import IllegalActionError
from mlbits.envs.core.game import STATE_HEADER
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.engine.cpu_copies import Copies
from tests.conformance.play import (
    COPIES,
    GAME_IDS,
    SEED,
    STEPS,
    as_numpy,
    assert_same,
    batch_of,
    game_of,
    legal_actions,
    rows,
    script_of,
)

every_game = pytest.mark.parametrize("game_id", GAME_IDS)
# The driver for several cores takes seconds to compile, and differs only by the kind of actions.
one_game_a_kind = pytest.mark.parametrize("game_id", {game_of(name).action.kind: name for name in GAME_IDS}.values())


def play(batch: GameBatch, actions: np.ndarray) -> list[dict[str, Any]]:
    """Everything a batch shows in each of the steps [T, B, P, ...]."""
    return [shown(batch) for step in actions if batch.step(torch.from_numpy(step))]


def shown(batch: GameBatch) -> dict[str, Any]:
    ended = (batch.terminated | batch.truncated).numpy()
    final = as_numpy(batch.final_obs)

    def valid(part: np.ndarray) -> np.ndarray:
        return np.where(ended.reshape(-1, *[1] * (part.ndim - 1)), part, 0)

    names = ("obs", "reward", "terminated", "truncated", "legal_mask", "active")
    parts = {name: as_numpy(getattr(batch, name)) for name in names}
    parts["final_obs"] = {k: valid(part) for k, part in final.items()} if isinstance(final, dict) else valid(final)
    return {**parts, "state": batch.state().numpy()}


def of_copies(snapshot: dict[str, Any], which: Any) -> dict[str, Any]:
    return {name: rows(value, which) for name, value in snapshot.items()}


def state_bytes(batch: GameBatch) -> bytes:
    return batch.state().numpy().tobytes()


@every_game
def test_a_copy_is_the_same_in_a_batch_of_any_size(game_id: str) -> None:
    actions = script_of(game_id).actions[:STEPS]
    three, seven = play(batch_of(game_id, 3), actions[:, :3]), play(batch_of(game_id), actions)
    for t, (few, many) in enumerate(zip(three, seven, strict=True)):
        assert_same(few, of_copies(many, slice(3)), f"step {t}")


@one_game_a_kind
def test_results_do_not_depend_on_the_number_of_threads(game_id: str) -> None:
    actions = script_of(game_id).actions[:STEPS]
    for t, (one, two) in enumerate(
        zip(
            play(batch_of(game_id, threads=1), actions),
            play(batch_of(game_id, threads=2), actions),
            strict=True,
        )
    ):
        assert_same(two, one, f"step {t}")


@every_game
def test_a_list_of_seeds_gives_each_copy_the_trajectory_of_a_single_copy(game_id: str) -> None:
    actions = script_of(game_id).actions[:STEPS, :1]
    lone = play(batch_of(game_id, 1), actions)
    pair = play(batch_of(game_id, 2, seed=[SEED, SEED]), np.repeat(actions, 2, 1))
    for t, (one, two) in enumerate(zip(lone, pair, strict=True)):
        for b in range(2):
            assert_same(of_copies(two, slice(b, b + 1)), one, f"step {t}, copy {b}")


@every_game
def test_saved_states_continue_identically(game_id: str) -> None:
    actions = script_of(game_id).actions[:STEPS]
    batch = batch_of(game_id)
    play(batch, actions[:10])
    saved, obs, mask = batch.state(), as_numpy(batch.obs), as_numpy(batch.legal_mask)
    wanted = play(batch, actions[10:])
    for other in (batch, batch_of(game_id, seed=99)):  # the same batch rewound, and another one
        assert_same(as_numpy(other.set_state(saved)), obs, "obs")
        assert_same(as_numpy(other.legal_mask), mask, "legal_mask")
        assert not other.reward.any() and not other.terminated.any() and not other.truncated.any()
        for t, (got, want) in enumerate(zip(play(other, actions[10:]), wanted, strict=True)):
            assert_same(got, want, f"step {t}")
    chosen = torch.tensor([4, 4, 0])  # rows in any order and number, as a search picks them
    few = batch_of(game_id, 3)
    few.set_state(saved[chosen])
    for t, (got, want) in enumerate(zip(play(few, actions[10:, chosen]), wanted, strict=True)):
        assert_same(got, of_copies(want, chosen.numpy()), f"step {t}")


@every_game
def test_records_and_states_agree(game_id: str) -> None:
    batch = batch_of(game_id)
    play(batch, script_of(game_id).actions[:5])
    records = batch.records()
    other = batch_of(game_id, seed=99)
    other.set_state(records)
    assert state_bytes(other) == state_bytes(batch)
    records["rng_key"] = 0  # a copy: the batch is not touched
    assert state_bytes(other) == state_bytes(batch)


@every_game
def test_observations_are_in_their_space_and_every_seat_has_a_legal_action(game_id: str) -> None:
    batch, game = batch_of(game_id), game_of(game_id)
    for step in script_of(game_id).actions[:STEPS]:
        for obs in (batch.obs, batch.step(torch.from_numpy(step)).final_obs):
            for b in range(COPIES):
                for seat in range(game.seats):
                    one = rows(rows(as_numpy(obs), b), seat)
                    assert one.item() in game.observation_space if one_number(one) else one in game.observation_space
        assert np.isfinite(batch.reward.numpy()).all()
        if batch.legal_mask is not None:
            for part in torch.split(batch.legal_mask, list(game.action.nvec), -1):
                assert part.any(-1).all(), "a seat with no legal action, not even pass"


def one_number(obs: Any) -> bool:
    return not isinstance(obs, dict) and obs.ndim == 0


@every_game
def test_sample_actions_are_legal_and_repeatable(game_id: str) -> None:
    drawn = []
    for _ in range(2):
        batch = batch_of(game_id)
        drawn.append([])
        for _ in range(STEPS):
            drawn[-1].append(as_numpy(batch.sample_actions()))
            batch.step(drawn[-1][-1])  # illegal="error" would raise
    np.testing.assert_array_equal(*drawn)


@every_game
def test_observe_writes_all_of_its_output(game_id: str) -> None:
    batch = batch_of(game_id)
    play(batch, script_of(game_id).actions[:3])
    wanted, copies = as_numpy(batch.obs), batch.copies
    assert isinstance(copies, Copies)
    for garbage in (0x55, 0xAA):
        copies.obs.view(np.uint8)[:] = garbage
        copies.refresh()
        assert_same(as_numpy(batch.obs), wanted, "obs")


@every_game
def test_reset_clears_the_last_episode(game_id: str) -> None:
    """A field that reset does not write would carry values from one episode into the next."""
    actions = script_of(game_id).actions[:STEPS]
    wanted = play(batch_of(game_id), actions)
    batch = batch_of(game_id)
    copies = batch.copies
    assert isinstance(copies, Copies)
    header = {name for name, _ in STATE_HEADER}
    for name in set(copies.states.dtype.names) - header:
        field = copies.states[name]
        field[...] = np.frombuffer(b"\x55" * field.nbytes, field.dtype).reshape(field.shape)
    batch.reset(seed=SEED)
    for t, (got, want) in enumerate(zip(play(batch, actions), wanted, strict=True)):
        for snapshot in (got, want):
            del snapshot["state"]  # working memory that is not read may differ
        assert_same(got, want, f"step {t}")


@every_game
def test_rules_do_not_write_the_parameters(game_id: str) -> None:
    batch = batch_of(game_id)
    assert isinstance(batch.copies, Copies)
    before = batch.copies.params.tobytes()
    play(batch, script_of(game_id).actions[:STEPS])
    assert batch.copies.params.tobytes() == before


def illegal_for(batch: GameBatch, b: int, seat: int) -> list[Any]:
    """Actions of one seat that are illegal now: out of range, and forbidden by the mask."""
    layout = batch.game.action
    if layout.kind == "continuous":
        bad = [np.full(layout.shape, value, np.float32) for value in (np.nan, np.inf, -np.inf)]
        return bad + [side + 1 for side in (layout.high,) if np.isfinite(side).all()]
    low, high = np.zeros(len(layout.nvec), np.int64), np.array(layout.nvec)
    mask = None if batch.legal_mask is None else as_numpy(batch.legal_mask[b, seat])
    bad = [low - 1, high, high + 2**40]
    start = 0
    for k, n in enumerate(layout.nvec):
        if mask is not None and not mask[start : start + n].all():
            forbidden = np.array([part.argmax() for part in np.split(mask, np.cumsum(layout.nvec)[:-1])])
            forbidden[k] = mask[start : start + n].argmin()
            bad.append(forbidden)
        start += n
    return [action.reshape(layout.shape) for action in bad]


def acting(batch: GameBatch, b: int) -> np.ndarray:
    return np.arange(batch.num_seats) if batch.active is None else np.flatnonzero(batch.active[b].numpy())


@one_game_a_kind
def test_an_illegal_action_changes_nothing_on_any_core(game_id: str) -> None:
    check_illegal_actions(game_id, threads=2)


@every_game
def test_an_illegal_action_is_named_and_changes_nothing(game_id: str) -> None:
    check_illegal_actions(game_id, threads=1)


def check_illegal_actions(game_id: str, threads: int) -> None:
    batch, script = batch_of(game_id, threads=threads), script_of(game_id).actions
    tried = 0
    for t in range(8):
        before, seen = state_bytes(batch), shown(batch)
        for b in (0, COPIES - 1):
            for seat in acting(batch, b):
                for bad in illegal_for(batch, b, seat):
                    actions = script[t].copy()
                    actions[b, seat] = bad
                    with pytest.raises(IllegalActionError, match=f"copy {b}, seat {seat} in {batch.game.name}: got"):
                        batch.step(actions)
                    tried += 1
                    assert state_bytes(batch) == before
                    assert_same(shown(batch), seen, f"step {t}")
        batch.step(script[t])
    assert tried >= 8


@every_game
def test_a_replaced_action_is_the_lowest_legal_one_or_the_nearest_finite_bound(game_id: str) -> None:
    game, layout = game_of(game_id), game_of(game_id).action
    replacing, strict = batch_of(game_id, illegal="replace"), batch_of(game_id)
    rng = np.random.default_rng(1)
    for t in range(STEPS):
        mask = as_numpy(strict.legal_mask)
        actions = legal_actions(game, mask, (COPIES, game.seats), rng)
        given, wanted = actions.copy(), actions.copy()
        for b in range(COPIES):
            seats = acting(strict, b)
            if b % 2 == 0 or len(seats) == 0:
                continue
            bad = illegal_for(strict, b, seats[-1])
            given[b, seats[-1]] = bad[t % len(bad)]
            if layout.kind == "continuous":
                bounded = np.clip(bad[t % len(bad)], layout.low, layout.high)
                zero = np.clip(0, layout.low, layout.high)
                wanted[b, seats[-1]] = np.where(np.isfinite(bounded), bounded, zero)
            else:
                row = np.ones(layout.mask_size, bool) if mask is None else mask[b, seats[-1]]
                lowest = [part.argmax() for part in np.split(row, np.cumsum(layout.nvec)[:-1])]
                wanted[b, seats[-1]] = np.reshape(lowest, layout.shape)
        kept = given.copy()
        replacing.step(given)
        np.testing.assert_array_equal(given, kept, err_msg="the caller's actions were overwritten")
        strict.step(wanted)
        assert_same(shown(replacing), shown(strict), f"step {t}")


@every_game
def test_an_illegal_action_forfeits_the_episode(game_id: str) -> None:
    batch, other = batch_of(game_id, illegal="forfeit"), batch_of(game_id)
    script = script_of(game_id).actions
    seats = acting(batch, 1)
    actions = script[0].copy()
    actions[1, seats[-1]] = illegal_for(batch, 1, seats[-1])[0]
    before = as_numpy(batch.obs)
    batch.step(actions)
    other.step(script[0])
    wanted = np.zeros(batch.num_seats)
    wanted[seats[-1]] = -1
    assert batch.terminated[1]
    np.testing.assert_array_equal(batch.reward[1].numpy(), wanted)
    assert_same(rows(as_numpy(batch.final_obs), 1), rows(before, 1), "the state before the illegal action")
    rest = [b for b in range(COPIES) if b != 1]
    assert_same(of_copies(shown(batch), rest), of_copies(shown(other), rest), "the other copies")


@pytest.mark.parametrize("game_id", [name for name in GAME_IDS if game_of(name).acts is not None])
def test_actions_of_passing_seats_are_ignored(game_id: str) -> None:
    script = script_of(game_id)
    assert not script.active.all()
    nonsense = np.nan if game_of(game_id).action.kind == "continuous" else 10**9
    axes = (..., *[None] * (script.actions.ndim - 3))
    actions = np.where(script.active[axes], script.actions, nonsense).astype(script.actions.dtype)
    for illegal in ("error", "replace", "forfeit"):
        got = play(batch_of(game_id, illegal=illegal), actions[:STEPS])
        for t, (mine, theirs) in enumerate(zip(got, play(batch_of(game_id), script.actions[:STEPS]), strict=True)):
            assert_same(mine, theirs, f"{illegal}: step {t}")


@every_game
def test_a_disabled_copy_does_not_change_until_it_is_reset(game_id: str) -> None:
    script = script_of(game_id).actions
    game = game_of(game_id).limited_to(len(script))
    batch = GameBatch(game, 1, seed=SEED, autoreset="disabled")
    t = 0
    while not (batch.terminated[0] or batch.truncated[0]):
        batch.step(script[t, :1])
        t += 1
    flags, before, obs = (
        (bool(batch.terminated), bool(batch.truncated)),
        state_bytes(batch),
        as_numpy(batch.obs),
    )
    batch.step(script[0, :1])
    assert state_bytes(batch) == before
    assert_same(as_numpy(batch.obs), obs, "obs")
    assert (bool(batch.terminated), bool(batch.truncated)) == flags
    assert not batch.reward.any()
    batch.reset(which=torch.tensor([True]))
    assert not batch.terminated.any() and not batch.truncated.any()
