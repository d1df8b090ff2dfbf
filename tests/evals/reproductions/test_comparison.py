"""Tables of training runs: which runs are trained or read again, and when targets are met; training is replaced."""

import contextlib
import dataclasses
import json
import math
import signal
import subprocess
import sys
import threading

import pytest

from mlbits.evals.jobs.executors import open_executor
from mlbits.evals.jobs.in_process import InProcess
from mlbits.evals.jobs.job import job_from
from mlbits.evals.reproductions import comparison, reproduction, results_page
from mlbits.evals.reproductions.comparison import Entry, Result, Runs, Training, choose, normalized, summarize
from mlbits.evals.reproductions.reproduction import ReproductionError, train_in_process
from mlbits.selfplay.runs.flags import parse_train
from mlbits.selfplay.runs.one_writer import InUseError, one_writer

ENTRY = Entry(
    task="CartPole-v1", label="wide", agent="ppo", flags="--agent.hidden 32", steps=640, target=475.0, published=500.0,
    spread=10.0, source="paper", reference="reinforce", random=20.0,
)  # fmt: skip


@pytest.fixture
def trained(monkeypatch):
    """Training replaced by a function that writes the same files: config.json and summary.json."""
    calls, lock = [], threading.Lock()

    def train(agent, env, seed, *flags, out):
        calls.append((agent, env, seed, *flags))
        if not (out / "config.json").exists():
            out.mkdir(parents=True, exist_ok=True)
            with lock:  # the real one has a process of its own
                settings = parse_train([agent, env, "--seed", str(seed), *flags])[0].to_json()
            facts = {"version": "1.2", "git_hash": "0123456789abcdef+", "torch": "2.0"}
            (out / "config.json").write_text(json.dumps(settings | facts))
        score = {"ppo": 480.0, "reinforce": 300.0}[agent] + seed
        summary = {"return_mean": score, "env_steps": 640, "cpu_seconds": 2.0 + seed}
        (out / "summary.json").write_text(json.dumps(summary))
        return summary

    monkeypatch.setattr(comparison, "train_in_process", train)
    return calls


@pytest.fixture
def said():
    return []


@pytest.fixture
def runs(tmp_path, said):
    return Runs(tmp_path / "runs", say=said.append)


def row(scores, others=(), entry=ENTRY, seeds=None):
    results = {entry.ours(seed): Result(score, 100.0 + seed) for seed, score in enumerate(scores)}
    results |= {entry.reference_run(seed): Result(score, 10.0) for seed, score in enumerate(others)}
    return entry.row(results, range(len(scores) if seeds is None else seeds))


# Rows


@pytest.mark.parametrize(
    ("scores", "met"),
    [
        ([500, 500, 480, 470, 100], True),  # the middle three: 500 (one is cut), 480, 470: 483.3
        ([500, 475, 475, 475, 100], True),
        ([500, 475, 475, 474, 500], True),
        ([500, 500, 462, 460, 100], False),  # 474
        ([475, 475], True),
        ([474, 475], False),
    ],
)
def test_a_row_is_met_by_its_interquartile_mean(scores, met):
    assert row(scores)["met"] is met


def test_a_row_with_a_missing_run_is_not_met():
    assert row([500, 500])["met"]
    assert not row([500, 500], seeds=3)["met"]
    assert not row([], seeds=1)["met"]
    assert row([], seeds=1)["ours"] is None


def test_a_row_holds_what_was_measured():
    found = row([480, 490, 500], [300, 310])
    assert (found["task"], found["label"], found["reference_agent"]) == ("CartPole-v1", "wide", "reinforce")
    assert found["ours"]["scores"] == [480, 490, 500]
    assert found["ours"]["iqm"] == pytest.approx(490)
    assert found["ours"]["steps_per_cpu_second"] == 101
    # Three runs: Student's, deviation 10, 4.3027 standard errors.
    half = 4.30265 * 10 / 3**0.5
    assert found["ours"]["interval"] == pytest.approx([490 - half, 490 + half], abs=1e-3)
    assert found["reference"]["iqm"] == pytest.approx(305)
    assert json.loads(json.dumps(found)) == found


