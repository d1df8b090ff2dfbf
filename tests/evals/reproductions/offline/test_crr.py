"""``mlbits reproduce crr``: its behaviours, the alignment of the peer's data, and its short form."""

import json
import sys
import types

import numpy as np
import pytest
import torch

from mlbits.evals.optimal_return import reference_returns
from mlbits.evals.reproductions.offline import behaviours, crr, d3rlpy_peer
from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.selfplay.episodes import play_episodes
from tests.agents.offline.data import noise


def mean_return(rule, env, num_actions, episodes=20):
    return play_episodes(behaviours.Rule(rule, num_actions, 0.0), env, episodes, seed=3).returns.mean()


def test_behaviours_are_as_good_and_bad_as_they_are_called():
    assert mean_return(behaviours.balances, behaviours.CARTPOLE, 2) > 475
    assert mean_return(behaviours.topples, behaviours.CARTPOLE, 2) < 15
    best = behaviours.way_to_the_goal(behaviours.GRID)
    optimum = reference_returns(behaviours.GRID, {}).optimum
    assert mean_return(best, behaviours.GRID, 4) == pytest.approx(optimum)
    assert mean_return(behaviours.away(best, 4), behaviours.GRID, 4) < 0


def test_datasets_are_the_same_every_time():
    rule = behaviours.Rule(behaviours.balances, 2, 0.5)
    parts = [(rule, 3), (behaviours.random_player(behaviours.CARTPOLE), 4)]
    one, two = (behaviours.recorded(behaviours.CARTPOLE, parts, seed=2) for _ in range(2))
    assert one.num_episodes == 7
    assert torch.equal(one.obs, two.obs)
    assert torch.equal(one.action, two.action)


def test_the_peer_gets_observations_beside_their_actions(monkeypatch, tmp_path):
    data, given = noise(episodes=4, length=5), {}

    class Algorithm:
        def create(self, device):
            return self

        def fit(self, buffer, **settings):
            given["episodes"] = buffer

    fake = types.SimpleNamespace(
        seed=lambda seed: None,
        dataset=types.SimpleNamespace(
            Episode=lambda **fields: fields,
            ReplayBuffer=lambda buffer, episodes: episodes,
            InfiniteBuffer=lambda: None,
        ),
        algos=types.SimpleNamespace(CRRConfig=lambda **settings: Algorithm()),
    )
    names = ("StandardObservationScaler", "MinMaxActionScaler", "StandardRewardScaler", "NoopAdapterFactory")
    others = types.SimpleNamespace(**{name: lambda: None for name in names})
    for name, module in (("d3rlpy", fake), ("d3rlpy.preprocessing", others), ("d3rlpy.logging", others)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(d3rlpy_peer, "played", lambda algorithm: -1.0)
    arrays = ("obs", "action", "reward", "terminated", "starts")
    np.savez(tmp_path / "data.npz", **{name: getattr(data, name).numpy() for name in arrays})
    d3rlpy_peer.main(str(tmp_path / "data.npz"), str(tmp_path / "result.json"), seed=0, steps=1)
    assert json.loads((tmp_path / "result.json").read_text())["return_mean"] == -1.0
    for theirs, ours in zip(given["episodes"], data, strict=True):
        assert np.array_equal(theirs["observations"], ours.obs[:-1].numpy())
        assert np.array_equal(theirs["actions"], ours.action.numpy())
        assert np.array_equal(theirs["rewards"][:, 0], ours.reward.numpy())
        assert theirs["terminated"] is False


def test_errors():
    with pytest.raises(ReproductionError, match="seeds: got 0; wanted at least 1"):
        crr.reproduce(seeds=0)
    with pytest.raises(ReproductionError, match=r"peer_python: d3rlpy failed: .*d3rlpy"):
        crr.peer(sys.executable, noise(), seeds=1)


@pytest.mark.slow
def test_the_short_form_meets_its_target():
    result = crr.reproduce(quick=True)
    assert result["met"]
    pendulum = result["pendulum"]["returns"]
    assert pendulum["crr exp"][0] > -350
    assert pendulum["crr exp"][0] > pendulum["bc"][0] + 400
    assert result["gridworld"]["returns"]["crr binary"][0] == pytest.approx(result["gridworld"]["optimum"], rel=0.05)
