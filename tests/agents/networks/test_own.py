"""Networks of one's own: every agent takes an encoder, shapes are checked, weights follow the seed."""

import json
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from mlbits.agents.agent import AgentError
from mlbits.agents.kernels.tanh_mlp_passes import TanhMLPPasses
from mlbits.agents.maths.action_distributions import Categorical
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.mlp import MLP
from mlbits.agents.networks.natural_gradient import _Passes
from mlbits.agents.networks.own import OwnFeatures, factory_name, find_factory, own_network
from mlbits.agents.networks.policy_value import ActorCritic
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.agents.registry import agent_entry
from mlbits.envs.core.errors import GameError
from mlbits.selfplay.runs.config import portable, resolve, settings_from_json
from mlbits.selfplay.runs.saved_agents import load_agent
from mlbits.selfplay.session import open_session
from mlbits.selfplay.training import resume, train

HERE = __name__
VECTOR = spaces.Box(-1, 1, (4,))


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def make_encoder(observation_space, generator):
    """Torch's own initial weights."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(observation_space.shape)), 6), nn.ELU())


class PolicyAndValue(nn.Module):
    def __init__(self, observation_space, outputs, generator):
        super().__init__()
        self.body, self.head = nn.Linear(observation_space.shape[0], 8), nn.Linear(8, outputs)
        self.value = nn.Linear(8, 1)

    def forward(self, obs):
        hidden = self.body(obs).tanh()
        return self.head(hidden), self.value(hidden).squeeze(1)


def make_q(observation_space, outputs, generator):
    return nn.Linear(observation_space.shape[0], outputs)


def turned(observation_space, generator):
    return nn.Linear(4, 3, dtype=torch.float64)


def a_list(observation_space, generator):
    return [1]


def narrow(observation_space, generator):
    return nn.Linear(3, 3)


def without_generator(observation_space):
    return nn.Linear(4, 3)


def with_more(observation_space, generator, depth):
    return nn.Linear(4, 3)


SHORT = {
    "ppo": {"num_steps": 16, "minibatches": 2, "hidden": (8,)},
    "reinforce": {"returns": "gae", "baseline": "value", "num_steps": 16, "hidden": (8,)},
    "trpo": {"num_steps": 16, "hidden": (8,)},
    "dqn": {"learning_starts": 16, "batch_size": 8, "hidden": (8,), "buffer_size": 1000},
    "ddpg": {"learning_starts": 16, "batch_size": 8, "hidden": (8, 8), "buffer_size": 1000},
    "sac": {"learning_starts": 16, "batch_size": 8, "hidden": (8, 8), "buffer_size": 1000},
}


def session_of(agent, **settings):
    env = "mlbits/Pendulum-v0" if agent in ("ddpg", "sac") else "mlbits/CartPole-v0"
    run = {"total_steps": 1000, "num_envs": 4, "device": "cpu"}
    return open_session(resolve(agent, env, preset="none", run=run, agent_settings=SHORT[agent] | settings))


def learned(session, iterations):
    before = {name: value.clone() for name, value in session.learner.state_dict().items()}
    for _ in range(iterations):
        rollout, _, _ = session.collect()
        session.learn(rollout)
        session.counters.env_steps += session.steps_of(rollout)
    after = session.learner.state_dict()
    return {name for name in before if before[name].dtype.is_floating_point and not before[name].equal(after[name])}


@pytest.mark.parametrize("agent", sorted(SHORT))
@pytest.mark.parametrize("activation", ["gelu", None])
def test_every_agent_learns_through_an_encoder_of_ones_own(agent, activation):
    settings = {"encoder": make_encoder} | ({"activation": activation} if activation else {})
    session = session_of(agent, **settings)
    assert session.settings.agent_config.encoder == f"{HERE}:make_encoder"
    moved = learned(session, 12 if agent in ("dqn", "ddpg", "sac") else 1)
    encoders = {name for name in moved if ".encoder." in name and "optimizer" not in name and "target" not in name}
    assert len(encoders) in (2, 4)  # weight and bias; of actor and critic
    assert getattr(session.learner, "_compiled", None) is None


def test_the_compiled_update_of_dqn_steps_aside_for_other_activations():
    assert session_of("dqn").learner._compiled is not None
    assert session_of("dqn", activation="tanh").learner._compiled is None
    assert session_of("dqn", model=make_q).learner._compiled is None


@pytest.mark.parametrize(("agent", "model"), [("ppo", PolicyAndValue), ("dqn", make_q)])
def test_a_whole_network_of_ones_own_learns(agent, model):
    moved = learned(session_of(agent, model=model), 12 if agent == "dqn" else 1)
    assert any(".own." in name for name in moved)


def test_memory_stands_on_an_encoder_of_ones_own():
    session = session_of("ppo", encoder=make_encoder, memory="lstm", memory_width=5)
    assert session.learner.core.network.memory.inputs.tables[0].shape == (6, 20)
    assert any(".encoder." in name for name in learned(session, 1))


def test_weights_follow_the_seed_and_torchs_generator_stays_as_it_was():
    def weights(seed):
        agent = PPO(PPOConfig(encoder=f"{HERE}:make_encoder"), VECTOR, spaces.Discrete(2), seed=seed)
        return agent.state_dict()["network.features.encoder.1.weight"]

    before = torch.random.get_rng_state()
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_run_with_an_encoder_is_resumed_and_loaded_by_its_name(tmp_path):
    run = {"total_steps": 128, "num_envs": 4, "device": "cpu", "eval_episodes": 1, "video": False}
    settings = resolve(
        "ppo", "mlbits/CartPole-v0", preset="none", run=run, agent_settings=SHORT["ppo"] | {"encoder": make_encoder}
    )
    folder, _ = train(settings, tmp_path / "run", console=False)
    written = json.loads((folder / "config.json").read_text())
    assert written["agent_config"]["encoder"] == f"{HERE}:make_encoder"
    assert any(HERE.partition(".")[0] in path or path for path in written["folders"])
    resume(folder, total_steps=256, console=False)
    agent, _, _ = load_agent(folder)
    assert isinstance(agent.core.network.features, OwnFeatures)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("turned", r"encoder: .*:turned fails on observations float32 \[2, 4\] \(RuntimeError: "),
        ("a_list", "encoder: .*:a_list gave list; wanted a torch.nn.Module"),
        ("narrow", r"encoder: .*:narrow fails on observations float32 \[2, 4\] \(RuntimeError: mat1 and mat2"),
        ("without_generator", r"takes \(observation_space\); wanted the arguments observation_space, generator"),
        ("with_more", r"takes \(observation_space, generator, depth\); wanted the arguments observation_space, gen"),
        ("missing", "encoder: .*:missing is not there; wanted a function of a module that can be imported"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_by_name(name, message):
    with pytest.raises(AgentError, match=message):
        PPO(PPOConfig(encoder=f"{HERE}:{name}"), VECTOR, spaces.Discrete(2))


def test_outputs_of_another_shape_are_told():
    flat = r"encoder: <lambda> maps float32 \[2, 4\] to float32 \[8\]; wanted float32 \[2, d\]"
    with pytest.raises(AgentError, match=flat):
        OwnFeatures("encoder", lambda observation_space, generator: nn.Flatten(0), VECTOR, draw())
    with pytest.raises(AgentError, match=r"model: make_q maps float32 \[2, 4\] to float32 \[2, 3\]; wanted a pair, "):
        own_network(make_q, VECTOR, 3, draw(), values=True)
    pair = r"model: PolicyAndValue maps .* to \(float32 \[2, 3\], float32 \[2\]\); wanted float32 \[2, 3\]"
    with pytest.raises(AgentError, match=pair):
        own_network(PolicyAndValue, VECTOR, 3, draw(), values=False)


@pytest.mark.parametrize("name", ["make_encoder", "os.system", ":x", "a b:c", "module:", "m:f:g"])
def test_names_of_another_form_are_refused(name):
    with pytest.raises(AgentError, match=r"encoder: got .*; wanted module:factory, as my_networks:make_encoder"):
        find_factory("encoder", name)


def test_a_function_without_a_name_of_its_own_is_refused():
    def inner(observation_space, generator):
        return nn.Linear(4, 3)

    with pytest.raises(
        AgentError, match=r"encoder: got .*inner, which has no name; wanted a function at the top level"
    ):
        resolve("ppo", "mlbits/CartPole-v0", agent_settings={"encoder": inner})
    assert factory_name("encoder", make_encoder) == f"{HERE}:make_encoder"


def test_a_name_in_a_file_imports_nothing_from_the_working_folder(tmp_path, monkeypatch):
    """And calls nothing that does not declare a factory's arguments."""
    (tmp_path / "strangers_network.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.chdir(tmp_path)
    plain = portable(resolve("ppo", "mlbits/CartPole-v0"))
    plain["agent_config"]["encoder"] = "strangers_network:make"
    plain["folders"] = [str(tmp_path)]
    with pytest.raises(GameError, match="the module 'strangers_network' cannot be imported"):
        settings_from_json(plain)
    assert "strangers_network" not in sys.modules
    plain["agent_config"]["encoder"] = "os:system"
    settings = settings_from_json(plain)
    with pytest.raises(AgentError, match=r"encoder: os:system takes \(command\); wanted the arguments observation_spa"):
        agent_entry("ppo").make(settings.agent_config, VECTOR, spaces.Discrete(2), seed=0, device="cpu")


def test_what_a_notebook_defines_is_found_here_and_elsewhere_refused(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "in_a_notebook", make_encoder, raising=False)
    assert find_factory("encoder", "__main__:in_a_notebook") is make_encoder
    monkeypatch.delattr(main, "in_a_notebook")
    with pytest.raises(AgentError, match="__main__:in_a_notebook was defined in a notebook or script of another proc"):
        find_factory("encoder", "__main__:in_a_notebook")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "a:b", "encoder": "a:c"}, "model: got 'a:b', a whole network, with encoder; wanted one of them"),
        ({"model": "a:b", "memory": "gru"}, "model: got 'a:b', a whole network, with memory; wanted one of them"),
        ({"shared": True, "memory": "gru"}, "shared: got True with memory, which policy and value share already"),
        ({"activation": "sine"}, "activation: got 'sine'; wanted 'tanh', 'relu', 'elu', 'gelu' or 'silu'"),
    ],
)
def test_parts_that_exclude_one_another_are_refused(settings, message):
    with pytest.raises(AgentError, match=message):
        PPOConfig(**settings)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "gelu", "silu"])