def test_the_summary_of_no_runs_is_none():
    assert summarize([]) is None


def test_scores_are_normalized_by_random_play_and_the_published_figure():
    """Random play at 20 is 0, the published 500 is 1."""
    rows = [row([500, 260], [20, 20]), row([740, 500], [260, 260]), row([0, 0])]  # the last lacks its reference
    ours = normalized(rows, "ours")
    assert ours["rows"] == 2
    assert ours["iqm"] == pytest.approx(1.0)  # 0.5, 1, 1, 1.5
    assert normalized(rows, "reference")["iqm"] == pytest.approx(0.25)
    assert normalized(rows, "reference")["interval"] == [-math.inf, math.inf]  # no spread within rows
    # 0.5 and 1, 1 and 1.5: of each row twice the variance 1/8; (1/4 + 1/4) / 4^2, and 2 degrees of freedom.
    half = 4.30265 * (0.5 / 16) ** 0.5
    assert ours["interval"] == pytest.approx([1 - half, 1 + half], abs=1e-4)
    assert normalized([row([0, 0])], "ours") is None


# What is trained


def test_runs_of_a_row_are_ours_then_the_references():
    trainings = ENTRY.trainings([0, 3], reference=True)
    assert [(run.agent, run.seed) for run in trainings] == [("ppo", 0), ("ppo", 3), ("reinforce", 0), ("reinforce", 3)]
    assert trainings[0].words("cuda")[:2] == ["--agent.hidden", "32"]
    assert trainings[2].flags == ""
    assert {run.steps for run in trainings} == {640}
    assert ENTRY.trainings([0, 3], reference=False) == trainings[:2]
    alone = dataclasses.replace(ENTRY, reference=None)
    assert alone.trainings([0, 3], reference=True) == trainings[:2]


def test_rows_are_selected_by_task_and_label():
    entries = [
        dataclasses.replace(ENTRY, task=task, label=label)
        for task, label in (("CartPole-v1", "ppo"), ("LunarLander-v3", "ppo"), ("LunarLanderContinuous-v3", "ddpg"))
    ]

    def names(*patterns):
        return [entry.name for entry in choose(entries, patterns)]

    assert names() == [entry.name for entry in entries]
    assert names("cartpole") == ["CartPole-v1/ppo"]
    assert names("lunarlander") == names("LunarLander") == ["LunarLander-v3/ppo", "LunarLanderContinuous-v3/ddpg"]
    assert names("lunarlander-v3") == ["LunarLander-v3/ppo"]
    assert names("*/ddpg", "cartpole/ppo", "cartpole") == ["CartPole-v1/ppo", "LunarLanderContinuous-v3/ddpg"]
    with pytest.raises(ReproductionError, match="select: no row matches 'pong'; wanted any of CartPole-v1/ppo, "):
        names("cartpole", "pong")


def test_runs_are_trained_once_and_then_read(runs, trained, said):
    wanted = ENTRY.trainings(range(2), reference=True)
    results, failures = runs.all(wanted + wanted)
    assert failures == {}
    assert {call[1] for call in trained} == {"CartPole-v1"}
    assert [(call[0], call[2]) for call in trained] == [("ppo", 0), ("ppo", 1), ("reinforce", 0), ("reinforce", 1)]
    assert trained[0][3:] == tuple(wanted[0].words())
    assert results[wanted[1]] == Result(481.0, 640 / 3)
    assert said[0] == "4 trainings: 0 finished before, 4 to do"
    trained.clear()
    again, _ = Runs(runs.folder, say=said.append).all([*wanted, ENTRY.ours(2)])
    assert [call[2] for call in trained] == [2]
    assert {run: again[run] for run in wanted} == results
    assert runs.read(wanted) == results


def test_progress_is_reported_after_every_run(runs, trained):
    wanted = ENTRY.trainings(range(3), reference=False)
    runs.all(wanted[:1])
    counts = []
    runs.all(wanted, done=lambda results: counts.append(len(results)))
    assert counts == [1, 2, 3]


