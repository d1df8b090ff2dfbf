"""Stable-Baselines3's models as agents: acting as in SB3, in any seat, from SB3's files or our checkpoints."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from gymnasium import spaces
from safetensors.torch import load, save
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import mlbits
from mlbits.agents.agent import AgentError
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.agents.sb3 import configs
from mlbits.agents.sb3.agent import SB3Agent, algorithm_of, load_sb3
from mlbits.agents.sb3.algorithms import algorithm_arguments, algorithm_class
from mlbits.agents.sb3.configs import SB3DQNConfig, SB3PPOConfig, SB3SACConfig
from mlbits.envs.core.trust import trusting_files
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.lineup import against
from tests.games import register_test_games

register_test_games()
torch.set_num_threads(1)
CONFIGS = [kind for kind in vars(configs).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
CONFIGS = [kind for kind in CONFIGS if kind.algorithm]  # without the base classes
VECTOR = spaces.Box(-3, 3, (4,), np.float32)
LEVER = spaces.Box(np.array([-1, 0], np.float32), np.array([3, 0.5], np.float32))
SPACES: dict[str, Any] = {
    "vector": VECTOR,
    "index": spaces.Discrete(6),
    "choices": spaces.MultiDiscrete([3, 2]),
    "bits": spaces.MultiBinary(5),
    "dict": spaces.Dict({"n": spaces.Discrete(3), "v": VECTOR}),
}
DISCRETE = ("PPO", "A2C", "DQN", "TRPO", "QRDQN", "MaskablePPO")
CONTINUOUS = ("PPO", "A2C", "DDPG", "TD3", "SAC", "TRPO", "TQC", "CrossQ")


class Blank(gym.Env[Any, Any]):
    """An environment with given spaces and no rules."""

    def __init__(self, observation_space: Any, action_space: Any, seed: int = 0) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        observation_space.seed(seed)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), float(self.np_random.random()), False, False, {}

    def action_masks(self) -> Any:
        return np.ones(int(self.action_space.n), bool)


def model_of(
    name: str, observation_space: Any, action_space: Any, steps: int = 40, env: Any = None, **given: Any
) -> Any:
    """A model that has learned a little, so that its actions have different probabilities."""
    multi = isinstance(observation_space, spaces.Dict)
    size = {"n_steps": 20} if name in ("PPO", "A2C", "TRPO", "MaskablePPO") else {"buffer_size": 100}
    size |= {"learning_starts": 5, "batch_size": 8} if "buffer_size" in size else {}
    size |= {"batch_size": 20} if name in ("PPO", "TRPO", "MaskablePPO") else {}
    given = {"policy_kwargs": {"net_arch": [8]}, "learning_rate": 0.05, **size, **given}
    kind = algorithm_class(name)
    policy = "MultiInputPolicy" if multi else "MlpPolicy"
    model = kind(policy, env or Blank(observation_space, action_space), device="cpu", seed=1, **given)
    return model.learn(steps)


def some(space: Any, count: int = 50, seed: int = 0) -> tuple[Any, Any]:
    """Observations as NumPy arrays and as the tensors of a batch."""
    space.seed(seed)
    drawn = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        arrays = {key: np.stack([one[key] for one in drawn]) for key in space}
        return arrays, {key: torch.from_numpy(part) for key, part in arrays.items()}
    array = np.stack(drawn)
    small = {np.dtype(np.int64): torch.int32}.get(array.dtype)  # a batch's integers are int32
    return array, torch.from_numpy(array).to(small) if small else torch.from_numpy(array)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CASES = [(name, "vector", spaces.Discrete(4)) for name in DISCRETE]
CASES += [(name, "vector", LEVER) for name in CONTINUOUS]
CASES += [("PPO", seen, spaces.MultiDiscrete([3, 4])) for seen in SPACES]
CASES += [("DQN", seen, spaces.Discrete(4)) for seen in ("index", "choices", "bits", "dict")]


@pytest.mark.parametrize(("name", "seen", "action_space"), CASES, ids=lambda case: getattr(case, "shape", None) or case)
def test_a_saved_model_acts_as_under_sb3(name: str, seen: str, action_space: Any, tmp_path: Path) -> None:
    space = SPACES[seen]
    model = model_of(name, space, action_space)
    model.save(tmp_path / "model.zip")
    assert algorithm_of(tmp_path / "model.zip") == name
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    agent = load_sb3(tmp_path / "model.zip", space, action_space)
    arrays, tensors = some(space)
    decision = agent.act(tensors, None, draws(), greedy=True)
    agent.act(tensors, None, draws())
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]  # noqa: NPY002
    wanted, _ = model.predict(arrays, deterministic=True)
    assert decision.action.dtype == (torch.float32 if isinstance(action_space, spaces.Box) else torch.int64)
    np.testing.assert_allclose(decision.action.numpy(), wanted, rtol=1e-6, atol=1e-6)
    assert len(np.unique(wanted, axis=0)) > 1, "the comparison means nothing if all actions are the same"
    assert decision.log_prob is None
    assert agent.experience is None
    assert agent.trained_steps == model.num_timesteps >= 40


def test_draws_follow_the_policy_and_the_generator() -> None:
    model = model_of("PPO", VECTOR, spaces.Discrete(3))
    agent = SB3Agent(None, VECTOR, spaces.Discrete(3), policy=model.policy)
    one = torch.from_numpy(some(VECTOR, 1)[0])
    wanted = model.policy.get_distribution(one).distribution.probs[0].detach()
    assert wanted.min() > 0.01
    drawn = agent.act(one.expand(40_000, 4), None, draws(3)).action
    assert torch.bincount(drawn, minlength=3) / 40_000 == pytest.approx(wanted.numpy(), abs=0.015)
    assert torch.equal(drawn, agent.act(one.expand(40_000, 4), None, draws(3)).action)
    assert not torch.equal(drawn, agent.act(one.expand(40_000, 4), None, draws(4)).action)
    generator = draws(3)
    assert not torch.equal(*(agent.act(one.expand(99, 4), None, generator).action for _ in range(2)))


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_state_dependent_exploration_draws_new_noise_and_leaves_trainings_unchanged(name: str) -> None:
    model = model_of(name, VECTOR, LEVER, use_sde=True)
    agent = SB3Agent(None, VECTOR, LEVER, policy=model.policy)
    noise = (model.policy if name == "PPO" else model.actor).action_dist
    kept = noise.exploration_mat, noise.exploration_matrices
    same = torch.from_numpy(some(VECTOR, 1)[0]).expand(30, 4)
    first, again, other = (agent.act(same, None, draws(seed)).action for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(torch.unique(first, dim=0)) > 15  # a separate matrix for each row
    assert noise.exploration_mat is kept[0]
    assert noise.exploration_matrices is kept[1]


def test_a_maskable_policy_uses_masks() -> None:
    model = model_of("MaskablePPO", VECTOR, spaces.Discrete(4))
    agent = SB3Agent(None, VECTOR, spaces.Discrete(4), policy=model.policy)
    _, obs = some(VECTOR, 200)
    mask = torch.rand(200, 4, generator=draws()) < 0.5
    mask[:, 2] |= ~mask.any(1)
    for greedy in (True, False):
        action = agent.act(obs, mask, draws(), greedy=greedy).action
        assert mask[torch.arange(200), action].all()
        assert not mask[torch.arange(200), agent.act(obs, None, draws(), greedy=greedy).action].all()


@pytest.mark.parametrize("space", [VECTOR, spaces.Dict({"a": VECTOR, "b": spaces.Box(-9, 9, (2,), np.float32)})])
def test_observations_are_standardised_as_under_vec_normalize(space: Any, tmp_path: Path) -> None:
    envs = VecNormalize(DummyVecEnv([lambda: Blank(space, LEVER)]), clip_obs=1.5, epsilon=1e-3)
    model = model_of("PPO", space, LEVER, env=envs)
    model.save(tmp_path / "model.zip")
    envs.save(str(tmp_path / "vecnormalize.pkl"))
    arrays, tensors = some(space)
    wanted, _ = model.predict(envs.normalize_obs(arrays), deterministic=True)
    with trusting_files():
        agent = load_sb3(tmp_path / "model.zip", vec_normalize=tmp_path / "vecnormalize.pkl")
    np.testing.assert_allclose(agent.act(tensors, None, draws(), greedy=True).action, wanted, rtol=1e-5, atol=1e-6)
    plain = load_sb3(tmp_path / "model.zip").act(tensors, None, draws(), greedy=True).action
    assert not np.allclose(plain, wanted)
    own = SB3Agent(None, space, LEVER, policy=model.policy, normalize=envs)
    twin = SB3Agent(SB3PPOConfig(normalize=True, hidden=(8,)), space, LEVER)
    twin._clip, twin._epsilon = 1.5, 1e-3
    twin.load_state_dict(load(save(own.state_dict())))
    np.testing.assert_allclose(twin.act(tensors, None, draws(), greedy=True).action, wanted, rtol=1e-5, atol=1e-6)
    envs.obs_rms = None  # what was saved is a copy


def test_images_are_transposed_as_by_sb3() -> None:
    """Channels last, as in Gymnasium, and channels first, as in our environments."""
    last, first = spaces.Box(0, 255, (40, 36, 3), np.uint8), spaces.Box(0, 255, (3, 40, 36), np.uint8)
    kwargs = {"policy_kwargs": {}, "n_steps": 4, "batch_size": 4, "n_epochs": 1}
    for space in (last, first):
        model = stable_baselines3.PPO("CnnPolicy", Blank(space, spaces.Discrete(5)), device="cpu", seed=0, **kwargs)
        arrays, tensors = some(space, 8)
        agent = SB3Agent(None, space, spaces.Discrete(5), policy=model.policy)
        probs = model.policy.get_distribution(model.policy.obs_to_tensor(arrays)[0]).distribution.probs
        assert torch.equal(agent.act(tensors, None, draws(), greedy=True).action, probs.argmax(1))
        untrained = SB3Agent(SB3PPOConfig(), space, spaces.Discrete(5))
        untrained.load_state_dict(load(save(agent.state_dict())))
        assert torch.equal(untrained.act(tensors, None, draws(), greedy=True).action, probs.argmax(1))


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.algorithm)
def test_settings_are_sb3s_names_and_defaults(kind: Any) -> None:
    theirs = inspect.signature(algorithm_class(kind.algorithm).__init__).parameters
    ours = {"anneal_lr", "anneal_clip", "normalize", "hidden", "activation", "ortho_init", "log_std", "noise_std"}
    for field in dataclasses.fields(kind):
        if field.name not in ours:
            assert field.default == theirs[field.name].default, field.name
    action_space = spaces.Discrete(3) if kind.algorithm in DISCRETE else LEVER
    model = algorithm_class(kind.algorithm)(
        env=Blank(VECTOR, action_space), device="cpu", **algorithm_arguments(kind(), VECTOR, action_space)
    )
    plain = algorithm_class(kind.algorithm)("MlpPolicy", Blank(VECTOR, action_space), device="cpu")
    assert str(model.policy) == str(plain.policy)
    assert str(model.policy.optimizer_kwargs) == str(plain.policy.optimizer_kwargs)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.algorithm)
def test_an_untrained_agent_takes_the_weights_of_a_trained_one(kind: Any) -> None:
    action_space = spaces.Discrete(3) if kind.algorithm in DISCRETE else LEVER
    sde = {"use_sde": True} if "use_sde" in {field.name for field in dataclasses.fields(kind)} else {}
    sde = sde if isinstance(action_space, spaces.Box) else {}
    config = kind(hidden=(8,), **sde)
    model = model_of(kind.algorithm, VECTOR, action_space, **sde)
    trained = SB3Agent(None, VECTOR, action_space, policy=model.policy)
    state = load(save(trained.state_dict()))
    agent = SB3Agent(config, VECTOR, action_space, seed=5)
    _, obs = some(VECTOR)
    wanted = trained.act(obs, None, draws(), greedy=True).action
    assert not torch.equal(agent.act(obs, None, draws(), greedy=True).action, wanted)
    agent.load_state_dict(state)
    assert torch.equal(agent.act(obs, None, draws(), greedy=True).action, wanted)
    assert torch.equal(agent.act(obs, None, draws(9)).action, trained.act(obs, None, draws(9)).action)
    for value in trained.state_dict().values():
        value += 1  # they are copies, so the policy does not change
    assert torch.equal(trained.act(obs, None, draws(), greedy=True).action, wanted)
    with pytest.raises(AgentError, match=r"weights do not fit this agent's policy: .*size mismatch"):
        SB3Agent(dataclasses.replace(config, hidden=(9,)), VECTOR, action_space).load_state_dict(state)


def test_initial_weights_depend_only_on_the_seed() -> None:
    def weights(seed: int) -> Any:
        return torch.cat([p.flatten() for p in SB3Agent(SB3PPOConfig(), VECTOR, LEVER, seed=seed).policy.parameters()])

    torch.manual_seed(0)
    first, state = weights(3), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_reach_the_algorithm() -> None:
    config = SB3PPOConfig(learning_rate=0.4, anneal_lr=True, anneal_clip=True, activation="relu", log_std=-2.0)
    given = algorithm_arguments(config, VECTOR, LEVER)
    model = stable_baselines3.PPO(env=Blank(VECTOR, LEVER), device="cpu", **given)
    assert (model.lr_schedule(0.25), model.clip_range(0.5)) == (0.1, 0.1)
    assert isinstance(model.policy.mlp_extractor.policy_net[1], torch.nn.ReLU)
    assert model.policy.log_std.tolist() == [-2.0, -2.0]
    noisy = algorithm_arguments(configs.SB3TD3Config(noise_std=0.3), VECTOR, LEVER)["action_noise"]
    assert noisy._sigma.tolist() == [0.3, 0.3]
    assert algorithm_arguments(SB3SACConfig(ent_coef="0.2"), VECTOR, LEVER)["ent_coef"] == 0.2
    assert algorithm_arguments(SB3SACConfig(), VECTOR, LEVER)["ent_coef"] == "auto"
    assert algorithm_arguments(SB3DQNConfig(hidden=(7,)), VECTOR, spaces.Discrete(2))["policy_kwargs"] == {
        "net_arch": [7]
    }


def test_a_model_plays_a_seat_against_a_learner(tmp_path: Path) -> None:
    """Nim: the learner in one seat, SB3's DQN, which does not use masks, in the other."""
    batch = mlbits.make_batch("test/Nim-v0", 8, seed=3, illegal="replace")
    model_of("DQN", batch.observation_space, batch.action_space).save(tmp_path / "dqn.zip")
    guest = load_sb3(tmp_path / "dqn.zip", batch.observation_space, batch.action_space)
    config = PPOConfig(num_steps=20, hidden=(8,), minibatches=1)
    learner = PPO(config, batch.observation_space, batch.action_space, seed=0, device="cpu")
    lineup = against(learner, [(guest, 1.0)], 8, 2, batch.device)
    collector = Collector(batch, learner.experience, draws())
    rollout, episodes, steps = collector.collect(lineup)
    seated = lineup.seating == 1
    assert steps == 160
    assert len(episodes.returns) > 5
    assert seated.sum(0).tolist() == [4, 4]
    assert rollout.active is not None
    assert not rollout.active[:, seated].any()
    played = guest.act(rollout.obs[:, seated].flatten(0, 1), None, draws(), greedy=True).action
    assert torch.equal(rollout.sample[:, seated].flatten(), played)
    assert np.isfinite(float(learner.learn(rollout, 0.0, draws())["policy_loss"]))


