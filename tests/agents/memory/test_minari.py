"""Minari's format: read back what was written, what Minari wrote, and refuse what is wrong."""

import json
import os
import shutil
import sys

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from mlbits.agents.memory import minari as ours
from mlbits.agents.memory.dataset import Dataset, DatasetError, Episode
from mlbits.agents.memory.minari import DatasetWriter, read_dataset, write_dataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Minari wants authors and permalinks

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def dataset(lengths=(2, 3, 1), **other):
    """Observations are (episode, step)."""
    episodes = []
    for k, steps in enumerate(lengths):
        obs = np.array([[k, step] for step in range(steps + 1)], np.float32)
        end = np.arange(steps) == steps - 1
        flags = {"terminated": end} if k % 2 else {"truncated": end}
        more = {"log_prob": -np.arange(steps) - 1.0, "mask": np.ones((steps + 1, 3), bool)}
        episodes.append(Episode(obs, np.arange(steps) % 3, np.full(steps, k + 0.5), **flags, seed=10 + k, **more))
    return Dataset.from_episodes(episodes, BOX, spaces.Discrete(3), **{"env": "CartPole-v1", **other})


def same(one, other):
    parts = ("action", "reward", "terminated", "truncated", "starts", "log_prob", "mask", "seeds")
    assert torch.equal(one.obs, other.obs)
    for part in parts:
        assert torch.equal(getattr(one, part), getattr(other, part)), part
    return True


def test_what_is_written_is_read_back():
    data = dataset(settings={"sutton_barto_reward": True})
    folder = write_dataset(data, "test/a-v0", {"policy": "mine"})
    found = read_dataset("test/a-v0")
    assert same(found, data) and found.name == "test/a-v0"
    assert (found.env, found.settings) == ("CartPole-v1", {"sutton_barto_reward": True})
    assert json.loads((folder / "data" / "metadata.json").read_text())["mlbits"]["policy"] == "mine"
    assert same(read_dataset(folder), data) and same(read_dataset(folder / "data"), data)


def test_episodes_are_in_the_order_of_their_numbers_not_of_their_names():
    data = dataset([1 + k % 3 for k in range(25)])
    write_dataset(data, "test/a-v0")
    assert read_dataset("test/a-v0").seeds.tolist() == list(range(10, 35))


def test_minari_reads_what_we_write():
    data = dataset([1, 2, 3] * 4, settings={"sutton_barto_reward": True})
    write_dataset(data, "test/a-v0")
    found = minari.load_dataset("test/a-v0")
    assert list(minari.list_local_datasets()) == ["test/a-v0"]
    assert (found.total_episodes, found.total_steps) == (12, 24)
    assert (found.observation_space, found.action_space) == (data.observation_space, data.action_space)
    assert found.recover_environment().unwrapped._sutton_barto_reward
    for number, episode in enumerate(found.iterate_episodes()):
        own = data.episode(number)
        np.testing.assert_array_equal(episode.observations, own.obs)
        np.testing.assert_array_equal(episode.actions, own.action)
        np.testing.assert_array_equal(episode.rewards, own.reward)
        np.testing.assert_array_equal(episode.terminations, own.terminated)
        np.testing.assert_array_equal(episode.truncations, own.truncated)
        np.testing.assert_array_equal(episode.infos["log_prob"][:-1], own.log_prob)
    assert [m["seed"] for m in found.storage.get_episode_metadata(range(12))] == data.seeds.tolist()
    joined = minari.combine_datasets([found, found], "test/twice-v0")
    assert joined.total_steps == 48 and read_dataset("test/twice-v0").num_steps == 48


def collected(env, count, name="theirs/a-v0", **kinds):
    """A dataset written by Minari: random episodes of an environment, as its DataCollector buffers them."""
    buffers = []
    for k in range(count):
        obs, _ = env.reset(seed=50 + k)
        seen, played, rewards, ends = [obs], [], [], []
        while not ends or not any(ends[-1]):
            played.append(env.action_space.sample())
            obs, reward, terminated, truncated, _ = env.step(played[-1])
            seen.append(obs)
            rewards.append(reward)
            ends.append((terminated, truncated))
        buffers.append(
            EpisodeBuffer(
                id=k,
                seed=50 + k,
                observations=stacked(seen),
                actions=np.array(played),
                rewards=rewards,
                terminations=[e[0] for e in ends],
                truncations=[e[1] for e in ends],
            )
        )
    minari.create_dataset_from_buffers(name, buffers, env=env, **kinds)
    return buffers


