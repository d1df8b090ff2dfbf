"""A run that is killed at any moment and resumed ends bit for bit like an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mlbits.cli import main
from mlbits.selfplay.runs.checkpoints import CheckpointError
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session
from tests.games import register_test_games

register_test_games()

ROOT = Path(__file__).parents[2]
SHORT = "--total-steps 1000 --num-envs 8 --eval-every 300 --checkpoint-every 300 --eval-episodes 2 --no-video --quiet"
PPO = f"{SHORT} --preset none --agent.num-steps 16 --agent.hidden 8"
EVERYTHING = "--agent.normalize-obs --agent.normalize-reward --agent.objective adaptive_kl"
DQN = (
    f"{SHORT} --preset none --agent.hidden 8 --agent.learning-starts 100 --agent.buffer-size 400 "
    "--agent.priority-exponent 0.6 --agent.n-step 3 --agent.double --agent.batch-size 8 --agent.target-every 20 "
    "--record-every 50"
)
RUNS = {
    # iterations of 128 steps: evaluations and checkpoints at 384, 640, 1024
    "gridworld": f"ppo mlbits/GridWorld-v0 {PPO}",
    "cartpole": f"ppo mlbits/CartPole-v0 {PPO} {EVERYTHING}",
    "trust region": f"trpo mlbits/CartPole-v0 {PPO} --agent.normalize-obs --agent.normalize-reward"
    " --agent.fvp-fraction 0.5",
    "wrapped": f"ppo CartPole-v1 {PPO}",
    # episodes of 100 steps a copy, checkpoints after 48, 80 and 128
    "wrapped, long episodes": f'ppo Pendulum-v1 {PPO} --env-json {{"max_episode_steps":100}}',
    "wrapped, whole episodes": f"reinforce CartPole-v1 {SHORT} --preset none --agent.hidden 8 --agent.num-steps 60",
    # iterations of 32 steps: evaluations and checkpoints at 320, 608, 928, 1024; the replay is full at 400
    "replay": f"dqn mlbits/CartPole-v0 {DQN} --agent.head categorical --agent.v-max 50",
    "replay, masks": f"dqn test/Solitaire-v0 {DQN} --agent.dueling",
    "replay, wrapped": f"dqn CartPole-v1 {DQN} --agent.head quantile",
    # iterations of 128 steps, and a frozen copy every 256 at the least
    "pool": f"ppo mlbits/Blotto-v0 {PPO} --env.coins 3 --pool pfsp --pool-every 256 --pool-draws 3 "
    "--opponents random --opponent-fraction 0.25",
    "pool, long episodes": f"ppo test/Throws-v0 {PPO} --pool uniform --pool-every 256 --agent.normalize-reward",
    "league": f"ppo mlbits/Blotto-v0 {PPO} --env.coins 3 --pool league --pool-every 128 --league-exploiters 1 "
    "--pool-draws 3",
    # seats in turn, with decisions that wait at the end of nearly every rollout
    "turns": f"ppo test/Nim-v0 {SHORT} --preset none --agent.num-steps 3 --agent.hidden 8 --agent.normalize-reward",
    "turns, table": f"q-learning test/Nim-v0 {SHORT} --preset none --agent.num-steps 3 --env.horizon 5",
    "turns, continuous": f"reinforce test/Tug-v0 {SHORT} --preset none --agent.num-steps 2 --agent.hidden 8"
    " --agent.returns gae",
    "turns, league": f"ppo test/Nim-v0 {SHORT} --preset none --agent.num-steps 3 --agent.hidden 8 --pool league"
    " --pool-every 96 --main-exploiters 1 --league-exploiters 1 --pool-draws 2 --agent.minibatches 2",
    "turns, replay": f"dqn test/Nim-v0 {DQN} --agent.num-steps 3 --agent.head categorical",
    "replay, normalised": f"dqn test/Nim-v0 {DQN} --agent.num-steps 3 --agent.normalize-reward "
    "--agent.learning-rate cosine:1e-3:1e-4 --agent.epsilon piecewise:0=1,0.3=0.5,1=0.1",
    "whole episodes, normalised": f"reinforce mlbits/CartPole-v0 {SHORT} --preset none --agent.hidden 8 "
    "--agent.num-steps 60 --agent.normalize-obs --agent.normalize-reward --agent.entropy-coef linear:0.1:0",
    "search": f"alphazero mlbits/TicTacToe-v0 {SHORT} --preset none --agent.num-steps 3 --agent.simulations 4 "
    "--agent.width 8 --agent.blocks 1 --agent.learning-starts 50 --agent.buffer-size 400 --agent.batch-size 8",
    "replay, continuous": f"ddpg mlbits/Pendulum-v0 {SHORT} --preset none --agent.hidden 16 16 "
    "--agent.learning-starts 100 --agent.buffer-size 400 --agent.batch-size 8 "
    "--agent.num-steps 4 --agent.replay-ratio 0.1 --record-every 50"
    " --agent.twin --agent.target-noise 0.2 --agent.policy-delay 2 --agent.precision bfloat16"
    " --agent.normalize-obs --agent.normalize-reward --agent.noise linear:0.2:0.05",
    # iterations of 32 steps: evaluations and checkpoints at 320, 608, 928, 1024
    "goals in pictures": f"wsc mlbits/PushBlocks-v0 {SHORT} --preset none --env.observation both --env.blocks 2 "
    "--agent.num-steps 4 --agent.pictures 40 --agent.pairs 60 --agent.look-iterations 3 --agent.learning-starts 100 "
    "--agent.buffer-size 400 --agent.batch-size 8 --agent.hidden 8 --agent.replay-ratio 0.1 --record-every 50",
    "replay, entropy": f"sac mlbits/Pendulum-v0 {SHORT} --preset none --agent.hidden 16 16 "
    "--agent.learning-starts 100 --agent.buffer-size 400 --agent.batch-size 8 --agent.num-steps 4 "
    "--agent.replay-ratio 0.1 --record-every 50 --agent.normalize-obs --agent.policy-delay 2",
}


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    """Folders of runs that were never interrupted, made when first asked for."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("alone") / "run"
            assert main(["train", *RUNS[name].split(), "--out", str(made[name])]) == 0
        return made[name]

    return folder


