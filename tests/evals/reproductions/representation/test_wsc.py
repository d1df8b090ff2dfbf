"""``mlbits reproduce wsc-encoder`` and ``wsc-control``: what they measure, and what counts as met."""

import numpy as np
import pytest
import torch

from mlbits.agents.agent import Decision
from mlbits.agents.representation.wsc import WSCConfig
from mlbits.evals.reproductions.representation import wsc_control, wsc_encoder


def test_correlations_are_those_of_numpy_and_0_for_what_never_varies():
    rng = np.random.default_rng(0)
    latents, factors = rng.random((50, 3)), rng.random((50, 2))
    latents[:, 1] = 0.25
    found = wsc_encoder.correlations(latents, factors)
    for z in (0, 2):
        for k in range(2):
            assert found[z, k] == pytest.approx(np.corrcoef(latents[:, z], factors[:, k])[0, 1])
    assert (found[1] == 0).all()


def test_pictures_are_those_of_the_factors_beside_them():
    pictures, factors = wsc_encoder.pictures_of(30, seed=3, blocks=2)
    assert pictures.shape == (30, 3, 24, 24)
    assert factors.shape == (30, 7)
    light = pictures[:, :, 0, 0].float().mean(1).numpy()  # a corner, which nothing covers in most pictures
    assert np.corrcoef(light, factors[:, -1])[0, 1] > 0.9


@pytest.mark.parametrize(("worst", "seconds", "met"), [(0.81, 20.0, True), (0.79, 20.0, False), (0.9, 31.0, False)])
def test_the_encoders_target(monkeypatch, worst, seconds, met):
    found = np.full(9, 0.9)
    found[4] = worst
    monkeypatch.setattr(wsc_encoder, "measured", lambda kind, seed, iterations: (found, seconds))
    result = wsc_encoder.reproduce(quick=True)
    assert result["met"] is met
    assert result["rows"][0]["worst"] == worst


@pytest.mark.slow
def test_the_encoders_target_is_met():
    assert wsc_encoder.reproduce(quick=True)["rows"][0]["worst"] >= 0.8


class Pushes:
    """An agent that always moves one way."""

    def __init__(self, *action):
        self.action = torch.tensor(action)

    def act(self, obs, legal_mask, generator, *, greedy=False):
        assert greedy
        action = self.action.expand(len(obs["factors"]), -1)
        return Decision(action, action, None)


def test_final_distances_are_of_the_last_step_of_an_episode():
    settings = {"observation": "both", "blocks": 2}
    still = wsc_control.final_distances(None, settings, seed=1, episodes=60)
    assert still.shape == (60,)
    assert still.mean() == pytest.approx(0.29, abs=0.05)
    assert np.array_equal(still, wsc_control.final_distances(Pushes(0.0, 0.0), settings, seed=1, episodes=60))
    right = wsc_control.final_distances(Pushes(1.0, 0.0), settings, seed=1, episodes=60)
    changed = (right != still).mean()
    assert 0.05 < changed < 0.5  # where a block stands to the right of the hand


def test_every_arm_is_one_of_the_agents_settings():
    for settings in wsc_control.ARMS.values():
        WSCConfig(**settings)


@pytest.mark.parametrize(("rank", "rig", "met"), [((0.1, 0.11), (0.2, 0.21), True), ((0.1, 0.3), (0.15, 0.2), False)])
def test_the_claim_is_about_intervals(monkeypatch, rank, rig, met):
    means = {"rank": rank, "rig": rig, "skew-fit": rig}
    runs = []

    def train(agent, env, seed, *flags, out):
        kind = next(flag.partition("=")[2] for flag in flags if "representation" in flag)
        arm = "skew-fit" if "--agent.goals=skewed" in flags else {"vae": "rig"}.get(kind, kind)
        runs.append((arm, seed))
        return {"cpu_seconds": 1.0}

    def far(agent, settings, seed, episodes=200):
        arm, number = runs[-1] if runs else ("factors", 0)
        return np.full(4, means.get(arm, (0.05, 0.06))[number % 2])

    monkeypatch.setattr(wsc_control, "train_in_process", train)
    monkeypatch.setattr(wsc_control, "load_agent", lambda folder: (object(), None, None))
    monkeypatch.setattr(wsc_control, "final_distances", far)
    interval = wsc_control.mean_interval
    monkeypatch.setattr(wsc_control, "mean_interval", lambda v: (interval(v)[0], (min(v), max(v))))
    result = wsc_control.reproduce(seeds=2)
    assert [row["arm"] for row in result["rows"]] == list(wsc_control.ARMS)
    assert result["met"] is met
