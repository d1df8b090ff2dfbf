"""Models of Stable-Baselines3 from strangers: what they pickled is never run, and what they claim is checked."""

import base64
import io
import json
import pickle
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mlbits.agents.agent import AgentError
from mlbits.agents.sb3.agent import load_sb3
from mlbits.agents.sb3.space_texts import UnreadableSpace, read_space
from mlbits.cli import main
from mlbits.envs.core.trust import NeedsTrust, trusting_files
from mlbits.selfplay.runs.folder import CONFIG

CART = "mlbits/CartPole-v0"


class Bomb:
    """Runs code of its author when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


class OwnExtractor(FlattenExtractor):
    """A layer of the user's own."""


def save(path, **given):
    model = stable_baselines3.PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=64, device="cpu", seed=0, **given)
    model.save(path)
    return model


def rewritten(path, out, data=None, **members):
    """A copy of a model with other contents."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data" and data is not None:
                content = json.dumps(data(json.loads(content)))
            new.writestr(name, members.get(name.partition(".")[0], content))
    return out


def armed(mark):
    """A change of a model's data that puts code into every pickle."""

    def change(data):
        pickled = base64.b64encode(pickle.dumps(Bomb(mark))).decode()
        for value in data.values():
            if isinstance(value, dict):
                value[":serialized:"] = pickled
        return data

    return change


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.zip"
    save(path, policy_kwargs={"net_arch": {"pi": [8, 12], "vf": [6]}, "activation_fn": torch.nn.ReLU})
    return path


def test_no_code_in_a_saved_model_runs(model, tmp_path):
    """With code in every pickle of its data the model plays as before; SB3's own loader, and so --trust, runs it."""
    bomb = rewritten(model, tmp_path / "bomb.zip", armed(tmp_path / "mark"))
    obs = torch.randn(20, 4)
    played = [load_sb3(one).action_probabilities(obs, None) for one in (model, bomb)]
    assert torch.equal(*played)
    assert not (tmp_path / "mark").exists()
    loaded = stable_baselines3.PPO.load(model).policy.get_distribution(obs).distribution.probs
    assert torch.allclose(loaded.double(), played[0], atol=1e-7)
    weights = io.BytesIO()
    torch.save({"a": Bomb(tmp_path / "mark")}, weights)
    with pytest.raises(AgentError, match=r"its weights cannot be read \(UnpicklingError"):
        load_sb3(rewritten(model, tmp_path / "weights.zip", policy=weights.getvalue()))
    assert not (tmp_path / "mark").exists()


