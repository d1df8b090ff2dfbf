"""GameBatch by hand on small games: ends of episodes, limits, passes, views, seeds, and errors."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import mlbits
from mlbits.envs.core.errors import DeviceError, GameError, IllegalActionError
from mlbits.envs.engine import cpu_copies as copies_module
from mlbits.envs.engine.batch import GameBatch, parse_device
from tests.games import nim, point, signs, throws, tug

RIGHT, STAY = 1, 0
ROOT = Path(__file__).parents[3]


def corridor(**arguments: Any) -> GameBatch:
    """Two copies of a corridor of four cells; the agent starts at the left, the goal is at the right."""
    settings = {"map": "S..G", "step_cost": 0.25, "horizon": 5, **arguments}
    return mlbits.make_batch("mlbits/GridWorld-v0", 2, **settings)


def moves(*actions: int) -> torch.Tensor:
    return torch.tensor(actions)


def test_an_episode_by_hand() -> None:
    batch = corridor()
    assert batch.obs.tolist() == [[0], [0]]
    seen = []
    for action in (RIGHT, RIGHT, RIGHT, RIGHT):
        step = batch.step(moves(action, STAY))
        seen.append([step.obs.tolist(), step.reward.tolist(), step.terminated.tolist(), step.truncated.tolist()])
    assert seen == [
        [[[1], [0]], [[-0.25], [-0.25]], [False, False], [False, False]],
        [[[2], [0]], [[-0.25], [-0.25]], [False, False], [False, False]],
        [[[0], [0]], [[1.0], [-0.25]], [True, False], [False, False]],
        [[[1], [0]], [[-0.25], [-0.25]], [False, False], [False, False]],
    ]


def test_the_time_limit_truncates_and_does_not_terminate() -> None:
    batch = corridor()
    for t in range(1, 12):
        step = batch.step(moves(STAY, STAY))
        assert step.truncated.tolist() == [t % 5 == 0] * 2
        assert not step.terminated.any()
    assert batch.records()["elapsed"].tolist() == [1, 1]


def test_without_a_horizon_nothing_is_truncated() -> None:
    batch = corridor(horizon=None)
    for _ in range(300):
        assert not batch.step(moves(STAY, STAY)).truncated.any()
    assert batch.records()["elapsed"].tolist() == [300, 300]


def test_an_episode_may_be_terminated_and_truncated_at_once() -> None:
    step = corridor(horizon=3)
    for _ in range(2):
        step.step(moves(RIGHT, STAY))
    result = step.step(moves(RIGHT, STAY))
    assert result.terminated.tolist() == [True, False]
    assert result.truncated.tolist() == [True, True]


def test_rules_may_truncate_by_themselves() -> None:
    batch = GameBatch(point(noise=0.0, horizon=None), 1)
    outward = torch.sign(batch.obs) + (batch.obs == 0)
    for _ in range(20):
        step = batch.step(outward)
        if step.truncated:
            break
    assert step.truncated and not step.terminated
    assert step.final_obs.norm() > 1.5


def test_final_obs_is_the_last_observation_and_obs_the_first_of_the_next_episode() -> None:
    batch = corridor()
    for _ in range(3):
        step = batch.step(moves(RIGHT, STAY))
    assert step.terminated.tolist() == [True, False]
    assert (step.final_obs[0].item(), step.obs[0].item()) == (3, 0)


def test_next_step_ignores_the_action_of_the_step_that_resets() -> None:
    batch = corridor(autoreset="next_step")
    for _ in range(3):
        step = batch.step(moves(RIGHT, STAY))
    assert (step.obs[0].item(), step.terminated[0].item()) == (3, True)
    step = batch.step(moves(99, STAY))  # not even checked, since the copy does not play it
    assert (step.obs[0].item(), step.reward[0].item(), step.terminated[0].item()) == (0, 0.0, False)
    assert batch.records()["elapsed"].tolist() == [0, 4]


def test_next_step_clears_truncated_too() -> None:
    batch = corridor(autoreset="next_step")
    cuts = [batch.step(moves(STAY, STAY)).truncated.tolist() for _ in range(7)]
    assert cuts == [[False] * 2] * 4 + [[True] * 2] + [[False] * 2] * 2
    assert batch.records()["elapsed"].tolist() == [1, 1]


def test_every_seat_with_an_illegal_action_forfeits() -> None:
    batch = GameBatch(throws(), 2, illegal="forfeit", autoreset="disabled")
    step = batch.step(torch.tensor([[3, 0, 9], [-1, -1, -1]]))
    assert step.reward.tolist() == [[-1, 0, -1], [-1, -1, -1]]
    assert step.terminated.all() and not step.truncated.any()
    assert batch.records()["elapsed"].tolist() == [1, 1], "it counts as a step of the episode"


def test_passes() -> None:
    """Two players in turn: the one to move is active; the other's only legal action is 0."""
    batch = GameBatch(nim(), 1)
    assert batch.active.tolist() == [[True, False]]
    assert batch.legal_mask[0, 1].tolist() == [True] + [False] * 8
    heaps = batch.records()["heap"][0]
    wanted = [take <= heap for heap in heaps for take in (1, 2, 3)]
    assert batch.legal_mask[0, 0].tolist() == wanted
    batch.step(torch.tensor([[0, 0]]))
    assert batch.active.tolist() == [[False, True]]
    assert batch.records()["heap"][0].tolist() == [heaps[0] - 1, heaps[1], heaps[2]]


