"""Ctrl-C, SIGTERM, SIGHUP and a closed pipe save a run; resumed it ends bit for bit like an uninterrupted one."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from mlbits.cli import main
from mlbits.selfplay.interrupts import Interrupts, RunInterrupted
from mlbits.selfplay.runs.saved_agents import load_agent
from mlbits.selfplay.training import resume, train
from tests.selfplay.test_resume import ROOT, RUNS, compare, left_alone, newest, steps_of  # noqa: F401

STATUS = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}
STILL = "--total-steps 1000 --preset none --num-envs 8 --eval-every 0 --no-video --quiet"


def signalled(moment, count, signals, *words):
    """Run ``mlbits`` in a process that gets signals at the count-th occurrence of a moment."""
    command = [sys.executable, "-m", "tests.selfplay.signalled", moment, str(count), signals, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    ("name", "moment", "count", "signals", "saved"),
    [
        # Iterations of 128 steps; every 16th call is a rollout's first.
        ("cartpole", "collecting", 70, "SIGINT", [384, 640]),
        pytest.param("cartpole", "learning", 6, "SIGTERM", [640, 768], marks=pytest.mark.slow),
        # A checkpoint comes after it in any case.
        pytest.param("cartpole", "evaluating", 1, "SIGHUP", [384], marks=pytest.mark.slow),
        pytest.param("gridworld", "learning", 1, "SIGINT", [128], marks=pytest.mark.slow),
        pytest.param("league", "learning", 6, "SIGINT", [640, 768], marks=pytest.mark.slow),
        pytest.param("pool, long episodes", "learning", 6, "SIGINT", [640, 768], marks=pytest.mark.slow),
        # Iterations of 32 steps, and a record every 50: at 192 half of the next one is noted.
        pytest.param("replay", "collecting", 23, "SIGINT", [192], marks=pytest.mark.slow),
        pytest.param("replay, continuous", "learning", 20, "SIGTERM", [608, 640], marks=pytest.mark.slow),
        pytest.param("trust region", "saving", 2, "SIGINT", [384], marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_is_saved_and_ends_like_an_uninterrupted_one(
    name, moment, count, signals, saved, left_alone, tmp_path  # noqa: F811
):  # fmt: skip
    folder = tmp_path / "a run"
    done = signalled(moment, count, signals, "train", *RUNS[name].split(), "--out", str(folder))
    assert done.returncode == STATUS[signals], done.stderr
    assert steps_of(folder) == saved
    assert f"{signals}: finishing the iteration, then saving; a second signal stops at once" in done.stderr
    assert f"{signals}: stopped after {saved[-1]:,} steps; saved: {newest(folder)}\n" in done.stderr
    how = re.search(r"^to continue: mlbits (resume .*)$", done.stderr, re.M)[1]
    assert not (folder / "summary.json").exists()
    assert main(shlex.split(how)) == 0
    compare(folder, left_alone(name))


@pytest.mark.slow
def test_a_run_on_a_wrapped_environment_can_be_interrupted_and_resumed(tmp_path):
    folder = tmp_path / "run"
    done = signalled("learning", 3, "SIGINT", "train", *RUNS["wrapped"].split(), "--out", str(folder))
    assert (done.returncode, steps_of(folder)) == (130, [384])
    assert main(["resume", str(folder)]) == 0
    assert json.loads((folder / "summary.json").read_text())["env_steps"] == 1024


@pytest.mark.slow
def test_a_run_interrupted_repeatedly(left_alone, tmp_path):  # noqa: F811
    folder = tmp_path / "run"
    assert signalled("learning", 2, "SIGINT", "train", *RUNS["replay"].split(), "--out", str(folder)).returncode == 130
    for count in (1, 7):
        assert signalled("collecting", count, "SIGTERM", "resume", str(folder)).returncode == 143
    assert main(["resume", str(folder)]) == 0
    compare(folder, left_alone("replay"))


@pytest.mark.parametrize(
    ("moment", "count", "kept"),
    [
        pytest.param("learning", 5, [384], marks=pytest.mark.slow),
        ("saving", 3, [384]),
        pytest.param("evaluating", 2, [384], marks=pytest.mark.slow),
    ],
)
def test_a_second_signal_stops_at_once_and_harms_nothing(moment, count, kept, left_alone, tmp_path):  # noqa: F811
    folder = tmp_path / "run"
    done = signalled(moment, count, "SIGINT,SIGINT", "train", *RUNS["cartpole"].split(), "--out", str(folder))
    assert done.returncode == 130
    assert f"stopped at once; to continue from the newest checkpoint: mlbits resume {folder}" in done.stderr
    assert steps_of(folder) == kept
    assert main(["resume", str(folder)]) == 0
    compare(folder, left_alone("cartpole"))


def test_a_terminals_ctrl_c_that_a_parent_passes_on_is_one_request(tmp_path):
    folder = tmp_path / "run"
    words = ["train", *RUNS["cartpole"].split(), "--out", str(folder)]
    assert signalled("learning", 2, "SIGINT,SIGTERM", *words).returncode == 130
    assert steps_of(folder) == [256]


def test_an_interruption_before_the_run_saves_nothing(tmp_path):
    folder = tmp_path / "run"
    done = signalled("opening", 1, "SIGINT", "train", *RUNS["gridworld"].split(), "--out", str(folder))
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted before the run began")
    assert not folder.exists()


@pytest.mark.slow
def test_a_signal_at_the_end_of_a_run(left_alone, tmp_path):  # noqa: F811
    folder = tmp_path / "run"
    done = signalled("finishing", 1, "SIGTERM", "train", *RUNS["gridworld"].split(), "--out", str(folder))
    assert done.returncode == 143
    assert f"SIGTERM: the run is finished: {folder}\nevaluate: mlbits eval {folder}" in done.stderr
    compare(folder, left_alone("gridworld"))


def test_a_closed_pipe_ends_the_run_after_saving(left_alone, tmp_path):  # noqa: F811
    folder = tmp_path / "run"
    words = [word for word in RUNS["cartpole"].split() if word != "--quiet"]
    # A line of progress for every record, so that the second one finds the pipe closed.
    code = (
        "import sys; from mlbits.selfplay.curves import progress; progress._PLAIN_LINE_EVERY = 0; "
        "from mlbits.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "train", *words, "--out", str(folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline().startswith("training ppo on")
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 141
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    assert f"closed pipe: stopped after {steps_of(folder)[-1]:,} steps; saved: {newest(folder)}" in said
    assert f"to continue: mlbits resume {folder}" in said
    assert steps_of(folder)[-1] < 1024
    assert main(["resume", str(folder)]) == 0
    compare(folder, left_alone("cartpole"))


def test_rich_text_into_a_closed_pipe_is_a_closed_pipe_too(tmp_path, monkeypatch):
    """The output goes through rich, which would end the process by itself."""
    from mlbits.selfplay.curves.tracking import Tracker

    closed = []
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", pipe)
        tracker = Tracker(tmp_path, 100, on_closed_pipe=lambda: closed.append(1))
        tracker.say("hello")
        tracker.say("again")
        tracker.record(10, {"speed/steps_per_second": 1.0})
        tracker.close()
        assert closed == [1]
        patched.setattr(pipe, "flush", lambda: None)
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"env_steps": 10, "speed/steps_per_second": 1.0}


# From Python


def interrupted_at(learning, monkeypatch, *numbers):
    from mlbits.selfplay.session import Session

    original, calls = Session.learn, []

    def learn(self, rollout):
        calls.append(1)
        if len(calls) == learning:
            for number in numbers:
                os.kill(os.getpid(), number)
        return original(self, rollout)

    monkeypatch.setattr(Session, "learn", learn)


def settings(env="mlbits/CartPole-v0"):
    from mlbits.selfplay.runs.config import resolve

    run = {"total_steps": 640, "num_envs": 8, "eval_every": 0, "eval_episodes": 1, "video": False}
    return resolve("ppo", env, preset="none", run=run, agent_settings={"hidden": [8], "num_steps": 16})


def test_python_gets_a_keyboard_interrupt_after_the_run_was_saved_and_its_handlers_back(tmp_path, monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        folder = tmp_path / str(status)
        with monkeypatch.context() as patched:
            interrupted_at(2, patched, number)
            with pytest.raises(KeyboardInterrupt) as stopped:
                train(settings(), folder, console=False)
        assert isinstance(stopped.value, RunInterrupted)
        assert (stopped.value.status, stopped.value.folder) == (status, folder)
        assert stopped.value.checkpoint == folder / "checkpoints" / "step-000000000256"
        assert {number: signal.getsignal(number) for number in before} == before
        assert load_agent(folder)[2]["env_steps"] == 256
        assert resume(folder, console=False)[1]["env_steps"] == 640
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_programs_own_handlers_and_ignored_signals_are_left_alone(tmp_path, monkeypatch):
    got = []
    own = signal.signal(signal.SIGTERM, lambda *_: got.append("SIGTERM"))
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        interrupted_at(2, monkeypatch, signal.SIGTERM, signal.SIGHUP)
        assert train(settings(), tmp_path / "run", console=False)[1]["env_steps"] == 640
        assert got == ["SIGTERM"]
    finally:
        signal.signal(signal.SIGTERM, own)
        signal.signal(signal.SIGHUP, ignored)


def test_signals_are_only_handled_in_the_main_thread(tmp_path):
    found = []
    handlers = signal.getsignal(signal.SIGINT)

    def body():
        with Interrupts(tmp_path).watched():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [handlers]
    with Interrupts(tmp_path).watched():
        assert signal.getsignal(signal.SIGINT) != handlers


# Stable-Baselines3 and the other commands


@pytest.mark.slow
def test_stable_baselines3_cannot_be_resumed_but_its_model_is_saved(tmp_path, capsys):
    folder = tmp_path / "run"
    words = f"sb3-ppo mlbits/CartPole-v0 {STILL} --agent.n-steps 16 --agent.batch-size 16 --agent.hidden 8"
    code = (
        "import os, signal, sys; from stable_baselines3 import PPO; from mlbits.cli import main\n"
        "original, calls = PPO.train, []\n"
        "def train(self):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return original(self)\n"
        "PPO.train = train\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *words.split(), "--out", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert steps_of(folder) == [384]
    assert f"stopped after 384 steps; saved: {newest(folder)}" in done.stderr
    assert f"sb3-ppo cannot be resumed; to evaluate it: mlbits eval {folder}" in done.stderr
    assert main(["eval", str(folder), "--episodes", "1"]) == 0


@pytest.mark.parametrize(
    ("words", "place", "said"),
    [
        ("tournament random --env mlbits/Blotto-v0", "mlbits.evals.tournament.command.run_command", "the same command"),
        ("reproduce gridworld --quick", "mlbits.evals.registry.eval_entry", "with --out the same command continues"),
        ("exploit random --env mlbits/Blotto-v0", "mlbits.evals.exploitability.exploit.exploit", "interrupted"),
        ("bench ppo", "mlbits.evals.benchmarks.groups.run_benchmarks", "interrupted"),
        ("solve mlbits/GridWorld-v0", "mlbits.evals.solve.solve", "interrupted"),
        ("resume runs/mine", "mlbits.selfplay.runs.folder.finished_summary", "the same command resumes it"),
    ],
)
def test_other_commands_end_in_one_line(words, place, said, monkeypatch, capsys):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, stop)
    assert main(words.split()) == 130
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize("words", [["list"], ["--help"]])
def test_other_commands_into_a_closed_pipe_end_quietly(words):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "mlbits.cli", *words], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_an_interrupted_reproductions_run_is_saved(tmp_path):
    """By Ctrl-C while its process is waited for: the child is asked once, and saves."""
    from mlbits.evals.reproductions.reproduction import train_in_process

    folder, ended = tmp_path / "run", threading.Event()
    flags = ["--preset", "none", "--total-steps", "100000000", "--eval-every", "0", "--checkpoint-every", "0"]

    def interrupt():
        while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").stat().st_size:
            if ended.wait(0.02):
                return
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            train_in_process("ppo", "mlbits/CartPole-v0", 0, *flags, out=folder)
    finally:
        ended.set()
    assert len(steps_of(folder)) == 1