def test_parts_of_the_authors_own_need_trust(model, tmp_path):
    save(tmp_path / "own.zip", policy_kwargs={"features_extractor_class": OwnExtractor})
    with pytest.raises(
        NeedsTrust, match=r"own.zip: its policy_kwargs\['features_extractor_class'\] can only be unpick"
    ):
        load_sb3(tmp_path / "own.zip")
    with trusting_files():
        assert isinstance(load_sb3(tmp_path / "own.zip").policy.features_extractor, OwnExtractor)
    with trusting_files(False), pytest.raises(NeedsTrust):
        load_sb3(tmp_path / "own.zip")

    def foreign(data):
        data["policy_class"]["__module__"] = "os"
        return data

    with pytest.raises(NeedsTrust, match=r"its policy class os.ActorCriticPolicy"):
        load_sb3(rewritten(model, tmp_path / "foreign.zip", foreign))
    (tmp_path / "stats.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(NeedsTrust, match=r"stats.pkl: the statistics of VecNormalize can only be unpickled"):
        load_sb3(model, vec_normalize=tmp_path / "stats.pkl")
    assert not (tmp_path / "mark").exists()


def test_the_command_line_trusts_only_when_told(model, tmp_path, capsys):
    envs = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    envs.save(str(tmp_path / "stats.pkl"))
    words = ["eval", str(model), CART, "--episodes", "2", "--vec-normalize", str(tmp_path / "stats.pkl")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "wanted --trust" in said
    assert main([*words, "--trust"]) == 0
    assert main(words) == 2, "trust ends with the command"


@pytest.mark.parametrize("command", ["resume", "eval"])
def test_a_strangers_run_is_never_trusted(command, model, tmp_path, capsys, monkeypatch):
    """A run whose settings name a model with a policy of its author's own."""
    monkeypatch.chdir(tmp_path)
    words = "train ppo mlbits/MatrixGame-v0 --total-steps 64 --num-envs 8 --agent.num-steps 8 --quiet --out run"
    assert main(words.split()) == 0
    config = json.loads(Path("run", CONFIG).read_text())

    def own(data):
        data["policy_class"]["__module__"] = "theirs"
        return armed(tmp_path / "mark")(data)

    rewritten(model, tmp_path / "theirs.zip", own)
    config["run"]["opponents"] = ["theirs.zip"]
    Path("run", CONFIG).write_text(json.dumps(config))
    capsys.readouterr()
    given = ["--total-steps", "128"] if command == "resume" else ["--opponents", "theirs.zip"]
    assert main([command, "run", *given]) == 2
    assert "theirs.zip: its policy class theirs.ActorCriticPolicy can only be unpickled" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists()


def test_images_and_kwargs_are_read_from_text(tmp_path):
    """Convolutions, on images whose channels SB3 moved; bounds of actions with more digits than text has."""
    image = spaces.Box(0, 255, (36, 40, 3), np.uint8)
    lever = spaces.Box(np.array([-1 / 3, -0.1234567891], np.float32), np.array([1 / 7, 2.2e-5], np.float32))

    class Camera(gym.Env):
        observation_space, action_space = image, lever

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return image.sample(), {}

    kwargs = {"features_extractor_kwargs": {"features_dim": 24}, "log_std_init": -1.5}
    model = stable_baselines3.PPO("CnnPolicy", Camera(), policy_kwargs=kwargs, device="cpu", seed=1)
    model.save(tmp_path / "model.zip")
    seen = np.stack([image.sample() for _ in range(5)])
    for agent in (load_sb3(tmp_path / "model.zip", image, lever), load_sb3(tmp_path / "model.zip")):
        agent._channels_last = {""}
        wanted, _ = model.predict(seen, deterministic=True)
        got = agent.act(torch.from_numpy(seen), None, torch.Generator(), greedy=True).action
        np.testing.assert_allclose(got, wanted, atol=1e-6)
        assert agent.policy.features_dim == 24


def test_files_that_claim_more_than_they_hold_are_refused(model, tmp_path):
    def wide(data):
        data["policy_kwargs"]["net_arch"] = [2**40]
        return data

    with pytest.raises(AgentError, match=r"net_arch\[0\]: got 1099511627776; wanted 1 to 12, the largest size"):
        load_sb3(rewritten(model, tmp_path / "wide.zip", wide))

    def deep(data):
        data["policy_kwargs"]["net_arch"] = [8] * 1000
        return data

    with pytest.raises(AgentError, match="net_arch: got 1000; wanted at most 10, as many as it has weights"):
        load_sb3(rewritten(model, tmp_path / "deep.zip", deep))

    def other(data):
        data["policy_kwargs"]["net_arch"] = [12, 8]
        return data

    with pytest.raises(AgentError, match=r"weights '[\w.]+': got \(.*\); wanted the shape \("):
        load_sb3(rewritten(model, tmp_path / "other.zip", other))
    bomb = rewritten(model, tmp_path / "bomb.zip", policy=b"\0" * 40_000_000)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(AgentError, match=r"unpack to [\d,]+; wanted at most 20 times"):
        load_sb3(bomb)
    weights = torch.load(io.BytesIO(zipfile.ZipFile(model).read("policy.pth")), weights_only=True)
    weights["action_net.bias"] = torch.zeros(1).expand(2**40)
    held = io.BytesIO()
    torch.save(weights, held)
    with pytest.raises(AgentError, match=r"weights 'action_net.bias': got \(1099511627776,\) in 4 bytes"):
        load_sb3(rewritten(model, tmp_path / "stretched.zip", policy=held.getvalue()))


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"_shape": "[9000000000]"}, "a shape of more than"),
        ({"_shape": "[2, 3]", "low": "[0. 1. 2.]"}, "3 bounds for 6 numbers"),
        ({"_shape": "[1001]", "low": "[0. 1. ... 2.]"}, "bounds that are shortened"),
        ({"dtype": "object"}, "numbers of type object"),
        ({"_shape": "__import__('os')"}, "Box: ValueError"),
        ({"low": None}, "0 bounds for 4"),
    ],
)
def test_spaces_are_read_from_text_or_refused(form, why):
    box = {":type:": "<class 'gymnasium.spaces.box.Box'>", "_shape": "[4]", "dtype": "float32", "low": "-1.0"}
    box["high"] = "[1. 2. 3. inf]"
    wanted = spaces.Box(np.full(4, -1, np.float32), np.array([1, 2, 3, np.inf], np.float32))
    assert read_space(box) == wanted
    with pytest.raises(UnreadableSpace, match=why):
        read_space(box | form)
    assert read_space({":type:": "<class 'gym.spaces.discrete.Discrete'>", "n": 3}) == spaces.Discrete(3)
