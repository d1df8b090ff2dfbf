"""Numbers that are not finite end a run with a clear error; what is saved, frozen or replayed never holds one."""

import dataclasses
import itertools
import json
import shlex
import sys
import types
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

from mlbits.agents import AGENTS as REGISTERED
from mlbits.agents.agent import Rollout
from mlbits.agents.ppo import PPO
from mlbits.cli import main
from mlbits.selfplay.finite import LIMIT, Guard, NotFiniteError, check_array, check_metrics, check_rollout
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.saved_agents import load_agent
from mlbits.selfplay.session import open_session
from mlbits.selfplay.training import resume, train
from tests.games import register_test_games

EPISODE, AT = 7, 31  # steps; the step of copy 1 that is poisoned, the third of its fifth episode
ENV = "test/Poison-v0"


class Poison(gym.Env):
    """Reward 1 per step, in episodes of seven steps; copy 1 (of seed 1) returns ``value`` once, at its step ``at``."""

    armed = True

    def __init__(self, what="reward", value="nan", at=AT, continuous=False, counts=False, parts=False):
        self.what, self.value, self.at = what, float(value), at
        self.counts, self.parts = counts, parts
        vector = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.observation_space = spaces.Discrete(EPISODE + 1) if counts else vector
        if parts:
            self.observation_space = spaces.Dict({"count": spaces.Discrete(EPISODE + 1), "vector": vector})
        self.action_space = spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(2)
        self.first_seed, self.steps = None, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.first_seed = seed if self.first_seed is None else self.first_seed
        self.elapsed = 0
        return self._seen(), {}

    def _seen(self, poisoned=False):
        if self.counts:
            return self.elapsed
        vector = np.array([self.elapsed / EPISODE, 1, self.np_random.standard_normal()], np.float32)
        if poisoned:
            vector[1] = self.value
        return {"count": self.elapsed, "vector": vector} if self.parts else vector

    def step(self, action):
        self.elapsed, self.steps = self.elapsed + 1, self.steps + 1
        poisoned = self.armed and self.steps == self.at and self.first_seed == 1
        reward = self.value if poisoned and self.what == "reward" else 1.0
        seen = self._seen(poisoned and self.what == "observation")
        return seen, reward, self.elapsed == EPISODE, False, {}


if ENV not in gym.registry:
    gym.register(ENV, Poison)

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "cross_entropy.py"


@pytest.fixture
def own_agent(monkeypatch):
    """A custom agent, that of the docs, registered only within a test."""
    module = types.ModuleType("own_cross_entropy")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(REGISTERED, "cross_entropy", None)
    del REGISTERED["cross_entropy"]  # a name is registered once; afterwards it is as before
    exec(compile(EXAMPLE.read_text(), str(EXAMPLE), "exec"), module.__dict__)  # registers it as of cross_entropy.py
    entry = REGISTERED["cross_entropy"]
    REGISTERED["cross_entropy"] = dataclasses.replace(entry, module=module.__name__)


RUN = "--preset none --num-envs 2 --total-steps 200 --eval-every 0 --eval-episodes 1 --checkpoint-every 20 --no-video"
REPLAY = "--agent.hidden 8 --agent.buffer-size 100 --agent.learning-starts 8 --agent.batch-size 4"
AGENTS = {
    "ppo": "ppo --agent.num-steps 4 --agent.hidden 8 --agent.minibatches 1",
    "reinforce": "reinforce --agent.num-steps 8 --agent.hidden 8",
    "reinforce, gae": "reinforce --agent.num-steps 4 --agent.hidden 8 --agent.returns gae",
    "trpo": "trpo --agent.num-steps 4 --agent.hidden 8 --agent.normalize-obs --agent.normalize-reward",
    "dqn, compiled": f"dqn {REPLAY}",
    "dqn, plain": f"dqn {REPLAY} --agent.dueling --agent.head quantile",
    "dqn, prioritised": f"dqn {REPLAY} --agent.priority-exponent 0.6",
    "ddpg": f"ddpg {REPLAY}",
    "sac": f"sac {REPLAY}",
    "q-learning": "q-learning",
    "classifier": "classifier --agent.hidden 8",
    "cross_entropy": "cross_entropy --agent.num-steps 8",
    "sb3-ppo": "sb3-ppo --agent.n-steps 4 --agent.batch-size 4 --agent.hidden 8",
    "sb3-ppo, normalised": "sb3-ppo --agent.n-steps 4 --agent.batch-size 4 --agent.hidden 8 --agent.normalize",
    "sb3-dqn": "sb3-dqn --agent.learning-starts 8 --agent.buffer-size 100 --agent.batch-size 4 --agent.hidden 8",
}
COUNTS = ("q-learning", "cross_entropy")


