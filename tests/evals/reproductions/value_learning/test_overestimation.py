"""``mlbits reproduce overestimation``: single learning overestimates, double learning does not."""

import numpy as np
import pytest
import torch
from PIL import Image

from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.evals.reproductions.value_learning import overestimation
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session


@pytest.mark.slow
def test_the_table_overestimates_without_double_learning():
    result = overestimation.reproduce(quick=True)
    assert result["met"]
    late = {form: np.mean(result["table"][form], axis=0)[5:].mean() for form in ("single", "double")}
    # Ten estimates with a step size of 0.1 deviate by 0.23, the greatest of them by 0.35; 1 / (1 - 0.9) is 10 of that.
    assert 2.5 < late["single"] < 4.5
    assert abs(late["double"]) < 1


def test_a_networks_error_is_relative_to_exact_values():
    settings = {"run": {"num_envs": 1, "device": "cpu"}, "env_settings": overestimation.SLIPPERY}
    session = open_session(resolve("dqn", overestimation.GRID, preset="none", **settings))
    network = session.learner.network
    for parameter in network.parameters():
        parameter.data.zero_()
    network.mlp.head_bias.data.copy_(torch.tensor([1.0, 0.0, 5.0, 2.0]))  # max Q is 5 in every cell
    exact = overestimation.NetworkError(0.99)
    assert len(exact.cells) == 9  # of 4 x 3 one is a wall, two end the episode
    assert exact(session) == pytest.approx(5 - exact.value.mean(), abs=1e-6)
    assert 0.8 < exact.value.mean() < 0.95


def test_pictures(tmp_path):
    steps = np.linspace(1, 10, 10)
    runs = np.random.default_rng(0).normal(size=(3, 10))
    results = {name: {"steps": steps, "single": runs + 1, "double": runs} for name in ("table", "dqn")}
    overestimation.draw(results, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size[0] > 800
    with pytest.raises(ReproductionError, match="cannot be written"):
        overestimation.draw(results, tmp_path / "absent" / "plot.png")