def stacked(rows):
    if isinstance(rows[0], dict):
        return {key: stacked([row[key] for row in rows]) for key in rows[0]}
    if isinstance(rows[0], tuple):
        return tuple(stacked([row[k] for row in rows]) for k in range(len(rows[0])))
    return np.array(rows)


class Odd(gym.Env):
    """Nested observations, actions from 3 on, and an end after four steps."""

    action_space = spaces.Discrete(2, start=3)

    def __init__(self, observation_space):
        self.observation_space = observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.action_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), float(action), self.t == 4, False, {}


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"b": spaces.Box(-1, 1, (2,), np.float64), "a": spaces.Discrete(3)}),
        spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (1,), np.float32)]),
        spaces.Dict({"x": spaces.Dict({"y": spaces.Discrete(2), "z": spaces.Tuple([spaces.MultiBinary(2)])})}),
        spaces.Discrete(5),
        spaces.MultiDiscrete([2, 3]),
    ],
)
def test_datasets_of_minari_are_read_in_every_space(space):
    env = Odd(space)
    buffers = collected(env, 12, observation_space=space, action_space=env.action_space)
    data = read_dataset("theirs/a-v0")
    assert data.seeds.tolist() == list(range(50, 62)) and data.terminated.sum() == 12
    assert data.action.tolist() == [int(a) - 3 for buffer in buffers for a in buffer.actions]
    for number, buffer in enumerate(buffers):
        rows = data.episode(number).obs
        for t in range(5):
            recorded = at(buffer.observations, t)
            if isinstance(rows, dict):
                for key, part in rows.items():
                    np.testing.assert_array_equal(part[t], np.asarray(recorded[key], part.numpy().dtype))
            elif isinstance(space, (spaces.Dict, spaces.Tuple)):
                np.testing.assert_array_equal(rows[t], spaces.flatten(space, recorded).astype(np.float32))
            else:
                np.testing.assert_array_equal(rows[t], recorded)


def at(value, t):
    if isinstance(value, dict):
        return {key: at(part, t) for key, part in value.items()}
    return tuple(at(part, t) for part in value) if isinstance(value, tuple) else value[t]


def test_a_dataset_of_minari_has_its_environment_and_settings():
    collected(gym.make("CartPole-v1", sutton_barto_reward=True, max_episode_steps=30), 11)
    data = read_dataset("theirs/a-v0")
    assert data.env == "CartPole-v1"
    assert data.settings == {"sutton_barto_reward": True, "max_episode_steps": 30}
    assert data.num_steps == minari.load_dataset("theirs/a-v0").total_steps


def test_images_are_kept_as_they_are_and_minaris_jpegs_are_decoded():
    space = spaces.Box(0, 255, (40, 36, 3), np.uint8)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 40, 36, 3), np.uint8)
    data = Dataset.from_episodes([Episode(frames, [0, 1], [0.0, 0.0])], space, spaces.Discrete(2))
    write_dataset(data, "test/a-v0")
    assert torch.equal(read_dataset("test/a-v0").obs, data.obs)
    np.testing.assert_array_equal(minari.load_dataset("test/a-v0")[0].observations, frames)
    smooth = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None] * 4, (3, 40, 36, 3)).copy()
    buffer = EpisodeBuffer(
        id=0, observations=smooth, actions=[0, 1], rewards=[0, 0], terminations=[0, 1], truncations=[0, 0]
    )
    minari.create_dataset_from_buffers(
        "theirs/jpeg-v0", [buffer], observation_space=space, action_space=spaces.Discrete(2)
    )
    found = read_dataset("theirs/jpeg-v0").obs.numpy().astype(int)
    assert found.shape == smooth.shape and 0 < np.abs(found - smooth).max() < 8


# What is wrong


def change(folder, edit):
    """Edit a dataset's HDF5 file, and forget its digest."""
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        edit(file)
    metadata(folder, lambda data: data["mlbits"].pop("sha256", None))