class Backwards(InProcess):
    """Runs the job that came last: what several processes may do."""

    slots = 3

    def next(self):
        self._waiting.rotate()
        return super().next()


def test_results_do_not_depend_on_which_run_ends_first(tmp_path, trained, monkeypatch):
    wanted = ENTRY.trainings(range(4), reference=True)
    one, _ = Runs(tmp_path / "one", say=lambda line: None).all(wanted)
    order = list(trained)
    trained.clear()
    monkeypatch.setattr(comparison, "open_executor", lambda *given, **more: contextlib.nullcontext(Backwards()))
    several, _ = Runs(tmp_path / "several", say=lambda line: None).all(wanted)
    assert several == one
    assert sorted(trained) == sorted(order)
    assert trained != order


def test_jobs_and_cluster_say_where_runs_are_trained(runs, trained, monkeypatch):
    asked = []
    monkeypatch.setattr(
        comparison, "open_executor", lambda *given, **more: asked.append((given, more)) or open_executor()
    )  # fmt: skip
    Runs(runs.folder, say=lambda line: None, cluster="host:6379").all([ENTRY.ours(0)], jobs=3)
    assert asked == [((3, "host:6379"), {"folder": runs.folder})]


def test_a_run_is_a_job_of_its_settings(runs, trained):
    training = ENTRY.ours(0)
    job = runs._job(training)
    assert job.key != runs._job(ENTRY.ours(1)).key != Runs(runs.folder, "cuda")._job(ENTRY.ours(1)).key
    found = job_from(job.text()).compute()  # as another process does it
    assert Result(**found) == Result(480.0, 320.0) == runs.stored(training)


def test_a_failing_run_does_not_stop_others(runs, trained, said, monkeypatch):
    working = comparison.train_in_process

    def train(agent, env, seed, *flags, out):
        if seed == 1:
            raise ReproductionError("train failed: no more memory")
        return working(agent, env, seed, *flags, out=out)

    monkeypatch.setattr(comparison, "train_in_process", train)
    results, failures = runs.all(ENTRY.trainings(range(3), reference=False))
    assert sorted(run.seed for run in results) == [0, 2]
    assert failures == {ENTRY.ours(1): "train failed: no more memory (tried 2 times)"}
    assert "CartPole-v1 wide seed 1: train failed: no more memory; running it again" in said
    assert any("CartPole-v1 wide seed 1: failed: train failed: no more memory" in line for line in said)
    assert not ENTRY.row(results, range(3))["met"]


def test_an_interruption_begins_no_further_run(runs, trained, monkeypatch):
    working = comparison.train_in_process

    def train(agent, env, seed, *flags, out):
        if seed == 2:
            raise KeyboardInterrupt
        return working(agent, env, seed, *flags, out=out)

    monkeypatch.setattr(comparison, "train_in_process", train)
    with pytest.raises(KeyboardInterrupt):
        runs.all(ENTRY.trainings(range(6), reference=False))
    assert [call[2] for call in trained] == [0, 1]
    with one_writer(runs.folder):  # it is free again
        pass


def test_a_folder_has_one_driver(runs, trained):
    runs.folder.mkdir()
    with one_writer(runs.folder), pytest.raises(InUseError, match=f"^{runs.folder}: process .* is writing it; wanted"):
        runs.all([ENTRY.ours(0)])
    assert trained == []


# What is in the folders


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "null", "{}", '{"return_mean": null, "env_steps": 640, "cpu_seconds": 1}',
     '{"return_mean": NaN, "env_steps": 640, "cpu_seconds": 1}',
     '{"return_mean": 500, "env_steps": 64, "cpu_seconds": 1}',
     '{"return_mean": 500, "env_steps": 640, "cpu_seconds": 0}'],
)  # fmt: skip
def test_a_damaged_result_is_evaluated_again(runs, trained, said, damage):
    training = ENTRY.ours(0)
    whole = runs.all([training])[0]
    (runs.path(training) / "summary.json").write_text(damage)
    assert runs.read([training]) == {}
    trained.clear()
    assert runs.all([training])[0] == whole
    assert len(trained) == 1
    assert any("summary.json: damaged (" in line for line in said)


