"""Parameters changed while a batch runs: checked first, and only in the copies that were named."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.engine.batch import GameBatch

ID = "mlbits/DelayedChain-v0"


def chain(length, correct=1):
    """A chain of at most 9 steps."""
    game = mlbits.make_game(ID, length=(1, 9), correct_action=correct)
    params = game.params.copy()
    params["length"] = length
    return replace(game, params=params)


def lengths(batch, steps=9):
    """The step in which each copy's first episode from now on ends."""
    found = [0] * batch.num_envs
    for t in range(1, steps + 1):
        ended = batch.step(torch.ones(batch.num_envs, dtype=torch.int64)).terminated
        for b in range(batch.num_envs):
            if ended[b] and not found[b]:
                found[b] = t
    return found


def test_named_copies_get_their_records_and_start_anew_while_the_others_go_on():
    batch = GameBatch(chain(9), 4, seed=0)
    for _ in range(3):
        batch.step(torch.ones(4, dtype=torch.int64))
    records = np.concatenate([chain(length).params for length in (2, 5)])
    obs = batch.set_params(records, torch.tensor([3, 1]))
    assert obs[:, 0].tolist() == [12, 0, 12, 0]  # branch 1, position 3
    assert lengths(batch) == [6, 5, 6, 2]
    assert batch.copies.params["length"].tolist() == [9, 5, 9, 2]
    everyone = np.concatenate([chain(length).params for length in (4, 3, 2, 1)])
    batch.set_params(everyone)
    assert lengths(batch) == [4, 3, 2, 1]


def test_a_copied_batch_has_parameters_of_its_own():
    batch = GameBatch(chain(9), 2)
    batch.set_params(chain(3).params, torch.tensor([0]))
    other = copy.deepcopy(batch)
    batch.set_params(chain(5).params, torch.tensor([0]))
    assert lengths(other) == [3, 9]
    assert lengths(batch) == [5, 9]


def test_the_horizon_of_a_batch_is_the_longest_of_its_copies():
    def game(horizon):
        return mlbits.make_game("mlbits/CollectObjects-v0", horizon=horizon)

    batch = GameBatch([game(5), game(9)], 2)
    assert batch.horizon == 9
    batch.set_params(np.concatenate([game(3).params] * 2))
    assert batch.horizon == 3
    cut = [batch.step(torch.zeros(2, dtype=torch.int64)).truncated.tolist() for _ in range(3)]
    assert cut == [[False] * 2] * 2 + [[True] * 2]
    endless = game(3).unlimited().params
    batch.set_params(endless, torch.tensor([1]))
    assert batch.horizon is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("length", 0, "params: record 1, length: got 0; wanted 1 to 9"),
        ("max_length", 10**6, "params: record 1, max_length: got 1000000; wanted 9 to 9"),
        ("correct_action", 2, "params: record 1, correct_action: got 2; wanted 0 to 1"),
        ("cut_after", -1, "params: record 1, cut_after: got -1; wanted 0 to"),
    ],
)
def test_records_out_of_range_are_refused_and_change_nothing(field, value, message):
    batch = GameBatch(chain(9), 3)
    before = batch.state()
    records = np.concatenate([chain(2).params, chain(3).params])
    records[field][1] = value
    with pytest.raises(GameError, match=message):
        batch.set_params(records, torch.tensor([0, 1]))
    assert torch.equal(batch.state(), before)
    assert batch.copies.params["length"].tolist() == [9]


def test_levels_whose_fields_do_not_fit_together_or_are_not_finite_are_refused():
    batch = mlbits.make_batch("mlbits/CollectObjects-v0", 2)
    good = batch.game.params
    for field, value, message in [
        ("num_objects", 9, "num_objects: got 9; wanted 0 to 3"),
        ("width", 4, "width: got 4; wanted 6 to 6"),
        ("num_starts", 36, "record 0: its fields do not fit together in CollectObjects"),
        ("num_floor", 1, "record 0: its fields do not fit together in CollectObjects"),
    ]:
        record = good.copy()
        record[field] = value
        with pytest.raises(GameError, match=message):
            batch.set_params(record, torch.tensor([0]))
    for field, place, value, message in [
        ("place", 2, 36, r"params: record 0, place\[2\]: got 36; wanted 0 to 35"),
        ("floor", 0, -1, r"params: record 0, floor\[0\]: got -1; wanted 0 to 35"),
        ("reward", 1, np.nan, r"params: record 0, reward\[1\]: got nan; wanted a finite number"),
        ("ending", 0, 1.5, r"params: record 0, ending\[0\]: got 1.5; wanted 0 to 1"),
    ]:
        record = good.copy()
        record[field][0, place] = value
        with pytest.raises(GameError, match=message):
            batch.set_params(record, torch.tensor([0]))


