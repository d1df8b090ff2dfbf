"""Exported agents compute what the agents do: each family, masks, Dicts of observations, batches of any size."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents.networks.orders import OrderDistribution
from mlbits.evals import export
from mlbits.evals.evaluate import load_agent
from mlbits.evals.export import ExportError, export_run, plain_code
from mlbits.selfplay.runs.config import resolve
from tests.evals.recorded import write_run

TINY = {"total_steps": 64, "num_envs": 4, "eval_episodes": 1, "video": False, "device": "cpu"}
SHORT, EARLY = {"num_steps": 16, "hidden": [8]}, {"learning_starts": 0, "batch_size": 8, "hidden": [8, 8]}
PIXELS = {"map": "S.G", "observation": "pixels"}
# Agent, environment, settings of both, and the outputs.
CASES = {
    "index": ("ppo", "mlbits/GridWorld-v0", SHORT, {"map": "S.G"}, "action probabilities value"),
    "pixels": ("trpo", "mlbits/GridWorld-v0", SHORT, PIXELS, "action probabilities value"),
    "continuous": ("ppo", "mlbits/Pendulum-v0", SHORT | {"normalize_obs": True}, {}, "action distribution value"),
    "no critic": ("reinforce", "mlbits/CartPole-v0", {"baseline": "none"}, {}, "action probabilities"),
    "masked q": ("dqn", "mlbits/Knapsack-v0", EARLY | {"head": "categorical"}, {}, "action q_values value"),
    "deterministic": ("ddpg", "mlbits/Pendulum-v0", EARLY, {}, "action"),
    "entropy": ("sac", "mlbits/Pendulum-v0", EARLY, {}, "action"),
    "masked entropy": ("sac", "mlbits/Knapsack-v0", EARLY, {}, "action probabilities"),
    "table": ("q-learning", "mlbits/GridWorld-v0", {}, {"map": "S.G"}, "action q_values value"),
    "classifier": ("classifier", "mlbits/Digits-v0", {"hidden": [8]}, {}, "action probabilities"),
    "population": ("es", "mlbits/GridWorld-v0", {"pairs": 1, "population": 2, "hidden": [4]}, {"map": "S.G"},
                   "action probabilities"),
    "archive": ("map-elites", "mlbits/PointMass-v0", {"policies": 4, "low": [-9, -9], "high": [9, 9], "hidden": [4]},
                {}, "action"),
    "members": ("dvd", "mlbits/PointMass-v0", EARLY | {"population": 2, "replay_ratio": 0.1}, {}, "action"),
    "sb3 actor-critic": ("sb3-a2c", "mlbits/CartPole-v0", {}, {}, "action probabilities value"),
    "sb3 q": ("sb3-dqn", "mlbits/CartPole-v0", {"learning_starts": 0}, {}, "action q_values value"),
    "sb3 squashed": ("sb3-sac", "mlbits/Pendulum-v0", {"learning_starts": 0}, {}, "action"),
}  # fmt: skip


def trained(folder, agent, env, settings, env_settings):
    run = TINY | ({"num_envs": 6} if agent == "es" else {})  # two members, a pair of trials each
    mlbits.train(
        agent, env, out=folder, preset="none", agent_settings=settings, env_settings=env_settings, console=False,
        measure=None, **run,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def knapsack(tmp_path_factory):
    """A PPO run in an environment with masks."""
    return trained(tmp_path_factory.mktemp("runs") / "run", "ppo", "mlbits/Knapsack-v0", SHORT, {})


@pytest.mark.parametrize("case", CASES)
def test_torchscript_equals_the_agent(case, tmp_path):
    agent, env, settings, env_settings, outputs = CASES[case]
    run = trained(tmp_path / "run", agent, env, settings, env_settings)
    report = export_run(run, torchscript=tmp_path / "agent.pt")
    assert report["about"]["outputs"] == outputs.split()
    assert report["torchscript"]["checked"]
    assert report["torchscript"]["largest_difference"] < 1e-5
    extra = {"mlbits": ""}
    torch.jit.load(str(tmp_path / "agent.pt"), _extra_files=extra)
    about = json.loads(extra["mlbits"])
    assert (about["agent"], about["env"], about["env_settings"]) == (agent, env, env_settings)


def test_onnx_plays_as_the_agent_does(knapsack, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    report = export_run(knapsack, onnx=tmp_path / "agent.onnx")
    assert report["onnx"]["checked"]
    assert report["onnx"]["largest_difference"] < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["agent.onnx"]  # the weights are inside
    session = onnxruntime.InferenceSession(str(tmp_path / "agent.onnx"))
    assert [one.name for one in session.get_inputs()] == ["obs", "action_mask"]
    assert [one.name for one in session.get_outputs()] == ["action", "probabilities", "value"]
    batch = mlbits.make_batch("mlbits/Knapsack-v0", 7)
    agent, _, _ = load_agent(knapsack)
    obs, mask = batch.obs[:, 0], batch.legal_mask[:, 0]
    action, probabilities, value = session.run(None, {"obs": obs.numpy(), "action_mask": mask.numpy()})
    assert action.tolist() == agent.act(obs, mask, torch.Generator(), greedy=True).action.tolist()
    np.testing.assert_allclose(probabilities, agent.action_probabilities(obs, mask), atol=1e-6)
    np.testing.assert_allclose(value, agent.state_values(obs), atol=1e-6)
    assert (probabilities[~mask.numpy()] == 0).all()
    (about,) = [prop.value for prop in onnx.load(tmp_path / "agent.onnx").metadata_props if prop.key == "mlbits"]
    about = json.loads(about)
    assert (about["mlbits"], about["env"], about["env_steps"]) == (mlbits.__version__, "mlbits/Knapsack-v0", 64)
    assert about["inputs"]["action_mask"] == {"dtype": "bool", "shape": ["batch", 10]}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_onnx_equals_the_agent(case, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    run = trained(tmp_path / "run", *CASES[case][:4])
    assert export_run(run, onnx=tmp_path / "agent.onnx")["onnx"]["checked"]


def test_a_file_that_differs_is_refused(knapsack, tmp_path, monkeypatch):
    real = export._write_torchscript

    def wrong(*words):
        run = real(*words)
        return lambda values: [*run(values)[:2], run(values)[2] + 2e-5]

    monkeypatch.setattr(export, "_write_torchscript", wrong)
    with pytest.raises(ExportError, match=r"agent.pt: differs from the agent by 2e-05; wanted at most 1e-05"):
        export_run(knapsack, torchscript=tmp_path / "agent.pt")


def test_a_file_for_one_row_only_is_refused(knapsack, tmp_path, monkeypatch):
    real = export._write_torchscript

    def wrong(*words):
        run = real(*words)
        return lambda values: [part[:3] for part in run(values)]

    monkeypatch.setattr(export, "_write_torchscript", wrong)
    with pytest.raises(ExportError, match=r"its action has shape \(3,\); the agent's has \(100,\)"):
        export_run(knapsack, torchscript=tmp_path / "agent.pt")


def test_agents_that_search_are_refused_by_name(tmp_path):
    run = write_run(tmp_path / "run", {}, agent="alphazero", env="mlbits/TicTacToe-v0")
    with pytest.raises(ExportError, match="alphazero searches by the rules of mlbits/TicTacToe-v0"):
        export_run(run, onnx=tmp_path / "agent.onnx")


def test_weighted_draws_are_refused_by_name(tmp_path):
    run = write_run(tmp_path / "run", {}, agent="crr", agent_settings={"critic_weighted": True}, data="a/b-v0")
    with pytest.raises(ExportError, match="crr: plays actions drawn at random"):
        export_run(run, onnx=tmp_path / "agent.onnx")


def test_the_order_network_is_refused_by_name():
    agent = SimpleNamespace(core=SimpleNamespace(distribution=OrderDistribution.__new__(OrderDistribution)))
    with pytest.raises(ExportError, match="ppo: its order network decides one order after another"):
        export._check_network(resolve("ppo", "mlbits/DiplomacyMini-v0"), agent)


def test_agents_with_memory_are_refused_by_name():
    with pytest.raises(ExportError, match=r"ppo: remembers its episode \(--agent.memory\)"):
        export._check_network(resolve("ppo", "mlbits/TMaze-v0"), SimpleNamespace(memory_size=64))


def test_what_is_missing_is_named(knapsack, tmp_path, monkeypatch):
    with pytest.raises(ExportError, match="onnx, torchscript: got neither"):
        export_run(knapsack)
    with pytest.raises(ExportError, match=r"torchscript: .*agent.pt cannot be written"):
        export_run(knapsack, torchscript=tmp_path / "missing" / "agent.pt")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r'onnxscript is not installed; wanted pip install "mlbits\[onnx\]"'):
        export_run(knapsack, onnx=tmp_path / "agent.onnx")


def test_plain_code_is_only_for_a_while(monkeypatch):
    from mlbits.agents import kernels

    monkeypatch.delenv("MLBITS_KERNELS", raising=False)
    with plain_code():
        assert not kernels.enabled()
    assert kernels.enabled()