def test_an_interrupted_run_is_resumed(runs, trained, said):
    training = ENTRY.ours(0)
    runs.all([training])
    (runs.path(training) / "summary.json").unlink()
    assert runs.difference(training) is None
    runs.all([training])
    assert len(trained) == 2
    assert not any("damaged" in line or "anew" in line for line in said)
    assert [path.name for path in runs.path(training).parent.iterdir()] == ["seed-0"]


def test_a_run_that_cannot_be_resumed_is_trained_again(runs, trained, said, monkeypatch):
    training, working = ENTRY.ours(0), comparison.train_in_process
    whole = runs.all([training])[0]
    (runs.path(training) / "summary.json").unlink()

    def train(*words, out):
        if (out / "config.json").exists():
            raise ReproductionError("resume failed: it keeps no replay")
        return working(*words, out=out)

    monkeypatch.setattr(comparison, "train_in_process", train)
    assert runs.all([training]) == (whole, {})
    assert any("seed-0-before-1 (resume failed: it keeps no replay)" in line for line in said)


def test_a_run_of_other_settings_is_moved_aside(runs, trained, said):
    runs.all([ENTRY.ours(0)])
    for k, (hidden, why) in enumerate((("48", "agent.hidden was (32,), is (48,)"), ("16", "was (48,), is (16,)")), 1):
        other = dataclasses.replace(ENTRY, flags=f"--agent.hidden {hidden}")
        assert runs.read([other.ours(0)]) == {}
        runs.all([other.ours(0)])
        aside = runs.path(other.ours(0)).with_name(f"seed-0-before-{k}")
        assert (aside / "summary.json").exists()
        assert any(f"is now {aside} (" in line and why in line for line in said)
        assert len(trained) == k + 1


@pytest.mark.parametrize("config", ["{", "[]", '{"agent": "ppo"}', None])
def test_a_folder_that_is_not_a_run_is_moved_aside(runs, trained, config):
    folder = runs.path(ENTRY.ours(0))
    folder.mkdir(parents=True)
    (folder / ("notes.txt" if config is None else "config.json")).write_text(config or "mine")
    results, failures = runs.all([ENTRY.ours(0)])
    assert not failures
    assert results
    assert (folder.with_name("seed-0-before-1") / ("notes.txt" if config is None else "config.json")).exists()


def test_runs_may_move_to_another_machine(runs, trained):
    """Neither the device nor the number of threads makes it another run."""
    training = ENTRY.ours(0)
    results = runs.all([training])[0]
    assert Runs(runs.folder, "cuda").read([training]) == results
    config = runs.path(training) / "config.json"
    data = json.loads(config.read_text())
    data["run"] |= {"threads": 4}
    config.write_text(json.dumps(data))
    assert runs.read([training]) == results


def test_settings_missing_in_older_runs_have_their_defaults(runs, trained):
    training = ENTRY.ours(0)
    results = runs.all([training])[0]
    config = runs.path(training) / "config.json"
    data = json.loads(config.read_text())
    del data["run"]["solved_episodes"], data["agent_config"]["clip_coef"]
    config.write_text(json.dumps(data))
    assert runs.read([training]) == results


# Real training, in a folder that is kept


@pytest.mark.slow
def test_a_run_in_a_kept_folder_is_resumed(tmp_path):
    flags = "--preset none --num-envs 4 --agent.num-steps 16 --no-video --total-steps 128".split()
    out = tmp_path / "run"
    first = train_in_process("ppo", "CartPole-v1", 3, *flags, out=out)
    (out / "summary.json").unlink()
    again = train_in_process("ppo", "CartPole-v1", 3, *flags, out=out)
    assert (again["return_mean"], again["env_steps"]) == (first["return_mean"], 128)


