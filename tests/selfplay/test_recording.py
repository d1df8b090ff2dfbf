"""Recording: the environment, stepped again from the recorded seeds, gives what was recorded, in every episode."""

import math
import os
import signal
import subprocess
import sys
import time

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import Decision
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.agents.ddpg import DDPG, DDPGConfig
from mlbits.agents.dqn import DQN, DQNConfig
from mlbits.agents.memory.dataset import DatasetError
from mlbits.agents.memory.minari import dataset_folder, read_dataset
from mlbits.agents.offline.bc import BC, BCConfig
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.envs.doors.gymnasium_batch import GymnasiumBatch, open_batch
from mlbits.envs.registry import register, registered
from mlbits.evals.off_policy.policies import TargetPolicy
from mlbits.selfplay import recording
from mlbits.selfplay.finite import NotFiniteError
from mlbits.selfplay.recording import record
from mlbits.selfplay.runs.config import ConfigError
from tests.games import register_test_games

register_test_games()
for name, settings in (("test/Waits-v0", {}), ("test/WaitsFree-v0", {"actions": "continuous"})):
    if name not in registered():
        register(name, "tests.waiting:waits", **settings)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def random_agent(env, **own):
    batch = open_batch(env, 1, settings=own, start=False)
    return RandomAgent(batch.observation_space, batch.action_space)


def recorded(env, name="test/a-v0", agent=None, **how):
    done = record(agent or random_agent(env), env, name, **{"episodes": 25, "num_envs": 4, **how})
    return done, read_dataset(name)


def same(one, other):
    parts = ("obs", "action", "reward", "terminated", "truncated", "starts", "log_prob", "draw", "mask", "seeds")
    for part in parts:
        left, right = getattr(one, part), getattr(other, part)
        assert (left is None and right is None) or torch.equal(left, right), part
    return True


@pytest.mark.parametrize(
    ("env", "own"),
    [
        ("CartPole-v1", {"max_episode_steps": 30}),
        ("Pendulum-v1", {"max_episode_steps": 20}),
        ("mlbits/GridWorld-v0", {"map": "S...\n.#.G\nX...", "slip": 0.2, "horizon": 15}),
        ("mlbits/PointMass-v0", {"horizon": 12}),
        ("test/Solitaire-v0", {}),
    ],
)
def test_obs_action_and_next_obs_belong_together_in_every_episode(env, own):
    """Gymnasium's own copy of the environment, reset with each recorded seed and given each recorded action."""
    done, data = recorded(env, settings=own)
    assert data.num_episodes == done.episodes == 25 and data.seeds.tolist() == list(range(25))
    assert (data.env, data.settings) == (env, own)
    steps = data.transitions(torch.arange(data.num_steps), discount=0.5)
    copy = gym.make(env, **own)
    for k in range(25):
        obs, _ = copy.reset(seed=int(data.seeds[k]))
        for i in range(int(data.starts[k]), int(data.starts[k + 1])):
            np.testing.assert_array_equal(steps.obs[i], np.asarray(obs, np.float32), f"obs of episode {k}")
            action = steps.action[i].numpy()
            obs, reward, terminated, truncated, _ = copy.step(action if action.ndim else int(action))
            np.testing.assert_array_equal(steps.next_obs[i], np.asarray(obs, np.float32), f"next obs of episode {k}")
            assert float(steps.reward[i]) == np.float32(reward)
            assert (bool(data.terminated[i]), bool(data.truncated[i])) == (terminated, truncated)
            assert float(steps.discount[i]) == (0.0 if terminated else 0.5)
        assert terminated or truncated


def by_seat(name):
    """The episodes of each game of a dataset: {seed: {seat: episode}}."""
    data, found = read_dataset(name), {}
    with h5py.File(dataset_folder(name) / "data" / "main_data.hdf5") as file:
        for number, episode in enumerate(data):
            seat = int(file[f"episode_{number}"].attrs.get("seat", 0))
            found.setdefault(episode.seed, {})[seat] = episode
    return found


