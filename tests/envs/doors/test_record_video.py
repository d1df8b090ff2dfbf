"""Gymnasium's RecordVideo on our environments, which needs the extra ``video``."""

import gymnasium as gym
import pytest

import mlbits  # noqa: F401


@pytest.mark.filterwarnings("ignore")
def test_an_episode_is_filmed(tmp_path):
    pytest.importorskip("moviepy")
    env = gym.wrappers.RecordVideo(gym.make("mlbits/GridWorld-v0", map="S..G", render_mode="rgb_array"), str(tmp_path))
    env.reset(seed=0)
    over = False
    while not over:
        _, _, terminated, truncated, _ = env.step(1)
        over = terminated or truncated
    env.close()
    (film,) = tmp_path.glob("*.mp4")
    assert film.read_bytes()[4:8] == b"ftyp"  # an MPEG-4 file