def test_masks_at_the_end_of_a_game_allow_all() -> None:
    batch = GameBatch(nim(largest=1), 1, autoreset="disabled")
    for heap in (0, 1, 2):
        assert not batch.terminated
        step = batch.step(torch.full((1, 2), 3 * heap))
    assert step.terminated
    assert step.reward.tolist() == [[1.0, -1.0]], "the first player took the last piece"
    assert batch.legal_mask.all()
    assert not batch.active.any()


def test_resetting_some_copies() -> None:
    batch = corridor()
    batch.step(moves(RIGHT, RIGHT))
    obs = batch.reset(which=torch.tensor([False, True]))
    assert obs.tolist() == [[1], [0]]
    assert batch.records()["elapsed"].tolist() == [1, 0]


def test_seeding_some_copies_leaves_the_other_streams_unchanged() -> None:
    batch = mlbits.make_batch("mlbits/FourRooms-v0", 3, seed=5)
    before = batch.records()
    batch.reset(seed=6, which=torch.tensor([False, True, False]))
    after, fresh = batch.records(), mlbits.make_batch("mlbits/FourRooms-v0", 3, seed=6).records()
    assert after["rng_key"].tolist() == [before["rng_key"][0], fresh["rng_key"][1], before["rng_key"][2]]
    assert after[[0, 2]].tobytes() == before[[0, 2]].tobytes()
    assert after[1] == fresh[1]


def test_the_same_seed_repeats_and_no_seed_continues_the_stream() -> None:
    batch = mlbits.make_batch("mlbits/FourRooms-v0", 20, seed=5)
    first = batch.obs.clone()
    second = batch.reset().clone()
    assert not torch.equal(first, second)
    assert torch.equal(batch.reset(seed=5), first)
    assert torch.equal(batch.reset(), second)
    assert not torch.equal(batch.reset(seed=6), first)


def test_tensors_are_views_of_the_batch() -> None:
    batch = corridor()
    step = batch.step(moves(RIGHT, STAY))
    assert step.obs is batch.obs
    kept = step.reward
    batch.step(moves(RIGHT, RIGHT))
    assert step.obs.tolist() == [[2], [1]]
    assert kept.data_ptr() == batch.reward.data_ptr() == batch.step(moves(STAY, STAY)).reward.data_ptr()