def test_wrong_shapes_copies_and_games_are_refused():
    batch = GameBatch(chain(9), 3)
    one = chain(2).params
    for params, copies, message in [
        (one, None, r"params: got .* \(1,\); wanted records \(3,\) of DelayedChain's params.dtype"),
        (np.zeros(1), torch.tensor([0]), r"params: got float64 \(1,\); wanted records \(1,\)"),
        (one, torch.tensor([3]), "copies: got .*; wanted a torch.int64 tensor of different numbers below 3"),
        (one, torch.tensor([-1]), "copies: got "),
        (np.concatenate([one, one]), torch.tensor([0, 0]), "copies: got "),
        (one, torch.tensor([True]), "copies: got "),
    ]:
        with pytest.raises(GameError, match=message):
            batch.set_params(params, copies)
    bandit = mlbits.make_batch("mlbits/Bandit-v0", 2)
    with pytest.raises(GameError, match="params: Bandit declares no params_ranges"):
        bandit.set_params(np.concatenate([bandit.game.params] * 2))


@pytest.mark.parametrize("game_id", ["mlbits/CollectObjects-v0", ID])
def test_a_games_own_parameters_pass_its_check(game_id):
    game = mlbits.make_game(game_id)
    GameBatch(game, 2, start=False).set_params(np.concatenate([game.params] * 2))


SIMULATED = """
import sys, numpy as np, torch
from mlbits.envs.levels.worlds import Worlds
worlds = Worlds("small", 3, 2, seed=1, device="cuda")
assert type(worlds.batch.copies).__name__ == "CudaCopies"
shown = []
for t in range(8):
    if t == 3:
        worlds.renew(torch.tensor([2, 0]))
    actions = torch.from_numpy((np.arange(6) * 7 + t * 3) % 5)
    step = worlds.batch.step(actions)
    shown.append(np.concatenate([step.obs.reshape(-1).numpy(), step.reward.reshape(-1).numpy()]))
np.save(sys.argv[1], np.stack(shown))
"""


@pytest.mark.slow
def test_a_simulated_gpu_plays_the_same_levels(tmp_path):
    pytest.importorskip("numba_cuda")
    from mlbits.envs.levels.worlds import Worlds

    path, root = tmp_path / "shown.npy", Path(__file__).parents[3]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", SIMULATED, str(path)], cwd=root, env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    worlds = Worlds("small", 3, 2, seed=1)
    for t, wanted in enumerate(np.load(path)):
        if t == 3:
            worlds.renew(torch.tensor([2, 0]))
        step = worlds.batch.step(torch.from_numpy((np.arange(6) * 7 + t * 3) % 5))
        got = np.concatenate([step.obs.reshape(-1).numpy(), step.reward.reshape(-1).numpy()])
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("observation", ["index", "planes"])
def test_damaged_records_are_refused_or_harmless(observation):
    batch = mlbits.make_batch("mlbits/CollectObjects-v0", 4, observation=observation)
    rng, space = np.random.default_rng(0), batch.observation_space
    good, accepted = np.repeat(batch.game.params, 4), 0
    for _ in range(150):
        records = good.copy()
        raw = records.view(np.uint8).reshape(4, -1)
        raw[rng.integers(4), rng.integers(raw.shape[1])] = rng.integers(256)
        try:
            batch.set_params(records)
        except GameError:
            continue
        accepted += 1
        for _ in range(5):
            step = batch.step(torch.from_numpy(rng.integers(5, size=4)))
            assert all(space.contains(obs[0].numpy() if obs.ndim > 1 else int(obs[0])) for obs in step.obs)
    assert 15 < accepted < 135
