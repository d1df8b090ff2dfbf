"""Runs of populations: what is played, that they resume exactly, and that each member is an agent of its own."""

import json

import numpy as np
import pytest
import torch

from mlbits.agents.population.policies import Policies
from mlbits.cli import main
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.selfplay.population.playing import play
from mlbits.selfplay.runs.loading import load_policy
from mlbits.selfplay.runs.saved_agents import load_agent
from tests.agents.rollouts import draw

POINT = "mlbits/PointMass-v0"
QUIET = "--eval-episodes 3 --no-video --quiet --preset none"
ES = f"es {POINT} --agent.population 2 --agent.diversity bandit --agent.pairs 2 --agent.hidden 4 {QUIET}"
DVD = (
    f"dvd {POINT} --agent.population 2 --agent.hidden 4 --agent.batch-size 4 --agent.learning-starts 100 --num-envs 4 "
    f"--agent.replay-ratio 0.1 --agent.bandit-every 10 --record-every 100 {QUIET}"
)
STEPS = 2 * 5 * 50  # of an iteration


def words(text, folder, *more):
    return [*text.split(), "--out", str(folder), *map(str, more)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four iterations."""
    folder = tmp_path_factory.mktemp("population") / "run"
    flags = ("--total-steps", 4 * STEPS, "--eval-every", 2 * STEPS, "--checkpoint-every", STEPS)
    assert main(["train", *words(ES, folder, *flags, "--keep-checkpoints", 9)]) == 0
    return folder


def policies_and_weights(env, count):
    batch = open_batch(env, 1, start=False)
    form = Policies(batch.observation_space, batch.action_space, (8,), "tanh")
    weights = torch.stack([form.initial(draw(k)) for k in range(count)])
    return form, weights + 0.5 * torch.randn(weights.shape, generator=draw(9))


@pytest.mark.parametrize("env", [POINT, "mlbits/CartPole-v0"])
def test_each_policy_is_played_in_its_own_copies(env):
    form, weights = policies_and_weights(env, 3)
    played = play(form, weights, open_batch(env, 6, seed=4), episodes=2)
    batch = open_batch(env, 6, seed=4)  # the same copies by hand: the slow way
    batch.reset()
    going, total, length, final = np.ones(6, bool), np.zeros(6), np.zeros(6), torch.zeros(6, 4)
    for _ in range(batch.horizon or 1000):
        action = torch.cat([form.decide(weights[b // 2 : b // 2 + 1], batch.obs[b], None) for b in range(6)])
        step = batch.step(action.view(6, 1, *action.shape[1:]))
        for b in np.flatnonzero(going):
            total[b] += float(step.reward[b, 0])
            length[b] += 1
            if step.terminated[b] or step.truncated[b]:
                going[b], final[b] = False, step.final_obs[b, 0]
    assert not going.any()
    assert played.each.flatten().tolist() == pytest.approx(total.tolist(), rel=1e-4)
    assert played.lengths.flatten().tolist() == length.tolist()
    assert torch.allclose(played.final, final.view(3, 2, 4).mean(1), atol=1e-3)
    assert played.returns.tolist() == pytest.approx(total.reshape(3, 2).mean(1).tolist(), rel=1e-4)


def test_states_are_drawn_from_all_of_an_episode():
    form = Policies(*_spaces(), (8,), "tanh")
    ahead = torch.zeros(4, form.size)
    ahead[:, -2] = 9.0  # the bias of the first action: full power along x
    played = play(form, ahead, open_batch(POINT, 4, seed=0), states=400, generator=draw(3))
    x = played.states[:, 0]
    assert played.states.shape == (400, 4)
    assert float((x < 6).float().mean()) == pytest.approx(0.18, abs=0.08)  # about 9 of 50 steps
    assert float((x > 12.9).float().mean()) == pytest.approx(0.68, abs=0.09)  # in the U from step 16 on


def _spaces():
    batch = open_batch(POINT, 1, start=False)
    return batch.observation_space, batch.action_space


def test_a_run_is_like_all_others(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["env_steps"] == 4 * STEPS
    assert summary["episodes"] == 3
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = set().union(*records)
    assert {"return/train", "return/eval", "learn/best_return", "learn/diversity", "learn/diversity_weight"} <= names
    assert json.loads((run / "config.json").read_text())["run"]["num_envs"] == 10
    agent, _, _ = load_agent(run)
    assert agent.best == summary["best_member"]
    assert agent.returns.tolist() == pytest.approx(summary["member_returns"])


def same_weights(one, other, steps):
    name = f"checkpoints/step-{steps:012d}"
    files = ("weights.safetensors", "arrays.safetensors")
    return all((one / name / file).read_bytes() == (other / name / file).read_bytes() for file in files)


def test_a_run_that_was_stopped_resumes_exactly(run, tmp_path):
    flags = ("--eval-every", 2 * STEPS, "--checkpoint-every", STEPS, "--keep-checkpoints", 9)
    assert main(["train", *words(ES, tmp_path / "again", "--total-steps", 2 * STEPS, *flags)]) == 0
    assert main(["resume", str(tmp_path / "again"), "--total-steps", str(4 * STEPS)]) == 0
    assert same_weights(tmp_path / "again", run, 4 * STEPS)


def test_a_run_of_td3_members_resumes_exactly_and_writes_them(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    flags = ("--eval-every", 240, "--checkpoint-every", 240)
    assert main(["train", *words(DVD, one, "--total-steps", 480, *flags)]) == 0
    assert main(["train", *words(DVD, other, "--total-steps", 240, *flags)]) == 0
    assert main(["resume", str(other), "--total-steps", "480"]) == 0
    assert same_weights(one, other, 480)
    agent, _, state = load_agent(one)
    assert state["env_steps"] == 480
    assert agent.updates > 30
    obs = np.array([3.0, 1.0, 2.0, -1.0], np.float32)
    best = load_policy(one / "members" / f"member-{agent.best:02d}.safetensors")
    assert np.allclose(load_policy(one).predict(obs), best.predict(obs), atol=1e-6)


def test_a_run_of_map_elites_resumes_exactly_and_shows_its_archive(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    text = f"map-elites {POINT} --agent.policies 6 --agent.hidden 4 --agent.low -25 -25 --agent.high 25 25 {QUIET}"
    flags = ("--eval-every", 600, "--checkpoint-every", 300)
    text = text.replace("--no-video", "")
    assert main(["train", *words(text, one, "--total-steps", 1200, *flags)]) == 0
    assert main(["train", *words(text, other, "--total-steps", 600, *flags)]) == 0
    assert main(["resume", str(other), "--total-steps", "1200"]) == 0
    assert same_weights(one, other, 1200)
    assert b"view/archive" in b"".join(path.read_bytes() for path in one.glob("events*"))
    summary = json.loads((one / "summary.json").read_text())
    best = load_policy(summary["members"][summary["best_member"]])
    obs = np.array([3.0, 1.0, 2.0, -1.0], np.float32)
    assert np.allclose(load_policy(one).predict(obs), best.predict(obs), atol=1e-6)


def test_fewer_copies_than_members_are_named(tmp_path, capsys):
    assert main(["train", *words(DVD, tmp_path / "run", "--num-envs", 1)]) == 2
    assert "num-envs: got 1; wanted at least a copy for each of 2 members" in capsys.readouterr().err


def test_each_member_is_an_agent_of_its_own(run, capsys):
    agent, _, _ = load_agent(run)
    obs = np.array([3.0, 1.0, 2.0, -1.0], np.float32)
    for m in range(2):
        path = run / "members" / f"member-{m:02d}.safetensors"
        own = agent.policies.decide(agent.member_weights()[m : m + 1], torch.from_numpy(obs)[None], None)[0]
        assert np.allclose(load_policy(path).predict(obs), own.numpy())
    best = run / "members" / f"member-{agent.best:02d}.safetensors"
    assert np.allclose(load_policy(run).predict(obs), load_policy(best).predict(obs))
    assert main(["eval", str(best), "--episodes", "4"]) == 0
    assert "over 4 episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--num-envs 7", "num-envs: got 7; es plays 10 episodes at a time"),
        ("--pool uniform", "pool: got 'uniform'; es is a population that plays alone"),
    ],
)
def test_settings_that_do_not_fit_are_named(more, message, tmp_path, capsys):
    assert main(["train", *words(ES, tmp_path / "run", *more.split())]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_games_of_several_seats_are_named(tmp_path, capsys):
    assert main(["train", "es", "mlbits/Blotto-v0", "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert "env: got mlbits/Blotto-v0 with 2 seats" in capsys.readouterr().err