def killed(moment, count, *words):
    """Run ``mlbits`` in a process that is killed at the count-th occurrence of a moment."""
    command = [sys.executable, "-m", "tests.selfplay.killed", moment, str(count), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr or done.stdout


def newest(folder):
    return max((folder / "checkpoints").glob("step-*"))


def untimed(values):
    """Values without times, which differ between runs."""
    clocked = ("speed/", "time/", "workers/", "wall_seconds", "cpu_seconds")
    return {name: value for name, value in values.items() if not name.startswith(clocked)}


def compare(folder, wanted):
    assert newest(folder).name == newest(wanted).name
    for file in ("weights.safetensors", "arrays.safetensors"):
        one, two = load_file(newest(folder) / file), load_file(newest(wanted) / file)
        assert one.keys() == two.keys()
        for name in one:
            assert torch.equal(one[name], two[name]), name
    bests = [
        sorted(path.relative_to(f) for path in f.glob("best/step-*/weights.safetensors")) for f in (folder, wanted)
    ]
    assert bests[0] == bests[1]
    for file in bests[0]:
        assert (folder / file).read_bytes() == (wanted / file).read_bytes()
    pools = [sorted(path.relative_to(f) for path in f.glob("pool/*")) for f in (folder, wanted)]
    assert pools[0] == pools[1]
    for file in pools[0]:
        assert (folder / file).read_bytes() == (wanted / file).read_bytes()
    for file in (Path("summary.json"), Path("checkpoints") / newest(folder).name / "state.json"):
        assert untimed(json.loads((folder / file).read_text())) == untimed(json.loads((wanted / file).read_text()))
    rows = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (folder, wanted)]
    assert [untimed(row) for row in rows[0]] == [untimed(row) for row in rows[1]]
    assert not [path for path in folder.rglob("*.tmp") if path.is_dir()]


def steps_of(folder):
    return sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*"))