def check_game(batch, seed, episodes):
    """Step one copy with the recorded actions of all seats; returns why it ended."""
    batch.reset(seed=[seed])
    seats, place, owed = range(batch.num_seats), dict.fromkeys(episodes, 0), dict.fromkeys(episodes, 0.0)
    while True:
        actions = batch.sample_actions()
        for seat in seats:
            if batch.active is not None and not batch.active[0, seat]:
                continue
            episode, at = episodes.get(seat), place.get(seat, 0)
            if at > 0:
                assert float(episode.reward[at - 1]) == pytest.approx(owed[seat], abs=1e-5)
            if episode is None or at == len(episode.reward):  # its last decision, which has no outcome
                assert episode is None or bool(episode.truncated[-1])
                return "left out"
            np.testing.assert_array_equal(episode.obs[at], batch.obs[0, seat].float())
            if batch.legal_mask is not None:
                np.testing.assert_array_equal(episode.mask[at], batch.legal_mask[0, seat])
            actions[0, seat] = episode.action[at]
            place[seat], owed[seat] = at + 1, 0.0
        step = batch.step(actions)
        for seat in episodes:
            owed[seat] += float(step.reward[0, seat])
        if step.terminated[0] or step.truncated[0]:
            break
    for seat, episode in episodes.items():
        assert place[seat] == len(episode.reward)
        assert float(episode.reward[-1]) == pytest.approx(owed[seat], abs=1e-5)
        np.testing.assert_array_equal(episode.obs[-1], batch.obs[0, seat].float())
        assert (bool(episode.terminated[-1]), bool(episode.truncated[-1])) == (
            bool(step.terminated[0]),
            bool(step.truncated[0]),
        )
    return "terminated" if step.terminated[0] else "truncated"


@pytest.mark.parametrize(
    ("env", "ends"),
    [
        ("test/Nim-v0", {"terminated"}),
        ("test/Throws-v0", {"terminated", "truncated"}),
        ("test/Tug-v0", {"terminated", "left out"}),
        ("test/Waits-v0", {"terminated", "left out"}),
        ("test/WaitsFree-v0", {"terminated", "left out"}),
        ("mlbits/ConnectFour-v0", {"terminated"}),
    ],
)
def test_the_seats_decisions_are_their_own_episodes(env, ends):
    done, _ = recorded(env, episodes=40, seed=7, num_envs=40 if "Waits" in env else 4)  # Waits counts on over games
    games = by_seat("test/a-v0")
    assert done.games == 40 and set(games) <= set(range(7, 47))
    found = {check_game(open_batch(env, 1, autoreset="disabled"), seed, episodes) for seed, episodes in games.items()}
    assert ends <= found


def test_a_seat_that_waits_when_a_game_is_cut_loses_its_last_decision_and_no_other():
    _, data = recorded("test/Tug-v0", episodes=60)
    for seed, episodes in by_seat("test/a-v0").items():
        counts = sorted(len(episode.reward) for episode in episodes.values())
        if all(bool(episode.truncated[-1]) for episode in episodes.values()):
            assert counts == [4, 4], seed  # nine turns: five and four, of which the last has no outcome
    assert data.truncated.any() and data.terminated.any()


def test_masks_at_the_end_of_truncated_episodes_are_those_of_the_game_going_on():
    """The driver itself marks everything as legal in an episode that is over."""
    env = "test/Signs-v0"
    _, data = recorded(env, settings={"horizon": 3})
    cut = data.starts[1:][data.truncated[data.starts[1:] - 1]] - 1
    assert len(cut) > 3
    mask = data.transitions(cut).next_mask
    longer = open_batch(env, 1, settings={"horizon": 9}, autoreset="disabled")
    for row, last in zip(mask, cut.tolist(), strict=True):
        episode = data.episode(int(data.episode_of_step[last]))
        longer.reset(seed=[episode.seed])
        for action in episode.action:
            longer.step(action.view(1, 1, -1))
        assert torch.equal(row, longer.legal_mask[0, 0])


@pytest.mark.parametrize("env", ["CartPole-v1", "test/Waits-v0", "test/Signs-v0", "test/Tug-v0"])
def test_long_episodes_are_written_in_parts(env, monkeypatch):
    own = {"horizon": 40} if env == "test/Tug-v0" else {}
    _, whole = recorded(env, "test/whole-v0", settings=own)
    monkeypatch.setattr(recording, "_FEWEST_ROWS", 3)
    monkeypatch.setattr(recording, "_MOST_ROWS", 3)
    done, parts = recorded(env, "test/parts-v0", settings=own)
    assert int(parts.lengths.max()) > 6
    if isinstance(whole.obs, dict):
        assert all(torch.equal(whole.obs[key], parts.obs[key]) for key in whole.obs)
    else:
        assert same(whole, parts)
    assert done.return_mean == pytest.approx(float(parts.returns.double().mean()), rel=1e-5)


def test_a_recording_is_a_function_of_its_seed_and_a_greedy_ones_not_of_the_number_of_copies():
    _, one = recorded("CartPole-v1", "test/a-v0", seed=3)
    _, two = recorded("CartPole-v1", "test/b-v0", seed=3)
    _, other = recorded("CartPole-v1", "test/c-v0", seed=4)
    assert same(one, two) and one.action[:50].tolist() != other.action[:50].tolist()
    box, moves = gym.make("CartPole-v1").observation_space, spaces.Discrete(2)
    agent = PPO(PPOConfig(hidden=(8,)), box, moves, seed=0)
    _, few = recorded("CartPole-v1", "test/d-v0", agent, greedy=True, num_envs=2)
    _, many = recorded("CartPole-v1", "test/e-v0", agent, greedy=True, num_envs=9)
    assert torch.equal(few.action, many.action) and few.log_prob is None