def test_activations_are_torchs(activation):
    mlp = MLP(Features(VECTOR, draw()), (5, 3), 2, draw(), activation=activation, initial="orthogonal")
    x, act = torch.randn(7, 4, generator=draw(1)), getattr(torch.nn.functional, activation, torch.tanh)
    hidden = act(x @ mlp.first[0] + mlp.biases[0])
    wanted = act(hidden @ mlp.weights[0] + mlp.biases[1]) @ mlp.head.T + mlp.head_bias
    torch.testing.assert_close(mlp([x]), wanted)


def test_a_shared_network_has_one_trunk_and_is_the_published_one_for_images():
    images = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    network = ActorCritic(images, Categorical(6), (512,), draw(), activation="relu", shared=True)
    count = sum(parameter.numel() for parameter in network.parameters())
    convolutions = 32 * (4 * 64 + 1) + 64 * (32 * 16 + 1) + 64 * (64 * 9 + 1)
    assert count == convolutions + 512 * (64 * 49 + 1) + 7 * 513  # Mnih et al. (2015), and a value
    obs = torch.randint(0, 256, (3, 4, 84, 84), generator=draw(1), dtype=torch.uint8)
    params, value = network(obs)
    assert torch.equal(network.policy(obs), params)
    assert torch.equal(network.value(obs), value)
    gains = network.both.head.norm(dim=1)
    torch.testing.assert_close(gains, torch.tensor([0.01] * 6 + [1.0]))


def test_products_by_autograd_are_those_of_the_tanh_kernel():
    mlp = MLP(Features(VECTOR, draw()), (6, 5), 3, draw(1), activation="tanh")
    x, u = torch.randn(9, 4, generator=draw(2)), torch.randn(9, 3, generator=draw(3))
    tangents = {p: torch.randn(p.shape, generator=draw(4 + k)) for k, p in enumerate(mlp.parameters())}
    moved, found = {0: torch.randn(9, 4, generator=draw(20))}, []
    for passes in (TanhMLPPasses(mlp.layers, [x]), _Passes(mlp, [x.clone()])):
        into = {p: torch.zeros_like(p) for p in mlp.parameters()}
        back = passes.vjp(u, into, [0])
        found.append([passes.out, passes.jvp(tangents, moved), *back, *into.values()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
