"""The table of the classic agents: its rows, and the command; training itself is replaced."""

import json
import re
import threading
from pathlib import Path

import pytest

from mlbits.agents import AGENTS
from mlbits.cli import main
from mlbits.evals.reproductions import classic, comparison, results_page
from mlbits.evals.reproductions.classic import ENTRIES, reproduce
from mlbits.selfplay.runs.flags import parse_train


@pytest.fixture
def trained(monkeypatch):
    """Training replaced; the score is the row's target, or a test's value for (agent, task)."""
    calls, scores, lock = [], {}, threading.Lock()

    def train(agent, env, seed, *flags, out):
        calls.append((agent, env, seed))
        out.mkdir(parents=True)
        with lock:  # the real one has a process of its own
            settings = parse_train([agent, env, "--seed", str(seed), *flags])[0].to_json()
        (out / "config.json").write_text(json.dumps(settings))
        steps = settings["run"]["total_steps"]
        summary = {"return_mean": scores.get(agent, 500.0), "env_steps": steps, "cpu_seconds": steps / 1000}
        (out / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(comparison, "train_in_process", train)
    return calls, scores


def test_rows_have_unique_names():
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    runs = {}
    for entry in ENTRIES:
        for training in entry.trainings([0], reference=True):
            place = (training.task, training.label)
            assert runs.setdefault(place, training) == training, f"two runs in one folder: {place}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_row_can_be_trained_and_asks_for_more_than_random_play(entry):
    for training in entry.trainings([7], reference=True):
        settings = parse_train([training.agent, training.task, "--seed", "7", *training.words()])[0]
        assert (settings.run.total_steps, settings.run.seed) == (entry.steps, 7)
        assert (settings.run.eval_episodes, settings.run.eval_greedy, settings.run.device) == (100, True, "cpu")
    assert entry.random < entry.target <= entry.published
    half = entry.random + classic.QUICK_SHARE * (entry.target - entry.random)
    assert entry.random < half < entry.target


def test_targets_follow_the_stated_rule():
    for entry in ENTRIES:
        wanted = {
            "CartPole-v1": 475,
            "Pendulum-v1": -170 if entry.agent == "ddpg" else -180,
            "HalfCheetah-v5": 0.9 * entry.published,
        }.get(entry.task, entry.published - (entry.spread or 0))
        assert entry.target == pytest.approx(wanted), entry.name


def test_the_page_of_results_has_rows_of_this_table():
    page = Path(__file__).parents[3] / "docs" / "results.md"
    before, after = results_page.read_page(page, "classic")
    section = page.read_text()[len(before) : -len(after)]
    rows = re.findall(r"^\| (\S+-v\d) \| (\S+) \| (\S+) \| [^|]+ \| (\S+) \| [^|]+ \| ([^|]+) \|", section, re.M)
    assert rows
    wanted = {}
    for entry in ENTRIES:
        cells = results_page._cells(entry.row({}, []))
        wanted[entry.task, entry.label] = (cells[2], cells[4], cells[6])
    for task, label, *cells in rows:
        assert tuple(cells) == wanted[task, label], f"{task} {label}: the page was written by another table"


def test_the_quick_form_trains_little_and_can_fail(trained, capsys):
    calls, scores = trained
    result = reproduce(quick=True)
    assert result["met"]
    assert {agent for agent, _, _ in calls} == {"ppo", "dqn"}
    assert len(calls) == 2 * classic.QUICK_SEEDS
    scores["dqn"] = 240.0  # half of the way from 22.6 to 475 is 248.8
    assert not reproduce(quick=True)["met"]
    scores["dqn"] = 250.0
    assert reproduce(quick=True)["met"]
    assert "CartPole-v1 dqn" in capsys.readouterr().out


def test_the_command_selects_resumes_and_writes_its_page(trained, tmp_path, capsys):
    calls, scores = trained
    out, page, file = tmp_path / "runs", tmp_path / "page.md", tmp_path / "result.json"
    page.write_text("top\n<!-- results: classic -->\n<!-- end of results: classic -->\nend\n")
    words = ["reproduce", "classic", "--out", str(out), "--jobs", "1", "--seeds", "3", "--page", str(page)]
    words += ["--no-reference", "--json", str(file), "--select"]
    assert main([*words, "cartpole/ppo"]) == 0
    assert sorted(calls) == [("ppo", "CartPole-v1", seed) for seed in range(3)]
    result = json.loads(file.read_text())
    assert [row["label"] for row in result["rows"]] == ["ppo"]
    assert (result["seeds"], result["failures"], result["normalized"], result["met"]) == ([0, 1, 2], {}, None, True)
    calls.clear()
    scores["dqn"] = 474.0
    assert main([*words, "cartpole/ppo", "cartpole/dqn"]) == 1
    assert {agent for agent, _, _ in calls} == {"dqn"}
    calls.clear()
    assert main([*words, "cartpole/dqn"]) == 1
    assert calls == []
    text = page.read_text()
    assert text.startswith("top\n<!-- results: classic -->\n\n| task |")
    assert text.endswith("<!-- end of results: classic -->\nend\n")
    assert "| CartPole-v1 | ppo | 100,000 | **500 (all 3 equal)** |" in text  # not selected now, but there
    assert "| CartPole-v1 | dqn | 50,000 | 474 (all 3 equal) |" in text
    assert "missed" in capsys.readouterr().out


def test_the_reference_is_shown_beside_ours(trained, monkeypatch, capsys):
    calls, scores = trained
    entry = next(entry for entry in ENTRIES if entry.name == "CartPole-v1/ppo")
    scores[entry.reference] = 320.0
    result = reproduce(select=("cartpole/ppo",), seeds=2)
    assert sorted({agent for agent, _, _ in calls}) == ["ppo", entry.reference]
    (row,) = result["rows"]
    assert row["reference"]["iqm"] == 320
    assert result["normalized"]["ours"]["iqm"] == pytest.approx(1)
    assert result["normalized"]["reference"]["iqm"] == pytest.approx((320 - 22.6) / (500 - 22.6))
    assert result["met"], "only ours has to reach the target"
    assert "reference, normalised: 0.62 (no interval) over 1 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0"], "seeds: got 0; wanted at least 1"),
        (["--jobs", "0"], "jobs: got 0; wanted at least 1"),
        (["--select", "pong"], "select: no row matches 'pong'; wanted any of CartPole-v1/ppo, "),
        (["--page", "absent.md"], "page: absent.md cannot be read"),
        (["--device", "tpu"], "device: got 'tpu'"),
        (["--selct", "x"], "did you mean --select?"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_trained(trained, capsys, flags, message):
    assert main(["reproduce", "classic", *flags]) == 2
    assert message in capsys.readouterr().err
    assert trained[0] == []


def test_missing_packages_are_reported_before_training(trained, monkeypatch, capsys):
    calls, _ = trained
    monkeypatch.delitem(AGENTS, "dqn")
    assert main(["reproduce", "classic", "--select", "cartpole"]) == 2
    assert "unknown agent 'dqn'" in capsys.readouterr().err
    assert calls == []
