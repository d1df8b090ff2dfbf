"""The noisy-TV index: where its steps come from, which of them count, and which rows meet the target."""

import pytest
import torch

from mlbits.envs.exploration.noisy_tv import PRESS
from mlbits.evals.reproductions.exploration.noisy_tv import CLAIMS, HALF, SIZE, TVS, measure, met, walk


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_walkers_stay_in_the_left_half_until_they_cross():
    known = walk("press", 60, draw(), 0)
    assert int(known.after.max()) == HALF - 1
    assert not known.unseen.any()
    found = walk("press", 60, draw(1), 0, crossing=12)
    assert int(found.after[:48].max()) == HALF - 1
    assert found.unseen[48:].any()
    assert not found.unseen[:48].any()
    assert (found.steps.action[48:] != PRESS).all()
    assert bool((found.presses & found.unseen).any()) is False


def test_steps_follow_one_another_and_say_where_they_led():
    found = walk("always", 20, draw(), 3, crossing=5)
    assert torch.equal(found.steps.obs[1:], found.steps.next_obs[:-1])
    assert torch.equal(found.steps.next_obs[..., : SIZE * SIZE].argmax(-1), found.cell)
    assert torch.equal(found.before[1:], found.after[:-1])


def rows(**indices):
    default = {"pixels": [1.5, 1.2], "rnd": [0.1, 0.19], "icm": [0.1, 0.1], "lwm": [0.9, 0.1]}
    return [
        {"bonus": name, "tv": tv, "indices": [indices.get(f"{name}_{tv}", default[name][k])]}
        for k, tv in enumerate(TVS)
        for name in default
    ]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({}, True), ({"pixels_press": 0.99}, False), ({"rnd_always": 0.21}, False), ({"icm_press": 0.5}, False),
     ({"lwm_always": 0.3}, False), ({"pixels_always": 0.1}, True), ({"lwm_press": 3.0}, True)],
)  # fmt: skip
def test_the_target_is_met_only_if_every_claim_holds(changed, expected):
    assert met(rows(**changed)) is expected
    assert ("lwm", "press") not in CLAIMS


def test_a_bonus_learns_the_half_that_it_saw():
    found = measure("rnd", "press", seed=0, updates=200)
    assert 0 < found["index"] < 1
    known = torch.tensor(found["map"])
    assert known[:, :HALF].mean() < 0.5 * known[:, HALF:].mean()