def test_a_model_is_evaluated_like_any_agent(tmp_path: Path) -> None:
    """A model trained on Gymnasium's CartPole plays our CartPole, whose observation space has other bounds."""
    model = stable_baselines3.PPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu").learn(64)
    model.save(tmp_path / "model")
    agent = load_sb3(tmp_path / "model.zip", *_spaces("mlbits/CartPole-v0"))
    played = play_episodes(agent, "mlbits/CartPole-v0", 20, seed=1)
    again = play_episodes(agent, "mlbits/CartPole-v0", 20, seed=1, greedy=False)
    assert played.returns.shape == (20, 1)
    assert 8 < played.returns.mean() <= 500
    assert played.returns.tolist() != again.returns.tolist()


def _spaces(env_id: str) -> tuple[Any, Any]:
    game = mlbits.make_game(env_id)
    return game.observation_space, game.action_space


def test_mismatched_spaces_are_refused_by_name(tmp_path: Path) -> None:
    model_of("PPO", VECTOR, LEVER).save(tmp_path / "model.zip")
    wide = spaces.Box(-3, 3, (5,), np.float32)
    for observation_space in (wide, spaces.Discrete(4), SPACES["dict"]):
        with pytest.raises(AgentError, match=r"observation_space: got .*; the model was trained on Box\(-3.0"):
            load_sb3(tmp_path / "model.zip", observation_space, LEVER)
    longer = spaces.Box(np.array([-1, 0], np.float32), np.array([4, 0.5], np.float32))
    for action_space in (longer, spaces.Discrete(2), spaces.Box(-1, 1, (3,))):
        with pytest.raises(AgentError, match=r"action_space: got .*; the model was trained on Box\("):
            load_sb3(tmp_path / "model.zip", VECTOR, action_space)
    shuffled = spaces.Box(0, 1, (3, 40, 36), np.uint8)
    policy = stable_baselines3.PPO("CnnPolicy", Blank(spaces.Box(0, 255, (3, 40, 36), np.uint8), LEVER)).policy
    with pytest.raises(AgentError, match="observation_space"):
        SB3Agent(None, shuffled, LEVER, policy=policy)