def words(agent, folder, **settings):
    settings |= {"continuous": True} if agent == "ddpg" else {}
    settings |= {"counts": True} if agent in COUNTS else {}
    name, *flags = AGENTS[agent].split()
    return ["train", name, ENV, *RUN.split(), *flags, "--env-json", json.dumps(settings), "--out", str(folder)]


def finite(path):
    """Whether all weights of a checkpoint are finite, except those that never are."""
    found = load_file(path / "weights.safetensors")
    return all(bool(v.isfinite().all()) for k, v in found.items() if v.is_floating_point() and "range" not in k)


def as_float32(value):
    """As rewards and observations are kept: 1e300 is infinite."""
    return float(torch.tensor(float(value), dtype=torch.float64).float())


CASES = [("ppo", what, value) for what in ("reward", "observation") for value in ("nan", "inf", "-inf", "1e30")]
CASES += [(agent, "reward", value) for agent in AGENTS if agent != "ppo" for value in ("nan", "1e30")]
CASES += [(agent, "observation", "inf") for agent in AGENTS if agent not in ("ppo", *COUNTS)]
CASES += [("ppo", "reward", "1e300"), ("dqn, compiled", "observation", "1e38")]
LEARNERS, KINDS = (
    ("ppo", "dqn, compiled", "reinforce", "trpo", "ddpg"),
    ("nan", "inf", "-inf", "1e30", "-1e30", "1e300"),
)
POISONS = [(agent, "reward", value) for agent in LEARNERS for value in KINDS]  # 30; the default tests have some of them
CASES += [pytest.param(*case, marks=pytest.mark.slow) for case in POISONS if case not in CASES]


@pytest.mark.parametrize(("agent", "what", "value"), CASES)
def test_a_bad_number_from_the_environment_ends_the_run_and_keeps_the_last_checkpoint(
    agent, what, value, tmp_path, capsys, own_agent
):
    folder = tmp_path / "run"
    assert main(words(agent, folder, what=what, value=value)) == 2
    said = capsys.readouterr().err.strip()
    kept = max((folder / "checkpoints").iterdir())
    assert said == (
        f"error: {ENV}: {what}: got {as_float32(value):g} at step {2 * AT}, copy 1; wanted a finite number, at most "
        f"1.8e+19 in size; {folder} was stopped, the last good checkpoint stays: {kept}"
    )
    assert 20 <= int(kept.name[5:]) <= 2 * AT  # saved every 20 steps, or once a rollout
    assert finite(kept)
    load_agent(folder)
    assert not (folder / "summary.json").exists()
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert all(np.isfinite(value) for value in json.loads(line).values())


@pytest.mark.parametrize("agent", ["ppo", "reinforce", "dqn, compiled", "sb3-ppo"])
def test_final_observations_are_checked_too(agent, tmp_path, capsys):
    assert main(words(agent, tmp_path / "run", what="observation", at=28)) == 2
    assert f"{ENV}: observation: got nan at step 56, copy 1;" in capsys.readouterr().err


def test_parts_of_dict_observations_are_checked_too(tmp_path, capsys):
    assert main(words("ppo", tmp_path / "run", what="observation", parts=True)) == 2
    assert f"{ENV}: observation: got nan at step {2 * AT}, copy 1;" in capsys.readouterr().err