def test_dict_observations_are_views_too() -> None:
    batch = GameBatch(signs(), 3)
    assert {key: (part.dtype, tuple(part.shape)) for key, part in batch.obs.items()} == {
        "image": (torch.uint8, (3, 1, 2, 4, 4)),
        "vector": (torch.float32, (3, 1, 3)),
        "count": (torch.int32, (3, 1)),
        "last": (torch.int32, (3, 1, 2)),
    }
    for _ in range(4):
        batch.step(batch.sample_actions())
        records = batch.records()
        assert batch.obs["count"][:, 0].tolist() == (records["count"] % 8).tolist()
        assert batch.obs["vector"][:, 0, 0].tolist() == records["drift"].tolist()
        assert batch.obs["last"][:, 0, 0].tolist() == records["last"].tolist()
        assert batch.obs["image"][:, 0, 0].reshape(3, 16).argmax(1).tolist() == records["cell"].tolist()


def test_shapes_and_dtypes_by_seats() -> None:
    batch = GameBatch(throws(), 5)
    step = batch.step(torch.zeros(5, 3, dtype=torch.int64))
    assert tuple(step.obs.shape) == (5, 3, 9)
    assert tuple(step.reward.shape) == (5, 3)
    assert tuple(step.terminated.shape) == tuple(step.truncated.shape) == (5,)
    assert (step.obs.dtype, step.reward.dtype, step.terminated.dtype) == (
        torch.int8,
        torch.float32,
        torch.bool,
    )
    assert (batch.legal_mask, batch.active) == (None, None)


@pytest.mark.parametrize(
    "actions",
    [
        torch.tensor([[1], [1]]),
        torch.tensor([1, 1]),
        torch.tensor([1, 1], dtype=torch.int32),
        torch.tensor([[1], [1]], dtype=torch.uint8),
        np.array([1, 1]),
        np.array([[1], [1]], np.int8),
        [1, 1],
        torch.tensor([[1, 7], [1, 7]])[:, :1],
    ],
)
def test_accepted_forms_of_actions(actions: Any) -> None:
    assert corridor().step(actions).obs.tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (torch.tensor([1, 1, 1]), r"got torch.int64 \(3,\); wanted torch.int64 \(2, 1\)"),
        (torch.tensor([[1, 1]]), r"got torch.int64 \(1, 2\)"),
        (torch.tensor(1), "actions: got"),
        (torch.tensor([1.0, 1.0]), "got dtype torch.float32; wanted torch.int64"),
        (torch.tensor([True, True]), "got dtype torch.bool"),
        (torch.tensor([1, 4]), r"copy 1, seat 0 in GridWorld: got 4; wanted 0\.\.3"),
        (torch.tensor([-1, 4]), "copy 0, seat 0 in GridWorld: got -1"),
    ],
)
def test_refused_actions(actions: Any, message: str) -> None:
    batch = corridor()
    with pytest.raises(IllegalActionError, match=message):
        batch.step(actions)
    assert batch.records()["elapsed"].tolist() == [0, 0]


def test_errors_list_the_legal_actions() -> None:
    batch = GameBatch(nim(largest=1), 1)
    with pytest.raises(IllegalActionError, match=r"seat 0 in Nim: got 1; wanted one of \[0, 3, 6\]"):
        batch.step(torch.tensor([[1, 0]]))
    several = GameBatch(signs(), 1)
    several.set_state(record_with(several, cell=4, last=1))
    with pytest.raises(IllegalActionError, match=r"got \[1, 0\]; wanted one of \[0, 2\] x one of \[0, 1\]"):
        several.step(torch.tensor([[1, 0]]))
    rope = GameBatch(tug(), 1)
    with pytest.raises(IllegalActionError, match=r"got \[-1.0\]; wanted finite numbers from \[0.0\] to \[inf\]"):
        rope.step(torch.full((1, 2, 1), -1.0))


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("low", "high", "legal"),
    [
        (-INF, INF, [-3e38, -1.0, 0.0, 3e38]),
        (0.5, INF, [0.5, 3e38]),
        (-INF, -2.0, [-3e38, -2.0]),
        (-1.0, 1.0, [-1.0, 0.0, 1.0]),
    ],
)
def test_numbers_that_are_not_finite_are_illegal_actions(low: float, high: float, legal: list[float]) -> None:
    batch = GameBatch(dataclasses.replace(point(), action_space=spaces.Box(low, high, (2,))), 1)
    for action in legal:
        batch.reset(seed=0)
        batch.step(torch.full((1, 2), action))
    batch.reset(seed=0)
    for wrong in (INF, -INF, NAN):
        for action in ([wrong, legal[0]], [legal[0], wrong]):
            with pytest.raises(IllegalActionError, match="wanted finite numbers from"):
                batch.step(torch.tensor([action]))
    assert batch.records()["elapsed"].tolist() == [0]