@pytest.mark.parametrize(
    ("name", "moment", "count", "checkpoints"),
    [
        pytest.param("cartpole", "learning", 1, None, marks=pytest.mark.slow),  # before any learning
        pytest.param("cartpole", "learning", 5, [384], marks=pytest.mark.slow),
        pytest.param("cartpole", "recording", 7, [384], marks=pytest.mark.slow),  # in the middle of a line
        ("cartpole", "writing the weights", 2, [384]),  # in the middle of a file
        pytest.param("gridworld", "renaming the checkpoint", 1, [], marks=pytest.mark.slow),
        pytest.param("gridworld", "writing the summary", 1, [640, 1024], marks=pytest.mark.slow),
        pytest.param("gridworld", "dropping an old checkpoint", 1, [384, 640, 1024], marks=pytest.mark.slow),
        pytest.param("trust region", "learning", 5, [384], marks=pytest.mark.slow),
        pytest.param("wrapped", "learning", 2, None, marks=pytest.mark.slow),
        pytest.param("wrapped", "learning", 7, [384, 640], marks=pytest.mark.slow),
        pytest.param("wrapped, long episodes", "learning", 7, [384, 640], marks=pytest.mark.slow),
        pytest.param("wrapped, whole episodes", "learning", 4, "some", marks=pytest.mark.slow),
        pytest.param("pool", "learning", 6, [384, 640], marks=pytest.mark.slow),
        pytest.param("pool, long episodes", "writing the weights", 3, [384, 640], marks=pytest.mark.slow),
        ("league", "learning", 6, [384, 640]),
        ("replay", "learning", 27, [320, 608]),
        pytest.param("replay, masks", "learning", 25, [320, 608], marks=pytest.mark.slow),
        pytest.param("replay, wrapped", "learning", 15, [320], marks=pytest.mark.slow),
        pytest.param("replay, continuous", "learning", 27, [320, 608], marks=pytest.mark.slow),
        pytest.param("turns, league", "learning", 33, [312, 600], marks=pytest.mark.slow),
        pytest.param("turns", "learning", 27, [312, 600], marks=pytest.mark.slow),
        pytest.param("turns, table", "learning", 27, [312, 600], marks=pytest.mark.slow),
        pytest.param("turns, continuous", "learning", 40, [304, 608], marks=pytest.mark.slow),
        pytest.param("turns, replay", "learning", 27, [312, 600], marks=pytest.mark.slow),
        pytest.param("replay, normalised", "learning", 27, [312, 600], marks=pytest.mark.slow),
        pytest.param("whole episodes, normalised", "learning", 4, "some", marks=pytest.mark.slow),
        pytest.param("search", "learning", 27, [312, 600], marks=pytest.mark.slow),
        pytest.param("goals in pictures", "learning", 27, [320, 608], marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_any_moment_resumes_exactly(name, moment, count, checkpoints, left_alone, tmp_path):
    folder = tmp_path / "run"
    killed(moment, count, "train", *RUNS[name].split(), "--out", str(folder))
    if checkpoints is None:
        assert not (folder / "checkpoints").exists()
    elif checkpoints == "some":  # episodes decide how long an iteration is
        assert steps_of(folder)
    else:
        assert steps_of(folder) == checkpoints
    assert not (folder / "summary.json").exists()
    assert main(["resume", str(folder)]) == 0
    compare(folder, left_alone(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gridworld", "league"])
def test_a_run_killed_again_while_resuming(name, left_alone, tmp_path):
    folder = tmp_path / "run"
    killed("learning", 2, "train", *RUNS[name].split(), "--out", str(folder))
    killed("writing the weights", 2, "resume", str(folder))
    killed("recording", 2, "resume", str(folder))
    assert main(["resume", str(folder)]) == 0
    compare(folder, left_alone(name))


def test_a_run_killed_from_outside_and_resumed_in_a_fresh_process(tmp_path):
    """At a random moment, possibly after the end."""
    longer = "--total-steps 20000 --num-envs 64 --checkpoint-every 2000 --eval-every 0"
    words = f"{RUNS['gridworld']} {longer}".split()  # of a flag given twice the last counts
    folders = [tmp_path / "killed", tmp_path / "alone"]
    command = [sys.executable, "-m", "mlbits.cli"]
    process = subprocess.Popen([*command, "train", *words, "--out", str(folders[0])], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not list((folders[0] / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([*command, "resume", str(folders[0])], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert main(["train", *words, "--out", str(folders[1])]) == 0
    compare(*folders)


def test_resuming_a_finished_run_changes_nothing(left_alone, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", *RUNS["gridworld"].split(), "--out", str(folder)]) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name}
    assert main(["resume", str(folder)]) == 0
    assert {path: path.read_bytes() for path in before} == before
    compare(folder, left_alone("gridworld"))


def test_a_damaged_checkpoint_is_skipped_and_the_run_ends_the_same(left_alone, tmp_path, capsys):
    folder = tmp_path / "run"
    killed("learning", 7, "train", *RUNS["cartpole"].split(), "--out", str(folder))
    assert steps_of(folder) == [384, 640]
    weights = newest(folder) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert main(["resume", str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"skipped {newest(folder).parent / 'step-000000000640'}: damaged: weights.safetensors" in said
    assert f"resuming from {newest(folder).parent / 'step-000000000384'}" in said
    compare(folder, left_alone("cartpole"))


def test_a_run_without_a_usable_checkpoint_is_refused(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", *RUNS["gridworld"].split(), "--out", str(folder)]) == 0
    for path in (folder / "checkpoints").iterdir():
        (path / "manifest.json").unlink()
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no usable checkpoint: ")
    assert said.count("manifest.json is missing") == 2


@pytest.mark.slow
def test_a_new_end_is_kept_through_another_interruption(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", *RUNS["gridworld"].split(), "--out", str(folder)]) == 0
    killed("learning", 2, "resume", str(folder), "--total-steps", "1500")
    assert main(["resume", str(folder)]) == 0
    assert json.loads((folder / "summary.json").read_text())["env_steps"] == 1536
    assert json.loads((folder / "config.json").read_text())["run"]["total_steps"] == 1500
    evaluated = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in evaluated if "return/eval" in row] == [384, 640, 1024, 1280, 1536]


def test_a_new_end_that_is_past_finishes_the_run(tmp_path):
    folder = tmp_path / "run"
    assert main(["train", *RUNS["gridworld"].split(), "--out", str(folder)]) == 0
    assert main(["resume", str(folder), "--total-steps", "700"]) == 0
    assert json.loads((folder / "summary.json").read_text())["env_steps"] == 1024


@pytest.mark.parametrize(("name", "value"), [("next_eval", "soon"), ("unrecorded_lengths", {}), ("wall_seconds", None)])
def test_counters_of_another_kind_are_refused(name, value):
    words = {"total_steps": 1000, "num_envs": 8}
    session = open_session(resolve("ppo", "mlbits/GridWorld-v0", preset="none", run=words))
    checkpoint = session.to_checkpoint()
    session.from_checkpoint(checkpoint, None)
    checkpoint.state[name] = value
    with pytest.raises(CheckpointError, match=f"^step 0: foreign: .*state.json: {name} is {value!r}"):
        session.from_checkpoint(checkpoint, None)