def metadata(folder, edit):
    path = folder / "data" / "metadata.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def put(name, value):
    def edit(file):
        del file[name]
        file[name] = value

    return edit


FAULTS = {
    "NaN": (put("episode_1/rewards", [0.0, np.nan, 0.0]), "episode 1: reward: got nan at step 1; wanted finite"),
    "infinite": (put("episode_2/observations", [[0, np.inf], [0, 0]]), r"episode 2: obs: got \[0.0, inf\] at step 0"),
    "T obs": (put("episode_0/observations", np.zeros((2, 2))), "episode 0: obs: got 2 rows; wanted 3, one more than"),
    "short": (put("episode_1/actions", [0, 1]), "episode 1: action: got 2 rows; wanted 3, as many as steps"),
    "outside": (put("episode_1/actions", [0, 3, 1]), r"episode 1: action: got 3 at step 1; wanted an action of D"),
    "missing": (lambda f: f["episode_1"].pop("rewards"), "episode 1: reward: missing"),
    "no episode": (lambda f: f.move("episode_1", "other"), "episode 1: missing"),
    "fewer": (lambda f: f.pop("episode_2"), "main_data.hdf5: holds 2 groups; wanted the 3 episodes"),
    "text": (put("episode_0/rewards", np.array([b"a", b"b"])), r"episode 0: reward: got \|S1; wanted numbers"),
    "objects": (put("episode_0/actions/", ["a", "b"]), r"episode 0: action: got object; wanted numbers"),
    "a group": (lambda f: regroup(f), "episode 0: reward: got a group; wanted an array"),
    "steps": (lambda f: f["episode_0"].attrs.modify("total_steps", 5), "episode 0: reward: got 2 rows; wanted total"),
    "log_prob": (put("episode_1/infos/log_prob", np.zeros(3)), "episode 1: log_prob: got 3 rows; wanted 4"),
    "illegal": (put("episode_1/infos/action_mask", np.zeros((4, 3))), "episode 1: action: got 0 at step 0; wanted a l"),
    "early end": (put("episode_1/terminations", [True, False, True]), "episode 1: terminated or truncated: got True"),
    "soft link": (lambda f: relink(f, h5py.SoftLink("/episode_1/rewards")), "episode 0: reward: is a link"),
    "other file": (lambda f: relink(f, h5py.ExternalLink("/etc/x.h5", "/a")), "episode 0: reward: is a link"),
    "external": (lambda f: elsewhere(f), "episode 0: reward: its numbers are in another file"),
    "sparse": (lambda f: sparse(f), "episode 0: reward: got 4,000,000,000,000 bytes of which 0 are stored"),
    "virtual": (lambda f: virtual(f), "episode 0: reward: its numbers are in another file"),
}  # fmt: skip


def regroup(file):
    del file["episode_0/rewards"]
    file.create_group("episode_0/rewards")


def sparse(file):
    del file["episode_0/rewards"]
    file.create_dataset("episode_0/rewards", (10**12,), "f4", chunks=(1000,))


def relink(file, link):
    del file["episode_0/rewards"]
    file["episode_0/rewards"] = link


def elsewhere(file):
    """An array whose numbers are those of another file, here /dev/zero."""
    del file["episode_0/rewards"]
    file.create_dataset("episode_0/rewards", (2,), "f4", external=[("/dev/zero", 0, 8)])