@pytest.mark.parametrize(
    ("low", "high", "given", "played"),
    [
        # out of range: the nearest bound; NaN or infinite: the legal number nearest to 0
        (-2.0, 4.0, [-5.0, 9.0, INF, -INF, NAN, 1.5], [-2.0, 4.0, 4.0, -2.0, 0.0, 1.5]),
        (1.0, 3.0, [-5.0, 9.0, INF, -INF, NAN], [1.0, 3.0, 3.0, 1.0, 1.0]),
        (-3.0, -1.0, [-5.0, 9.0, INF, -INF, NAN], [-3.0, -1.0, -1.0, -3.0, -1.0]),
        (-INF, INF, [-5.0, INF, -INF, NAN], [-5.0, 0.0, 0.0, 0.0]),
        (2.0, INF, [1.0, INF, -INF, NAN], [2.0, 2.0, 2.0, 2.0]),
        (-INF, 2.0, [3.0, INF, -INF, NAN], [2.0, 2.0, 0.0, 0.0]),
    ],
)
def test_replacements_of_illegal_actions(low: float, high: float, given: Any, played: Any) -> None:
    """Two batches with one seed; one is given the action that should be played."""
    game = dataclasses.replace(point(noise=0.0, horizon=None), action_space=spaces.Box(low, high, (2,)))
    for action, wanted in zip(given, played, strict=True):
        batch = GameBatch(game, 1, illegal="replace", autoreset="disabled", seed=3)
        before = batch.records()["x"].item()
        batch.step(torch.tensor([[action, 0.0]]))
        assert batch.records()["x"].item() - before == pytest.approx(0.3 * wanted, abs=1e-5), action


def record_with(batch: GameBatch, **values: Any) -> np.ndarray:
    records = batch.records()
    for name, value in values.items():
        records[name] = value
    return records


@pytest.mark.parametrize(("low", "high"), [(5, np.inf), (-np.inf, -5), (-np.inf, np.inf), (2, 3), (-0.1, 0.1)])
def test_continuous_actions_are_sampled_within_their_bounds(low: float, high: float) -> None:
    batch = GameBatch(dataclasses.replace(point(), action_space=spaces.Box(low, high, (2,))), 500)
    actions = batch.sample_actions()
    assert torch.isfinite(actions).all()
    assert (actions >= low).all() and (actions <= torch.tensor(high, dtype=torch.float32)).all()
    assert actions.std() > 0
    batch.step(actions)


def test_sampled_actions_are_uniform_over_the_legal_ones() -> None:
    batch = GameBatch(signs(), 3000)
    batch.set_state(record_with(batch, cell=4, last=1))
    actions = batch.sample_actions()[:, 0]
    counts = torch.stack([(actions == torch.tensor(pair)).all(1).sum() for pair in [(0, 0), (0, 1), (2, 0), (2, 1)]])
    assert counts.sum() == 3000
    assert ((counts - 750).abs() < 4 * (3000 * 0.25 * 0.75) ** 0.5).all()


def test_several_threads_are_used_for_many_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies_module, "_COPIES_A_THREAD", 4)
    monkeypatch.setattr(copies_module, "usable_cores", lambda: 2)
    many, few = GameBatch(throws(), 9, seed=1), GameBatch(throws(), 3, seed=1)
    assert (many.copies._threads, few.copies._threads) == (2, 1)
    actions = torch.arange(27).reshape(9, 3) % 3
    for _ in range(5):
        assert torch.equal(many.step(actions).reward[:3], few.step(actions[:3]).reward)