def test_the_error_is_in_tensorboard_and_the_run_can_be_resumed(tmp_path, capsys, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    assert main(words("ppo", folder)) == 2
    events = EventAccumulator(str(folder))
    events.Reload()
    text = events.Tensors("stopped/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text in capsys.readouterr().err
    monkeypatch.setattr(Poison, "armed", False)  # fixed
    assert main(["resume", str(folder)]) == 0
    assert json.loads((folder / "summary.json").read_text())["env_steps"] >= 200


@pytest.mark.parametrize("what", ["reward", "observation"])
@pytest.mark.parametrize("agent", ["ppo", "ddpg"])
def test_a_bad_number_in_an_evaluation_ends_the_run_after_it_was_saved(agent, what, tmp_path, capsys):
    folder = tmp_path / "run"
    # Evaluations are seeded by one number for all runs; here that of copy 1.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mlbits.selfplay.bookkeeping.EVAL_SEED", 1)
        assert main([*words(agent, folder, what=what, at=3), "--eval-every", "40", "--seed", "5"]) == 2
    said = capsys.readouterr().err
    assert f"{ENV}: {what} in an evaluation episode: got nan at step 3, copy 0; wanted a finite number" in said
    assert finite(folder / "checkpoints" / "step-000000000040")
    assert main(["eval", str(folder), "--seed", "1", "--episodes", "2"]) == 2
    assert f"error: {ENV}: {what} in an evaluation episode: got nan at step 3, copy 0" in capsys.readouterr().err


def test_large_numbers_whose_squares_fit_are_learned_from(tmp_path):
    assert main(words("ppo", tmp_path / "large", value="1e15")) == 0
    assert finite(max((tmp_path / "large" / "checkpoints").iterdir()))


# Results of learning


def settings(agent="ppo", **agent_settings):
    agent_settings = {"hidden": [8], "num_steps": 16} | agent_settings
    run = {"total_steps": 2000, "num_envs": 8, "eval_episodes": 1, "eval_every": 0, "checkpoint_every": 256}
    return resolve(agent, "mlbits/CartPole-v0", preset="none", run=run, agent_settings=agent_settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["policy_loss", "grad_norm", "error"])
def test_a_loss_gradient_or_error_that_is_not_finite_ends_the_run(name, value, tmp_path, monkeypatch):
    original, calls = PPO.learn, []

    def learn(self, *arguments):
        calls.append(1)
        return {**original(self, *arguments), **({name: torch.tensor(value)} if len(calls) == 4 else {})}

    monkeypatch.setattr(PPO, "learn", learn)
    folder = tmp_path / "run"
    with pytest.raises(NotFiniteError) as stopped:
        train(settings(), folder, console=False)
    error = stopped.value
    assert (error.env, error.quantity, error.env_steps, error.copy) == (
        "mlbits/CartPole-v0", f"learn/{name}", 512, None
    )  # fmt: skip
    kept = folder / "checkpoints" / "step-000000000256"
    assert f"learn/{name}: got {value:g} at step 512; wanted" in str(error)
    assert str(error).endswith(f"the last good checkpoint stays: {kept}")
    assert len(calls) == 4
    assert max(kept.parent.iterdir()) == kept


def test_other_metrics_may_be_nan():
    check_metrics({"elite_return": float("nan"), "q": float("inf"), "loss": 1.0}, "env", 0)


def poisoned_after(learnings, monkeypatch):
    """PPO whose critic's last bias becomes NaN after some updates, which no metric shows."""
    original, calls = PPO.learn, []

    def learn(self, *arguments):
        metrics = original(self, *arguments)
        calls.append(1)
        if len(calls) == learnings:
            with torch.no_grad():
                self.core.network.critic.head_bias.fill_(float("nan"))
        return {name: value for name, value in metrics.items() if name == "entropy"}

    monkeypatch.setattr(PPO, "learn", learn)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    poisoned_after(4, monkeypatch)
    folder = tmp_path / "run"
    with pytest.raises(NotFiniteError, match=r"weights 'network.critic.head_bias': got nan at step 512; wanted"):
        train(settings(), folder, console=False)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000000000256"]
    monkeypatch.undo()
    assert resume(folder, console=False)[1]["env_steps"] >= 2000


def test_weights_that_are_not_finite_are_never_evaluated_or_frozen(tmp_path, monkeypatch):
    poisoned_after(2, monkeypatch)
    seats = resolve(
        "ppo", "mlbits/Blotto-v0", preset="none", agent_settings={"hidden": [8], "num_steps": 16},
        env_settings={"coins": 3},
        run={"total_steps": 2000, "num_envs": 8, "eval_every": 0, "checkpoint_every": 0, "pool": "uniform",
             "pool_every": 256, "eval_episodes": 1},
    )  # fmt: skip
    with pytest.raises(NotFiniteError, match=r"weights 'network.critic.head_bias': got nan at step 256"):
        train(seats, tmp_path / "pool", console=False)
    assert not (tmp_path / "pool" / "pool").exists()
    monkeypatch.undo()
    poisoned_after(2, monkeypatch)
    evaluated = []
    monkeypatch.setattr("mlbits.selfplay.bookkeeping.play_episodes", lambda *_, **__: evaluated.append(1))
    with pytest.raises(NotFiniteError, match="at step 256"):
        train(resolve("ppo", "mlbits/CartPole-v0", preset="none", run={"num_envs": 8, "eval_every": 256},
                      agent_settings={"hidden": [8], "num_steps": 16}), tmp_path / "run", console=False)  # fmt: skip
    assert not evaluated


def test_every_learner_of_a_league_is_checked(tmp_path, monkeypatch):
    league = resolve(
        "ppo", "mlbits/Blotto-v0", preset="none", agent_settings={"hidden": [8], "num_steps": 16},
        env_settings={"coins": 3}, run={"num_envs": 8, "pool": "league"},
    )  # fmt: skip
    session = open_session(league)
    session.check_weights()
    with torch.no_grad():
        session.opponents.learners[2].core.network.critic.head_bias.fill_(float("inf"))
    with pytest.raises(NotFiniteError, match="got inf"):
        session.check_weights()


def test_an_error_that_is_not_a_valid_priority_ends_the_run(tmp_path):
    # Weights so large that Q overflows float32, as a learning rate far too high makes them.
    prioritised = settings(
        "dqn", priority_exponent=0.6, learning_starts=64, buffer_size=2000, batch_size=8, dueling=True, num_steps=4
    )
    session = open_session(prioritised)
    session.learner.optimizer.flat.fill_(1e30)
    session.learner.epsilon = 1.0
    with pytest.raises(NotFiniteError) as stopped:
        for _ in range(4):
            session.learn(session.collect()[0])
    assert stopped.value.quantity == "priority"
    assert float(session.replay._tree.total) == session.replay.added == 96  # as before: all of the first priority, 1


def test_a_guard_allows_tensors_that_start_infinite():
    guard = Guard({"range": torch.tensor([float("inf"), 0.0]), "weight": torch.ones(2), "count": torch.tensor(3)})
    guard.check({"range": torch.tensor([float("-inf"), 1.0]), "weight": torch.zeros(2)}, "env", 5)
    with pytest.raises(NotFiniteError, match=r"env: weights 'weight': got -inf at step 5"):
        guard.check({"weight": torch.tensor([0.0, float("-inf")])}, "env", 5)
    with pytest.raises(NotFiniteError, match="weights 'later'"):
        guard.check({"later": torch.tensor(float("nan"))}, "env", 5)


# Checking a rollout, number by number


def rollout(steps=3, copies=2, seats=2, dtype=torch.float32):
    lead = (steps, copies, seats)
    flags = torch.zeros(steps, copies, dtype=torch.bool)
    return Rollout(
        obs=torch.zeros(*lead, 4, dtype=dtype), last_obs=torch.zeros(*lead[1:], 4, dtype=dtype),
        final_obs=torch.zeros(*lead, 4, dtype=dtype), sample=torch.zeros(*lead, 2), log_prob=torch.zeros(lead),
        reward=torch.zeros(lead), terminated=flags, truncated=flags, legal_mask=None, active=None,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize(
    ("name", "place", "quantity", "step"),
    [
        ("reward", (2, 1, 0), "reward", 103 + 3), ("reward", (0, 1, 1), "reward", 102),
        ("sample", (1, 1, 0, 1), "action", 104), ("obs", (0, 1, 0, 3), "observation", 100),
        ("obs", (2, 1, 1, 0), "observation", 104), ("last_obs", (1, 0, 2), "observation", 106),
        ("final_obs", (1, 1, 1, 2), "observation", 104),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e20])
def test_each_number_of_a_rollout_is_named_by_step_and_copy(name, place, quantity, step, value, dtype):
    played = rollout(dtype=dtype)
    check_rollout(played, True, "env", 100)
    getattr(played, name)[place] = value
    with pytest.raises(NotFiniteError) as found:
        check_rollout(played, True, "env", 100)
    assert (found.value.quantity, found.value.env_steps, found.value.copy) == (quantity, step, 1)
    if name == "final_obs":
        check_rollout(played, False, "env", 100)  # of no episode of this rollout


@pytest.mark.parametrize("num_steps", [1, 3, 4])
@pytest.mark.parametrize("seat", [0, 1])
@pytest.mark.parametrize(("what", "tick"), [("reward", 5), ("reward", 6), ("obs", 5), ("obs", 6)])
def test_open_decisions_are_checked_too(what, tick, seat, num_steps):
    """An open decision is kept for the next rollout, and in checkpoints, with its reward so far."""
    register_test_games()
    config = {"num_steps": num_steps, "hidden": (8,), "minibatches": 1}
    session = open_session(resolve("ppo", "test/Tug-v0", preset="none", run={"num_envs": 3}, agent_settings=config))
    step, ticks = session.batch.step, itertools.count(1)

    def poisoned(action):
        found = step(action)
        if next(ticks) == tick:
            (session.batch.obs if what == "obs" else found.reward)[1, seat] = float("nan")
        return found

    session.batch.step = poisoned
    with pytest.raises(NotFiniteError) as raised:
        for _ in range(tick):
            rollout, _, steps = session.collect()
            assert all(bool(value.isfinite().all()) for value in session.collector.state_dict().values())
            session.learn(rollout)
            session.counters.env_steps += steps
    quantity = "observation" if what == "obs" else "reward"
    assert (raised.value.quantity, raised.value.env_steps, raised.value.copy) == (quantity, 3 * tick, 1)


def test_the_earliest_bad_number_is_named():
    played = rollout()
    played.reward[2, 0, 0] = played.obs[1, 1, 0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match="env: observation: got nan at step 2, copy 1"):
        check_rollout(played, False, "env", 0)


def test_an_overflow_of_the_sum_alone_is_no_error():
    played = rollout()
    played.reward[:], played.obs[:] = 1.8e19, -1.8e19  # each square is just below the largest float32
    check_rollout(played, True, "env", 0)
    assert 1.8e19 < LIMIT < 1.9e19
    check_array(np.full(9, 1.8e19), "reward", "env", 0)
    check_array(np.arange(9), "count", "env", 0)
    with pytest.raises(NotFiniteError, match="env: reward: got inf at step 3, copy 2"):
        check_array(np.array([1, 2, np.inf, np.nan]), "reward", "env", 3)
    with pytest.raises(NotFiniteError, match="copy 1"):
        check_array(np.array([[0, 0], [0, np.nan]], np.float16), "observation", "env", 3)


def test_a_bad_rollout_is_not_added_to_the_replay_buffer(monkeypatch):
    session = open_session(settings("dqn", learning_starts=16, buffer_size=2000, num_steps=4))
    session.learn(session.collect()[0])
    step = session.batch.step

    def poisoned(action):
        found = step(action)
        found.reward[2] = float("nan")
        return found

    monkeypatch.setattr(session.batch, "step", poisoned)
    with pytest.raises(NotFiniteError):
        session.collect()
    assert session.replay.added == 32
    assert bool(session.replay._reward.isfinite().all())


def test_the_messages_command_can_be_pasted(tmp_path):
    """A folder of spaces stays one word of the shell."""
    from mlbits.selfplay.interrupts import resume_command

    assert shlex.split(resume_command(tmp_path / "my runs"))[2] == str(tmp_path / "my runs")