def virtual(file):
    del file["episode_0/rewards"]
    layout = h5py.VirtualLayout(shape=(2,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", shape=(2,))
    file["episode_0"].create_virtual_dataset("rewards", layout)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_dataset_episode_and_field(fault):
    edit, message = FAULTS[fault]
    folder = write_dataset(dataset(), "test/a-v0")
    change(folder, lambda file: None)
    assert read_dataset("test/a-v0").num_episodes == 3
    change(folder, edit)
    with pytest.raises(DatasetError, match=f"^test/a-v0: {message}"):
        read_dataset("test/a-v0")


METADATA = {
    "total_episodes": (lambda m: m.pop("total_episodes"), "total_episodes: got None; wanted a positive integer"),
    "total_steps": (lambda m: m.update(total_steps=7), "total_steps: got 7; the episodes have 6"),
    "more episodes": (
        lambda m: m.update(total_episodes=10**9, total_steps=10**12),
        "holds 3 groups; wanted the 1000000",
    ),
    "format": (lambda m: m.update(data_format="pickle"), "data_format: got 'pickle'; wanted hdf5, arrow or parquet"),
    "space": (lambda m: m.update(observation_space='{"type": "Box"}'), "observation_space: damaged"),
    "kind": (lambda m: m.update(action_space='{"type": "Sequence"}'), "action_space: damaged.*'Sequence'"),
    "env": (lambda m: m["mlbits"].update(env="Cart\x1b[31m"), r"mlbits: got 'Cart\\x1b\[31m'; wanted the id"),
    "deep": (lambda m: m.update(action_space='{"type":"Tuple","subspaces":[' * 5000), "action_space: damaged"),
    "other space": (lambda m: m.update(action_space='{"type": "Discrete", "n": 2}'), "episode 0: mask: got shape"),
}


@pytest.mark.parametrize("fault", METADATA)
def test_a_fault_in_the_metadata_is_named(fault):
    edit, message = METADATA[fault]
    folder = write_dataset(dataset(), "test/a-v0")
    change(folder, lambda file: None)
    metadata(folder, edit)
    with pytest.raises(DatasetError, match=f"^test/a-v0: .*{message}"):
        read_dataset("test/a-v0")


@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_half_written_file_is_refused(name, kept):
    path = write_dataset(dataset(), "test/a-v0") / "data" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    metadata_lost = name == "metadata.json"
    if not metadata_lost:
        metadata(path.parents[1], lambda data: data["mlbits"].pop("sha256"))
    with pytest.raises(DatasetError, match=r"test/a-v0: .*(damaged|half written|holds)"):
        read_dataset("test/a-v0")


def test_a_flipped_bit_is_found_by_the_digest():
    path = write_dataset(dataset(), "test/a-v0") / "data" / "main_data.hdf5"
    content = bytearray(path.read_bytes())
    where = content.find(np.float32(1.5).tobytes())
    content[where + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"test/a-v0: main_data\.hdf5: damaged, or changed since it was written"):
        read_dataset("test/a-v0")


def test_episodes_that_minari_has_added_lack_what_ours_have():
    write_dataset(dataset(), "test/a-v0")
    buffer = EpisodeBuffer(
        observations=np.zeros((2, 2)), actions=[1], rewards=[3.0], terminations=[True], truncations=[0]
    )
    minari.load_dataset("test/a-v0").update_dataset_from_buffer([buffer])
    with pytest.raises(
        DatasetError, match=r"test/a-v0: episode 3: (log_prob|mask): missing; the episodes before it have"
    ):
        read_dataset("test/a-v0")


def test_names_that_are_no_dataset_are_refused(root, tmp_path):
    with pytest.raises(DatasetError, match="dataset: got 'medium'; wanted an id with a version"):
        read_dataset("medium")
    with pytest.raises(DatasetError, match=r"dataset: a/b-v0: not found at .*minari/a/b-v0"):
        read_dataset("a/b-v0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no dataset"):
        read_dataset(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"got './x'; wanted a name that ends in a version"):
        write_dataset(dataset(), "./x")
    write_dataset(dataset(), tmp_path / "mine-v1")
    assert read_dataset(str(tmp_path / "mine-v1")).num_episodes == 3
    with pytest.raises(DatasetError, match="mine-v1 exists already"):
        write_dataset(dataset(), tmp_path / "mine-v1")


def test_nothing_that_a_file_names_is_imported(tmp_path, monkeypatch):
    """An env_spec that names a module; Minari itself imports it where a space is missing."""
    (tmp_path / "stranger.py").write_text("import os\nos.environ['STRANGER'] = 'ran'\nclass Env: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = {
        "id": "stranger:Stranger-v0", "entry_point": "stranger:Env", "kwargs": {}, "max_episode_steps": None,
        "reward_threshold": None, "nondeterministic": False, "order_enforce": True, "disable_env_checker": True,
        "additional_wrappers": [{"name": "W", "entry_point": "stranger:Env", "kwargs": {}}],
        "vector_entry_point": None,
    }  # fmt: skip
    folder = write_dataset(dataset(), "test/a-v0")
    metadata(folder, lambda m: (m.pop("mlbits"), m.update(env_spec=json.dumps(spec), eval_env_spec=json.dumps(spec))))
    assert read_dataset("test/a-v0").env == "Stranger-v0"
    metadata(folder, lambda m: m.pop("observation_space"))
    with pytest.raises(DatasetError, match="observation_space: missing, and they name the environment Stranger-v0"):
        read_dataset("test/a-v0")
    assert "stranger" not in sys.modules and "STRANGER" not in os.environ


def test_a_missing_space_is_that_of_a_registered_environment():
    collected(gym.make("CartPole-v1"), 3)
    folder = ours.dataset_folder("theirs/a-v0")
    metadata(folder, lambda m: m.pop("observation_space"))
    assert read_dataset("theirs/a-v0").observation_space == gym.make("CartPole-v1").observation_space


def test_a_writer_that_fails_leaves_nothing_under_the_name(root):
    data = dataset()
    with pytest.raises(RuntimeError), DatasetWriter("test/a-v0", BOX, spaces.Discrete(3)) as writer:
        writer.write(0, data.episode(0))
        raise RuntimeError
    assert list((root / "test").iterdir()) == []


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(root):
    alive = DatasetWriter("test/a-v0", BOX, spaces.Discrete(3))
    dead = DatasetWriter("test/a-v0", BOX, spaces.Discrete(3))
    kept = dead._partial.with_name(f".a-v0{ours._PARTIAL}-dead")
    shutil.copytree(dead._partial, kept)
    write_dataset(dataset(), "test/a-v0")
    assert alive._partial.exists() and dead._partial.exists() and not kept.exists()
    alive.write(0, dataset().episode(0))
    with pytest.raises(DatasetError, match="test/a-v0 exists already"):
        alive.publish()
    for writer in (alive, dead):
        writer.__exit__(None, None, None)
    assert [path.name for path in (root / "test").iterdir()] == ["a-v0"]
    assert same(read_dataset("test/a-v0"), dataset())


def test_episodes_in_any_order_and_in_parts_are_closed_up():
    data = dataset((4, 3, 2))
    with DatasetWriter("test/a-v0", BOX, spaces.Discrete(3)) as writer:
        parts = writer.begin(5, 10)
        first = data.episode(0)
        cut = first._replace(
            **{name: getattr(first, name)[:3] for name in ("obs", "action", "reward", "log_prob", "mask")}
        )
        writer.append(parts, cut._replace(terminated=None, truncated=None), last=False)
        writer.write(9, data.episode(2))
        writer.write(7, data.episode(1))
        rest = {name: getattr(first, name)[3:] for name in ("obs", "action", "reward", "log_prob", "mask", "truncated")}
        writer.append(parts, first._replace(**rest, terminated=None), last=True)
        parts.end()
        writer.publish()
    assert same(read_dataset("test/a-v0"), data)
    ids = [m["id"] for m in minari.load_dataset("test/a-v0").storage.get_episode_metadata(range(3))]
    assert ids == [0, 1, 2]


def test_the_spaces_are_written_as_minari_writes_them():
    for space in (BOX, spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(4), spaces.Dict(a=BOX)):
        theirs = minari.serialization.serialize_space(space)
        assert ours.space_to_json(space) == theirs
    assert MinariStorage  # the class that reads them


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_arrow_and_parquet_are_read_if_pyarrow_is_installed(kind):
    pytest.importorskip("pyarrow")
    buffers = collected(gym.make("CartPole-v1"), 12, "theirs/hdf5-v0")
    minari.create_dataset_from_buffers("theirs/other-v0", buffers, env=gym.make("CartPole-v1"), data_format=kind)
    one, other = read_dataset("theirs/hdf5-v0"), read_dataset("theirs/other-v0")
    for part in ("obs", "action", "reward", "terminated", "truncated", "starts", "seeds"):
        assert torch.equal(getattr(one, part), getattr(other, part)), part
    shutil.rmtree(ours.dataset_folder("theirs/other-v0") / "data" / "3")
    with pytest.raises(DatasetError, match="theirs/other-v0: episode 3: missing"):
        read_dataset("theirs/other-v0")