def test_several_cores_from_several_threads_and_after_a_fork() -> None:
    """Numba's own threads allow neither; in a separate process, since a failure ends it."""
    code = """
import os, threading
import numpy as np
from mlbits.envs.engine.cpu_copies import Copies
from tests.games import throws

copies = [Copies(throws(), 8, threads=2) for _ in range(3)]
actions = np.zeros((8, 3), np.int64)

def play(one):
    one.reset()
    for _ in range(200):
        one.step(actions)

threads = [threading.Thread(target=play, args=(one,)) for one in copies]
for thread in threads: thread.start()
for thread in threads: thread.join()
copies[1].step(actions)
if hasattr(os, "fork"):
    child = os.fork()
    copies[0].step(actions)
    if child == 0:
        os._exit(0 if (copies[0].states == copies[1].states).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
assert (copies[0].states == copies[2].states).sum() == 0
"""
    for layer in ("default", "workqueue"):
        environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT, env=environment)


def test_errors_of_the_constructor() -> None:
    game = throws()
    for arguments, message in [
        ({"num_envs": 0}, "num_envs: got 0"),
        ({"num_envs": 2.5}, "num_envs: got 2.5"),
        (
            {"autoreset": "never"},
            "autoreset: got 'never'; wanted one of 'disabled', 'next_step', 'same_step'",
        ),
        ({"illegal": "ignore"}, "illegal: got 'ignore'; wanted one of 'error', 'replace', 'forfeit'"),
    ]:
        with pytest.raises(GameError, match=message):
            GameBatch(game, **{"num_envs": 2, **arguments})
    with pytest.raises(GameError, match="games: got 3 for 2 copies"):
        GameBatch([game] * 3, 2)
    with pytest.raises(GameError, match=r"games\[1\]: differs"):
        GameBatch([game, nim()], 2)
    with pytest.raises(ValueError, match="1 seeds for 2 copies"):
        GameBatch(game, 2, seed=[1])


@pytest.mark.parametrize(
    "which",
    [np.array([True, False]), torch.tensor([1, 0]), torch.tensor([True]), [True, False], torch.tensor(True)],
)
def test_which_must_be_a_bool_tensor(which: Any) -> None:
    with pytest.raises(GameError, match=r"which: got .*; wanted a torch.bool tensor \(2,\)"):
        corridor().reset(which=which)


def test_states_of_a_wrong_shape_or_dtype() -> None:
    batch = corridor()
    size = batch.game.state_dtype.itemsize
    for bad in (
        torch.zeros(2, 4, dtype=torch.uint8),
        torch.zeros(3, size, dtype=torch.uint8),
        torch.zeros(2, size),
        np.zeros(2),
        np.zeros(3, batch.game.state_dtype),
    ):
        with pytest.raises(GameError, match="state: got"):
            batch.set_state(bad)


def test_rendering_errors() -> None:
    batch = corridor()
    with pytest.raises(GameError, match="render mode: got 'human'"):
        batch.render("human")
    for copy in (-1, 2):
        with pytest.raises(GameError, match=rf"copy: got {copy}; wanted 0\.\.1"):
            batch.render("ansi", copy=copy)


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:x", "", "meta"])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(DeviceError, match=f"device: got '{device}'; wanted 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        parse_device(device)


def test_cuda_on_a_machine_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba_cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert parse_device("auto").type == "cpu"
    for device in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match=f"device: got '{device}', and 0 usable CUDA devices"):
            GameBatch(throws(), 2, device=device)


def test_cuda_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    with pytest.raises(DeviceError, match=r'pip install "mlbits\[gpu\]"'):
        GameBatch(throws(), 2, device="cuda")


def test_stepping_on_several_cores_does_not_change_torchs_threads() -> None:
    """In a separate process, since only the first such step sets anything."""
    code = """
import torch
torch.set_num_threads(1)
from mlbits.envs.engine.batch import GameBatch
from tests.games import throws

batch = GameBatch(throws(), 8, threads=2)
for _ in range(3):
    batch.step(torch.zeros(8, 3, dtype=torch.int64))
assert batch.copies._threads == 2
print(torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["1"]