def test_spaces_unsupported_by_stable_baselines_are_refused_by_name() -> None:
    free, tiny = spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(0, 255, (3, 8, 8), np.uint8)
    with pytest.raises(AgentError, match=r"sb3-sac: got the action space Box\(-inf.*wants finite bounds"):
        SB3Agent(SB3SACConfig(), VECTOR, free)
    with pytest.raises(AgentError, match=r"use_sde: got the action space Discrete\(2\); wanted one that is continuous"):
        SB3Agent(SB3PPOConfig(use_sde=True), VECTOR, spaces.Discrete(2))
    with pytest.raises(AgentError, match=r"normalize: got the observation space Discrete\(6\); wanted vectors"):
        SB3Agent(SB3PPOConfig(normalize=True), spaces.Discrete(6), LEVER)
    message = r"sb3-ppo: got \(3, 8, 8\) for the image 'p' in a Dict; wanted at least 36 pixels per side"
    with pytest.raises(AgentError, match=message):
        SB3Agent(SB3PPOConfig(), spaces.Dict({"p": tiny}), LEVER)
    assert SB3Agent(SB3PPOConfig(), tiny, LEVER).policy.features_extractor.features_dim == 192  # no convolutions
    agent = SB3Agent(SB3PPOConfig(), VECTOR, LEVER)
    with pytest.raises(AgentError, match="learn in their own loop"):
        agent.learn(None, 0.0, draws())


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SB3PPOConfig, {"gamma": 1.5}, "gamma: got 1.5; wanted a number from 0 to 1"),
        (SB3PPOConfig, {"hidden": ()}, r"hidden: got \(\); wanted one or more"),
        (SB3PPOConfig, {"target_kl": 0.0}, "target_kl: got 0.0; wanted a positive number, or None"),
        (SB3PPOConfig, {"batch_size": 1}, "batch_size: got 1 with normalize_advantage; wanted at least 2"),
        (SB3DQNConfig, {"buffer_size": 0}, "buffer_size: got 0"),
        (SB3SACConfig, {"ent_coef": "much"}, "ent_coef: got 'much'; wanted 'auto' or a number"),
        (SB3SACConfig, {"target_entropy": "auto_1"}, "target_entropy: got 'auto_1'"),
    ],
)
def test_settings_out_of_range_are_refused(kind: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(AgentError, match=message):
        kind(**values)


def test_files_that_are_not_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"none.zip: not found; wanted a model that Stable-Baselines3 saved"):
        load_sb3(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(AgentError, match=r"text.zip: not a saved model \(File is not a zip file\); wanted one that"):
        load_sb3(tmp_path / "text.zip")
    for name, data in (("empty", None), ("list", []), ("other", {"a": 1})):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("x" if data is None else "data", json.dumps(data))
        with pytest.raises(AgentError, match=rf"{name}.zip: (got|not a) .*; wanted .* that Stable-Baselines3 saved"):
            algorithm_of(tmp_path / f"{name}.zip")
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("data", json.dumps({"policy_class": {}}))
    with pytest.raises(AgentError, match=r"odd.zip: cannot tell which algorithm it is; wanted its name as algorithm="):
        load_sb3(tmp_path / "odd.zip")
    with trusting_files(), pytest.raises(AgentError, match=r"odd.zip: cannot be loaded as PPO \("):
        load_sb3(tmp_path / "odd.zip", algorithm="PPO")
    with pytest.raises(AgentError, match="algorithm: got 'PPPO'; wanted one of stable_baselines3 or of sb3_contrib"):
        load_sb3(tmp_path / "odd.zip", algorithm="PPPO")
    model_of("PPO", VECTOR, LEVER).save(tmp_path / "model.zip")
    (tmp_path / "stats.pkl").write_bytes(pickle.dumps({"mean": 0}))
    message = r"vec_normalize: .*stats.pkl holds a dict; wanted what VecNormalize.save wrote"
    with trusting_files(), pytest.raises(AgentError, match=message):
        load_sb3(tmp_path / "model.zip", vec_normalize=tmp_path / "stats.pkl")
    with trusting_files(), pytest.raises(AgentError, match=r"vec_normalize: .*none.pkl cannot be read"):
        load_sb3(tmp_path / "model.zip", vec_normalize=tmp_path / "none.pkl")


def test_a_class_can_be_named_and_a_recurrent_policy_is_refused(tmp_path: Path) -> None:
    model_of("PPO", VECTOR, LEVER).save(tmp_path / "model.zip")
    assert isinstance(load_sb3(tmp_path / "model.zip", algorithm=stable_baselines3.PPO), SB3Agent)
    recurrent = sb3_contrib.RecurrentPPO("MlpLstmPolicy", Blank(VECTOR, LEVER), n_steps=8, device="cpu")
    recurrent.save(tmp_path / "lstm.zip")
    with pytest.raises(
        AgentError, match="policy: got the recurrent RecurrentActorCriticPolicy; wanted one without hidden state"
    ):
        load_sb3(tmp_path / "lstm.zip")