def test_log_probabilities_are_those_of_the_policy():
    _, data = recorded("mlbits/GridWorld-v0", "test/a-v0")
    assert torch.allclose(data.log_prob, torch.full((data.num_steps,), -math.log(4)))
    masked = recorded("test/Solitaire-v0", "test/b-v0")[1]
    legal = masked.mask[torch.arange(masked.num_steps) + masked.episode_of_step].sum(1)
    assert torch.allclose(masked.log_prob, -legal.float().log()) and len(legal.unique()) > 2
    batch = open_batch("Pendulum-v1", 1, start=False)
    agent = PPO(PPOConfig(hidden=(8,)), batch.observation_space, batch.action_space, seed=0)
    clipped = recorded("Pendulum-v1", "test/c-v0", agent, episodes=2, settings={"max_episode_steps": 60})[1]
    obs = clipped.transitions(torch.arange(clipped.num_steps)).obs
    params = agent.core.network.policy(obs)
    assert torch.equal((2 * clipped.draw).clamp(-2, 2), clipped.action) and (clipped.draw.abs() > 1).any()
    found = agent.core.distribution.log_prob(params, None, clipped.draw)
    assert torch.allclose(found, clipped.log_prob, atol=1e-5)


def test_the_chances_of_epsilon_greedy_are_recorded():
    box, moves = gym.make("CartPole-v1").observation_space, spaces.Discrete(2)
    agent = DQN(DQNConfig(hidden=(8,), learning_starts=0), box, moves, seed=0)
    agent.epsilon = 0.3
    data = recorded("CartPole-v1", "test/a-v0", agent)[1]
    obs = data.transitions(torch.arange(data.num_steps)).obs
    best = agent.values(obs).argmax(1) == data.action
    assert torch.allclose(data.log_prob.exp(), torch.where(best, 0.85, 0.15))
    assert 0.8 < float(best.float().mean()) < 0.9


def pendulum_ddpg(noise):
    batch = open_batch("mlbits/Pendulum-v0", 1, start=False)
    agent = DDPG(DDPGConfig(hidden=(8,)), batch.observation_space, batch.action_space, seed=0)
    agent.noise = noise
    return agent


def test_densities_of_noise_are_recorded_as_it_was_played():
    agent = pendulum_ddpg(0.8)
    done, data = recorded("mlbits/Pendulum-v0", "test/a-v0", agent, episodes=2)
    obs = data.transitions(torch.arange(data.num_steps)).obs
    at_bound = (data.action.abs() == 2).flatten()
    mean, std = 2 * agent.actor.forward(obs).detach().flatten(), 1.6
    normal = torch.distributions.Normal(mean, std)
    assert done.probabilities and data.draw is None and 0.1 < float(at_bound.float().mean()) < 0.4
    inside = normal.log_prob(data.action.flatten())
    assert torch.allclose(data.log_prob[~at_bound], inside[~at_bound], atol=1e-4)
    upper = data.action.flatten() == 2
    assert torch.allclose(data.log_prob[upper], (1 - normal.cdf(data.action.flatten()))[upper].log(), atol=1e-3)


@pytest.mark.parametrize("policy", ["tanh_gaussian", "mixture"])
def test_densities_of_offline_policies_are_recorded_and_found_again_by_off_policy_evaluation(policy):
    batch = open_batch("mlbits/Pendulum-v0", 1, start=False)
    agent = BC(BCConfig(hidden=(8,), policy=policy), batch.observation_space, batch.action_space, seed=0)
    done, data = recorded("mlbits/Pendulum-v0", "test/a-v0", agent, episodes=2)
    obs = data.transitions(torch.arange(data.num_steps)).obs
    found = TargetPolicy(agent, batch.action_space).log_prob(data, obs, None, drawn=False)
    assert done.probabilities and torch.allclose(found.float(), data.log_prob, atol=1e-3)
    assert float(data.log_prob.std()) > 0.1


@pytest.mark.parametrize("noise", [0.0, math.inf])
def test_actions_without_a_density_are_recorded_without(noise):
    done, data = recorded("mlbits/Pendulum-v0", "test/a-v0", pendulum_ddpg(noise), episodes=1)
    assert not done.probabilities and data.log_prob is None


def test_an_environment_without_a_limit_is_cut():
    done, data = recorded("CartPole-v1", settings={"max_episode_steps": -1}, max_steps=12)
    assert done.cut > 0 and int(data.lengths.max()) == 12
    assert int(data.truncated.sum()) == done.cut