def test_a_run_that_cannot_begin_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(reproduction.sys, "executable", "sleep")  # every word after it is wrong, so that it says so
    with pytest.raises(ReproductionError, match=r"mlbits train ppo CartPole-v1 .* failed: .*sleep"):
        train_in_process("ppo", "CartPole-v1", 3, out=tmp_path / "run")


def test_a_run_ends_with_the_process_that_waits_for_it(monkeypatch):
    """It has a pipe from that process, whose end tells it so; here the pipe is closed at once."""
    program = reproduction._PROGRAM.partition("from mlbits.cli")[0] + "import time; time.sleep(50)"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.DEVNULL) as process:
        assert process.wait() == -signal.SIGTERM


# Pages


PAGE = "# Results\n\nbefore\n\n<!-- results: x -->\n\nold\n\n<!-- end of results: x -->\n\nafter\n"


def test_a_row_with_fewer_runs_says_so():
    rows = [row([500, 500, 500], [300, 310, 320]), row([500, 500], [300], seeds=3)]
    lines = results_page.markdown(rows, None, ["mlbits"]).splitlines()[2:4]
    assert "runs" not in lines[0]
    assert "500 (all 2 equal), 2 of 3 runs" in lines[1]
    assert "300 (no interval), 1 of 3 runs" in lines[1]


def test_a_section_of_a_page_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    results_page.write_page(page, "x", "new ± lines")
    assert page.read_text() == PAGE.replace("old", "new ± lines")
    results_page.write_page(page, "x", "new ± lines")
    assert page.read_text() == PAGE.replace("old", "new ± lines")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "lacks <!-- results: x -->; wanted both markers"),
        (PAGE.replace("<!-- end of results: x -->", ""), "lacks <!-- end of results: x -->"),
        (PAGE.replace("x -->", "y -->"), "lacks <!-- results: x -->"),
    ],
)
def test_pages_without_the_section_are_refused(tmp_path, text, message):
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(ReproductionError, match=message):
        results_page.read_page(page, "x")


def test_rows_in_markdown():
    rows = [row([480, 490, 500], [300]), row([100, 100]), row([500], entry=dataclasses.replace(ENTRY, spread=None))]
    overall = {side: normalized(rows, side) for side in ("ours", "reference")}
    text = results_page.markdown(rows, overall, ["mlbits 0, cpu", "mlbits 1, cpu"])
    lines = text.splitlines()
    ours, reference = "**490 [465.2, 514.8]**", "300 (no interval), 1 of 3 runs"
    assert lines[2] == f"| CartPole-v1 | wide | 640 | {ours} | 475 | {reference} | 500 ± 10 (paper) | 101, 10 |"
    assert lines[3] == (
        "| CartPole-v1 | wide | 640 | 100 (all 2 equal), 2 of 3 runs | 475 | - | 500 ± 10 (paper) | 100, - |"
    )
    assert "500 (paper)" in lines[4]
    assert "Over the 1 rows that have both" in text
    assert lines[6] == results_page.INTERVALS
    assert "ours 0.98 [0.93, 1.03], reference 0.58 (no interval)." in text
    assert "`mlbits train ppo CartPole-v1 --agent.hidden 32 --total-steps 640`" in text
    assert lines[-1] == "Made with mlbits 0, cpu; mlbits 1, cpu."
    assert "wanted 475: met; reinforce 300 (no interval); published 500 ± 10 (paper)" in results_page.line(rows[0])


def test_versions_are_those_that_the_runs_record(runs, trained):
    trainings = [Training("ppo", "CartPole-v1", "ppo", "", 640, seed) for seed in range(4)]
    runs.all(trainings)
    folders = [runs.path(training) for training in trainings]
    first, second = "0123456789" * 4, "abcdef0123" * 4
    for folder, commit in zip(folders, (second + "+", first, second + "+", None), strict=True):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"git_hash": commit}))
    assert results_page.made_with(folders) == ["mlbits 1.2, torch 2.0, cpu (0123456789, abcdef0123+)"]
    assert results_page.made_with(folders[3:]) == ["mlbits 1.2, torch 2.0, cpu"]