def test_steps_limit_a_recording_and_its_episodes_are_whole():
    done, data = recorded("CartPole-v1", episodes=0, steps=300)
    assert 300 <= data.num_steps == done.steps < 600
    assert data.seeds.tolist() == list(range(data.num_episodes))
    with pytest.raises(ConfigError, match="episodes: got 0; wanted at least 1, or steps"):
        recorded("CartPole-v1", "test/b-v0", episodes=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_recording_with_whole_episodes(number, monkeypatch):
    agent, calls = random_agent("CartPole-v1"), []

    def act(*arguments, **settings):
        calls.append(0)
        if len(calls) == 100:
            os.kill(os.getpid(), number)
        return RandomAgent.act(agent, *arguments, **settings)

    monkeypatch.setattr(agent, "act", act)
    done, data = recorded("CartPole-v1", agent=agent, episodes=1000)
    assert done.stopped == signal.Signals(number).name
    assert 4 < data.num_episodes < 100 and data.seeds.tolist() == list(range(data.num_episodes))
    assert bool((data.terminated | data.truncated)[data.starts[1:] - 1].all())


def test_a_second_signal_and_an_error_leave_nothing(root, monkeypatch):
    agent = random_agent("CartPole-v1")

    def interrupt(*arguments, **settings):
        os.kill(os.getpid(), signal.SIGINT)
        return RandomAgent.act(agent, *arguments, **settings)

    monkeypatch.setattr(agent, "act", interrupt)
    with pytest.raises(KeyboardInterrupt):
        recorded("CartPole-v1", agent=agent)
    assert list((root / "test").iterdir()) == []

    class Broken(gym.Env):
        observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.t = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.t += 1
            return np.zeros(1, np.float32), math.nan if self.t == 5 else 0.0, False, False, {}

    gym.register("BrokenReward-v0", Broken)
    with pytest.raises(NotFiniteError, match=r"BrokenReward-v0: reward .*got nan at step 5"):
        recorded("BrokenReward-v0")
    del gym.registry["BrokenReward-v0"]
    assert list((root / "test").iterdir()) == []


def test_a_taken_name_is_refused_before_anything_is_played():
    recorded("CartPole-v1", episodes=2)
    with pytest.raises(DatasetError, match="test/a-v0 exists already"):
        record(None, "CartPole-v1", "test/a-v0", episodes=2)


def test_a_batch_of_gymnasium_environments_takes_a_seed_for_each_copy():
    batch = GymnasiumBatch("CartPole-v1", 3, autoreset="disabled")
    batch.reset(seed=[5, 9, 5])
    for seed, row in zip((5, 9, 5), batch.obs[:, 0], strict=True):
        np.testing.assert_array_equal(row, gym.make("CartPole-v1").reset(seed=seed)[0])
    batch.reset(seed=np.array([1, 2, 3]), which=torch.tensor([False, True, False]))
    np.testing.assert_array_equal(batch.obs[1, 0], gym.make("CartPole-v1").reset(seed=2)[0])
    np.testing.assert_array_equal(batch.obs[2, 0], gym.make("CartPole-v1").reset(seed=5)[0])


KILLED = """
import sys, time
from mlbits.cli import main
print("started", flush=True)
main(["record", "CartPole-v1", "--dataset", "test/a-v0", "--episodes", "100000"])
"""


@pytest.mark.slow
def test_a_killed_recording_leaves_nothing_under_its_name_and_the_next_one_cleans_up(root):
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"started\n"
    limit = time.monotonic() + 60
    while not list(root.glob("test/.a-v0*/data/main_data.hdf5")) and time.monotonic() < limit:
        time.sleep(0.1)
    time.sleep(1.0)
    process.kill()
    process.wait()
    assert len(list((root / "test").iterdir())) == 1
    with pytest.raises(DatasetError, match="not found"):
        read_dataset("test/a-v0")
    recorded("CartPole-v1", episodes=2)
    assert [path.name for path in (root / "test").iterdir()] == ["a-v0"]


MEMORY = """
import resource, sys, torch
torch.set_num_threads(1)
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.selfplay.recording import record
batch = open_batch("mlbits/CartPole-v0", 1, start=False)
agent = RandomAgent(batch.observation_space, batch.action_space)
record(agent, "mlbits/CartPole-v0", "test/warm-v0", steps=20_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
record(agent, "mlbits/CartPole-v0", "test/long-v0", steps=300_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_memory_is_flat():
    """300,000 steps are 42 MB in the file."""
    grown = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 12


def test_agents_that_plan_are_recorded():
    """An agent with ``plan`` alone sees positions; its log probabilities are not known."""

    class Planner:
        experience = None

        def plan(self, positions, generator, *, greedy=False):
            action = positions.legal_mask.float().argmax(1)
            return Decision(action, action, None)

    done, data = recorded("mlbits/ConnectFour-v0", agent=Planner(), episodes=3)
    assert not done.probabilities and data.log_prob is None and data.num_episodes == 6
    assert torch.equal(data.episode(0).action, data.episode(2).action)
